"""The client and histories, against a server that is written by hand: each test says what it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pipes import at_once, put_pipe
from typing import Any

import pytest
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from client_world import MemoryEndpoint, error_of, outcome
from twisted.internet.task import Clock

from lhttp_tx import Message, Part
from lhttp_tx.client import (
    Client,
    ClientClosed,
    ConnectionLost,
    FilePositions,
    NoReply,
    ReplyError,
    RequestTimeout,
    State,
    multipart_message,
)
from lhttp_tx.codec.limits import UNLIMITED
from lhttp_tx.codec.message import parse
from lhttp_tx.codec.positions import mark
from lhttp_tx.errors import LHTTPError, LocalProtocolError, RemoteProtocolError


class Hand(WebSocketServerProtocol):
    """One connection of the server."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.world.heard_from(self, parse(payload, binary=isBinary, limits=UNLIMITED))


class HandWorld:
    """
    A server by hand, and its client.

    :ivar heard: what the client has sent.
    :ivar answers: the headers of the receipts of the next messages, in order; ``None`` for no answer. Past them, all
        messages get a bare receipt.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        factory = WebSocketServerFactory(reactor=clock)
        factory.protocol = Hand
        factory.world = self
        self.endpoint = MemoryEndpoint(factory, clock)
        self.heard: list[Message] = []
        self.answers: list[dict[str, str] | LHTTPError | None] = []
        self.connections: list[Hand] = []
        self.told: list[tuple[Any, ...]] = []
        self.errors: list[LHTTPError] = []
        self.others: list[Message] = []

    def client(self, **options: Any) -> Client:
        options = {
            "on_recovered": lambda *told: self.told.append(("recovered", *told)),
            "on_missed": lambda *told: self.told.append(("missed", *told)),
            "on_error": self.errors.append,
            "on_message": self.others.append,
            "retry_policy": lambda attempt: 1.0,
            **options,
        }
        return Client(self.endpoint, reactor=self.clock, **options)

    def connected(self, **options: Any) -> Client:
        client = self.client(**options)
        connecting = client.connect()
        self.run()
        outcome(connecting)
        return client

    def run(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        for _ in range(8):
            self.endpoint.flush()
            self.clock.advance(0)

    def cut(self) -> None:
        for pump in self.endpoint.pumps:
            pump.client.transport.abortConnection()
            pump.server.transport.abortConnection()
        self.run()
        self.endpoint.pumps.clear()

    def heard_from(self, connection: Hand, message: Message) -> None:
        if connection not in self.connections:
            self.connections.append(connection)
        self.heard.append(message)
        answer = self.answers.pop(0) if self.answers else {}
        if answer is not None and "receipt" in message.headers:
            connection.sendMessage(self.receipt(message, answer).raw)

    def answer(self, message: Message, answer: dict[str, str] | LHTTPError) -> None:
        """Answer a message that was heard before."""
        self.say(self.receipt(message, answer))

    def receipt(self, message: Message, answer: dict[str, str] | LHTTPError) -> Message:
        receipt = {"receipt-id": message.headers.get("receipt") or ""}
        if isinstance(answer, LHTTPError):
            return Message("error", {**receipt, "status": str(answer.status), "reason": answer.reason})
        return Message("receipt", {**receipt, **answer})

    def say(self, message: Message | bytes) -> None:
        self.connections[-1].sendMessage(message if isinstance(message, bytes) else message.raw)
        self.run()

    def publish(self, channels: str, body: str, offset: int = 0, after: int = 0, of: str = "", **headers: str) -> None:
        raw = Message("chat", {"publish": channels, **headers}, body).raw
        self.say(mark(raw, offset, after, of or channels.split(maxsplit=1)[0]) if offset else raw)

    def asked(self, number: int = -1) -> dict[str, str]:
        """The headers of the subscribe message that came last, less its receipt."""
        found = [message for message in self.heard if message.command == "subscribe"][number]
        return {name: value for name, value in found.headers if name != "receipt"}


@pytest.fixture
def world(clock: Clock) -> HandWorld:
    return HandWorld(clock)


def listen(world: HandWorld, client: Client, channel: str = "a", position: str | None = "E-5", **how: Any) -> list[str]:
    """Subscribe to a channel whose history is at *position*, and return what comes, text by text."""
    got: list[str] = []
    if client.state is State.CONNECTED:
        world.answers.append({"position": f"{channel}={position}"} if position else {})
    client.subscribe(channel, lambda message: got.append(message.text), **how)
    world.run()
    return got


# Recovering


def test_a_subscription_asks_to_be_told_of_gaps_and_for_no_past(world: HandWorld) -> None:
    listen(world, world.connected())
    assert world.asked() == {"subscribe": "a", "gaps": "tell"}


def test_after_a_loss_the_client_goes_on_from_the_last_message(world: HandWorld) -> None:
    client = world.connected()
    got = listen(world, client)
    world.publish("a", "six", 6, 5)
    world.cut()
    world.answers.append(None)
    world.run(1.0)
    assert world.asked() == {"subscribe": "a", "since": "E-6", "gaps": "tell"}
    world.publish("a", "seven", 7, 6)
    world.publish("a", "nine", 9, 7)
    assert not world.told
    assert client.state is State.CONNECTING
    world.answer(world.heard[-1], {"position": "a=E-9", "recovered": "a"})
    assert client.state is State.CONNECTED
    assert got == ["six", "seven", "nine"]
    assert world.told == [("recovered", "a", 2, "E-9")]
    assert client.position("a") == "E-9"


def test_a_channel_in_which_nothing_came_is_recovered_from_its_receipt_on(world: HandWorld) -> None:
    client = world.connected()
    listen(world, client)
    world.cut()
    world.answers.append({"position": "a=E-5", "recovered": "a"})
    world.run(1.0)
    assert world.asked()["since"] == "E-5"
    assert world.told == [("recovered", "a", 0, "E-5")]


def test_a_history_that_does_not_reach_back_is_told_with_the_new_position(world: HandWorld) -> None:
    client = world.connected()
    got = listen(world, client)
    world.cut()
    world.answers.append({"position": "a=F-2", "missed": "a"})
    world.run(1.0)
    assert world.told == [("missed", "a", "F-2")]
    world.publish("a", "three", 3, 2)
    assert (got, client.position("a")) == (["three"], "F-3")


def test_a_server_that_has_lost_its_history_has_missed_something(world: HandWorld) -> None:
    client = world.connected()
    listen(world, client)
    world.cut()
    world.run(1.0)
    assert world.told == [("missed", "a", None)]
    assert client.position("a") is None


def test_a_server_without_history_needs_nothing(world: HandWorld) -> None:
    client = world.connected()
    got = listen(world, client, position=None)
    world.publish("a", "one")
    world.cut()
    world.run(1.0)
    assert "since" not in world.asked()
    world.publish("a", "two")
    assert (got, world.told, client.position("a")) == (["one", "two"], [], None)


def test_a_message_that_only_looks_stored_is_no_news_in_a_channel_without_history(world: HandWorld) -> None:
    got = listen(world, world.connected(), position=None)
    for text in ("one", "two"):
        world.publish("a", text, 7, 3)
    assert got == ["one", "two"]


def test_nobody_speaks_for_a_channel_that_he_has_not_published_to(world: HandWorld) -> None:
    client = world.connected()
    kept, unkept = listen(world, client, "a", "E-5"), listen(world, client, "b", None)
    world.say(b"LHTTP/1.0 chat\r\noffset:999\r\nafter:5\r\noffset-of:a\r\npublish:b\r\n\r\nforged")
    world.publish("a", "six", 6, 5)
    assert (kept, unkept, client.positions()) == (["six"], ["forged"], {"a": "E-6"})


def test_what_came_twice_is_dropped(world: HandWorld) -> None:
    got = listen(world, world.connected())
    for offset, after in ((6, 5), (6, 5), (7, 6), (5, 4), (6, 5)):
        world.publish("a", str(offset), offset, after)
    assert got == ["6", "7"]


def test_a_hole_in_the_stream_is_closed_and_asked_for_once(world: HandWorld) -> None:
    client = world.connected()
    got = listen(world, client)
    world.publish("a", "six", 6, 5)
    world.answers.append(None)
    world.publish("a", "nine", 9, 8)
    world.publish("a", "ten", 10, 9)
    assert [message.command for message in world.heard] == ["subscribe", "subscribe"]
    assert world.asked()["since"] == "E-6"
    for offset in (7, 8, 9, 10):
        world.publish("a", str(offset), offset, offset - 1)
    world.answer(world.heard[-1], {"position": "a=E-10", "recovered": "a"})
    world.publish("a", "eleven", 11, 10)
    assert got == ["six", "7", "8", "9", "10", "eleven"]
    assert world.told == [("recovered", "a", 4, "E-10")]


def test_offsets_may_have_holes_of_other_channels(world: HandWorld) -> None:
    got = listen(world, world.connected())
    world.publish("a", "one", 20, 3)
    world.publish("a", "two", 40, 20)
    assert (got, len(world.heard)) == (["one", "two"], 1)


def test_a_gap_that_the_server_tells_of_is_told_and_gone_on_from(world: HandWorld) -> None:
    client = world.connected()
    got = listen(world, client)
    world.say(Message("missed", {"channel": "a", "position": "E-9"}))
    world.publish("a", "ten", 10, 9)
    assert (got, world.told, len(world.heard)) == (["ten"], [("missed", "a", "E-9")], 1)
    world.say(Message("missed", {"channel": "nobodys", "position": "E-9"}))
    assert [message.command for message in world.others] == ["missed"]


def test_a_gap_in_a_channel_without_history_is_told_without_a_position(world: HandWorld) -> None:
    listen(world, world.connected(), position=None)
    world.say(Message("missed", {"channel": "a"}))
    assert world.told == [("missed", "a", None)]


def test_a_publication_is_not_taken_for_a_gap(world: HandWorld) -> None:
    listen(world, world.connected())
    world.say(Message("missed", {"publish": "a", "channel": "a", "position": "X-1"}))
    assert not world.told


def test_what_is_not_stored_has_no_offset_and_comes_all_the_same(world: HandWorld) -> None:
    client = world.connected()
    got = listen(world, client)
    world.publish("a", "typing", store="no")
    world.publish("a", "six", 6, 5)
    assert (got, client.position("a")) == (["typing", "six"], "E-6")


def test_a_position_given_by_the_program_is_asked_for(world: HandWorld) -> None:
    client = world.connected()
    listen(world, client, since="D-3")
    assert world.asked()["since"] == "D-3"
    with pytest.raises(RemoteProtocolError):
        client.subscribe("b", since="nonsense")


def test_the_last_messages_are_asked_for_once(world: HandWorld) -> None:
    client = world.connected()
    got: list[str] = []
    world.answers.append(None)
    client.subscribe("a", lambda message: got.append(message.text), last=20)
    world.run()
    assert world.asked() == {"subscribe": "a", "last": "20", "gaps": "tell"}
    world.publish("a", "one", 4, 1)
    world.publish("a", "two", 5, 4)
    world.answer(world.heard[-1], {"position": "a=E-5"})
    world.publish("a", "again", 5, 4)
    world.publish("a", "three", 6, 5)
    assert (got, world.told) == (["one", "two", "three"], [])
    world.cut()
    world.run(1.0)
    assert world.asked() == {"subscribe": "a", "since": "E-6", "gaps": "tell"}


def test_the_last_messages_are_asked_for_again_if_the_connection_was_lost_before_they_came(world: HandWorld) -> None:
    client = world.connected()
    world.answers.append(None)
    client.subscribe("a", print, last=20)
    world.run()
    world.cut()
    world.run(1.0)
    assert world.asked()["last"] == "20"


@pytest.mark.parametrize(
    ("again", "position", "come", "told"),
    [
        ([("two", 5, 4), ("six", 6, 5)], "E-6", ["six"], []),
        ([("six", 6, 5), ("seven", 7, 6)], "E-7", ["six", "seven"], []),
        ([("eight", 8, 7), ("nine", 9, 8)], "E-9", ["eight", "nine"], [("missed", "a", "E-9")]),
        ([("new", 1, 0)], "F-1", [], [("missed", "a", "F-1")]),
    ],
)
def test_a_loss_amid_the_last_messages_repeats_none_and_hides_none(
    world: HandWorld, again: list[tuple[str, int, int]], position: str, come: list[str], told: list[object]
) -> None:
    client = world.connected()
    got: list[str] = []
    world.answers.append(None)
    client.subscribe("a", lambda message: got.append(message.text), last=20)
    world.run()
    world.publish("a", "one", 4, 1)
    world.publish("a", "two", 5, 4)
    world.cut()
    world.answers.append(None)
    world.run(1.0)
    assert world.asked()["last"] == "20"
    for message in again:
        world.publish("a", *message)
    assert world.told == []
    world.answer(world.heard[-1], {"position": f"a={position}"})
    assert (got, world.told) == (["one", "two", *come], told)
    assert client.position("a") == position
    world.cut()
    world.run(1.0)
    assert world.asked()["since"] == position


def test_channels_that_catch_up_are_asked_for_alone(world: HandWorld) -> None:
    client = world.client()
    for channel, how in (("a", {"last": 3}), ("b", {"last": 3}), ("c", {}), ("d", {"since": "E-1"}), ("e.*", {})):
        client.subscribe(channel, print, **how)  # type: ignore[arg-type]
    client.connect()
    world.run()
    assert sorted((world.asked(number) for number in range(5)), key=lambda found: found["subscribe"]) == [
        {"subscribe": "a", "last": "3", "gaps": "tell"},
        {"subscribe": "b", "last": "3", "gaps": "tell"},
        {"subscribe": "c", "gaps": "tell"},
        {"subscribe": "d", "since": "E-1", "gaps": "tell"},
        {"subscribe": "e.*", "gaps": "tell"},
    ]
    world.heard.clear()
    world.cut()
    world.run(1.0)
    assert world.asked() == {"subscribe": "a b c d e.*", "gaps": "tell"}  # no position is known, and all are confirmed


@pytest.mark.parametrize("how", [{"last": 0}, {"last": 3, "channel": "a.*"}, {"since": "E-1", "channel": "a.>"}])
def test_a_past_that_cannot_be_is_refused(world: HandWorld, how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"none|no history"):
        world.connected().subscribe(**{"channel": "a", **how})


def test_a_second_subscription_to_a_channel_has_no_past(world: HandWorld) -> None:
    client = world.connected()
    listen(world, client)
    with pytest.raises(ValueError, match=r"already subscribed"):
        client.subscribe("a", last=3)


def test_after_unsubscribing_the_position_is_forgotten(world: HandWorld) -> None:
    client = world.connected()
    world.answers.append({"position": "a=E-5"})
    subscription = client.subscribe("a")
    world.run()
    subscription.unsubscribe()
    client.subscribe("a")
    world.run()
    assert "since" not in world.asked()


def test_a_history_that_is_away_for_a_while_costs_no_subscription(world: HandWorld) -> None:
    client = world.connected()
    got = listen(world, client)
    world.cut()
    world.answers.append(ReplyError("the disk is full", status=503))
    world.run(1.0)
    assert client.state is State.CONNECTED
    assert [error.status for error in world.errors] == [503]
    world.answers.append({"position": "a=E-6", "recovered": "a"})
    world.run(5.0)
    assert world.asked()["since"] == "E-5"
    world.publish("a", "seven", 7, 6)
    assert (got, len(world.told)) == (["seven"], 1)


def test_what_is_asked_for_later_is_not_asked_for_on_a_closed_client(world: HandWorld) -> None:
    client = world.connected()
    listen(world, client)
    world.cut()
    world.answers.append(ReplyError("the disk is full", status=503))
    world.run(1.0)
    client.close()
    world.run()
    assert not world.clock.getDelayedCalls()


def test_a_subscription_that_never_was_ends_with_the_refusal(world: HandWorld) -> None:
    client = world.connected()
    world.answers.append(ReplyError("the disk is full", status=503))
    subscription = client.subscribe("a")
    world.run()
    assert error_of(subscription.confirmed()).status == 503


def test_a_callback_may_unsubscribe_when_something_is_missing(world: HandWorld) -> None:
    client = world.connected(on_missed=lambda channel, position: subscription.unsubscribe())
    world.answers.append({"position": "a=E-5"})
    subscription = client.subscribe("a")
    world.run()
    world.cut()
    world.answers.append({"position": "a=F-2", "missed": "a"})
    world.run(1.0)
    assert [message.command for message in world.heard][-1] == "unsubscribe"


# Several channels, and wildcards


def test_a_message_to_two_channels_goes_to_each_by_its_offset(world: HandWorld) -> None:
    client = world.connected()
    first, second = listen(world, client, "a", "E-5"), listen(world, client, "b", "E-3")
    world.publish("a b", "both", 6, 5, of="a")
    world.publish("a b", "both", 7, 3, of="b")
    world.publish("b", "b alone", 8, 7)
    world.publish("a", "a alone", 9, 6)
    assert (first, second) == (["both", "a alone"], ["both", "b alone"])
    assert client.positions() == {"a": "E-9", "b": "E-8"}
    assert [message.command for message in world.heard] == ["subscribe"] * 2


def test_a_message_to_channels_with_and_without_history_reaches_both(world: HandWorld) -> None:
    client = world.connected()
    kept, unkept = listen(world, client, "a", "E-5"), listen(world, client, "b", None)
    world.publish("a b", "both")
    world.publish("a b", "both", 6, 5)
    assert (kept, unkept, client.positions()) == (["both"], ["both"], {"a": "E-6"})
    for _ in range(2):
        world.publish("a b", "typing", store="no")
    assert (kept[1:], unkept[1:]) == (["typing"], ["typing"])


@pytest.mark.parametrize("wildcards", [["room.*"], ["room.*", "room.>"]])
def test_a_wildcard_beside_its_channel_gets_its_own_copy(world: HandWorld, wildcards: list[str]) -> None:
    client = world.connected()
    exact = listen(world, client, "room.a", "E-5")
    several = [listen(world, client, wildcard, None) for wildcard in wildcards]
    for offset in (6, 7):
        for _ in (exact, *several):
            world.publish("room.a", str(offset), offset, offset - 1)
    assert [exact, *several] == [["6", "7"]] * (1 + len(wildcards))


def test_a_hole_beside_a_wildcard_is_closed(world: HandWorld) -> None:
    client = world.connected()
    exact, wild = listen(world, client, "room.a", "E-5"), listen(world, client, "room.*", None)
    for _ in range(2):
        world.publish("room.a", "7", 7, 6)
    assert world.asked() == {"subscribe": "room.a", "since": "E-5", "gaps": "tell"}
    assert (exact, wild) == ([], ["7"])


def test_a_gap_of_a_channel_that_a_wildcard_brings_is_told(world: HandWorld) -> None:
    listen(world, world.connected(), "room.*", None)
    world.say(Message("missed", {"channel": "room.a", "position": "E-9"}))
    assert world.told == [("missed", "room.a", "E-9")]


def test_channels_are_asked_for_in_lists_whose_positions_fit_into_a_receipt(world: HandWorld) -> None:
    client = world.client()
    names = [f"{number}" for number in range(1_000)]
    for name in names:
        client.subscribe(name, print)
    client.connect()
    world.run()
    world.run()
    asked = [message for message in world.heard if message.command == "subscribe"]
    assert max(len((message.headers.get("subscribe") or "").split()) for message in asked) < 200
    assert sorted(name for message in asked for name in (message.headers.get("subscribe") or "").split()) == sorted(
        names
    )


# Positions over a restart


class Kept:
    """Keeps positions in memory."""

    def __init__(self, **positions: str) -> None:
        self.positions: Mapping[str, str] = positions
        self.saved = 0
        self.failure: Exception | None = None

    def load(self) -> Mapping[str, str]:
        return self.positions

    def save(self, positions: Mapping[str, str]) -> None:
        self.saved += 1
        if self.failure is not None:
            raise self.failure
        self.positions = dict(positions)


def test_a_new_run_goes_on_where_the_last_one_stopped(world: HandWorld) -> None:
    kept = Kept()
    client = world.connected(positions=kept)
    listen(world, client)
    world.publish("a", "six", 6, 5)
    client.close()
    world.run()
    assert kept.positions == {"a": "E-6"}
    world.answers.append({"position": "a=E-6", "recovered": "a"})
    listen(world, world.connected(positions=kept), last=20)
    assert world.asked() == {"subscribe": "a", "since": "E-6", "gaps": "tell"}


def test_positions_are_saved_once_a_second_and_not_for_each_message(world: HandWorld) -> None:
    kept = Kept()
    client = world.connected(positions=kept)
    listen(world, client)
    for offset in range(6, 106):
        world.publish("a", "x", offset, offset - 1)
    assert kept.saved == 1
    world.run(1.0)
    assert (kept.saved, kept.positions) == (2, {"a": "E-105"})
    world.run(5.0)
    assert kept.saved == 2


def test_the_first_position_is_saved_at_once(world: HandWorld) -> None:
    """Otherwise, a program that is killed in its first second does not learn what it has missed."""
    kept = Kept()
    client = world.connected(positions=kept)
    world.answers.append({"position": "a=E-5"})
    client.subscribe("a", print, last=20)
    world.run()
    assert kept.positions == {"a": "E-5"}


def test_positions_that_could_not_be_saved_are_saved_when_the_client_is_closed(world: HandWorld) -> None:
    kept = Kept()
    kept.failure = OSError(28, "No space left on device")
    client = world.connected(positions=kept)
    listen(world, client)
    world.run(1.0)
    kept.failure = None
    client.close()
    world.run()
    assert kept.positions == {"a": "E-5"}


def test_what_waits_in_a_buffer_was_not_got_yet(world: HandWorld) -> None:
    kept = Kept()
    client = world.connected(positions=kept)
    world.answers.append({"position": "a=E-5"})
    subscription = client.subscribe("a")
    world.run()
    for offset in (6, 7, 8):
        world.publish("a", str(offset), offset, offset - 1)
    assert client.position("a") == "E-5"
    outcome(subscription.next())
    outcome(subscription.next())
    world.run(1.0)
    assert client.position("a") == "E-7"
    assert kept.positions == {"a": "E-6"}
    world.cut()
    world.run(1.0)
    assert world.asked()["since"] == "E-8"


@pytest.mark.parametrize("waits", [False, True])
def test_a_message_that_a_loop_still_handles_is_not_saved_as_handled(world: HandWorld, waits: bool) -> None:
    """If the program is killed while it handles the message for minutes, the next run must get it."""
    kept = Kept()
    client = world.connected(positions=kept)
    world.answers.append({"position": "a=E-5"})
    subscription = client.subscribe("a")
    world.run()
    asked = subscription.next() if waits else None
    world.publish("a", "six", 6, 5)
    assert outcome(asked or subscription.next()).text == "six"
    world.run(60.0)
    assert (client.position("a"), kept.positions) == ("E-6", {"a": "E-5"})
    subscription.next()
    world.run(1.0)
    assert kept.positions == {"a": "E-6"}


def test_the_newest_messages_that_wait_in_a_buffer_were_not_got_yet(world: HandWorld) -> None:
    """They come before the receipt that tells the epoch."""
    kept = Kept()
    client = world.connected(positions=kept)
    world.answers.append(None)
    subscription = client.subscribe("a", last=2)
    world.run()
    world.publish("a", "six", 6, 4)
    world.publish("a", "seven", 7, 6)
    assert outcome(subscription.next()).text == "six"
    world.answer(world.heard[-1], {"position": "a=E-7"})
    world.run(1.0)
    assert (client.position("a"), kept.positions) == ("E-6", {"a": "E-4"})
    outcome(subscription.next())
    world.run(1.0)
    assert (client.position("a"), kept.positions) == ("E-7", {"a": "E-6"})


@pytest.mark.parametrize(("is_interrupted", "saved"), [(False, "E-6"), (True, "E-5")])
def test_closing_counts_the_last_message_of_a_loop_unless_an_error_ended_it(
    world: HandWorld, is_interrupted: bool, saved: str
) -> None:
    kept = Kept()
    client = world.connected(positions=kept)
    world.answers.append({"position": "a=E-5"})
    subscription = client.subscribe("a")
    world.run()
    world.publish("a", "six", 6, 5)
    assert outcome(subscription.next()).text == "six"
    world.run(60.0)
    if is_interrupted:
        client.interrupted()
    client.close()
    world.run()
    assert kept.positions == {"a": saved}


def test_a_message_that_is_put_back_comes_again_and_was_not_got(world: HandWorld) -> None:
    client = world.connected()
    world.answers.append({"position": "a=E-5"})
    subscription = client.subscribe("a")
    world.run()
    for offset in (6, 7):
        world.publish("a", str(offset), offset, offset - 1)
    message = outcome(subscription.next())
    subscription.put_back(message)
    assert client.position("a") == "E-5"
    assert [outcome(subscription.next()).text for _ in range(2)] == ["6", "7"]
    waiting = subscription.next()
    subscription.put_back(message)
    assert outcome(waiting) is message


def test_a_store_that_fails_is_reported_and_asked_again(world: HandWorld) -> None:
    kept = Kept()
    kept.failure = OSError(28, "No space left on device")
    client = world.connected(positions=kept)
    listen(world, client)
    world.run(1.0)
    assert ["No space left" in error.reason for error in world.errors] == [True]
    kept.failure = None
    world.publish("a", "six", 6, 5)
    world.run(1.0)
    assert kept.positions == {"a": "E-6"}


def test_without_a_store_a_client_that_is_started_again_begins_anew(world: HandWorld) -> None:
    client = world.connected()
    listen(world, client)
    client.close()
    world.run()
    client.connect()
    world.run()
    listen(world, client)
    assert "since" not in world.asked()
    assert len(world.clock.getDelayedCalls()) > 0


def test_a_pipe_in_the_place_of_positions_is_refused_at_once(tmp_path: Path) -> None:
    store = FilePositions(put_pipe(tmp_path / "positions"))
    with at_once(), pytest.raises(ValueError, match="positions is no regular file, but a pipe"):
        store.load()


def test_a_file_keeps_positions(tmp_path: Path) -> None:
    store = FilePositions(tmp_path / "positions")
    assert store.load() == {}
    store.save({"räume.a": "E-5"})
    assert FilePositions(str(tmp_path / "positions")).load() == {"räume.a": "E-5"}
    assert [path.name for path in tmp_path.iterdir()] == ["positions"]


def test_a_file_that_cannot_be_written_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FilePositions(tmp_path / "positions")
    store.save({"a": "E-5"})

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lhttp_tx.client.positions.os.fsync", fail)
        with pytest.raises(OSError, match="No space"):
            store.save({"a": "E-6"})
    assert store.load() == {"a": "E-5"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": 5}', b"\xff"])
def test_a_file_with_something_else_is_not_overwritten_without_a_word(
    tmp_path: Path, content: bytes, world: HandWorld
) -> None:
    (tmp_path / "positions").write_bytes(content)
    with pytest.raises(ValueError, match="not a file with positions"):
        world.client(positions=FilePositions(tmp_path / "positions"))


# Publications


def ids(world: HandWorld) -> list[str | None]:
    return [message.headers.get("message-id") for message in world.heard if message.command == "chat"]


def test_a_receipt_tells_positions_and_a_duplicate(world: HandWorld) -> None:
    client = world.connected()
    world.answers.append({"position": "a=E-7 b=E-8", "duplicate": "1"})
    sent = client.publish(["a", "b"], "chat", message_id="mine")
    world.run()
    result = outcome(sent)
    assert (result.positions, result.duplicate, result.message_id) == ({"a": "E-7", "b": "E-8"}, True, "mine")
    assert ids(world) == ["mine"]


def test_ids_cannot_be_guessed_and_differ(world: HandWorld) -> None:
    client = world.connected()
    for _ in range(3):
        client.publish("a", "chat")
    world.run()
    assert len(set(ids(world))) == 3
    assert min(len(found or "") for found in ids(world)) >= 16


def test_without_a_receipt_there_is_no_id_unless_one_is_given(world: HandWorld) -> None:
    client = world.connected()
    client.publish("a", "chat", receipt=False)
    client.publish("a", "chat", receipt=False, message_id="mine")
    client.publish("a", "chat", {"Message-ID": "header"})
    world.run()
    assert ids(world) == [None, "mine", "header"]


@pytest.mark.parametrize("message_id", ["", "two words", "x" * 65, "é"])
def test_an_id_that_is_none_is_refused(world: HandWorld, message_id: str) -> None:
    with pytest.raises(LocalProtocolError, match="message id"):
        world.connected().publish("a", "chat", message_id=message_id)


def test_two_ids_are_refused(world: HandWorld) -> None:
    with pytest.raises(LocalProtocolError, match="differ"):
        world.connected().publish("a", "chat", {"message-id": "one"}, message_id="other")


def test_a_publication_without_an_answer_is_sent_again_in_its_place(world: HandWorld) -> None:
    client = world.connected()
    world.answers += [None, None]
    sent = [client.publish("a", "chat", body=str(number)) for number in range(2)]
    world.run()
    world.cut()
    sent.append(client.publish("a", "chat", body="2"))
    world.run(1.0)
    assert [message.text for message in world.heard] == ["0", "1", "0", "1", "2"]
    found = ids(world)
    assert (found[:2], len(set(found))) == (found[2:4], 3)
    assert [outcome(one).message_id for one in sent] == found[2:]


def test_subscriptions_are_restored_before_publications_are_sent_again(world: HandWorld) -> None:
    client = world.connected()
    listen(world, client)
    world.answers.append(None)
    client.publish("a", "chat")
    world.run()
    world.cut()
    world.run(1.0)
    assert [message.command for message in world.heard[-2:]] == ["subscribe", "chat"]


def test_sending_again_has_an_end(world: HandWorld) -> None:
    client = world.connected()
    world.answers += [None] * 20
    sent = client.publish("a", "chat", timeout=90.0)
    world.run()
    for _ in range(7):
        world.cut()
        world.run(1.0)
    assert len(world.heard) == 6
    assert type(error_of(sent)) is ConnectionLost


def test_a_publication_is_not_sent_again_when_servers_have_forgotten_its_id(world: HandWorld) -> None:
    client = world.connected()
    world.answers += [None] * 3
    sent = client.publish("a", "chat", timeout=1_000.0)
    world.run()
    world.clock.advance(60.0)
    world.cut()
    world.endpoint.refuses = True
    for _ in range(45):
        world.run(1.0)
    assert type(error_of(sent)) is RequestTimeout
    world.endpoint.refuses = False
    world.run(1.0)
    assert len(world.heard) == 1


def test_what_there_is_no_room_to_keep_fails_with_the_connection(world: HandWorld) -> None:
    client = world.connected(resend_size=1_000)
    world.answers += [None] * 3
    sent = [client.publish("a", "chat", body="x" * 400) for _ in range(3)]
    world.run()
    world.cut()
    assert type(error_of(sent[2])) is ConnectionLost
    world.run(1.0)
    assert len(world.heard) == 5
    assert not any(outcome(one).duplicate for one in sent[:2])
    assert client._answers._kept_room == 1_000


def test_the_room_is_given_back_however_a_call_ends(world: HandWorld) -> None:
    client = world.connected(resend_size=10_000)
    world.answers += [{}, None, None, ReplyError("no", status=403)]
    first, late, cancelled, refused = [client.publish("a", "chat", timeout=5.0) for _ in range(4)]
    world.run()
    cancelled.addErrback(lambda _: None)
    cancelled.cancel()
    world.run(5.1)
    outcome(first)
    assert (type(error_of(late)), error_of(refused).status) == (RequestTimeout, 403)
    assert (client._answers._kept_room, client._answers._kept_count) == (10_000, 0)


def test_a_closed_client_sends_nothing_again(world: HandWorld) -> None:
    client = world.connected()
    world.answers.append(None)
    sent = client.publish("a", "chat")
    world.run()
    client.close()
    world.run()
    assert type(error_of(sent)) is ClientClosed
    client.connect()
    world.run()
    assert len(world.heard) == 1


def test_a_client_that_is_closed_when_a_loss_is_told_sends_nothing_again(world: HandWorld) -> None:
    client = world.connected(on_state=lambda state, _: client.close() if state is State.WAITING else None)
    world.answers.append(None)
    sent = client.publish("a", "chat")
    world.run()
    world.cut()
    assert isinstance(error_of(sent), ConnectionLost)
    assert not world.clock.getDelayedCalls()


def test_requests_are_not_sent_again(world: HandWorld) -> None:
    client = world.connected()
    world.answers.append(None)
    asked = client.request("work", {"message-id": "mine"})
    world.run()
    world.cut()
    assert type(error_of(asked)) is ConnectionLost
    world.run(1.0)
    assert len(world.heard) == 1


# The history


def test_a_page_of_history_has_messages_and_positions(world: HandWorld) -> None:
    client = world.connected()
    world.answers.append(None)
    asked = client.history("a", limit=2, since="E-5")
    world.run()
    (question,) = world.heard
    assert [pair for pair in question.headers if pair[0] != "receipt"] == [
        ("channel", "a"),
        ("limit", "2"),
        ("since", "E-5"),
    ]
    parts = [
        Part(Message("x", {"command": "chat", "offset": "7", "after": "5", "command2": "y"}).headers, b"one"),
        Part(Message("x", {"command": "raw", "offset": "9", "after": "7"}).headers, b"\xff"),
    ]
    page = multipart_message("history", parts, {"channel": "a", "position": "E-9", "more": "1"}, binary=True)
    world.connections[-1].sendMessage(page.raw, isBinary=True)
    world.answer(question, {})
    found = outcome(asked)
    assert [(message.command, message.body, message.binary) for message in found] == [
        ("chat", b"one", False),
        ("raw", b"\xff", True),
    ]
    assert (found.position, found.more, found.missed, found.start, len(found)) == ("E-9", True, False, "E-7", 2)
    assert found.position_of(found[0]) == "E-7"
    assert found.next == {"limit": 2, "order": "oldest", "since": "E-9"}


@pytest.mark.parametrize(
    ("asked", "following"),
    [
        ({}, {"limit": 100, "order": "oldest", "since": "E-9"}),
        ({"since": "E-5", "limit": 2}, {"limit": 2, "order": "oldest", "since": "E-9"}),
        ({"before": "E-20"}, {"limit": 100, "order": "oldest", "before": "E-7"}),
        ({"order": "newest", "limit": 2}, {"limit": 2, "order": "newest", "before": "E-7"}),
        ({"order": "newest", "before": "E-20"}, {"limit": 100, "order": "newest", "before": "E-7"}),
    ],
)
def test_a_page_tells_how_to_ask_for_the_next_one(world: HandWorld, asked: Any, following: Any) -> None:
    client = world.connected()
    for more, expected in (("1", following), ("0", None)):
        world.answers.append(None)
        page = client.history("a", **asked)
        world.run()
        parts = [Part(Message("x", {"command": "chat", "offset": offset}).headers, b"") for offset in ("7", "9")]
        if asked.get("order") == "newest":
            parts.reverse()
        world.say(multipart_message("history", parts, {"channel": "a", "position": "E-9", "more": more}))
        world.answer(world.heard[-1], {})
        assert outcome(page).next == expected
    world.answers.append(None)
    client.history("a", **following)
    world.run()
    last = {name: value for name, value in world.heard[-1].headers if name not in ("receipt", "channel")}
    assert {"order": "oldest", **last} == {name: str(value) for name, value in following.items()}


def test_a_history_may_be_empty(world: HandWorld) -> None:
    client = world.connected()
    world.answers.append(None)
    asked = client.history("a", order="newest", before="E-5")
    world.run()
    assert world.heard[-1].headers.get("order") == "newest"
    world.say(Message("history", {"channel": "a", "position": "E-0", "missed": "1"}))
    world.answer(world.heard[-1], {})
    found = outcome(asked)
    assert (list(found), found.more, found.start, found.missed) == ([], False, None, True)


def test_a_server_without_history_is_told_as_that(world: HandWorld) -> None:
    asked = world.connected().history("a")
    world.run()
    error = error_of(asked)
    assert (type(error), error.status, "--history" in error.reason) == (NoReply, 404, True)


@pytest.mark.parametrize("headers", [{}, {"position": "nonsense"}, {"position": "E-1", "multipart": "0"}])
def test_an_answer_that_is_malformed_fails_the_call(world: HandWorld, headers: dict[str, str]) -> None:
    client = world.connected()
    world.answers.append(None)
    asked = client.history("a")
    world.run()
    world.say(Message("history", headers))
    world.answer(world.heard[-1], {})
    assert isinstance(error_of(asked), RemoteProtocolError)


@pytest.mark.parametrize(
    "question",
    [{"limit": 0}, {"order": "random"}, {"since": "E-1", "before": "E-2"}, {"since": "E-1", "order": "newest"}],
)
def test_a_question_that_makes_no_sense_is_refused(world: HandWorld, question: Any) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        world.connected().history("a", **question)


def test_saved_positions_can_be_read_by_others(tmp_path: Path) -> None:
    FilePositions(tmp_path / "p").save({"a": "E-5"})
    assert json.loads((tmp_path / "p").read_text()) == {"a": "E-5"}


def test_a_message_that_is_sent_again_after_a_crash_is_passed_on_once(world: HandWorld) -> None:
    client = world.connected()
    got = listen(world, client, "a", "E-5")
    world.publish("a", "hello", 6, 5, **{"message-id": "x"})
    world.publish("a", "hello", 7, 5, **{"message-id": "x"})
    world.publish("a", "hello", 8, 7, **{"message-id": "y"})
    assert got == ["hello", "hello"]
    assert client.positions() == {"a": "E-8"}
