"""
Sends heartbeats on idle streams, so that proxies do not close them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Beating", "Pulse"]

_PARTS = 32
"""The number of parts into which the streams are divided. The parts get their heartbeats one after another."""


class Beating(Protocol):
    """
    A stream, as the pulse sees it.

    :ivar part: the number of its part, from 0; -1 before it is added.
    """

    part: int

    def beat(self) -> None:
        """Send a heartbeat; must not raise."""


class Pulse:
    """Calls all streams of a server in turn. They share one timer."""

    def __init__(
        self, clock: IReactorTime, interval: float, then: Callable[[tuple[Any, ...]], None] | None = None
    ) -> None:
        """
        :param clock: the reactor.
        :param interval: seconds between two heartbeats of a stream; 0: no heartbeats.
        :param then: called with the streams that have just got a heartbeat; ``None`` if they need not answer.
        """
        self._then = then
        self._clock = clock
        self._interval = interval
        self._parts: list[set[Beating]] = [set() for _ in range(_PARTS)]
        self._part = 0
        self._count = 0
        self._timer: IDelayedCall | None = None

    def add(self, stream: Beating) -> None:
        """Send heartbeats to *stream*, the first in one interval. Write its part into it."""
        stream.part = self._part
        if self._interval:
            self._parts[self._part].add(stream)
            self._count += 1
            if self._timer is None:
                self._wait()

    def discard(self, stream: Beating) -> None:
        """Send no more heartbeats to *stream*. Does nothing if it was not added."""
        if self._interval and 0 <= stream.part < _PARTS and stream in self._parts[stream.part]:
            self._parts[stream.part].discard(stream)
            self._count -= 1
            if not self._count and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _wait(self) -> None:
        self._timer = self._clock.callLater(self._interval / _PARTS, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        self._part = (self._part + 1) % _PARTS
        streams = tuple(self._parts[self._part])
        for stream in streams:
            stream.beat()
        if streams and self._then is not None:
            self._then(streams)
        if self._count:
            self._wait()
