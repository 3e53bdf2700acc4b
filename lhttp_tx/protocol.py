"""
The WebSocket edge: Autobahn on one side, a :class:`~lhttp_tx.session.Session` on the other.

:mod:`lhttp_tx.connection` has the flow of bytes, :mod:`lhttp_tx.opening` the handshake; here is what is said on a
connection that is open: messages are handed to the session, and its frames back. Autobahn stays the judge of what is
legal WebSocket; in the server only these modules and :mod:`lhttp_tx.factory` import it.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from autobahn.websocket.protocol import WebSocketProtocol
from twisted.logger import Logger
from zope.interface import implementer

from lhttp_tx.auth.attempt import read_parameters
from lhttp_tx.auth.gate import Gate
from lhttp_tx.auth.login import Lobby
from lhttp_tx.connection import LEAST_READ
from lhttp_tx.encodings import Encoding, gunzip
from lhttp_tx.frames import is_text
from lhttp_tx.handshake import read_handshake
from lhttp_tx.identity import Identity, new_connection_id
from lhttp_tx.interfaces import ISessionTransport
from lhttp_tx.lane import take_messages
from lhttp_tx.opening import HANDSHAKE_SIZE, Opening
from lhttp_tx.session import Session

__all__ = ["LHTTPServerProtocol"]

_log = Logger()

_OPEN = WebSocketProtocol.STATE_OPEN
_CONNECTING = WebSocketProtocol.STATE_CONNECTING
_CLOSED = WebSocketProtocol.STATE_CLOSED
_CLOSING = WebSocketProtocol.STATE_CLOSING

_GZIP_PARAMETER = "support_gzip"
"""The query parameter by which a client asks for gzip-compressed messages."""


@implementer(ISessionTransport)
class LHTTPServerProtocol(Opening):
    """
    One WebSocket connection.

    :ivar session: what its messages go to; the lobby until it is known who the client is, ``None`` before it is open.
    """

    session: Session | Lobby | None = None

    _consuming = False
    _encoding: Encoding | None = None

    # The session

    def onOpen(self) -> None:
        """Begin the session; where the client has yet to say who it is, the lobby takes its place."""
        if self.place is not None:
            self.place.open()
        self._begin_flow()
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

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Take what one read brought in; what it causes to be written is written when it is used up."""
        size = len(data)
        begin = perf_counter() if size >= LEAST_READ else 0.0
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
                    if self._admission is not None:
                        self._hold(data)
                        return
            if data or self.data:
                self._dataReceived(data)
            if self.state == _CONNECTING and len(self.data) > HANDSHAKE_SIZE:
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

    def _take_fast_lane(self, data: bytes) -> bytes:
        """
        Handle the whole messages that *data* begins with; return what is left to Autobahn.

        The beginning of a message is kept until the next read, and no longer: a frame that dribbles in is Autobahn's,
        which notices what is wrong with it at the first byte. While the session takes no more, all of it is kept.
        """
        kept, self._beginning = self._beginning, b""
        data = kept + data if kept else data
        position, more = 0, self.session is not None
        if self._queue_full:
            return self._stop_at(data)
        if self._untaken is not None:
            untaken, self._untaken = self._untaken, None
            if not self._hand_over(*untaken):
                return self._stop_at(data)
        while more:
            messages, binary, position, more = take_messages(data, position, self.maxMessagePayloadSize)
            if not messages:
                break
            if not self._hand_over(messages, 0, binary):
                return self._stop_at(data[position:])
        if position and self.autoPingTimeoutCall is not None:
            self._cancelAutoPingTimeoutCall()
        if more and (position or not kept):
            self._beginning = data[position:]
            return b""
        return data[position:]

    def _hand_over(self, messages: list[bytes], taken: int, binary: bool) -> bool:
        """Hand over all messages but the first *taken* ones; return whether the session takes more than these."""
        session: Any = self.session
        while taken < len(messages):
            taken = session.receive_run(messages, taken, binary)
            if self._queue_full or self.state != _OPEN:
                self._untaken = (messages, taken, binary)
                return False
        return True

    def _stop_at(self, data: bytes) -> bytes:
        """Keep *data* until the session takes more; if it never will, leave it to Autobahn."""
        if self.state != _OPEN:
            return data
        self._beginning = data
        return b""

    def _take_kept(self, data: bytes) -> bytes:
        """Leave everything to Autobahn."""
        kept, self._beginning = self._beginning, b""
        return kept + data

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

    def onMessageFrame(self, payload: Any) -> None:
        """Keep what a frame of a fragmented message brought; empty frames would only pile up."""
        chunks: Any = [chunk for chunk in payload if chunk]
        super().onMessageFrame(chunks)

    def onMessageEnd(self) -> None:
        """Hand over a whole message; unlike the inherited method this makes no Deferred for observers."""
        if not self.failedByMe:
            self._onMessage(b"".join(self.message_data), self.message_is_binary)
        self.message_data = None  # type: ignore[assignment]

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Hand a message to the session."""
        if self.session is not None:
            self.session.receive(payload, isBinary)

    def _receive_gzip(self, payload: bytes, isBinary: bool) -> None:
        """Hand over a message that may be compressed; one that is broken or too large is refused as such."""
        if isBinary and self.session is not None:
            data = gunzip(payload, 2 * self.factory.engine.limits.message_size)
            self.session.receive(data, data is payload or not is_text(data))
        elif self.session is not None:
            self.session.receive(payload, isBinary)

    # Writing

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
