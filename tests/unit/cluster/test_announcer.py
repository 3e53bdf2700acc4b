"""Presence as clients see it: what they may ask, what they are told, and what they are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock

from lhttp_tx import Hooks, Message, Refused, Request, Session, processor
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.cluster.attendance import Attendance
from lhttp_tx.cluster.room import MAX_PEOPLE
from lhttp_tx.engine.processors import Processor
from lhttp_tx.rules.model import AUTHENTICATED, NOBODY, Rule, Rules, check_presence
from lhttp_tx.testing import Client, Server

JOIN = "LHTTP/1.0 x\r\nsubscribe:{}\r\n\r\n"
LEAVE = "LHTTP/1.0 x\r\nunsubscribe:{}\r\n\r\n"
ASK = "LHTTP/1.0 presence\r\nchannel:{}\r\n\r\n"


def error(status: int, reason: str) -> Message:
    return Message("error", [("status", str(status)), ("reason", reason)])


def ask(client: Client, channel: str = "room") -> Any:
    client.take()
    client.send(ASK.format(channel))
    (answer,) = client.take()
    assert answer.command == "presence", answer.raw
    assert answer.headers.get("channel") == channel
    return json.loads(answer.body)


def events(client: Client) -> list[tuple[str, str, str, int]]:
    found = []
    for message in client.take():
        body = json.loads(message.body)
        headers = message.headers
        assert (body["event"], body["channel"], body["user"] or "") == (
            headers.get("event"),
            headers.get("channel"),
            headers.get("user"),
        )
        found.append((body["event"], body["channel"], headers.get("user") or "", body["count"]))
    return found


def test_who_is_there_is_answered() -> None:
    server = Server(presence=["room"])
    alice, bob = server.connect(user="alice"), server.connect(user="bob")
    for client in (alice, bob):
        client.send(JOIN.format("room"))
        server.clock.advance(1)
    assert ask(bob) == {
        "channel": "room",
        "count": 2,
        "connections": 2,
        "people": [
            {"user": "alice", "connections": [alice.session.identity.connection_id]},
            {"user": "bob", "connections": [bob.session.identity.connection_id]},
        ],
    }
    bob.disconnect()
    assert ask(alice)["count"] == 1


def test_a_question_with_a_receipt_gets_both() -> None:
    client = Server(presence=[">"]).connect()
    client.send("LHTTP/1.0 presence\r\nchannel:room\r\nreceipt:7\r\n\r\n")
    assert [message.command for message in client.take()] == ["presence", "receipt"]


def test_an_answer_names_a_bounded_number_of_people() -> None:
    server = Server(presence=["room"])
    for _ in range(MAX_PEOPLE + 1):
        server.connect().send(JOIN.format("room"))
    answer = ask(server.connect())
    assert (answer["count"], len(answer["people"])) == (MAX_PEOPLE + 1, MAX_PEOPLE)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("LHTTP/1.0 presence\r\n\r\n", error(400, "a presence message needs the header channel")),
        (ASK.format("a..b"), error(400, "channel 'a..b' has an empty token")),
        (ASK.format("$nodes"), error(403, "channel '$nodes' is reserved for the server")),
        (ASK.format("secret"), error(404, "channel 'secret' has no presence")),
        (JOIN.format("$presence.secret"), error(404, "channel 'secret' has no presence")),
        (LEAVE.format("$presence.secret"), error(404, "channel 'secret' has no presence")),
        (JOIN.format("$presence.a..b"), error(400, "channel 'a..b' has an empty token")),
        (JOIN.format("$presence."), error(400, "channel name is empty")),
        (JOIN.format("$presence"), error(403, "channel '$presence' is reserved for the server")),
        (JOIN.format("$nodes"), error(403, "channel '$nodes' is reserved for the server")),
        (
            "LHTTP/1.0 x\r\npublish:$presence.room\r\n\r\n",
            error(403, "channel '$presence.room' is reserved for the server"),
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(message: str, expected: Message) -> None:
    client = Server(presence=["room"]).connect()
    client.send(message)
    assert client.take() == [expected]


def test_without_presence_its_names_are_the_servers_own() -> None:
    client = Server().connect()
    for message in (JOIN, LEAVE):
        client.send(message.format("$presence.room"))
    assert client.take() == [error(403, "channel '$presence.room' is reserved for the server")] * 2
    client.send(ASK.format("room"))
    assert client.take() == []
    assert client.session._engine.watchers == []


def test_comers_and_goers_are_told_to_who_listens() -> None:
    server = Server(presence=["room"])
    listener, bob = server.connect(), server.connect(user="bob")
    listener.send(JOIN.format("$presence.room"))
    bob.send(JOIN.format("room"))
    assert events(listener) == [("join", "room", "bob", 1)]
    bob.disconnect()
    server.clock.advance(2.9)
    assert events(listener) == []
    server.clock.advance(0.1)
    assert events(listener) == [("leave", "room", "bob", 0)]


def test_the_grace_can_be_set() -> None:
    server = Server(presence=["room"], presence_grace=1.0)
    listener, bob = server.connect(), server.connect(user="bob")
    listener.send(JOIN.format("$presence.room"))
    bob.send(JOIN.format("room"))
    bob.send(LEAVE.format("room"))
    server.clock.advance(1.0)
    assert [event[0] for event in events(listener)] == ["join", "leave"]


def test_a_server_that_was_stopped_tells_again_when_it_has_started() -> None:
    bus, clock = MemoryBus(), Clock()
    server = Server(presence=["room"], bus=bus, clock=clock)
    bob = server.connect(user="bob")
    bob.send(JOIN.format("room"))
    bob.disconnect()
    server.assembly.leave()
    assert clock.getDelayedCalls() == []
    server.assembly.join()
    listener = server.connect()
    listener.send(JOIN.format("$presence.room"))
    server.connect(user="jack").send(JOIN.format("room"))
    assert events(listener) == [("join", "room", "jack", 1)]


def test_who_listens_is_not_in_a_channel_for_that() -> None:
    server = Server(presence=[">"])
    server.connect().send(JOIN.format("$presence.room"))
    assert server.presence.count("room") == server.presence.count("$presence.room") == (0, 0)


def test_without_listeners_no_message_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(presence=["room"])
    received: list[str] = []
    monkeypatch.setattr(server.engine.hub, "receive", lambda channel, *rest: received.append(channel))
    server.connect().send(JOIN.format("room"))
    assert received == []


def test_nobody_is_told_after_unsubscribing() -> None:
    server = Server(presence=["room"])
    listener, bob = server.connect(), server.connect(user="bob")
    listener.send(JOIN.format("$presence.room"))
    listener.send(LEAVE.format("$presence.room"))
    bob.send(JOIN.format("room"))
    assert listener.take() == []


def test_events_never_go_over_the_bus() -> None:
    bus = MemoryBus()
    published: list[str] = []
    original = bus.publish
    bus.publish = lambda channel, *rest: (published.append(channel), original(channel, *rest))[1]  # type: ignore[method-assign,func-returns-value]
    server = Server(presence=["room"], bus=bus)
    listener, bob = server.connect(), server.connect(user="bob")
    listener.send(JOIN.format("$presence.room"))
    bob.send(JOIN.format("room"))
    assert len(events(listener)) == 1
    assert published == []
    assert bus.channels == {"room"}


def test_every_node_tells_its_own_clients_once() -> None:
    bus, clock = MemoryBus(), Clock()
    servers = [Server(presence=["room"], bus=bus, clock=clock) for _ in range(3)]
    listeners = [server.connect() for server in servers]
    for listener in listeners:
        listener.send(JOIN.format("$presence.room"))
    servers[0].connect(user="bob").send(JOIN.format("room"))
    clock.advance(0.1)
    for listener in listeners:
        assert events(listener) == [("join", "room", "bob", 1)]
        assert ask(listener)["count"] == 1


@pytest.mark.parametrize(("user", "is_allowed"), [("alice", True), (None, False)])
def test_only_those_who_may_subscribe_may_know(user: str | None, is_allowed: bool) -> None:
    server = Server(rules=Rules([Rule(match="room", subscribe=AUTHENTICATED, presence=True)]))
    client = server.connect(user=user)
    client.send(JOIN.format("$presence.room"))
    client.send(ASK.format("room"))
    refusal = error(403, "not allowed to subscribe to channel 'room': log in first")
    if is_allowed:
        assert [message.command for message in client.take()] == ["presence"]
    else:
        assert client.take() == [refusal, refusal]


def test_a_channel_that_nobody_may_subscribe_to_tells_nothing() -> None:
    server = Server(rules=Rules([Rule(match="room", subscribe=NOBODY, presence=True)]))
    client = server.connect(user="alice")
    client.send(ASK.format("room"))
    assert client.take() == [error(403, "not allowed to subscribe to channel 'room'")]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_hook_that_forbids_subscribing_forbids_knowing(is_async: bool) -> None:
    class Members(Hooks):
        def before_subscribe(self, session: Session, channel: str) -> Any:
            if not is_async:
                raise Refused(403, f"{channel} is for members")

            async def refuse() -> None:
                raise Refused(403, f"{channel} is for members")

            return refuse()

    client = Server(presence=["room"], hooks=[Members()]).connect()
    client.send(JOIN.format("$presence.room"))
    client.send(ASK.format("room"))
    assert client.take() == [error(403, "room is for members")] * 2


def test_other_rules_change_where_presence_is_kept() -> None:
    server = Server(rules=Rules([Rule(match="a", presence=True)]))
    client = server.connect(user="alice")
    client.send(JOIN.format("a b"))
    assert (server.presence.count("a"), server.presence.count("b")) == ((1, 1), (0, 0))
    server.set_rules(Rules([Rule(match="b", presence=True)]))
    assert (server.presence.count("a"), server.presence.count("b")) == ((0, 0), (1, 1))
    client.send(ASK.format("a"))
    assert client.take() == [error(404, "channel 'a' has no presence")]


def test_rules_that_come_later_bring_presence() -> None:
    server = Server(rules=Rules())
    client = server.connect(user="alice")
    client.send(JOIN.format("room"))
    server.set_rules(Rules([Rule(match="room", presence=True)]))
    assert ask(client)["count"] == 1


def test_the_command_cannot_be_anothers() -> None:
    class Other(Processor):
        command = "presence"

    with pytest.raises(ValueError, match="which the server handles if channels have presence"):
        Server(presence=["room"], processors=[Other()])
    Server(processors=[Other()])


def test_rules_that_come_later_leave_anothers_command_alone() -> None:
    @processor("presence")
    def mine(request: Request) -> None:
        request.reply("mine")

    server = Server(rules=Rules(), processors=[mine])
    client = server.connect()
    server.set_rules(Rules([Rule(match="room", presence=True)]))
    client.send(ASK.format("room"))
    assert [message.text for message in client.take()] == ["mine"]
    assert not any(isinstance(watcher, Attendance) for watcher in server.engine.watchers)


@pytest.mark.parametrize("pattern", ["room", "chat.*", ">", "a.*.b"])
def test_patterns_of_channels_are_taken(pattern: str) -> None:
    assert check_presence(pattern) == pattern


@pytest.mark.parametrize("pattern", ["", "a..b", "a.>.b", "a*", "$x"])
def test_other_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"no channel has such a name|whole tokens|last token"):
        check_presence(pattern)
