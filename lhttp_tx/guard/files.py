"""
Reads the files that an operator has named, within limits of size and time.

Opening a pipe blocks until another program writes, and a device may never end. Either would block the start, or the
whole process when it reads the file again. So the server and the ``lhttp`` command read such files here, or check them
here before a library opens them.
"""

from __future__ import annotations

import os
import select
import stat
import time

__all__ = ["MAX_FILE", "START_WAIT", "check_file", "read_file"]

MAX_FILE = 1_048_576
"""The most bytes of a file, unless the caller sets another limit."""

START_WAIT = 30.0
"""Seconds for which a start waits for the whole content of a pipe, such as ``<(command)`` in a shell."""

_PIECE = 65_536
"""Bytes that are read at a time."""

_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))
"""Kinds of files that are not regular files. All others are devices."""


def check_file(path: str | os.PathLike[str], *, most: int = MAX_FILE) -> None:
    """
    Check that a file can be read without waiting. For a symbolic link, check its target.

    :param path: its path.
    :param most: the most bytes that it may have.
    :raises ValueError: if it is not a regular file, or is too large. The text names it.
    :raises OSError: if it does not exist.
    """
    _check(str(path), os.stat(path), most)  # noqa: PTH116 - a str is as good as a path


def read_file(
    path: str | os.PathLike[str], *, wait: float = 0.0, most: int = MAX_FILE, name: str | None = None
) -> bytes:
    """
    Return the content of a file.

    :param path: its path.
    :param wait: seconds for which to wait for a file that is not regular, such as a pipe or a terminal. This blocks the
        process, so only a starting server should wait. 0: read only regular files.
    :param most: the most bytes that it may have.
    :param name: its name in error texts; ``None``: its path.
    :raises ValueError: if it is too large, takes too long, is a folder, or is not a regular file and *wait* is 0. The
        text names it.
    :raises OSError: if it cannot be read.
    """
    # A pipe without a writer would make open() wait, and a terminal could become the one that controls the process.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    name = str(path) if name is None else name
    try:
        found = os.fstat(descriptor)
        is_regular = stat.S_ISREG(found.st_mode)
        if not wait or stat.S_ISDIR(found.st_mode):
            _check(name, found, most)
        deadline = None if is_regular else time.monotonic() + wait
        data = bytearray()
        while piece := _read(descriptor, name, deadline, wait):
            data += piece
            if len(data) > most:
                raise ValueError(f"{name} is larger than {most} bytes")
        return bytes(data)
    finally:
        os.close(descriptor)


def _check(name: str, found: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((known for is_kind, known in _KINDS if is_kind(found.st_mode)), "a device")
        raise ValueError(
            f"{name} is no regular file, but {kind}; nothing waits for it here: write the content into a file"
        )
    if found.st_size > most:
        raise ValueError(f"{name} is larger than {most} bytes")


def _read(descriptor: int, name: str, deadline: float | None, wait: float) -> bytes:
    """Return the next piece; empty at the end. *deadline* is ``None`` for a regular file, which never blocks."""
    if deadline is not None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise ValueError(f"{name} has not ended within {wait:g} seconds; close it after writing, or name a file")
    try:
        return os.read(descriptor, _PIECE)
    except BlockingIOError:  # another process has read the data first
        return _read(descriptor, name, deadline, wait)
