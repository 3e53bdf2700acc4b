"""
Lets a new process replace a running one, on the same listening sockets.

:mod:`lhttp_tx.twistd.upgrade` decides when.

Each server with ``--upgrade PATH`` listens at the UNIX socket *PATH*. A server that is started with the same path
connects there, gets the listening sockets of the running server, and tells it to stop. No connection is refused in the
meantime. Clients that connect wait in the queues of the sockets, which the two processes share.

There are two ways:

- If both processes can serve together, because they share channels and history through NATS, the new one starts first.
  If its start fails, the running one continues. Otherwise the running one closes its connections within
  ``--drain-time``, without ``--drain-delay``.
- If they cannot, because channels or history are in the memory or in a file of one process, the new one opens its
  ports, but does not accept connections. Then it tells the running one to stop, and waits until that one has stopped.
  The process of the running one waits until the new one serves. If the new one ends before that, the running one opens
  its sockets and serves again.

At *PATH*, the processes send each other lines of JSON. The new process sends ``{"take": 1}``. The running one answers
with one byte for each socket, which carries its descriptor, and ``{"sockets": [DESCRIPTION, ...], "pid": PID, "waits":
true}``. The new one sends ``{"go": "soon", "pid": PID}`` or ``{"go": "now", "pid": PID, "wait": true}``. If it
disconnects before that, the running one continues. With ``wait``, the running one sends ``{"stopped": PID}`` when it
has stopped, and the new one sends ``{"serving": PID}`` when it has started. Without ``wait``, the running one ends when
it has stopped. Versions that do not know ``wait`` do the same.
Meanwhile the running one answers other processes with ``{"busy": PID}``, so that only one process can replace it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from lhttp_tx.observe.reasons import reason_of
from lhttp_tx.ports.listening import accept
from lhttp_tx.ports.sockets import UNIXRights, adopt, give_away, is_unix, lock_again
from lhttp_tx.ports.successor import MAX_LINE, MAX_SOCKETS, Successor
from lhttp_tx.ports.taken import MakeEndpoint, Taken, TakeoverFailed, Watched, check_takeover, receive, remove

__all__ = ["MakeEndpoint", "Takeover", "TakeoverFailed"]

_log = Logger()

_ANSWER_TIMEOUT = 10.0
"""Seconds in which the running server must hand over its sockets."""


class Takeover(Service):
    """Takes the listening sockets of the running server. Later, gives them to the next one."""

    def __init__(
        self,
        path: str,
        reactor: Any,
        *,
        replaced: Callable[[bool], None],
        pause: Callable[[], Deferred[Any]] | None = None,
        resume: Callable[[], None] = lambda: None,
        patience: float = 0.0,
        owners: Collection[int] = (),
        rights: UNIXRights = UNIXRights(),  # noqa: B008 - it is frozen
    ) -> None:
        """
        :param path: the UNIX socket at which one process waits for the next.
        :param reactor: the running reactor.
        :param replaced: called when another process has the sockets and this one must stop. Its argument is whether to
            close all clients at once.
        :param pause: stops the server, but not the process, because another process has the sockets. It returns a
            Deferred that succeeds when the server has stopped. ``None``: only the process can stop.
        :param resume: starts the server again, because the other process has ended before it served.
        :param patience: 0: both processes can serve together. Otherwise the other one must end before this one starts.
            If it takes longer than this many seconds, the log says so each time that they have passed.
        :param owners: the users, besides root and the user of this process, that the other server may run as.
        :param rights: the rights of this server's UNIX sockets.
        """
        self._path = Path(path)
        self._reactor = reactor
        self._replaced = replaced
        self._pause = pause
        self._resume = resume
        self._patience = patience
        self._owners = {0, os.geteuid(), *owners}
        self._rights = rights
        self._running: socket.socket | None = None
        self._running_pid: object = None
        self._running_waits = self._previous_waits = False
        self._taken = Taken(self._be_alone)
        self._ports: list[tuple[str, IListeningPort]] = []
        self._files: list[tuple[str, Path]] = []
        self._made: tuple[int, int] | None = None
        self._port: IListeningPort | None = None
        self._given = self._in_charge = False
        self._waits = self._has_paused = False
        self._successor: Successor | None = None

    # The new process

    def take(self) -> None:
        """
        Take the sockets of the server that listens at the path, if there is one. It continues until :meth:`go`.

        This blocks for at most :data:`_ANSWER_TIMEOUT` seconds.

        :raises TakeoverFailed: if something is there that is not such a server, or belongs to another user.
        """
        if not check_takeover(self._path, self._owners):
            return
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(_ANSWER_TIMEOUT)
        try:
            sock.connect(str(self._path))
        except (ConnectionRefusedError, FileNotFoundError):
            sock.close()  # the server is gone
            return
        except OSError as error:
            sock.close()
            raise TakeoverFailed(f"{self._path}: {error.strerror or error}") from None
        try:
            sock.sendall(b'{"take": 1}\n')
            descriptors, answer = receive(sock, time_limit=_ANSWER_TIMEOUT, most=MAX_SOCKETS, max_line=MAX_LINE)
            if "busy" in answer:
                other = answer["busy"]
                raise TakeoverFailed(f"process {other} takes over at {self._path} already; wait for it, or stop it")
            names = answer["sockets"]
            if len(names) != len(descriptors):
                raise ValueError(f"{len(names)} sockets were announced, {len(descriptors)} came")
        except TakeoverFailed:
            sock.close()
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            sock.close()
            raise TakeoverFailed(f"the server at {self._path} does not hand over its sockets: {error}") from None
        for name, descriptor in zip(names, descriptors, strict=True):
            self._taken.add(name, descriptor)
        self._running, self._running_pid = sock, answer.get("pid")
        self._running_waits = answer.get("waits") is True
        _log.info("taking over from process {pid}: {count} sockets", pid=answer.get("pid"), count=len(names))

    def privilegedStartService(self) -> None:
        """
        If only one process can serve, tell the other server to stop, and wait for its end.

        All ports of this process must be open. If it cannot open them, the other server continues.
        """
        if self._patience:
            self.go(wait=True)

    def go(self, *, wait: bool = False) -> None:
        """
        Tell the other server to stop, if there is one.

        If both can serve together, the other server closes its clients within ``--drain-time``. Otherwise it closes
        them now, and this call blocks until it has stopped, however long that takes: this process could not serve
        before that.

        :param wait: the process of the other server need not end. It waits until this one serves, or ends. Then the
            next call tells it to end.
        """
        sock, self._running = self._running, None
        if sock is None:
            return
        patience, wait = self._patience, wait and self._running_waits
        order = {"go": "now" if patience else "soon", "pid": os.getpid(), **({"wait": True} if wait else {})}
        if self._previous_waits:
            order = {"serving": os.getpid()}
            patience = 0.0
        try:
            sock.sendall(json.dumps(order).encode("ascii") + b"\n")
            if patience and self._has_stopped(sock, patience):
                self._previous_waits, self._running = True, sock
                return
        except OSError:  # it is gone, so all is well
            pass
        sock.close()

    def _has_stopped(self, sock: socket.socket, patience: float) -> bool:
        """Wait until the other server has stopped. Return whether its process still runs."""
        begin = time.monotonic()
        sock.settimeout(patience)
        while True:
            try:
                return bool(sock.recv(1))
            except TimeoutError:
                seconds = round(time.monotonic() - begin)
                _log.warn(
                    "the previous server has not ended after {seconds} s; clients wait until process {pid} ends",
                    seconds=seconds,
                    pid=self._running_pid,
                )

    def _be_alone(self) -> bool:
        """Return whether no other process needs the sockets. If only one can serve, stop the other one first."""
        if self._patience:
            self.go()
        return self._running is None

    # Its endpoints

    def maker(self, make_endpoint: MakeEndpoint) -> MakeEndpoint:
        """
        Return a function that makes the same endpoints as *make_endpoint*, on taken sockets where some fit; see
        :meth:`lhttp_tx.ports.taken.Taken.maker`.

        Wrap the innermost maker of endpoints with it. Wrap the outermost one with :meth:`watcher`.
        """
        return self._taken.maker(make_endpoint)

    def watcher(self, make_endpoint: MakeEndpoint) -> MakeEndpoint:
        """Return a function that makes the same endpoints. Their ports can be handed over to the next process."""
        return lambda reactor, description: Watched(make_endpoint(reactor, description), description, self._listens)

    def _listens(self, description: str, port: IListeningPort) -> None:
        self._ports.append((description, port))
        if description in self._taken.adopted and is_unix(description):
            name = port.getHost().name  # type: ignore[attr-defined]
            if name and not name.startswith((b"\0", "\0")[isinstance(name, str)]):
                self._files.append((description, Path(os.fsdecode(name))))

    # The running process

    def started(self) -> None:
        """
        Wait for the next process, and tell the other server to stop, if there is one.

        The other server removes its file at the path when it stops, unless the file of this process is already there.
        """
        self._taken.close_rest()
        self._in_charge = True
        self._own_files()
        self._wait_for_next()
        self.go()

    def _own_files(self) -> None:
        for description, path in self._files:
            lock_again(path)
            self._rights.renew(description, path)

    def _wait_for_next(self) -> None:
        unnamed = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        factory: Any = Factory.forProtocol(lambda: Successor(self))
        factory.noisy = False
        sock = socket.socket(socket.AF_UNIX)
        try:
            with suppress(FileNotFoundError):
                unnamed.unlink()
            before = os.umask(0o177)
            try:
                sock.bind(str(unnamed))
            finally:
                os.umask(before)
            sock.setblocking(False)
            sock.listen(8)
            self._made = _identity(unnamed)
            self._port = adopt(self._reactor, sock.fileno(), socket.AF_UNIX, factory)
            unnamed.rename(self._path)
        except OSError as error:
            _log.error("--upgrade {path}: no process can take over: {why}", path=str(self._path), why=reason_of(error))
        finally:
            sock.close()

    def stopService(self) -> Deferred[None]:
        """
        Stop waiting for the next process. If no other process has the sockets, remove the files of the taken ones.

        If a process that has not started yet has them, leave the files to it: it will need them.

        If this process did not start, the other one continues. If that one has stopped, it starts again when the
        process of this one has ended: until then, this one may still have the file of the history.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._successor is not None:
            self._leave()
        port, self._port = self._port, None
        with suppress(OSError):
            if _identity(self._path) == self._made:
                self._path.unlink()
        if self._in_charge and not self._given:
            self._reactor.addSystemEventTrigger("after", "shutdown", self._remove_files)
        if self._running is not None and not self._previous_waits:  # the other one continues
            self._running.close()
            self._running = None
        return maybeDeferred(lambda: None if port is None else port.stopListening()).addCallback(lambda _: None)

    def _remove_files(self) -> None:
        for _, path in self._files:
            remove(path)

    def open_ports(self) -> list[tuple[str, IListeningPort]]:
        """Return the ports that can be handed over, with their descriptions."""
        return [(name, port) for name, port in self._ports if getattr(port, "connected", False)]

    @property
    def successor(self) -> Successor | None:
        """The connection of the process that has taken the sockets, whether or not it has told this one to stop."""
        return self._successor

    @property
    def can_wait(self) -> bool:
        """Whether this process can stop its server, and start it again if the other process does not serve."""
        return self._pause is not None

    def reserve(self, successor: Successor) -> bool:
        """
        Let *successor* take the sockets, and no other process until it disconnects.

        :returns: whether it may take them: this process is not stopping, and no other process takes them.
        """
        if self._successor is not None or self._given or not self.running:
            return False
        self._successor = successor
        return True

    def hung_up(self, successor: Successor) -> None:
        """
        Let other processes take the sockets, unless *successor* already has them for good.

        If the server was stopped for it, start the server again.
        """
        if self._successor is not successor or (self._given and not self._waits):
            return
        self._successor = None
        if self._has_paused:
            self._go_on()

    def give(self, successor: Successor, *, now: bool, wait: bool = False) -> None:
        """
        Leave the sockets to *successor*, and stop this process.

        :param now: whether to close all clients at once.
        :param wait: whether only the server stops. The process ends when *successor* serves.
        """
        if self._given or successor is not self._successor:
            return
        if wait and self._pause is not None:
            self._waits = True
            for description, port in self.open_ports():
                self._taken.add(description, os.dup(port.fileno()))  # type: ignore[attr-defined]
            accept(self._leave(), False)
            _log.info("process {pid} has taken over: stopping", pid=successor.pid)
            self._pause().addCallback(self._paused)
            return
        accept(self._leave(), False)
        _log.info("process {pid} has taken over: stopping", pid=successor.pid)
        self._replaced(now)

    def _paused(self, _: object) -> None:
        self._has_paused = True
        if self._successor is None:
            self._go_on()
        else:
            self._successor.tell_stopped()

    def serves(self, successor: Successor) -> None:
        """End this process, because *successor* serves."""
        if successor is self._successor and self._has_paused:
            self._waits = False
            _log.info("process {pid} serves: ending", pid=successor.pid)
            self._replaced(True)

    def _go_on(self) -> None:
        """Serve again, because the process that has taken the sockets has ended."""
        if not self.running:  # so does this one
            return
        self._given = self._waits = self._has_paused = False
        self._ports, self._files = [], []
        _log.error("the process that took over has ended before it served: serving again")
        self._resume()
        self._own_files()

    def _leave(self) -> list[IListeningPort]:
        """Leave the sockets to the other process. Return their ports."""
        self._given = True
        ports = [port for _, port in self.open_ports()]
        for port in ports:
            give_away(port)
        return ports


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells the file at *path* from others. The number of a removed file may be that of the next one."""
    found = path.lstat()
    return found.st_ino, found.st_mtime_ns
