"""
The WebSocket edge: Autobahn on one side, a :class:`~lhttp_tx.session.Session` on the other.

The only module of the server that imports Autobahn, which stays the judge of what is legal WebSocket. The protocol
class has over a hundred inherited names, so it is kept thin: it hands messages over, carries frames back, and turns
the transport's flow control into the session's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from socket import socket
from time import perf_counter
from typing import Any

from autobahn.twisted.util import create_transport_details
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Server as TCPServer
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.access import AccessPolicy
from lhttp_tx.admission import Admission, Place
from lhttp_tx.auth.attempt import LoginAttempt, read_parameters
from lhttp_tx.auth.gate import Gate
from lhttp_tx.auth.login import Lobby
from lhttp_tx.encodings import Deflate, Encoding, Gzip, gunzip
from lhttp_tx.engine import Engine
from lhttp_tx.errors import LHTTPError, Refused
from lhttp_tx.frames import is_text
from lhttp_tx.handshake import Handshake, accept_handshake, read_handshake
from lhttp_tx.identity import Identity, new_connection_id
from lhttp_tx.interfaces import ISessionTransport
from lhttp_tx.lane import frames_size, take_messages
from lhttp_tx.outbox import Outbox
from lhttp_tx.session import Session
from lhttp_tx.throttle import Throttled, is_limited
from lhttp_tx.unsent import Remembering

__all__ = ["LHTTPServerFactory", "LHTTPServerProtocol"]

_log = Logger()

_OPEN = WebSocketProtocol.STATE_OPEN
_CONNECTING = WebSocketProtocol.STATE_CONNECTING
_CLOSED = WebSocketProtocol.STATE_CLOSED
_CLOSING = WebSocketProtocol.STATE_CLOSING

_HANDSHAKE_SIZE = 16_384
"""Bytes of a handshake's head that are taken; twisted.web has the same bound."""

_HANDSHAKE_METHODS = ("onConnect", "processHandshake", "succeedHandshake")
"""Methods by which a subclass may decide about handshakes: where it does, every handshake goes their way."""

_TOO_MANY = (429, 503)
"""Statuses of handshakes that are refused in numbers: the log has no line for each."""

_ORDINARY_ENDS = (ConnectionDone, ConnectionLost, ConnectionAborted)
"""Ends of a connection that nobody needs to read about."""

_ON_DEMAND = frozenset({"send_queue", "trafficStats", "utf8validator"})
"""Parts of an Autobahn connection that most connections never use, or not for a long time."""

_QUERY = re.compile(r"\?\S*")
"""The query of a request target."""

_SECRETS = ("http_headers", "http_request_data", "http_request_params", "http_request_uri", "http_status_line")
"""What Autobahn keeps of a handshake, and nobody looks at again."""

_GZIP_PARAMETER = "support_gzip"
"""The query parameter by which a client asks for gzip-compressed messages."""

_CLIENT_WINDOW_BITS, _SERVER_WINDOW_BITS = 10, 13
"""Windows of permessage-deflate, as powers of two: what is kept of a client's messages, and what is looked back at."""

_CONGESTED_SIZE = 65_536
"""What a transport holds at least when it asks to pause: Twisted's buffer size, in bytes."""

_FIRST_READ, _LEAST_READ, _LARGEST_READ = 8_192, 512, 65_536
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


class _OnDemand:
    """An attribute of a connection that is made when it is looked at."""

    def __init__(self, name: str, make: Callable[[], object]) -> None:
        self._name = name
        self._make = make

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = vars(instance)[self._name] = self._make()
        return value


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

    :ivar handshake: how the client opened the connection, for whoever opens the session; it is not kept.
    :ivar place: what it counts as among the connections of the server.
    """

    # Autobahn copies and prints these for each connection; the factory sets them on a class, once.
    CONFIG_ATTRS: list[str] = []  # noqa: RUF012
    log = _AutobahnLog()
    factory: LHTTPServerFactory
    autoPingInterval: float
    closeHandshakeTimeout: float
    maxMessagePayloadSize: int
    openHandshakeTimeout: float
    tcpNoDelay: bool
    transport: Any
    session: Session | Lobby | None = None
    handshake: Handshake | None = None
    place: Place | None = None

    # What Autobahn sets when it judges a handshake, for the connections that it was not asked about.
    inside_message = False
    current_frame: Any = None
    websocket_version = 13
    websocket_protocol_in_use: str | None = None
    websocket_extensions_in_use: list[Any] = []  # noqa: RUF012

    _admission: Deferred[Any] | None = None
    _attempt: LoginAttempt | None = None
    _identity: Identity | None = None
    _beginning = b""
    _congested = False
    _queue_full = False
    _consuming = False
    _unsent = 0
    _bottom: FileDescriptor | None = None
    _refusal: str | None = None
    _socket: socket | None = None
    _encoding: Encoding | None = None
    _lingering: IDelayedCall | None = None

    # Autobahn's callbacks

    def onConnect(self, request: ConnectionRequest) -> Deferred[None] | None:  # type: ignore[override]
        """Let the access rules decide about the opening handshake, and then the authenticators."""
        try:
            self.handshake = Handshake(self.http_request_uri, request.headers)
            self.factory.check(self.handshake, self.place)
        except Refused as refused:
            raise self._denial(refused) from None
        self._take_place()
        return None if self.factory.gate is None else self._ask(self.factory.gate, self.handshake)

    def _take_place(self) -> None:
        """Count as a WebSocket of the client, whom a trusted proxy may have named."""
        place = self.place
        if place is not None:
            place.take()
            if place.forwarded:
                self.peer = f"tcp{6 if ':' in str(place.client) else 4}:{place.client}"

    def _ask(self, gate: Gate, handshake: Handshake) -> Deferred[None]:
        """Let the authenticators decide about the opening handshake; whatever else arrives meanwhile waits."""
        self._attempt = LoginAttempt(
            self.peer or "",
            new_connection_id(),
            handshake.path,
            read_parameters(handshake.query),
            handshake.headers,
            secure=bool(self._transport_details.is_secure),
        )
        admission = gate.admit(self._attempt)
        if not admission.called:
            self._admission = admission
            if self.openHandshakeTimeoutCall is not None:  # from here on there is the gate's own limit
                self.openHandshakeTimeoutCall.cancel()
                self.openHandshakeTimeoutCall = None
        return admission.addCallbacks(self._admitted, self._not_admitted)

    def _admitted(self, identity: Identity | None) -> None:
        self._admission = None
        self._identity = identity

    def _not_admitted(self, failure: Failure) -> None:
        self._admission = None
        error: Any = failure.value
        raise self._denial(error)

    def _denial(self, refused: LHTTPError) -> ConnectionDeny:
        self._refusal = refused.reason
        return ConnectionDeny(refused.status, refused.reason)

    def onOpen(self) -> None:
        """Begin the session; where the client has yet to say who it is, the lobby takes its place."""
        if self.place is not None:
            self.place.open()
        self.transport.registerProducer(self, True)
        self._bottom = _bottom(self.transport)
        if self._bottom is not None:
            self._bottom.bufferSize = _FIRST_READ
        self._socket = _direct_socket(self.transport)
        self._choose_encoding()
        if self.factory.gate is None:
            self.session = self.factory.engine.open_session(self, self._nobody())
        else:
            self._open_known(self.factory.gate)
        self.handshake = None

    def _choose_encoding(self) -> None:
        """Compress what is sent, if the client asked for it; others pay nothing for that."""
        handshake, extensions = self.handshake, self.websocket_extensions_in_use
        asked = read_parameters(handshake.query) if handshake is not None and "?" in handshake.target else {}
        if self.factory.gzip is not None and asked.get(_GZIP_PARAMETER) == "1":
            self._encoding = self.factory.gzip
            self._take_fast_lane = self._take_kept  # type: ignore[method-assign]
            self.onMessage = self._receive_gzip  # type: ignore[method-assign]
        if self._encoding is None and extensions:
            self._encoding = self.factory.deflate(extensions[0].server_max_window_bits)
        if self._encoding is not None:
            self.send_frame = self._send_encoded  # type: ignore[method-assign, assignment]

    def _nobody(self) -> Identity | None:
        """Return the identity of a client that nobody asks who it is; ``None`` if it is nothing but an address."""
        handshake = self.handshake
        if handshake is None or "?" not in handshake.target:
            return None
        parameters = read_parameters(handshake.query)
        return Identity(None, new_connection_id(), parameters=parameters, address=self.peer or "")

    def _open_known(self, gate: Gate) -> None:
        attempt, identity = self._attempt, self._identity
        self._attempt = self._identity = None
        if identity is None and attempt is not None:
            limits = self.factory.engine.limits
            self.session = Lobby(gate, attempt, transport=self, limits=limits, enter=self._enter)
        else:
            self.session = self.factory.engine.open_session(self, identity)

    def _enter(self, identity: Identity) -> Session:
        session = self.session = self.factory.engine.open_session(self, identity)
        return session

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
        timers: tuple[Any, ...] = (self._lingering, self.closeHandshakeTimeoutCall)
        for timer in timers:
            if timer is not None and timer.active():
                timer.cancel()
        if self._admission is not None:
            self._admission.cancel()
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
        if self.state != _CONNECTING:  # the client left while an authenticator was asked
            return
        try:
            super().succeedHandshake(res)
        except Exception:
            _log.failure("{peer}: handshake failed", peer=self.peer)
            self.dropConnection(abort=True)
        if self.factory.gate is not None:
            for name in _SECRETS:
                vars(self).pop(name, None)
            if self._beginning:
                data, self._beginning = self._beginning, b""
                self.dataReceived(data)

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Refuse a handshake without echoing what the client sent."""
        if self.state != _CONNECTING:
            return
        reason = _QUERY.sub("?...", reason or "")  # Autobahn repeats the target, whose query may hold a secret
        if code in _TOO_MANY:
            self.factory.admission.refuse(self.peer or "", f"status {code}, {self._refusal or reason}")
        else:
            _log.info("{peer}: handshake refused with {code}: {reason!r}", peer=self.peer, code=code, reason=reason)
        challenges = self.factory.gate.challenges if code == 401 and self.factory.gate is not None else ()
        self.wasClean = True  # so that Autobahn does not log it again
        headers = [*(responseHeaders or ()), *challenges]
        self.sendHttpErrorResponse(code, self._refusal or HTTPStatus(code).phrase, headers)
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

    # Beginning and end, without the lines that Autobahn makes up for its log

    def connectionMade(self) -> None:
        """Begin a connection, of which nothing has been read."""
        self._transport_details = create_transport_details(self.transport, True)
        self.peer = self._transport_details.peer
        if self.place is None:
            self.place = self.factory.admission.enter(self.transport.getPeer())
        with suppress(Exception):  # as Autobahn does: not every transport is a TCP connection
            self.transport.setTcpNoDelay(self.tcpNoDelay)
        self._connectionMade()

    def _connectionMade(self) -> None:
        if not self.factory._trimmed:
            WebSocketProtocol._connectionMade(self)
        elif self.openHandshakeTimeout > 0:
            timer = self.factory._batched_timer
            self.openHandshakeTimeoutCall = timer.call_later(self.openHandshakeTimeout, self.onOpenHandshakeTimeout)
        self.factory.countConnections += 1

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

    # Opening, where Autobahn need not be asked

    def open(self, handshake: Handshake, behind: bytes) -> None:
        """
        Open the WebSocket with a handshake that the factory has admitted.

        :param handshake: what came first on this connection.
        :param behind: what has come behind it.
        """
        self._accept(handshake)
        if behind:
            self.dataReceived(behind)

    def _accept(self, handshake: Handshake) -> None:
        """Do what Autobahn does when a handshake succeeds that asks for nothing more."""
        try:
            self.handshake = handshake
            self._take_place()
            self.state = _OPEN
            self._socket = _direct_socket(self.transport)
            self.write_frames(accept_handshake(handshake))
            if self.openHandshakeTimeoutCall is not None:
                self.openHandshakeTimeoutCall.cancel()
                self.openHandshakeTimeoutCall = None
            if self.autoPingInterval:
                timer = self.factory._batched_timer
                self.autoPingPendingCall = timer.call_later(self.autoPingInterval, self._sendAutoPing)
            self._onOpen()
            self.is_open.callback(None)
        except Exception:
            _log.failure("{peer}: handshake failed", peer=self.peer)
            self.dropConnection(abort=True)

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Take what one read brought in; what it causes to be written is written when it is used up."""
        size = len(data)
        begin = perf_counter() if size >= _LEAST_READ else 0.0
        outbox = self.factory.outbox
        outbox.cork()
        try:
            if self.state == _OPEN and not self.data and self.current_frame is None and not self.inside_message:
                data = self._take_fast_lane(data)
            elif self._admission is not None:
                self._hold(data)
                return
            elif self._beginning:
                data, self._beginning = self._beginning + data, b""
            elif self.state == _CONNECTING and not self.data:
                handshake = read_handshake(data)
                if handshake is not None and self.factory.admits(handshake, self.factory.countConnections, self.place):
                    self._accept(handshake)
                    data = data[handshake.size :]
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
            if begin:
                self._pace(size, perf_counter() - begin)
            outbox.uncork()

    def _hold(self, data: bytes) -> None:
        """Keep what came behind a handshake that is not answered yet; nobody has much to say before the answer."""
        self._beginning += data
        if len(self._beginning) > _HANDSHAKE_SIZE:
            self.dropConnection(abort=True)

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
            bottom.bufferSize = max(_LEAST_READ, min(bottom.bufferSize // 2, int(size * _READ_TIME / elapsed)))
        elif size >= bottom.bufferSize and elapsed < _READ_TIME / 4:
            bottom.bufferSize = min(_LARGEST_READ, 4 * bottom.bufferSize)

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
        session, position, more = self.session, 0, True
        while more and session is not None:
            start = position
            messages, binary, position, more = take_messages(data, start, self.maxMessagePayloadSize)
            if not messages:
                break
            taken = 0
            while taken < len(messages):
                taken = session.receive_run(messages, taken, binary)
                if self._queue_full or self.state != _OPEN:
                    return data[start + frames_size(messages[:taken]) :]
        if position and self.autoPingTimeoutCall is not None:
            self._cancelAutoPingTimeoutCall()
        if more and (position or not kept):
            self._beginning = data[position:]
            return b""
        return data[position:]

    def _take_kept(self, data: bytes) -> bytes:
        """Leave everything to Autobahn."""
        kept, self._beginning = self._beginning, b""
        return kept + data

    def _receive_gzip(self, payload: bytes, isBinary: bool) -> None:
        """Hand over a message that may be compressed; one that is broken or too large is refused as such."""
        if isBinary and self.session is not None:
            data = gunzip(payload, 2 * self.factory.engine.limits.message_size)
            self.session.receive(data, data is payload or not is_text(data))
        elif self.session is not None:
            self.session.receive(payload, isBinary)

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

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Write bytes at once, unless they are to be cut up or others wait that are."""
        if sync or chopsize or "send_queue" in vars(self):
            super().sendData(data, sync, chopsize)
        else:
            self.transport.write(data)

    def send_frame(self, frame: bytes) -> None:
        """See :meth:`lhttp_tx.interfaces.ISessionTransport.send_frame`."""
        if self.state != _OPEN:
            return
        if self.factory.outbox.corked:
            self.factory.outbox.add(self, frame)
        else:
            self.write_frames(frame)

    def _send_encoded(self, frames: bytes) -> None:
        if self.state == _OPEN and self._encoding is not None:
            LHTTPServerProtocol.send_frame(self, self._encoding.encode(frames))

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


class LHTTPServerFactory(WebSocketServerFactory):
    """Makes the connections of one engine. Listen with it directly, or mount it with a web resource."""

    protocol = LHTTPServerProtocol  # type: ignore[assignment]
    _configured: Any = None
    _compresses = False
    _trimmed = False
    _plain = False

    def __init__(
        self,
        *,
        engine: Engine,
        reactor: Any,
        policy: AccessPolicy | None = None,
        gate: Gate | None = None,
        admission: Admission | None = None,
        max_connections: int = 10_000,
        ping_interval: float = 30.0,
        ping_timeout: float = 10.0,
        handshake_timeout: float = 5.0,
        close_timeout: float = 2.0,
        deflate: bool = False,
        gzip: bool = True,
    ) -> None:
        """
        :param engine: what the sessions belong to.
        :param reactor: the running reactor.
        :param policy: who may come in.
        :param gate: knows who they are; ``None``: nobody is asked.
        :param admission: counts them by address; ``None``: without a limit.
        :param max_connections: connections at one time, 0 for no limit; more get status 503.
        :param ping_interval: seconds between pings, 0 for none.
        :param ping_timeout: seconds in which a ping must be answered.
        :param handshake_timeout: seconds in which the opening handshake must be complete.
        :param close_timeout: seconds in which a peer must answer a close before it is dropped.
        :param deflate: whether clients may ask for the extension permessage-deflate.
        :param gzip: whether clients may ask for gzip-compressed messages.
        """
        super().__init__(server="", reactor=reactor)
        self._declines = self.perMessageCompressionAccept
        self.gzip = Gzip() if gzip else None
        self._deflates: dict[int, Deflate] = {}
        self._batched_timer = _ExactTimer(reactor)
        self.engine = engine
        self.policy = AccessPolicy() if policy is None else policy
        self.gate = gate
        self.admission = Admission(reactor) if admission is None else admission
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
        if deflate:
            self.setProtocolOptions(perMessageCompressionAccept=self._accept_deflate, allowNullOrigin=True)

    def deflate(self, window_bits: int) -> Deflate:
        """Return the encoding for clients that agreed to permessage-deflate with a window of this size."""
        found = self._deflates.get(window_bits)
        if found is None:
            found = self._deflates[window_bits] = Deflate(window_bits)
        return found

    def _accept_deflate(self, offers: list[Any]) -> PerMessageDeflateOfferAccept | None:
        """
        Agree to the first offer that a client makes.

        The server keeps nothing from one message to the next, and asks the client for the same, or at least for a
        small window (RFC 7692, section 7.1).
        """
        for offer in offers:
            if isinstance(offer, PerMessageDeflateOffer) and offer.request_max_window_bits != 8:
                return PerMessageDeflateOfferAccept(
                    offer,
                    request_no_context_takeover=offer.accept_no_context_takeover,
                    request_max_window_bits=_CLIENT_WINDOW_BITS if offer.accept_max_window_bits else 0,
                    no_context_takeover=True,
                    window_bits=min(offer.request_max_window_bits or 15, _SERVER_WINDOW_BITS),
                    max_message_size=2 * self.engine.limits.message_size,
                )
        return None

    def setProtocolOptions(self, **options: Any) -> None:  # type: ignore[override]
        """Set Autobahn's options for connections that are made from now on."""
        super().setProtocolOptions(**options)
        self._configured = None

    def setSessionParameters(self, *arguments: Any, **options: Any) -> None:
        """Set Autobahn's parameters for connections that are made from now on."""
        super().setSessionParameters(*arguments, **options)
        self._configured = None

    def check(self, handshake: Handshake, place: Place | None = None) -> None:
        """
        Let an opening handshake in or not.

        :param place: what its connection counts as; ``None`` if it does not count.
        :raises Refused: if a rule is against it; with status 503 while the server goes away, 429 if its address has too
            many connections.
        """
        headers = handshake.headers
        if self.draining:
            raise Refused(503, "server is going away")
        self.policy.check_host(headers.get("host"))
        self.policy.check_origin(headers.get("origin"), headers.get("host"))
        if place is not None:
            place.check(headers)

    def admits(self, handshake: Handshake, connections: int, place: Place | None = None) -> bool:
        """
        Return whether *handshake* may be answered without Autobahn, with the same outcome: it is let in.

        What is not admitted is not refused yet; that is Autobahn's, or a rule's that it asks.

        :param connections: how many there are with this one.
        :param place: what this one counts as; ``None`` if it does not count.
        """
        if self._configured is None or not issubclass(self._configured, self.protocol):
            self._configure()
        if not self._plain or 0 < self.maxConnections < connections:
            return False
        if self._compresses and "sec-websocket-extensions" in handshake.headers:
            return False
        try:
            self.check(handshake, place)
        except Refused:
            return False
        return True

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a new connection. Its class holds the options, so that no connection holds a copy of them."""
        if self._configured is None or not issubclass(self._configured, self.protocol):
            self._configure()
        protocol = self._configured()
        protocol.factory = self
        return protocol

    def _configure(self) -> None:
        """Make the class of the connections, and see what of a handshake their options leave to Autobahn."""
        kind: Any = self.protocol
        options = {name: getattr(self, name) for name in WebSocketServerProtocol.CONFIG_ATTRS}
        # A function on a class would become a method.
        options = {name: staticmethod(found) if callable(found) else found for name, found in options.items()}
        bases = (Throttled, kind) if is_limited(self.engine.limits) else (kind,)
        if self.engine.on_undelivered:
            bases = (Remembering, *bases)
        self._configured = type(kind.__name__, bases, options)
        self._trimmed = False
        self._trim()
        self._compresses = self.perMessageCompressionAccept is not self._declines
        self._plain = (
            self.gate is None
            and 13 in self.versions
            and self.allowedOrigins == ["*"]
            and not (self.server or self.headers or self.externalPort or self.trustXForwardedFor or self.trackTimings)
            and all(getattr(kind, name) is getattr(LHTTPServerProtocol, name) for name in _HANDSHAKE_METHODS)
        )

    def _trim(self) -> None:
        """
        Let the class of the connections hold what Autobahn sets on every one of them to begin with.

        An idle connection is half as large, and made in half the time. Whatever is not known to be shared safely, as a
        later Autobahn may add, leaves it to Autobahn.
        """
        pattern = self._configured()
        pattern.factory = self
        pattern.openHandshakeTimeout = 0
        own = {*vars(pattern)}
        WebSocketProtocol._connectionMade(pattern)
        found = {name: value for name, value in vars(pattern).items() if name not in own}
        for name, value in found.items():
            if name in _ON_DEMAND:
                setattr(self._configured, name, _OnDemand(name, type(value)))
            elif value is None or isinstance(value, bool | int | float | str | bytes):
                setattr(self._configured, name, value)
            else:
                return
        self._trimmed = True
