"""
The session of a client without a connection of its own: requests bring its messages, and fetch the messages for it.

To the engine, it is an :class:`~lhttp_tx.interfaces.ITransport`, like a WebSocket. So rules, limits, presence, hooks,
control and histories work in the same way. This module does not know HTTP: requests to this node and to others call the
same methods.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.auth.gate import Gate
from lhttp_tx.auth.lobby import Lobby
from lhttp_tx.codec.codes import TOO_SLOW
from lhttp_tx.engine.answers import close_message
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.handshake import Handshake
from lhttp_tx.errors import Refused
from lhttp_tx.guard.admission import Seat
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import ITransport
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.endings import Ending, note_ending
from lhttp_tx.transports.http.bodies import Run
from lhttp_tx.transports.http.entries import Form
from lhttp_tx.transports.http.intake import Intake
from lhttp_tx.transports.http.outlet import Fetched, Outlet
from lhttp_tx.transports.websocket.flow import FULL
from lhttp_tx.transports.websocket.outbox import Outbox

__all__ = ["ENDED", "HTTPSession"]

_log = RationedLogger(__name__)

ENDED = "there is no such session, or it has ended: connect again"
"""The reason of status 404 for every unknown secret, whatever is wrong with the secret."""

_ID_SIZE, _KEY_SIZE = 8, 24
"""Random bytes of a session's id, and of its secret key."""


class SessionOwner(Protocol):
    """
    The owner of a session, as the session sees it: :class:`lhttp_tx.transports.http.sessions.Sessions`.

    :ivar clock: the reactor.
    :ivar engine: the engine.
    :ivar gate: identifies clients; ``None`` if the server does not authenticate them.
    :ivar outbox: is corked while messages are handled.
    :ivar patience: seconds for which a session waits for a request that fetches.
    :ivar close_timeout: seconds within which a client may fetch the last entries of a closed session.
    """

    clock: IReactorTime
    engine: Engine
    gate: Gate | None
    outbox: Outbox
    patience: float
    close_timeout: float

    def forget(self, session: HTTPSession) -> None:
        """Forget a session. Called once, when it has ended, and its client has fetched everything or is gone."""


@implementer(ITransport)
class HTTPSession:
    """
    The session of one client.

    :ivar id: the name of the session on its node.
    :ivar key: the secret part, which only the client knows.
    :ivar peer: the address that the client had when it connected, for logs.
    :ivar seat: its place among the connections of the server.
    :ivar ending: how the session has ended; ``None`` before that.
    """

    kind = "http"
    """The name of this transport in metrics and on the admin side."""

    compresses = False
    """See :class:`lhttp_tx.interfaces.ITransport`."""

    def __init__(self, owner: SessionOwner, peer: str, seat: Seat, form: Form) -> None:
        """
        :param owner: the owner of the session.
        :param peer: the address of the client.
        :param seat: its place among the connections of the server.
        :param form: makes entries from messages.
        """
        engine = owner.engine
        self.id = secrets.token_hex(_ID_SIZE)
        self.key = secrets.token_urlsafe(_KEY_SIZE)
        self.peer = peer
        self.seat = seat
        self._owner = owner
        self._form = form
        self._intake = Intake(engine.limits, owner.clock, owner.outbox, self._broken)
        self._outlet = Outlet(owner.clock, engine.limits.unsent_size, owner.patience, self._lapsed)
        self._keeps = bool(engine.on_undelivered)
        self._session: Conversation | Lobby | None = None
        self._gone = False
        self.ending: Ending | None = None

    def is_key(self, key: str) -> bool:
        """Return whether *key* is the secret part. The check takes the same time for every wrong key."""
        return hmac.compare_digest(self.key.encode("ascii"), key.encode("utf-8", "replace"))

    # Beginning and end

    def open(self, identity: Identity | None, attempt: LoginAttempt | None, handshake: Handshake | None) -> None:
        """
        Open the session, or the lobby if the client must log in first.

        :param identity: the identity of the client; ``None`` if only its address is known.
        :param attempt: its attempt to log in; ``None`` if the server has no authenticators.
        :param handshake: the request that opened the session; ``None`` if no code can ask for it.
        """
        self._outlet.expect()
        engine, gate = self._owner.engine, self._owner.gate
        try:
            if identity is None and gate is not None and attempt is not None:
                self._begin(Lobby(gate, attempt, transport=self, limits=engine.limits, enter=self._enter))
            else:
                self._begin(engine.open_session(self, identity, handshake))
        except Exception:
            self._broken()

    def _begin(self, session: Conversation | Lobby) -> None:
        self._session = session
        self._intake.session = None if self._outlet.closed else session

    def _enter(self, identity: Identity) -> Conversation:
        session = self._owner.engine.open_session(self, identity)
        self._begin(session)
        return session

    def _broken(self) -> None:
        _log.failure("{peer}: handling messages failed", peer=self.peer)
        self.close(1011, "internal error")

    def _lapsed(self) -> None:
        if not self._outlet.closed:
            _log.info("{peer}: session ended, nobody fetches its messages", peer=self.peer)
        self.end(1006, "nobody fetches its messages")

    def end(self, code: int = 1006, reason: str = "") -> None:
        """
        End the session at once. Drop the entries that were not fetched.

        :param code: 1000 if the client ends the session, otherwise 1006. Operators see it.
        :param reason: the reason, for operators.
        """
        if self._gone:
            return
        self._gone = True
        self._note_end(Ending(code, reason, "client"))
        self._owner.forget(self)
        self.seat.leave()
        self._tell_undelivered()
        self._outlet.closed = True
        self._outlet.stop(Refused(404, ENDED))
        self._lose()

    def _note_end(self, ending: Ending) -> None:
        note_ending(self, self._session, ending, self._owner.engine.counters)

    def _lose(self) -> None:
        """Tell the engine's session that its connection is lost."""
        self._intake.stop(Refused(404, ENDED))
        if self._session is not None:
            self._session.connection_lost()

    def _tell_undelivered(self) -> None:
        """Tell the engine's session which messages were never handed out, if a hook asks for them."""
        given_up = self._outlet.backlog.give_up()
        if given_up and isinstance(self._session, Conversation):
            self._session.undelivered(given_up)

    # ITransport

    @property
    def unsent(self) -> int:
        """See :class:`lhttp_tx.interfaces.ITransport`: the bytes that no request has fetched yet."""
        return self._outlet.backlog.unhanded

    @property
    def converts(self) -> bool:
        """See :class:`lhttp_tx.interfaces.ITransport`."""
        return self._form.converts

    def deliver(self, delivery: Delivery) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.deliver`."""
        if self._keeps:
            for payload in delivery.payloads:
                self.send(payload, delivery.binary)
        else:
            self._add(delivery.encoded(self._form))

    def send(self, payload: bytes, binary: bool) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.send`."""
        self._add(self._form.encode([payload], binary), (payload, binary) if self._keeps else None)

    def _add(self, entries: list[bytes], message: tuple[bytes, bool] | None = None) -> None:
        outlet = self._outlet
        if len(entries) > 1 and not outlet.closed and outlet.backlog.add_all(entries):
            outlet.wake()
            return
        for entry in entries:
            if outlet.closed:
                return
            if not outlet.backlog.add(entry, message):
                size = outlet.backlog.unhanded
                _log.error("{peer}: closed, it does not fetch: {size} bytes unsent", peer=self.peer, size=size)
                self._tell_undelivered()
                if message is not None and isinstance(self._session, Conversation):
                    self._session.undelivered([message])
                self.close(TOO_SLOW, "too slow: unsent messages pass the limit")
        outlet.wake()

    def call_when_drained(self, call: Callable[[], None]) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.call_when_drained`."""
        self._outlet.call_when_drained(call)

    def pause_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.pause_reading`."""
        self._intake.hold_reading(FULL)

    def resume_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.resume_reading`."""
        self._intake.go_on_reading(FULL)

    def close(self, code: int, reason: str) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.close`. The last message tells the client."""
        outlet = self._outlet
        if outlet.closed:
            return
        if code == TOO_SLOW:
            self._tell_undelivered()
        outlet.closed = True
        self._note_end(Ending(code, reason, "server"))
        self._intake.session = None
        for entry in self._form.encode([close_message(code, reason).raw], False):
            outlet.backlog.add(entry, force=True)
        outlet.patience = self._owner.close_timeout
        outlet.wake()
        outlet.expect()
        self._owner.clock.callLater(0, self._lose)  # the session may be in the middle of a call

    # For the requests of the client

    def take(self, runs: list[Run], number: int | None, size: int, after: int) -> Deferred[None]:
        """
        Pass on messages that a request has brought; see :meth:`lhttp_tx.transports.http.intake.Intake.take`.

        :param after: the number of the last entry that the client has.
        :raises Refused: also with status 404, if the session is closed.
        """
        if self._outlet.closed:
            raise Refused(404, ENDED)
        self._outlet.backlog.acknowledge(after)
        return self._intake.take(runs, number, size)

    def fetch(self, fetcher: str, after: int, *, wait: float, most: int, begins: bool) -> Deferred[Fetched]:
        """
        Get entries as soon as there are any; see :meth:`lhttp_tx.transports.http.outlet.Outlet.fetch`.

        :raises Refused: also with status 404, if the session has ended. Status 410 ends it.
        """
        outlet = self._outlet
        if outlet.closed and after >= outlet.backlog.last:
            self.end()
        if self._gone:
            raise Refused(404, ENDED)
        try:
            fetching = outlet.fetch(fetcher, after, wait=wait, most=most, begins=begins)
        except Refused as refused:
            if refused.status == 410:
                _log.info("{peer}: session ended, its client has lost messages", peer=self.peer)
                self.end(1006, "its client has lost messages")
            raise
        self.seat.open()
        return fetching
