"""
Counts the writes to a history in SQLite that are not done, and fires Deferreds when they are. Used on the reactor's
thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.interfaces import MaybeDeferred

__all__ = ["Pending"]


class Pending:
    """
    Counts writes, from the start of a store on.

    :ivar given: the number of writes that the writer has got.
    :ivar done: the number of writes that are committed.
    :ivar size: the bytes of the others.
    """

    def __init__(self, reactor: Any, patience: float, reason: Callable[[], str]) -> None:
        """
        :param reactor: the reactor.
        :param patience: the most seconds that a Deferred waits.
        :param reason: returns why nothing can be written; an empty text if this is not known.
        """
        self._reactor = reactor
        self._patience = patience
        self._reason = reason
        self.given = self.done = self.size = 0
        self._sizes: deque[int] = deque()
        self._waiting: deque[tuple[int, float, Deferred[None]]] = deque()
        self._timer: IDelayedCall | None = None

    def add(self, size: int) -> None:
        """Count a write of *size* bytes."""
        self.given += 1
        self.size += size
        self._sizes.append(size)

    def finish(self, done: int) -> None:
        """Note that the first *done* writes are committed, and fire the Deferreds that wait for them."""
        for _ in range(done - self.done):
            self.size -= self._sizes.popleft()
        self.done = done
        while self._waiting and self._waiting[0][0] <= done:
            _, _, result = self._waiting.popleft()
            if not result.called:
                result.callback(None)

    def wait(self) -> MaybeDeferred:
        """
        Find out when all earlier writes are committed.

        :returns: ``None`` if they are. Otherwise a Deferred that succeeds when they are, or fails with
            :exc:`lhttp_tx.errors.HistoryUnavailable` if this takes too long or the store stops first.
        """
        if self.done >= self.given:
            return None
        result: Deferred[None] = Deferred()
        self._waiting.append((self.given, self._reactor.seconds() + self._patience, result))
        if self._timer is None:
            self._timer = self._reactor.callLater(self._patience, self._on_time)
        return result

    def _on_time(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        while self._waiting and self._waiting[0][1] <= now:
            _, _, result = self._waiting.popleft()
            if not result.called:
                result.errback(HistoryUnavailable(self._reason() or "the history store is slow, try again later"))
        if self._waiting:
            self._timer = self._reactor.callLater(self._waiting[0][1] - now, self._on_time)

    def stop(self) -> None:
        """Fail the Deferreds that wait, because the store has stopped."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, deque()
        for _, _, result in waiting:
            if not result.called:
                result.errback(HistoryUnavailable("the history store has stopped"))
