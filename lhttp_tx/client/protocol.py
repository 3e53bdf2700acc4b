"""
The client's WebSocket edge: Autobahn below, a :class:`Link` above.

:class:`WebSocketEndpoint` turns any stream endpoint into one whose connections are WebSocket connections, open by the
time they are handed out. So a service that keeps a connection alive needs to know nothing of handshakes: one that is
refused is a connection that did not come about. Used by :mod:`lhttp_tx.client.client`; imports nothing of the server.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectingRequest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IPushProducer, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.client.errors import ConnectFailed, ConnectionLost, LoginFailed
from lhttp_tx.timers import ExactTimer

__all__ = ["Link", "WebSocketConnection", "WebSocketEndpoint", "WebSocketFactory", "parse_url"]

_log = Logger()

_CONNECTING = WebSocketProtocol.STATE_CONNECTING
_OPEN = WebSocketProtocol.STATE_OPEN

_MAX_HANDSHAKE_SIZE = 16_384
"""Bytes of a server's handshake that are taken before the connection is dropped."""

_MAX_REASON_LENGTH = 200
"""Characters of what a server says about a close or a refusal that are handed on."""

_TEXT, _BINARY = 0x81, 0x82


def parse_url(url: str) -> SplitResult:
    """
    Return the parts of a WebSocket URL.

    :raises ValueError: if it is not a ``ws://`` or ``wss://`` URL with a host; the text says what is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss"):
        raise ValueError(f"{url!r} does not begin with ws:// or wss://")
    if not parts.hostname:
        raise ValueError(f"{url!r} names no host")
    if parts.username is not None or parts.fragment:
        raise ValueError(f"{url!r} holds a user name or a fragment")
    if not url.isascii() or any(char <= " " for char in url):
        raise ValueError(f"{url!r} holds a blank or a character that must be escaped")
    if parts.port == 0:
        raise ValueError(f"{url!r} has the port 0")
    return parts


class Link(Protocol):
    """What sits on a connection and gets its messages."""

    def message_received(self, payload: bytes, binary: bool) -> None:
        """A whole message has come; must not raise."""

    def writable(self) -> None:
        """Everything that was written has been sent."""


class _QuietLog:
    """What Autobahn logs to. The client reports by its errors and states, so this is for whoever looks for a fault."""

    def trace(self, *args: object, **kwargs: object) -> None:
        """Log nothing: its arguments are costly and there are several for each frame."""

    debug = info = trace

    def warn(self, format: str, **kwargs: object) -> None:  # noqa: A002 - Autobahn's name
        """Log at the lowest level."""
        _log.debug(format, **kwargs)

    error = warn


@implementer(IPushProducer)
class WebSocketConnection(WebSocketClientProtocol):
    """
    One WebSocket connection of a client.

    :ivar opened: fires with this connection once the handshake is done; fails with
        :exc:`~lhttp_tx.client.errors.ConnectFailed`, with :exc:`~lhttp_tx.client.errors.LoginFailed` for status 401.
    :ivar unsent: bytes written since the transport asked to wait; 0 while it takes what is written.
    """

    log = _QuietLog()
    factory: WebSocketFactory
    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[WebSocketConnection] = Deferred(lambda _: self.abort())
        self.unsent = 0
        self.congested = False
        self.closed_by_us = False
        self._answered = False
        self._link: Link | None = None
        self._lost: Callable[[Failure], object] = lambda _: None

    def attach(self, link: Link, lost: Callable[[Failure], object]) -> None:
        """
        Hand what comes from now on to *link*.

        :param lost: called with the reason when the connection has ended.
        """
        self._link, self._lost = link, lost

    # Autobahn's callbacks

    def onConnecting(self, transport_details: Any) -> ConnectingRequest:
        """Say what to ask for. Autobahn's own request is wrong for IPv6 addresses."""
        factory = self.factory
        host = f"[{factory.host}]" if ":" in factory.host else factory.host
        return ConnectingRequest(host=host, port=factory.port, resource=factory.resource, headers=factory.headers)

    def onOpen(self) -> None:
        """The handshake is done."""
        with suppress(AttributeError, OSError):  # not TCP
            self.transport.setTcpNoDelay(True)  # Autobahn tries before it knows its own options
        self.transport.registerProducer(self, True)
        self._answered = True
        self.opened.callback(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Hand over a message."""
        if self._link is not None:
            self._link.message_received(payload, isBinary)

    def onMessageEnd(self) -> None:
        """Put a message together; unlike the inherited method this makes no Deferred for observers."""
        if not self.failedByMe:
            self.onMessage(b"".join(self.message_data), self.message_is_binary)
        self.message_data = None  # type: ignore[assignment]

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        """Hang up once both sides have said that they close, rather than wait for the server to do it."""
        result: bool | None = super().onCloseFrame(code, reasonRaw)
        if self.wasClean:
            self.dropConnection(abort=False)
        return result

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Tell whoever waits for the handshake, or the link."""
        if not self._answered:
            self._answered = True
            if not self.opened.called:
                self.opened.errback(Failure(self._refusal()))
            return
        lost, self._lost, self._link = self._lost, lambda _: None, None
        error = ConnectionLost(self._end(wasClean, code, reason))
        error.code = code
        lost(Failure(error))

    def _refusal(self) -> ConnectFailed:
        status_line = getattr(self, "http_status_line", None)
        if status_line is None:
            why = self.wasNotCleanReason or "peer dropped"
            hung_up = why.startswith("peer dropped")
            return ConnectFailed("the server hung up during the handshake" if hung_up else _short(why))
        text = self._refusal_text(status_line)
        if status_line.split()[1:2] == ["401"]:
            return LoginFailed(text, status=401)
        return ConnectFailed(text)

    def _refusal_text(self, status_line: str) -> str:
        status = _short(status_line.partition(" ")[2].strip())
        if not self.http_headers.get("content-type", "").startswith("text/plain"):
            return f"the server refuses a WebSocket: {status}"
        body = bytes(self.data).partition(b"\r\n\r\n")[2].decode("utf-8", "replace").strip()
        return f"the server refuses a WebSocket: {status}: {_short(body)}" if body else f"the server refuses: {status}"

    def _end(self, clean: bool, code: int | None, reason: str | None) -> str:
        if self.closed_by_us:
            return "closed"
        if not clean:
            return "the connection was lost"
        text = f"the server closed the connection ({code})" if code else "the server closed the connection"
        return f"{text}: {_short(reason)}" if reason else text

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Take what one read brought in; nothing that goes wrong in it may reach the reactor."""
        try:
            if self.state == _OPEN and not self.data and not self.inside_message and self.current_frame is None:
                data = self._take_frames(data)
            if data:
                self._dataReceived(data)
            if self.state == _CONNECTING and len(self.data) > _MAX_HANDSHAKE_SIZE:
                self.wasNotCleanReason = f"the answer to the handshake is longer than {_MAX_HANDSHAKE_SIZE} bytes"
                self.abort()
        except Exception:
            _log.failure("{peer}: reading failed", peer=self.peer)
            self.abort()

    def _take_frames(self, data: bytes) -> bytes:
        """
        Hand over the whole data frames that *data* begins with and return the rest of it.

        Frames that are beyond doubt are taken here in one pass: whole, final, unmasked, in the shortest encoding of
        their length, and valid UTF-8 where they are text. Autobahn's state machine judges everything else.
        """
        position, end, largest = 0, len(data), self.factory.max_message_size
        while end - position >= 2 and self.state == _OPEN:
            first, size = data[position], data[position + 1]
            if (first != _TEXT and first != _BINARY) or size > 126:
                break
            start = position + 2
            if size == 126:
                size = int.from_bytes(data[start : start + 2], "big")
                start += 2
                if size < 126:
                    break
            stop = start + size
            if stop > end or size > largest:
                break
            payload = data[start:stop]
            if first == _TEXT and not payload.isascii() and not _is_utf8(payload):
                break
            position = stop
            self._heard()
            self.onMessage(payload, first == _BINARY)
        return data[position:]

    def _heard(self) -> None:
        """Whatever arrives shows that the server is there, as Autobahn has it."""
        if self.autoPingTimeoutCall is not None:
            self._cancelAutoPingTimeoutCall()

    # Writing

    def send_message(self, payload: bytes, binary: bool) -> None:
        """Send a whole message; it is dropped if the connection is closing."""
        if self.state == _OPEN:
            self.send_fragment(payload, binary, first=True, last=True)

    def send_fragment(self, payload: bytes, binary: bool, *, first: bool, last: bool) -> None:
        """Send a piece of a message; no other message may be begun before its last."""
        if self.state == _OPEN:
            if self.congested:
                self.unsent += len(payload)
            self.sendFrame(opcode=(2 if binary else 1) if first else 0, payload=payload, fin=last)

    def loseConnection(self) -> None:
        """Close in good order: say so, and hang up when the server has said so too or its time is up."""
        self.closed_by_us = True
        if self.state == _OPEN:
            self.sendClose(1000)
        else:
            self.dropConnection(abort=False)

    def abort(self) -> None:
        """Hang up at once."""
        self.dropConnection(abort=True)

    def pauseProducing(self) -> None:
        """The transport holds more than it likes; see :attr:`unsent`."""
        self.congested = True

    def resumeProducing(self) -> None:
        """The transport has sent everything."""
        self.congested = False
        self.unsent = 0
        if self._link is not None:
            self._link.writable()

    def stopProducing(self) -> None:
        """The transport is gone; :meth:`onClose` follows."""


class WebSocketFactory(WebSocketClientFactory):
    """Makes the connections of one client."""

    protocol = WebSocketConnection  # type: ignore[assignment]
    noisy = False

    def __init__(
        self,
        url: str,
        *,
        reactor: Any,
        headers: dict[str, str] | None = None,
        max_message_size: int = 1_048_576,
        ping_interval: float = 30.0,
        ping_timeout: float = 10.0,
        close_timeout: float = 2.0,
    ) -> None:
        """
        :param url: what to ask the server for, and the name it is asked under.
        :param reactor: the running reactor.
        :param headers: HTTP headers to add to the handshake.
        :param max_message_size: bytes of a message; the connection of a server that sends a larger one is closed.
        :param ping_interval: seconds between pings, 0 for none.
        :param ping_timeout: seconds in which the server must answer a ping.
        :param close_timeout: seconds in which the server must answer a close.
        """
        super().__init__(url, useragent=None, headers=headers, reactor=reactor)
        self._batched_timer = ExactTimer(reactor)
        self.max_message_size = max_message_size
        self.setProtocolOptions(
            failByDrop=False,
            maxFramePayloadSize=max_message_size,
            maxMessagePayloadSize=max_message_size,
            autoPingInterval=ping_interval,
            autoPingTimeout=ping_timeout,
            closeHandshakeTimeout=close_timeout,
            # The endpoint limits the time of the handshake, and we hang up ourselves.
            openHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
        )


@implementer(IStreamClientEndpoint)
class WebSocketEndpoint:
    """Connects by another endpoint and does the WebSocket handshake."""

    def __init__(self, endpoint: IStreamClientEndpoint, factory: WebSocketFactory, timeout: float) -> None:
        """
        :param endpoint: how to reach the server.
        :param factory: makes the WebSocket connections.
        :param timeout: seconds for connecting and the handshake together.
        """
        self._endpoint = endpoint
        self._factory = factory
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect.

        :param protocolFactory: makes a protocol that is also a :class:`Link`.
        :returns: a Deferred that

            - succeeds with that protocol;
            - fails as the endpoint does, with :exc:`~lhttp_tx.client.errors.ConnectFailed` if the handshake is
              refused, or with :exc:`TimeoutError`.
        """

        def opened(connection: WebSocketConnection) -> Any:
            protocol: Any = protocolFactory.buildProtocol(connection.transport.getPeer())
            connection.attach(protocol, protocol.connectionLost)
            protocol.makeConnection(connection)
            return protocol

        connecting: Deferred[Any] = self._endpoint.connect(self._factory)
        connecting.addCallback(lambda connection: connection.opened)
        connecting.addCallback(opened)
        return connecting.addTimeout(self._timeout, self._factory.reactor)

    def __repr__(self) -> str:
        return f"<WebSocketEndpoint {self._factory.url}>"


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _short(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:_MAX_REASON_LENGTH]
