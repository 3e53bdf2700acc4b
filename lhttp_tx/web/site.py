"""
Serves all HTTP of one port: ``/publish``, ``/events``, ``/connect``, the JavaScript client, and the WebSocket on every
other path.
"""

from __future__ import annotations

import inspect
from io import BytesIO
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.web import server
from twisted.web.resource import IResource, Resource

from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.guard.admission import Admission
from lhttp_tx.guard.heads import is_shallow, unquote
from lhttp_tx.observe.counters import Counters
from lhttp_tx.transports.http.relay import Relay
from lhttp_tx.transports.http.sessions import Sessions
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.web.assets import PageOrWebSocket, client_assets, demo_assets
from lhttp_tx.web.channel import BoundedChannel, BoundedRequest
from lhttp_tx.web.connect.resource import ConnectResource, SendResource
from lhttp_tx.web.events.resource import EventsResource, TicketResource
from lhttp_tx.web.publish import PublishResource
from lhttp_tx.web.websocket import WebSocketResource

__all__ = ["LHTTPSite", "RootResource"]

_NO_FORMS: dict[str, Any] = (
    {"parsePOSTFormSubmission": False}
    if "parsePOSTFormSubmission" in inspect.signature(server.Site.__init__).parameters
    else {}
)
"""Keeps Twisted from parsing bodies that look like forms, if its version has this option."""


class RootResource(Resource):
    """
    ``/publish``, ``/events``, ``/connect``, ``/send``, the JavaScript client, resources that were added with
    ``putChild``, and the WebSocket on every other path.

    :ivar counters: count the answers; ``None``: they are not counted.
    :ivar sessions: the sessions of clients without WebSocket. Stop them with the server.
    :ivar websocket: answers on every other path.
    """

    def __init__(
        self,
        *,
        factory: LHTTPServerFactory,
        demo: bool = False,
        events: bool = True,
        nodes: Nodes | None = None,
    ) -> None:
        """
        :param factory: makes the WebSocket connections of a server. It has the access rules.
        :param demo: whether there is a chat page at ``/``.
        :param events: whether to serve clients without WebSocket, at ``/events``, ``/connect`` and ``/send``.
        :param nodes: the other nodes, whose sessions are served, too; ``None`` if there are none.
        """
        super().__init__()
        engine, policy = factory.engine, factory.policy
        self.counters = engine.counters
        self.websocket = WebSocketResource(factory)
        self.putChild(b"publish", PublishResource(engine, policy, is_closed=lambda: factory.closed))
        self.sessions = Sessions(factory, None if nodes is None else nodes.name)
        if events:
            self.putChild(b"events", EventsResource(factory, policy, self.websocket))
            relay = Relay(self.sessions, nodes)
            for name, kind in ((b"connect", ConnectResource), (b"send", SendResource)):
                self.putChild(name, kind(factory, policy, self.websocket, self.sessions, relay))
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


_GIVE_HANDSHAKES_AWAY = (
    *(RootResource.render, PageOrWebSocket.render, EventsResource.render, TicketResource.render),
    *(ConnectResource.render, SendResource.render),
)


class LHTTPSite(server.Site):
    """
    A site that limits the body and the time of each request, and shows neither tracebacks nor the software's name.
    """

    protocol = BoundedChannel  # type: ignore[assignment]
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
        body_timeout: float = 20.0,
        lifetime: float = 120.0,
        admission: Admission | None = None,
    ) -> None:
        """
        :param resource: the root.
        :param max_body_size: the most bytes of a request's body. A larger one gets status 413 while it arrives.
        :param reactor: the running reactor.
        :param timeout: seconds without a byte after which a connection without a WebSocket is closed.
        :param head_timeout: seconds within which a request's head must be complete.
        :param body_timeout: seconds within which its body must be complete, and the trailers after it.
        :param lifetime: seconds after which a connection without a WebSocket is closed, after its current request.
        :param admission: counts connections without a WebSocket; ``None``: they are not counted.
        """
        super().__init__(resource, BoundedRequest, timeout=timeout, reactor=reactor, **_NO_FORMS)
        self._counters: Counters | None = getattr(resource, "counters", None)
        self.max_body_size = max_body_size
        self.head_timeout = head_timeout
        self.body_timeout = body_timeout
        self.lifetime = lifetime
        self.admission = admission

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return the channel for a connection from *addr*."""
        channel: Any = super().buildProtocol(addr)
        channel.address = addr
        return channel

    def find_websocket(self, path: bytes) -> LHTTPServerFactory | None:
        """
        Return the factory of the WebSocket at *path*; ``None`` if only a request can find it.

        The search goes down the resource tree as twisted.web does. It stops at a resource that makes its children on
        demand.

        :param path: the path as it was sent, without the query.
        """
        if type(self).getResourceFor is not server.Site.getResourceFor or self.requestFactory is not BoundedRequest:
            return None
        if not is_shallow(path):
            return None
        resource: Any = self.resource
        for quoted in path[1:].split(b"/"):
            if resource.isLeaf:
                break
            kind = type(resource)
            if getattr(kind, "getChildWithDefault", None) is not Resource.getChildWithDefault:
                return None
            child = resource.children.get(unquote(quoted) if b"%" in quoted else quoted)
            if child is None:
                if kind.getChild is not RootResource.getChild:
                    return None
                child = resource.websocket
            resource = child
        if getattr(type(resource), "render", None) in _GIVE_HANDSHAKES_AWAY:
            resource = resource.websocket
        return resource.factory if getattr(type(resource), "render", None) is WebSocketResource.render else None

    def getContentFile(self, length: int | None) -> BytesIO:
        """Keep a body in memory, where its size is limited. A file would need a descriptor and disk space."""
        return BytesIO()

    def acceptableProtocols(self) -> list[bytes]:
        """Offer only HTTP/1.1 over TLS, because a WebSocket takes over its connection."""
        return [b"http/1.1"]

    def log(self, request: Any) -> None:
        """Count the answer. Write no access log, because requests can contain secrets of clients."""
        if self._counters is not None:
            self._counters.requests[str(request.code)] += 1
