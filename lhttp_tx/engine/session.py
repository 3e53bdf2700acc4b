"""
One connection, as users see it.

Every session is a ``Conversation`` of :mod:`lhttp_tx.engine.conversation`, which handles the messages. Imports nothing
that does I/O.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from lhttp_tx.codec.headers import HeaderPairs
from lhttp_tx.codec.message import Message
from lhttp_tx.engine.handshake import Handshake
from lhttp_tx.engine.state import State
from lhttp_tx.engine.waiters import Waiters
from lhttp_tx.identity import Identity, new_connection_id

if TYPE_CHECKING:
    from lhttp_tx.engine.engine import Engine
    from lhttp_tx.interfaces import ITransport
    from lhttp_tx.running import RunningServer

__all__ = ["Session"]


class Session(ABC):
    """
    One connection, as processors, filters and hooks see it.

    :ivar peer: the address of the other side, for logs.
    """

    __slots__ = ("__weakref__", "_channels", "_drained", "_ended", "_engine", "_handshake", "_identity",
                 "_keeps_handshake", "_state", "_transport", "peer", "stage")  # fmt: skip

    def __init__(self, *, engine: Engine, transport: ITransport, identity: Identity | None = None) -> None:
        """
        :param engine: the engine of the server.
        :param transport: the connection.
        :param identity: the client's identity; ``None`` if only its address is known.
        """
        self.peer = transport.peer
        self.stage = State.IDLE
        self._engine = engine
        self._transport = transport
        self._identity = identity
        self._state: dict[Any, Any] | None = None
        self._channels: set[str] = set()
        self._ended: Waiters | None = None
        self._drained: Waiters | None = None
        self._handshake: Handshake | None = None
        self._keeps_handshake = False

    @property
    def identity(self) -> Identity:
        """The client's identity. A login message replaces it."""
        if self._identity is None:
            self._identity = Identity(user=None, connection_id=new_connection_id(), address=self.peer)
        return self._identity

    @identity.setter
    def identity(self, identity: Identity) -> None:
        old, self._identity = self._identity, identity
        for watcher in self._engine.watchers:
            watcher.session_identified(self, old, identity)

    @property
    def server(self) -> RunningServer:
        """The server that the client is connected to."""
        return self._engine.server

    @property
    def state(self) -> dict[Any, Any]:
        """A dict for data of processors and filters about this connection. It lasts as long as the connection."""
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def channels(self) -> frozenset[str]:
        """The channels, wildcards included, that the connection is subscribed to."""
        return frozenset(self._channels)

    @property
    def closed(self) -> bool:
        """Whether the connection is closing or has ended. If so, the session drops messages that are sent to it."""
        return self.stage >= State.CLOSING

    @property
    def handshake(self) -> Handshake:
        """
        The request that opened the connection.

        It is available in ``on_connect`` of filters and hooks. If one of them reads it there, the session keeps it
        until the connection ends. Otherwise the session drops it, to save memory.

        :raises LookupError: if the session has dropped it; if the client has logged in with a message after connecting
            without credentials; or if no HTTP request opened the connection.
        """
        if self._handshake is None:
            raise LookupError("the handshake is no longer available: read it in the on_connect of a filter or hook")
        self._keeps_handshake = True
        return self._handshake

    @property
    def ended(self) -> Deferred[None]:
        """
        A Deferred that succeeds when the connection has ended. It fails only if it is cancelled.

        If the connection has already ended, the Deferred has succeeded. Each access returns a new Deferred.
        """
        if self.stage >= State.LOST:
            return succeed(None)
        if self._ended is None:
            self._ended = Waiters()
        return self._ended.wait()

    @property
    def unsent(self) -> int:
        """
        Bytes that were sent to this client, and wait in the server. Bytes in the operating system's buffer do not
        count.
        """
        return self._transport.unsent

    @property
    def converts(self) -> bool:
        """Whether the client gets messages in another form, such as JSON. The server must convert each of them."""
        return self._transport.converts

    @property
    def is_costly(self) -> bool:
        """Whether each message to this client is work: it is converted or compressed, unless that was done before."""
        return self._transport.converts or self._transport.compresses

    def drained(self) -> Deferred[None]:
        """
        Wait until nothing is unsent (:attr:`unsent`). Use it before you send more.

        :returns: a Deferred that succeeds when nothing is unsent or the connection has ended. It fails only if it is
            cancelled.
        """
        if self.stage >= State.LOST:
            return succeed(None)
        self._engine.hub.flush()
        if self._drained is None:
            self._drained = Waiters()
        waiter = self._drained.wait()
        self._transport.call_when_drained(self._drained.fire)
        return waiter

    @abstractmethod
    def send(self, message: Message) -> None:
        """
        Send *message* to this client, after all earlier publications to it. The message is dropped if the session is
        closed.

        :raises TypeError: if *message* is not a :class:`~lhttp_tx.codec.message.Message`.
        """

    @abstractmethod
    def subscribe(self, channels: str | Iterable[str]) -> Deferred[None]:
        """
        Subscribe this connection to channels. The channel rules do not apply.

        :param channels: a channel name, or several.
        :returns: a Deferred that

            - succeeds when the bus has the subscriptions;
            - fails with :exc:`~lhttp_tx.errors.BusUnavailable`; then the connection is not subscribed to the channel
              that failed;
            - fails with :exc:`~lhttp_tx.errors.TooMany` if the connection would have more subscriptions than the limit,
              or has recently subscribed to too many channels that were new to the node; then none is added;
            - fails with :exc:`~lhttp_tx.errors.SessionClosed` if the connection has ended.
        :raises LocalProtocolError: if a name is malformed or reserved.
        """

    @abstractmethod
    def unsubscribe(self, channels: str | Iterable[str]) -> None:
        """
        Unsubscribe this connection from channels. Channels without a subscription are ignored.

        :param channels: a channel name, or several. Every name in :attr:`channels` is allowed.
        :raises LocalProtocolError: if a name is malformed or reserved, and there is no subscription to it.
        """

    def publish(
        self,
        channels: str | Iterable[str],
        command: str,
        headers: HeaderPairs | dict[str, str] = (),
        body: bytes | str = b"",
        *,
        binary: bool = False,
    ) -> Deferred[None]:
        """Publish a message; see :meth:`lhttp_tx.engine.engine.Engine.publish`."""
        return self._engine.publish(channels, command, headers, body, binary=binary)

    @abstractmethod
    def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Close the connection. Messages of the client that wait to be handled are dropped.

        :param code: a WebSocket close code: 1000, 1001, 1008, 1011, 1013 or 3000 to 4999.
        :param reason: text for people. At most 123 bytes of its UTF-8 are sent.
        :raises ValueError: if *code* is any other number.
        :raises TypeError: if *code* is not an int, or *reason* is not a str.
        """

    def __repr__(self) -> str:
        return f"<Session {self.peer}>"
