"""
NATS is away, and a node is restarted just before it comes back: what is accepted afterwards reaches everybody.

``python -m chaos.returning --help``. The nodes that were there try to connect less and less often, at last twice a
second. The one that has just started connects at once. If it took publications before the others have subscribed again,
these would miss them. Each run gives a result: what was lost, or the step that could not be done.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from chaos.worlds import Process, free_port, is_ready

__all__ = ["Returning", "main"]

_SCRIPTS = Path(sys.executable).parent
_NODES = 3
_PAUSE = 0.01
"""Seconds between two publications of a publisher."""

_STEADY = 2.0
"""Seconds for which publishers go on before NATS ends, and after everything is back."""

_LIMIT = 90.0
"""Seconds that a step may take; a busy machine stands still for some of them."""


class NoResult(Exception):
    """A step could not be done; the text says which, and why."""


class Publisher:
    """
    Publishes numbers with receipts, one after another, and connects again when it loses its connection.

    :ivar name: begins each of its bodies.
    :ivar accepted: what has a receipt, and when it came.
    :ivar refused: how many were refused.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.accepted: dict[str, float] = {}
        self.refused = 0
        self.is_over = False
        self._url = url
        self._number = 0
        self._waiting: set[str] = set()

    @property
    def waits(self) -> bool:
        """Whether something has no answer yet."""
        return bool(self._waiting)

    async def run(self) -> None:
        """Publish until it is over and everything has an answer."""
        while not self.is_over:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError, EOFError):
                async with connect(self._url, compression=None, open_timeout=10, close_timeout=0.5) as connection:
                    reading = asyncio.ensure_future(self._read(connection))
                    try:
                        while not (reading.done() or (self.is_over and not self._waiting)):
                            if not self.is_over:
                                await self._publish(connection)
                            await asyncio.sleep(_PAUSE)
                    finally:
                        reading.cancel()
                        await asyncio.gather(reading, return_exceptions=True)
            self._waiting.clear()  # it will never be known
            await asyncio.sleep(0.1)

    async def _publish(self, connection: ClientConnection) -> None:
        self._number += 1
        name = f"{self.name}.{self._number}"
        self._waiting.add(name)
        await connection.send(f"LHTTP/1.0 chat\r\npublish:room\r\nreceipt:{name}\r\n\r\n{name}")

    async def _read(self, connection: ClientConnection) -> None:
        async for text in connection:
            start, *lines = str(text).partition("\r\n\r\n")[0].split("\r\n")
            name = dict(line.split(":", 1) for line in lines).get("receipt-id", "")
            self._waiting.discard(name)
            if start.endswith(" receipt"):
                self.accepted[name] = time.monotonic()
            else:
                self.refused += 1


class Subscriber:
    """
    Reads the channel; its node is never restarted, so it never comes back.

    :ivar received: the bodies that have come.
    :ivar subscribed: set when it has its receipt.
    :ivar ended: why the connection has ended, which it should not.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.received: list[str] = []
        self.subscribed = asyncio.Event()
        self.ended = ""
        self._url = url

    async def run(self) -> None:
        """Read until it is cancelled."""
        try:
            async with connect(self._url, compression=None, open_timeout=30, ping_interval=None) as connection:
                await connection.send("LHTTP/1.0 chat\r\nsubscribe:room\r\nreceipt:s\r\n\r\n")
                async for text in connection:
                    head, _, body = str(text).partition("\r\n\r\n")
                    if head.startswith("LHTTP/1.0 receipt"):
                        self.subscribed.set()
                    elif head.startswith("LHTTP/1.0 chat"):
                        self.received.append(body)
                    else:
                        self.ended = head.replace("\r\n", " ")
                self.ended = self.ended or "the connection has ended"
        except (OSError, WebSocketException) as error:
            self.ended = repr(error)


class Returning:
    """
    One run.

    :ivar step: what it does at the moment.
    """

    def __init__(self, directory: Path, rng: random.Random, away: float) -> None:
        """:param away: seconds without NATS."""
        self.step = "nothing has begun"
        self._rng = rng
        self._away = away
        self._returned = 0.0
        nats = free_port()
        command = shutil.which("nats-server", path=f"{_SCRIPTS}{os.pathsep}{os.environ['PATH']}") or "nats-server"
        self._nats = Process("nats", [command, "-a", "127.0.0.1", "-p", str(nats)], directory / "nats.log")
        self._ports = [free_port() for _ in range(_NODES)]
        self._nodes = [
            Process(
                f"node{number}",
                [
                    *(str(_SCRIPTS / "twistd"), "-n", f"--pidfile={directory}/node{number}.pid", "lhttp"),
                    *("--no-plugins", "--listen", f"tcp:{port}:interface=127.0.0.1"),
                    *("--nats", f"nats://127.0.0.1:{nats}"),
                ],
                directory / f"node{number}.log",
            )
            for number, port in enumerate(self._ports)
        ]
        urls = [f"ws://127.0.0.1:{port}/" for port in self._ports]
        self._publishers = [Publisher(f"p{number}", url) for number, url in enumerate(urls)]
        self._subscribers = [Subscriber(f"s{number}", url) for number, url in enumerate(urls[:-1])]

    async def run(self) -> tuple[list[str], str]:
        """
        Run once.

        :returns: what was wrong, and a line about the run.
        :raises NoResult: if a step could not be done.
        """
        tasks: list[asyncio.Future[None]] = []
        try:
            await self._do("start NATS and the nodes", self._start())
            tasks += [asyncio.ensure_future(each.run()) for each in self._subscribers]
            await self._until("subscribe", lambda: all(each.subscribed.is_set() for each in self._subscribers))
            writing = [asyncio.ensure_future(each.run()) for each in self._publishers]
            tasks += writing
            await self._until("publish", lambda: all(each.accepted for each in self._publishers))
            await asyncio.sleep(_STEADY)
            await self._do("end NATS", self._nats.end(signal.SIGKILL))
            before = 0.3 + 2.7 * self._rng.random()
            await asyncio.sleep(max(0.0, self._away - before))
            last = self._nodes[-1]
            await self._do("end a node", last.end(signal.SIGTERM))
            await self._do("start it again", last.start())
            await asyncio.sleep(before)
            await self._do("start NATS again", self._nats.start())
            self._returned = time.monotonic()
            await self._do("wait until all are back", self._ready())
            await self._until("publish again", lambda: all(map(self._since, self._publishers)))
            await asyncio.sleep(_STEADY)
            for publisher in self._publishers:
                publisher.is_over = True
            await self._do("wait for all answers", asyncio.gather(*writing))
            await self._settle()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for process in (*self._nodes, self._nats):
                await process.end(signal.SIGKILL)
        return self._judge()

    async def _start(self) -> None:
        for process in (self._nats, *self._nodes):
            await process.start()
        await self._ready()

    async def _ready(self) -> None:
        for port in self._ports:
            while not await asyncio.to_thread(is_ready, port):
                await asyncio.sleep(0.1)

    async def _do(self, step: str, work: Awaitable[object]) -> None:
        self.step = step
        try:
            async with asyncio.timeout(_LIMIT):
                await work
        except Exception as error:
            ended = "; ".join(each.ended for each in (self._nats, *self._nodes) if each.ended)
            raise NoResult(f"could not {step}: {error!r}{ended and '; '}{ended}") from error

    async def _until(self, step: str, condition: Callable[[], bool]) -> None:
        async def look() -> None:
            while not condition():
                await asyncio.sleep(0.02)

        await self._do(step, look())

    async def _settle(self) -> None:
        """Wait until nothing has come for a while: behind everything that was lost, something comes."""
        self.step = "wait for the last ones"
        count, since = -1, time.monotonic()
        while time.monotonic() - since < 4.0:
            now = sum(len(each.received) for each in self._subscribers)
            if now != count:
                count, since = now, time.monotonic()
            await asyncio.sleep(0.1)

    def _since(self, publisher: Publisher) -> int:
        """Return how many were accepted since NATS is back."""
        return sum(when > self._returned for when in publisher.accepted.values())

    def _judge(self) -> tuple[list[str], str]:
        problems = [f"{each.name}: {each.ended}" for each in self._subscribers if each.ended]
        accepted = {name: when for publisher in self._publishers for name, when in publisher.accepted.items()}
        for subscriber in self._subscribers:
            received = set(subscriber.received)
            lost = sorted((when - self._returned, name) for name, when in accepted.items() if name not in received)
            if lost:
                told = ", ".join(f"{name} ({after:+.2f} s)" for after, name in lost[:10])
                problems.append(f"{subscriber.name} has not got {len(lost)} accepted ones: {told}")
            if len(received) != len(subscriber.received):
                problems.append(f"{subscriber.name} got {len(subscriber.received) - len(received)} twice")
        first = [min(t for t in each.accepted.values() if t > self._returned) for each in self._publishers]
        told = ", ".join(f"{when - self._returned:.2f}" for when in first)
        after = sum(map(self._since, self._publishers))
        return problems, f"{len(accepted)} receipts, {after} of them after the return, the first after {told} s"


def main() -> int:
    """Run as the command line says; return 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m chaos.returning", description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="how many (default: 50)")
    parser.add_argument("--away", type=float, default=45.0, help="seconds without NATS (default: 45)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first run (default: 1)")
    parser.add_argument("--keep", type=Path, help="keep the logs in this directory")
    settings = parser.parse_args()
    wrong = without = 0
    for seed in range(settings.seed, settings.seed + settings.runs):
        with tempfile.TemporaryDirectory(prefix="returning-") as name:
            directory = settings.keep / str(seed) if settings.keep else Path(name)
            directory.mkdir(parents=True, exist_ok=True)
            one = Returning(directory, random.Random(seed), settings.away)
            try:
                problems, told = asyncio.run(one.run())
            except NoResult as error:
                without += 1
                print(f"seed {seed}: NO RESULT; {error}", flush=True)
                continue
            except Exception as error:
                without += 1
                print(f"seed {seed}: NO RESULT; while it tried to {one.step}: {error!r}", flush=True)
                continue
        wrong += bool(problems)
        print(f"seed {seed}: {'WRONG' if problems else 'right'}; {told}", flush=True)
        for problem in problems:
            print(f"  {problem}", flush=True)
    print(f"{settings.runs} runs: {wrong} wrong, {without} without a result")
    return 1 if wrong or without else 0


if __name__ == "__main__":
    sys.exit(main())
