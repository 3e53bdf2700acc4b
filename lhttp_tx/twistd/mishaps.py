"""
Reports failed starts under ``twistd`` and ``twist``: one line that says what to do, without a traceback or the help.

Used by :mod:`lhttp_tx.twistd.tap` and :mod:`lhttp_tx.twistd.options`. An embedded server raises exceptions instead.
"""

from __future__ import annotations

import atexit
import difflib
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.errors import StartFailed
from lhttp_tx.observe.log_files import log_files
from lhttp_tx.observe.reasons import reason_of, told_of
from lhttp_tx.ports.places import problem_of

__all__ = ["check_places", "end_if_not_started", "explain_failures", "give_up", "owners_of"]

_log = Logger()

_UNKNOWN = re.compile(r"option --(\S+) not recognized")


def give_up(text: str, known: Iterable[str] = ()) -> NoReturn:
    """
    End the process before the server starts.

    :param text: the error in the command line.
    :param known: the existing options.
    :raises SystemExit: always.
    """
    program = Path(sys.argv[0]).name
    unknown = _UNKNOWN.search(text)
    if unknown is not None:
        alike = difflib.get_close_matches(unknown[1], [name.rstrip("=") for name in known], 1)
        text += f"; {f'do you mean --{alike[0]}? ' if alike else ''}{program} lhttp --help lists all"
    raise SystemExit(f"{program} lhttp: {text}")


def check_places(options: Any) -> None:
    """
    Check that ``twistd`` can write its files where its own options say.

    :param options: the options of ``twistd``. For other options, there is nothing to check.
    :raises SystemExit: if it cannot.
    """
    if options is None or "pidfile" not in options:
        return
    log, pidfile, rundir, chroot = (options.get(name) for name in ("logfile", "pidfile", "rundir", "chroot"))
    if log != "-" and (log or not options.get("nodaemon")) and not options.get("syslog") and not options.get("logger"):
        _check_file("--logfile", log or "twistd.log")
    if chroot:
        return  # the other paths are inside it
    if rundir and not Path(rundir).is_dir():
        give_up(f"--rundir {rundir}: there is no such directory; make it, or name another")
    if pidfile:
        _check_file("--pidfile", pidfile)


def owners_of(options: Any) -> tuple[int, ...]:
    """
    Return the users that ``twistd`` changes to with ``--uid``.

    :param options: the options of ``twistd``. For other options, there are none.
    """
    user = None if options is None or "uid" not in options else options["uid"]
    return () if user is None else (user,)


def _check_file(option: str, name: str) -> None:
    problem = problem_of(name)
    if problem is not None:
        give_up(f"{option} {name}: {problem}")


def end_if_not_started(started: Deferred[None], reactor: Any) -> None:
    """
    End the process with status 1 when a processor, filter, hook or authenticator cannot start.

    :param started: then fails with :exc:`~lhttp_tx.errors.StartFailed`.
    """

    def end(failure: Failure) -> None:
        if failure.check(StartFailed):
            atexit.register(_exit)
            reactor.callLater(0, reactor.stop)

    started.addErrback(end)


def _exit() -> None:
    """Exit with status 1 at the very end; twistd itself would exit with status 0."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(1)


def explain_failures(reactor: Any) -> None:
    """Until *reactor* runs, report errors of files and ports in one line each. The process still ends."""
    before = sys.excepthook

    def explain(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        told = told_of(error)
        if told is None and not isinstance(error, OSError | CannotListenError):
            before(kind, error, traceback)
            return
        if told is None:
            told = f"cannot start: {reason_of(error)}"
            _log.critical("{told}", told=told)
        if any(True for _ in log_files()) and sys.__stderr__ is not None:
            sys.__stderr__.write(f"{Path(sys.argv[0]).name} lhttp: {told}\n")

    def runs() -> None:
        if sys.excepthook is explain:
            sys.excepthook = before

    sys.excepthook = explain
    reactor.callWhenRunning(runs)
