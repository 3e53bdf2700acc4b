"""The client of a server in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.auth.gate import Gate
from lhttp_tx.auth.lobby import Lobby
from lhttp_tx.codec.codes import TOO_BIG
from lhttp_tx.codec.message import Message
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.handshake import Handshake
from lhttp_tx.errors import Refused
from lhttp_tx.identity import Identity
from lhttp_tx.testing.transport import Transport

__all__ = ["Client"]


class Client:
    """
    A client of a :class:`~lhttp_tx.testing.Server`. :meth:`Server.connect <lhttp_tx.testing.Server.connect>` makes it.

    :ivar session: the server's session of the client. It is ``None`` until the authenticators have answered. If the
        client must log in, it is a lobby until then.
    :ivar refusal: the error with which an authenticator refused the client; ``None`` if none did.
    :ivar transport: the connection as the server sees it.
    """

    def __init__(
        self,
        engine: Engine,
        peer: str,
        *,
        handshake: Handshake | None = None,
        used: Callable[[], None] = lambda: None,
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        :param engine: the engine of the server.
        :param peer: the client's address.
        :param handshake: the client's opening handshake.
        :param used: called whenever a test uses the client.
        :param is_draining: returns whether the server is stopping.
        """
        self._engine = engine
        self._used = used
        self._is_draining = is_draining
        self._handshake = handshake
        self._unread: deque[tuple[bytes, bool]] = deque()
        self._asking: Deferred[Any] | None = None
        self._is_delivering = False
        self._is_entering = False
        self.session: Any = None
        self.refusal: Exception | None = None
        self.transport = Transport(
            peer,
            unsent_size=engine.limits.unsent_size,
            on_resume=self._deliver,
            on_close=self._closed,
            on_undelivered=self._undelivered,
        )

    @property
    def peer(self) -> str:
        """The client's address."""
        return self.transport.peer

    @property
    def connected(self) -> bool:
        """Whether the connection is open. It also is while an authenticator decides."""
        return self.transport.connected

    @property
    def received(self) -> list[Message]:
        """The messages that the client has received since the last :meth:`take`."""
        return self.transport.received

    @property
    def close_code(self) -> int | None:
        """The code with which the server closed the connection; ``None``: it has not closed it."""
        return self.transport.close_code

    @property
    def close_reason(self) -> str:
        """The reason with which the server closed the connection; empty: it has not closed it."""
        return self.transport.close_reason

    @property
    def reading_paused(self) -> bool:
        """Whether the server has stopped reading from the client. Messages from the client then wait."""
        return self.transport.paused or self.transport.congested

    @property
    def unsent(self) -> int:
        """Bytes from the server that wait because the client does not read."""
        return self.transport.unsent

    def send(self, message: Message | bytes | str) -> None:
        """
        Send a message to the server.

        :param message: a message, or the payload of a WebSocket message: a str is sent as text, bytes as binary. As in
            a real server, a payload of more than twice ``Limits.message_size`` bytes closes the connection with code
            1009.
        :raises ConnectionError: if the connection has ended, or an authenticator has not decided yet.
        """
        self._used()
        if not self.connected or self.close_code is not None:
            raise ConnectionError("the connection has ended")
        if self.session is None:
            raise ConnectionError("the handshake is not complete yet: it waits for an authenticator")
        if isinstance(message, Message):
            payload, binary = message.raw, message.binary
        elif isinstance(message, str):
            payload, binary = message.encode("utf-8"), False
        else:
            payload, binary = message, True
        limit = 2 * self._engine.limits.message_size
        if len(payload) > limit:
            self.transport.close(
                TOO_BIG, f"received WebSocket message size {len(payload)} exceeds payload limit of {limit} octets"
            )
            return
        self._unread.append((payload, binary))
        self._deliver()

    def take(self) -> list[Message]:
        """Return the messages received since the last call."""
        taken, self.transport.received = self.transport.received, []
        return taken

    def stop_reading(self) -> None:
        """
        Stop reading, like a slow client, until :meth:`read_on` is called.

        Messages from the server wait. If more than 64 KiB wait, the server also stops reading from the client. If then
        more than ``Limits.unsent_size`` bytes would wait, the server closes the connection with code 1013, and calls
        ``on_undelivered`` of the hooks.
        """
        self.transport.stop_reading()

    def read_on(self) -> None:
        """Read the messages that have waited, and continue to read."""
        self._used()
        self.transport.read_on()

    def disconnect(self) -> None:
        """End the connection without a closing handshake."""
        self._used()
        if not self.connected:
            return
        self.transport.end()
        if self.session is not None:
            self.session.connection_lost()
        elif self._asking is not None:
            self._asking.cancel()

    # Called by Server

    def ask(self, gate: Gate, attempt: LoginAttempt) -> None:
        """
        Let the authenticators decide whether to admit the client.

        :raises Refused: if they refuse it immediately.
        """
        asking = self._asking = gate.admit(attempt)
        asking.addCallbacks(self._admitted, self._refused, callbackArgs=(gate, attempt))
        if self.refusal is not None:
            raise self.refusal

    def enter(self, identity: Identity | None = None) -> None:
        """Open a session for the client; ``None``: the client is anonymous."""
        self._begin(lambda: self._open(identity))

    def _admitted(self, identity: Identity | None, gate: Gate, attempt: LoginAttempt) -> None:
        self._asking = None
        if not self.connected:
            return
        if self._is_draining():
            self._refused(Failure(Refused(503, "server is going away")))
        elif identity is not None:
            self.enter(identity)
        else:
            self._begin(
                lambda: Lobby(gate, attempt, transport=self.transport, limits=self._engine.limits, enter=self._open)
            )

    def _refused(self, failure: Failure) -> None:
        self._asking = None
        if self.connected:
            self.refusal = failure.value if isinstance(failure.value, Exception) else CancelledError()
            self.transport.end()

    def _begin(self, make: Callable[[], Any]) -> None:
        self._is_entering = True
        found = make()
        self._is_entering = False
        self.session = found
        if self.close_code is not None:
            self.disconnect()

    def _open(self, identity: Identity | None) -> Conversation:
        session = self.session = self._engine.open_session(self.transport, identity, self._handshake)
        return session

    def _deliver(self) -> None:
        if self._is_delivering:
            return
        self._is_delivering = True
        while self._unread and self.connected and not self.reading_paused:
            self.session.receive(*self._unread.popleft())
        self._is_delivering = False

    def _closed(self) -> None:
        if not self._is_entering:
            self.disconnect()

    def _undelivered(self, payloads: list[tuple[bytes, bool]]) -> None:
        if isinstance(self.session, Conversation):
            self.session.undelivered(payloads)
