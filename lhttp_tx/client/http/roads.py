"""
Makes the transports that a client may use, from the arguments of its program. Used by :mod:`lhttp_tx.client.client`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint

from lhttp_tx.client.http.endpoint import HTTPEndpoint
from lhttp_tx.client.http.requests import Requests
from lhttp_tx.client.http.ways import Transport, Ways
from lhttp_tx.client.websocket.endpoints import WebSocketEndpoint, stream_endpoint
from lhttp_tx.client.websocket.protocol import WebSocketFactory

__all__ = ["Greeted", "base_of", "make_ways", "websocket_url"]

_GROWTH = 6
"""How many times larger than a message its entry in an answer can be: JSON writes a control character as six bytes."""

_ANSWER_SIZE = 131_072
"""Bytes of an answer to a poll, in addition to one message. The server returns 65,536 bytes, or one message."""


class Greeted(Protocol):
    """Adds the steps that a connection needs before it is ready."""

    def __call__(
        self, endpoint: IStreamClientEndpoint, factory: WebSocketFactory, *, logs_in: bool
    ) -> IStreamClientEndpoint:
        """Return *endpoint* with fresh headers for each handshake of *factory*, and with a login if *logs_in*."""


def base_of(url: str, fallback_url: str | None) -> str:
    """
    Return the URL below which the server has ``connect`` and ``send``.

    >>> base_of("wss://chat.example/ws?token=1", None)
    'https://chat.example/'
    >>> base_of("ws://chat.example:8081/ws", "/chat")
    'http://chat.example:8081/chat/'

    :param url: the URL of the WebSocket.
    :param fallback_url: an ``http://`` or ``https://`` URL, or a path on the same host. The default is its root.
    :raises ValueError: if *fallback_url* is malformed. The text says what is wrong.
    """
    base = urljoin("http" + url[2:], "/" if fallback_url is None else fallback_url)
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"fallback_url {fallback_url!r} is neither an http:// or https:// URL nor a path")
    if parts.username is not None or parts.query or parts.fragment or not base.isascii() or not base.isprintable():
        raise ValueError(f"fallback_url {fallback_url!r} holds a user name, a query, or what must be escaped")
    return base if base.endswith("/") else base + "/"


def websocket_url(base: str) -> str:
    """
    Return the WebSocket URL of the same host and port.

    >>> websocket_url("https://chat.example/")
    'wss://chat.example/'
    """
    return "ws" + base[4:]


def make_ways(
    target: str | IStreamClientEndpoint,
    factory: WebSocketFactory,
    trial: WebSocketFactory,
    transports: Sequence[Transport],
    *,
    tls: IOpenSSLClientConnectionCreator | None,
    fallback_url: str | None,
    greeted: Greeted,
    ping: Callable[[float], Deferred[Any]],
    is_idle: Callable[[], bool],
    come_back: float,
    timeout: float,
    close_timeout: float,
    max_message_size: int,
) -> Ways:
    """
    Return the endpoint that connects a client.

    :param factory: makes WebSockets.
    :param trial: makes WebSockets that only test whether WebSockets work.
    :param transports: the transports that the client may use.
    :param ping: see :class:`~lhttp_tx.client.http.ways.Ways`, also for *is_idle* and *come_back*.
    :param timeout: seconds for each attempt of a transport.

    The other parameters are those of :class:`~lhttp_tx.client.client.Client`.

    :raises ValueError: if *target* or *fallback_url* is malformed.
    """
    url, reactor = factory.url, factory.reactor
    stream = stream_endpoint(target, reactor, tls, timeout)
    websocket = WebSocketEndpoint(stream, factory, timeout)
    trial_endpoint = greeted(WebSocketEndpoint(stream, trial, timeout), trial, logs_in=False)
    base = base_of(url, fallback_url)
    if urlsplit(websocket_url(base))[:2] != urlsplit(url)[:2]:
        stream = stream_endpoint(websocket_url(base), reactor, tls, timeout)

    def requests() -> Requests:
        return Requests(base, stream, reactor=reactor, limit=_GROWTH * max_message_size + _ANSWER_SIZE)

    def reaches() -> Deferred[object]:
        asking = requests()
        answered: Deferred[Any] = asking.ask("GET", "connect", headers={}, timeout=timeout)
        return answered.addBoth(lambda outcome: asking.close().addCallback(lambda _: outcome))

    def endpoint_of(transport: Transport) -> IStreamClientEndpoint:
        if transport == "websocket":
            return greeted(websocket, factory, logs_in=True)
        made = HTTPEndpoint(
            requests,
            transport,
            factory,
            query=urlsplit(url).query,
            timeout=timeout,
            close_timeout=close_timeout,
            max_message_size=max_message_size,
        )
        return greeted(made, factory, logs_in=True)

    return Ways(
        {transport: endpoint_of(transport) for transport in transports},
        trial_endpoint,
        reactor=reactor,
        ping=ping,
        is_idle=is_idle,
        reaches=reaches,
        come_back=come_back,
        timeout=timeout,
    )
