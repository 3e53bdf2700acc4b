"""A server with everything but sockets, and clients on plain streams."""

from __future__ import annotations

from typing import Any

import txaio
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from lhttp_tx.codec.message import Message, parse
from lhttp_tx.guard.admission import Admission
from lhttp_tx.testing import Server
from lhttp_tx.transports.tcp.factory import TCPFactory
from lhttp_tx.transports.tcp.protocol import TCPProtocol
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory

__all__ = ["Peer", "Stack", "framed", "split"]


def framed(*payloads: bytes) -> bytes:
    """Return messages as they go over the wire."""
    return b"".join(b"%d\n" % len(payload) + payload for payload in payloads)


def split(data: bytes) -> list[bytes]:
    """Return the messages in what came over the wire, heartbeats among them; all must be whole."""
    found = []
    while data:
        digits, feed, data = data.partition(b"\n")
        size = int(digits)
        assert feed
        assert len(data) >= size
        found.append(data[:size])
        data = data[size:]
    return found


class Transport(StringTransport):
    """A transport that does what a TCP connection does where Twisted's own fake does not."""

    ended_writing = aborted = False

    def unregisterProducer(self) -> None:
        self.producer = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def loseWriteConnection(self) -> None:
        self.ended_writing = True

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()


class Peer:
    """
    A client, and what came to it.

    :ivar protocol: the server's side of its connection.
    """

    def __init__(self, stack: Stack, host: str) -> None:
        self.transport: Any = Transport(peerAddress=IPv4Address("TCP", host, 54321))
        self.protocol: TCPProtocol = stack.tcp.buildProtocol(self.transport.getPeer())
        self.protocol.makeConnection(self.transport)

    def send(self, *payloads: bytes) -> None:
        """Send messages."""
        self.protocol.dataReceived(framed(*payloads))

    def say(self, command: str, headers: dict[str, str], body: bytes | str = b"") -> None:
        """Send one message."""
        self.send(Message(command, headers, body, binary=isinstance(body, bytes)).raw)

    def subscribe(self, channel: str) -> None:
        """Subscribe to a channel."""
        self.say("sub", {"subscribe": channel})

    def take(self) -> list[bytes]:
        """Return what came since the last call."""
        data = self.transport.value()
        self.transport.clear()
        return split(data)

    def told(self) -> list[tuple[str, dict[str, str]]]:
        """Return commands and headers of what came since the last call; a heartbeat is an empty command."""
        return [_shown(payload) for payload in self.take()]

    def bodies(self) -> list[bytes]:
        """Return the bodies of what came since the last call."""
        return [parse(payload, binary=True).body for payload in self.take()]

    @property
    def closed(self) -> bool:
        """Whether the server has ended its side."""
        return bool(self.transport.ended_writing or self.transport.disconnecting)

    def end(self) -> None:
        """End the connection."""
        self.protocol.connectionLost(Failure(ConnectionDone()))


def _shown(payload: bytes) -> tuple[str, dict[str, str]]:
    if not payload:
        return "", {}
    message = parse(payload, binary=True)
    return message.command, dict(message.headers)


class Stack:
    """
    A server without sockets.

    :ivar server: its parts.
    :ivar factory: makes its WebSockets.
    :ivar tcp: makes its TCP connections.
    """

    def __init__(
        self,
        *,
        max_connections: int = 100,
        max_per_address: int = 0,
        max_pending: int = 0,
        ping_interval: float = 30.0,
        **options: Any,
    ) -> None:
        """:param options: for :class:`~lhttp_tx.testing.Server`."""
        self.server = Server(**options)
        self.clock = txaio.config.loop = self.server.clock
        self.admission = Admission(self.clock, max_per_address=max_per_address, max_pending=max_pending)
        self.factory = LHTTPServerFactory(
            engine=self.server.engine,
            reactor=self.clock,
            gate=self.server.assembly.gate,
            admission=self.admission,
            max_connections=max_connections,
            ping_interval=ping_interval,
        )
        self.tcp = TCPFactory(self.factory)
        self.tcp._owner.turn = 1e9  # no real clock counts

    def connect(self, host: str = "192.0.2.1") -> Peer:
        """Return a new client."""
        return Peer(self, host)
