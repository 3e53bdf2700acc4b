"""
Handles the signals that a service manager may send to a server. Each has a meaning, or is harmless.

:mod:`lhttp_tx.twistd.tap` and :mod:`lhttp_tx.twistd.worker` use it. Signals belong to the process, so an embedded
server does not handle them.

=================== ====================================================================================
SIGTERM, SIGINT     stop, by Twisted. A second signal ends a slow stop, and otherwise has no effect
SIGQUIT             stop, likewise
SIGHUP              read rules, secrets and certificates again (:mod:`lhttp_tx.twistd.reloading`)
SIGUSR1             open the log file again, or start a new one (:mod:`lhttp_tx.observe.log_files`)
SIGUSR2             nothing
SIGTSTP, SIGCONT    suspend and resume the process, by the system
SIGPIPE             nothing, by Python
=================== ====================================================================================
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias

from twisted.logger import Logger

from lhttp_tx.observe.log_files import reopen_logs

try:
    import termios
except ImportError:  # pragma: no cover - Windows has no such terminals
    termios = None  # type: ignore[assignment]

__all__ = ["attend_signals", "deferred_signals", "release_signals", "stop_with_terminal"]

_log = Logger()

_Handler: TypeAlias = Callable[[int, FrameType | None], object]

_DEFERRED = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE") if hasattr(signal, name)
)
"""Signals that would end a process that has not installed its handlers yet."""


_STOPPING = ("SIGTERM", "SIGINT", "SIGQUIT")
"""Signals that stop a server."""


def attend_signals(
    reactor: Any, *, hurry: Callable[[], bool] = lambda: False, hurried_by: Collection[str] = _STOPPING
) -> None:
    """
    Install a handler for every signal that a service manager may send; see the table above.

    Existing handlers stay. If several signals tell *reactor* to stop, only the first one counts. Twisted would report
    each further one as an error, with a traceback about a reactor that does not run.

    :param hurry: called for each further one. Returns whether it ends a slow stop.
    :param hurried_by: the signals for which *hurry* is called.
    """

    def hang_up() -> None:
        if not stop_with_terminal(reactor):
            _log.info("SIGHUP: there is no configuration file to read again")

    def stop_again(number: int) -> None:
        if signal.Signals(number).name in hurried_by and hurry():
            _log.info("{name} again: closing all connections now", name=signal.Signals(number).name)
        else:
            _log.info("already stopping; SIGKILL stops the process at once")

    def again(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(stop_again, number)

    obeyed: list[int] = []

    def once(obey: _Handler) -> _Handler:
        def handle(number: int, frame: FrameType | None) -> object:
            if obeyed:
                again(number, frame)
                return None
            obeyed.append(number)
            return obey(number, frame)

        return handle

    meanings: dict[str, Callable[[], object]] = {
        "SIGHUP": hang_up,
        "SIGUSR1": reopen_logs,
        "SIGUSR2": lambda: _log.info("SIGUSR2: ignored"),
        "SIGQUIT": reactor.stop,
    }
    for name, call in meanings.items():
        number = getattr(signal, name, None)
        if number is not None and not callable(signal.getsignal(number)):
            handler = _later(reactor, call)
            signal.signal(number, once(handler) if number in _stopping() else handler)

    def running() -> None:  # Twisted has installed its own handlers now, so a signal may arrive twice
        for number in _stopping():
            obey = signal.getsignal(number)
            if callable(obey) and getattr(obey, "__self__", None) is reactor:
                signal.signal(number, once(obey))

    def stopping() -> None:
        for number in _stopping():
            signal.signal(number, again)

    reactor.callWhenRunning(running)
    reactor.addSystemEventTrigger("before", "shutdown", stopping)


def _stopping() -> list[signal.Signals]:
    """Return the signals that stop a server."""
    return [getattr(signal, name) for name in _STOPPING if hasattr(signal, name)]


def stop_with_terminal(reactor: Any) -> bool:
    """
    Stop *reactor* if SIGHUP came because the server's terminal is gone.

    :returns: whether the terminal is gone.
    """
    if termios is None:
        return False
    try:
        termios.tcgetattr(0)
    except termios.error as error:
        if error.args[0] == errno.EIO:
            _log.info("the terminal is gone")
            if reactor.running:
                reactor.stop()
            return True
    return False


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Within the context, start processes with signals blocked that they cannot handle yet."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEFERRED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release_signals() -> None:
    """Handle the signals that were blocked since this process began."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _DEFERRED)


def _later(reactor: Any, call: Callable[[], object]) -> _Handler:
    """
    Return a signal handler that makes the call in the reactor. A signal may interrupt anything, such as a log write.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(call)

    return handle
