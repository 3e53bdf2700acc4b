"""
Counts what waits to be written to a history in SQLite, and tells those who wait for it. Called on the reactor's thread.
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
    Counts writes since the start of a store.

    :ivar given: how many the writer was given.
    :ivar done: how many of them are safe.
    :ivar size: bytes of the others.
    """

    def __init__(self, reactor: Any, patience: float, reason: Callable[[], str]) -> None:
        """
        :param reactor: the reactor.
        :param patience: how long somebody waits, in seconds, at most.
        :param reason: returns why nothing is written; empty if that is not known.
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
        """Tell those who wait for it that the first *done* writes are safe."""
        for _ in range(done - self.done):
            self.size -= self._sizes.popleft()
        self.done = done
        while self._waiting and self._waiting[0][0] <= done:
            _, _, result = self._waiting.popleft()
            if not result.called:
                result.callback(None)

    def wait(self) -> MaybeDeferred:
        """
        Find out when everything that was given before is safe.

        :returns: ``None`` if it is, else a Deferred that fails with :exc:`lhttp_tx.errors.HistoryUnavailable` if that
            takes too long, or the store stops before.
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
        """Tell those who wait that it is not known whether anything is safe."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, deque()
        for _, _, result in waiting:
            if not result.called:
                result.errback(HistoryUnavailable("the history store has stopped"))
