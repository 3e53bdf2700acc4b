"""lhttp_tx.client.registry: wildcard subscriptions of the client, against the real server."""

from __future__ import annotations

import pytest
from client_world import World, error_of
from twisted.internet.task import Clock

from lhttp_tx import Message
from lhttp_tx.client import ReplyError
from lhttp_tx.client.subscription import Subscription
from lhttp_tx.errors import RemoteProtocolError
from lhttp_tx.rules.model import Rule, Rules

OPEN = Rules([Rule("room.>", wildcards=True)])


@pytest.fixture
def world(clock: Clock) -> World:
    return World(clock, rules=OPEN)


def publish(world: World, *channels: str, body: str = "x") -> None:
    world.server.engine.publish(list(channels), "chat", body=body)
    world.run()


def test_a_callback_gets_the_messages_whose_channel_the_wildcard_takes_in(world: World) -> None:
    client = world.connected()
    heard: list[str] = []
    client.subscribe("room.*", lambda message: heard.append(message.text))
    world.run()
    for channel in ("room.a", "room.b", "room.a.b", "room", "other.a"):
        publish(world, channel, body=channel)
    assert heard == ["room.a", "room.b"]
    assert not world.others


def test_a_named_callback_gets_the_channel_that_a_message_came_by(world: World) -> None:
    client = world.connected()
    heard: list[tuple[str, str, str]] = []
    for name in ("room.>", "room.*", "room.a", "room.*.c"):
        client.subscribe(name, lambda _, channel, name=name: heard.append((name, channel, _.text)), named=True)
    world.run()
    publish(world, "room.a", "room.b.c", "elsewhere")
    assert sorted(heard) == [
        ("room.*", "room.a", "x"),
        ("room.*.c", "room.b.c", "x"),
        ("room.>", "room.a", "x"),
        ("room.>", "room.b.c", "x"),
        ("room.a", "room.a", "x"),
    ]
    assert not world.others


def test_a_wildcard_can_be_iterated_over_and_ended(world: World) -> None:
    client = world.connected()
    subscription: Subscription = world.result(client.subscribe("room.>").confirmed())
    publish(world, "room.a")
    assert world.result(subscription.next()).headers.get("publish") == "room.a"
    world.result(subscription.unsubscribe())
    assert world.endpoint.sent[-1].headers.get("unsubscribe") == "room.>"
    publish(world, "room.b")
    assert not world.server.engine.hub.channels


def test_a_wildcard_is_restored_after_a_loss(world: World) -> None:
    client = world.connected()
    heard: list[str] = []
    client.subscribe("room.*", lambda message: heard.append(message.text))
    world.run()
    world.cut()
    world.run(1)
    publish(world, "room.a")
    assert heard == ["x"]


def test_a_wildcard_that_the_rules_do_not_allow_ends_with_the_error(world: World) -> None:
    client = world.connected()
    refused = client.subscribe(">")
    assert world.failure(refused.confirmed()).status == 403
    assert not refused.active
    assert [error.status for error in world.errors] == [403]


def test_a_wildcard_that_the_server_takes_back_ends_with_its_error(world: World) -> None:
    client = world.connected()
    subscription: Subscription = world.result(client.subscribe("room.*").confirmed())
    world.server.set_rules(Rules([Rule("room.>")]))
    world.run()
    world.run()
    assert isinstance(error_of(subscription.next()), ReplyError)
    assert not subscription.active


def test_a_wildcard_is_asked_for_before_connecting_and_after_closing(world: World) -> None:
    client = world.client()
    heard: list[str] = []
    client.subscribe("room.*", lambda message: heard.append(message.text))
    world.result(client.connect())
    publish(world, "room.a", body="first")
    world.result(client.close())
    connecting = client.connect()
    client.subscribe("room.*", lambda message: heard.append(message.text))
    world.result(connecting)
    publish(world, "room.a", body="second")
    assert heard == ["first", "second"]


def test_the_server_that_publishes_to_a_wildcard_reaches_nobody(world: World) -> None:
    client = world.connected()
    heard: list[str] = []
    client.subscribe("room.*", lambda message: heard.append(message.text))
    world.run()
    (session,) = world.server.engine.sessions
    session.send(Message("chat", [("publish", "room.*")], "x"))
    world.run()
    assert heard == []


@pytest.mark.parametrize("name", ["a.>.b", "a..*", ".*", "a b.*", "*." + "a" * 254])
def test_a_malformed_wildcard_is_refused_before_it_is_sent(world: World, name: str) -> None:
    client = world.connected()
    with pytest.raises(RemoteProtocolError):
        client.subscribe(name)
    with pytest.raises(RemoteProtocolError):
        client.publish("a.*", "chat")
    assert not world.endpoint.sent
