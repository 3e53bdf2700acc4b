"""
Several processes on one port: the service that starts them, watches them, and writes their log.

The supervisor opens the sockets and never accepts; each worker (:mod:`lhttp_tx.worker`) gets them and accepts for
itself. A socket outlives a worker that dies, so nobody who connects meanwhile is refused. Workers share their channels
through NATS, as nodes on different machines do.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import InvalidLogLevelError, Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

__all__ = ["FIRST_DESCRIPTOR", "Supervisor"]

_log = Logger()

FIRST_DESCRIPTOR = 3
"""The number that the first listening socket has in a worker; the others follow."""

_STEADY = 10.0
"""Seconds after which a worker counts as having started well: if it dies then, the next one starts at once."""

_FIRST_WAIT, _LAST_WAIT = 0.5, 30.0
"""Seconds before a worker that died early is started again; doubled each time."""

_PATIENCE = 2.0
"""Seconds that a worker may take to exit beyond the time limits that it has of its own."""

_LINE_SIZE = 1_048_576
"""Bytes of one line of a worker's log; what is longer is cut."""


class Supervisor(Service):
    """Keeps a number of workers running."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        reactor: Any,
        listen: Iterable[str],
        count: int,
        directory: str,
        exit_timeout: float,
    ) -> None:
        """
        :param arguments: the command line of ``twistd lhttp``, for each worker to read again.
        :param reactor: the running reactor.
        :param listen: endpoint descriptions; a worker must come to the same ones.
        :param count: how many workers there are.
        :param directory: where workers run.
        :param exit_timeout: seconds that a worker takes at most to exit after SIGTERM.
        """
        self._reactor = reactor
        self._arguments = list(arguments)
        self._descriptions = tuple(listen)
        self._directory = directory
        self._patience = exit_timeout + _PATIENCE
        self._ports: list[Any] = []
        self._workers = [_Worker(self, number) for number in range(1, count + 1)]

    def privilegedStartService(self) -> None:
        """
        Open the sockets, while the process may still bind low ports.

        :raises CannotListenError: if an endpoint cannot be listened on.
        """
        for description in self._descriptions:
            outcome: list[Any] = []
            endpoint = serverFromString(self._reactor, description)
            endpoint.listen(_Nobody()).addBoth(outcome.append)
            if not outcome or isinstance(outcome[0], Failure):
                failure = outcome[0] if outcome else "it does not say at once whether it listens"
                _log.critical("cannot listen on {description}: {why}", description=description, why=failure)
                if outcome:
                    raise outcome[0].value.with_traceback(None) from None
                raise ValueError(f"{description} cannot be shared by workers")
            (port,) = outcome
            port.stopReading()
            # Twisted would shut the socket down when the port is closed, for the workers as well.
            port._shouldShutdown = False
            self._ports.append(port)

    def startService(self) -> None:
        """Start the workers."""
        super().startService()
        if not self._ports:
            self.privilegedStartService()
        _log.info("starting {count} workers", count=len(self._workers))
        for worker in self._workers:
            worker.start()

    def stopService(self) -> Deferred[None]:
        """
        Close the sockets and let every worker finish, as on SIGTERM.

        :returns: a Deferred that succeeds when all have exited.
        """
        super().stopService()
        ports, self._ports = self._ports, []
        closing: list[Deferred[Any]] = [maybeDeferred(IListeningPort(port).stopListening) for port in ports]
        closing += [worker.stop(self._patience) for worker in self._workers]
        return DeferredList(closing, consumeErrors=True).addCallback(lambda _: None)

    def send_signal(self, name: str) -> None:
        """Send every worker the signal *name*, such as ``HUP``."""
        for worker in self._workers:
            worker.send_signal(name)

    def spawn(self, protocol: ProcessProtocol) -> Any:
        """Start a process; return its transport."""
        descriptors: dict[int, int | str] = {0: "w", 1: "r", 2: "r"}
        for place, port in enumerate(self._ports, FIRST_DESCRIPTOR):
            descriptors[place] = port.fileno()
        return self._reactor.spawnProcess(
            protocol,
            sys.executable,
            [sys.executable, "-m", "lhttp_tx.worker", *self._arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            path=self._directory,
            childFDs=descriptors,
        )

    def call_later(self, seconds: float, call: Any, *arguments: Any) -> IDelayedCall:
        """Call *call* after *seconds*."""
        delayed: IDelayedCall = self._reactor.callLater(seconds, call, *arguments)
        return delayed

    def seconds(self) -> float:
        """Return the time."""
        now: float = self._reactor.seconds()
        return now


class _Nobody(Factory):
    """The factory of a port that never accepts."""

    noisy = False


class _Worker:
    """One place among the workers, taken by one process after the other."""

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self._supervisor = supervisor
        self._number = number
        self._transport: Any = None
        self._started = 0.0
        self._wait = _FIRST_WAIT
        self._starting: IDelayedCall | None = None
        self._stopping: Deferred[None] | None = None

    def start(self) -> None:
        self._starting = self._stopping = None
        self._started = self._supervisor.seconds()
        self._transport = self._supervisor.spawn(_WorkerProcess(self, self._number))

    def exited(self, reason: Failure) -> None:
        """The process is gone."""
        self._transport = None
        if self._stopping is not None:
            self._stopping.callback(None)
            return
        if self._supervisor.seconds() - self._started >= _STEADY:
            wait, self._wait = 0.0, _FIRST_WAIT
        else:
            wait, self._wait = self._wait, min(self._wait * 2, _LAST_WAIT)
        _log.error(
            "worker {number} has died, next start in {wait:g} s: {why}",
            number=self._number,
            wait=wait,
            why=reason.getErrorMessage(),
        )
        self._starting = self._supervisor.call_later(wait, self.start)

    def stop(self, patience: float) -> Deferred[None]:
        """Send SIGTERM, and SIGKILL after *patience* seconds; the Deferred succeeds when the process is gone."""
        if self._starting is not None and self._starting.active():
            self._starting.cancel()
        done: Deferred[None] = Deferred()
        self._stopping = done
        if self._transport is None:
            done.callback(None)
            return done
        self.send_signal("TERM")
        killing = self._supervisor.call_later(patience, self.send_signal, "KILL")

        def exited(_: None) -> None:
            if killing.active():
                killing.cancel()

        return done.addCallback(exited)

    def send_signal(self, name: str) -> None:
        """Send a signal to the process, if there is one."""
        if self._transport is not None:
            with suppress(ProcessExitedAlready):
                self._transport.signalProcess(getattr(signal, f"SIG{name}"))


class _WorkerProcess(ProcessProtocol):
    """Writes what a worker logs, one event in JSON a line, to the log of this process."""

    def __init__(self, worker: _Worker, number: int) -> None:
        self._worker = worker
        self._number = number
        self._beginnings = {1: b"", 2: b""}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        lines = (self._beginnings[childFD] + data).split(b"\n")
        self._beginnings[childFD] = lines.pop()[-_LINE_SIZE:]
        for line in lines:
            self._relay(line)

    def processEnded(self, reason: Failure) -> None:
        for line in self._beginnings.values():
            if line:
                self._relay(line)
        self._worker.exited(reason)

    def _relay(self, line: bytes) -> None:
        try:
            told = json.loads(line)
            event = {
                "log_level": LogLevel.levelWithName(told["level"]),
                "log_system": f"worker {self._number}, {told['namespace']}#{told['level']}",
                "log_namespace": __name__,
                "log_time": float(told["time"]),
                "log_format": "{text}",
                "text": str(told["text"]),
            }
        except (ValueError, LookupError, TypeError, InvalidLogLevelError):
            _log.warn("worker {number}: {line}", number=self._number, line=line.decode("utf-8", "backslashreplace"))
        else:
            globalLogPublisher(event)
