"""TCP in the hands of a test: it delays, holds, discards and cuts what goes through."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Self

from integration._nats import NATSProcess, free_port

__all__ = ["Proxy", "two_servers"]

_SMALL = 0.005
"""Seconds between two looks at a direction that is held."""


class Proxy:
    """
    A proxy in front of one TCP port, which runs in a thread of its own.

    :ivar port: where it listens.
    :ivar delay: seconds by which everything comes later, in both directions. The order stays.
    :ivar held: whether nothing passes, towards the port and back; what is held passes later.
    :ivar discarding: whether what comes is thrown away, towards the port and back.
    """

    def __init__(self, target: int, delay: float = 0.0) -> None:
        self.port = free_port()
        self.delay = delay
        self.held = [False, False]
        self.discarding = [False, False]
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._is_cut = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(30.0)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self._listen())
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._started.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner: asyncio.StreamWriter | None = None
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):  # asyncio would log that it was cancelled
            if not self._is_cut:
                inner_reader, inner = await asyncio.open_connection("127.0.0.1", self._target)
                self._writers.add(inner)
                pumps = [
                    asyncio.ensure_future(self._pump(reader, inner, 0)),
                    asyncio.ensure_future(self._pump(inner_reader, writer, 1)),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                while any(self.held) and not self._is_cut:  # what came before the end waits, too
                    await asyncio.sleep(_SMALL)
                await asyncio.wait(pumps, timeout=self.delay + 1.0, return_when=asyncio.ALL_COMPLETED)
                for pump in pumps:
                    pump.cancel()
        for end in (writer, inner):
            if end is not None:
                self._writers.discard(end)
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: int) -> None:
        """Pass on what comes; an end of it ends the other side once everything has been passed on."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sending = asyncio.ensure_future(self._send(queue, writer, direction))
        try:
            while data := await reader.read(65_536):
                queue.put_nowait((self._loop.time() + self.delay, data))
        except OSError:
            pass
        queue.put_nowait((self._loop.time() + self.delay, b""))
        await sending

    async def _send(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, way: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                while self.held[way]:
                    await asyncio.sleep(_SMALL)
                if not data:
                    writer.write_eof()
                    return
                if self.discarding[way]:
                    continue
                writer.write(data)
                await writer.drain()

    def hold(self, forth: bool, back: bool) -> None:
        """Let nothing pass in some directions until :meth:`heal`, and then everything."""
        self.held = [forth, back]

    def discard(self, forth: bool, back: bool) -> None:
        """Throw away what comes in some directions until :meth:`heal`."""
        self.discarding = [forth, back]

    def cut(self) -> None:
        """Lose all connections, and take no new one until :meth:`heal`."""
        self._is_cut = True
        self._loop.call_soon_threadsafe(self._abort)

    def heal(self) -> None:
        """Let everything pass again."""
        self.held = [False, False]
        self.discarding = [False, False]
        self._is_cut = False

    def _abort(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    def close(self) -> None:
        """Listen no more."""
        self.cut()
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def two_servers(delay: float, *arguments: str) -> tuple[NATSProcess, NATSProcess, Proxy]:
    """Start a NATS cluster of two servers, and return them and the proxy that their route goes through."""
    first = NATSProcess(*arguments, cluster=())
    route = Proxy(first.route, delay)
    second = NATSProcess(*arguments, cluster=[route.port])
    return first, second, route
