"""
Limits the cost of reading histories: in one turn of the reactor for all clients together, and in a second for each.

A request of a few bytes can cause a lot of reading. When the budget of a turn is spent, further readers wait for the
next turns. A client whose own budget is spent waits until it has more. The others do not wait for it.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lhttp_tx.guard.rates import TokenBucket

__all__ = ["MESSAGE_COST", "PORTION", "Turns", "cost_of", "rework_of"]

_SIZE = 131_072
"""The budget of one turn, in bytes. The last reader of a turn may exceed it by a portion."""

PORTION = 65_536
"""Bytes after which a reader must wait for another turn."""

_RATE, _BURST = 8_388_608, 2_097_152
"""The most bytes per second that one client gets from histories, and the most at once."""

MESSAGE_COST = _CALL_COST = 256
"""Bytes that are added for each message, and for each portion and each request to a store."""

_REWORK_COST, _HEADER_COST = 256, 224
"""
Bytes that are added for each message, and for each of its headers, if it is converted to JSON, Protocol Buffers or
events, or compressed. Measured: a byte of the budget then takes about as much time as for a message that goes out as it
is. Bodies add nothing, because C code converts them.
"""


def cost_of(size: int, count: int) -> int:
    """
    Return the cost of messages, in bytes.

    :param size: the bytes of the messages.
    :param count: the number of messages.
    """
    return size + MESSAGE_COST * count


def rework_of(payloads: list[bytes]) -> list[int]:
    """
    Return what converting or compressing each message adds to its cost, in bytes.

    :param payloads: messages as the store has them.
    """
    # C code does it all, because there may be thousands. Without a body, the blank line may be missing: then find()
    # returns -1, and count() stops before the last line break, which ends the last header.
    ends = map(bytes.find, payloads, repeat(b"\r\n\r\n"))
    headers = map(bytes.count, payloads, repeat(b"\r\n"), repeat(0), ends)
    return [*map(_REWORK_COST.__add__, map(_HEADER_COST.__mul__, headers))]


class Turns:
    """Lets readers of histories continue one after another, a few in each turn of the reactor."""

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
        Return ``None`` if the budgets are not spent. Otherwise return a Deferred that succeeds when it is the caller's
        turn.

        :param reader: the client whose own budget also counts; ``None``: only the budget of the turn counts.
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
        Count messages that were read or delivered.

        :param size: the bytes of the messages.
        :param count: the number of messages.
        :param reader: the client whose budget pays; ``None``: no client's.
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
        """Begin a new turn, and let readers that wait continue."""
        self._spent = 0
        while self._waiting and self._spent <= _SIZE:
            waiter = self._waiting.popleft()
            if not waiter.called:
                waiter.callback(None)

    def close(self) -> None:
        """Stop the timers of clients whose budget is spent, because the server stops."""
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
