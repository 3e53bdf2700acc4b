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
    ``/publish``, ``/events``, ``/connect``, ``/send``, the JavaScript client, what was put beside them with
    ``putChild``, and the WebSocket on every other path.

    :ivar counters: count the answers; ``None``: nobody does.
    :ivar sessions: the sessions of clients without WebSocket; stop them with the server.
    :ivar websocket: what answers there.
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
        :param factory: makes the WebSocket connections of a server; it knows who may come in.
        :param demo: whether a chat page is at ``/``.
        :param events: whether clients without WebSocket are served, at ``/events``, ``/connect`` and ``/send``.
        :param nodes: the other nodes, whose sessions are served, too; ``None`` if there are none.
        """
        super().__init__()
        engine, policy = factory.engine, factory.policy
        self.counters = engine.counters
        self.websocket = WebSocketResource(factory)
        self.putChild(b"publish", PublishResource(engine, policy))
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
    """A site whose requests have a bounded body, take a bounded time, and show no traceback and no software name."""

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
        :param max_body_size: bytes of a request's body; more get status 413 while they arrive.
        :param reactor: the running reactor.
        :param timeout: seconds without a byte after which a connection that is no WebSocket is closed.
        :param head_timeout: seconds in which a request's head must be complete.
        :param body_timeout: seconds in which its body must be complete, with what follows it.
        :param lifetime: seconds after which a connection that is no WebSocket is closed, when its request is answered.
        :param admission: counts connections that are no WebSocket; ``None``: nobody does.
        """
        super().__init__(resource, BoundedRequest, timeout=timeout, reactor=reactor, **_NO_FORMS)
        self._counters: Counters | None = getattr(resource, "counters", None)
        self.max_body_size = max_body_size
        self.head_timeout = head_timeout
        self.body_timeout = body_timeout
        self.lifetime = lifetime
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
        """Keep a body in memory, where it is bounded: a file would need a descriptor and room on the disk."""
        return BytesIO()

    def acceptableProtocols(self) -> list[bytes]:
        """Speak HTTP/1.1 alone over TLS: a WebSocket takes over its connection."""
        return [b"http/1.1"]

    def log(self, request: Any) -> None:
        """Keep no access log: what clients send does not belong in the operator's log. Only the answers are counted."""
        if self._counters is not None:
            self._counters.requests[str(request.code)] += 1
