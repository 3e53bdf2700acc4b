"""
Running one coroutine of the ``lhttp`` command in a reactor, and what its end means for the shell.

Used by :mod:`lhttp_tx.client.cli`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure
from zope.interface import provider

__all__ = ["Exit", "Interrupted", "run_program", "start_logging"]

Program = Callable[[Any], Coroutine[Any, Any, int]]


class Exit(IntEnum):
    """The exit status of the command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_CONNECTED = 3
    INTERRUPTED = 128 + signal.SIGINT
    BROKEN_PIPE = 128 + signal.SIGPIPE
    TERMINATED = 128 + signal.SIGTERM


class Interrupted(Exception):
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.status = Exit(128 + number)


def start_logging(verbose: bool) -> None:
    """Log to the standard error if *verbose*, else nowhere: the command says itself what goes wrong."""
    observers: list[ILogObserver] = [textFileLogObserver(sys.stderr)] if verbose else [_discard]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)


@provider(ILogObserver)
def _discard(event: LogEvent) -> None:
    """Log nothing."""


def run_program(program: Program) -> int:
    """
    Run *program* in the reactor until it is done.

    SIGINT and SIGTERM cancel it, so that it can clean up; a second one stops at once.

    :param program: gets the reactor and returns the exit status.
    :raises Interrupted: if a signal ended it.
    :raises Exception: what the program raises.
    """
    from twisted.internet import reactor  # noqa: TID251 - a program, not a library

    running: Any = reactor
    outcome: list[Any] = []
    signals: list[int] = []

    def start() -> None:
        done: Deferred[Any] = Deferred.fromCoroutine(program(running))

        def interrupt(number: int, _: object) -> None:
            signals.append(number)
            running.callFromThread(done.cancel if len(signals) == 1 else running.stop)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        done.addBoth(outcome.append).addBoth(lambda _: running.stop() if running.running else None)

    running.callWhenRunning(start)
    running.run()
    result = outcome[0] if outcome else Failure(CancelledError())
    if signals and isinstance(result, Failure) and result.check(CancelledError):
        raise Interrupted(signals[0])
    if isinstance(result, Failure):
        result.raiseException()
    status: int = result
    return status
