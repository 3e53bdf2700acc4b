"""
A client's WebSocket connection: the class of the connections, and their factory.

:mod:`lhttp_tx.client.websocket.connection` has the lower part. This module adds the beginning and the end of a
connection. Used by :mod:`lhttp_tx.client.client`; imports nothing of the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal

from autobahn.twisted.util import peer2str
from autobahn.twisted.websocket import WebSocketClientFactory
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectingRequest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.client.errors import ConnectFailed
from lhttp_tx.client.websocket.connection import Link, MessageConnection
from lhttp_tx.client.websocket.endings import lost, refused, short
from lhttp_tx.codec.views import VIEWS
from lhttp_tx.transports.websocket.coroutines import ask_inspect
from lhttp_tx.transports.websocket.timers import ExactTimer

__all__ = ["SUBPROTOCOLS", "Codec", "WebSocketConnection", "WebSocketFactory"]

ask_inspect()

_OPEN = WebSocketProtocol.STATE_OPEN

Codec = Literal["text", "json", "protobuf"]

SUBPROTOCOLS: Mapping[Codec, str | None] = {"text": None, "json": "lhttp.json", "protobuf": "lhttp.protobuf"}
"""The subprotocols that a client asks for, by codec. Text needs none."""

_GROWTH = {"text": 1, "json": 6, "protobuf": 2}
"""
The most bytes of a message in a codec, as a multiple of its own bytes. JSON writes a control character as six
characters.
"""


class WebSocketConnection(MessageConnection):
    """
    One WebSocket connection of a client.

    :ivar opened: succeeds with this connection after the handshake; fails with
        :exc:`~lhttp_tx.client.errors.ConnectFailed`, or with its subclass :exc:`~lhttp_tx.client.errors.LoginFailed`
        for status 401.
    :ivar closed_by_us: whether this side has begun to close the connection.
    """

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[WebSocketConnection] = Deferred(lambda _: self.abort())
        self.closed_by_us = False
        self._answered = False
        self._lost: Callable[[Failure], object] = lambda _: None

    def attach(self, link: Link, lost: Callable[[Failure], object]) -> None:
        """
        Pass messages to *link* from now on.

        :param lost: called with the reason when the connection has ended.
        """
        self._link, self._lost = link, lost

    # Autobahn's callbacks

    def connectionMade(self) -> None:
        """
        Begin, without the TLS details that Autobahn would collect. Not every TLS connection has them, and the client
        does not use them.
        """
        self.peer = peer2str(self.transport)
        self._connectionMade()

    def _onOpen(self) -> None:
        self.onOpen()

    def onConnecting(self, transport_details: Any) -> ConnectingRequest:
        """Return the request to send. Autobahn's own request is wrong for IPv6 addresses."""
        factory = self.factory
        host = f"[{factory.host}]" if ":" in factory.host else factory.host
        return ConnectingRequest(
            host=host,
            port=factory.port,
            resource=factory.resource,
            headers=factory.headers,
            protocols=factory.protocols,
        )

    def onOpen(self) -> None:
        """Called when the handshake is done."""
        with suppress(AttributeError, OSError):  # not TCP
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self.view = VIEWS.get(self.websocket_protocol_in_use or "")
        self._answered = True
        self.opened.callback(self)

    def loseConnection(self) -> None:
        """
        Close the connection: send a close frame, and disconnect when the server has answered it, or its time is up.
        """
        self.closed_by_us = True
        if self.state == _OPEN:
            self.sendClose(1000)
        else:
            self.dropConnection(abort=False)

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        """Disconnect as soon as both sides have sent a close frame, instead of waiting for the server to disconnect."""
        result: bool | None = super().onCloseFrame(code, reasonRaw)
        if self.wasClean:
            self.dropConnection(abort=False)
        return result

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Report the end: fail :attr:`opened`, or call the function of :meth:`attach`."""
        if not self._answered:
            self._answered = True
            if not self.opened.called:
                self.opened.errback(Failure(self._refusal()))
            return
        ended, self._lost, self._link = self._lost, lambda _: None, None
        ended(Failure(lost(code, reason or "", clean=wasClean, closed_by_us=self.closed_by_us)))

    def _refusal(self) -> ConnectFailed:
        status_line = getattr(self, "http_status_line", None)
        if status_line is None:
            why = self.wasNotCleanReason or "peer dropped"
            hung_up = why.startswith("peer dropped")
            return ConnectFailed("the server hung up during the handshake" if hung_up else short(why))
        body = ""
        if self.http_headers.get("content-type", "").startswith("text/plain"):
            body = bytes(self.data).partition(b"\r\n\r\n")[2].decode("utf-8", "replace")
        return refused("a WebSocket", status_line.partition(" ")[2], body)


class WebSocketFactory(WebSocketClientFactory):
    """Makes the connections of a client."""

    protocol = WebSocketConnection  # type: ignore[assignment]
    noisy = False

    def __init__(
        self,
        url: str,
        *,
        reactor: Any,
        headers: dict[str, str] | None = None,
        codec: Codec = "text",
        protocols: list[str] | None = None,
        max_message_size: int = 1_048_576,
        ping_interval: float = 30.0,
        ping_timeout: float = 10.0,
        close_timeout: float = 2.0,
    ) -> None:
        """
        :param url: a URL with the path to request, and the server's host name.
        :param reactor: the reactor.
        :param headers: HTTP headers to add to the handshake.
        :param codec: the form of messages. With a server that does not know the codec, the client uses text.
        :param protocols: subprotocols to ask for, instead of the one of the codec.
        :param max_message_size: the most bytes of a message. A larger message from the server closes the connection.
        :param ping_interval: seconds between pings; 0: none.
        :param ping_timeout: the most seconds to wait for the answer to a ping.
        :param close_timeout: the most seconds to wait for the server's answer to a close.
        """
        name = SUBPROTOCOLS[codec]
        protocols = protocols or (None if name is None else [name, "lhttp"])
        super().__init__(url, protocols=protocols, useragent=None, headers=headers, reactor=reactor)
        max_message_size *= _GROWTH[codec]
        self._batched_timer = ExactTimer(reactor)
        self.max_message_size = max_message_size
        self.setProtocolOptions(
            failByDrop=False,
            maxFramePayloadSize=max_message_size,
            maxMessagePayloadSize=max_message_size,
            autoPingInterval=ping_interval,
            autoPingTimeout=ping_timeout,
            closeHandshakeTimeout=close_timeout,
            # The endpoint limits the time of the handshake, and the client disconnects first.
            openHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
        )
