"""lhttp_tx.web.events.stream: what comes, with which id, and how a stream ends."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx import Hooks, Message, Processor, Request, Session
from lhttp_tx.codec.limits import Limits
from lhttp_tx.errors import Refused
from lhttp_tx.rules.grants import NOBODY
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.transports.endings import Ending, ending_of
from unit.history.test_recovery import LateStore
from unit.web.events._stack import Stack, Transport

pytestmark = pytest.mark.usefixtures("clock")


def kept(**options: Any) -> Stack:
    return Stack(history=["room.>"], **options)


def again(stack: Stack, query: str, stream: Transport) -> Transport:
    """Lose a stream, and come again as an ``EventSource`` does."""
    stream.end()
    return stack.stream(query, f"Last-Event-ID: {stream.parser.last_id}")


def test_a_stream_begins_with_a_head_and_a_time_to_come_again() -> None:
    stream = Stack().stream("channel=news")
    assert stream.head.split("\r\n") == [
        "HTTP/1.1 200 OK",
        "Content-Type: text/event-stream",
        "Cache-Control: no-store, no-transform",
        "X-Accel-Buffering: no",
        "X-Content-Type-Options: nosniff",
        "Vary: Origin",
        "Connection: close",
    ]
    assert 1000 <= (stream.parser.retry or 0) <= 3000
    assert not stream.disconnecting


def test_publications_come_as_events() -> None:
    stack = Stack()
    stream, other = stack.stream("channel=news&channel=chat"), stack.stream("channel=news&data=body")
    stack.publish("news", "one", "flash")
    stack.publish("chat", "two\nlines")
    stack.publish("elsewhere", "three")
    assert [(event.name, event.body) for event in stream.events] == [("flash", "one"), ("chat", "two\nlines")]
    assert [(event.name, event.data) for event in other.events] == [("flash", "one")]


def test_a_publication_is_made_an_event_once_for_all_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []
    stack = Stack()
    monkeypatch.setattr("lhttp_tx.web.events.encoding.encode_json", lambda payload: made.append(payload) or b"{}")
    streams = [stack.stream("channel=news") for _ in range(10)]
    streams += [stack.stream(f"channel=news&channel=other{number}") for number in range(10)]
    stack.publish("news", "one")
    assert [len(stream.events) for stream in streams] == [1] * 20
    assert len(made) == 2  # one for the streams of one channel, one for the others


@pytest.mark.parametrize("query", ["channel=room.a", "channel=room.a&channel=room.b", "channel=room.a&data=body"])
def test_a_stream_goes_on_where_it_was(query: str) -> None:
    stack = kept()
    stack.publish("room.a", "before")
    first = stack.stream(query)
    stack.publish("room.a", "1")
    stack.publish("room.a", "2")
    second = again(stack, query, first)
    assert second.events == []
    second.end()
    stack.publish("room.a", "3")
    third = again(stack, query, second)
    stack.publish("room.a", "4")
    found = [event.data for stream in (first, second, third) for event in stream.events]
    assert [data if "body" in query else data[-3] for data in found] == ["1", "2", "3", "4"]


def test_a_stream_on_which_nothing_came_goes_on_where_it_was() -> None:
    stack = kept()
    stack.publish("room.a", "before")
    first = stack.stream("channel=room.a&channel=room.%C3%BC")
    first.end()
    stack.publish("room.\xfc", "1")
    stack.publish("room.a", "2")
    second = again(stack, "channel=room.a&channel=room.%C3%BC", first)
    assert sorted(second.bodies) == ["1", "2"]


def test_positions_of_all_channels_are_in_the_id() -> None:
    stack = kept()
    query = "channel=room.a&channel=room.b"
    stream = stack.stream(query)
    for number in range(5):
        stack.publish("room.a", f"a{number}")
        stack.publish("room.b", f"b{number}")
    for number, event in enumerate(stream.events):
        late = stack.stream(query, f"Last-Event-ID: {event.last_id}")
        assert sorted(late.bodies) == sorted(stream.bodies[number + 1 :])
        asked = stack.stream(f"{query}&since={quote(event.last_id, safe='')}")
        assert sorted(asked.bodies) == sorted(stream.bodies[number + 1 :])


def test_the_last_messages_come_first_and_only_once() -> None:
    stack = kept()
    for number in range(5):
        stack.publish("room.a", str(number))
        stack.publish("room.b", str(number))
    query = "channel=room.a&channel=room.b&last=2"
    first = stack.stream(query)
    assert first.bodies == ["3", "4", "3", "4"]
    assert again(stack, query, first).events == []


def test_a_stream_lost_while_it_catches_up_misses_nothing() -> None:
    """The first channel has come, and the other one not yet."""
    store = LateStore(Clock())
    stack = Stack(history=["room.>"], history_store=store)
    for number in range(3):
        stack.publish("room.a", f"a{number}")
        stack.publish("room.b", f"b{number}")
    query = "channel=room.a&channel=room.b&last=2"
    stream = stack.stream(query)
    while len(stream.events) < 2:
        store.answer()
        stack.clock.advance(0.01)
    cut = stream.events[:2]
    assert [event.body for event in cut] == ["a1", "a2"]
    stream.end()
    store.is_late = False
    store.answer()
    second = stack.stream(query, f"Last-Event-ID: {cut[-1].last_id}")
    assert sorted(second.bodies) == ["b1", "b2"]


def test_a_position_of_another_life_is_a_gap() -> None:
    stack = kept()
    stack.publish("room.a", "1")
    stream = stack.stream("channel=room.a", "Last-Event-ID: other-1")
    (gap,) = stream.events
    assert (gap.name, gap.message["HEADERS"]["channel"]) == ("missed", "room.a")
    assert gap.last_id == gap.message["HEADERS"]["position"]
    stack.publish("room.a", "2")
    assert stream.bodies[1:] == ["2"]
    assert again(stack, "channel=room.a", stream).events == []


@pytest.mark.parametrize("options", [{}, {"history": ["room.>"]}])
def test_what_no_history_has_is_a_gap_for_who_comes_again(options: Any) -> None:
    stack = Stack(**options)
    stream = stack.stream("channel=news&channel=chat", "Last-Event-ID: news=e1-5")
    assert {event.message["HEADERS"]["channel"] for event in stream.events} == {"news", "chat"}
    asked = stack.stream("channel=news&channel=chat&since=news%3De1-5")
    assert [event.message["HEADERS"]["channel"] for event in asked.events] == ["news"]
    assert stack.stream("channel=news&channel=chat").events == []


def test_gaps_are_told() -> None:
    stack = Stack()
    stream, other = stack.stream("channel=news"), stack.stream("channel=news&channel=b")
    stack.server.engine.hub.tell_gaps()
    assert [event.name for event in stream.events] == ["missed"]
    assert [event.message["HEADERS"]["channel"] for event in other.events] == ["news", "b"]


def test_a_wildcard_subscription_has_no_ids() -> None:
    stack = kept(rules=Rules((Rule("room.>", wildcards=True),)))
    for query in ("channel=room.*", "channel=room.*&channel=news"):
        stream = stack.stream(query)
        stack.publish("room.a", "1")
        stack.server.engine.hub.tell_missed("room.a", "e1-9")
        assert [event.name for event in stream.events] == ["chat", "missed"]
        assert stream.parser.last_id == ""


@pytest.mark.parametrize(("query", "status", "told"), [
    ("channel=a..b", 400, "empty token"),
    ("channel=$control", 403, "reserved"),
    ("channel=a%0d%0apublish:b", 400, ""),
    ("channel=secret", 403, "secret"),
    ("channel=a&channel=secret", 403, "secret"),
    ("channel=" + "+".join(f"c{number}" for number in range(1900)), 400, ""),
    ("channel=" + "+".join(f"c{number}" for number in range(1000)), 429, ""),
    ("&".join(f"channel=c{number}" for number in range(100)), 400, ""),
    ("channel=a&since=b", 400, "not a position"),
])  # fmt: skip
def test_what_a_client_may_not_have_is_refused_with_a_status(query: str, status: int, told: str) -> None:
    stack = Stack(rules=Rules((Rule("secret", subscribe=NOBODY), Rule(">"))))
    transport = stack.request(f"/events?{query}")
    assert transport.status == status
    assert told in transport.body.decode()
    transport.end()
    assert stack.server.engine.sessions == set()
    assert (stack.factory.countConnections, stack.admission.pending) == (0, 0)


def test_many_channels_with_history_are_too_long_for_an_id() -> None:
    stack = kept(limits=Limits(subscription_count=1000))
    names = "+".join(f"room.{'x' * 40}{number}" for number in range(100))
    assert stack.request(f"/events?channel={names}").status == 400
    assert stack.request(f"/events?channel={names.replace('room', 'plain')}").status == 200


class Keeper(Hooks):
    """Says no to some, and remembers what becomes of sessions."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.undelivered: list[Message] = []
        self.waiting: Deferred[None] | None = None
        self.refused: Refused | None = None

    def on_connect(self, session: Session) -> Any:
        self.told.append("connect " + session.handshake.path)
        if self.refused is not None:
            raise self.refused
        return self.waiting

    def on_subscribe(self, session: Session, channel: str) -> None:
        self.told.append("subscribe " + channel)

    def before_delivery(self, session: Session, message: Message) -> bool:
        return message.body != b"hidden"

    def on_undelivered(self, session: Session, messages: list[Message]) -> None:
        self.undelivered += messages

    def on_disconnect(self, session: Session) -> None:
        self.told.append("disconnect")


def test_hooks_know_no_difference() -> None:
    hooks = Keeper()
    stack = kept(hooks=[hooks])
    query = "channel=room.a&channel=room.b"
    stream = stack.stream(query)
    for body in ("1", "hidden", "2"):
        stack.publish("room.a", body)
    assert stream.bodies == ["1", "2"]
    assert again(stack, query, stream).bodies == []
    assert hooks.told[:4] == ["connect /events", "subscribe room.a", "subscribe room.b", "disconnect"]


def test_a_hook_that_refuses_a_connection_gives_it_a_status() -> None:
    hooks = Keeper()
    hooks.refused = Refused(403, "not you")
    stream = Stack(hooks=[hooks]).stream("channel=a")
    assert (stream.status, stream.body) == (403, b"not you\n")
    assert stream.disconnecting


def test_a_hook_may_take_its_time() -> None:
    hooks = Keeper()
    hooks.waiting = Deferred()
    stack = Stack(hooks=[hooks])
    stream = stack.stream("channel=a")
    assert stream.value() == b""
    stack.clock.advance(1)
    hooks.waiting.callback(None)
    assert stream.status == 200


def test_what_waits_for_a_client_that_does_not_read_has_a_bound() -> None:
    hooks = Keeper()
    stack = Stack(hooks=[hooks], limits=Limits(unsent_size=100_000))
    stream, other = stack.stream("channel=a"), stack.stream("channel=a")
    assert stream.producer is not None
    stream.producer.pauseProducing()
    for number in range(6):
        stack.publish("a", f"{number}" + "x" * 10_000)
    assert stream.disconnecting
    assert len(other.events) == 6
    assert stream.events[-1].name == "close"
    assert stream.events[-1].message["HEADERS"]["code"] == "1013"
    assert [message.body[:1] for message in hooks.undelivered][-1] == b"3"
    assert not stream.aborted
    stack.clock.advance(3)
    assert stream.aborted


@pytest.mark.parametrize("query", ["channel=a", "channel=a&channel=b", "channel=a&data=body"])
def test_a_kick_is_an_event_and_the_end(query: str) -> None:
    stack = Stack()
    stream = stack.stream(query)
    (session,) = stack.server.engine.sessions
    session.close(4000, "go\naway")
    (event,) = stream.events
    assert event.name == "close"
    assert event.message["HEADERS"] == {"code": "4000", "reason": "go away"}
    assert stream.disconnecting
    stream.end()
    stack.publish("a", "too late")
    assert len(stream.events) == 1


def test_code_can_send_to_a_stream_and_others_do_not_see_it() -> None:
    class Greeter(Processor):
        command = "subscribe"

        def on_message(self, request: Request) -> None:
            request.session.send(Message("welcome", {"x": "1"}, "hello"))

    stream = Stack(processors=[Greeter()]).stream("channel=a")
    assert [(event.name, event.body) for event in stream.events] == [("welcome", "hello")]


def test_heartbeats_are_comments() -> None:
    stack = Stack()
    stream = stack.stream("channel=a")
    for _ in range(64):
        stack.clock.advance(1)
    assert stream.parser.comments == 2
    assert stream.events == []


def test_what_follows_the_request_is_not_answered_and_has_a_bound() -> None:
    stack = Stack()
    pipelined = b"GET /health HTTP/1.1\r\nHost: chat.example\r\n\r\n"
    stream = stack.stream("channel=a", behind=pipelined)
    stream.protocol.dataReceived(pipelined)
    assert stream.value().count(b"HTTP/1.1") == 1
    stream.protocol.dataReceived(b"x" * 16_384)
    assert stream.aborted
    stream.end()
    assert stack.server.engine.sessions == set()


def test_a_drain_ends_streams() -> None:
    stack = Stack()
    stream = stack.stream("channel=a")
    stack.factory.draining = True
    stopping = stack.server.stop()
    assert stream.events[-1].message["HEADERS"]["code"] == "1001"
    stream.end()
    stack.clock.advance(1)
    assert stopping.called


def test_a_stream_counts_as_a_connection_until_it_ends() -> None:
    stack = Stack(max_connections=2)
    first, second = stack.stream("channel=a"), stack.stream("channel=a")
    assert (stack.factory.countConnections, stack.admission.pending) == (2, 0)
    third = stack.request("/events?channel=a")
    assert (third.status, third.body) == (503, b"too many connections\n")
    fourth = stack.stream("channel=a")
    assert (fourth.status, fourth.events[0].name) == (200, "error")
    assert fourth.events[0].message["HEADERS"]["status"] == "503"
    assert (fourth.parser.retry or 0) >= 5000
    for stream in (first, second):
        stream.end()
    assert stack.stream("channel=a").events == []


def test_streams_of_one_address_have_a_limit() -> None:
    stack = Stack(max_per_address=2)
    streams = [stack.request("/events?channel=a") for _ in range(3)]
    assert [stream.status for stream in streams] == [200, 200, 429]
    assert stack.request("/events?channel=a", host="192.0.2.2").status == 200
    streams[0].end()
    assert stack.request("/events?channel=a").status == 200


@pytest.mark.parametrize("how", ["server", "client"])
def test_operators_are_told_how_a_stream_has_ended(how: str) -> None:
    stack = Stack(metrics=True)
    stream = stack.stream("channel=news")
    (session,) = stack.server.engine.sessions
    if how == "server":
        session.close(4401, "expired")
    stream.end()
    ending = Ending(4401, "expired", "server") if how == "server" else Ending(1000)
    assert ending_of(session._transport) == ending
    assert stack.server.engine.counters.closed == {(str(ending.code), how): 1}
