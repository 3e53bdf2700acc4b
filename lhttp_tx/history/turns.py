"""
Bounds what reading histories costs in one turn of the reactor, for all clients together.

A message of a few bytes can ask for much. When the bound of a turn is reached, others wait for the next turns.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Turns"]

_SIZE = 131_072
"""The budget of one turn, in bytes. The last reader may exceed it."""

_MESSAGE_COST = 64
_CALL_COST = 256
"""Bytes that count for each message beside its own, and for each question to a store."""


class Turns:
    """Lets readers of histories proceed one after another, a few in each turn of the reactor."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: the reactor."""
        self._clock = clock
        self._spent = 0
        self._waiting: deque[Deferred[None]] = deque()
        self._timer: IDelayedCall | None = None

    def wait(self) -> Deferred[None] | None:
        """Return ``None`` if there is room in this turn, else a Deferred that succeeds when there is."""
        if self._spent <= _SIZE and not self._waiting:
            return None
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def spend(self, size: int, count: int) -> None:
        """
        Count what was read.

        :param size: bytes of the messages that were read.
        :param count: how many messages there were.
        """
        self._spent += size + _MESSAGE_COST * count + _CALL_COST
        if self._timer is None:
            self._timer = self._clock.callLater(0, self._next)

    def begin(self) -> None:
        """Begin a turn."""
        self._spent = 0
        while self._waiting and self._spent <= _SIZE:
            waiter = self._waiting.popleft()
            if not waiter.called:
                waiter.callback(None)

    def _next(self) -> None:
        self._timer = None
        self.begin()
        if self._waiting and self._timer is None:
            self._timer = self._clock.callLater(0, self._next)
