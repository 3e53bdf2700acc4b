"""
Handles the output of a worker's process: takes its heartbeats, and copies its log into the log of the supervisor.

A part of :mod:`lhttp_tx.twistd.supervisor`.
"""

from __future__ import annotations

import json
from typing import Protocol

from twisted.internet.protocol import ProcessProtocol
from twisted.logger import InvalidLogLevelError, Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from lhttp_tx.twistd.watchdog import PULSE_DESCRIPTOR

__all__ = ["WorkerProcess"]

_log = Logger()

_LINE_SIZE = 1_048_576
"""The most bytes of one line of a worker's log. Longer lines are cut."""


class Watched(Protocol):
    """Gets the events of a process."""

    def alive(self) -> None:
        """Called when the process has sent a heartbeat."""

    def has_started(self) -> None:
        """Called when the process accepts connections."""

    def exited(self, reason: Failure) -> None:
        """Called when the process has exited."""


class WorkerProcess(ProcessProtocol):
    """Copies a worker's log, one JSON event for each line, into the log of this process."""

    def __init__(self, worker: Watched, number: int) -> None:
        """
        :param worker: gets the events of the process.
        :param number: the number of the worker, for the log.
        """
        self._worker = worker
        self._number = number
        self._beginnings = {1: b"", 2: b""}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Take a heartbeat, or a part of the log."""
        if childFD == PULSE_DESCRIPTOR:
            self._worker.alive()
            return
        lines = (self._beginnings[childFD] + data).split(b"\n")
        self._beginnings[childFD] = lines.pop()[-_LINE_SIZE:]
        for line in lines:
            self._relay(line)

    def processEnded(self, reason: Failure) -> None:
        """Copy the rest of the log, and report the end of the process."""
        for line in self._beginnings.values():
            if line:
                self._relay(line)
        self._worker.exited(reason)

    def _relay(self, line: bytes) -> None:
        try:
            told = json.loads(line)
            if told.get("started") is True:
                self._worker.has_started()
                return
            event = {
                "log_level": LogLevel.levelWithName(told["level"]),
                "log_system": f"worker {self._number}, {told['namespace']}#{told['level']}",
                "log_namespace": __name__,
                "log_time": float(told["time"]),
                "log_format": "{text}",
                "text": str(told["text"]),
                "told_namespace": str(told["namespace"]),
                "worker_number": self._number,
                "event": str(told.get("event", "")) or None,
                "fields": told.get("fields"),
                "told_traceback": told.get("traceback"),
            }
        except (ValueError, LookupError, TypeError, AttributeError, InvalidLogLevelError):
            _log.warn("worker {number}: {line}", number=self._number, line=line.decode("utf-8", "backslashreplace"))
        else:
            globalLogPublisher(event)
