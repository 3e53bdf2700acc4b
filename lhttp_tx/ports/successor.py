"""
A connection of the process that takes over, as the running process sees it.

A part of :mod:`lhttp_tx.ports.takeover`, which describes the lines.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any, Protocol

from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

__all__ = ["MAX_LINE", "MAX_SOCKETS", "Giver", "Successor"]

_log = Logger()

MAX_SOCKETS = 250
"""The most sockets that one process hands over. Linux passes at most 253 at a time."""

MAX_LINE = 65_536
"""The most bytes of a line."""


class Giver(Protocol):
    """Has the sockets of the running process: :class:`lhttp_tx.ports.takeover.Takeover`."""

    @property
    def successor(self) -> Successor | None:
        """The connection of the process that has taken the sockets."""

    @property
    def can_wait(self) -> bool:
        """Whether this process can stop its server, and start it again if the other process does not serve."""

    def reserve(self, successor: Successor) -> bool:
        """Let *successor* take the sockets. Return whether it may."""

    def open_ports(self) -> list[tuple[str, IListeningPort]]:
        """Return the ports that can be handed over, with their descriptions."""

    def give(self, successor: Successor, *, now: bool, wait: bool = False) -> None:
        """Leave the sockets to *successor*, and stop."""

    def serves(self, successor: Successor) -> None:
        """End, because *successor* serves."""

    def hung_up(self, successor: Successor) -> None:
        """Note that *successor* has disconnected."""


class Successor(LineOnlyReceiver):
    """
    A connection of the next process.

    :ivar pid: the number of the process; 0 if the system does not tell it.
    """

    delimiter = b"\n"
    MAX_LENGTH = MAX_LINE

    def __init__(self, takeover: Giver) -> None:
        self._takeover = takeover
        self.pid = 0

    def connectionMade(self) -> None:
        """Refuse other users. The mode of the socket refuses them, too."""
        transport: Any = self.transport
        if not hasattr(socket, "SO_PEERCRED"):
            return
        size = struct.calcsize("3i")
        self.pid, user, _ = struct.unpack(
            "3i", transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
        if user not in (0, os.geteuid()):
            _log.error("--upgrade: user {user} may not take over", user=user)
            transport.abortConnection()

    def lineReceived(self, line: bytes) -> None:
        """Take a line from the next process, and do what it asks."""
        transport: Any = self.transport
        try:
            order = json.loads(line)
            if not isinstance(order, dict):
                raise ValueError("not an object")
        except ValueError:
            transport.loseConnection()
            return
        if order.get("take") == 1:
            if not self._takeover.reserve(self):
                if self._takeover.successor is not None:
                    transport.write(b'{"busy": %d}\n' % self._takeover.successor.pid)
                transport.loseConnection()
                return
            ports = self._takeover.open_ports()[:MAX_SOCKETS]
            for _, port in ports:
                transport.sendFileDescriptor(port.fileno())  # type: ignore[attr-defined]
                transport.write(b" ")
            names = [name for name, _ in ports]
            answer = {"sockets": names, "pid": os.getpid(), "waits": self._takeover.can_wait}
            transport.write(json.dumps(answer).encode("ascii") + b"\n")
        elif order.get("go") in ("now", "soon"):
            pid = order.get("pid")
            self.pid = pid if isinstance(pid, int) else self.pid  # a daemon has another number than who has connected
            self._takeover.give(self, now=order["go"] == "now", wait=order.get("wait") is True)
        elif "serving" in order:
            self._takeover.serves(self)
        else:
            transport.loseConnection()

    def tell_stopped(self) -> None:
        """Tell the next process that the server has stopped."""
        transport: Any = self.transport
        transport.write(b'{"stopped": %d}\n' % os.getpid())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let other processes take over."""
        self._takeover.hung_up(self)
