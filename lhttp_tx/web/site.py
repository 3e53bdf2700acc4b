"""
The whole of HTTP on one port: ``/publish``, the JavaScript client, and the WebSocket on every other path.
"""

from __future__ import annotations

import inspect
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource, Resource

from lhttp_tx.access import AccessPolicy
from lhttp_tx.engine import Engine
from lhttp_tx.protocol import LHTTPServerFactory
from lhttp_tx.web.assets import client_assets, demo_assets
from lhttp_tx.web.publish import PublishResource
from lhttp_tx.web.websocket import WebSocketResource

__all__ = ["LHTTPSite", "RootResource"]

_NO_FORMS: dict[str, Any] = (
    {"parsePOSTFormSubmission": False}
    if "parsePOSTFormSubmission" in inspect.signature(server.Site.__init__).parameters
    else {}
)
"""Spares bodies that look like forms from being parsed, where Twisted can."""

_LINGER = 1.0
"""Seconds in which a client that sent too much may read why, before its connection is closed."""


class RootResource(Resource):
    """
    ``/publish``, ``/lhttp.js`` and ``/lhttp.mjs``, what was put beside them with ``putChild``, and the WebSocket on
    every other path.
    """

    def __init__(
        self, *, engine: Engine, factory: LHTTPServerFactory, policy: AccessPolicy, demo: bool = False
    ) -> None:
        """
        :param engine: the server.
        :param factory: makes its WebSocket connections.
        :param policy: who may come in.
        :param demo: whether a chat page is at ``/``.
        """
        super().__init__()
        self._websocket = WebSocketResource(factory)
        self.putChild(b"publish", PublishResource(engine, policy))
        for name, asset in client_assets():
            self.putChild(name, asset)
        if demo:
            for name, resource in demo_assets(self._websocket):
                self.putChild(name, resource)

    def getChild(self, path: bytes, request: server.Request) -> IResource:
        """Return the WebSocket, for a path that has no resource of its own."""
        return self._websocket

    def render(self, request: server.Request) -> int | bytes:
        """Answer ``/`` itself when mounted below another path."""
        return self._websocket.render(request)


class _BoundedRequest(server.Request):
    """Refuses a body that is too large before it is stored, and names no software."""

    channel: Any
    _received = 0
    _refused = False
    _lingering: IDelayedCall | None = None

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        if length is not None and length > self.channel.site.max_body_size:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self.channel.site.max_body_size:
            self._refuse()
        if not self._refused:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._refused:
            self.channel.loseConnection()
        else:
            super().requestReceived(command, path, version)

    def connectionLost(self, reason: Failure) -> None:
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        super().connectionLost(reason)

    def _refuse(self) -> None:
        if self._refused:
            return
        self._refused = True
        self.requestHeaders.removeHeader(b"expect")
        body = b"body is larger than %d bytes\n" % self.channel.site.max_body_size
        self.channel.transport.write(
            b"HTTP/1.1 413 Content Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
        )
        self._lingering = self.channel.callLater(_LINGER, self.channel.loseConnection)


class _BoundedChannel(HTTPChannel):
    """Limits the time of a request, whether or not bytes keep dripping in; what was taken over is exempt."""

    site: LHTTPSite
    _deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self._limit(self.site.head_timeout)

    def dataReceived(self, data: bytes) -> None:
        if self._deadline is None and not self._handlingRequest:
            self._limit(self.site.head_timeout)
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        self._limit(self.site.body_timeout)
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        self._limit(None)
        super().allContentReceived()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._limit(None)
        super().connectionLost(reason)

    def _limit(self, seconds: float | None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.callLater(seconds, self.timeoutConnection)


class LHTTPSite(server.Site):
    """A site whose requests have a bounded body, take a bounded time, and show no traceback and no software name."""

    protocol = _BoundedChannel  # type: ignore[assignment]
    displayTracebacks = False
    noisy = False

    def __init__(
        self,
        resource: IResource,
        *,
        max_body_size: int,
        reactor: Any,
        timeout: float = 60.0,
        head_timeout: float = 5.0,
        body_timeout: float = 60.0,
    ) -> None:
        """
        :param resource: the root.
        :param max_body_size: bytes of a request's body; more get status 413 while they arrive.
        :param reactor: the running reactor.
        :param timeout: seconds without a byte after which a connection that is no WebSocket is closed.
        :param head_timeout: seconds in which a request's head must be complete.
        :param body_timeout: seconds in which its body must be complete.
        """
        super().__init__(resource, _BoundedRequest, timeout=timeout, reactor=reactor, **_NO_FORMS)
        self.max_body_size = max_body_size
        self.head_timeout = head_timeout
        self.body_timeout = body_timeout

    def acceptableProtocols(self) -> list[bytes]:
        """Speak HTTP/1.1 alone over TLS: a WebSocket takes over its connection."""
        return [b"http/1.1"]

    def log(self, request: Any) -> None:
        """Keep no access log: what clients send does not belong in the operator's log."""
