"""
Limits the log lines that clients can cause: one line of each kind in an interval, and then the number of further ones.

Clients could cause any number of lines. Modules that log events caused by clients use a :class:`RationedLogger`. It
limits lines while a server runs, which :mod:`lhttp_tx.service` reports. Otherwise it writes every line. Imports nothing
of the project.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

__all__ = ["INTERVAL", "MAX_KINDS", "RationedLogger", "begin", "end"]

INTERVAL = 10.0
"""Seconds within which at most one line of each kind is written."""

MAX_KINDS = 64
"""The most kinds of lines that are counted separately at one time. Further kinds count as one."""

_REASON_SIZE = 200
"""The most characters of a reason in the log, because some reasons contain a client's data."""

_Kind = tuple[Any, ...]
_OTHERS: _Kind = ("lhttp_tx", LogLevel.warn, "lines of other kinds")


class _Ration:
    """The counts of lines in this process."""

    def __init__(self) -> None:
        self.clocks: list[IReactorTime] = []
        self.counts: dict[_Kind, int] = {}
        self.timer: IDelayedCall | None = None

    def admits(self, kind: _Kind) -> bool:
        """Return whether to write a line of this kind. If not, count it."""
        if not self.clocks:
            return True
        counts = self.counts
        if kind not in counts and len(counts) >= MAX_KINDS:
            kind = _OTHERS
        if kind in counts:
            counts[kind] += 1
            return False
        counts[kind] = 0
        if self.timer is None:
            self.timer = self.clocks[0].callLater(INTERVAL, self.report)
        return True

    def report(self) -> None:
        """Log how many lines were omitted. Continue to count the kinds of these lines."""
        self.stop()
        counts, self.counts = self.counts, {}
        for kind, count in counts.items():
            if count:
                namespace, level, text = kind[:3]
                told = "{count} more within {seconds:g} s: {like}"
                Logger(namespace).emit(level, told, count=count, seconds=INTERVAL, like=text)
                self.counts[kind] = 0
        if self.counts and self.clocks:
            self.timer = self.clocks[0].callLater(INTERVAL, self.report)

    def stop(self) -> None:
        """Stop the timer."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self.timer = None


_ration = _Ration()


def begin(clock: IReactorTime) -> None:
    """Limit lines from now on, until :func:`end` was called as often as this function."""
    _ration.clocks.append(clock)


def end(clock: IReactorTime) -> None:
    """Log the counts, and stop limiting lines unless other servers run."""
    if clock in _ration.clocks:
        _ration.clocks.remove(clock)
        _ration.report()


class RationedLogger:
    """Logs like a :class:`twisted.logger.Logger`, but limits the number of lines."""

    def __init__(self, namespace: str) -> None:
        """:param namespace: the name of the module that logs."""
        self._logger = Logger(namespace)

    def debug(self, format: str, **values: Any) -> None:  # noqa: A002 - Twisted's name
        """Log a line for developers."""
        self._emit(LogLevel.debug, format, values)

    def info(self, format: str, **values: Any) -> None:  # noqa: A002
        """Log an ordinary event."""
        self._emit(LogLevel.info, format, values)

    def warn(self, format: str, **values: Any) -> None:  # noqa: A002
        """Log a problem that the server can handle."""
        self._emit(LogLevel.warn, format, values)

    def error(self, format: str, **values: Any) -> None:  # noqa: A002
        """Log an error that the operator must know about."""
        self._emit(LogLevel.error, format, values)

    def failure(
        self,
        format: str,  # noqa: A002
        failure: Failure | None = None,
        level: Any = LogLevel.critical,
        **values: Any,
    ) -> None:
        """
        Log an exception with its traceback; by default, the current one. Exceptions raised at the same line are one
        kind.
        """
        found = Failure() if failure is None else failure
        frame = found.frames[-1][1:3] if found.frames else ()
        if _ration.admits((self._logger.namespace, level, f"{format} ({type(found.value).__name__})", *frame)):
            self._logger.failure(format, found, level, **values)

    def _emit(self, level: Any, text: str, values: dict[str, Any]) -> None:
        reason = values.get("reason")
        if isinstance(reason, str):
            values["reason"] = reason = reason[:_REASON_SIZE]
        if _ration.admits((self._logger.namespace, level, text, values.get("code"), reason)):
            self._logger.emit(level, text, **values)
