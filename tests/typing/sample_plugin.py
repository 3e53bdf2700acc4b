"""A plugin as a user writes one; ``mypy --strict`` without plugins and pyright must have nothing to say about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

import lhttp_tx
from lhttp_tx import (
    Authenticator,
    HeaderFilter,
    Hooks,
    Identity,
    Message,
    Processor,
    Refused,
    Request,
    Session,
    processor,
)
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.cluster.control import Reached
from lhttp_tx.codec.positions import mark_run
from lhttp_tx.config import Config
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.values import Page, Placing, Retention, Stored
from lhttp_tx.interfaces import BusReceiver, IBus, IHistoryStore, MaybeDeferred
from lhttp_tx.running import RunningServer
from lhttp_tx.service import LHTTPService
from lhttp_tx.testing import Server


@processor("echo")
def echo(request: Request) -> None:
    """A processor that is done at once."""
    request.reply()


@processor("ask", timeout=3.0)
async def ask(request: Request) -> None:
    """A coroutine that awaits both kinds."""
    await asyncio.sleep(0)
    await request.server.publish("room", "asked", {"who": request.session.identity.user or "nobody"}, request.text)
    await lhttp_tx.publish(["a", "b"], "asked")
    await request.session.subscribe("room")


@processor("later")
def later(request: Request) -> Deferred[int]:
    """One that returns a Deferred."""
    return succeed(len(request.body))


@processor("task")
def task(request: Request) -> asyncio.Future[None]:
    """One that returns a future of asyncio."""
    return asyncio.ensure_future(asyncio.sleep(0))


class Desk:
    """Methods as processors."""

    @processor("open")
    def open(self, request: Request) -> None:
        """Done at once."""

    @processor("close")
    async def close(self, request: Request) -> None:
        """A coroutine."""


class Room(Processor):
    """A class with each method."""

    command = "room"
    timeout = 5.0

    def __init__(self) -> None:
        self.database: str = ""

    async def on_start(self, server: RunningServer) -> None:
        self.database = str(server.settings("rooms").get("database", ":memory:"))

    def on_open(self, session: Session) -> None:
        session.state["entered"] = session.server.clock.seconds()

    async def on_message(self, request: Request) -> None:
        if request.text == "":
            raise Refused(400, "say something")
        reached: Reached = await request.server.control.send_to_user("jack", Message("told", body=request.text))
        request.reply(str(reached.count), headers={"people": str(request.server.presence.count("room"))})

    def on_close(self, session: Session) -> Deferred[None]:
        return session.publish("room", "left")

    def on_stop(self, server: RunningServer) -> None:
        self.database = ""


class Filter(HeaderFilter):
    """A filter."""

    headers = ("token", "publish")

    async def on_connect(self, session: Session) -> None:
        session.state["token"] = None

    def before(self, request: Request) -> None:
        request.message = request.message.replace(headers=request.headers.without({"token"}))

    async def after(self, request: Request) -> None:
        await succeed(None)


class Watching(Hooks):
    """Hooks."""

    def on_connect(self, session: Session) -> None:
        session.close(4000, "not today")

    async def before_subscribe(self, session: Session, channel: str) -> None:
        raise Refused(403, channel)

    async def before_delivery(self, session: Session, message: Message) -> bool:
        return message.command != "secret"


class Quick(Hooks):
    """Hooks that answer at once."""

    def before_delivery(self, session: Session, message: Message) -> bool:
        return True


class Known(Authenticator):
    """An authenticator that waits."""

    async def authenticate(self, attempt: LoginAttempt) -> Identity | None:
        await asyncio.sleep(0)
        return attempt.identify("jack")


class Sure(Authenticator):
    """One that does not."""

    def authenticate(self, attempt: LoginAttempt) -> Identity | None:
        return None


@implementer(IBus)
class QuietBus:
    """A bus that carries nothing."""

    description = "nothing"
    available = True
    is_immediate = True

    def bracket(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        begin()
        end()

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def subscribe(self, channel: str, receiver: BusReceiver) -> MaybeDeferred:
        receiver(channel, [b""], False)
        return None

    def unsubscribe(self, channel: str, receiver: BusReceiver) -> None:
        return None

    def publish(self, channel: str, payload: bytes, binary: bool) -> MaybeDeferred:
        return None

    def publish_run(self, channel: str, payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        list(payloads)
        return None

    def confirm(self) -> MaybeDeferred:
        return None


@implementer(IHistoryStore)
class NoHistory:
    """A store that keeps nothing."""

    description = "nothing"
    available = True
    trouble = ""
    spreads = False

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def epoch_of(self, retention: Retention) -> str:
        return "none"

    def append(
        self, channel: str, retention: Retention, payloads: list[bytes], binary: bool, placing: Placing | None = None
    ) -> list[bytes]:
        if not payloads:
            raise HistoryUnavailable("nothing to append")
        return mark_run(payloads, 1, 0, channel)

    def confirm(self) -> MaybeDeferred:
        return None

    def read(self, channel: str, retention: Retention, *, after: int, limit: int, size: int) -> Page | Deferred[Page]:
        return succeed(Page([], True, 0, 0))

    def newest(self, channel: str, retention: Retention, *, before: int, limit: int, size: int) -> Page:
        return Page([Stored(1, b"LHTTP/1.0 x\r\n\r\n", False)], True, 1, 1)

    def remove(self, channel: str, retention: Retention) -> MaybeDeferred:
        return None


def make_service(reactor: object) -> LHTTPService:
    """Embed a server with all of it."""
    desk = Desk()
    return LHTTPService(
        Config(listen=("tcp:8081",), plugins={"rooms": {"database": "rooms.db"}}, retention=Retention(messages=10)),
        reactor=reactor,
        processors=[echo, ask, later, task, Room(), desk.open, desk.close],
        filters=[Filter()],
        hooks=[Watching(), Quick()],
        authenticators=[Known(), Sure()],
        bus=QuietBus(),
        history_store=NoHistory(),
    )


def call(request: Request) -> bool:
    """Decorated functions are still functions."""
    echo(request)
    Desk().open(request)
    waiting: Deferred[int] = later(request)
    return bool(waiting.called)


def try_it() -> list[Message]:
    """Use the fakes."""
    server = Server(
        processors=[echo, Room()],
        filters=[Filter()],
        hooks=[Quick()],
        authenticators=[Sure()],
        bus=QuietBus(),
        history_store=NoHistory(),
        clock=Clock(),
        allow_anonymous=True,
    )
    client = server.connect(user="jack")
    client.send(Message("echo", body="hello"))
    return client.take()
