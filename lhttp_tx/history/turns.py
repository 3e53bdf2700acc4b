"""
Bounds what reading histories costs: in one turn of the reactor for all clients together, and in a second for each.

A message of a few bytes can ask for much. When the bound of a turn is reached, others wait for the next turns. A client
that has used up its own account waits until it is filled again; the others do not.
"""

from __future__ import annotations

from collections import deque
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lhttp_tx.guard.rates import TokenBucket

__all__ = ["PORTION", "Turns", "cost_of"]

_SIZE = 131_072
"""The budget of one turn, in bytes. The last reader may exceed it by a portion."""

PORTION = 65_536
"""Bytes after which a reader asks for another turn."""

_RATE, _BURST = 8_388_608, 2_097_152
"""Bytes a second that one client gets of histories, and how many it gets at once."""

_MESSAGE_COST = _CALL_COST = 256
"""
Bytes that count for each message beside its own, and for each portion or question to a store. To write a small message
as JSON, as Protocol Buffers or compressed is more work than its bytes are.
"""


def cost_of(size: int, count: int) -> int:
    """
    Return how many bytes messages count.

    :param size: their own bytes.
    :param count: how many there are.
    """
    return size + _MESSAGE_COST * count


class Turns:
    """Lets readers of histories proceed one after another, a few in each turn of the reactor."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: the reactor."""
        self._clock = clock
        self._spent = 0
        self._waiting: deque[Deferred[None]] = deque()
        self._timer: IDelayedCall | None = None
        self._accounts: WeakKeyDictionary[object, TokenBucket] = WeakKeyDictionary()
        self._resting: set[IDelayedCall] = set()

    def wait(self, reader: object = None) -> Deferred[None] | None:
        """
        Return ``None`` if there is room in this turn, else a Deferred that succeeds when there is.

        :param reader: who has an account that must not be used up; ``None``: nobody.
        """
        account = None if reader is None else self._accounts.get(reader)
        rest = 0.0 if account is None else account.wait(self._clock.seconds())
        if rest <= 0 and self._spent <= _SIZE and not self._waiting:
            return None
        waiter: Deferred[None] = Deferred()
        if rest > 0:
            call = self._clock.callLater(rest, lambda: self._rested(call, waiter))
            self._resting.add(call)
        else:
            self._waiting.append(waiter)
        return waiter

    def spend(self, size: int, count: int, reader: object = None) -> None:
        """
        Count what was read, or handed over.

        :param size: bytes of the messages.
        :param count: how many messages there were.
        :param reader: to whose account it goes; ``None``: to nobody's.
        """
        cost = cost_of(size, count) + _CALL_COST
        self._spent += cost
        if reader is not None:
            now = self._clock.seconds()
            account = self._accounts.get(reader)
            if account is None:
                account = self._accounts[reader] = TokenBucket(_RATE, _BURST, now)
            account.spend(cost, now)
        self._go_on()

    def begin(self) -> None:
        """Begin a turn."""
        self._spent = 0
        while self._waiting and self._spent <= _SIZE:
            waiter = self._waiting.popleft()
            if not waiter.called:
                waiter.callback(None)

    def close(self) -> None:
        """Let nobody proceed any more whose account is used up: the server stops."""
        for call in self._resting:
            call.cancel()
        self._resting.clear()

    def _rested(self, call: IDelayedCall, waiter: Deferred[None]) -> None:
        self._resting.discard(call)
        self._waiting.append(waiter)
        self._go_on()

    def _go_on(self) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(0, self._next)

    def _next(self) -> None:
        self._timer = None
        self.begin()
        if self._waiting:
            self._go_on()
