"""The client and real histories: whatever happens, each message comes once and in order, or is told as missing."""

from __future__ import annotations

import random
from typing import Any

import pytest
from client_world import World, outcome
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx.client import Client, NoReply, State
from lhttp_tx.codec.limits import Limits
from lhttp_tx.history.values import Retention


class Kept:
    """Stores positions in memory."""

    def __init__(self) -> None:
        self.positions: dict[str, str] = {}

    def load(self) -> dict[str, str]:
        return self.positions

    def save(self, positions: Any) -> None:
        self.positions = dict(positions)


@pytest.fixture
def world(clock: Clock) -> World:
    return World(clock, Limits(), history=["room.*"])


def publish(world: World, channels: str | list[str], body: str, **headers: str) -> None:
    world.server.engine.publish(channels, "chat", headers, body)
    world.run()


def listening(
    world: World, told: list[Any], channels: list[str], got: dict[str, list[str]] | None = None, **options: Any
) -> tuple[Client, dict[str, list[str]]]:
    """A connected client, and what its subscriptions to *channels* get."""
    client = world.connected(
        on_recovered=lambda channel, count, _: told.append((channel, count)),
        on_missed=lambda channel, _: told.append((channel, None)),
        **options,
    )
    found: dict[str, list[str]] = {channel: [] for channel in channels} if got is None else got
    for channel in channels:
        client.subscribe(channel, lambda message, channel=channel: found[channel].append(message.text))  # type: ignore[misc]
    world.run()
    return client, found


def test_what_was_missed_comes_after_the_loss(world: World) -> None:
    told: list[Any] = []
    client, got = listening(world, told, ["room.a", "lobby"])
    publish(world, "room.a", "0")
    world.cut()
    for number in range(1, 4):
        publish(world, "room.a", str(number))
        publish(world, "lobby", str(number))
    world.run(1.0)
    publish(world, "room.a", "4")
    publish(world, "lobby", "4")
    assert client.state is State.CONNECTED
    assert got == {"room.a": ["0", "1", "2", "3", "4"], "lobby": ["4"]}
    assert told == [("room.a", 3)]


def test_the_last_messages_come_first(world: World) -> None:
    for number in range(5):
        publish(world, "room.a", str(number))
    client = world.connected()
    got: list[str] = []
    client.subscribe("room.a", lambda message: got.append(message.text), last=2)
    world.run()
    publish(world, "room.a", "live")
    assert got == ["3", "4", "live"]


def test_a_program_goes_on_where_it_stopped(world: World) -> None:
    kept, told = Kept(), []  # type: ignore[var-annotated]
    client, _ = listening(world, told, ["room.a"], positions=kept)
    publish(world, "room.a", "0")
    world.result(client.close())
    publish(world, "room.a", "1")
    _, got = listening(world, told, ["room.a"], positions=kept)
    assert (got["room.a"], told) == (["1"], [("room.a", 1)])


def test_a_history_that_does_not_reach_back_is_told(clock: Clock) -> None:
    world = World(clock, Limits(), history=["room.*"], retention=Retention(messages=2))
    told: list[Any] = []
    _, got = listening(world, told, ["room.a"])
    publish(world, "room.a", "0")
    world.cut()
    for number in range(1, 6):
        publish(world, "room.a", str(number))
    world.run(1.0)
    publish(world, "room.a", "6")
    assert (got["room.a"], told) == (["0", "6"], [("room.a", None)])


def test_publications_have_positions_and_a_second_one_is_told_as_that(world: World) -> None:
    client = world.connected()
    first = world.result(client.publish(["room.a", "lobby"], "chat", message_id="one"))
    second = world.result(client.publish(["room.a", "lobby"], "chat", message_id="one"))
    assert list(first.positions) == ["room.a"]
    assert (first.duplicate, second.duplicate, second.positions) == (False, True, first.positions)


def test_a_publication_whose_answer_was_lost_is_there_once(world: World) -> None:
    client = world.connected()
    got: list[str] = []
    client.subscribe("room.a", lambda message: got.append(message.text))
    world.run()
    sent = client.publish("room.a", "chat", body="x")
    (pump,) = world.endpoint.pumps
    while not pump.serverIO.stream:
        pump.pump()
        world.clock.advance(0)
    pump.serverIO.getOutBuffer()  # the server has it, and its answer is lost
    world.cut()
    world.run(1.0)
    assert outcome(sent).duplicate
    assert got == ["x"]


def test_history_is_read_page_by_page(world: World) -> None:
    for number in range(5):
        publish(world, "room.a", str(number))
    client = world.connected()
    first = world.result(client.history("room.a", limit=2))
    then = world.result(client.history("room.a", limit=3, since=first.position))
    assert [[message.text for message in page] for page in (first, then)] == [["0", "1"], ["2", "3", "4"]]
    assert (first.more, then.more) == (True, False)
    newest = world.result(client.history("room.a", limit=2, order="newest"))
    older = world.result(client.history("room.a", limit=2, order="newest", before=newest.start))
    assert [[message.text for message in page] for page in (newest, older)] == [["4", "3"], ["2", "1"]]
    assert newest[0].headers.get("publish") == "room.a"
    assert world.failure(client.history("lobby")).status == 404


def test_a_server_without_any_history_says_so(clock: Clock) -> None:
    world = World(clock, Limits())
    assert isinstance(world.failure(world.connected().history("room.a")), NoReply)


@pytest.mark.parametrize("seed", range(40))
def test_each_message_comes_once_and_in_order_or_is_told_as_missing(clock: Clock, seed: int) -> None:
    chance = random.Random(seed)
    kept_messages = chance.choice([3, 1_000])
    world = World(clock, Limits(), history=["room.*"], retention=Retention(messages=kept_messages))
    channels = ["room.a", "room.b", "room.c"]
    told: list[Any] = []
    kept = Kept()
    client, got = listening(world, told, channels, positions=kept)
    world.run()
    publisher = world.connected()
    published: dict[str, list[str]] = {channel: [] for channel in channels}
    sent: list[Deferred[Any]] = []
    for number in range(150):
        match chance.randrange(12):
            case 0:
                world.cut()
            case 1:
                world.run(1.0)
            case 2 | 3:
                world.endpoint.flush()
            case 4:
                world.result(client.close())
                client, got = listening(world, told, channels, got, positions=kept)
            case _:
                chosen = chance.sample(channels, chance.choice([1, 1, 2, 3]))
                body = str(number)
                for channel in chosen:
                    published[channel].append(body)
                sent.append(publisher.publish(chosen, "chat", body=body))
    for _ in range(5):
        world.run(1.0)
    assert not world.errors
    assert [one.called for one in sent] == [True] * len(sent)
    for one in sent:
        outcome(one)
    missed = {channel for channel, count in told if count is None}
    for channel in channels:
        assert len(set(got[channel])) == len(got[channel])
        if channel in missed:
            assert got[channel] == [body for body in published[channel] if body in set(got[channel])]
        else:
            assert got[channel] == published[channel]
    assert kept_messages == 3 or not missed
