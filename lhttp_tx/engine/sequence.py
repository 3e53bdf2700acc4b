"""
Runs users' callbacks one after another. It waits only for callbacks that return an awaitable.

Used by sessions and by :mod:`lhttp_tx.engine.lifecycle`. A run makes no Deferred, coroutine or closure unless a
callback returns an awaitable.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from lhttp_tx.engine.awaiting import as_deferred
from lhttp_tx.errors import ProcessorTimeout
from lhttp_tx.interfaces import MaybeAwaitable
from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["Done", "Sequence", "Step"]

_log = RationedLogger(__name__)


class TimeLimited(Protocol):
    """
    The owner of a callback.

    :ivar timeout: the most seconds that one call may take; ``None``: the default of the sequence.
    """

    timeout: float | None


Step: TypeAlias = tuple[Callable[[Any], MaybeAwaitable], TimeLimited]
"""A callback, and the object that it belongs to."""

Done: TypeAlias = Callable[[Any, Failure | None], None]
"""Called at the end of a run, with the argument of the run, and its failure or ``None``."""


class Sequence:
    """
    Runs steps one after another. If a step returns an awaitable, the run waits for it, for a limited time.

    There is one run at a time: start the next one after ``done`` of the last one was called.

    :ivar waiting: the Deferred that the run waits for, or ``None``. Do not set it.
    """

    __slots__ = ("_clock", "_default_timeout", "_is_held", "_rest", "_resumed", "_timeout", "_timer", "waiting")

    def __init__(self, clock: IReactorTime, timeout: float, resumed: Callable[[], None]) -> None:
        """
        :param clock: the reactor, for time limits.
        :param timeout: the most seconds for a step whose owner has no ``timeout`` of its own.
        :param resumed: called each time that a run has continued after a wait, and has reached its end or the next
            wait.
        """
        self._clock = clock
        self._default_timeout = timeout
        self._resumed = resumed
        self.waiting: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._timeout = timeout
        self._is_held = False
        self._rest: tuple[Iterator[Step], Any, Done] | None = None

    def run(self, steps: Iterable[Step], argument: Any, done: Done) -> None:
        """
        Call each step with *argument*, then *done*.

        A step that raises, fails or takes too long ends the run, and *done* gets the failure. *done* is called before
        this method returns, unless the run waits for a step (:attr:`waiting`).
        """
        self._advance(iter(steps), argument, done)

    def wait(self, result: object, owner: TimeLimited, argument: Any, done: Done) -> None:
        """Wait for *result*, like a run with one step that returns it. *owner* sets the time limit."""
        self._advance(iter(((lambda _: result, owner),)), argument, done)  # type: ignore[arg-type]

    def cancel(self) -> None:
        """End the waiting run, if there is one. Its ``done`` gets a failure with ``CancelledError``."""
        if self.waiting is not None:
            self._abandon(Failure(CancelledError()))

    def hold(self) -> None:
        """Stop the time limit of the current step. Whoever calls this must call :meth:`release` later."""
        self._is_held = True
        self._stop_timer()

    def release(self) -> None:
        """Start the time limit of the current step again, from its beginning."""
        self._is_held = False
        if self.waiting is not None and self._timer is None:
            self._start_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _advance(self, steps: Iterator[Step], argument: Any, done: Done) -> None:
        failure: Failure | None = None
        try:
            for call, owner in steps:
                result = call(argument)
                if result is None:
                    continue
                failure = self._await(as_deferred(result, owner), owner)
                if self.waiting is not None:
                    self._rest = (steps, argument, done)
                    return
                if failure is not None:
                    break
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException:  # users' code may also raise SystemExit, or asyncio's CancelledError
            failure = Failure()
        done(argument, failure)

    def _await(self, deferred: Deferred[Any], owner: TimeLimited) -> Failure | None:
        """Start waiting for *deferred*. If it has already failed, return its failure."""
        outcome: list[Any] = []
        self._timeout = owner.timeout if owner.timeout is not None else self._default_timeout
        self.waiting = deferred
        deferred.addBoth(self._arrived, deferred, outcome)
        if self.waiting is None:
            return outcome[0] if isinstance(outcome[0], Failure) else None
        outcome.append(None)
        self._start_timer()
        return None

    def _start_timer(self) -> None:
        if not self._is_held:
            self._timer = self._clock.callLater(self._timeout, self._timed_out, self._timeout)

    def _arrived(self, result: Any, deferred: Deferred[Any], outcome: list[Any]) -> None:
        if self.waiting is not deferred:
            if isinstance(result, Failure) and not result.check(CancelledError):
                _log.failure("a callback failed after its time limit", result)
            return
        self.waiting = None
        if outcome:
            self._continue(result if isinstance(result, Failure) else None)
        else:
            outcome.append(result)

    def _timed_out(self, timeout: float) -> None:
        self._timer = None
        self._abandon(Failure(ProcessorTimeout(f"not done within {timeout:g} seconds")))

    def _abandon(self, failure: Failure) -> None:
        """Stop waiting, even if the Deferred does not react to its cancellation."""
        deferred, self.waiting = self.waiting, None
        assert deferred is not None
        try:
            deferred.cancel()
        except Exception:
            _log.failure("cancelling a callback failed")
        self._continue(failure)

    def _continue(self, failure: Failure | None) -> None:
        self._stop_timer()
        assert self._rest is not None
        (steps, argument, done), self._rest = self._rest, None
        if failure is None:
            self._advance(steps, argument, done)
        else:
            done(argument, failure)
        self._resumed()
