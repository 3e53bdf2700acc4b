"""
The WebSocket edge: Autobahn on one side, a :class:`~lhttp_tx.session.Session` on the other.

The only module of the server that imports Autobahn, which stays the judge of what is legal WebSocket. The protocol
class has over a hundred inherited names, so it is kept thin: it hands messages over, carries frames back, and turns
the transport's flow control into the session's.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from socket import socket
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer
from twisted.internet.tcp import Server as TCPServer
from twisted.logger import Logger
from zope.interface import implementer

from lhttp_tx.access import AccessPolicy
from lhttp_tx.engine import Engine
from lhttp_tx.errors import Refused
from lhttp_tx.interfaces import ISessionTransport
from lhttp_tx.lane import take_messages
from lhttp_tx.outbox import Outbox
from lhttp_tx.session import Session

__all__ = ["LHTTPServerFactory", "LHTTPServerProtocol"]

_log = Logger()

_OPEN = WebSocketProtocol.STATE_OPEN
_CONNECTING = WebSocketProtocol.STATE_CONNECTING
_CLOSED = WebSocketProtocol.STATE_CLOSED
_CLOSING = WebSocketProtocol.STATE_CLOSING

_HANDSHAKE_SIZE = 16_384
"""Bytes of a handshake's head that are taken; twisted.web has the same bound."""

_CONGESTED_SIZE = 65_536
"""What a transport holds at least when it asks to pause: Twisted's buffer size, in bytes."""


def _close_reason(text: str) -> bytes:
    """Return as much of *text* as a close frame holds: 123 bytes of whole UTF-8 characters (RFC 6455, section 5.5)."""
    return text.encode("utf-8", "replace")[:123].decode("utf-8", "ignore").encode("utf-8")


def _direct_socket(transport: object) -> socket | None:
    """Return the socket of a plain TCP transport, to be written to while the transport holds nothing; else ``None``."""
    return transport.socket if type(transport) is TCPServer and not transport.TLS else None


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


class _ExactTimer:
    """Keeps Autobahn's time limits: its own timer rounds them down to whole seconds, so that one of 1 may be none."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def call_later(self, delay: float, call: Callable[..., object], *args: object) -> IDelayedCall:
        """Call *call* with *args* after *delay* seconds."""
        delayed: IDelayedCall = self._reactor.callLater(delay, call, *args)
        return delayed


@implementer(ISessionTransport, IPushProducer)
class LHTTPServerProtocol(WebSocketServerProtocol):
    """
    One WebSocket connection.

    It is its transport's push producer: while the peer does not read what was sent, nothing is read from it either,
    and what is sent meanwhile is counted, up to ``Limits.unsent_size``.
    """

    # Autobahn copies and prints these for each connection; the factory sets them on a class, once.
    CONFIG_ATTRS: list[str] = []  # noqa: RUF012
    log = _AutobahnLog()
    factory: LHTTPServerFactory
    closeHandshakeTimeout: float
    maxMessagePayloadSize: int
    transport: Any
    session: Session | None = None

    _beginning = b""
    _congested = False
    _queue_full = False
    _consuming = False
    _unsent = 0
    _refusal: str | None = None
    _socket: socket | None = None
    _lingering: IDelayedCall | None = None

    # Autobahn's callbacks

    def onConnect(self, request: ConnectionRequest) -> None:
        """Let the access rules decide about the opening handshake."""
        try:
            if self.factory.draining:
                raise Refused(503, "server is going away")
            self.factory.policy.check_host(request.headers.get("host"))
            self.factory.policy.check_origin(request.headers.get("origin"), request.headers.get("host"))
        except Refused as refused:
            self._refusal = refused.reason
            raise ConnectionDeny(refused.status, refused.reason) from None

    def onOpen(self) -> None:
        """Begin the session."""
        self.transport.registerProducer(self, True)
        self._socket = _direct_socket(self.transport)
        self.session = self.factory.engine.open_session(self)

    def onMessageEnd(self) -> None:
        """Hand over a whole message; unlike the inherited method this makes no Deferred for observers."""
        if not self.failedByMe:
            self._onMessage(b"".join(self.message_data), self.message_is_binary)
        self.message_data = None  # type: ignore[assignment]

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Hand a message to the session."""
        if self.session is not None:
            self.session.receive(payload, isBinary)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Tell the session that its connection has ended, however it did."""
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        if self.session is not None:
            self.session.connection_lost()

    def onAutoPingTimeout(self) -> None:
        """Drop a peer that does not answer, unless its answer waits behind messages that we do not read yet."""
        if self._queue_full:
            self.autoPingTimeoutCall = None
            self.autoPingPending = None
            self._sendAutoPing()
        else:
            super().onAutoPingTimeout()

    def dropConnection(self, abort: bool = False) -> None:
        """Drop the connection; a peer that does not read what is left for it does not keep it open."""
        was_closed = self.state == _CLOSED
        super().dropConnection(abort)
        if not abort and not was_closed and self.transport is not None:
            timer = self.factory._batched_timer
            self._lingering = timer.call_later(self.closeHandshakeTimeout, self.transport.abortConnection)

    def onMessageFrame(self, payload: Any) -> None:
        """Keep what a frame of a fragmented message brought; empty frames would only pile up."""
        chunks: Any = [chunk for chunk in payload if chunk]
        super().onMessageFrame(chunks)

    def succeedHandshake(self, res: Any) -> None:
        """Complete the handshake; Autobahn would swallow what goes wrong in it and leave the client waiting."""
        try:
            super().succeedHandshake(res)
        except Exception:
            _log.failure("{peer}: handshake failed", peer=self.peer)
            self.dropConnection(abort=True)

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Refuse a handshake without echoing what the client sent."""
        _log.info("{peer}: handshake refused with {code}: {reason!r}", peer=self.peer, code=code, reason=reason)
        self.wasClean = True  # so that Autobahn does not log it again
        self.sendHttpErrorResponse(code, self._refusal or HTTPStatus(code).phrase, responseHeaders)
        self.dropConnection(abort=False)

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        """Answer a refused handshake with a whole HTTP response."""
        body = reason.encode("utf-8") + b"\n"
        lines = [
            f"HTTP/1.1 {code} {HTTPStatus(code).phrase}",
            *(f"{name}: {value}" for name, value in responseHeaders or ()),
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        self.sendData("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Take what one read brought in; what it causes to be written is written when it is used up."""
        outbox = self.factory.outbox
        outbox.cork()
        try:
            if self.state == _OPEN and not self.data and self.current_frame is None and not self.inside_message:
                data = self._take_fast_lane(data)
            elif self._beginning:
                data, self._beginning = self._beginning + data, b""
            if data or self.data:
                self._dataReceived(data)
            if self.state == _CONNECTING and len(self.data) > _HANDSHAKE_SIZE:
                self.failHandshake("the head of the handshake is too large", 431)
        except Exception:
            _log.failure("{peer}: reading failed", peer=self.peer)
            if self.state == _OPEN:
                self._fail_connection(1011, "internal error")
            else:
                self.dropConnection(abort=True)
        finally:
            outbox.uncork()

    def _take_fast_lane(self, data: bytes) -> bytes:
        """
        Handle the whole messages that *data* begins with; return what is left to Autobahn.

        The beginning of a message is kept until the next read, and no longer: a frame that dribbles in is Autobahn's,
        which notices what is wrong with it at the first byte.
        """
        kept, self._beginning = self._beginning, b""
        if self._queue_full:
            return kept + data
        data = kept + data if kept else data
        messages, more_would_do = take_messages(data, self.maxMessagePayloadSize)
        position = 0
        for payload, binary, position in messages:
            self.onMessage(payload, binary)
            if self._queue_full or self.state != _OPEN:
                return data[position:]
        if position and self.autoPingTimeoutCall is not None:
            self._cancelAutoPingTimeoutCall()
        if more_would_do and (position or not kept):
            self._beginning = data[position:]
            return b""
        return data[position:]

    def consumeData(self) -> None:
        """Take messages out of the read buffer until it is used up or the session's queue is full."""
        if self.state != _OPEN and self.state != _CLOSING:
            super().consumeData()
            return
        if self._consuming:
            return
        self._consuming = True
        try:
            while not self._queue_full and self.processData() and self.state != _CLOSED:
                pass
        finally:
            self._consuming = False

    def pause_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ISessionTransport.pause_reading`."""
        self._queue_full = True
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ISessionTransport.resume_reading`."""
        self._queue_full = False
        if not self._congested and self.state != _CLOSED:
            self.transport.resumeProducing()
        if self.data:
            self.dataReceived(b"")

    # Writing

    def send_frame(self, frame: bytes) -> None:
        """See :meth:`lhttp_tx.interfaces.ISessionTransport.send_frame`."""
        if self.state != _OPEN:
            return
        if self.factory.outbox.corked:
            self.factory.outbox.add(self, frame)
        else:
            self.write_frames(frame)

    def write_frames(self, frames: bytes) -> None:
        """
        Write whole frames now, past the outbox.

        An idle TCP socket takes them at once; otherwise Twisted would register a writer and wait a turn of the reactor,
        two more system calls for each delivery.
        """
        if self.state != _OPEN:
            return
        if self._congested:
            self._unsent = (self._unsent if self._socket is None else self._held()) + len(frames)
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
        """Return how many bytes a plain TCP transport holds."""
        transport = self.transport
        held: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        return held

    def close(self, code: int, reason: str) -> None:
        """See :meth:`lhttp_tx.interfaces.ISessionTransport.close`."""
        if self.state == _OPEN:
            self.sendCloseFrame(code, _close_reason(reason), isReply=False)
            if self._queue_full:
                self.resume_reading()

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        """Write what was gathered before the close frame: nothing may follow it."""
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


class LHTTPServerFactory(WebSocketServerFactory):
    """Makes the connections of one engine. Listen with it directly, or mount it with a web resource."""

    protocol = LHTTPServerProtocol  # type: ignore[assignment]
    _configured: Any = None

    def __init__(
        self,
        *,
        engine: Engine,
        reactor: Any,
        policy: AccessPolicy | None = None,
        max_connections: int = 10_000,
        ping_interval: float = 30.0,
        ping_timeout: float = 10.0,
        handshake_timeout: float = 5.0,
        close_timeout: float = 2.0,
    ) -> None:
        """
        :param engine: what the sessions belong to.
        :param reactor: the running reactor.
        :param policy: who may come in.
        :param max_connections: connections at one time, 0 for no limit; more get status 503.
        :param ping_interval: seconds between pings, 0 for none.
        :param ping_timeout: seconds in which a ping must be answered.
        :param handshake_timeout: seconds in which the opening handshake must be complete.
        :param close_timeout: seconds in which a peer must answer a close before it is dropped.
        """
        super().__init__(server="", reactor=reactor)
        self._batched_timer = _ExactTimer(reactor)
        self.engine = engine
        self.policy = AccessPolicy() if policy is None else policy
        self.outbox = Outbox(engine.hub)
        self.draining = False
        largest = 2 * engine.limits.message_size
        self.setProtocolOptions(
            webStatus=False,
            failByDrop=False,
            allowNullOrigin=True,  # each call sets it; the policy decides
            maxConnections=max_connections,
            maxFramePayloadSize=largest,
            maxMessagePayloadSize=largest,
            autoPingInterval=ping_interval,
            autoPingTimeout=ping_timeout,
            openHandshakeTimeout=handshake_timeout,
            closeHandshakeTimeout=close_timeout,
        )

    def setProtocolOptions(self, **options: Any) -> None:  # type: ignore[override]
        """Set Autobahn's options for connections that are made from now on."""
        super().setProtocolOptions(**options)
        self._configured = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a new connection. Its class holds the options, so that no connection holds a copy of them."""
        kind: Any = self.protocol
        if self._configured is None or not issubclass(self._configured, kind):
            options = {name: getattr(self, name) for name in WebSocketServerProtocol.CONFIG_ATTRS}
            # A function on a class would become a method.
            options = {name: staticmethod(found) if callable(found) else found for name, found in options.items()}
            self._configured = type(kind.__name__, (kind,), options)
        protocol = self._configured()
        protocol.factory = self
        return protocol
