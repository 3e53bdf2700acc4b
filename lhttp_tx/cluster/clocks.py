"""
The clocks of the nodes: how old a message of another node is, and a time that all nodes share.

The clocks of machines may be hours apart. So no code here compares the time of day of two machines. Each message
between nodes says when it was sent, by a clock that only runs forward, and each node measures how far the clocks of the
others are from its own. Used by :mod:`lhttp_tx.cluster.nodes`.
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
"""Seconds by which two clocks may drift apart in a second. Clocks of computers are several times better."""

_QUICK = 2.0
"""Seconds within which an answer must come to say anything about the other clock."""

_JUMP = 1.0
"""Seconds by which the shared time must be wrong before times that were told are told anew."""

_MAX_KNOWN = 4_096
"""How many clocks are remembered, also those of nodes that are gone: a node that stood still reads old messages."""

_MAX_WAITING = 1_000
"""How many orders may wait for a clock."""

_LATEST = 2.0**50
"""No time is later, in seconds."""


@dataclass(slots=True)
class _Distance:
    """
    How far another clock is behind this one.

    :ivar seconds: at least the true distance; more by the time that the quickest message took.
    :ivar since: when this was measured.
    :ivar sure: whether a question was answered quickly, so that the messages cannot all have been old.
    """

    seconds: float
    since: float
    sure: bool = False


class Clocks:
    """
    The clocks of the other nodes, as one node sees them.

    :ivar on_jump: called with the seconds by which the shared time of this node has jumped forward, if it is a second
        or more. What was told before is to be told again, later by so much.
    :ivar ask: called with the name of a node to ask for its clock. The answer goes to :meth:`answered`.
    """

    def __init__(self, clock: IReactorTime, now: Callable[[], float] = time.time) -> None:
        """
        :param clock: the reactor. Its time must only run forward, as on Twisted's asyncio reactor.
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
        Return the time that the nodes share, in seconds.

        Each node begins with its time of day. Nodes that hear of a later time go on from there, so all nodes that have
        heard of each other have the time of the one whose clock is most ahead. It never goes back.
        """
        if self._offset is None:
            self._offset = self._now() - self._clock.seconds()
        return self._clock.seconds() + self._offset

    def follow(self, told: object) -> None:
        """Take the shared time of a message from another node."""
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
        Learn from a message of another node.

        :param sent: when it was sent, by the clock of its sender.
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
        Learn from an answer, after :meth:`heard`.

        :param asked: when this node asked, by its own clock.
        """
        known = self._distances.get(name)
        if known is not None and _is_time(asked):
            assert isinstance(asked, int | float)
            known.sure = known.sure or 0 <= self._clock.seconds() - asked <= _QUICK
            if known.sure:
                for _, waiter in [waiter for waiter in self._waiting if waiter[0] == name]:
                    self._go_on(waiter)

    def when_known(self, name: str) -> Deferred[None]:
        """Return a Deferred that succeeds when the node :meth:`knows` another one, or has asked for too long."""
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
        """Return the time by the clock of this node, in seconds since some moment in the past."""
        return self._clock.seconds()

    def knows(self, name: str) -> bool:
        """Return whether the node knows how old messages of another one are."""
        known = self._distances.get(name)
        return known is not None and known.sure

    def here(self, name: str, sent: float) -> float:
        """
        Return when something was sent by another node, by this node's clock. It is never too early, and too late by no
        more than the quickest message took.

        :param name: a node that it :meth:`knows`.
        :param sent: the time by the clock of that node.
        """
        known = self._distances[name]
        return sent + known.seconds + (self._clock.seconds() - known.since) * _DRIFT


def _nobody(name: str) -> None:
    """There are no other nodes."""


def _is_time(told: object) -> bool:
    return isinstance(told, int | float) and math.isfinite(told) and abs(told) < _LATEST
