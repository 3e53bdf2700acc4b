"""
Connects with HTTP requests instead of a WebSocket. Made by :mod:`lhttp_tx.client.http.roads`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from lhttp_tx.client.http.connection import HTTPConnection
from lhttp_tx.client.http.incoming import Mode
from lhttp_tx.client.http.requests import Requests
from lhttp_tx.client.websocket.protocol import WebSocketFactory

__all__ = ["HTTPEndpoint"]


@final
@implementer(IStreamClientEndpoint)
class HTTPEndpoint:
    """Begins sessions, as a :class:`~lhttp_tx.client.websocket.endpoints.WebSocketEndpoint` opens WebSockets."""

    def __init__(
        self,
        requests: Callable[[], Requests],
        mode: Mode,
        factory: WebSocketFactory,
        *,
        query: str,
        timeout: float,
        close_timeout: float,
        max_message_size: int,
    ) -> None:
        """
        :param requests: returns a new object that makes the requests of one session.
        :param mode: how messages are fetched.
        :param factory: knows the HTTP headers of handshakes, and the reactor.
        :param query: the query of the WebSocket's URL.
        :param timeout: seconds until the session must be open.
        :param close_timeout: see :class:`~lhttp_tx.client.http.connection.HTTPConnection`.
        :param max_message_size: the most bytes of a received message.
        """
        self._requests = requests
        self._mode = mode
        self._factory = factory
        self._query = query
        self._timeout = timeout
        self._close_timeout = close_timeout
        self._max_message_size = max_message_size

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Begin a session.

        :param protocolFactory: makes a protocol that is also a :class:`~lhttp_tx.client.websocket.connection.Link`.
        :returns: a Deferred that

            - succeeds with that protocol;
            - fails with :exc:`~lhttp_tx.client.errors.ConnectFailed`, or with :exc:`TimeoutError`.
        """

        def opened(connection: HTTPConnection) -> Any:
            protocol: Any = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
            connection.attach(protocol, protocol.connectionLost)
            protocol.makeConnection(connection)
            return protocol

        connection = HTTPConnection(
            self._requests(),
            self._mode,
            reactor=self._factory.reactor,
            close_timeout=self._close_timeout,
            max_message_size=self._max_message_size,
        )
        connecting: Deferred[Any] = connection.opened
        connecting.addCallback(opened)
        connection.begin(f"?{self._query}" if self._query else "", self._factory.headers or {})
        return connecting.addTimeout(self._timeout, self._factory.reactor)

    def __repr__(self) -> str:
        return f"<HTTPEndpoint {self._mode} {self._factory.url}>"
