"""
The WebSocket edge: Autobahn on one side, a :class:`~lhttp_tx.engine.conversation.Conversation` on the other.

:mod:`lhttp_tx.transports.websocket.connection` has the flow of bytes, and :mod:`lhttp_tx.transports.websocket.opening`
the handshake. This module handles an open connection: it passes messages to the session, and sends the session's
frames. Autobahn decides what is legal WebSocket. In the server, only these modules and
:mod:`lhttp_tx.transports.websocket.factory` import it.
"""

from __future__ import annotations

from time import thread_time
from typing import Any

from autobahn.websocket.protocol import FrameHeader, WebSocketProtocol
from zope.interface import implementer

from lhttp_tx.auth.attempts import read_parameters
from lhttp_tx.auth.gate import Gate
from lhttp_tx.auth.lobby import Lobby
from lhttp_tx.codec.text import is_text
from lhttp_tx.codec.views import VIEWS
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.guard.reads import LEAST_READ, TURN
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import ITransport
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.websocket.coded import Decoder
from lhttp_tx.transports.websocket.compression import gunzip
from lhttp_tx.transports.websocket.flow import CONSUMING, FULL, HELD_BACK, INFLATED
from lhttp_tx.transports.websocket.fragments import LEAST_FRAGMENT, Joined, skip_frames, take_fragmented, take_fragments
from lhttp_tx.transports.websocket.frames import PLAIN, build_frame
from lhttp_tx.transports.websocket.handshake import read_handshake
from lhttp_tx.transports.websocket.opening import HANDSHAKE_SIZE, Opening
from lhttp_tx.transports.websocket.pings import take_pings
from lhttp_tx.transports.websocket.reader import take_messages
from lhttp_tx.transports.websocket.trial import SUBPROTOCOL, Trial

__all__ = ["LHTTPServerProtocol"]

_log = RationedLogger(__name__)

_OPEN = WebSocketProtocol.STATE_OPEN
_CONNECTING = WebSocketProtocol.STATE_CONNECTING
_CLOSED = WebSocketProtocol.STATE_CLOSED
_CLOSING = WebSocketProtocol.STATE_CLOSING

_CONTROLS = (0x89, 0x8A)
"""The first bytes of frames with a ping or a pong."""

_FRAGMENTED = (0x01, 0x02)
"""The first bytes of fragmented messages."""

_GZIP_PARAMETER = "support_gzip"
"""The query parameter with which a client asks for gzip-compressed messages."""


@implementer(ITransport)
class LHTTPServerProtocol(Opening):
    """
    One WebSocket connection.

    :ivar session: takes its messages. It is the lobby until the client has logged in, and ``None`` before the
        connection is open.
    """

    session: Conversation | Lobby | Trial | None = None

    _unwanted = 0  # bytes of a skipped frame that have not come yet, while the connection closes

    # The session

    def onOpen(self) -> None:
        """Begin the session, the lobby if the client must log in first, or a trial."""
        if self.place is not None:
            self.place.open()
        self._begin_flow()
        self._choose_encoding()
        if self.websocket_protocol_in_use == SUBPROTOCOL:
            self._attempt = self._identity = None
            self.session = Trial(self, self.factory.reactor)
        elif self.factory.gate is None:
            self.session = self.factory.engine.open_session(self, self._nobody(), self._shown())
        else:
            self._open_known(self.factory.gate)
        self.handshake = None

    def _choose_encoding(self) -> None:
        """
        Compress outgoing messages, or write them as views, if the client asked for it. Other clients cost nothing.
        """
        handshake, extensions = self.handshake, self.websocket_extensions_in_use
        asked = read_parameters(handshake.query) if handshake is not None and "?" in handshake.target else {}
        if self.factory.gzip is not None and asked.get(_GZIP_PARAMETER) == "1":
            self._framing = self.factory.gzip
            self._flow |= INFLATED
        elif extensions:
            self._framing = self.factory.deflate(extensions[0].server_max_window_bits)
        if self._throttle is not None:
            self._front = self._throttle
        view = VIEWS.get(self.websocket_protocol_in_use or "")
        if view is not None:
            self._framing = self.factory.coded(view, self._framing)
            self._front = Decoder(self, view, self.factory.engine.limits, self._throttle)

    @property
    def takes_more(self) -> bool:
        """Whether messages may be passed on to the session."""
        return not self._flow & HELD_BACK and self.state == _OPEN

    def _open_known(self, gate: Gate) -> None:
        attempt, identity = self._attempt, self._identity
        self._attempt = self._identity = None
        if identity is None and attempt is not None:
            limits = self.factory.engine.limits
            self.session = Lobby(gate, attempt, transport=self, limits=limits, enter=self._enter)
        else:
            self.session = self.factory.engine.open_session(self, identity, self._shown())

    def _enter(self, identity: Identity) -> Conversation:
        session = self.session = self.factory.engine.open_session(self, identity)
        return session

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Tell the session that its connection has ended, whatever the cause."""
        timers: tuple[Any, ...] = (self._lingering, self.closeHandshakeTimeoutCall)
        for timer in timers:
            if timer is not None and timer.active():
                timer.cancel()
        if self._admission is not None:
            self._admission.cancel()
        if self._throttle is not None:
            self._throttle.stop()
        self._tell_undelivered()
        if self.session is not None:
            self.session.connection_lost()

    def onAutoPingTimeout(self) -> None:
        """
        Drop a peer that does not answer a ping. If the server does not read at the moment, the answer may wait behind
        unread messages: send another ping instead.
        """
        if self._flow & HELD_BACK:
            self.autoPingTimeoutCall = None
            self.autoPingPending = None
            self._sendAutoPing()
        else:
            # If the process was blocked, the answer may have arrived. The reactor reads it before the next turn.
            self.autoPingTimeoutCall = self.factory._batched_timer.call_later(0, super().onAutoPingTimeout)

    # Reading

    def pause_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.pause_reading`."""
        self.hold_reading(FULL)

    def resume_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.resume_reading`."""
        self.go_on_reading(FULL)

    def dataReceived(self, data: bytes) -> None:
        """Take the data of one read. Write everything that it causes at its end."""
        size = len(data)
        begin = thread_time() if size >= LEAST_READ else 0.0
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
                self._pace(size, thread_time() - begin)
            outbox.uncork()
            if self._throttle is not None and size:
                self._throttle.count_bytes(size)

    def _take_fast_lane(self, data: bytes) -> bytes:
        """
        Handle the whole messages at the beginning of *data*, and return the data for Autobahn.

        An incomplete message is kept until the next read, but no longer. If it is still incomplete then, Autobahn gets
        it, because Autobahn finds errors at the first wrong byte. While the session takes no messages, all data is
        kept.
        """
        kept, self._beginning = self._beginning, b""
        data = kept + data if kept else data
        position, more = 0, self.session is not None
        end = 0.0
        if len(data) >= LEAST_READ or self._untaken is not None:
            end = self.factory.reactor.seconds() + TURN
        if self._flow and self._flow & (HELD_BACK | INFLATED):
            return data if self._flow & INFLATED else self._stop_at(data)
        if self._untaken is not None:
            untaken, self._untaken = self._untaken, None
            if not self._hand_over(*untaken, end):
                return self._stop_at(data)
        while more:
            messages, binary, position, more = take_messages(data, position, self.maxMessagePayloadSize)
            if messages and not self._hand_over(messages, 0, binary, end):
                return self._stop_at(data[position:])
            if more:
                if not messages:
                    break
            elif position < len(data) and data[position] in _FRAGMENTED:
                messages, binary, position = take_fragmented(data, position, self.maxMessagePayloadSize)
                if messages and not self._hand_over(messages, 0, binary, end):
                    return self._stop_at(data[position:])
                more = bool(messages)
            if more and end and self.factory.reactor.seconds() > end:
                self._give_way()
                return self._stop_at(data[position:])
        if position and self.autoPingTimeoutCall is not None:
            self._cancelAutoPingTimeoutCall()
        if more and (position or len(data) == len(kept) or not kept):
            self._beginning = data[position:]
            return b""
        return data[position:]

    def _hand_over(self, messages: list[bytes], taken: int, binary: bool, end: float) -> bool:
        """
        Pass on all messages except the first *taken* ones. Return whether the session takes more.

        :param end: when the turn of this client is over; 0: the read is so small that it needs no limit.
        """
        session: Any = self._front or self.session
        seconds = self.factory.reactor.seconds if end else None
        count = len(messages)
        while taken < count:
            taken = session.receive_run(messages, taken, binary)
            if (self._flow and self._flow & HELD_BACK) or self.state != _OPEN:
                self._untaken = (messages, taken, binary) if taken < count else None
                return False
            if seconds is not None and taken < count and seconds() > end:
                self._give_way()
                self._untaken = messages, taken, binary
                return False
        return True

    def _stop_at(self, data: bytes) -> bytes:
        """Keep *data* until the session takes more. If it never will, leave the data to Autobahn."""
        if self.state != _OPEN:
            return data
        self._beginning = data
        return b""

    def consumeData(self) -> None:
        """Take messages out of the read buffer until it is used up or the session's queue is full."""
        if self.state != _OPEN and self.state != _CLOSING:
            super().consumeData()
            return
        if self._flow & CONSUMING:
            return
        self._flow |= CONSUMING
        end = self.factory.reactor.seconds() + TURN
        try:
            more = True
            while more and not self._flow & HELD_BACK and self.state != _CLOSED:
                if self.state == _CLOSING and self.current_frame is None and not self._skip():
                    break
                if self.current_frame is None and self.state == _OPEN and self.data:
                    self._take_small(self.data[0])
                more = self.processData()
                if more and self.data and self.factory.reactor.seconds() > end:
                    self._give_way()
                    if self.current_frame is None and not self.inside_message and self.state == _OPEN:
                        self._beginning, self.data = self.data, b""  # back to the fast lane
        finally:
            self._flow &= ~CONSUMING

    def _skip(self) -> bool:
        """Skip incoming data while waiting for the answer to a close frame. Return whether there is more to handle."""
        position = skip_frames(self.data, self._unwanted)
        self._unwanted = max(0, position - len(self.data))
        self.data = self.data[position:]
        return bool(self.data)

    def count_inflated(self, size: int) -> None:
        """Count inflated bytes as if the client had sent them uncompressed, in addition to the compressed bytes."""
        if self._throttle is not None:
            self._throttle.count_bytes(size)

    def _take_small(self, first: int) -> None:
        """
        Take many small frames together, so that each costs little: pings and fragments, even if they alternate.

        Autobahn gets the fragments as one fragment. It uses up as many bytes of the message's limit as the single
        fragments. If a subclass overrides the handling of pings, Autobahn handles each ping.
        """
        if first not in _CONTROLS and (first or not self.inside_message):
            return
        kind = type(self)
        takes_pings = kind.onPing is LHTTPServerProtocol.onPing and kind.onPong is LHTTPServerProtocol.onPong
        pieces: list[bytes] = []
        answers: list[bytes] = []
        begin = position = missing = 0
        while True:
            if self.inside_message:
                piece, short, position = take_fragments(self.data, begin)
                missing += short
                pieces.append(piece)
            if takes_pings:
                answer, position = take_pings(self.data, position, self.autoPingPending)
                answers.append(answer)
            if position == begin:
                break
            begin = position
        self.data = self.data[position:]
        if any(answers):
            self.sendData(b"".join(answers))
        payload = b"".join(pieces)
        if payload or missing:
            self.message_data_total_length += missing - max(0, LEAST_FRAGMENT - len(payload))
            self.current_frame = FrameHeader(0, False, 0, len(payload), "")
            self.onFrameBegin()
            if self.onFrameData(payload) is not False:
                self.onFrameEnd()

    def onMessageBegin(self, isBinary: bool) -> None:
        """Begin a message. Its frames are joined as they come."""
        super().onMessageBegin(isBinary)
        self.message_data: Any = Joined()

    def onMessageFrameBegin(self, length: int) -> None:
        """Begin a frame. A small one uses up more of the message's limit than its size."""
        if length < LEAST_FRAGMENT:
            self.message_data_total_length += LEAST_FRAGMENT - length
        super().onMessageFrameBegin(length)

    def onMessageFrameData(self, payload: bytes) -> None:
        """Keep the part of a frame that has arrived."""
        if self._isMessageCompressed:
            self.count_inflated(len(payload))
        if not self.failedByMe:
            self.message_data.add(payload)

    def onMessageFrameEnd(self) -> None:
        """Do nothing: the frame's data was kept as it came."""

    def onMessageEnd(self) -> None:
        """Pass on a whole message. Unlike the inherited method, this makes no Deferred for observers."""
        if not self.failedByMe:
            self._onMessage(self.message_data.take(), self.message_is_binary)
        self.message_data = None

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Pass a message to the session. Refuse a compressed message that is broken or too large."""
        if self.session is None:
            return
        session = self._front or self.session
        if isBinary and self._framing.takes_gzip:
            data, inflated = gunzip(payload, self.factory.engine.limits.message_size)
            if inflated:
                self.count_inflated(inflated)
            session.receive(data, data is payload or not is_text(data))
        else:
            session.receive(payload, isBinary)

    # Writing

    def deliver(self, delivery: Delivery) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.deliver`."""
        frames = delivery.made if delivery.encoding is self._framing else delivery.encoded(self._framing)
        if self.factory.outbox.corked:
            self.factory.outbox.add(self, frames)
        else:
            self.write_frames(frames)

    def send(self, payload: bytes, binary: bool) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.send`."""
        framing = self._framing
        frame = build_frame(payload, binary) if framing is PLAIN else framing.frame(payload, binary)
        outbox = self.factory.outbox
        if outbox.corked:
            outbox.add(self, frame)
        else:
            self.write_frames(frame)
