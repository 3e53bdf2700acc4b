"""What the tests of history in NATS share: NATS servers with JetStream, and nodes in this process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from integration._nats import NATSProcess

from cluster._cluster import pause, until
from lhttp_tx.codec.positions import offsets_of
from lhttp_tx.history.values import Retention
from lhttp_tx.testing.bus import done

__all__ = ["ROOM", "Node", "jetstream", "prefix", "publication"]

ROOM = Retention("rooms", messages=100)
"""The history class of channels that begin with ``room``."""

_numbers = count()


def prefix() -> str:
    """Return a prefix of subjects that no other test uses."""
    return f"t{next(_numbers)}."


def publication(number: int, size: int = 0) -> bytes:
    """Return a publication that holds a number."""
    return b"LHTTP/1.0 count\r\npublish:room\r\n\r\n%08d" % number + b"x" * size


class JetStreamProcess(NATSProcess):
    """A nats-server with JetStream, which keeps its files over a restart."""

    def __init__(self, *arguments: str, **options: Any) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="jetstream")
        super().__init__("-js", "-sd", self.folder.name, *arguments, **options)

    def stop(self) -> None:
        self.kill()
        self.folder.cleanup()


def jetstream(*arguments: str, **options: Any) -> JetStreamProcess:
    """Start a server with JetStream."""
    return JetStreamProcess(*arguments, **options)


class Node:
    """
    A node: a bus, and a history on its links.

    :ivar missed: what subscribers were told that they have missed.
    :ivar gaps: how often the bus has told of a gap.
    """

    def __init__(
        self,
        urls: Iterable[str],
        prefix: str,
        *,
        classes: Iterable[Retention] = (ROOM,),
        retention_of: Callable[[str], Retention | None] | None = None,
        **settings: Any,
    ) -> None:
        from twisted.internet import reactor

        from lhttp_tx.bus.nats.bus import NATSBus
        from lhttp_tx.bus.nats.jetstream.settings import StreamSettings
        from lhttp_tx.bus.nats.jetstream.store import JetStreamHistory
        from lhttp_tx.bus.nats.servers import NATSServers

        self.missed: list[tuple[str, str]] = []
        self.gaps = 0
        self.bus = NATSBus(NATSServers(tuple(urls), prefix=prefix), clock=reactor)
        self.history = JetStreamHistory(
            self.bus,
            retention_of=retention_of or (lambda channel: ROOM if channel.startswith("room") else None),
            classes=classes,
            settings=StreamSettings(**settings),
            clock=reactor,
        )
        self.history.on_missed.append(lambda channel, position: self.missed.append((channel, position)))
        self.bus.on_gap.append(self._gap)

    def _gap(self) -> None:
        self.gaps += 1

    async def start(self) -> Node:
        """Start it, and wait until it is available."""
        await self.bus.start()
        await self.history.start()
        await until(lambda: self.bus.available and self.history.available)
        return self

    async def stop(self) -> None:
        """Stop it."""
        await self.history.stop()
        await self.bus.stop()

    async def subscribe(self, channel: str) -> Received:
        """Subscribe, and return what will have arrived."""
        received = Received()
        await done(self.bus.subscribe(channel, received.take))
        return received

    def append(self, channel: str, *numbers: int, retention: Retention = ROOM) -> None:
        """Append publications that hold numbers."""
        self.history.append(channel, retention, [publication(number) for number in numbers], False)

    async def confirm(self) -> None:
        """Wait until all of them are safe."""
        await done(self.history.confirm())


class Received:
    """
    What a subscriber got.

    :ivar numbers: the numbers that publications held.
    :ivar marks: their offsets, each with that of the one before.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.marks: list[tuple[int, int]] = []

    def take(self, channel: str, payloads: list[bytes], binary: bool) -> None:
        for payload in payloads:
            self.marks.append(offsets_of(payload))
            self.numbers.append(int(payload[payload.rfind(b"\r\n\r\n") + 4 :][:8]))

    @property
    def is_chain(self) -> bool:
        """Whether each publication names the one before it, so that none is missing and none came twice."""
        return all(mark[1] == before[0] for before, mark in zip(self.marks, self.marks[1:], strict=False))

    def wait(self, count: int) -> Any:
        """Wait until so many are there, and a moment longer."""
        return self._wait(count)

    async def _wait(self, count: int) -> None:
        await until(lambda: len(self.numbers) >= count)
        await pause(0.05)
