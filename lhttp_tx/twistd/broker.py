"""
The nats-server of ``--workers`` without ``--nats``: the supervisor starts it, watches it, and stops it last.

It listens on a free port of the loopback interface, and accepts only clients that know a secret. The secret is new for
each start of the supervisor. It is in files that only this user can read. Workers get the address, and the name of the
file, in their environment. Used by :mod:`lhttp_tx.twistd.supervisor`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ClientFactory, ProcessProtocol, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.twistd.signals import deferred_signals
from lhttp_tx.twistd.watchdog import Watchdog, process_state

__all__ = ["Broker", "BrokerSettings", "find_server"]

_log = Logger()

_NAME = "nats-server"

_FIRST_WAIT, _LAST_WAIT = 0.1, 10.0
"""The first and the longest wait before a server that died is started again, in seconds. The wait doubles each time."""

_STEADY = 10.0
"""Seconds after which a start counts as successful."""

_PATIENCE = 10.0
"""Seconds within which the server must stop."""

_LOOK = 2.0
"""Seconds between two liveness checks of the server, and the time limit of each."""

_LINE_SIZE = 16_384
"""The most bytes of one line of its log."""

_OVERHEAD = 4_096
"""The most bytes that NATS needs for a message in addition to the message itself."""

_END_WITH_PARENT = """
import os, signal, sys
parent, *command = sys.argv[1:]
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
except (AttributeError, OSError):
    pass
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""
"""
A program that becomes the server. If the system has PR_SET_PDEATHSIG (prctl(2)), it ends when the supervisor dies.
"""


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """
    The settings of the nats-server.

    :ivar program: the path of its program.
    :ivar directory: the directory of JetStream; ``None``: no JetStream, unless *in_memory*.
    :ivar in_memory: whether JetStream keeps everything in memory.
    :ivar message_size: the most bytes of a client's message.
    """

    program: str
    directory: str | None = None
    in_memory: bool = False
    message_size: int = 65_536


def find_server() -> str | None:
    """Return the path of the program ``nats-server``: the one of this Python environment, or one of ``PATH``."""
    return shutil.which(_NAME, path=sysconfig.get_path("scripts")) or shutil.which(_NAME)


class Broker:
    """Keeps a nats-server running."""

    def __init__(self, settings: BrokerSettings, *, reactor: Any, hang_timeout: float) -> None:
        """
        :param settings: the settings of the nats-server.
        :param reactor: the running reactor.
        :param hang_timeout: seconds without an answer after which it is killed and started again; 0: never.
        """
        self._settings = settings
        self._reactor = reactor
        self._hang_timeout = hang_timeout
        self._home: Path | None = None
        self._port = 0
        self._ready: Deferred[None] | None = None
        self._was_ready = False
        self._transport: Any = None
        self._started = 0.0
        self._wait = _FIRST_WAIT
        self._timers: dict[str, IDelayedCall] = {}
        self._watchdog: Watchdog | None = None
        self._visit: Any = None
        self._stopping: Deferred[None] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which a worker finds the server."""
        return {
            "LHTTP_NATS": f"nats://127.0.0.1:{self._port}",
            "LHTTP_NATS_USER": "lhttp",
            "LHTTP_NATS_PASSWORD_FILE": str(self._place("password")),
        }

    def start(self) -> Deferred[None]:
        """
        Start the server.

        :returns: a Deferred that succeeds when the server accepts connections.
        """
        self._home = Path(tempfile.mkdtemp(prefix="lhttp-nats-"))  # no other user can enter it
        self._ready, self._was_ready, self._stopping, self._port = Deferred(), False, None, 0
        ready = self._ready
        self._place("password").write_text(secrets.token_hex(32), encoding="ascii")
        self._place("password").chmod(0o600)
        self._spawn()
        return ready

    def stop(self) -> Deferred[None]:
        """Stop the server. The Deferred succeeds when it has exited."""
        done = self._stopping = Deferred()
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self._unwatch()
        if self._transport is None:
            self._gone()
        else:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)
            self._later("kill", _PATIENCE, self._signal, signal.SIGKILL)
        return done

    def is_ready(self) -> None:
        """Called when the server logs that it accepts connections."""
        self._was_ready = True
        ready, self._ready = self._ready, None
        if self._hang_timeout and self._watchdog is None and self._stopping is None:
            pid = self._transport.pid
            self._watchdog = Watchdog(self._reactor, self._hang_timeout, self._hangs, cpu=lambda: process_state(pid)[1])
            self._watchdog.alive()
            self._look()
        if ready is not None:
            _log.info("the workers share their channels through a nats-server of their own")
            ready.callback(None)

    def exited(self, reason: Failure) -> None:
        """Called when the server has exited. Start it again, unless it was stopped."""
        self._transport = None
        self._unwatch()
        if self._stopping is not None:
            self._gone()
            return
        if not self._was_ready:
            self._port = 0  # another program may have the port now
        if self._reactor.seconds() - self._started >= _STEADY:
            self._wait = _FIRST_WAIT
        wait, self._wait = self._wait, min(self._wait * 2, _LAST_WAIT)
        why = reason.getErrorMessage()
        _log.error("the nats-server of the workers died, restarting in {wait:g} s: {why}", wait=wait, why=why)
        self._later("start", wait, self._spawn)

    def _spawn(self) -> None:
        if not self._port:
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                self._port = sock.getsockname()[1]
        self._place("nats.conf").write_text(self._configuration(), encoding="utf-8")
        self._place("nats.conf").chmod(0o600)
        self._started = self._reactor.seconds()
        command = [self._settings.program, "-c", str(self._place("nats.conf"))]
        with deferred_signals():
            self._transport = self._reactor.spawnProcess(
                _Process(self),
                sys.executable,
                [sys.executable, "-c", _END_WITH_PARENT, str(os.getpid()), *command],
                env=dict(os.environ),
                path=str(self._home),
            )

    def _configuration(self) -> str:
        """Return the contents of the server's configuration file. A string in JSON is also a string there."""
        settings = self._settings
        size = max(1_048_576, 2 * settings.message_size) + _OVERHEAD
        lines = [
            f'listen: "127.0.0.1:{self._port}"',
            "server_name: lhttp_workers",
            f'authorization {{ user: "lhttp", password: "{self._place("password").read_text("ascii")}" }}',
            f"max_payload: {size}",
            f"max_pending: {max(67_108_864, 4 * size)}",
            'write_deadline: "10s"',
        ]
        if settings.directory is not None or settings.in_memory:
            directory = str(self._place("jetstream")) if settings.directory is None else settings.directory
            lines.append(f"jetstream {{ store_dir: {json.dumps(directory)} }}")
        return "\n".join([*lines, ""])

    def _place(self, name: str) -> Path:
        assert self._home is not None
        return self._home / name

    def _look(self) -> None:
        """Check whether the server answers: it sends a greeting on each new connection."""
        if self._watchdog is not None:
            if self._visit is not None:
                self._visit.disconnect()  # no answer to the last one
            self._visit = self._reactor.connectTCP("127.0.0.1", self._port, _Visit(self._watchdog.alive), timeout=_LOOK)
            self._later("look", _LOOK, self._look)

    def _hangs(self, cpu: float | None) -> None:
        state = "unknown" if self._transport is None else process_state(self._transport.pid)[0]
        _log.error("the nats-server of the workers hangs: its process is {state}. It is killed", state=state)
        self._signal(signal.SIGKILL)

    def _unwatch(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None
        if self._visit is not None:
            self._visit.disconnect()
            self._visit = None

    def _signal(self, number: int) -> None:
        if self._transport is not None:
            with suppress(ProcessExitedAlready):
                self._transport.signalProcess(number)

    def _gone(self) -> None:
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
        if self._stopping is not None and not self._stopping.called:
            self._stopping.callback(None)

    def _later(self, name: str, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        self._timers[name] = self._reactor.callLater(seconds, call, *arguments)


class _Process(ProcessProtocol):
    """The log of the server. Lines about errors go to the log of this process."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._beginning = b""

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        lines = (self._beginning + data).split(b"\n")
        self._beginning = lines.pop()[-_LINE_SIZE:]
        for line in lines:
            if b"] Server is ready" in line:
                self._broker.is_ready()
            elif b"[ERR]" in line or b"[FTL]" in line or b"nats-server: " in line:
                _log.warn("nats-server: {line}", line=line.decode("utf-8", "backslashreplace"))

    def processEnded(self, reason: Failure) -> None:
        self._broker.exited(reason)


class _Greeting(Protocol):
    """A connection that waits for the server's greeting, and then closes."""

    def dataReceived(self, data: bytes) -> None:
        visit: Any = self.factory
        visit.came()
        if self.transport is not None:
            self.transport.loseConnection()


class _Visit(ClientFactory):
    """Makes a :class:`_Greeting`."""

    noisy = False
    protocol = _Greeting

    def __init__(self, came: Callable[[], None]) -> None:
        self.came = came
