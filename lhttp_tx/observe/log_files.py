"""
Finds the files to which the process logs, and opens them again after they were moved.

Used by :mod:`lhttp_tx.twistd.signals`. ``twistd`` rotates its own log on SIGUSR1. If a tool such as logrotate has moved
the log before, ``twistd`` continues to write to the old file. ``twist`` does not handle the signal.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.logger import FileLogObserver, FilteringLogObserver, Logger, globalLogPublisher
from twisted.python.logfile import BaseLogFile, LogFile

__all__ = ["log_files", "reopen", "reopen_logs"]

_log = Logger()


def reopen_logs() -> None:
    """
    Write the log to new files from now on.

    If a file was moved or removed, open its path again, even if there is a new file already.

    If the file was not moved, ``twistd`` rotates it, and ``twist`` does not change it. If that fails, the log says why,
    and continues in the old file.
    """
    files = list(log_files())
    for file in files:
        try:
            told = reopen(file)
        except OSError as error:
            _log.error("SIGUSR1: still writing to the old file: {error}", error=error)
        else:
            _log.info("SIGUSR1: {told}", told=told)
    if not files:
        _log.info("SIGUSR1: this process has no log file")


def reopen(file: Any) -> str:
    """
    Open one log file again.

    :param file: a log file of Twisted, or an ordinary file.
    :returns: a description of what was done.
    :raises OSError: if no file can be made at its path; then *file* is unchanged.
    """
    if not isinstance(file, BaseLogFile):
        path = str(Path(file.name).absolute())
        if _is_there(file.fileno(), path):
            return f"{path} is in its place"
        file.flush()
        descriptor = _make(path, os.O_WRONLY | os.O_APPEND, 0o666)
        os.dup2(descriptor, file.fileno(), inheritable=False)
        os.close(descriptor)
        return f"{path} is a new file"
    if _is_there(file._file.fileno(), file.path):
        if not isinstance(file, LogFile):
            return f"{file.path} is in its place"
        file.rotate()
        return f"{file.path} was rotated"
    # Twisted closes the old file first. If it then cannot make a new one, it can no longer log anything.
    mode = 0o666 if file.defaultMode is None else file.defaultMode
    os.close(_make(file.path, os.O_RDWR, mode))
    file.reopen()
    return f"{file.path} is a new file"


def _make(path: str, flags: int, mode: int) -> int:
    """
    Return a descriptor of the file at *path*, made if it is missing.

    :raises OSError: if that fails, or if the path is not a regular file, such as a pipe, which could block the process
        forever.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NONBLOCK, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return descriptor


def _is_there(descriptor: int, path: str) -> bool:
    """Return whether *descriptor* refers to the file at *path*."""
    try:
        return os.path.samestat(Path(path).stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def log_files() -> Iterator[Any]:
    """Yield the files with a path to which this process logs."""
    observers: list[Any] = list(globalLogPublisher._observers)
    while observers:
        observer = observers.pop()
        if isinstance(observer, FilteringLogObserver):
            observers.append(observer._observer)
        elif isinstance(observer, FileLogObserver):
            file: Any = observer._outFile
            if isinstance(file, BaseLogFile) or _has_path(file):
                yield file


def _has_path(file: Any) -> bool:
    name = getattr(file, "name", None)
    if not isinstance(name, str) or file in (sys.__stdout__, sys.__stderr__):
        return False
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False
