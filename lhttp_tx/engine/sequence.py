"""
Running a user's callbacks one after another, synchronously until one of them is not.

Used by the session. No Deferred, coroutine or closure is made for a run unless a callback returned one.
"""

from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.errors import ProcessorTimeout
from lhttp_tx.interfaces import MaybeAwaitable

__all__ = ["Done", "Sequence", "Step", "as_deferred"]

_log = Logger()


class TimeLimited(Protocol):
    """Whoever a callback belongs to."""

    timeout: float | None


Step: TypeAlias = tuple[Callable[[Any], MaybeAwaitable], TimeLimited]
"""A callback, and whose it is."""

Done: TypeAlias = Callable[[Any, Failure | None], None]
"""Called with the argument of a run and why it failed, or ``None``."""


def as_deferred(result: object, owner: object) -> Deferred[Any]:
    """
    Return what a callback returned, as a Deferred.

    :param result: a Deferred or a coroutine.
    :param owner: whose callback it was, for the error text.
    :raises TypeError: if it is neither.
    """
    if isinstance(result, Deferred):
        return result
    if isinstance(result, Coroutine):
        return Deferred.fromCoroutine(result)
    name = getattr(owner, "__name__", type(owner).__name__)
    raise TypeError(f"{name} returned {result!r}; return None, a Deferred or a coroutine")


class Sequence:
    """
    Runs steps one after another, waits where one returns something to wait for, and limits how long it waits.

    One run at a time: the owner starts the next when ``done`` was called for the one before.

    :ivar waiting: what the run waits for, or ``None``; read it, do not set it.
    """

    __slots__ = ("_clock", "_default_timeout", "_rest", "_resumed", "_timer", "waiting")

    def __init__(self, clock: IReactorTime, timeout: float, resumed: Callable[[], None]) -> None:
        """
        :param clock: the reactor, for time limits.
        :param timeout: seconds that a step may take whose owner sets no limit.
        :param resumed: called after a run that had waited has moved on, be it to its end or to the next wait.
        """
        self._clock = clock
        self._default_timeout = timeout
        self._resumed = resumed
        self.waiting: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._rest: tuple[Iterator[Step], Any, Done] | None = None

    def run(self, steps: Iterable[Step], argument: Any, done: Done) -> None:
        """
        Call each step with *argument*, then *done*.

        A step that raises, fails or takes too long ends the run: *done* gets the failure. *done* is called before this
        returns unless a step is waited for (:attr:`waiting`).
        """
        self._advance(iter(steps), argument, done)

    def wait(self, result: object, owner: TimeLimited, argument: Any, done: Done) -> None:
        """Go on as a run whose only step returned *result*."""
        self._advance(iter(((lambda _: result, owner),)), argument, done)  # type: ignore[arg-type]

    def cancel(self) -> None:
        """End the run that waits, if one does; its ``done`` gets a failure with ``CancelledError``."""
        if self.waiting is not None:
            self._abandon(Failure(CancelledError()))

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
        except BaseException:  # a user's code may also raise SystemExit, or asyncio's CancelledError
            failure = Failure()
        done(argument, failure)

    def _await(self, deferred: Deferred[Any], owner: TimeLimited) -> Failure | None:
        """Wait for *deferred*, or return how it failed if it has fired already."""
        outcome: list[Any] = []
        timeout = owner.timeout if owner.timeout is not None else self._default_timeout
        self.waiting = deferred
        deferred.addBoth(self._arrived, deferred, outcome)
        if self.waiting is None:
            return outcome[0] if isinstance(outcome[0], Failure) else None
        outcome.append(None)
        self._timer = self._clock.callLater(timeout, self._timed_out, timeout)
        return None

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
        """Stop waiting, whether or not what is waited for heeds its cancellation."""
        deferred, self.waiting = self.waiting, None
        assert deferred is not None
        try:
            deferred.cancel()
        except Exception:
            _log.failure("cancelling a callback failed")
        self._continue(failure)

    def _continue(self, failure: Failure | None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        assert self._rest is not None
        (steps, argument, done), self._rest = self._rest, None
        if failure is None:
            self._advance(steps, argument, done)
        else:
            done(argument, failure)
        self._resumed()
