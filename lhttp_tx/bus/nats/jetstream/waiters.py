"""
The callers that wait until publications are stored in a stream.

Used by :mod:`lhttp_tx.bus.nats.jetstream.appends`, which numbers the runs of publications.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import final

from twisted.internet.defer import Deferred

from lhttp_tx.bus.nats.confirmations import tell
from lhttp_tx.bus.nats.jetstream.acknowledgements import UNKNOWN
from lhttp_tx.errors import HistoryUnavailable

__all__ = ["Waiters"]

_MAX_WAITING = 50_000
"""The most callers that may wait at the same time."""


@final
@dataclass(slots=True)
class _Waiter:
    """
    A caller that waits.

    :ivar last: the number of the last run that it waits for.
    :ivar deferred: fires when all runs up to this one have ended.
    :ivar error: what it fails with; ``None`` if it succeeds.
    """

    last: int
    deferred: Deferred[None]
    error: HistoryUnavailable | None = None


@final
class Waiters:
    """The callers, in order."""

    def __init__(self) -> None:
        self._waiters: deque[_Waiter] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    def add(self, last: int) -> Deferred[None]:
        """
        Wait for all runs up to number *last*.

        :returns: a Deferred that fires when they have ended. It fails with
            :exc:`~lhttp_tx.errors.HistoryUnavailable` if one of them is blamed, and at once if too many callers wait.
        """
        deferred: Deferred[None] = Deferred()
        if len(self._waiters) >= _MAX_WAITING:
            deferred.errback(HistoryUnavailable(UNKNOWN))
        else:
            self._waiters.append(_Waiter(last, deferred))
        return deferred

    def tell(self, number: int) -> None:
        """
        Fire the Deferreds of those who wait for runs up to *number*. All these have ended, so their outcomes are in
        their placings.
        """
        while self._waiters and self._waiters[0].last <= number:
            waiter = self._waiters.popleft()
            tell(waiter.deferred, waiter.error)

    def blame(self, number: int, error: HistoryUnavailable) -> None:
        """Note the error that those who wait for run *number* get when all runs that they wait for have ended."""
        for waiter in self._waiters:
            if waiter.last >= number and waiter.error is None:
                waiter.error = error
