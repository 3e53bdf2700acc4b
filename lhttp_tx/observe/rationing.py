"""
Limits the log lines that clients can cause: one line of each kind in an interval, then the number and the last of more.

Clients could cause any number of lines. Modules that log events caused by clients use a :class:`RationedLogger`. It
limits lines while a server runs, which :mod:`lhttp_tx.service` reports. Otherwise it writes every line. Imports nothing
of the project.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel, formatEvent
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


class _Omitted:
    """The omitted lines of one kind: their number, and the last one with its values."""

    __slots__ = ("count", "text", "values")

    def __init__(self) -> None:
        self.count = 0
        self.text = ""
        self.values: dict[str, Any] = {}


class _Ration:
    """The counts of lines in this process."""

    def __init__(self) -> None:
        self.clocks: list[IReactorTime] = []
        self.counts: dict[_Kind, _Omitted] = {}
        self.timer: IDelayedCall | None = None

    def admits(self, kind: _Kind, text: str, values: dict[str, Any]) -> bool:
        """Return whether to write a line of this kind. If not, count it, and keep its text and values."""
        if not self.clocks:
            return True
        counts = self.counts
        if kind not in counts and len(counts) >= MAX_KINDS:
            kind = _OTHERS
        if kind in counts:
            omitted = counts[kind]
            omitted.count += 1
            omitted.text, omitted.values = text, values
            return False
        counts[kind] = _Omitted()
        if self.timer is None:
            self.timer = self.clocks[0].callLater(INTERVAL, self.report)
        return True

    def report(self) -> None:
        """Log how many lines were omitted, and the last one. Continue to count the kinds of these lines."""
        self.stop()
        counts, self.counts = self.counts, {}
        for kind, omitted in counts.items():
            if omitted.count:
                namespace, level = kind[:2]
                last = formatEvent({**omitted.values, "log_format": omitted.text})
                told = "{count} lines of other kinds within {seconds:g} s, the last: {last}"
                if kind is not _OTHERS:
                    told = "{count} more within {seconds:g} s, the last: {last}"
                Logger(namespace).emit(level, told, count=omitted.count, seconds=INTERVAL, last=last)
                self.counts[kind] = _Omitted()
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
        name = type(found.value).__name__
        kind = (self._logger.namespace, level, f"{format} ({name})", *frame)
        if _ration.admits(kind, f"{format} ({{log_kind}})", {**values, "log_kind": name}):
            self._logger.failure(format, found, level, **values)

    def _emit(self, level: Any, text: str, values: dict[str, Any]) -> None:
        reason = values.get("reason")
        if isinstance(reason, str):
            values["reason"] = reason = reason[:_REASON_SIZE]
        if _ration.admits((self._logger.namespace, level, text, values.get("code"), reason), text, values):
            self._logger.emit(level, text, **values)
