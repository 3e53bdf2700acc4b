"""
Tells processors, filters, hooks and authenticators when their server starts and stops.

Plugins can then open and close resources, such as a pool of connections. :mod:`lhttp_tx.service` and
:mod:`lhttp_tx.testing` use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from lhttp_tx.engine.sequence import Sequence, Step
from lhttp_tx.errors import StartFailed
from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["Lifecycle"]

_log = RationedLogger(__name__)


class Lifecycle:
    """Calls ``on_start`` of each object, one after another, and later ``on_stop`` in reverse order."""

    def __init__(self, owners: Iterable[Any], *, clock: IReactorTime, timeout: float) -> None:
        """
        :param owners: the objects. An object that is listed twice is called once. An object without the methods is
            skipped.
        :param clock: the reactor, for time limits.
        :param timeout: the most seconds for a call whose owner has no ``timeout`` of its own.
        """
        self._owners = tuple({id(owner): owner for owner in owners}.values())
        self._sequence = Sequence(clock, timeout, lambda: None)
        self._started: list[Any] = []

    def start(self, server: object) -> Deferred[None]:
        """
        Call each ``on_start`` with *server*.

        :returns: a Deferred that

            - succeeds when the last call is done;
            - fails with :exc:`~lhttp_tx.errors.StartFailed` when a call fails, or when :meth:`stop` is called first.
              Then the later objects are not called, and :meth:`stop` calls only the earlier ones. The failure is
              logged, unless the call itself failed with ``StartFailed``.
        """
        done: Deferred[None] = Deferred()

        def ended(_: object, failure: Failure | None) -> None:
            if failure is None:
                done.callback(None)
                return
            owner = self._owners[len(self._started)]
            if failure.check(StartFailed):
                done.errback(failure)
                return
            if not failure.check(CancelledError):
                _log.failure("{owner} did not start", failure, owner=_shown(owner))
            why = failure.getErrorMessage() or type(failure.value).__name__
            done.errback(StartFailed(f"{_shown(owner)} did not start: {why}"))

        self._started = []
        self._sequence.run(self._starting(), server, ended)
        return done

    def stop(self, server: object) -> Deferred[None]:
        """
        Call ``on_stop`` with *server* on each object that has started, and log errors.

        :returns: a Deferred that succeeds when the last call is done.
        """
        self._sequence.cancel()  # end a start that is under way
        done: Deferred[None] = Deferred()
        owners = self._started[::-1]
        steps = iter([(owner.on_stop, owner) for owner in owners if hasattr(owner, "on_stop")])
        self._started = []

        def ended(_: object, failure: Failure | None) -> None:
            if failure is None:
                done.callback(None)
            else:
                _log.failure("an on_stop failed", failure)
                self._sequence.run(steps, server, ended)

        self._sequence.run(steps, server, ended)
        return done

    def replace(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """
        Use the second object of each pair in place of the first from the next start on. The second has already been
        started.

        The next :meth:`stop` calls both, because connections may still use the first.
        """
        new = {id(old): owner for old, owner in pairs}
        self._owners = tuple(new.get(id(owner), owner) for owner in self._owners)
        self._started += new.values()

    def _starting(self) -> Iterator[Step]:
        for owner in self._owners:
            if hasattr(owner, "on_start"):
                yield owner.on_start, owner
            self._started.append(owner)


def _shown(owner: object) -> str:
    return str(getattr(owner, "__name__", type(owner).__name__))
