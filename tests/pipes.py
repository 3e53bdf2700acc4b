"""Pipes in the place of files. What opens or reads one may wait for ever; a test then fails instead of waiting."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["at_once", "put_pipe"]

_LIMIT = 30
"""Seconds after which something waits for ever. What does not wait takes none."""


@contextmanager
def at_once() -> Iterator[None]:
    """Fail if what is done meanwhile waits. For the main thread."""

    def give_up(*_: object) -> None:
        raise TimeoutError("this waits for a pipe")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def put_pipe(path: Path) -> Path:
    """Put a pipe that nobody writes to in the place of a file, and return its path."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path
