"""
The edge of a plain stream: bytes on one side, a :class:`~lhttp_tx.engine.conversation.Conversation` on the other.

:mod:`lhttp_tx.transports.tcp.connection` has the flow of bytes, and :mod:`lhttp_tx.transports.tcp.framing` the form of
messages. A connection opens with the line that begins its first message. Until then, it is a *stranger*, and costs
almost nothing. There is no handshake, so a client sends its credentials in a login message.
"""

from __future__ import annotations

from time import perf_counter, thread_time
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.auth.gate import Gate
from lhttp_tx.auth.lobby import Lobby
from lhttp_tx.codec.codes import GOING_AWAY, INTERNAL_ERROR, POLICY_VIOLATION, PROTOCOL_ERROR, TOO_BIG, TOO_SLOW
from lhttp_tx.engine.answers import error_message
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.handshake import Handshake
from lhttp_tx.errors import LHTTPError, Refused, RemoteProtocolError
from lhttp_tx.guard.admission import peer_name
from lhttp_tx.guard.reads import LEAST_READ
from lhttp_tx.identity import Identity, new_connection_id
from lhttp_tx.interfaces import ITransport
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.tcp.connection import Connection
from lhttp_tx.transports.tcp.framing import begins, by_kind, take_messages
from lhttp_tx.transports.tcp.owner import Owner
from lhttp_tx.transports.websocket.flow import FULL, HELD_BACK, YIELDING
from lhttp_tx.transports.websocket.handshake import certificate_of
from lhttp_tx.transports.websocket.throttle import Throttle, is_limited

__all__ = ["TCPProtocol"]

_log = RationedLogger(__name__)

_TOO_MANY = (429, 503)
"""Statuses of refusals that can be frequent. The log gets no line for each."""

_CODES = {400: PROTOCOL_ERROR, 413: TOO_BIG, 500: INTERNAL_ERROR, 503: TOO_SLOW}
"""The close code after an error that ends a connection, by its status; all others have 1008."""


@implementer(ITransport, IHalfCloseableProtocol)
class TCPProtocol(Connection):
    """One connection."""

    __slots__ = ("_admission", "_kept", "_untaken", "_wanted")

    def __init__(self, owner: Owner) -> None:
        """:param owner: the connections of its server."""
        super().__init__(owner)
        self._kept: bytearray | None = None
        self._wanted = 0
        self._untaken: list[tuple[list[bytes], int, bool]] = []
        self._admission: Deferred[Any] | None = None

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Take the data of one read. Write everything that it causes at its end."""
        if self.ended:
            return
        self._heard = True
        size = len(data)
        counters = self._owner.engine.counters
        if counters is not None:
            counters.received_bytes += size
        self._handle(data)
        if self._throttle is not None:
            self._throttle.count_bytes(size)

    def readConnectionLost(self) -> None:
        """Called when the client has ended its side. It still gets the answers to its messages."""
        if self.ended:
            self.transport.loseConnection()
            return
        self._half_closed = True
        self._handle(b"")

    def writeConnectionLost(self) -> None:
        """Called when the last message has left. The client must now end its side."""

    def go_on(self) -> None:
        """Pass on the data that was read before."""
        if self._kept is not None or self._untaken or self._half_closed:
            self._handle(b"")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the session that its connection has ended, whatever the cause."""
        admission, self._admission = self._admission, None
        super().connectionLost(reason)
        self._kept = None
        self._untaken.clear()
        if admission is not None:
            admission.cancel()

    def _handle(self, data: bytes) -> None:
        size = len(data)
        begin = thread_time() if size >= LEAST_READ else 0.0
        outbox = self._owner.factory.outbox
        outbox.cork()
        try:
            self._take(data)
            if self._half_closed and not self.ended and not self._flow & HELD_BACK:
                self._finish()
        except Exception:
            _log.failure("{peer}: reading failed", peer=self.peer)
            self.end(INTERNAL_ERROR, "internal error")
        finally:
            if begin:  # before the deliveries to others, which this client does not pay for
                self._pace(size, thread_time() - begin)
            outbox.uncork()

    def _take(self, data: bytes) -> None:
        """Pass on whole messages as long as the session takes them. Keep the rest."""
        kept = self._kept
        if kept is not None:
            kept += data
            if len(kept) < self._wanted or self._flow & HELD_BACK:
                return
            data, self._kept = bytes(kept), None
        elif self._flow & HELD_BACK:
            self._keep(data, 0)
            return
        if self.session is None and not self._open(data):
            return
        untaken, self._untaken = self._untaken, []
        if not self._hand_over(untaken):
            self._keep(data, 0)
            return
        taken = take_messages(data, self._owner.largest)
        if taken.messages and not self._hand_over([(run, 0, binary) for run, binary in by_kind(taken.messages)]):
            self._keep(data[taken.position :], 0)
        elif taken.error is not None:
            self.fail(taken.error)
        elif taken.wanted:
            self._keep(data[taken.position :], taken.wanted)

    def _keep(self, data: bytes, wanted: int) -> None:
        """
        Keep bytes until more come, or the session takes more.

        :param wanted: how many bytes are needed before another look can find a whole message.
        """
        if data and not self.ended:
            self._kept = bytearray(data)
            self._wanted = wanted

    def _hand_over(self, runs: list[tuple[list[bytes], int, bool]]) -> bool:
        """
        Pass on messages. Return whether the session takes even more.

        :param runs: runs of messages of one kind, how many of each run were taken before, and whether they are binary.
        """
        end = perf_counter() + self._owner.turn
        for number, (messages, before, binary) in enumerate(runs):
            session: Any = self.session if self._throttle is None else self._throttle
            taken = before
            while taken < len(messages):
                if self._flow & HELD_BACK or self.ended:
                    self._untaken = [] if self.ended else [(messages, taken, binary), *runs[number + 1 :]]
                    return False
                taken = session.receive_run(messages, taken, binary)
                if perf_counter() > end and not self._flow & HELD_BACK:
                    self.hold_reading(YIELDING)
                    self._owner.clock.callLater(0, self.go_on_reading, YIELDING)
        return not self._flow & HELD_BACK and not self.ended

    def _finish(self) -> None:
        """Answer the messages that have come, and close, because the client has ended its side."""
        if self._kept is not None:
            self.fail(RemoteProtocolError("the stream has ended inside a message"))
        elif isinstance(self.session, Conversation):
            self.session.finish(1000, "")
        else:
            self.end(1000, "")

    # Opening

    def _open(self, data: bytes) -> bool:
        """Open the session if a first message begins. Return whether it takes messages now."""
        place, owner = self.place, self._owner
        assert place is not None
        if not data or self._admission is not None:
            return False
        if not place.move(self.transport.getPeer()):
            self._abort()
            return False
        if not begins(data):
            taken = take_messages(data, owner.largest)
            if taken.error is not None:
                self._refuse(taken.error)
            else:
                self._keep(data, taken.wanted)
            return False
        self.peer = peer_name(self.transport.getPeer())
        try:
            owner.check(place)
        except Refused as refused:
            self._refuse(refused)
            return False
        place.take()
        place.open()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        owner.entered(self)
        if is_limited(owner.engine.limits):
            self._throttle = Throttle(self, owner.engine.limits, owner.clock)
        gate = owner.factory.gate
        if gate is None:
            self.session = owner.engine.open_session(self, None, self._shown())
        else:
            self._ask(gate)
            if self.session is None:
                self._keep(data, 0)
        return self.session is not None and not self._flow & HELD_BACK

    def _ask(self, gate: Gate) -> None:
        """Let the authenticators decide. Stop reading meanwhile."""
        certificate = certificate_of(self.transport) if self.is_secure else None
        attempt = LoginAttempt(self.peer, new_connection_id(), "", secure=self.is_secure, certificate=certificate)
        admission = gate.admit(attempt, by_message=True)
        waits = not admission.called
        if waits:
            self._admission = admission
            self.hold_reading(FULL)
        admission.addCallback(self._admitted, gate, attempt)
        admission.addErrback(self._not_admitted)
        if waits:
            admission.addCallback(lambda _: self.go_on_reading(FULL))
            admission.addErrback(lambda failure: _log.failure("opening a connection failed", failure))

    def _admitted(self, identity: Identity | None, gate: Gate, attempt: LoginAttempt) -> None:
        self._admission = None
        if self.ended:
            return
        if self._owner.factory.draining:  # a session that is opened now would never be closed
            raise Refused(503, "server is going away")
        if identity is None:
            limits, seconds = self._owner.engine.limits, self._owner.login_timeout
            self.session = Lobby(gate, attempt, transport=self, limits=limits, enter=self._enter, timeout=seconds)
        else:
            self.session = self._owner.engine.open_session(self, identity, self._shown())

    def _not_admitted(self, failure: Failure) -> None:
        self._admission = None
        error = failure.value
        if self.ended or isinstance(error, CancelledError):
            return
        if not isinstance(error, LHTTPError):
            _log.failure("{peer}: opening a connection failed", failure, peer=self.peer)
            error = Refused(500, "internal error")
        self._refuse(error)

    def _enter(self, identity: Identity) -> Conversation:
        session = self.session = self._owner.engine.open_session(self, identity)
        return session

    def _shown(self) -> Handshake | None:
        """Return how the client has opened the connection; ``None`` if no code can ask for it."""
        if not self._owner.engine.open_steps:
            return None
        return Handshake("", certificate=certificate_of(self.transport) if self.is_secure else None)

    # Refusing

    def _refuse(self, error: LHTTPError) -> None:
        """Refuse a connection that has no session."""
        status, reason = error.status, error.reason
        if status in _TOO_MANY:
            self._owner.factory.admission.refuse(self.peer, f"status {status}, {reason}")
        else:
            _log.info("{peer}: refused with {status}: {reason!r}", peer=self.peer, status=status, reason=reason)
        counters = self._owner.engine.counters
        if counters is not None:
            counters.refused[str(status)] += 1
        self.fail(error)

    def fail(self, error: LHTTPError) -> None:
        """Send an error to the client, and close the connection."""
        code = _CODES.get(error.status, POLICY_VIOLATION)
        if self._owner.factory.draining:
            code = GOING_AWAY
        self._owner.engine.hub.flush()  # what was published before comes before
        self.send(error_message(error.status, error.reason, None).raw, False)
        self.end(code, error.reason)
