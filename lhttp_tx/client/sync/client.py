"""
The client of :mod:`lhttp_tx.client.sync`. Each call runs the one of :mod:`lhttp_tx.client.aio` in the client's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterable
from functools import cache
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, final

from lhttp_tx.client import aio
from lhttp_tx.client.arguments import check_callbacks
from lhttp_tx.client.errors import ClientClosed
from lhttp_tx.client.http.ways import Transport
from lhttp_tx.client.presence.following import EndCallback, PersonCallback
from lhttp_tx.client.results import HistoryPage, Published
from lhttp_tx.client.states import State
from lhttp_tx.client.sync.presence import Presence
from lhttp_tx.client.sync.subscription import Subscription
from lhttp_tx.client.sync.thread import LoopThread
from lhttp_tx.codec.headers import HeaderPairs
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.multipart import Part

__all__ = ["Client"]

Result = TypeVar("Result")
Headers = HeaderPairs | dict[str, str]


@final
class Client:
    """
    A client of one server whose calls block. They raise the exceptions of :mod:`lhttp_tx.client.errors`.

    The arguments are those of :class:`lhttp_tx.client.aio.Client`. Callbacks such as ``on_state`` are called in the
    client's own thread.
    """

    def __init__(self, url: str, **options: Any) -> None:
        """
        :param url: a ``ws://`` or ``wss://`` URL, or an endpoint description.
        :param options: the options of :class:`lhttp_tx.client.aio.Client`.
        """
        self._client = aio.Client(url, **options)
        self._thread: LoopThread | None = None
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """The state of the client."""
        return self._client.state

    @property
    def transport(self) -> Transport | None:
        """The transport of the connection: ``websocket``, ``stream`` or ``poll``; ``None`` without a connection."""
        return self._client.transport

    @property
    def user(self) -> str | None:
        """The user of the connection, according to the server; ``None`` without a connection or without *login*."""
        return self._client.user

    def connect(self, *, attempts: int | None = 1, timeout: float | None = None) -> None:
        """See :meth:`lhttp_tx.client.aio.Client.connect`."""
        with self._lock:
            if self._thread is None:
                self._thread = LoopThread()
            thread = self._thread
        try:
            thread.run(self._client.connect(attempts=attempts, timeout=timeout))
        except BaseException:
            if self._thread is thread:  # otherwise another thread has closed it, and may have connected again
                self.close()
            raise

    def close(self) -> None:
        """Close the client, and end its thread."""
        self._close(None, None, None)

    def _close(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            thread.run(self._client.__aexit__(kind, error, traceback))
        finally:
            thread.stop()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(kind, error, traceback)

    def publish(self, channels: str | Iterable[str], body: Any = "", **options: Any) -> Published:
        """See :meth:`lhttp_tx.client.aio.Client.publish`."""
        return self._run(self._client.publish(channels, body, **options))

    def batch(self, messages: Iterable[tuple[str | Iterable[str], Any]]) -> list[Published | BaseException]:
        """See :meth:`lhttp_tx.client.aio.Client.batch`."""
        return self._run(self._client.batch(messages))

    def send(self, command: str, body: Any = "", **options: Any) -> Message | None:
        """See :meth:`lhttp_tx.client.aio.Client.send`."""
        return self._run(self._client.send(command, body, **options))

    def request(self, command: str, body: Any = "", **options: Any) -> Message:
        """See :meth:`lhttp_tx.client.aio.Client.request`."""
        return self._run(self._client.request(command, body, **options))

    def upload(
        self,
        command: str,
        parts: Iterable[Part],
        *,
        headers: Headers = (),
        on_progress: Callable[[int, int], object] | None = None,
        timeout: float | None = None,
    ) -> Message:
        """See :meth:`lhttp_tx.client.aio.Client.upload`."""
        return self._run(self._client.upload(command, parts, headers=headers, on_progress=on_progress, timeout=timeout))

    def history(
        self,
        channel: str,
        *,
        limit: int = 100,
        since: str | None = None,
        before: str | None = None,
        order: Literal["oldest", "newest"] = "oldest",
        timeout: float | None = None,
    ) -> HistoryPage:
        """See :meth:`lhttp_tx.client.aio.Client.history`."""
        return self._run(
            self._client.history(channel, limit=limit, since=since, before=before, order=order, timeout=timeout)
        )

    def subscribe(
        self, channel: str, *, since: str | None = None, last: int | None = None, buffer: int = 1_000
    ) -> Subscription:
        """Subscribe to a channel. Iterate over the result. See :meth:`lhttp_tx.client.aio.Client.subscribe`."""
        return Subscription(
            self._run(self._client.subscribe(channel, since=since, last=last, buffer=buffer)), self._run
        )

    def presence(
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
        Follow the people in a channel. Iterate over the changes. See :meth:`lhttp_tx.client.aio.Client.presence`.

        Callbacks are called in the client's thread, and cannot call the client.
        """
        check_callbacks("presence", on_sync=on_sync, on_change=on_change)

        @cache
        def shown(made: aio.Presence) -> Presence:
            return Presence(made, self._run)

        def passed(callback: Callable[[Presence], object] | None) -> Callable[[aio.Presence], object] | None:
            return None if callback is None else lambda made: callback(shown(made))

        async def presence() -> Presence:
            made = await self._client.presence(
                channel,
                on_join=on_join,
                on_leave=on_leave,
                on_sync=passed(on_sync),
                on_change=passed(on_change),
                on_end=on_end,
                buffer=buffer,
                timeout=timeout,
            )
            return shown(made)

        return self._run(presence())

    def position(self, channel: str) -> str | None:
        """See :meth:`lhttp_tx.client.aio.Client.position`."""

        async def position() -> str | None:
            return self._client.position(channel)

        return self._run(position())

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        thread = self._thread
        if thread is None:
            work.close()
            raise ClientClosed("the client is not connected: call connect() first, or use with")
        return thread.run(work)

    def __repr__(self) -> str:
        return f"<sync.Client {self._client!r}>"
