"""lhttp_tx.web.admin.traces and taps: messages as they pass, and nothing while nobody looks."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx import Message, Processor, Request
from lhttp_tx.assembly.counted import CountedHub, counted_conversation
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.hub import Hub
from lhttp_tx.observe.counters import Counters
from lhttp_tx.testing import Client, Server
from lhttp_tx.web.admin.traces import LIFETIME, MAX_BODY, MAX_KEPT, MAX_RATE, MAX_TRACES, Traces

JOIN = "LHTTP/1.0 x\r\nsubscribe:{}\r\n\r\n"


class Stage:
    """A server that can be traced."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.server = Server(clock=self.clock, **options)
        self.engine = self.server.engine
        self.traces = Traces(self.engine, lambda: "n", self.clock.seconds, self.server.control.name_of)

    def connect(self, user: str | None = None, *channels: str) -> Client:
        client = self.server.connect(user=user)
        for channel in channels:
            client.send(JOIN.format(channel))
        client.take()
        return client

    def answer(self, kind: str, name: str, after: int = 0, **options: Any) -> dict[str, Any]:
        order = {"key": "k", "trace": "t", "bodies": False, "stop": False} | options
        return self.traces.ask({**order, "kind": kind, "name": name, "after": {"n": after}})

    def seen(self, kind: str, name: str, after: int = 0, **options: Any) -> list[tuple[Any, ...]]:
        messages = self.answer(kind, name, after, **options)["messages"]
        return [(row["direction"], row["command"], row.get("user"), row.get("channel")) for row in messages]

    @property
    def is_untouched(self) -> bool:
        classes = {type(session) for session in self.engine.sessions}
        return classes <= {Conversation} and type(self.engine.hub) is Hub and self.engine.watchers == []


@pytest.fixture
def stage() -> Stage:
    return Stage()


def say(client: Client, command: str, channel: str, body: str = "") -> None:
    client.send(f"LHTTP/1.0 {command}\r\npublish:{channel}\r\n\r\n{body}")


def test_nothing_is_touched_while_nobody_looks(stage: Stage) -> None:
    client = stage.connect("ann", "room")
    assert stage.is_untouched
    stage.answer("user", "ann")
    assert not stage.is_untouched
    stage.answer("user", "ann", stop=True)
    assert stage.is_untouched
    say(client, "chat", "room")
    assert len(client.take()) == 1


def test_a_trace_ends_when_nobody_has_asked_for_a_while(stage: Stage) -> None:
    client = stage.connect("ann", "room")
    stage.answer("command", "chat")
    say(client, "chat", "hall")
    for _ in range(5):
        stage.clock.advance(LIFETIME - 1)
        assert stage.seen("command", "chat") == [("in", "chat", "ann", None)]
    stage.clock.advance(LIFETIME)
    assert len(stage.traces) == 0
    assert stage.is_untouched
    say(client, "chat", "room")
    assert client.take()[0].command == "chat"


def test_a_user_is_followed_in_both_directions_on_old_and_new_connections(stage: Stage) -> None:
    old, other = stage.connect("ann", "room"), stage.connect("bob", "room")
    stage.answer("user", "ann")
    new = stage.connect("ann")
    say(old, "chat", "room", "hello")
    say(other, "reply", "room")
    new.send("LHTTP/1.0 x\r\nsubscribe:$own\r\n\r\n")
    new.session.send(Message("direct"))
    assert stage.seen("user", "ann") == [
        ("in", "chat", "ann", None),
        ("deliver", "chat", "ann", "room"),
        ("deliver", "reply", "ann", "room"),
        ("in", "x", "ann", None),
        ("out", "error", "ann", None),
        ("out", "direct", "ann", None),
    ]
    assert [message.command for message in old.take()] == ["chat", "reply"]


def test_a_connection_is_followed_and_no_other_of_its_user(stage: Stage) -> None:
    one, other = stage.connect("ann", "room"), stage.connect("ann")
    connection = one.session.identity.connection_id
    stage.answer("connection", connection)
    say(other, "elsewhere", "hall")
    say(one, "here", "hall")
    assert stage.seen("connection", connection) == [("in", "here", "ann", None)]


def test_a_channel_is_followed_from_its_publication_on(stage: Stage) -> None:
    client = stage.connect("ann", "room", "hall")
    stage.answer("channel", "room")
    say(client, "one", "room")
    say(client, "two", "hall")
    say(client, "three", "hall room")
    stage.engine.publish("room", "four")
    assert stage.seen("channel", "room") == [
        ("publish", "one", None, "room"),
        ("deliver", "one", None, "room"),
        ("publish", "three", None, "hall room"),
        ("deliver", "three", None, "room"),
        ("publish", "four", None, "room"),
        ("deliver", "four", None, "room"),
    ]
    assert [message.command for message in client.take()] == ["one", "two", "three", "three", "four"]


def test_a_command_is_followed_whoever_sends_it(stage: Stage) -> None:
    client = stage.connect("ann", "room")
    stage.answer("command", "chat")
    say(client, "chat", "room")
    say(client, "chatter", "room")
    assert stage.seen("command", "chat") == [("in", "chat", "ann", None), ("deliver", "chat", None, "room")]


def test_a_run_is_handled_like_before(stage: Stage) -> None:
    client = stage.connect("ann", "room")
    stage.answer("user", "ann")
    run = [f"LHTTP/1.0 chat\r\npublish:room\r\n\r\n{number}".encode() for number in range(5)]
    taken = 0
    while taken < len(run):
        taken = client.session.receive_run(run, taken, False)
    assert [message.text for message in client.take()] == ["0", "1", "2", "3", "4"]
    assert len(stage.seen("user", "ann")) == 10


def test_a_message_that_has_to_wait_is_told_once() -> None:
    class Slow(Processor):
        command = "slow"

        def on_message(self, request: Request) -> Deferred[None]:
            return waiting

    waiting: Deferred[None] = Deferred()
    stage = Stage(processors=[Slow()])
    client = stage.connect("ann")
    stage.answer("user", "ann")
    run = [b"LHTTP/1.0 slow\r\n\r\n", b"LHTTP/1.0 next\r\n\r\n"]
    assert client.session.receive_run(run, 0, False) == 1
    assert client.session.receive_run(run, 1, False) == 2
    waiting.callback(None)
    assert [row[1] for row in stage.seen("user", "ann")][:2] == ["slow", "next"]
    assert [row[0] for row in stage.seen("user", "ann")].count("in") == 2


def test_a_run_of_publications_is_told_and_kept_like_before() -> None:
    stage = Stage(history=["room"])
    client = stage.connect("ann", "room")
    stage.answer("channel", "room")
    run = [f"LHTTP/1.0 chat\r\npublish:room\r\n\r\n{number}".encode() for number in range(5)]
    taken = 0
    while taken < len(run):
        taken = client.session.receive_run(run, taken, False)
    assert [row[0] for row in stage.seen("channel", "room")].count("publish") == 5
    assert [(message.text, (message.headers.get("offset") or "?")[-1]) for message in client.take()] == [
        (str(number), str(number + 1)) for number in range(5)
    ]


def test_bodies_are_hidden_unless_asked_for_and_cut(stage: Stage) -> None:
    client = stage.connect("ann")
    for bodies in (False, True):
        stage.answer("user", "ann", bodies=bodies)
        say(client, "chat", "room", "secret" * 1000)
        (row,) = stage.answer("user", "ann", bodies=bodies)["messages"]
        assert row["body_size"] == 6000
        assert row.get("body") == (("secret" * 1000)[:MAX_BODY] if bodies else None)


def test_messages_of_private_commands_are_hidden_always(stage: Stage) -> None:
    stage.engine._private_commands = frozenset({"login"})
    client = stage.connect("ann")
    stage.answer("user", "ann", bodies=True)
    client.send("LHTTP/1.0 login\r\nuser:ann\r\npassword:sesame\r\n\r\nsesame")
    told = stage.answer("user", "ann", bodies=True)
    assert told["messages"][0]["command"] == "login"
    assert "sesame" not in repr(told)


def test_what_is_malformed_is_told_as_such(stage: Stage) -> None:
    client = stage.connect("ann")
    stage.answer("user", "ann")
    client.send("nonsense \u202e")
    row = stage.answer("user", "ann")["messages"][0]
    assert (row["command"], row["headers"]) == ("", [])
    assert row["problem"]


def test_thousands_of_headers_are_not_looked_at(stage: Stage) -> None:
    client = stage.connect("ann")
    stage.answer("user", "ann")
    for count in (64, 10_000):
        client.send(b"LHTTP/1.0 x\r\n" + b"a:\r\n" * count + b"\r\n")
    few, many = [row for row in stage.answer("user", "ann")["messages"] if row["direction"] == "in"]
    assert ("problem" in few, few["command"], len(few["headers"])) == (False, "x", 30)
    assert (many["command"], many["headers"], many["problem"]) == ("", [], "10000 headers are more than 128")


def test_what_was_seen_is_not_told_again(stage: Stage) -> None:
    client = stage.connect("ann")
    stage.answer("user", "ann")
    say(client, "one", "room")
    first = stage.answer("user", "ann")
    assert stage.answer("user", "ann")["messages"] == first["messages"]  # the answer was lost
    say(client, "two", "room")
    assert stage.seen("user", "ann", first["number"]) == [("in", "two", "ann", None)]


def test_a_flood_is_counted_and_not_looked_at(stage: Stage) -> None:
    client = stage.connect("ann")
    stage.answer("user", "ann")
    for _ in range(MAX_RATE + 50):
        say(client, "chat", "room")
    told = stage.answer("user", "ann")
    assert (len(told["messages"]), told["dropped"]) == (MAX_RATE, 50)
    stage.clock.advance(1)
    for _ in range(20):
        say(client, "chat", "room", "x" * 50_000)
    told = stage.answer("user", "ann", told["number"])
    assert (len(told["messages"]), told["dropped"]) == (5, 50 + 15)


def test_what_nobody_fetches_is_bounded(stage: Stage) -> None:
    client = stage.connect("ann")
    stage.answer("user", "ann")
    for _ in range(MAX_KEPT // MAX_RATE + 2):
        for _ in range(MAX_RATE):
            say(client, "chat", "room")
        stage.clock.advance(1)
    told = stage.answer("user", "ann")
    assert told["dropped"] == 2 * MAX_RATE
    assert told["messages"][0]["number"] == 2 * MAX_RATE + 1


def test_few_traces_run_at_a_time_each_with_its_owner(stage: Stage) -> None:
    for number in range(MAX_TRACES):
        assert "full" not in stage.answer("user", "ann", trace=str(number))
    assert stage.answer("user", "ann", trace="more")["full"] is True
    assert stage.answer("user", "ann", trace="0", key="other")["full"] is True
    stage.answer("user", "ann", trace="0", stop=True)
    assert "full" not in stage.answer("user", "ann", trace="more")


def test_another_object_begins_the_trace_anew(stage: Stage) -> None:
    ann, bob = stage.connect("ann"), stage.connect("bob")
    stage.answer("user", "ann")
    say(ann, "one", "room")
    assert stage.seen("user", "bob") == []
    say(ann, "two", "room")
    say(bob, "three", "room")
    assert stage.seen("user", "bob") == [("in", "three", "bob", None)]


def test_a_connection_that_ends_leaves_nothing(stage: Stage) -> None:
    client = stage.connect("ann", "room")
    stage.answer("user", "ann")
    client.session.close()
    assert type(client.session) is Conversation
    stage.connect("ann", "room").disconnect()
    assert [trace.sessions for trace in stage.traces._traces.values()] == [set()]
    stage.answer("user", "ann", stop=True)
    assert stage.is_untouched


def test_sessions_and_hubs_that_count_go_on_counting() -> None:
    stage = Stage()
    counters = Counters()
    stage.engine.conversation = counted_conversation(counters)
    stage.engine.hub.__class__ = CountedHub
    stage.engine.hub._counters = counters  # type: ignore[attr-defined]
    client = stage.connect("ann", "room")
    before = counters.received_messages
    stage.answer("user", "ann")
    say(client, "chat", "room")
    assert (counters.received_messages, counters.publications, counters.deliveries) == (before + 1, 1, 1)
    stage.traces.stop()
    assert type(stage.engine.hub) is CountedHub
    assert type(client.session) is stage.engine.conversation
