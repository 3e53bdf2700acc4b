"""
One connection on a plain stream, as the transport sees it: its beginning, its end, and the flow of bytes between.

The layer below :mod:`lhttp_tx.transports.tcp.protocol`, which reads the messages. If the server closes a connection,
the last message is ``close``, with a code and a reason. The server then ends its side of the stream, and waits until
the client ends the other side, or for the close timeout. If it closed at once while the client still sent, the client
could lose the last messages.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from lhttp_tx.codec.codes import POLICY_VIOLATION
from lhttp_tx.engine.answers import close_message
from lhttp_tx.guard.admission import Place, peer_name
from lhttp_tx.guard.proxied import is_proxied
from lhttp_tx.guard.reads import pace
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.endings import Ending, note_ending
from lhttp_tx.transports.tcp.framing import HEARTBEAT, frame
from lhttp_tx.transports.tcp.owner import Owner
from lhttp_tx.transports.tcp.sending import Sending
from lhttp_tx.transports.websocket.flow import CONGESTED, FULL, HELD_BACK, NOT_READING, THROTTLED
from lhttp_tx.transports.websocket.throttle import Throttle

__all__ = ["Connection"]

_log = RationedLogger(__name__)

_PAUSES = {THROTTLED: "rate", FULL: "queue", CONGESTED: "unsent"}
"""The reasons for pauses in reading, as the metrics name them."""

_REASON_SIZE = 123
"""The most bytes of the reason in ``close``, as in a close frame of a WebSocket."""


class Connection(Sending):
    """
    One connection, without the handling of its messages.

    :ivar place: its place among the connections of the server.
    :ivar part: see :class:`lhttp_tx.transports.pulse.Beating`.
    :ivar ending: how the connection has ended; ``None`` before that.
    """

    kind = "tcp"

    __slots__ = ("_flow", "_half_closed", "_heard", "_linger", "_throttle", "_waiting", "ending", "part", "place")

    def __init__(self, owner: Owner) -> None:
        """:param owner: the connections of its server."""
        super().__init__(owner)
        self.part = -1
        self.place: Place | None = None
        self.ending: Ending | None = None
        self._flow = 0
        self._half_closed = False
        self._heard = True
        self._linger: IDelayedCall | None = None
        self._waiting: IDelayedCall | None = None
        self._throttle: Throttle | None = None

    # Beginning and end

    def makeConnection(self, transport: Any) -> None:
        """Begin a connection. Called before the first read."""
        self.connect(transport, self._owner.patience)
        address = transport.getPeer()
        self.peer = peer_name(address)
        self.place = self._owner.factory.admission.enter(None if is_proxied(transport) else address)
        self.place.watch(self._abort)
        self._owner.strangers.add(self)
        self._waiting = self._owner.clock.callLater(self._owner.handshake_timeout, self._late)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the session that its connection has ended, whatever the cause."""
        for timer in (self._linger, self._waiting):
            if timer is not None and timer.active():
                timer.cancel()
        if self._throttle is not None:
            self._throttle.stop()
        self._tell_undelivered()
        if not self.ended:
            self._note_end(1000 if reason.check(ConnectionDone) else 1006, "", "client")
        self.ended = True
        self._owner.left(self)
        if self.place is not None:
            self.place.leave()
        if self.session is not None:
            self.session.connection_lost()

    def _late(self) -> None:
        seconds = self._owner.handshake_timeout
        self.end(POLICY_VIOLATION, f"no message within {seconds:g} seconds")

    def _note_end(self, code: int, reason: str, by: str) -> None:
        note_ending(self, self.session, Ending(code, reason, by), self._owner.engine.counters)

    def end(self, code: int, reason: str) -> None:
        """Write what waits in the outbox, write ``close`` with *code* and *reason*, and close the stream."""
        if not self.ended:
            self._owner.engine.hub.flush()
            self._owner.factory.outbox.write(self)
        if self.ended:  # it may have been too much to write
            return
        self.ended = True
        self._note_end(code, reason, "server")
        if self._throttle is not None:
            self._throttle.stop()
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()
        transport = self.transport
        text = reason.encode("utf-8", "replace")[:_REASON_SIZE].decode("utf-8", "ignore")
        transport.write(frame(close_message(code, text).raw))
        transport.unregisterProducer()  # a paused producer would keep the connection open
        if self._half_closed or self.is_secure or not hasattr(transport, "loseWriteConnection"):
            transport.resumeProducing()
            transport.loseConnection()
        else:
            transport.loseWriteConnection()
            transport.resumeProducing()
        self._linger = self._owner.clock.callLater(self._owner.close_timeout, transport.abortConnection)

    def _abort(self) -> None:
        self.ended = True
        self.transport.abortConnection()

    # Heartbeats

    def beat(self) -> None:
        """
        Check whether the client is alive.

        Send a heartbeat, which the client must answer. If bytes wait to be sent, note their number instead:
        :attr:`is_silent` then looks whether some of them have left.
        """
        if self.ended:
            return
        self._held_at, self._added = self.held(), 0
        if not self._held_at:
            self._heard = False
            self.write_frames(HEARTBEAT)

    @property
    def is_silent(self) -> bool:
        """Whether, since :meth:`beat`, the client has sent nothing, or none of the waiting bytes has left."""
        if self.ended or self._flow & HELD_BACK:  # an answer may have arrived, but was not read yet
            return False
        if self._held_at:
            return self.held() >= self._held_at + self._added
        return not self._heard

    def give_up(self) -> None:
        """End the connection, because its client does not answer heartbeats."""
        _log.info("{peer}: closed, it does not answer heartbeats", peer=self.peer)
        self.end(POLICY_VIOLATION, "no answer to a heartbeat: answer an empty message with another one")

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

        :param why: the reason, one of those of :mod:`lhttp_tx.transports.websocket.flow`.
        """
        if self.ended:
            return
        self._flow |= why
        counters = self._owner.engine.counters
        if counters is not None and why in _PAUSES:
            counters.pauses[_PAUSES[why]] += 1
        self.transport.pauseProducing()

    def go_on_reading(self, why: int) -> None:
        """Continue reading, unless there is another reason to wait. Pass on the data that was read before."""
        self._flow &= ~why
        if self.ended:
            return
        if not self._flow & NOT_READING and not self._half_closed:
            self.transport.resumeProducing()
        if not self._flow & HELD_BACK:
            self.go_on()

    def go_on(self) -> None:
        """Pass on the data that was read before."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.pause_reading`."""
        self.hold_reading(FULL)

    def resume_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.resume_reading`."""
        self.go_on_reading(FULL)

    def pauseProducing(self) -> None:
        """Called when the transport's buffer is full: stop reading from a peer that does not read."""
        super().pauseProducing()
        if not self._flow & CONGESTED:
            self.hold_reading(CONGESTED)

    def resumeProducing(self) -> None:
        """Called when the transport has sent everything."""
        self._flow &= ~CONGESTED
        if not self._flow & NOT_READING and not self._half_closed and not self.ended:
            self.transport.resumeProducing()
        super().resumeProducing()
