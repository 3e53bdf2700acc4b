"""
Several processes on one port: the service that starts them, watches them, and writes their log.

The supervisor opens the sockets, and never accepts connections. Each worker (:mod:`lhttp_tx.twistd.worker`) gets the
sockets, and accepts connections itself. The sockets stay open when a worker dies, so no client is refused meanwhile.
Workers share their channels through NATS, like nodes on different machines.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IStreamServerEndpoint
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.ports.listening import close_now, listen_now
from lhttp_tx.twistd.broker import Broker
from lhttp_tx.twistd.notify import Notifier
from lhttp_tx.twistd.post import Post
from lhttp_tx.twistd.relay import WorkerProcess
from lhttp_tx.twistd.signals import deferred_signals
from lhttp_tx.twistd.watchdog import PULSE_DESCRIPTOR, TRACEBACK_SIGNAL, Watchdog, process_state

__all__ = ["FIRST_DESCRIPTOR", "Supervisor"]

_log = Logger()

FIRST_DESCRIPTOR = PULSE_DESCRIPTOR + 1
"""The file descriptor of the first listening socket in a worker. The others follow."""

_STEADY = 10.0
"""Seconds after which a start counts as successful. If the worker dies later, the next one starts at once."""

_FIRST_WAIT, _LAST_WAIT = 0.5, 30.0
"""
The first and the longest wait before a worker that died early is started again, in seconds. The wait doubles each time.
"""

_PATIENCE = 2.0
"""Seconds within which a worker must exit, in addition to its own time limits."""

_TRACEBACK_TIME = 1.0
"""Seconds within which a hanging worker can write its traceback, before it is killed."""


class Supervisor(Service):
    """Keeps a number of workers running."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        reactor: Any,
        listen: Iterable[str],
        for_first: Iterable[str] = (),
        count: int,
        directory: str,
        exit_timeout: float,
        hang_timeout: float = 0.0,
        broker: Broker | None = None,
        make_endpoint: Callable[[Any, str], IStreamServerEndpoint] = serverFromString,
    ) -> None:
        """
        :param arguments: the command line of ``twistd lhttp``, for each worker to read again.
        :param reactor: the running reactor.
        :param listen: endpoint descriptions. Each worker must get the same ones from its options.
        :param for_first: endpoint descriptions of sockets that only the first worker gets, after the others.
        :param count: the number of workers.
        :param directory: the working directory of workers.
        :param exit_timeout: the most seconds that a worker takes to exit after SIGTERM.
        :param hang_timeout: the seconds without a heartbeat after which a worker is killed and replaced; 0: never.
        :param broker: the nats-server of the workers, which starts before them and stops after them; ``None``: they use
            a NATS that the operator runs.
        :param make_endpoint: takes the reactor and a description, and returns the endpoint.
        """
        self._reactor = reactor
        self._arguments = list(arguments)
        self._shared = tuple(listen)
        self._descriptions = *self._shared, *for_first
        self._group = secrets.token_hex(8)
        self._count = count
        self._make_endpoint = make_endpoint
        self._directory = directory
        self._patience = exit_timeout + _PATIENCE
        self._hang_timeout = hang_timeout
        self._broker = broker
        self._ports: list[Any] = []
        self._stopping: Deferred[None] | None = None
        self._unstarted = set(range(1, count + 1))
        self._awaiting: list[Deferred[None]] = []
        self._workers = [_Worker(self, number) for number in range(1, count + 1)]

    def privilegedStartService(self) -> None:
        """
        Open the sockets, while the process may still bind low ports.

        :raises CannotListenError: if an endpoint cannot listen.
        """
        if self._ports or self._stopping is not None:
            return
        for description in self._descriptions:
            endpoint = self._make_endpoint(self._reactor, description)
            try:
                port: Any = listen_now(endpoint, _Nobody(), description)
            except Exception:
                self._close_ports(close_now)
                raise
            port.stopReading()
            # When the port closes, Twisted would shut the socket down, also for the workers.
            port._shouldShutdown = False
            self._ports.append(port)

    def _close_ports(self, close: Callable[[Any], Any]) -> Deferred[Any]:
        ports, self._ports = self._ports, []
        return DeferredList([maybeDeferred(close, port) for port in ports], consumeErrors=True)

    def startService(self) -> None:
        """
        Start the workers. If earlier workers are still stopping, start when they have stopped.

        :raises CannotListenError: if an endpoint cannot listen; then nothing runs.
        """
        if self.running:
            return
        self.privilegedStartService()
        super().startService()
        if self._stopping is None:
            self._start_workers()

    def _start_workers(self) -> None:
        if self._broker is None:
            self._start_all(None)
        else:
            self._broker.start().addCallback(self._start_all)

    def _start_all(self, _: None) -> None:
        if not self.running or self._stopping is not None:
            return
        _log.info("starting {count} workers", count=len(self._workers))
        for worker in self._workers:
            worker.start()

    def stopService(self) -> Deferred[None]:
        """
        Close the sockets, and let every worker finish, as on SIGTERM.

        :returns: a Deferred that succeeds when all workers have exited.
        """
        super().stopService()
        done: Deferred[None] = Deferred()
        if self._stopping is not None:
            self._stopping.addCallback(done.callback)
            return done
        stopping = self._stopping = Deferred()
        stopping.addCallback(done.callback)
        closing = [
            self._close_ports(lambda port: port.stopListening()),
            *(worker.stop(self._patience) for worker in self._workers),
        ]
        ended = DeferredList(closing, consumeErrors=True)
        broker = self._broker
        if broker is not None:
            ended.addCallback(lambda _: broker.stop())
        ended.addCallback(self._stopped, stopping)
        return done

    def _stopped(self, _: object, stopping: Deferred[None]) -> None:
        self._stopping = None
        if self.running:
            try:
                self.privilegedStartService()
            except Exception:  # the log has the error
                super().stopService()
            else:
                self._start_workers()
        stopping.callback(None)

    def when_started(self) -> Deferred[None]:
        """Return a Deferred that succeeds when every worker has started once."""
        if not self._unstarted:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._awaiting.append(waiting)
        return waiting

    def has_started(self, number: int) -> None:
        """Called when the worker with this number has started."""
        self._unstarted.discard(number)
        if not self._unstarted:
            waiting, self._awaiting = self._awaiting, []
            for each in waiting:
                each.callback(None)

    def hurry(self) -> bool:
        """
        Let stopping workers close all connections at once. Return whether the service is stopping.

        This sends SIGQUIT. Workers ignore a second SIGTERM, because ``systemctl kill`` sends it to all processes.
        """
        if self._stopping is not None:
            self.send_signal("QUIT")
        return self._stopping is not None

    def send_signal(self, name: str) -> None:
        """Send every worker the signal *name*, such as ``HUP``."""
        for worker in self._workers:
            worker.send_signal(name)

    def spawn(self, protocol: ProcessProtocol, number: int) -> Any:
        """Start the process of a worker, and return its transport."""
        descriptors: dict[int, int | str] = {0: "w", 1: "r", 2: "r", PULSE_DESCRIPTOR: "r"}
        ports = self._ports if number == 1 else self._ports[: len(self._shared)]
        for place, port in enumerate(ports, FIRST_DESCRIPTOR):
            descriptors[place] = port.fileno()
        more = {} if self._broker is None else self._broker.environment
        with deferred_signals():
            return self._reactor.spawnProcess(
                protocol,
                sys.executable,
                [sys.executable, "-m", "lhttp_tx.twistd.worker", *self._arguments],
                env={
                    **Notifier.without(os.environ),
                    **more,
                    Post.VARIABLE: str(Post(number, self._count, self._group)),
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                },
                path=self._directory,
                childFDs=descriptors,
            )

    def watch(self, call: Callable[[float | None], None], pid: int) -> Watchdog | None:
        """
        Return a watchdog for the process *pid*; ``None`` if workers may hang.

        :param call: see :class:`lhttp_tx.twistd.watchdog.Watchdog`.
        """
        if not self._hang_timeout:
            return None
        return Watchdog(self._reactor, self._hang_timeout, call, cpu=lambda: process_state(pid)[1])

    def call_later(self, seconds: float, call: Any, *arguments: Any) -> IDelayedCall:
        """Call *call* after *seconds*."""
        delayed: IDelayedCall = self._reactor.callLater(seconds, call, *arguments)
        return delayed

    def seconds(self) -> float:
        """Return the reactor's time, in seconds."""
        now: float = self._reactor.seconds()
        return now


class _Nobody(Factory):
    """The factory of a port that never accepts connections."""

    noisy = False


class _Worker:
    """One worker. If its process dies, another process replaces it."""

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self._supervisor = supervisor
        self._number = number
        self._transport: Any = None
        self._started = 0.0
        self._wait = _FIRST_WAIT
        self._watchdog: Watchdog | None = None
        self._starting: IDelayedCall | None = None
        self._stopping: Deferred[None] | None = None

    def start(self) -> None:
        self._starting = self._stopping = None
        self._started = self._supervisor.seconds()
        self._transport = self._supervisor.spawn(WorkerProcess(self, self._number), self._number)
        self._watchdog = self._supervisor.watch(self._hangs, self._transport.pid)

    def alive(self) -> None:
        """Called when the process has sent a heartbeat."""
        if self._watchdog is not None:
            self._watchdog.alive()

    def _unwatch(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()

    def _hangs(self, cpu: float | None) -> None:
        """Log the state of a process that hangs, and kill it."""
        watchdog, pid = self._watchdog, self._transport.pid
        _log.error(
            "worker {number} hangs: no heartbeat for {seconds:g} s. Its process {pid} is {state}"
            " and used {cpu} s of CPU time meanwhile. It is killed and replaced",
            number=self._number,
            seconds=0.0 if watchdog is None else watchdog.silent,
            pid=pid,
            state=process_state(pid)[0],
            cpu="an unknown number of" if cpu is None else f"{cpu:.1f}",
        )
        if TRACEBACK_SIGNAL is not None:
            self._signal(TRACEBACK_SIGNAL)
        self._supervisor.call_later(_TRACEBACK_TIME, self._kill, self._transport)

    def _kill(self, transport: Any) -> None:
        if transport is self._transport:
            self.send_signal("KILL")

    def has_started(self) -> None:
        """Called when the process accepts connections."""
        self._supervisor.has_started(self._number)

    def exited(self, reason: Failure) -> None:
        """Called when the process has exited."""
        self._unwatch()
        self._transport = None
        if self._stopping is not None:
            self._stopping.callback(None)
            return
        if self._supervisor.seconds() - self._started >= _STEADY:
            wait, self._wait = 0.0, _FIRST_WAIT
        else:
            wait, self._wait = self._wait, min(self._wait * 2, _LAST_WAIT)
        _log.error(
            "worker {number} died, restarting in {wait:g} s: {why}",
            number=self._number,
            wait=wait,
            why=reason.getErrorMessage(),
        )
        self._starting = self._supervisor.call_later(wait, self.start)

    def stop(self, patience: float) -> Deferred[None]:
        """Send SIGTERM, and SIGKILL after *patience* seconds. The Deferred succeeds when the process has exited."""
        if self._starting is not None and self._starting.active():
            self._starting.cancel()
        self._unwatch()
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
        self._signal(getattr(signal, f"SIG{name}"))

    def _signal(self, number: int) -> None:
        if self._transport is not None:
            with suppress(ProcessExitedAlready):
                self._transport.signalProcess(number)
