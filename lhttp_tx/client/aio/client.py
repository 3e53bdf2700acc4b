"""
The client of :mod:`lhttp_tx.client.aio`.

It runs the client for Twisted on the program's loop, and turns its Deferreds into coroutines.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, final

from twisted.internet.defer import Deferred

from lhttp_tx.client.aio.loops import LoopReactor, lend, take_back
from lhttp_tx.client.aio.presence import Presence
from lhttp_tx.client.aio.subscription import Subscription
from lhttp_tx.client.aio.values import made
from lhttp_tx.client.arguments import takes
from lhttp_tx.client.client import Client as _Client, State
from lhttp_tx.client.errors import ClientClosed
from lhttp_tx.client.http.ways import Transport
from lhttp_tx.client.presence.following import EndCallback, PersonCallback
from lhttp_tx.client.results import HistoryPage, Published
from lhttp_tx.codec.headers import HeaderPairs
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.multipart import Part

__all__ = ["Client", "Headers"]

_OWN_TLS = ("tls:", "ssl:", "wrappedTLS:")
"""Endpoint descriptions that use Twisted's own TLS, which needs the installed reactor."""

_CALLED = frozenset({"login", "headers", "on_message", "on_error", "on_state", "on_recovered", "on_missed"})
"""The options that may be coroutine functions."""

Result = TypeVar("Result")
Headers = HeaderPairs | dict[str, str]
Listener = Callable[[Message, str], object] | Callable[[Message], object]
"""Called with a message and its channel."""


@final
class Client:
    """
    A client of one server, for coroutines in one asyncio loop.

    Each call that waits may be cancelled, for example by ``asyncio.timeout``. Calls raise the exceptions of
    :mod:`lhttp_tx.client.errors`. A call before :meth:`connect` waits for the connection, within its time limit.
    """

    def __init__(
        self, url: str, *, command: str = "chat", login: Callable[[], Any] | None = None, **options: Any
    ) -> None:
        """
        :param url: a ``ws://`` or ``wss://`` URL, or an endpoint description, such as ``unix:/run/lhttp.sock``.
        :param command: the command of publications, unless the call gives one.
        :param login: returns the headers of the login message. It may be a coroutine function.
        :param options: the other options of :class:`lhttp_tx.client.client.Client`, such as ``codec``, ``headers``,
            ``transports``, ``on_state``, ``on_error``, ``positions`` and ``timeout``, except ``reactor``. Mistakes in
            *options* raise an exception only when the client connects. ``headers`` and the functions whose names begin
            with ``on_`` may be coroutine functions. The client waits for ``headers``, but not for the others: messages
            continue meanwhile.
        :raises ValueError: if *url* is an endpoint description with TLS. Use ``wss://`` instead.
        """
        if url.startswith(_OWN_TLS):
            raise ValueError(f"{url} has a TLS of its own: use a wss:// URL")
        self._url = url
        self._command = command
        self._login = login
        self._options = options
        self._made: _Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reactor: LoopReactor | None = None
        self._is_closed = False

    @property
    def state(self) -> State:
        """The state of the client."""
        return State.IDLE if self._made is None else self._made.state

    @property
    def transport(self) -> Transport | None:
        """The transport of the connection: ``websocket``, ``stream`` or ``poll``; ``None`` without a connection."""
        return None if self._made is None else self._made.transport

    @property
    def user(self) -> str | None:
        """The user of the connection, according to the server; ``None`` without a connection or without *login*."""
        return None if self._made is None else self._made.user

    async def connect(self, *, attempts: int | None = 1, timeout: float | None = None) -> None:
        """
        Connect to the server.

        :param attempts: the most attempts; ``None``: no limit.
        :param timeout: the most seconds to wait; ``None``: no limit except that of the attempts.
        :raises ConnectFailed: if the client cannot connect. It is then closed.
        :raises TypeError: if an option of the client has a wrong type, or does not exist.
        """
        self._is_closed = False
        client = self._open()
        try:
            await self._wait(client.connect(attempts, timeout))
        except BaseException:
            if self._made is client:  # otherwise another task has closed it, and may have connected again
                await self.close()
            raise

    async def close(self) -> None:
        """
        Close the client. Calls that wait raise ``ClientClosed``. Iterators end. :meth:`connect` opens the client again.
        """
        self._is_closed = True
        client, self._made = self._made, None
        reactor, self._reactor = self._reactor, None
        loop = self._loop
        if client is None or reactor is None or loop is None:
            return
        try:
            await client.close().asFuture(loop)
        finally:
            take_back(reactor, loop)  # meanwhile, the client may belong to another loop

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        is_error = kind is not None and not issubclass(kind, SystemExit | GeneratorExit)
        if is_error and self._made is not None:
            self._made.interrupted()
        await self.close()

    async def publish(
        self,
        channels: str | Iterable[str],
        body: Any = "",
        *,
        command: str | None = None,
        headers: Headers = (),
        parts: Iterable[Part] | None = None,
        binary: bool | None = None,
        receipt: bool = True,
        id: str | None = None,  # noqa: A002 - as in JavaScript
        timeout: float | None = None,
    ) -> Published:
        """
        Publish a message, like :meth:`lhttp_tx.client.client.Client.publish`.

        :param channels: a channel, or several.
        :param body: a str, bytes, or a value that is sent as JSON.
        :param command: the command; by default, that of the client.
        :param headers: pairs of name and value, or a dict.
        :param parts: the parts of a multipart body, instead of *body*.
        :param binary: whether to send a binary message; by default, if the body is bytes.
        :param receipt: whether to wait for the receipt.
        :param id: the message id; by default, a new one.
        :param timeout: the most seconds to wait for the receipt; ``None``: the client's own limit.
        """
        message = made(command or self._command, body, headers, parts, binary)
        names = [channels] if isinstance(channels, str) else list(channels)
        return await self._wait(
            self._running().publish(
                names,
                message.command,
                message.headers,
                message.body,
                binary=message.binary,
                receipt=receipt,
                message_id=id,
                timeout=timeout,
            )
        )

    async def batch(self, messages: Iterable[tuple[str | Iterable[str], Any]]) -> list[Published | BaseException]:
        """
        Publish several messages at once.

        :param messages: pairs of channels and body.
        :returns: for each message, its result or its exception.
        """
        found = [self.publish(channels, body) for channels, body in messages]
        return list(await asyncio.gather(*found, return_exceptions=True))

    async def send(
        self,
        command: str,
        body: Any = "",
        *,
        headers: Headers = (),
        parts: Iterable[Part] | None = None,
        binary: bool | None = None,
        receipt: bool = True,
        timeout: float | None = None,
    ) -> Message | None:
        """Send a message to the server, and return the receipt, or ``None`` if *receipt* is false."""
        message = made(command, body, headers, parts, binary)
        if not receipt:
            self._running().send(message)
            return None
        return await self._wait(self._running().confirm(message, timeout))

    async def request(
        self,
        command: str,
        body: Any = "",
        *,
        headers: Headers = (),
        parts: Iterable[Part] | None = None,
        binary: bool | None = None,
        reply: str | None = None,
        timeout: float | None = None,
    ) -> Message:
        """
        Send a message to a processor, and return the reply.

        :param reply: the command of the reply; by default, that of the request.
        :raises NoReply: if no reply has come before the receipt.
        """
        message = made(command, body, headers, parts, binary)
        return await self._wait(self._running().request(message, reply_command=reply, timeout=timeout))

    async def upload(
        self,
        command: str,
        parts: Iterable[Part],
        *,
        headers: Headers = (),
        on_progress: Callable[[int, int], object] | None = None,
        timeout: float | None = None,
    ) -> Message:
        """
        Send *parts* as one multipart message, and return the reply.

        :param on_progress: called with the number of bytes sent so far, and the number of all bytes.
        """
        message = made(command, "", headers, parts, None)
        if on_progress is None:
            return await self._wait(self._running().request(message, timeout=timeout))
        return await self._wait(self._running().upload(message, on_progress, timeout))

    async def history(
        self,
        channel: str,
        *,
        limit: int = 100,
        since: str | None = None,
        before: str | None = None,
        order: Literal["oldest", "newest"] = "oldest",
        timeout: float | None = None,
    ) -> HistoryPage:
        """Return a part of the history of a channel, like :meth:`lhttp_tx.client.client.Client.history`."""
        return await self._wait(
            self._running().history(channel, limit=limit, since=since, before=before, order=order, timeout=timeout)
        )

    async def subscribe(
        self,
        channel: str,
        listener: Listener | None = None,
        *,
        since: str | None = None,
        last: int | None = None,
        buffer: int = 1_000,
    ) -> Subscription:
        """
        Subscribe to a channel, on this connection and on later ones.

        :param channel: a channel name, or a wildcard such as ``room.*``.
        :param listener: called with each message, and with its channel if it takes two arguments. It must not be a
            coroutine function: iterate instead.
        :param since: a position. The messages after it come first.
        :param last: the most earlier messages that come first, if no position is known. They are the newest ones.
        :param buffer: the most messages that wait for the iteration. Beyond that, a new one pushes out the oldest.
        :returns: the subscription, when the server has confirmed it. Without *listener*, iterate over it.
        :raises ReplyError: if the server refuses the subscription.
        :raises RequestTimeout: if the server has not confirmed it in time. The subscription stays.
        :raises TypeError: if *listener* is a coroutine function, or cannot take these arguments.
        """
        if listener is not None and inspect.iscoroutinefunction(listener):
            raise TypeError("a listener cannot wait: leave it out, and use async for")
        options: Any = {"buffer": buffer, "since": since, "last": last}
        if callable(listener) and takes(listener, 2):
            options["named"] = True
        made = self._running().subscribe(channel, listener, **options)
        assert self._loop is not None
        try:
            await self._wait(made.confirmed())
        except asyncio.CancelledError:
            made.unsubscribe().addErrback(lambda _: None)
            raise
        return Subscription(made, self._loop)

    async def presence(
        self,
        channel: str,
        *,
        on_join: PersonCallback | None = None,
        on_leave: PersonCallback | None = None,
        on_sync: Callable[[Presence], object] | None = None,
        on_change: Callable[[Presence], object] | None = None,
        on_end: EndCallback | None = None,
        buffer: int = 1_000,
        timeout: float | None = None,
    ) -> Presence:
        """
        Follow the people in a channel, like :meth:`lhttp_tx.client.client.Client.presence`.

        :param timeout: the most seconds to wait until the people are known; ``None``: the client's own limit.
        :returns: the presence, when the people are known. Iterate over its changes.
        :raises ReplyError: if the server refuses: with status 404 if the channel has no presence, 403 if the client may
            not subscribe to it, or no channel of the server has presence.
        :raises RequestTimeout: if the people are not known in time.
        :raises TypeError: if a callback is a coroutine function.
        """
        made = self._running()
        assert self._loop is not None
        found = Presence(
            made,
            self._loop,
            channel,
            on_join=on_join,
            on_leave=on_leave,
            on_sync=on_sync,
            on_change=on_change,
            on_end=on_end,
            buffer=buffer,
        )
        await found.synced(timeout)
        return found

    def position(self, channel: str) -> str | None:
        """
        Return the position of the last message of a channel that the program has got; ``None`` if there is none.

        :raises ClientClosed: if the client is closed.
        """
        if self._made is None and not self._is_closed:
            return None
        return self._running().position(channel)

    def _open(self) -> _Client:
        """Return the client inside. Make it on the running loop if it does not exist yet."""
        loop = asyncio.get_running_loop()
        if self._made is None:
            self._loop, self._reactor = loop, lend(loop)
            options = {**self._options, "login": self._login}
            for name in _CALLED & options.keys():
                if callable(options[name]):
                    options[name] = self._waiting_for(options[name])
            try:
                self._made = _Client(self._url, reactor=self._reactor, **options)
            except BaseException:
                take_back(self._reactor, loop)
                self._reactor = None
                raise
        elif self._loop is not loop:
            raise RuntimeError("a client belongs to the loop that it was connected in")
        return self._made

    def _running(self) -> _Client:
        """Return the client inside. Before :meth:`connect`, what it is asked to do waits for the connection."""
        if self._is_closed:
            raise ClientClosed("the client is closed: call connect() to use it again")
        return self._open()

    def _waiting_for(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function like *call* whose result, if it is an awaitable of asyncio, becomes a Deferred."""

        @functools.wraps(call)
        def called(*args: Any) -> Any:
            found = call(*args)
            if not inspect.isawaitable(found) or isinstance(found, Deferred):
                return found
            return Deferred.fromFuture(asyncio.ensure_future(found))

        return called

    async def _wait(self, deferred: Deferred[Result]) -> Result:
        assert self._loop is not None
        return await deferred.asFuture(self._loop)

    def __repr__(self) -> str:
        return f"<aio.Client {self._url} {self.state.value}>"
