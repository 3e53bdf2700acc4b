"""Hooks: when each is called, what it can refuse, and that it costs nothing where it is not there."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from lhttp_tx import Hooks, Message, Refused, Request, Session
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.codec.limits import Limits
from lhttp_tx.engine.processors import Processor
from lhttp_tx.hooks import HookRunner
from lhttp_tx.interfaces import IHooks
from lhttp_tx.testing import Server

JOIN = "LHTTP/1.0 x\r\nsubscribe:{}\r\n\r\n"
LEAVE = "LHTTP/1.0 x\r\nunsubscribe:{}\r\n\r\n"
PUBLISH = "LHTTP/1.0 chat\r\npublish:{}\r\n\r\n{}"


def error(status: int, reason: str) -> Message:
    return Message("error", [("status", str(status)), ("reason", reason)])


def kinds(value: object) -> list[Any]:
    """Return makers of each kind of answer that a hook may give."""

    async def coroutine() -> object:
        return value

    return [lambda: value, lambda: succeed(value), coroutine]


async def refuse(reason: str = "no") -> None:
    raise Refused(403, reason)


def bodies(messages: list[Message]) -> list[str]:
    return [message.text for message in messages]


# Connections


def test_a_connection_is_told_at_both_ends() -> None:
    told: list[str] = []

    class Recorder(Hooks):
        def on_connect(self, session: Session) -> None:
            told.append(f"connect {session.peer}")

        def on_disconnect(self, session: Session) -> None:
            told.append(f"disconnect {session.peer}")

    Server(hooks=[Recorder()]).connect("me").disconnect()
    assert told == ["connect me", "disconnect me"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_connection_can_be_refused(is_async: bool) -> None:
    class Bouncer(Hooks):
        def on_connect(self, session: Session) -> Any:
            if is_async:
                return refuse("full")
            raise Refused(403, "full")

    client = Server(hooks=[Bouncer()]).connect()
    assert client.take() == [error(403, "full")]
    assert (client.close_code, client.close_reason) == (1008, "connection not accepted")


def test_messages_wait_for_the_hook_of_the_connection() -> None:
    ready: Deferred[None] = Deferred()

    class Slow(Hooks):
        def on_connect(self, session: Session) -> Any:
            return ready

    client = Server(hooks=[Slow()]).connect()
    client.send("LHTTP/1.0 x\r\nreceipt:1\r\n\r\n")
    assert client.take() == []
    ready.callback(None)
    assert [message.command for message in client.take()] == ["receipt"]


# Messages


@pytest.mark.parametrize("is_async", [False, True])
def test_a_message_can_be_refused_before_anything_is_done(is_async: bool) -> None:
    class Censor(Hooks):
        def on_message(self, request: Request) -> Any:
            if b"bad" not in request.body:
                return None
            if is_async:
                return refuse("mind your words")
            raise Refused(403, "mind your words")

    client = Server(hooks=[Censor()]).connect()
    client.send(JOIN.format("room"))
    client.send(PUBLISH.format("room", "bad"))
    client.send(PUBLISH.format("room", "good"))
    assert client.take() == [error(403, "mind your words"), Message("chat", [("publish", "room")], "good")]


def test_a_message_can_be_rewritten() -> None:
    class Stamp(Hooks):
        def on_message(self, request: Request) -> None:
            request.message = request.message.replace(body=request.text.upper())

    client = Server(hooks=[Stamp()]).connect()
    client.send(JOIN.format("room"))
    client.send(PUBLISH.format("room", "hello"))
    assert bodies(client.take()) == ["HELLO"]


def test_a_hook_that_fails_is_an_error_of_the_server(failures: list[Any]) -> None:
    class Broken(Hooks):
        def on_message(self, request: Request) -> None:
            raise KeyError("secret")

    client = Server(hooks=[Broken()]).connect()
    client.send("LHTTP/1.0 x\r\n\r\n")
    assert client.take() == [error(500, "internal error")]
    assert [type(found) for found in failures] == [KeyError]


def test_a_hook_that_takes_too_long_is_cut_off() -> None:
    class Slow(Hooks):
        timeout = 2.0

        def on_message(self, request: Request) -> Any:
            return Deferred()

    server = Server(hooks=[Slow()])
    client = server.connect()
    client.send("LHTTP/1.0 x\r\n\r\n")
    server.clock.advance(2.0)
    assert client.take() == [error(500, "not done within 2 seconds")]


def test_hooks_are_called_in_their_order() -> None:
    told: list[int] = []

    class Numbered(Hooks):
        def __init__(self, number: int) -> None:
            self.number = number

        def on_message(self, request: Request) -> None:
            told.append(self.number)

    Server(hooks=[Numbered(1), Numbered(2)]).connect().send("LHTTP/1.0 x\r\n\r\n")
    assert told == [1, 2]


# Subscriptions


@pytest.mark.parametrize("is_async", [False, True])
def test_a_subscription_can_be_refused(is_async: bool) -> None:
    class Members(Hooks):
        def before_subscribe(self, session: Session, channel: str) -> Any:
            if channel != "secret":
                return succeed(None) if is_async else None
            if is_async:
                return refuse("secret is for members")
            raise Refused(403, "secret is for members")

    client = Server(hooks=[Members(), Members()]).connect()
    client.send(JOIN.format("room"))
    client.send(JOIN.format("other secret more"))
    assert client.take() == [error(403, "secret is for members")]
    assert client.session.channels == {"room"}


def test_subscriptions_are_told_also_at_the_end_of_a_connection() -> None:
    told: list[str] = []

    class Recorder(Hooks):
        def on_subscribe(self, session: Session, channel: str) -> None:
            told.append(f"+{channel}")

        def on_unsubscribe(self, session: Session, channel: str) -> None:
            told.append(f"-{channel}")

    client = Server(hooks=[Recorder()], presence=[">"]).connect()
    client.send(JOIN.format("a b $presence.a"))
    client.send(LEAVE.format("a"))
    client.disconnect()
    assert told == ["+a", "+b", "-a", "-b"]


def test_what_goes_wrong_in_a_hook_that_nobody_waits_for_is_logged(failures: list[Any]) -> None:
    class Broken(Hooks):
        def on_subscribe(self, session: Session, channel: str) -> Any:
            if channel == "a":
                raise KeyError(channel)
            if channel == "b":
                return refuse()
            return 7

    client = Server(hooks=[Broken()]).connect()
    client.send(JOIN.format("a b c"))
    assert client.take() == []
    assert [type(found) for found in failures] == [KeyError, Refused, TypeError]
    assert client.session.channels == {"a", "b", "c"}


def test_a_hook_that_nobody_waits_for_has_a_time_limit(failures: list[Any]) -> None:
    waiting: Deferred[None] = Deferred()

    class Slow(Hooks):
        def on_subscribe(self, session: Session, channel: str) -> Any:
            return waiting

    server = Server(hooks=[Slow()], limits=Limits(processor_timeout=3))
    server.connect().send(JOIN.format("a"))
    server.clock.advance(3)
    assert waiting.called
    assert [type(found).__name__ for found in failures] == ["TimeoutError"]


# Deliveries


@pytest.mark.parametrize("number", range(3))
def test_a_delivery_can_be_kept_from_one_subscriber(number: int) -> None:
    no, yes = kinds(False)[number], kinds(None)[number]

    class Ignore(Hooks):
        def before_delivery(self, session: Session, message: Message) -> Any:
            return no() if session.peer == message.headers.get("not-for") else yes()

    server = Server(hooks=[Ignore(), Ignore()])
    jack, mike = server.connect("jack"), server.connect("mike")
    for client in (jack, mike):
        client.send(JOIN.format("room"))
    server.engine.publish("room", "chat", {"not-for": "jack"}, "1")
    server.engine.publish("room", "chat", {}, "2")
    assert (bodies(jack.take()), bodies(mike.take())) == (["2"], ["1", "2"])


def test_raising_keeps_a_delivery_too(failures: list[Any]) -> None:
    class Broken(Hooks):
        def before_delivery(self, session: Session, message: Message) -> Any:
            if message.body == b"refused":
                raise Refused(403, "no")
            if message.body == b"broken":
                raise KeyError
            if message.body == b"late":
                return refuse()
            return True

    client = Server(hooks=[Broken()]).connect()
    client.send(JOIN.format("room"))
    for body in ("refused", "broken", "late", "fine"):
        client.send(PUBLISH.format("room", body))
    assert bodies(client.take()) == ["fine"]
    assert [type(found) for found in failures] == [KeyError]


def test_deliveries_behind_one_that_is_waited_for_keep_their_order() -> None:
    asked: list[Deferred[bool]] = []

    class Slow(Hooks):
        def before_delivery(self, session: Session, message: Message) -> Any:
            if message.body in (b"1", b"3"):
                asked.append(Deferred())
                return asked[-1]
            return None

    client = Server(hooks=[Slow()]).connect()
    client.send(JOIN.format("room other"))
    for number in range(1, 6):
        client.send(PUBLISH.format("room" if number % 2 else "other", number))
    assert client.take() == []
    asked[0].callback(True)
    assert bodies(client.take()) == ["1", "2"]
    asked[1].callback(False)
    assert bodies(client.take()) == ["4", "5"]


def test_what_waits_to_be_delivered_is_bounded() -> None:
    class Stuck(Hooks):
        def before_delivery(self, session: Session, message: Message) -> Any:
            return Deferred()

    client = Server(hooks=[Stuck()], limits=Limits(unsent_size=1_000)).connect()
    other = client.session._engine
    client.send(JOIN.format("room"))
    for _ in range(20):
        other.publish("room", "chat", {}, "x" * 100)
    assert (client.close_code, client.close_reason) == (
        1013,
        "too slow: messages that wait for before_delivery pass the limit",
    )


def test_what_the_server_itself_tells_is_not_held_up() -> None:
    class Silence(Hooks):
        def before_delivery(self, session: Session, message: Message) -> Any:
            return False

    server = Server(hooks=[Silence()], presence=["room"])
    client = server.connect()
    client.send(JOIN.format("$presence.room room"))
    assert [message.command for message in client.take()] == ["presence"]


# Messages that wait too long


class Held(Processor):
    command = "hold"

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    def on_message(self, request: Request) -> Any:
        self.waiting.append(Deferred())
        return self.waiting[-1]


def test_a_message_that_waited_too_long_is_dropped_and_told() -> None:
    told: list[tuple[str, str]] = []

    class Recorder(Hooks):
        def on_wait_timeout(self, session: Session, message: Message) -> None:
            told.append((session.peer, message.text))

    held = Held()
    server = Server(hooks=[Recorder()], processors=[held], wait_timeout=5)
    client = server.connect("me")
    client.send("LHTTP/1.0 hold\r\n\r\n")
    client.send("LHTTP/1.0 chat\r\nreceipt:1\r\n\r\nlate")
    server.clock.advance(3)
    client.send("LHTTP/1.0 chat\r\nreceipt:2\r\n\r\nin time")
    server.clock.advance(2.5)
    held.waiting[0].callback(None)
    assert client.take() == [
        Message("error", [("status", "503"), ("reason", "message waited longer than 5 seconds"), ("receipt-id", "1")]),
        Message("receipt", [("receipt-id", "2")]),
    ]
    assert told == [("me", "late")]


def test_without_a_limit_messages_wait_for_any_time() -> None:
    held = Held()
    server = Server(processors=[held], limits=Limits(processor_timeout=1_000))
    client = server.connect()
    client.send("LHTTP/1.0 hold\r\n\r\n")
    client.send("LHTTP/1.0 chat\r\nreceipt:1\r\n\r\n")
    server.clock.advance(900)
    held.waiting[0].callback(None)
    assert [message.command for message in client.take()] == ["receipt"]


def test_undelivered_messages_come_with_their_session() -> None:
    told: list[list[str]] = []

    class Recorder(Hooks):
        def on_undelivered(self, session: Session, messages: list[Message]) -> None:
            told.append([message.text for message in messages])

    client = Server(hooks=[Recorder()]).connect()
    payloads = [f"LHTTP/1.0 chat\r\n\r\n{number}".encode() for number in range(3)]
    client.session.undelivered([(payload, False) for payload in [*payloads, b"no lhttp"]])
    client.session.undelivered([])
    assert told == [["0", "1", "2"]]


# Channels


class Channels(Hooks):
    """Writes down which channels open and close."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_channel_opened(self, channel: str, scope: str) -> None:
        self.told.append(f"{scope} +{channel}")

    def on_channel_closed(self, channel: str, scope: str) -> None:
        self.told.append(f"{scope} -{channel}")


def test_first_and_last_subscribers_open_and_close_a_channel() -> None:
    hooks = Channels()
    server = Server(hooks=[hooks], presence=[">"])
    one, two = server.connect(), server.connect()
    one.send(JOIN.format("a $presence.a"))
    two.send(JOIN.format("a"))
    one.disconnect()
    assert hooks.told == ["node +a", "cluster +a"]
    two.send(LEAVE.format("a"))
    assert hooks.told[2:] == ["node -a", "cluster -a"]


def test_the_cluster_is_told_everywhere_and_once() -> None:
    bus, clock, hooks = MemoryBus(), Clock(), [Channels() for _ in range(3)]
    servers = [Server(hooks=[found], bus=bus, clock=clock) for found in hooks]
    clients = [server.connect() for server in servers[:2]]
    for client in clients:
        client.send(JOIN.format("a"))
        clock.advance(0.1)
    assert [found.told for found in hooks] == [
        ["node +a", "cluster +a"],
        ["cluster +a", "node +a"],
        ["cluster +a"],
    ]
    for found in hooks:
        found.told.clear()
    for client in clients:
        client.disconnect()
        clock.advance(0.1)
    assert [found.told for found in hooks] == [
        ["node -a", "cluster -a"],
        ["node -a", "cluster -a"],
        ["cluster -a"],
    ]


def test_a_hook_may_publish_into_a_channel_that_opens() -> None:
    class Greeter(Hooks):
        server: Server

        def on_channel_opened(self, channel: str, scope: str) -> Any:
            return self.server.engine.publish(channel, "hello", {}, scope) if scope == "node" else None

    hooks = Greeter()
    hooks.server = Server(hooks=[hooks])
    client = hooks.server.connect()
    client.send(JOIN.format("a"))
    assert bodies(client.take()) == ["node"]


# Nothing for nothing


def test_hooks_that_do_nothing_are_attached_to_nothing() -> None:
    server = Server(hooks=[Hooks(), Hooks()])
    engine = server.engine
    assert HookRunner([Hooks()], clock=server.clock).filters == ()
    assert (engine.watchers, engine.delivery, engine.hub.on_channel) == ([], None, [])
    assert (engine.on_wait_timeout, engine.on_undelivered, engine.open_steps, engine.close_steps) == ([], [], (), ())


def test_a_hook_for_subscriptions_leaves_publications_their_short_way() -> None:
    class Members(Hooks):
        def before_subscribe(self, session: Session, channel: str) -> None:
            pass

    engine = Server(hooks=[Members()]).engine
    assert engine.plan(PUBLISH.format("room", "x").encode()).shortcut is not None


def test_hooks_provide_their_interface() -> None:
    from zope.interface.verify import verifyObject

    assert verifyObject(IHooks, Hooks())
