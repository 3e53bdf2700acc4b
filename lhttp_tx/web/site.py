"""
The whole of HTTP on one port: ``/publish``, the JavaScript client, and the WebSocket on every other path.
"""

from __future__ import annotations

import inspect
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource, Resource

from lhttp_tx.access import AccessPolicy
from lhttp_tx.admission import Admission, Place
from lhttp_tx.engine import Engine
from lhttp_tx.factory import LHTTPServerFactory
from lhttp_tx.handshake import read_handshake
from lhttp_tx.web.assets import PageOrWebSocket, client_assets, demo_assets
from lhttp_tx.web.publish import PublishResource
from lhttp_tx.web.websocket import WebSocketResource, hand_over

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

    :ivar websocket: what answers there.
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
        self.websocket = WebSocketResource(factory)
        self.putChild(b"publish", PublishResource(engine, policy))
        for name, asset in client_assets():
            self.putChild(name, asset)
        if demo:
            for name, resource in demo_assets(self.websocket):
                self.putChild(name, resource)

    def getChild(self, path: bytes, request: server.Request) -> IResource:
        """Return the WebSocket, for a path that has no resource of its own."""
        return self.websocket

    def render(self, request: server.Request) -> int | bytes:
        """Answer ``/`` itself when mounted below another path."""
        return self.websocket.render(request)


_GIVE_HANDSHAKES_AWAY = (RootResource.render, PageOrWebSocket.render)


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
    transport: Any
    address: IAddress | None = None
    place: Place | None = None
    _deadline: IDelayedCall | None = None
    _untouched = True

    def connectionMade(self) -> None:
        idle = self.timeOut
        if idle is not None and idle >= self.site.head_timeout:
            self.timeOut = None  # until something has come, one timer does for both
        super().connectionMade()
        self.timeOut = idle
        if self.site.admission is not None:
            self.place = self.site.admission.enter(self.address)
        self._limit(self.site.head_timeout)

    def dataReceived(self, data: bytes) -> None:
        if self._untouched:
            self._untouched = False
            if self._open_websocket(data):
                return
            self.setTimeout(self.timeOut)
        if self._deadline is None and not self._handlingRequest:
            self._limit(self.site.head_timeout)
        super().dataReceived(data)

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a length of more digits than Python reads
            self._respondToBadRequestAndDisconnect()
            self.length = None
            return False

    def allHeadersReceived(self) -> None:
        self._limit(self.site.body_timeout)
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        self._limit(None)
        super().allContentReceived()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._limit(None)
        if self.place is not None:
            self.place.leave()
        super().connectionLost(reason)

    def _open_websocket(self, data: bytes) -> bool:
        """Give the connection away at once, if it begins with a handshake that can only succeed."""
        handshake = read_handshake(data)
        if handshake is None:
            return False
        factory = self.site.find_websocket(handshake.path.encode("ascii"))
        if factory is None or not factory.admits(handshake, factory.countConnections + 1, self.place):
            return False
        self._limit(None)
        protocol = factory.buildProtocol(self.transport.getPeer())
        hand_over(self, protocol)
        protocol.open(handshake, data[handshake.size :])
        return True

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
        admission: Admission | None = None,
    ) -> None:
        """
        :param resource: the root.
        :param max_body_size: bytes of a request's body; more get status 413 while they arrive.
        :param reactor: the running reactor.
        :param timeout: seconds without a byte after which a connection that is no WebSocket is closed.
        :param head_timeout: seconds in which a request's head must be complete.
        :param body_timeout: seconds in which its body must be complete.
        :param admission: counts connections that are no WebSocket; ``None``: nobody does.
        """
        super().__init__(resource, _BoundedRequest, timeout=timeout, reactor=reactor, **_NO_FORMS)
        self.max_body_size = max_body_size
        self.head_timeout = head_timeout
        self.body_timeout = body_timeout
        self.admission = admission

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return what takes the requests of a connection from *addr*."""
        channel: Any = super().buildProtocol(addr)
        channel.address = addr
        return channel

    def find_websocket(self, path: bytes) -> LHTTPServerFactory | None:
        """
        Return whose connection a handshake for *path* becomes; ``None`` if only a request can tell.

        It goes down the tree as twisted.web does, and stops at any resource that makes its children when it is asked
        for them.

        :param path: as it was sent, without the query.
        """
        if type(self).getResourceFor is not server.Site.getResourceFor or self.requestFactory is not _BoundedRequest:
            return None
        resource: Any = self.resource
        for quoted in path[1:].split(b"/"):
            if resource.isLeaf:
                break
            kind = type(resource)
            if getattr(kind, "getChildWithDefault", None) is not Resource.getChildWithDefault:
                return None
            child = resource.children.get(unquote_to_bytes(quoted) if b"%" in quoted else quoted)
            if child is None:
                if kind.getChild is not RootResource.getChild:
                    return None
                child = resource.websocket
            resource = child
        if getattr(type(resource), "render", None) in _GIVE_HANDSHAKES_AWAY:
            resource = resource.websocket
        return resource.factory if getattr(type(resource), "render", None) is WebSocketResource.render else None

    def getContentFile(self, length: int | None) -> BytesIO:
        """Keep a body in memory, where it is bounded: a file would need a descriptor and room on the disk."""
        return BytesIO()

    def acceptableProtocols(self) -> list[bytes]:
        """Speak HTTP/1.1 alone over TLS: a WebSocket takes over its connection."""
        return [b"http/1.1"]

    def log(self, request: Any) -> None:
        """Keep no access log: what clients send does not belong in the operator's log."""
