"""
The clocks of the nodes: the age of another node's message, and a time that all nodes share.

The clocks of machines may be hours apart. So no code here compares the time of day of two machines. Each message
between nodes has the time at which it was sent, by a monotonic clock. Each node measures the difference between the
clocks of the others and its own. Used by :mod:`lhttp_tx.cluster.nodes`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

__all__ = ["Clocks"]

_DRIFT = 1e-4
"""The most seconds by which two clocks drift apart in a second. Clocks of computers are several times better."""

_QUICK = 2.0
"""Seconds within which an answer must come for the difference to count as known."""

_JUMP = 1.0
"""If the shared time jumps by at least this many seconds, times that were sent before are sent again."""

_MAX_KNOWN = 4_096
"""
The most clocks that are remembered. Those of nodes that are gone count, too: a node that was paused reads old messages.
"""

_MAX_WAITING = 1_000
"""The most orders that may wait until a clock is known."""

_LATEST = 2.0**50
"""Times must be less than this many seconds. Others are ignored."""


@dataclass(slots=True)
class _Distance:
    """
    The difference between this node's clock and that of another node: how far the other is behind.

    :ivar seconds: the difference plus the shortest time of transmission.
    :ivar since: the time of this node's clock at which it was measured.
    :ivar sure: whether a question was answered quickly. If not, all messages may have been old.
    """

    seconds: float
    since: float
    sure: bool = False


class Clocks:
    """
    The clocks of the other nodes, as seen by one node.

    :ivar on_jump: functions that are called if the shared time of this node has jumped forward by a second or more,
        with this number of seconds. Times that were sent before must be sent again, later by this number.
    :ivar ask: called with the name of a node, to ask for its time. The answer goes to :meth:`answered`.
    """

    def __init__(self, clock: IReactorTime, now: Callable[[], float] = time.time) -> None:
        """
        :param clock: the reactor. Its time must be monotonic, as on Twisted's asyncio reactor.
        :param now: returns the time of day, in seconds since 1970.
        """
        self.ask: Callable[[str], object] = _nobody
        self.on_jump: list[Callable[[float], None]] = []
        self._clock = clock
        self._now = now
        self._offset: float | None = None
        self._distances: dict[str, _Distance] = {}
        self._waiting: list[tuple[str, Deferred[None]]] = []

    # The shared time

    def shared(self) -> float:
        """
        Return the shared time of the nodes, in seconds since about 1970.

        Each node begins with its time of day. If a node hears a later shared time, it takes that time. So all nodes
        that have heard each other have the time of the one whose clock is most ahead. The shared time never goes back.
        """
        if self._offset is None:
            self._offset = self._now() - self._clock.seconds()
        return self._clock.seconds() + self._offset

    def follow(self, told: object) -> None:
        """Take the shared time in a message from another node. Values that are not a time are ignored."""
        if not _is_time(told):
            return
        assert isinstance(told, int | float)
        ahead = told - self.shared()
        if ahead <= 0 or self._offset is None:
            return
        self._offset += ahead
        if ahead >= _JUMP:
            for call in self.on_jump:
                call(ahead)

    # The age of messages

    def heard(self, name: str, sent: object) -> None:
        """
        Measure the difference of the clocks with a message from another node.

        :param name: the node.
        :param sent: the time at which the message was sent, by the sender's clock. Values that are not a time are
            ignored.
        """
        if not _is_time(sent):
            return
        assert isinstance(sent, int | float)
        now = self._clock.seconds()
        distance = now - sent
        known = self._distances.get(name)
        if known is None:
            if len(self._distances) >= _MAX_KNOWN:
                del self._distances[next(iter(self._distances))]
            self._distances[name] = _Distance(distance, now)
        elif distance <= known.seconds + (now - known.since) * _DRIFT:
            known.seconds, known.since = distance, now

    def answered(self, name: str, asked: object) -> None:
        """
        Take an answer about the time, after :meth:`heard`. If it came quickly, the difference counts as known.

        :param name: the node.
        :param asked: the time at which this node asked, by its own clock.
        """
        known = self._distances.get(name)
        if known is not None and _is_time(asked):
            assert isinstance(asked, int | float)
            known.sure = known.sure or 0 <= self._clock.seconds() - asked <= _QUICK
            if known.sure:
                for _, waiter in [waiter for waiter in self._waiting if waiter[0] == name]:
                    self._go_on(waiter)

    def when_known(self, name: str) -> Deferred[None]:
        """
        Return a Deferred that succeeds when this node :meth:`knows` the clock of *name*, or two seconds later at the
        latest.
        """
        waiter: Deferred[None] = Deferred()
        if self.knows(name) or len(self._waiting) >= _MAX_WAITING:
            waiter.callback(None)
            return waiter
        self._waiting.append((name, waiter))
        self.ask(name)
        self._clock.callLater(_QUICK, self._go_on, waiter)
        return waiter

    def _go_on(self, waiter: Deferred[None]) -> None:
        if not waiter.called:
            self._waiting = [waiting for waiting in self._waiting if waiting[1] is not waiter]
            waiter.callback(None)

    def here_now(self) -> float:
        """Return the time of this node's clock, in seconds since some time in the past."""
        return self._clock.seconds()

    def knows(self, name: str) -> bool:
        """Return whether this node knows the clock of *name*, and so the age of its messages."""
        known = self._distances.get(name)
        return known is not None and known.sure

    def here(self, name: str, sent: float) -> float:
        """
        Return the time at which another node sent something, by this node's clock. It is never too early, and at most
        too late by the shortest time of transmission.

        :param name: a node whose clock this node :meth:`knows`.
        :param sent: the time, by the clock of that node.
        """
        known = self._distances[name]
        return sent + known.seconds + (self._clock.seconds() - known.since) * _DRIFT


def _nobody(name: str) -> None:
    """Do nothing: there are no other nodes."""


def _is_time(told: object) -> bool:
    return isinstance(told, int | float) and math.isfinite(told) and abs(told) < _LATEST
