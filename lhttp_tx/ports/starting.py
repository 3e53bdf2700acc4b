"""
Tells callers when a service has started, even if starts and stops overlap. Used by :mod:`lhttp_tx.service`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["Starts", "first_of", "freeze_when", "one_by_one"]

_log = Logger()


class Starts:
    """The starts of one service, one after another. The outcome of an earlier start is ignored."""

    def __init__(self) -> None:
        self._number = 0
        self._outcome: Failure | bool | None = None
        self._waiting: list[Deferred[None]] = []

    def begin(self) -> int:
        """Begin a start, and return its number."""
        self._number += 1
        self._outcome = None
        return self._number

    def end(self, outcome: Any, number: int) -> None:
        """Fire the waiting Deferreds with the outcome of the start with this number: a failure, or anything else."""
        if number != self._number:
            return
        self._outcome = outcome if isinstance(outcome, Failure) else True
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.called:
                self._tell(waiter)

    def give_up(self) -> None:
        """Fail the waiting Deferreds, because the service was stopped first. Later callers wait for the next start."""
        self.end(Failure(CancelledError("it was stopped before it had started")), self._number)
        self.begin()

    def wait(self) -> Deferred[None]:
        """
        Return a Deferred for the outcome of the current start; if there is none, of the last start, or of the next one.
        """
        waiter: Deferred[None] = Deferred()
        if self._outcome is None:
            self._waiting.append(waiter)
        else:
            self._tell(waiter)
        return waiter

    def _tell(self, waiter: Deferred[None]) -> None:
        if isinstance(self._outcome, Failure):
            waiter.errback(self._outcome)
        else:
            waiter.callback(None)


def one_by_one(steps: Iterable[Callable[[], Any]]) -> Deferred[None]:
    """
    Run the steps in order, and log failures.

    Each step starts when the one before it is done, even if that one failed.

    :returns: a Deferred that succeeds when the last step is done.
    """

    def take(_: object, step: Callable[[], Any]) -> Any:
        return step()

    result = succeed(None)
    for step in steps:
        result.addCallback(take, step)
        result.addErrback(lambda failure: _log.failure("stopping failed", failure))
    return result.addCallback(lambda _: None)


def first_of(failure: Failure) -> Failure:
    """Return the first failure of a ``DeferredList``."""
    found: Failure = failure.value.subFailure  # type: ignore[union-attr]
    return found


def freeze_when(started: Deferred[None]) -> None:
    """
    Exclude all existing objects from garbage collection when the server has started. Call this only in a process that
    runs nothing but the server.

    The modules have made hundreds of thousands of objects, which stay until the process ends. Each full collection
    would visit all of them, and the clients would wait for a tenth of a second. Clients that come and go cause such
    collections.

    :param started: succeeds when the server has started.
    """

    def freeze(_: None) -> None:
        gc.collect()
        gc.freeze()

    started.addCallbacks(freeze, lambda _: None)  # others tell why it did not start
