"""
The sessions of one node without connections of their own, and the secrets by which their clients are known.
"""

from __future__ import annotations

import re
import secrets

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from lhttp_tx.auth.gate import Gate
from lhttp_tx.engine.engine import Engine
from lhttp_tx.errors import Refused
from lhttp_tx.guard.admission import Seat
from lhttp_tx.transports.http.entries import FORMS
from lhttp_tx.transports.http.session import ENDED, HTTPSession
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.outbox import Outbox

__all__ = ["PATIENCE", "Sessions", "node_of"]

PATIENCE = 40.0
"""Seconds for which a session waits for a request that fetches, if the server sends no pings to WebSockets."""

_LEAST_TO_READ = 10.0
"""Seconds for which the client of a closed session may fetch its last messages, at least."""

_CHECK_INTERVAL = 0.02
"""Seconds between two looks at whether clients have fetched everything, when the server stops."""

_SECRET = re.compile(r"([0-9a-f]{16})\.([0-9a-f]{16})\.([A-Za-z0-9_-]{32})")


def node_of(secret: str) -> str:
    """
    Return the name of the node that has the session with this secret.

    :raises Refused: with status 404 if *secret* does not have the form of a secret.
    """
    found = _SECRET.fullmatch(secret)
    if found is None:
        raise Refused(404, ENDED)
    return found[1]


class Sessions:
    """
    The sessions of one node.

    :ivar name: the name of the node.
    :ivar patience: seconds for which a session waits for a request that fetches: as long as a WebSocket may leave a
        ping without an answer.
    :ivar close_timeout: seconds within which a client may fetch the last entries of a closed session.
    """

    clock: IReactorTime
    engine: Engine
    gate: Gate | None
    outbox: Outbox

    def __init__(self, factory: LHTTPServerFactory, name: str | None = None) -> None:
        """
        :param factory: makes the WebSockets of the server, among which sessions count.
        :param name: the name of the node, 16 hexadecimal digits; by default a random one.
        """
        self.name = secrets.token_hex(8) if name is None else name
        self.engine = factory.engine
        self.clock = factory.reactor
        self.gate = factory.gate
        self.outbox = factory.outbox
        interval: float = factory.autoPingInterval
        self.patience = interval + factory.autoPingTimeout if interval else PATIENCE
        self.close_timeout = max(_LEAST_TO_READ, factory.closeHandshakeTimeout)
        self._factory = factory
        self._known: dict[str, HTTPSession] = {}

    def __len__(self) -> int:
        return len(self._known)

    def check(self) -> None:
        """
        :raises Refused: with status 503 if there are too many connections already.
        """
        factory = self._factory
        if 0 < factory.maxConnections <= factory.countConnections:
            raise Refused(503, "too many connections")

    def begin(self, peer: str, seat: Seat, form: str) -> HTTPSession:
        """
        Return a new session. Open it next.

        :param peer: the address of the client.
        :param seat: its place among the connections of the server.
        :param form: one of :data:`~lhttp_tx.transports.http.entries.FORMS`.
        """
        session = HTTPSession(self, peer, seat, FORMS[form])
        self._known[session.id] = session
        self._factory.countConnections += 1
        seat.take()
        seat.watch(session.end)
        return session

    def secret_of(self, session: HTTPSession) -> str:
        """
        Return the secret for the client of *session*. It contains the name of this node, so that other nodes find it.
        """
        return f"{self.name}.{session.id}.{session.key}"

    def find(self, secret: str) -> HTTPSession:
        """
        Return the session with this secret.

        :raises Refused: with status 404 if there is none.
        """
        found = _SECRET.fullmatch(secret)
        session = None if found is None else self._known.get(found[2])
        if found is None or session is None or not session.is_key(found[3]):
            raise Refused(404, ENDED)
        return session

    def forget(self, session: HTTPSession) -> None:
        """Forget a session, and no longer count it."""
        if self._known.pop(session.id, None) is not None:
            self._factory.countConnections -= 1

    def stop(self) -> Deferred[None]:
        """
        End all sessions. The server is stopping, and has closed them before.

        Their clients get some time to fetch the last messages, as much as a WebSocket has to answer a close.

        :returns: a Deferred that succeeds when the answers to the requests of their clients were written.
        """
        if not self._known:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._end_all(done, self.clock.seconds() + self._factory.closeHandshakeTimeout)
        return done

    def _end_all(self, done: Deferred[None], deadline: float) -> None:
        """End all sessions when their clients have everything, or at *deadline*."""
        if self.clock.seconds() < deadline and any(session.unsent for session in self._known.values()):
            self.clock.callLater(_CHECK_INTERVAL, self._end_all, done, deadline)
            return
        for session in tuple(self._known.values()):
            session.end()
        self.clock.callLater(0, done.callback, None)  # a reactor writes between two turns
