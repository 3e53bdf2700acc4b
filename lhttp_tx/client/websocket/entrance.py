"""
The steps before a connection is ready: headers for the handshake, and the login.

:class:`LoginEndpoint` returns a connection only when it is logged in. So a refused login is a failure to connect, like
a refused handshake. Used by :class:`~lhttp_tx.client.client.Client`. It imports neither the subscriptions nor the
queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from twisted.internet import protocol
from twisted.internet.defer import Deferred, TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.client.credentials import COMMAND, Account, Credentials, http_headers, login_message, read_account
from lhttp_tx.client.errors import LoginFailed
from lhttp_tx.client.websocket.connection import Carrier
from lhttp_tx.client.websocket.protocol import WebSocketFactory
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.errors import LHTTPError

__all__ = ["HeadersEndpoint", "LoginEndpoint"]

_MAX_EARLY = 1_000
"""
The most messages that are kept until the answer to the login has come. Together, they have at most as many bytes as one
message may have.
"""


@final
@implementer(IStreamClientEndpoint)
class HeadersEndpoint:
    """Connects with another endpoint, and asks the program for headers for each handshake."""

    def __init__(self, endpoint: IStreamClientEndpoint, factory: WebSocketFactory, headers: Credentials) -> None:
        """
        :param endpoint: makes connections with *factory*.
        :param factory: gets the headers.
        :param headers: returns the headers.
        """
        self._endpoint = endpoint
        self._factory = factory
        self._headers = headers

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect.

        :returns: a Deferred like that of the endpoint. It also fails like that of
            :meth:`lhttp_tx.client.credentials.Credentials.fetch`.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, protocolFactory: IProtocolFactory) -> IProtocol:
        self._factory.headers = http_headers(await self._headers.fetch())
        try:
            found: IProtocol = await self._endpoint.connect(protocolFactory)
        finally:
            self._factory.headers = {}  # not needed any more, and perhaps secret
        return found

    def __repr__(self) -> str:
        return repr(self._endpoint)


@final
@implementer(IStreamClientEndpoint)
class LoginEndpoint:
    """Connects with another endpoint, and logs in before it returns the connection."""

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        login: Credentials,
        *,
        reactor: Any,
        timeout: float,
        limits: Limits,
        required: bool,
        entered: Callable[[Account], object],
    ) -> None:
        """
        :param endpoint: makes the connections.
        :param login: returns the headers of the login message. It is called before connecting, because a server may
            give clients little time to log in.
        :param reactor: the reactor.
        :param timeout: the most seconds to wait for the server's answer.
        :param limits: the limits of received messages.
        :param required: whether to close a connection whose login is refused.
        :param entered: called with the account in the server's answer, before the connection is returned.
        """
        self._endpoint = endpoint
        self._login = login
        self._reactor = reactor
        self._timeout = timeout
        self._limits = limits
        self._required = required
        self._entered = entered

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect and log in.

        :returns: a Deferred that

            - succeeds with the protocol;
            - fails like that of the endpoint; or with :exc:`~lhttp_tx.client.errors.LoginFailed` if the login is
              refused or not answered in time.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, protocolFactory: IProtocolFactory) -> IProtocol:
        doorway = _Doorway(login_message(await self._login.fetch()), self._limits)
        made: protocol.Factory = protocol.Factory.forProtocol(lambda: doorway)
        await self._endpoint.connect(made)
        try:
            account = await doorway.answer.addTimeout(self._timeout, self._reactor)
        except DeferredTimeout:
            late = LoginFailed(f"no answer to the login within {self._timeout:g} seconds", status=504)
            late.unanswered = True
            raise late from None
        except LoginFailed:
            if self._required or doorway.is_lost:
                await doorway.leave()
                raise
        else:
            self._entered(account)
        return doorway.make_way(protocolFactory)

    def __repr__(self) -> str:
        return repr(self._endpoint)


@final
class _Doorway(protocol.Protocol):
    """
    The protocol of a connection until the server has answered the login.

    :ivar answer: succeeds with the account in the server's answer, or fails with
        :exc:`~lhttp_tx.client.errors.LoginFailed`.
    :ivar is_lost: whether the connection has ended, or is unusable.
    """

    transport: Carrier  # type: ignore[assignment]

    def __init__(self, message: Message, limits: Limits) -> None:
        self.answer: Deferred[Account] = Deferred(self._abort)
        self.is_lost = False
        self._message: Message | None = message
        self._receipt = message.headers.get("receipt")
        self._limits = limits
        self._account: Account | None = None
        self._early: list[tuple[bytes, bool]] = []
        self._early_size = 0
        self._left: Deferred[None] = Deferred(self._abort)

    def connectionMade(self) -> None:
        """Send the login message."""
        message, self._message = self._message, None
        assert message is not None, "a doorway has one connection"
        self.transport.send_message(message.raw, message.binary)

    def message_received(self, payload: bytes, binary: bool) -> None:
        """See :class:`~lhttp_tx.client.websocket.connection.Link`."""
        if self.answer.called:
            return
        try:
            message = parse(payload, binary=binary, limits=self._limits)
        except LHTTPError as error:
            self._failed(LoginFailed(f"a malformed message came instead of the answer: {error.reason}", status=502))
            return
        if "publish" in message.headers or not self._take(message):
            self._keep(payload, binary)

    def _take(self, message: Message) -> bool:
        """Take *message* if it is a part of the answer to the login. Return whether it is."""
        if message.command == COMMAND and self._account is None:
            self._account = read_account(message)
            return True
        if message.headers.get("receipt-id") != self._receipt or message.command not in ("receipt", "error"):
            return False
        if message.command == "error":
            status = message.headers.get("status", "")
            known = status.isascii() and status.isdigit() and len(status) == 3 and status[0] in "12345"
            reason = message.headers.get("reason", "the server gives no reason")
            self._failed(LoginFailed(f"login refused: {reason}", status=int(status) if known else 500))
        elif self._account is None:
            self._failed(LoginFailed("the server has no logins: it ignored the login message", status=404))
        else:
            self.answer.callback(self._account)
        return True

    def _keep(self, payload: bytes, binary: bool) -> None:
        self._early.append((payload, binary))
        self._early_size += len(payload)
        if len(self._early) > _MAX_EARLY or self._early_size > self._limits.message_size:
            self._early.clear()
            self.is_lost = True
            self.transport.abort()
            self._failed(LoginFailed("too many messages came before the answer to the login", status=502))

    def writable(self) -> None:
        """See :class:`~lhttp_tx.client.websocket.connection.Link`."""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Part of ``IProtocol``."""
        self.is_lost = True
        error: Any = reason.value
        why = LoginFailed(getattr(error, "reason", None) or "the connection was lost")
        why.code = getattr(error, "code", None)
        why.unanswered = why.code in (None, 1006)
        self._failed(why)
        if not self._left.called:
            self._left.callback(None)

    def _failed(self, error: LoginFailed) -> None:
        if not self.answer.called:
            self.answer.errback(Failure(error))

    def leave(self) -> Deferred[None]:
        """Close the connection. The Deferred succeeds when it has ended, after the close timeout at the latest."""
        self.transport.loseConnection()
        return self._left

    def make_way(self, protocolFactory: IProtocolFactory) -> IProtocol:
        """Let a protocol of *protocolFactory*, which is also a link, take over the connection. Return this protocol."""
        connection = self.transport
        successor: Any = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
        connection.attach(successor, successor.connectionLost)
        successor.makeConnection(connection)
        early, self._early = self._early, []
        for payload, binary in early:
            connection.onMessage(payload, binary)
        found: IProtocol = successor
        return found

    def _abort(self, _: object) -> None:
        """Close the connection, because nobody waits any longer."""
        self.transport.abort()
