"""
Limits the cost of reading histories in one turn of the reactor, for all clients together.

A request of a few bytes can cause a lot of reading. When the budget of a turn is spent, further readers wait for the
next turns.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Turns"]

_SIZE = 131_072
"""The budget of one turn, in bytes. The last reader of a turn may exceed it."""

_MESSAGE_COST = 64
_CALL_COST = 256
"""Bytes that are added for each message, and for each request to a store."""


class Turns:
    """Lets readers of histories continue one after another, a few in each turn of the reactor."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: the reactor."""
        self._clock = clock
        self._spent = 0
        self._waiting: deque[Deferred[None]] = deque()
        self._timer: IDelayedCall | None = None

    def wait(self) -> Deferred[None] | None:
        """
        Return ``None`` if the budget of this turn is not spent. Otherwise return a Deferred that succeeds when it is
        the caller's turn.
        """
        if self._spent <= _SIZE and not self._waiting:
            return None
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def spend(self, size: int, count: int) -> None:
        """
        Count one reading.

        :param size: the bytes of the messages that were read.
        :param count: the number of these messages.
        """
        self._spent += size + _MESSAGE_COST * count + _CALL_COST
        if self._timer is None:
            self._timer = self._clock.callLater(0, self._next)

    def begin(self) -> None:
        """Begin a new turn, and let readers that wait continue."""
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
