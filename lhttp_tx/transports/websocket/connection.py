"""
One WebSocket connection as Autobahn and the transport see it: its beginning, its end, and the flow of bytes between.

The lowest layer of the WebSocket edge. :mod:`lhttp_tx.transports.websocket.opening` and
:mod:`lhttp_tx.transports.websocket.protocol` build on it, and handle the incoming data. The Autobahn class has over a
hundred inherited names, so this class adds only few.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from socket import socket
from typing import Any, cast

from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IPushProducer, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Server as TCPServer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.codec.codes import TOO_SLOW
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.guard.admission import Place, peer_name
from lhttp_tx.guard.reads import begin_reading, pace
from lhttp_tx.observe.escapes import printable
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.websocket.coded import Decoder
from lhttp_tx.transports.websocket.flow import CONGESTED, HELD_BACK, NOT_READING, YIELDING, Flow
from lhttp_tx.transports.websocket.frames import PLAIN, Framing
from lhttp_tx.transports.websocket.owner import ConnectionOwner
from lhttp_tx.transports.websocket.throttle import Throttle, is_limited
from lhttp_tx.transports.websocket.unsent import Unsent

__all__ = ["Connection"]

_log = Logger()
_clients_log = RationedLogger(__name__)

_OPEN = WebSocketProtocol.STATE_OPEN
_CLOSED = WebSocketProtocol.STATE_CLOSED

_ORDINARY_ENDS = (ConnectionDone, ConnectionLost, ConnectionAborted)
"""Ordinary ends of a connection, which are not logged."""

_CONGESTED_SIZE = 65_536
"""The fewest bytes that a transport holds when it asks to pause: the size of Twisted's buffer."""


def _close_reason(text: str) -> bytes:
    """
    Return *text* cut to what fits into a close frame: 123 bytes of whole UTF-8 characters (RFC 6455, section 5.5).
    """
    return text.encode("utf-8", "replace")[:123].decode("utf-8", "ignore").encode("utf-8")


def _direct_socket(transport: object) -> socket | None:
    """
    Return the socket of a plain TCP transport, for direct writes while the transport's buffer is empty; else ``None``.
    """
    return transport.socket if type(transport) is TCPServer and not transport.TLS else None


def _escaped(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: printable(found) if isinstance(found, str) else found for name, found in arguments.items()}


class _AutobahnLog:
    """
    The log of Autobahn: its warnings and errors go to the project's log, and the rest is dropped.

    At its lower levels, Autobahn logs several lines for each frame, and computes their arguments even if they are not
    written.
    """

    def trace(self, *args: object, **kwargs: object) -> None:
        """Log nothing."""

    debug = info = trace

    def warn(self, format: str, **kwargs: object) -> None:  # noqa: A002 - Autobahn's name
        """Log at the level of information, because the warning is about a client, and there may be many."""
        _clients_log.info(format, **_escaped(kwargs))

    def error(self, format: str, **kwargs: object) -> None:  # noqa: A002
        """Log an error."""
        _clients_log.error(format, **_escaped(kwargs))


@implementer(IPushProducer)
class Connection(WebSocketServerProtocol):
    """
    One WebSocket connection, without the handling of its messages.

    It is its transport's push producer. While the peer does not read, the server does not read from the peer either. It
    counts the bytes that it sends during this time, up to ``Limits.unsent_size``.

    :ivar place: its place among the connections of the server.
    :ivar session: takes its messages; ``None`` before it is open.
    :ivar opens_at_once: whether its handshake is there and accepted, so that nothing can take too long.
    """

    # Autobahn copies and prints these for each connection; the factory sets them on a class, once.
    CONFIG_ATTRS: list[str] = []  # noqa: RUF012
    log = _AutobahnLog()
    factory: ConnectionOwner
    autoPingInterval: float
    autoPingPendingCall: Any
    autoPingTimeoutCall: Any
    closeHandshakeTimeout: float
    maxMessagePayloadSize: int
    openHandshakeTimeout: float
    openHandshakeTimeoutCall: Any
    tcpNoDelay: bool
    transport: Any
    _isMessageCompressed: bool
    place: Place | None = None
    session: Any = None
    opens_at_once = False

    # Autobahn sets these when it checks a handshake. Other connections need them, too.
    inside_message = False
    current_frame: Any = None
    websocket_version = 13
    websocket_protocol_in_use: str | None = None
    websocket_extensions_in_use: list[Any] = []  # noqa: RUF012

    # Unhandled input: messages, how many of them were taken, whether they are binary; and the bytes after them.
    _untaken: tuple[list[bytes], int, bool] | None = None
    _beginning = b""

    _flow = 0
    _framing: Framing = PLAIN
    converts = property(attrgetter("_framing.converts"))
    compresses = property(attrgetter("_framing.compresses"))
    _throttle: Throttle | None = None
    _front: Throttle | Decoder | None = None
    _unsent: Unsent | None = None
    _unsent_size = 0
    _on_drained: Callable[[], None] | None = None
    _bottom: FileDescriptor | None = None
    _socket: socket | None = None
    _lingering: IDelayedCall | None = None

    # Beginning and end, without Autobahn's log lines

    def connectionMade(self) -> None:
        """Begin a connection. Called before the first read."""
        self.peer = peer_name(self.transport.getPeer())
        if self.place is None:
            self.place = self.factory.admission.enter(self.transport.getPeer())
        self._socket = _direct_socket(self.transport)
        with suppress(Exception):  # as Autobahn does: not every transport is a TCP connection
            self.transport.setTcpNoDelay(self.tcpNoDelay)
        self._connectionMade()

    def _connectionMade(self) -> None:
        if not self.factory.trimmed:
            WebSocketProtocol._connectionMade(self)
        elif self.openHandshakeTimeout > 0 and not self.opens_at_once:
            timer = self.factory._batched_timer
            self.openHandshakeTimeoutCall = timer.call_later(self.openHandshakeTimeout, self.onOpenHandshakeTimeout)
        self.factory.countConnections += 1

    @property
    def is_secure(self) -> bool:
        """Whether the connection is encrypted, as far as the server can see."""
        return bool(ISSLTransport.providedBy(self.transport))

    def _onOpen(self) -> None:
        """Call :meth:`onOpen`, without the TLS details that Autobahn collects: not every TLS connection has them."""
        self.onOpen()

    def _begin_flow(self) -> None:
        """Called when the WebSocket opens: watch the transport's buffer, and the size of reads."""
        self.transport.registerProducer(self, True)
        self._bottom = begin_reading(self.transport)
        engine = self.factory.engine
        if is_limited(engine.limits):
            self._throttle = Throttle(self, engine.limits, self.factory.reactor)
        if engine.on_undelivered:
            self._unsent = Unsent()

    @property
    def flow(self) -> Flow:
        """The state of reading and writing."""
        kept = Flow.UNTAKEN if self._untaken is not None else Flow(0)
        return Flow(self._flow) | kept | (Flow.BEGUN if self._beginning else Flow(0))

    def dropConnection(self, abort: bool = False) -> None:
        """Drop the connection. A peer that does not read its remaining data cannot keep it open."""
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
        Read less at a time from a client whose bytes are expensive to handle; see :func:`lhttp_tx.guard.reads.pace`.
        """
        pace(self._bottom, size, elapsed)
        if self._bottom is not None and self._throttle is not None and self._throttle.largest_read is not None:
            self._bottom.bufferSize = min(self._bottom.bufferSize, self._throttle.largest_read)

    def hold_reading(self, why: int) -> None:
        """
        Stop reading.

        :param why: the reason, one of :data:`~lhttp_tx.transports.websocket.flow.NOT_READING`.
        """
        self._flow |= why
        self.transport.pauseProducing()

    def go_on_reading(self, why: int) -> None:
        """Continue reading, unless there is another reason to wait. Pass on the data that was read before."""
        self._flow &= ~why
        if self.state == _CLOSED:
            return
        if not self._flow & NOT_READING:
            self.transport.resumeProducing()
        if not self._flow & HELD_BACK and (self.data or self._beginning or self._untaken is not None):
            self.dataReceived(b"")

    def _give_way(self) -> None:
        """Stop reading until the next turn of the reactor."""
        self.hold_reading(YIELDING)
        self.factory.reactor.callLater(0, self.go_on_reading, YIELDING)

    # Writing

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Write bytes at once. If Autobahn has to cut up these or earlier bytes, leave the write to it."""
        if sync or chopsize or "send_queue" in vars(self):
            super().sendData(data, sync, chopsize)
        else:
            self.transport.write(data)

    def write_frames(self, frames: bytes) -> None:
        """
        Write whole frames now, without the outbox.

        An idle TCP socket takes them at once. This saves two system calls for each delivery: Twisted would register a
        writer, and wait for the reactor's next turn.
        """
        if self.state != _OPEN:
            return
        if self._flow and self._flow & CONGESTED:
            sent = 0
            size = self._unsent_size = self._held() + len(frames)
            if size > self.factory.engine.limits.unsent_size:
                _log.error("{peer}: closed, it does not read: {size} bytes unsent", peer=self.peer, size=size)
                self._tell_undelivered(frames)
                self.close(TOO_SLOW, "too slow: unsent messages pass the limit")
                return
        elif self._socket is not None and not (self.transport.dataBuffer or self.transport._tempDataBuffer):
            try:
                sent = self._socket.send(frames)
            except OSError:
                sent = 0  # the transport itself will find the error
            if sent == len(frames):
                return
        else:
            sent = 0
        self.transport.write(frames[sent:])
        if self._unsent is not None:
            self._unsent.add(frames, self._held())

    def _held(self) -> int:
        """
        Return how many bytes wait to be sent.

        The transport reports only when everything is sent, which may never happen with a slow but steady reader. So
        this looks into the transport's buffer. Bytes that wait inside TLS, for a renegotiation, count from the start.
        """
        bottom: Any = self._bottom
        if bottom is None or getattr(self.transport, "_appSendBuffer", None):
            return self._unsent_size
        held: int = len(bottom.dataBuffer) - bottom.offset + bottom._tempDataLen
        return held

    @property
    def unsent(self) -> int:
        """See :class:`lhttp_tx.interfaces.ITransport`."""
        return self._held() + self.factory.outbox.size_of(self)

    def call_when_drained(self, call: Callable[[], None]) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.call_when_drained`."""
        self.factory.outbox.write(self)
        self._on_drained = call
        if self.is_secure:  # TLS buffers small writes until the next turn of the reactor
            self.factory._batched_timer.call_later(0, self._watch_drain)
        else:
            self._watch_drain()

    def _watch_drain(self) -> None:
        """Call the waiting function if nothing is unsent; otherwise ask the buffering transport to report it."""
        call, bottom = self._on_drained, cast(Any, self._bottom)
        if call is None:
            return
        if not self._held():
            self._on_drained = None
            call()
        elif bottom is not None and bottom.producer is not None and not bottom.producerPaused:
            # It reports that it is empty only if it has reported before that it is full.
            bottom.producerPaused = True
            bottom.producer.pauseProducing()

    def close(self, code: int, reason: str) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.close`."""
        if code == TOO_SLOW:
            self._tell_undelivered()
        if self.state == _OPEN:
            self.sendCloseFrame(code, _close_reason(reason), isReply=False)
            if self._flow & HELD_BACK:
                self.go_on_reading(HELD_BACK)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        """Write the gathered frames before the close frame, because nothing may follow it."""
        self.factory.engine.hub.flush()
        self.factory.outbox.write(self)
        if self._throttle is not None:
            self._throttle.stop()
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def _tell_undelivered(self, refused: bytes = b"") -> None:
        """
        Tell the session once which messages were not sent and never will be, if a hook asks for them.

        :param refused: frames that were not written at all.
        """
        if self._unsent is None or not isinstance(self.session, Conversation):
            return
        unsent, self._unsent = self._unsent.take(self._held()), None
        if refused:
            unsent.append(refused)
        if unsent:
            self.session.undelivered(found for frames in unsent for found in self._framing.decode(frames))

    def pauseProducing(self) -> None:
        """Called when the transport's buffer is full: stop reading from a peer that does not read."""
        if not self._flow & CONGESTED:
            self._unsent_size = _CONGESTED_SIZE
            self.hold_reading(CONGESTED)

    def resumeProducing(self) -> None:
        """Called when the transport has sent everything."""
        self._unsent_size = 0
        self._flow &= ~CONGESTED
        if not self._flow & NOT_READING and self.state != _CLOSED:
            self.transport.resumeProducing()
        if self._on_drained is not None:
            self._watch_drain()

    def stopProducing(self) -> None:
        """Called when the transport is gone; :meth:`onClose` follows."""
