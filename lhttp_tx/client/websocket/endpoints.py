"""
Makes a stream endpoint from a URL, an endpoint or its description, and explains failures to connect.

Used by :mod:`lhttp_tx.client.client` and :mod:`lhttp_tx.client.uplink`. It imports neither the codec nor the modules
above it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint, clientFromString
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.client.errors import ConnectFailed, LoginFailed
from lhttp_tx.client.websocket.protocol import WebSocketConnection, WebSocketFactory
from lhttp_tx.client.websocket.urls import parse_url

__all__ = ["WatchedEndpoint", "WebSocketEndpoint", "connect_error", "is_url", "stream_endpoint"]


def is_url(target: str | IStreamClientEndpoint) -> bool:
    """Return whether *target* is a URL, rather than an endpoint or its description."""
    return isinstance(target, str) and "://" in target


def stream_endpoint(
    target: str | IStreamClientEndpoint, reactor: Any, tls: IOpenSSLClientConnectionCreator | None, timeout: float
) -> IStreamClientEndpoint:
    """
    Return the endpoint of *target*.

    :param target: as for :class:`~lhttp_tx.client.client.Client`.
    :param reactor: the reactor.
    :param tls: how to verify a ``wss://`` server; ``None``: with the authorities that the system trusts.
    :param timeout: the most seconds for connecting to the host of a URL.
    :raises ValueError: if *target* is malformed.
    """
    if not isinstance(target, str):
        return target
    if is_url(target):
        return _url_endpoint(target, reactor, tls, timeout)
    endpoint: IStreamClientEndpoint = clientFromString(reactor, target)
    return endpoint


def _url_endpoint(
    url: str, reactor: Any, tls: IOpenSSLClientConnectionCreator | None, timeout: float
) -> IStreamClientEndpoint:
    parts = parse_url(url)
    host = parts.hostname or ""
    endpoint = HostnameEndpoint(reactor, host, parts.port or (443 if parts.scheme == "wss" else 80), timeout)
    if parts.scheme == "ws":
        return endpoint
    return _TLSEndpoint(endpoint, optionsForClientTLS(host) if tls is None else tls, reactor)


@final
@implementer(IStreamClientEndpoint)
class _TLSEndpoint:
    """
    Adds TLS to an endpoint. Unlike Twisted's ``wrapClientTLS``, it uses a given reactor for times, not the installed
    one.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, tls: IOpenSSLClientConnectionCreator, reactor: Any) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._reactor = reactor

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, with TLS."""
        factory: Any = TLSMemoryBIOFactory(self._tls, True, protocolFactory, clock=self._reactor)
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)


@final
@implementer(IStreamClientEndpoint)
class WebSocketEndpoint:
    """
    Connects with another endpoint, and then makes the WebSocket handshake.

    It returns a connection only after the handshake. So a refused handshake is a failure to connect, and Twisted's
    ``ClientService`` need not know about handshakes.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, factory: WebSocketFactory, timeout: float) -> None:
        """
        :param endpoint: connects to the server.
        :param factory: makes the WebSocket connections.
        :param timeout: the most seconds for connecting and the handshake together.
        """
        self._endpoint = endpoint
        self._factory = factory
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect.

        :param protocolFactory: makes a protocol that is also a :class:`~lhttp_tx.client.websocket.connection.Link`.
        :returns: a Deferred that

            - succeeds with this protocol;
            - fails like that of the endpoint; with :exc:`~lhttp_tx.client.errors.ConnectFailed` if the handshake is
              refused; or with ``TimeoutError`` of Twisted.
        """

        def opened(connection: WebSocketConnection) -> Any:
            protocol: Any = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
            connection.attach(protocol, protocol.connectionLost)
            protocol.makeConnection(connection)
            return protocol

        connecting: Deferred[Any] = self._endpoint.connect(self._factory)
        connecting.addCallback(lambda connection: connection.opened)
        connecting.addCallback(opened)
        return connecting.addTimeout(self._timeout, self._factory.reactor)

    def __repr__(self) -> str:
        return f"<WebSocketEndpoint {self._factory.url}>"


@final
@implementer(IStreamClientEndpoint)
class WatchedEndpoint:
    """An endpoint that reports each attempt."""

    def __init__(
        self, endpoint: IStreamClientEndpoint, begins: Callable[[], object], failed: Callable[[Failure], object]
    ) -> None:
        """
        :param begins: called before each attempt.
        :param failed: called with the failure of each attempt that fails.
        """
        self._endpoint = endpoint
        self._begins = begins
        self._failed = failed

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect with the endpoint, and return its result."""
        self._begins()

        def failed(failure: Failure) -> Failure:
            self._failed(failure)
            return failure

        return self._endpoint.connect(protocolFactory).addErrback(failed)

    def __repr__(self) -> str:
        return repr(self._endpoint)


def connect_error(failure: Failure, url: str) -> ConnectFailed:
    """Return the error for an attempt to connect to *url* that has ended with *failure*."""
    error = failure.value
    if isinstance(error, LoginFailed):
        refused = LoginFailed(f"cannot log in to {url}: {error.reason}", status=error.status)
        refused.code = error.code
        return refused
    if isinstance(error, ConnectFailed):
        return ConnectFailed(f"cannot connect to {url}: {error.reason}")
    if failure.check(DeferredTimeout):
        return ConnectFailed(f"cannot connect to {url}: no answer in time")
    if failure.check(CancelledError):
        return ConnectFailed(f"cannot connect to {url}: cancelled")
    text = " ".join(str(error).split()).rstrip(".")
    return ConnectFailed(f"cannot connect to {url}: {text or type(error).__name__}")
