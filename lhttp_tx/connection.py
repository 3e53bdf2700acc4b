"""
One WebSocket connection as Autobahn and the transport see it: its beginning, its end, and the flow of bytes between.

The ground floor of the WebSocket edge. What arrives is taken by :mod:`lhttp_tx.opening` and :mod:`lhttp_tx.protocol`,
which stand on it. The Autobahn class has over a hundred inherited names, so what is added here is kept thin.
"""

from __future__ import annotations

from contextlib import suppress
from socket import socket
from typing import Any, Protocol

from autobahn.twisted.util import create_transport_details
from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Server as TCPServer
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.admission import Admission, Place
from lhttp_tx.auth.gate import Gate
from lhttp_tx.encodings import Deflate, Gzip
from lhttp_tx.engine import Engine
from lhttp_tx.handshake import Handshake
from lhttp_tx.outbox import Outbox
from lhttp_tx.timers import ExactTimer

__all__ = ["LEAST_READ", "Connection", "ConnectionOwner"]

_log = Logger()

_OPEN = WebSocketProtocol.STATE_OPEN
_CLOSED = WebSocketProtocol.STATE_CLOSED

_ORDINARY_ENDS = (ConnectionDone, ConnectionLost, ConnectionAborted)
"""Ends of a connection that nobody needs to read about."""

_CONGESTED_SIZE = 65_536
"""What a transport holds at least when it asks to pause: Twisted's buffer size, in bytes."""

_FIRST_READ, LEAST_READ, _LARGEST_READ = 8_192, 512, 65_536
"""Bytes that are taken from a client at a time: at first, at least, and at most, which is what Twisted takes."""

_READ_TIME = 0.005
"""Seconds that handling one read may take; past it, less is taken at a time from that client."""


def _close_reason(text: str) -> bytes:
    """Return as much of *text* as a close frame holds: 123 bytes of whole UTF-8 characters (RFC 6455, section 5.5)."""
    return text.encode("utf-8", "replace")[:123].decode("utf-8", "ignore").encode("utf-8")


def _direct_socket(transport: object) -> socket | None:
    """Return the socket of a plain TCP transport, to be written to while the transport holds nothing; else ``None``."""
    return transport.socket if type(transport) is TCPServer and not transport.TLS else None


def _bottom(transport: Any) -> FileDescriptor | None:
    """Return what buffers the bytes of *transport*, below TLS and other wrappers; ``None`` if that is not known."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport if isinstance(transport, FileDescriptor) else None


class _AutobahnLog:
    """
    What Autobahn logs to: its warnings and errors go to the project's log, the rest nowhere.

    It logs several lines a frame at its lower levels, and computes their arguments whether or not they are written.
    """

    def trace(self, *args: object, **kwargs: object) -> None:
        """Log nothing."""

    debug = info = trace

    def warn(self, format: str, **kwargs: object) -> None:  # noqa: A002 - Autobahn's name
        """Log at the level of information: it is about a client, and there may be many."""
        _log.info(format, **kwargs)

    def error(self, format: str, **kwargs: object) -> None:  # noqa: A002
        """Log an error."""
        _log.error(format, **kwargs)


class ConnectionOwner(Protocol):
    """
    What a connection needs of what has made it; :class:`lhttp_tx.factory.LHTTPServerFactory` is one.

    :ivar admission: counts connections by address.
    :ivar countConnections: how many there are.
    :ivar draining: whether the server is going away.
    :ivar engine: what its session belongs to.
    :ivar gate: knows who clients are; ``None``: nobody is asked.
    :ivar gzip: compresses for clients that ask for it; ``None``: nothing does.
    :ivar outbox: gathers what one read causes to be written.
    :ivar trimmed: whether the class of its connections holds what Autobahn would set on each of them.
    """

    admission: Admission
    countConnections: int
    draining: bool
    engine: Engine
    gate: Gate | None
    gzip: Gzip | None
    outbox: Outbox
    reactor: Any
    trimmed: bool
    _batched_timer: ExactTimer  # Autobahn's name

    def check(self, handshake: Handshake, place: Place | None = None) -> None:
        """See :meth:`lhttp_tx.factory.LHTTPServerFactory.check`."""

    def admits(self, handshake: Handshake, connections: int, place: Place | None = None) -> bool:
        """See :meth:`lhttp_tx.factory.LHTTPServerFactory.admits`."""

    def deflate(self, window_bits: int) -> Deflate:
        """See :meth:`lhttp_tx.factory.LHTTPServerFactory.deflate`."""


@implementer(IPushProducer)
class Connection(WebSocketServerProtocol):
    """
    One WebSocket connection, without what is said on it.

    It is its transport's push producer: while the peer does not read what was sent, nothing is read from it either,
    and what is sent meanwhile is counted, up to ``Limits.unsent_size``.

    :ivar place: what it counts as among the connections of the server.
    """

    # Autobahn copies and prints these for each connection; the factory sets them on a class, once.
    CONFIG_ATTRS: list[str] = []  # noqa: RUF012
    log = _AutobahnLog()
    factory: ConnectionOwner
    autoPingInterval: float
    autoPingPendingCall: Any
    closeHandshakeTimeout: float
    maxMessagePayloadSize: int
    openHandshakeTimeout: float
    openHandshakeTimeoutCall: Any
    tcpNoDelay: bool
    transport: Any
    place: Place | None = None

    # What Autobahn sets when it judges a handshake, for the connections that it was not asked about.
    inside_message = False
    current_frame: Any = None
    websocket_version = 13
    websocket_protocol_in_use: str | None = None
    websocket_extensions_in_use: list[Any] = []  # noqa: RUF012

    # What was read and is not handled: messages, how many of them are, whether they are binary; and the bytes behind.
    _untaken: tuple[list[bytes], int, bool] | None = None
    _beginning = b""

    _congested = False
    _queue_full = False
    _unsent = 0
    _bottom: FileDescriptor | None = None
    _socket: socket | None = None
    _lingering: IDelayedCall | None = None

    # Beginning and end, without the lines that Autobahn makes up for its log

    def connectionMade(self) -> None:
        """Begin a connection, of which nothing has been read."""
        self._transport_details = create_transport_details(self.transport, True)
        self.peer = self._transport_details.peer
        if self.place is None:
            self.place = self.factory.admission.enter(self.transport.getPeer())
        self._socket = _direct_socket(self.transport)
        with suppress(Exception):  # as Autobahn does: not every transport is a TCP connection
            self.transport.setTcpNoDelay(self.tcpNoDelay)
        self._connectionMade()

    def _connectionMade(self) -> None:
        if not self.factory.trimmed:
            WebSocketProtocol._connectionMade(self)
        elif self.openHandshakeTimeout > 0:
            timer = self.factory._batched_timer
            self.openHandshakeTimeoutCall = timer.call_later(self.openHandshakeTimeout, self.onOpenHandshakeTimeout)
        self.factory.countConnections += 1

    def _begin_flow(self) -> None:
        """The WebSocket is open: mind what the transport holds, and how much is read from it at a time."""
        self.transport.registerProducer(self, True)
        self._bottom = _bottom(self.transport)
        if self._bottom is not None:
            self._bottom.bufferSize = _FIRST_READ

    def dropConnection(self, abort: bool = False) -> None:
        """Drop the connection; a peer that does not read what is left for it does not keep it open."""
        was_closed = self.state == _CLOSED
        super().dropConnection(abort)
        if not abort and not was_closed and self.transport is not None:
            timer = self.factory._batched_timer
            self._lingering = timer.call_later(self.closeHandshakeTimeout, self.transport.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End a connection."""
        if isinstance(reason.value, _ORDINARY_ENDS):
            self._connectionLost(reason)
        else:
            super().connectionLost(reason)

    def _connectionLost(self, reason: Any) -> None:
        WebSocketProtocol._connectionLost(self, reason)
        self.factory.countConnections -= 1
        if self.place is not None:
            self.place.leave()

    # Reading

    def _pace(self, size: int, elapsed: float) -> None:
        """
        Take less at a time from a client whose bytes are dear, more from one whose bytes are cheap.

        A read of empty pings keeps the server busy a hundred times longer than one of publications: taken in small
        bites, it does not keep the other clients waiting.
        """
        bottom = self._bottom
        if bottom is None:
            return
        if elapsed > _READ_TIME:
            bottom.bufferSize = max(LEAST_READ, min(bottom.bufferSize // 2, int(size * _READ_TIME / elapsed)))
        elif size >= bottom.bufferSize and elapsed < _READ_TIME / 4:
            bottom.bufferSize = min(_LARGEST_READ, 4 * bottom.bufferSize)

    def pause_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ISessionTransport.pause_reading`."""
        self._queue_full = True
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ISessionTransport.resume_reading`."""
        self._queue_full = False
        if not self._congested and self.state != _CLOSED:
            self.transport.resumeProducing()
        if self.data or self._beginning or self._untaken is not None:
            self.dataReceived(b"")

    # Writing

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Write bytes at once, unless they are to be cut up or others wait that are."""
        if sync or chopsize or "send_queue" in vars(self):
            super().sendData(data, sync, chopsize)
        else:
            self.transport.write(data)

    def write_frames(self, frames: bytes) -> None:
        """
        Write whole frames now, past the outbox.

        An idle TCP socket takes them at once; otherwise Twisted would register a writer and wait a turn of the reactor,
        two more system calls for each delivery.
        """
        if self.state != _OPEN:
            return
        if self._congested:
            self._unsent = self._held() + len(frames)
            if self._unsent > self.factory.engine.limits.unsent_size:
                _log.error("{peer}: closed, it does not read: {size} bytes unsent", peer=self.peer, size=self._unsent)
                self.close(1013, "too slow: unsent messages pass the limit")
                return
        elif self._socket is not None and not (self.transport.dataBuffer or self.transport._tempDataBuffer):
            try:
                sent = self._socket.send(frames)
            except OSError:
                sent = 0  # the transport finds out itself what is wrong
            if sent == len(frames):
                return
            frames = frames[sent:]
        self.transport.write(frames)

    def _held(self) -> int:
        """
        Return how many bytes wait to be sent.

        The transport tells when all of it is sent and nothing before; a reader that is slow but steady may never get
        there. So the buffer is looked at. What waits inside TLS, for a renegotiation, is counted from its beginning.
        """
        bottom: Any = self._bottom
        if bottom is None or getattr(self.transport, "_appSendBuffer", None):
            return self._unsent
        held: int = len(bottom.dataBuffer) - bottom.offset + bottom._tempDataLen
        return held

    def close(self, code: int, reason: str) -> None:
        """See :meth:`lhttp_tx.interfaces.ISessionTransport.close`."""
        if self.state == _OPEN:
            self.sendCloseFrame(code, _close_reason(reason), isReply=False)
            if self._queue_full:
                self.resume_reading()

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        """Write what was gathered before the close frame: nothing may follow it."""
        self.factory.engine.hub.flush()
        self.factory.outbox.flush()
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def pauseProducing(self) -> None:
        """The transport holds more than it likes: read nothing from a peer that does not read."""
        if not self._congested:
            self._congested = True
            self._unsent = _CONGESTED_SIZE
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The transport has sent everything."""
        self._congested = False
        if not self._queue_full and self.state != _CLOSED:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The transport is gone; :meth:`onClose` follows."""
