"""
The state that all connections of one server share: their heartbeats, their time limits and their count.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall

from lhttp_tx.codec.codes import GOING_AWAY
from lhttp_tx.errors import Refused
from lhttp_tx.guard.admission import Place
from lhttp_tx.guard.reads import TURN
from lhttp_tx.transports.pulse import Beating, Pulse
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory

__all__ = ["Owner"]


class Owned(Beating, Protocol):
    """A connection, as its owner sees it. Its client gets heartbeats and must answer them."""

    def end(self, code: int, reason: str) -> None:
        """Tell the client the code and the reason, and close the connection."""

    @property
    def is_silent(self) -> bool:
        """Whether the client has not answered the last heartbeat."""

    def give_up(self) -> None:
        """End the connection, because its client does not answer heartbeats."""


class Owner:
    """
    The connections of one server.

    :ivar factory: makes the WebSockets of the server. TCP connections count as such, and use its outbox.
    :ivar engine: the engine.
    :ivar clock: the reactor.
    :ivar turn: seconds that the messages of one connection may take in one turn of the reactor.
    :ivar strangers: connections whose first message has not begun.
    :ivar largest: the most bytes of a message that is read. A message between the limit and this gets error 413.
    :ivar patience: seconds for which a client may leave bytes unacknowledged; 0: the default of the system.
    :ivar handshake_timeout: seconds within which the first message must begin.
    :ivar login_timeout: seconds within which a client must log in, if it has to.
    :ivar close_timeout: seconds within which a client must end its side after ``close``.
    """

    def __init__(self, factory: LHTTPServerFactory) -> None:
        """:param factory: makes the WebSockets of the server."""
        self.factory = factory
        self.engine = factory.engine
        self.clock: Any = factory.reactor
        self.turn = TURN
        self.strangers: set[Owned] = set()
        self.largest = 2 * factory.engine.limits.message_size
        interval: float = factory.autoPingInterval
        self._timeout: float = factory.autoPingTimeout
        self.patience: float = interval + self._timeout if interval else 0.0
        self.handshake_timeout: float = factory.openHandshakeTimeout
        gate = factory.gate
        self.login_timeout = gate.login_timeout if gate is not None and gate.login_timeout else self.handshake_timeout
        self.close_timeout: float = factory.closeHandshakeTimeout
        self._pulse = Pulse(self.clock, interval, self._expect)
        self._count = 0
        self._looks: deque[IDelayedCall] = deque()

    def check(self, place: Place) -> None:
        """
        Check whether the server accepts a connection.

        :raises Refused: with status 503 if the server is stopping, or has too many connections; 429 if the address of
            the client has too many.
        """
        factory = self.factory
        if factory.draining:
            raise Refused(503, "server is going away")
        place.check({})
        if 0 < factory.maxConnections <= factory.countConnections:
            raise Refused(503, "too many connections")

    def entered(self, connection: Owned) -> None:
        """Count a connection, whose first message has begun, and send heartbeats to it."""
        self.strangers.discard(connection)
        self.factory.countConnections += 1
        self._count += 1
        self._pulse.add(connection)

    def left(self, connection: Owned) -> None:
        """Forget a connection that has ended."""
        self.strangers.discard(connection)
        if connection.part < 0:
            return
        self.factory.countConnections -= 1
        self._count -= 1
        self._pulse.discard(connection)
        connection.part = -1
        if not self._count:
            while self._looks:
                self._looks.pop().cancel()

    def go_away(self) -> None:
        """End the connections whose first message has not begun, because the server stops."""
        for connection in tuple(self.strangers):
            connection.end(GOING_AWAY, "server is going away")

    def _expect(self, connections: tuple[Any, ...]) -> None:
        """Check the answers of connections that have just got a heartbeat, after the time limit."""
        if self._count:
            self._looks.append(self.clock.callLater(self._timeout, self._look, connections))

    def _look(self, connections: tuple[Owned, ...]) -> None:
        self._looks.popleft()
        silent = tuple(found for found in connections if found.is_silent)
        if silent:
            # If the process was blocked, the answers may have arrived. The reactor reads them before the next turn.
            self._looks.appendleft(self.clock.callLater(0, self._look_again, silent))

    def _look_again(self, connections: tuple[Owned, ...]) -> None:
        self._looks.popleft()
        for found in connections:
            if found.is_silent:
                found.give_up()
