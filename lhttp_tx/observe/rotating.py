"""
A log file that is rotated by size or age, and keeps a number of old files.

Twisted's :class:`~twisted.python.logfile.LogFile` with an age. Imports nothing of the project.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.python.logfile import LogFile

__all__ = ["RotatingLogFile"]


class RotatingLogFile(LogFile):
    """A log file at ``PATH``. Earlier files are ``PATH.1`` (the newest) to ``PATH.N``."""

    def __init__(
        self, path: str, *, size: int = 0, age: float = 0.0, keep: int = 0, now: Callable[[], float] = time.time
    ) -> None:
        """
        :param path: the path of the file.
        :param size: the bytes after which the file is rotated; 0: never.
        :param age: the seconds after its first line after which the file is rotated; 0: never.
        :param keep: the number of earlier files to keep; 0: all.
        :param now: returns the time, in seconds since 1970.
        :raises OSError: if the file cannot be opened.
        """
        self._age = age
        self._now = now
        self._begun = 0.0
        found = Path(path)
        super().__init__(
            found.name, str(found.parent), rotateLength=size or None, defaultMode=0o640, maxRotatedFiles=keep or None
        )

    def _openFile(self) -> None:
        super()._openFile()
        # If it continues an existing file, that file began when the one before it ended.
        before = Path(f"{self.path}.1")
        self._begun = before.stat().st_mtime if self.size and before.exists() else self._now()

    def shouldRotate(self) -> Any:
        """Return whether the file is too large or too old."""
        is_old = self._age and self.size and self._now() - self._begun >= self._age
        return is_old or super().shouldRotate()

    def write(self, data: Any) -> None:
        """Write bytes or text to the file at once, without a buffer."""
        if not self.size:
            self._begun = self._now()
        super().write(data)
