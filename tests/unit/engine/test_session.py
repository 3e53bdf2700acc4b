"""One connection: order, bounds, errors, receipts, and its end."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from line_counter import count_lines
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import globalLogPublisher

from lhttp_tx import Authenticator, HeaderFilter, Hooks, Message, Processor, Refused, Request, Session, processor
from lhttp_tx.codec.limits import Limits
from lhttp_tx.errors import LHTTPError, LocalProtocolError, SessionClosed
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.testing import Client, Server
from tests.fake_nats import FakeLink, FakeNATS
from unit.engine.test_hub import SlowBus


@pytest.fixture
def failures() -> Iterator[list[type[BaseException]]]:
    """The types of the failures that a test logs."""
    found: list[type[BaseException]] = []

    def observe(event: dict[str, Any]) -> None:
        if "log_failure" in event:
            found.append(event["log_failure"].type)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def error(status: int, reason: str, receipt: str | None = None) -> Message:
    pairs = [("status", str(status)), ("reason", reason)]
    return Message("error", pairs + ([("receipt-id", receipt)] if receipt is not None else []))


@processor("echo")
def echo(request: Request) -> None:
    request.reply()


class Pending(Processor):
    """Answers each message when the test says so."""

    command = "pending"

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []
        self.cancelled = 0

    def on_message(self, request: Request) -> Deferred[None]:
        waiting: Deferred[None] = Deferred(self._cancel)
        self.waiting.append(waiting)
        return waiting.addCallback(lambda _: request.reply())

    def _cancel(self, _: object) -> None:
        self.cancelled += 1


class Witness(Processor):
    """Remembers what it was told."""

    command = "witness"

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_open(self, session: Session) -> None:
        self.events.append("open")

    def on_message(self, request: Request) -> None:
        self.events.append(request.text)

    def on_close(self, session: Session) -> None:
        self.events.append("close")


def raising(exception: Exception) -> Callable[[Any], Any]:
    def call(_: Any) -> None:
        raise exception

    return call


# Processors


def test_a_plain_processor_answers() -> None:
    client = Server(processors=[echo]).connect()
    client.send("LHTTP/1.0 echo\r\na:b\r\n\r\nhello")
    assert client.take() == [Message("echo", [("a", "b")], "hello")]


def test_a_command_without_a_processor_is_no_error() -> None:
    client = Server().connect()
    client.send("LHTTP/1.0 nobody\r\n\r\nhello")
    assert client.take() == []


def test_a_deferred_is_waited_for() -> None:
    pending = Pending()
    client = Server(processors=[pending]).connect()
    client.send(Message("pending", body="1"))
    assert client.take() == []
    pending.waiting[0].callback(None)
    assert client.take() == [Message("pending", body="1")]


def test_a_coroutine_is_waited_for() -> None:
    server = Server()

    @processor("later")
    async def later(request: Request) -> None:
        await deferLater(server.clock, 2, lambda: None)
        request.reply("done")

    server.engine.registry.add(later)
    client = server.connect()
    client.send(Message("later"))
    server.clock.advance(1.5)
    assert client.take() == []
    server.clock.advance(0.5)
    assert client.take() == [Message("later", body="done")]


def test_messages_of_one_connection_are_handled_in_order() -> None:
    pending = Pending()
    client = Server(processors=[pending, echo]).connect()
    client.send(Message("pending", body="1"))
    client.send(Message("echo", body="2"))
    client.send(Message("pending", body="3"))
    client.send(Message("echo", body="4"))
    assert client.take() == []
    pending.waiting[0].callback(None)
    assert [message.text for message in client.take()] == ["1", "2"]
    pending.waiting[1].callback(None)
    assert [message.text for message in client.take()] == ["3", "4"]


def test_messages_of_other_connections_do_not_wait() -> None:
    server = Server(processors=[Pending(), echo])
    server.connect().send(Message("pending"))
    other = server.connect()
    other.send(Message("echo"))
    assert other.take() == [Message("echo")]


def test_ten_thousand_deferreds_that_have_fired_do_not_nest() -> None:
    pending = Pending()

    @processor("fired")
    def fired(request: Request) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done.addCallback(lambda _: request.reply())

    server = Server(processors=[pending, fired], limits=Limits(queue_length=20_000))
    client = server.connect()
    client.send(Message("pending"))
    for _ in range(10_000):
        client.send(Message("fired"))
    pending.waiting[0].callback(None)
    assert len(client.take()) == 10_001


def test_a_processor_that_raises_costs_one_error_message(failures: list[Any]) -> None:
    @processor("boom")
    def boom(request: Request) -> None:
        raise RuntimeError("secret")

    client = Server(processors=[boom, echo]).connect()
    client.send(Message("boom"))
    client.send(Message("echo"))
    assert client.take() == [error(500, "internal error"), Message("echo")]
    assert failures == [RuntimeError]


def test_a_coroutine_that_raises_costs_one_error_message(failures: list[Any]) -> None:
    @processor("boom")
    async def boom(request: Request) -> None:
        raise RuntimeError("secret")

    client = Server(processors=[boom, echo]).connect()
    client.send(Message("boom"))
    client.send(Message("echo"))
    assert client.take() == [error(500, "internal error"), Message("echo")]
    assert failures == [RuntimeError]


def test_a_refusal_is_told_as_it_is_and_not_logged(failures: list[Any]) -> None:
    @processor("no")
    def refuse(request: Request) -> None:
        raise Refused(403, "members only")

    client = Server(processors=[refuse]).connect()
    client.send(Message("no"))
    assert client.take() == [error(403, "members only")]
    assert failures == []


def test_a_reason_with_line_breaks_stays_one_header() -> None:
    @processor("no")
    def refuse(request: Request) -> None:
        raise Refused(400, "first\r\nstatus:200\x1b[2J")

    client = Server(processors=[refuse]).connect()
    client.send(Message("no"))
    assert client.take() == [error(400, "first status:200 [2J")]


def test_a_processor_that_returns_neither_none_nor_an_awaitable_is_told_so(failures: list[Any]) -> None:
    @processor("wrong")
    def wrong(request: Request) -> Any:
        return "hello"

    client = Server(processors=[wrong]).connect()
    client.send(Message("wrong"))
    assert client.take() == [error(500, "internal error")]
    assert failures == [TypeError]


def test_a_reply_that_is_no_message_is_an_error_of_the_processor(failures: list[Any]) -> None:
    @processor("wrong")
    def wrong(request: Request) -> None:
        request.reply(headers={"a": "b\r\nc"})

    client = Server(processors=[wrong]).connect()
    client.send(Message("wrong"))
    assert client.take() == [error(500, "internal error")]
    assert len(failures) == 1


# Time limits


def test_a_processor_that_takes_too_long_is_cancelled() -> None:
    pending = Pending()
    server = Server(processors=[pending, echo], limits=Limits(processor_timeout=3))
    client = server.connect()
    client.send(Message("pending"))
    client.send(Message("echo"))
    server.clock.advance(2.9)
    assert client.take() == []
    server.clock.advance(0.2)
    assert client.take() == [error(500, "not done within 3 seconds"), Message("echo")]
    assert pending.cancelled == 1


def test_a_processor_may_have_a_time_limit_of_its_own() -> None:
    pending = Pending()
    pending.timeout = 1
    server = Server(processors=[pending])
    client = server.connect()
    client.send(Message("pending"))
    server.clock.advance(1.1)
    assert [message.command for message in client.take()] == ["error"]


def test_a_processor_that_ignores_its_cancellation_does_not_hold_up_the_next_message() -> None:
    never: Deferred[None] = Deferred(lambda _: None)
    stubborn: Deferred[None] = Deferred()

    @processor("stubborn")
    async def ignore(request: Request) -> None:
        try:
            await never
        except Exception:
            await stubborn

    server = Server(processors=[ignore, echo], limits=Limits(processor_timeout=1))
    client = server.connect()
    client.send(Message("stubborn"))
    client.send(Message("echo"))
    server.clock.advance(1.1)
    assert [message.command for message in client.take()] == ["error", "echo"]
    stubborn.callback(None)
    assert client.take() == []


def test_what_fails_after_its_time_limit_is_logged(failures: list[Any]) -> None:
    late: Deferred[None] = Deferred()

    @processor("late")
    async def fail_late(request: Request) -> None:
        try:
            await Deferred(lambda _: None)
        except Exception:
            await late

    server = Server(processors=[fail_late], limits=Limits(processor_timeout=1))
    client = server.connect()
    client.send(Message("late"))
    server.clock.advance(1.1)
    late.errback(RuntimeError("too late"))
    assert failures == [RuntimeError]


def test_no_timer_is_left_when_a_processor_is_done() -> None:
    pending = Pending()
    server = Server(processors=[pending])
    client = server.connect()
    client.send(Message("pending"))
    pending.waiting[0].callback(None)
    assert server.clock.getDelayedCalls() == []


# The queue


def test_a_full_queue_pauses_reading_and_an_emptier_one_resumes_it() -> None:
    pending = Pending()
    server = Server(processors=[pending], limits=Limits(queue_length=2))
    client = server.connect()
    for number in range(5):
        client.send(Message("pending", body=str(number)))
    assert client.reading_paused
    for number in range(5):
        pending.waiting[number].callback(None)
    assert not client.reading_paused
    assert [message.text for message in client.take()] == ["0", "1", "2", "3", "4"]


def test_a_queue_is_full_of_large_messages_sooner() -> None:
    pending = Pending()
    client = Server(processors=[pending], limits=Limits(queue_length=64, message_size=1_000)).connect()
    for _ in range(18):
        assert not client.reading_paused
        client.send(Message("pending", body="x" * 970))
    assert client.reading_paused
    for number in range(8):
        pending.waiting[number].callback(None)
    assert client.reading_paused
    pending.waiting[8].callback(None)
    assert not client.reading_paused


# on_open, on_close and state


def test_on_open_comes_before_the_first_message_of_the_command_only() -> None:
    witness = Witness()
    client = Server(processors=[witness, echo]).connect()
    client.send(Message("echo"))
    assert witness.events == []
    client.send(Message("witness", body="1"))
    client.send(Message("witness", body="2"))
    assert witness.events == ["open", "1", "2"]


def test_on_close_is_called_for_processors_that_were_opened() -> None:
    used, unused = Witness(), Witness()
    unused.command = "unused"
    client = Server(processors=[used, unused]).connect()
    client.send(Message("witness", body="1"))
    client.disconnect()
    assert used.events == ["open", "1", "close"]
    assert unused.events == []


def test_on_open_may_take_its_time() -> None:
    opening: Deferred[None] = Deferred()

    class Slow(Witness):
        def on_open(self, session: Session) -> Deferred[None]:  # type: ignore[override]
            return opening

    slow = Slow()
    client = Server(processors=[slow]).connect()
    client.send(Message("witness", body="1"))
    assert slow.events == []
    opening.callback(None)
    assert slow.events == ["1"]
    client.disconnect()
    assert slow.events == ["1", "close"]


def test_a_failed_on_open_keeps_the_message_from_the_processor_and_is_tried_again() -> None:
    attempts: list[int] = []

    class Picky(Witness):
        def on_open(self, session: Session) -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise Refused(503, "not yet")

    picky = Picky()
    client = Server(processors=[picky]).connect()
    client.send(Message("witness", body="1"))
    client.send(Message("witness", body="2"))
    client.disconnect()
    assert client.take() == [error(503, "not yet")]
    assert picky.events == ["2", "close"]


def test_a_failing_on_close_does_not_keep_it_from_the_others(failures: list[Any]) -> None:
    class Broken(Witness):
        command = "broken"

        def on_close(self, session: Session) -> None:
            raise RuntimeError("broken")

    witness = Witness()
    server = Server(processors=[Broken(), witness])
    client = server.connect()
    client.send(Message("broken"))
    client.send(Message("witness", body="1"))
    client.disconnect()
    assert witness.events == ["open", "1", "close"]
    assert failures == [RuntimeError]
    assert server.engine.sessions == set()


def test_state_belongs_to_the_connection() -> None:
    @processor("count")
    def count(request: Request) -> None:
        state = request.session.state
        state["count"] = state.get("count", 0) + 1
        request.reply(str(state["count"]))

    server = Server(processors=[count])
    first, second = server.connect(), server.connect()
    for client in (first, first, second):
        client.send(Message("count"))
    assert [message.text for message in first.take()] == ["1", "2"]
    assert [message.text for message in second.take()] == ["1"]


# What a processor can do


def test_a_reply_takes_command_and_headers_of_the_request() -> None:
    @processor("chat")
    def shout(request: Request) -> None:
        request.reply(request.text.upper())

    client = Server(processors=[shout]).connect()
    client.send(Message("chat", {"a": "b"}, "hi"))
    assert client.take() == [Message("chat", {"a": "b"}, "HI")]


def test_headers_of_a_reply_replace_those_of_the_request() -> None:
    @processor("chat")
    def auth(request: Request) -> None:
        request.reply(command="auth", headers={"content-type": "image/png"})

    client = Server(processors=[auth]).connect()
    client.send("LHTTP/1.0 chat\r\ncontent-type:json\r\ncontent-length:10\r\n\r\njsonbody")
    assert [message.raw for message in client.take()] == [b"LHTTP/1.0 auth\r\ncontent-type:image/png\r\n\r\njsonbody"]


def test_a_processor_can_send_at_any_time() -> None:
    server = Server()

    @processor("remind")
    def remind(request: Request) -> None:
        server.clock.callLater(5, request.session.send, Message("reminder"))

    server.engine.registry.add(remind)
    client = server.connect()
    client.send(Message("remind"))
    server.clock.advance(5)
    assert client.take() == [Message("reminder")]


def test_a_processor_can_change_what_is_published() -> None:
    @processor("chat")
    def stamp(request: Request) -> None:
        request.publication = Message("said", {"from": "jack"}, request.body)

    server = Server(processors=[stamp])
    reader, writer = server.connect(), server.connect()
    reader.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    writer.send("LHTTP/1.0 chat\r\npublish:room\r\n\r\nhi")
    assert reader.take() == [Message("said", {"from": "jack"}, "hi")]


def test_a_processor_can_veto_the_publishing() -> None:
    @processor("chat")
    def veto(request: Request) -> None:
        request.publication = None

    server = Server(processors=[veto])
    client = server.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    client.send("LHTTP/1.0 chat\r\npublish:room\r\n\r\nhi")
    assert client.take() == []


def test_a_processor_can_subscribe_unsubscribe_and_publish() -> None:
    @processor("join")
    async def join(request: Request) -> None:
        await request.session.subscribe(["a", "b"])
        request.session.unsubscribe("b")
        await request.session.publish(["a", "b"], "joined", {"who": "me"}, "welcome")

    server = Server(processors=[join])
    client = server.connect()
    client.send(Message("join"))
    assert client.take() == [Message("joined", [("publish", "a b"), ("who", "me")], "welcome")]
    assert client.session.channels == {"a"}


def test_unsubscribe_takes_one_name_or_several_and_whatever_there_is() -> None:
    server = Server(rules=Rules([Rule(match=">", wildcards=True)]))
    session = server.connect().session
    session.subscribe(["a", "b", "c"])
    session.unsubscribe(["a", "b", "never"])
    assert session.channels == {"c"}
    session.subscribe_all(["x.*"])
    session.unsubscribe(session.channels)
    assert session.channels == frozenset()
    assert server.engine.hub.channels == {}


@pytest.mark.parametrize("channels", ["a b", ["fine", "$x"], "x.*", ["a", ""]])
def test_unsubscribe_refuses_what_can_be_no_subscription(channels: Any) -> None:
    session = Server().connect().session
    session.subscribe("fine")
    with pytest.raises(LocalProtocolError):
        session.unsubscribe(channels)
    assert session.channels == {"fine"}


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, [("Lang", "en"), ("multipart", "0")]),
        ({"command": "other"}, [("Lang", "en"), ("multipart", "0")]),
        ({"body": "new"}, [("Lang", "en")]),
        ({"headers": [("receipt", "mine")]}, [("receipt", "mine")]),
    ],
)
def test_a_reply_leaves_out_what_told_the_server_what_to_do(changes: dict[str, Any], kept: Any) -> None:
    answer = processor("x")(lambda request: request.reply(**changes))
    client: Client = Server(processors=[answer]).connect()
    orders = "Receipt:1\r\npublish:a\r\nsubscribe:b\r\nunsubscribe:b\r\n"
    client.send(f"LHTTP/1.0 x\r\n{orders}Lang:en\r\nmultipart:0\r\n\r\nk1:v1\r\n\r\nbody1")
    found = client.take()[0]
    assert list(found.headers) == kept
    assert found.text == changes.get("body", "k1:v1\r\n\r\nbody1")
    assert found.command == changes.get("command", "x")


def test_the_state_of_a_session_is_the_users_alone() -> None:
    class Wait(Hooks):
        def before_delivery(self, session: Session, message: Message) -> bool:
            return True

    gate = Server(
        hooks=[Wait()],
        rules=Rules([Rule(match=">", max_rate=5)]),
        authenticators=[Authenticator()],
        allow_anonymous=True,
    )
    client = gate.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\npublish:room\r\n\r\n")
    client.send("LHTTP/1.0 x\r\npublish:room\r\n\r\n")
    client.send("LHTTP/1.0 login\r\ntoken:wrong\r\n\r\n")
    assert [message.command for message in client.take()] == ["x", "x", "error"]
    assert client.session.state == {}


def test_deliveries_are_forgotten_with_their_session() -> None:
    class Wait(Hooks):
        def before_delivery(self, session: Session, message: Message) -> bool:
            return True

    server = Server(hooks=[Wait()])
    client = server.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\npublish:room\r\n\r\n")
    ended = weakref.ref(client.session)
    client.disconnect()
    client.session = None
    gc.collect()
    assert ended() is None


def test_a_processor_can_close_the_connection() -> None:
    @processor("bye")
    def bye(request: Request) -> None:
        request.reply("so long")
        request.session.close(4000, "as you wish")

    server = Server(processors=[bye])
    client = server.connect()
    client.send(Message("bye"))
    assert client.take() == [Message("bye", body="so long")]
    assert (client.close_code, client.close_reason) == (4000, "as you wish")
    assert server.engine.sessions == set()


def test_what_is_sent_after_the_end_is_dropped() -> None:
    client = Server().connect()
    client.disconnect()
    client.session.send(Message("late"))
    client.session.close()
    assert client.take() == []
    assert client.session.closed


def test_a_session_that_has_ended_cannot_subscribe() -> None:
    server = Server()
    client = server.connect()
    client.disconnect()
    failures: list[Any] = []
    client.session.subscribe("room").addErrback(failures.append)
    assert [failure.type for failure in failures] == [SessionClosed]
    assert server.engine.hub.channels == {}


# Receipts


def test_a_receipt_is_sent_when_everything_is_done() -> None:
    client = Server().connect()
    client.send("LHTTP/1.0 chat\r\nsubscribe:room\r\nreceipt:tok:1\r\n\r\n")
    assert client.take() == [Message("receipt", {"receipt-id": "tok:1"})]


def test_a_receipt_waits_for_the_bus() -> None:
    bus = SlowBus()
    client = Server(bus=bus).connect()
    client.send("LHTTP/1.0 chat\r\nsubscribe:room\r\nreceipt:1\r\n\r\n")
    assert client.take() == []
    bus.pending[0].callback(None)
    assert client.take() == [Message("receipt", {"receipt-id": "1"})]


def test_an_error_carries_the_receipt_id() -> None:
    client = Server().connect()
    client.send("LHTTP/1.0 chat\r\nsubscribe:a..b\r\nreceipt:7\r\n\r\n")
    assert client.take() == [error(400, "channel 'a..b' has an empty token", "7")]


def test_the_error_of_a_head_that_is_too_large_carries_the_receipt_id() -> None:
    """Otherwise the sender waits for its whole time limit, and does not learn why."""
    client = Server(limits=Limits(head_size=100)).connect()
    client.send("LHTTP/1.0 chat\r\npublish:room\r\nlong:" + "x" * 200 + "\r\nreceipt:7\r\n\r\nbody\r\nreceipt:8\r\n")
    assert [found.headers.get("receipt-id") for found in client.take()] == ["7"]


def test_subscribers_get_a_publication_without_the_headers_meant_for_the_server() -> None:
    client = Server().connect()
    client.send("LHTTP/1.0 chat\r\nsubscribe:room\r\n\r\n")
    client.send("LHTTP/1.0 chat\r\npublish:room\r\nReceipt:1\r\nkeep:me\r\n\r\nhi")
    assert [message.raw for message in client.take()] == [
        b"LHTTP/1.0 chat\r\npublish:room\r\nkeep:me\r\n\r\nhi",
        b"LHTTP/1.0 receipt\r\nreceipt-id:1\r\n\r\n",
    ]


# Subscriptions


def test_the_number_of_subscriptions_is_bounded() -> None:
    client = Server(limits=Limits(subscription_count=2)).connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:a b\r\n\r\n")
    client.send("LHTTP/1.0 x\r\nsubscribe:b c\r\n\r\n")
    client.send("LHTTP/1.0 x\r\nsubscribe:a\r\n\r\n")
    assert client.take() == [error(429, "a connection may have 2 subscriptions")]
    assert client.session.channels == {"a", "b"}


class TurnClock(Clock):
    """A clock that calls in one turn, as a reactor does, what was due when the turn began, and nothing else."""

    def advance(self, amount: float) -> None:
        self.rightNow += amount
        for call in [call for call in self.calls if call.getTime() <= self.rightNow]:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)


@pytest.mark.parametrize("rest", ["", "receipt:1\r\n"])
@pytest.mark.parametrize("rules", [None, Rules([Rule(echo=False)])])
def test_a_list_of_channels_does_not_make_much_of_a_message_at_once(rest: str, rules: Rules | None) -> None:
    server = Server(rules=rules, clock=TurnClock())
    client, reader = server.connect(), server.connect()
    names = [f"c{number}" for number in range(32)]
    for each in (client, reader):
        each.send(f"LHTTP/1.0 x\r\nsubscribe:{' '.join(names)}\r\n\r\n")
    for number in range(3):
        client.send(f"LHTTP/1.0 x\r\npublish:{' '.join(names)}\r\n{rest}\r\n{number}{20_000 * 'x'}")
    client.send("LHTTP/1.0 x\r\npublish:c1\r\n\r\nlast")
    texts = []
    for _ in range(1_000):
        some = [message.text[:4] for message in reader.take()]
        assert len(some) <= 4
        texts += some
        server.clock.advance(0)
    assert texts == [f"{number}xxx" for number in range(3) for _ in names] + ["last"]
    got = [message for message in client.take() if message.command == "x"]
    assert len(got) == (0 if rules is not None else 3 * 32 + 1)


def test_a_client_that_leaves_while_its_lists_are_published_is_forgotten() -> None:
    server = Server()
    client = server.connect()
    client.send(f"LHTTP/1.0 x\r\npublish:{' '.join(f'c{number}' for number in range(9))}\r\n\r\n{60_000 * 'x'}")
    client.disconnect()
    for _ in range(20):
        server.clock.advance(0)
    assert (server.engine.sessions, server.clock.getDelayedCalls()) == (set(), [])


def node(**limits: Any) -> tuple[FakeNATS, Server, FakeLink]:
    """Return a node of a cluster that has just connected to NATS."""
    nats = FakeNATS()
    nats.answers = False
    server = Server(bus=nats.bus, clock=nats.clock, limits=Limits(**limits))
    nats.clock.advance(0)
    link = nats.accept()
    for subject in link.subscribed:
        link.grant(subject)  # those of the nodes
    link.subscribed.clear()
    return nats, server, link


def subscribe(client: Client, link: FakeLink, *channels: str) -> list[str | None]:
    """Subscribe, let NATS answer, unsubscribe again; return the status of what was refused."""
    asked = len(link.subscribed)
    client.send(f"LHTTP/1.0 x\r\nsubscribe:{' '.join(channels)}\r\n\r\n")
    for subject in link.subscribed[asked:]:
        link.grant(subject)
    client.send(f"LHTTP/1.0 x\r\nunsubscribe:{' '.join(channels)}\r\n\r\n")
    return [message.headers.get("status") for message in client.take()]


def test_channels_that_are_new_to_a_node_have_a_rate() -> None:
    nats, server, link = node(subscription_count=4, subscription_rate=2, error_count=0)
    client = server.connect()
    for turn in range(50):
        subscribe(client, link, *(f"c{turn}.{number}" for number in range(4)))
    assert len(link.subscribed) == 4
    for _ in range(100):
        nats.clock.advance(0.1)
        subscribe(client, link, f"d{nats.clock.seconds()}")
    assert 18 <= len(link.subscribed) - 4 <= 22
    assert "too many subscriptions to channels that are new" in server_reason(client, "e")


def server_reason(client: Client, channel: str) -> str:
    client.send(f"LHTTP/1.0 x\r\nsubscribe:{channel}\r\n\r\n")
    (message,) = client.take()
    return message.headers.get("reason", "")


def test_channels_that_a_node_has_already_have_no_rate() -> None:
    _, server, link = node(subscription_count=2, subscription_rate=1)
    others, client = [server.connect() for _ in range(3)], server.connect()
    for number, other in enumerate(others):
        other.send(f"LHTTP/1.0 x\r\nsubscribe:a{number} b{number}\r\n\r\n")
    for subject in tuple(link.subscribed):
        link.grant(subject)
    assert [subscribe(client, link, "x", "y"), subscribe(client, link, "z")] == [[], ["429"]]
    assert [subscribe(client, link, f"a{number}", f"b{number}") for number in range(3)] == [[], [], []]
    assert subscribe(server.connect(), link, "z") == []


def test_a_server_alone_has_no_rate_for_channels() -> None:
    client = Server(limits=Limits(subscription_count=2, subscription_rate=1)).connect()
    for number in range(50):
        client.send(f"LHTTP/1.0 x\r\nsubscribe:a{number} b{number}\r\n\r\n")
        client.send(f"LHTTP/1.0 x\r\nunsubscribe:a{number} b{number}\r\n\r\n")
    assert client.take() == []


def test_a_message_with_one_bad_channel_has_no_effect() -> None:
    seen: list[Request] = []
    server = Server(processors=[processor("x")(seen.append)])
    client = server.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:good\r\npublish:ba..d\r\n\r\n")
    assert [message.headers.get("status") for message in client.take()] == ["400"]
    assert seen == []
    assert client.session.channels == frozenset()


def test_a_subscription_that_times_out_is_taken_back() -> None:
    bus = SlowBus()
    server = Server(bus=bus, limits=Limits(processor_timeout=1))
    client = server.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    server.clock.advance(1.1)
    assert [message.command for message in client.take()] == ["error"]
    assert client.session.channels == frozenset()
    assert server.engine.hub.channels == {}


def test_replies_and_publications_keep_their_order() -> None:
    server = Server(processors=[echo])
    client = server.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    server.engine.hub.cork()
    client.send("LHTTP/1.0 x\r\npublish:room\r\n\r\n1")
    client.send("LHTTP/1.0 echo\r\n\r\n2")
    client.send("LHTTP/1.0 x\r\npublish:room\r\n\r\n3")
    server.engine.hub.uncork()
    assert [message.text for message in client.take()] == ["1", "2", "3"]


# The end


def test_the_end_leaves_no_subscription_behind() -> None:
    server = Server()
    client = server.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:a b c\r\n\r\n")
    client.disconnect()
    assert server.engine.hub.channels == {}
    assert server.engine.sessions == set()


def test_the_end_while_the_bus_subscribes_leaves_no_subscription_behind() -> None:
    bus = SlowBus()
    server = Server(bus=bus)
    client = server.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    client.disconnect()
    bus.pending[0].callback(None)
    assert server.engine.hub.channels == {}
    assert server.engine.sessions == set()


def test_messages_that_had_arrived_are_handled_after_the_end() -> None:
    pending = Pending()
    server = Server(processors=[pending])
    reader, writer = server.connect(), server.connect()
    reader.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    writer.send(Message("pending"))
    writer.send("LHTTP/1.0 x\r\npublish:room\r\n\r\nlast words")
    writer.disconnect()
    pending.waiting[0].callback(None)
    assert [message.text for message in reader.take()] == ["last words"]
    assert len(server.engine.sessions) == 1


def test_after_the_end_nothing_is_waited_for_longer_than_one_message_may_take() -> None:
    server = Server(processors=[Pending()], limits=Limits(processor_timeout=5))
    client = server.connect()
    for _ in range(10):
        client.send(Message("pending"))
    client.disconnect()
    server.clock.advance(5)
    assert server.engine.sessions == set()
    assert server.clock.getDelayedCalls() == []


# Draining


def drained(server: Server, timeout: float = 3) -> list[Any]:
    fired: list[Any] = []
    server.engine.drain(timeout).addCallback(fired.append)
    return fired


def test_draining_closes_idle_connections_with_1001() -> None:
    server = Server()
    client = server.connect()
    assert drained(server) == [None]
    assert client.close_code == 1001


def test_draining_without_connections_is_done_at_once() -> None:
    assert drained(Server()) == [None]


def test_draining_finishes_what_is_in_hand() -> None:
    pending = Pending()
    server = Server(processors=[pending])
    client = server.connect()
    client.send(Message("pending", body="1"))
    client.send(Message("pending", body="2"))
    fired = drained(server)
    assert client.close_code is None
    pending.waiting[0].callback(None)
    pending.waiting[1].callback(None)
    assert [message.text for message in client.take()] == ["1", "2"]
    assert client.close_code == 1001
    assert fired == [None]


def test_draining_cancels_what_takes_too_long() -> None:
    server = Server(processors=[Pending()])
    client = server.connect()
    client.send(Message("pending"))
    client.send(Message("pending"))
    fired = drained(server, 3)
    server.clock.advance(3)
    assert fired == [None]
    assert client.close_code == 1001
    assert server.clock.getDelayedCalls() == []


# Filters


def recording_filter(events: list[str]) -> HeaderFilter:
    class Recorder(HeaderFilter):
        def on_connect(self, session: Session) -> None:
            events.append("open")

        def before(self, request: Request) -> None:
            events.append("before")

        def after(self, request: Request) -> None:
            events.append("after")

        def on_disconnect(self, session: Session) -> None:
            events.append("close")

    return Recorder()


def test_filters_see_a_message_before_and_after_its_processor() -> None:
    events: list[str] = []

    @processor("x")
    def work(request: Request) -> None:
        events.append("processor")

    client = Server(processors=[work], filters=[recording_filter(events)]).connect()
    client.send(Message("x"))
    client.disconnect()
    assert events == ["open", "before", "processor", "after", "close"]


def test_a_filter_sees_only_messages_with_its_headers() -> None:
    events: list[str] = []
    only = recording_filter(events)
    only.headers = ("x-token",)
    client = Server(filters=[only]).connect()
    client.send(Message("x"))
    client.send(Message("x", {"X-Token": "1"}))
    assert events == ["open", "before", "after"]


@pytest.mark.parametrize("method", ["check", "before", "after"])
def test_a_filter_can_stop_a_message(method: str) -> None:
    stopper = type("Stopper", (HeaderFilter,), {method: lambda self, _: raising(Refused(401, "no token"))(_)})
    events: list[Request] = []
    client = Server(processors=[processor("x")(events.append)], filters=[stopper()]).connect()
    client.send(Message("x", {"receipt": "1"}))
    assert client.take() == [error(401, "no token", "1")]
    assert len(events) == (1 if method == "after" else 0)


def test_a_filter_can_replace_the_message() -> None:
    class Rewrite(HeaderFilter):
        def before(self, request: Request) -> None:
            if request.command == "old":
                request.message = request.message.replace(command="echo", headers={"new": "yes"})

    client = Server(processors=[echo], filters=[Rewrite()]).connect()
    client.send(Message("old", body="hi"))
    assert client.take() == [Message("echo", {"new": "yes"}, "hi")]


def test_a_filter_may_wait() -> None:
    gate: Deferred[None] = Deferred()

    class Slow(HeaderFilter):
        async def before(self, request: Request) -> None:  # type: ignore[override]
            await gate

    client = Server(processors=[echo], filters=[Slow()]).connect()
    client.send(Message("echo"))
    assert client.take() == []
    gate.callback(None)
    assert client.take() == [Message("echo")]


def test_messages_wait_until_the_filters_have_opened() -> None:
    gate: Deferred[None] = Deferred()

    class Slow(HeaderFilter):
        async def on_connect(self, session: Session) -> None:  # type: ignore[override]
            await gate

    client = Server(processors=[echo], filters=[Slow()]).connect()
    client.send(Message("echo"))
    assert client.take() == []
    gate.callback(None)
    assert client.take() == [Message("echo")]


def test_a_filter_that_refuses_to_open_closes_the_connection() -> None:
    refuser = type("Refuser", (HeaderFilter,), {"on_connect": lambda self, _: raising(Refused(403, "go away"))(_)})
    server = Server(filters=[refuser()])
    client = server.connect()
    assert client.take() == [error(403, "go away")]
    assert client.close_code == 1008
    assert server.engine.sessions == set()


def test_a_filter_that_fails_to_open_closes_the_connection(failures: list[Any]) -> None:
    broken = type("Broken", (HeaderFilter,), {"on_connect": lambda self, _: raising(RuntimeError("broken"))(_)})
    server = Server(filters=[broken()])
    client = server.connect()
    assert client.close_code == 1011
    assert failures == [RuntimeError]


def test_filters_and_processor_can_tell_each_other_about_a_message() -> None:
    class Tag(HeaderFilter):
        def before(self, request: Request) -> None:
            request.state["user"] = "jack"

    @processor("who")
    def who(request: Request) -> None:
        request.reply(request.state["user"])

    client = Server(processors=[who], filters=[Tag()]).connect()
    client.send(Message("who"))
    assert client.take() == [Message("who", body="jack")]


def test_multipart_bodies_are_split() -> None:
    @processor("upload")
    def upload(request: Request) -> None:
        request.reply(" ".join(f"{part.headers.get('k1')}={part.body.decode()}" for part in request.parts), headers=())

    client: Client = Server(processors=[upload]).connect()
    client.send("LHTTP/1.0 upload\r\nmultipart:0 14\r\n\r\nk1:v1\r\n\r\nbody1k2:v2\r\n\r\nbody2")
    assert [message.text for message in client.take()] == ["v1=body1 None=body2"]


# What a hostile reader found


def test_an_on_close_that_waits_is_called_once() -> None:
    closed: list[Session] = []
    server = Server()

    class Slow(Witness):
        async def on_close(self, session: Session) -> None:  # type: ignore[override]
            closed.append(session)
            await deferLater(server.clock, 1, lambda: None)

    class SlowFilter(HeaderFilter):
        async def on_disconnect(self, session: Session) -> None:  # type: ignore[override]
            closed.append(session)
            await deferLater(server.clock, 1, lambda: None)

    server = Server(processors=[Slow()], filters=[SlowFilter()])
    client = server.connect()
    client.send(Message("witness", body="1"))
    client.disconnect()
    server.clock.pump([0.5] * 20)
    assert len(closed) == 2
    assert server.engine.sessions == set()
    assert server.clock.getDelayedCalls() == []


def test_draining_does_not_wait_for_each_on_close_anew(failures: list[Any]) -> None:
    class Hanging(Witness):
        def on_close(self, session: Session) -> Deferred[None]:  # type: ignore[override]
            return Deferred()

    first, second = Hanging(), Hanging()
    second.command = "second"
    server = Server(processors=[first, second])
    client = server.connect()
    client.send(Message("witness"))
    client.send(Message("second"))
    fired = drained(server, 3)
    server.clock.pump([0.5] * 7)
    assert fired == [None]
    assert server.clock.getDelayedCalls() == []
    assert len(failures) == 2


def with_status(status: object) -> LHTTPError:
    error = LHTTPError("no")
    error.status = status  # type: ignore[assignment]
    return error


@pytest.mark.parametrize("bad", [Refused(403, None), *map(with_status, ("403", 42, 200, 600, True))])  # type: ignore[arg-type]
def test_a_refusal_without_status_or_reason_is_an_internal_error(bad: LHTTPError, failures: list[Any]) -> None:
    client = Server(processors=[processor("no")(raising(bad)), echo]).connect()
    client.send(Message("no"))
    client.send(Message("echo"))
    assert client.take() == [error(500, "internal error"), Message("echo")]
    assert len(failures) == 1


def test_a_cancellation_that_fails_does_not_hold_up_the_next_message(failures: list[Any]) -> None:
    def canceller(_: object) -> None:
        raise RuntimeError("cannot be cancelled")

    server = Server(
        processors=[processor("stubborn")(lambda request: Deferred(canceller)), echo],
        limits=Limits(processor_timeout=1),
    )
    client = server.connect()
    client.send(Message("stubborn"))
    client.send(Message("echo"))
    server.clock.advance(1.1)
    assert [message.command for message in client.take()] == ["error", "echo"]
    assert len(failures) == 1


@pytest.mark.parametrize("exception", [SystemExit(1), asyncio.CancelledError()])
def test_what_is_no_ordinary_exception_costs_one_error_message_too(
    exception: BaseException, failures: list[Any]
) -> None:
    def call(_: Request) -> None:
        raise exception

    client = Server(processors=[processor("exit")(call), echo]).connect()
    client.send(Message("exit"))
    client.send(Message("echo"))
    assert client.take() == [error(500, "internal error"), Message("echo")]
    assert len(failures) == 1


def test_an_on_open_that_outlives_its_time_limit_counts_once() -> None:
    late: Deferred[None] = Deferred()

    class Slow(Witness):
        calls = 0

        async def on_open(self, session: Session) -> None:  # type: ignore[override]
            self.calls += 1
            if self.calls == 1:
                try:
                    await Deferred()
                except Exception:
                    await late

    slow = Slow()
    server = Server(processors=[slow], limits=Limits(processor_timeout=1))
    client = server.connect()
    client.send(Message("witness", body="1"))
    server.clock.advance(1.1)
    client.send(Message("witness", body="2"))
    late.callback(None)
    client.disconnect()
    assert slow.events == ["2", "close"]


@pytest.mark.parametrize("head", ["receipt:7\r\nbad line", "a:b\r\nreceipt: 7\r\nbad name:x", "bad\r\nreceipt:7"])
def test_an_error_about_a_malformed_head_carries_a_receipt_id_that_can_be_read(head: str) -> None:
    client = Server().connect()
    client.send(f"LHTTP/1.0 x\r\n{head}\r\n\r\n")
    assert [message.headers.get("receipt-id") for message in client.take()] == ["7"]


def test_a_processor_that_is_added_later_is_seen_by_heads_that_were_known() -> None:
    server = Server()
    client = server.connect()
    client.send(Message("echo"))
    server.engine.registry.add(echo)
    client.send(Message("echo"))
    assert client.take() == [Message("echo")]


def test_a_bus_that_refuses_at_once_fails_the_deferred() -> None:
    server = Server()
    client = server.connect()
    server.bus.stop()
    types: list[Any] = []
    server.engine.publish("room", "x").addErrback(lambda failure: types.append(failure.type))
    client.session.publish("room", "x").addErrback(lambda failure: types.append(failure.type))
    client.session.subscribe("room").addErrback(lambda failure: types.append(failure.type))
    assert [found.__name__ for found in types] == ["BusUnavailable"] * 3


# What a program does wrong is not the client's fault


@pytest.mark.parametrize(
    "act",
    [
        lambda request: request.session.publish("a..b", "news"),
        lambda request: request.session.publish(["room", "$x"], "news"),
        lambda request: request.session.publish([], "news"),
        lambda request: request.session.subscribe("a b"),
        lambda request: request.session.close(1006),
    ],
    ids=["publish", "reserved", "none", "subscribe", "close"],
)
def test_what_a_processor_asks_for_wrongly_is_a_failure_of_the_program(act: Any, failures: list[Any]) -> None:
    client = Server(processors=[processor("act")(act), echo]).connect()
    client.send(Message("act", {"receipt": "1"}))
    client.send(Message("echo"))
    assert client.take() == [error(500, "internal error", "1"), Message("echo")]
    assert len(failures) == 1


@pytest.mark.parametrize("header", ["publish", "subscribe", "unsubscribe"])
def test_a_malformed_channel_that_a_filter_has_written_is_a_failure_of_the_program(
    header: str, failures: list[Any]
) -> None:
    class Rewriter(HeaderFilter):
        def before(self, request: Request) -> None:
            request.message = request.message.replace(headers={header: "a..b"})

    client = Server(filters=[Rewriter()]).connect()
    client.send(Message("chat", {header: "room", "receipt": "1"}))
    assert client.take() == [error(500, "internal error", "1")]
    assert failures == [LocalProtocolError]


@pytest.mark.parametrize("code", [0, 999, 1002, 1005, 1006, 1012, 2999, 5000, 99_999])
def test_a_close_code_that_a_server_may_not_send_changes_nothing(code: int) -> None:
    client = Server(processors=[echo]).connect()
    with pytest.raises(ValueError, match=f"{code} is not a close code that a server may send"):
        client.session.close(code)
    client.send(Message("echo"))
    assert (client.take(), client.close_code) == ([Message("echo")], None)


@pytest.mark.parametrize(("code", "reason"), [("1000", ""), (1000, None), (1000.0, ""), (None, "")])
def test_what_is_no_close_code_or_reason_changes_nothing(code: Any, reason: Any) -> None:
    client = Server(processors=[echo]).connect()
    with pytest.raises(TypeError):
        client.session.close(code, reason)
    assert not client.session.closed


def test_end_of_a_client_with_many_subscriptions_takes_few_lines() -> None:
    server = Server()
    client = server.connect()
    client.send(Message("chat", {"subscribe": " ".join(f"room.{number}" for number in range(128))}))
    assert len(server.engine.hub.channels) == 128
    assert count_lines(client.disconnect) < 21 * 128
    assert not server.engine.hub.channels
