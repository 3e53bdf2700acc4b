"""
The whole of HTTP on one port: ``/publish``, and the WebSocket on every other path.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import IResource, Resource

from lhttp_tx.access import AccessPolicy
from lhttp_tx.engine import Engine
from lhttp_tx.protocol import LHTTPServerFactory
from lhttp_tx.web.publish import PublishResource
from lhttp_tx.web.websocket import WebSocketResource

__all__ = ["LHTTPSite", "RootResource"]

_LINGER = 1.0
"""Seconds in which a client that sent too much may read why, before its connection is closed."""


class RootResource(Resource):
    """``/publish``, what was put beside it with ``putChild``, and the WebSocket on every other path."""

    def __init__(self, *, engine: Engine, factory: LHTTPServerFactory, policy: AccessPolicy) -> None:
        """
        :param engine: the server.
        :param factory: makes its WebSocket connections.
        :param policy: who may come in.
        """
        super().__init__()
        self._websocket = WebSocketResource(factory)
        self.putChild(b"publish", PublishResource(engine, policy))

    def getChild(self, path: bytes, request: server.Request) -> IResource:
        """Return the WebSocket, for a path that has no resource of its own."""
        return self._websocket

    def render(self, request: server.Request) -> int | bytes:
        """Answer ``/`` itself when mounted below another path."""
        return self._websocket.render(request)


class _BoundedRequest(server.Request):
    """Refuses a body that is too large before it is stored, and names no software."""

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


class LHTTPSite(server.Site):
    """A site whose requests have a bounded body and show no traceback and no software name."""

    displayTracebacks = False
    noisy = False

    def __init__(self, resource: IResource, *, max_body_size: int, reactor: Any, timeout: float = 60.0) -> None:
        """
        :param resource: the root.
        :param max_body_size: bytes of a request's body; more get status 413 while they arrive.
        :param reactor: the running reactor.
        :param timeout: seconds without a byte after which a connection that is no WebSocket is closed.
        """
        super().__init__(
            resource, _BoundedRequest, timeout=timeout, reactor=reactor, parsePOSTFormSubmission=False
        )
        self.max_body_size = max_body_size

    def log(self, request: Any) -> None:
        """Keep no access log: what clients send does not belong in the operator's log."""
