"""
The WebSocket as a resource of twisted.web.

Mount it anywhere in a resource tree; :class:`lhttp_tx.web.site.RootResource` does so for every path without a
resource of its own.
"""

from __future__ import annotations

from typing import Any

from twisted.protocols.policies import ProtocolWrapper
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from lhttp_tx.transports.websocket.factory import LHTTPServerFactory

__all__ = ["WebSocketResource", "hand_over"]


class WebSocketResource(Resource):
    """
    Answers opening handshakes on its own path and on every path below.

    :ivar factory: makes the connections.
    """

    isLeaf = True

    def __init__(self, factory: LHTTPServerFactory, user: str | None = None) -> None:
        """
        :param factory: makes the connections.
        :param user: the user, if a ``twisted.cred`` realm makes a resource for each of its users.
            ``session.handshake.user`` has it.
        """
        super().__init__()
        self.factory = factory
        self._user = user

    def render(self, request: Request) -> int | bytes:
        """Take over the connection of a WebSocket handshake. Answer other requests with an explanation."""
        request.responseHeaders.removeHeader(b"server")
        upgrade = (request.getHeader(b"upgrade") or b"").strip().lower()
        if upgrade != b"websocket" or request.channel.transport is None:
            request.setResponseCode(426, b"Upgrade Required")
            request.setHeader(b"upgrade", b"websocket")
            request.setHeader(b"content-type", b"text/plain; charset=utf-8")
            return b"" if request.method == b"HEAD" else b"this is a WebSocket endpoint that speaks LHTTP/1.0\n"
        channel: Any = request.channel
        behind = channel.clearLineBuffer() + b"".join(channel._dataBuffer)
        channel._dataBuffer = []
        head = [request.method + b" " + request.uri + b" " + request.clientproto]
        for name, values in request.requestHeaders.getAllRawHeaders():
            head.extend(name + b": " + value for value in values)
        protocol = self.factory.buildProtocol(request.transport.getPeer())  # type: ignore[union-attr]
        protocol.user = self._user
        hand_over(channel, protocol)
        # As if it had been the protocol's connection from the start.
        protocol.dataReceived(b"\r\n".join(head) + b"\r\n\r\n" + behind)
        return NOT_DONE_YET


def hand_over(channel: Any, protocol: Any) -> None:
    """Make *protocol* the owner of the connection in place of *channel*."""
    transport: Any = channel.transport
    channel.transport = None
    channel.setTimeout(None)
    if hasattr(channel, "end_timers"):
        channel.end_timers()
    transport.unregisterProducer()
    if isinstance(transport, ProtocolWrapper):
        transport.wrappedProtocol = protocol
    elif isinstance(transport.protocol, ProtocolWrapper):
        transport.protocol.wrappedProtocol = protocol
    else:
        transport.protocol = protocol
    protocol.place, channel.place = getattr(channel, "place", None), None
    protocol.makeConnection(transport)
    transport.resumeProducing()
