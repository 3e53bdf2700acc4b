"""
The client for programs without a loop: scripts, and views of Django or Flask. Each call blocks until it is done.

::

    from lhttp_tx.client.sync import Client

    with Client("ws://127.0.0.1:8081/") as client:
        client.publish("room.a", {"text": "hello"})

A thread runs the connection, with :mod:`lhttp_tx.client.aio` inside. Names and arguments are the same. Several threads
may use one client.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, final

from lhttp_tx.client import aio
from lhttp_tx.client.errors import ClientClosed
from lhttp_tx.client.http.ways import Transport
from lhttp_tx.client.results import HistoryPage, Published
from lhttp_tx.client.states import State
from lhttp_tx.codec.headers import HeaderPairs
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.multipart import Part

__all__ = ["Client", "Subscription"]

Result = TypeVar("Result")
Headers = HeaderPairs | dict[str, str]


class _Thread:
    """A thread that runs a loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._has_ended = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lhttp client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """
        Run *work* in the thread, and return its result. An exception in the waiting thread, such as Ctrl-C, cancels it.

        :raises ClientClosed: if the client is closed, or was made before a fork.
        :raises RuntimeError: if a callback calls this in the thread itself.
        """
        if os.getpid() != self._process:
            work.close()
            raise ClientClosed("the client was made before a fork: make one in each process")
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a callback of the client cannot wait for the client: use another thread")
        with self._lock:
            if self._has_ended:
                work.close()
                raise ClientClosed("the client was closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed("the client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread. Work that still runs in it is cancelled."""
        with self._lock:
            self._has_ended = True
            ending = asyncio.run_coroutine_threadsafe(_end_others(), self._loop)
        ending.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


async def _end_others() -> None:
    """Cancel all tasks except this one, and wait for them."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


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
        self._thread: _Thread | None = None
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
                self._thread = _Thread()
        try:
            self._run(self._client.connect(attempts=attempts, timeout=timeout))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the client, and end its thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            thread.run(self._client.close())
        finally:
            thread.stop()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

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


@final
class Subscription:
    """A subscription. Iterate over its messages with ``for message in subscription``, until :meth:`unsubscribe`."""

    def __init__(self, made: aio.Subscription, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._made = made
        self._run = run

    @property
    def channel(self) -> str:
        """The channel, or the wildcard."""
        return self._made.channel

    @property
    def closed(self) -> bool:
        """Whether the subscription has ended, so that no more messages arrive."""
        return self._made.closed

    @property
    def dropped(self) -> int:
        """The number of messages that were pushed out of a full buffer."""
        return self._made.dropped

    @property
    def unsure(self) -> bool:
        """See :attr:`lhttp_tx.client.subscription.Subscription.unsure`."""
        return self._made.unsure

    def next(self, timeout: float | None = None) -> Message:
        """
        Return the next message.

        :param timeout: the most seconds to wait; ``None``: no limit.
        :raises TimeoutError: if no message has come in time.
        :raises ClientClosed: if the subscription has ended.
        """

        async def take() -> Message:
            async with asyncio.timeout(timeout):
                return await self._made.next()

        try:
            found: Message = self._run(take())
        except ClientClosed:  # messages in the buffer can still be taken
            last = self._made.left()
            if last is None:
                raise
            return last
        return found

    def unsubscribe(self) -> None:
        """End the subscription. Messages in the buffer can still be taken."""
        self._run(self._made.unsubscribe())

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Message:
        try:
            return self.next()
        except ClientClosed:
            raise StopIteration from None

    def __repr__(self) -> str:
        return f"<sync.Subscription {self.channel}>"
