"""
The lower half of the client's WebSocket edge: turns bytes into messages, and messages into bytes.

:mod:`lhttp_tx.client.websocket.protocol` adds the beginning and the end of a connection. Autobahn is between the two,
and a :class:`Link` above them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from autobahn.twisted.websocket import WebSocketClientProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.codec.message import Unreadable
from lhttp_tx.codec.views import View
from lhttp_tx.errors import RemoteProtocolError
from lhttp_tx.transports.websocket.fragments import Joined

if TYPE_CHECKING:
    from lhttp_tx.client.websocket.protocol import WebSocketFactory

__all__ = ["Carrier", "Link", "MessageConnection"]

_log = Logger()

_CONNECTING = WebSocketProtocol.STATE_CONNECTING
_OPEN = WebSocketProtocol.STATE_OPEN

_MAX_HANDSHAKE_SIZE = 16_384
"""The most bytes of a server's handshake. After more, the connection is dropped."""

_TEXT, _BINARY = 0x81, 0x82


class Link(Protocol):
    """The user of a connection, which gets its messages."""

    def message_received(self, payload: bytes, binary: bool) -> None:
        """Called with each whole message; must not raise."""

    def writable(self) -> None:
        """Called when everything written has been sent."""


class Carrier(Protocol):
    """
    A connection as its user sees it: a WebSocket, or a session over HTTP.

    :ivar whole: whether messages travel whole, and not in fragments.
    """

    whole: bool

    @property
    def unsent(self) -> int:
        """Bytes that wait for the server; 0 while it takes everything."""

    @property
    def congested(self) -> bool:
        """Whether the server does not take everything."""

    def attach(self, link: Any, lost: Callable[[Failure], object], /) -> None:
        """Pass everything that comes from now on to *link*, and the end to *lost*."""

    def onMessage(self, payload: bytes, binary: bool, /) -> None:
        """Pass a message on."""

    def send_message(self, payload: bytes, binary: bool) -> None:
        """Send a whole message. It is dropped if the connection is closing."""

    def encoded(self, payload: bytes, binary: bool) -> tuple[bytes, bool]:
        """Return a message in the form that it travels in, and whether that is binary."""

    def send_fragment(self, payload: bytes, binary: bool, *, first: bool, last: bool) -> None:
        """Send a piece of a message, encoded. No other message may begin before its last piece."""

    def loseConnection(self) -> None:
        """Close it in an orderly way."""

    def abort(self) -> None:
        """Drop it."""


class _QuietLog:
    """The log of Autobahn. The client reports problems by its errors and states, so this log is only for debugging."""

    def trace(self, *args: object, **kwargs: object) -> None:
        """Log nothing: there are several calls for each frame, and formatting them is expensive."""

    debug = info = trace

    def warn(self, format: str, **kwargs: object) -> None:  # noqa: A002 - Autobahn's name
        """Log at the lowest level."""
        _log.debug(format, **kwargs)

    error = warn


@implementer(IPushProducer)
class MessageConnection(WebSocketClientProtocol):
    """
    The messages of one WebSocket connection of a client.

    :ivar unsent: bytes written since the transport asked to wait; 0 while it does not ask to wait.
    :ivar congested: whether the transport has asked to wait.
    :ivar view: the form that messages travel in; ``None``: as they are.
    """

    log = _QuietLog()
    factory: WebSocketFactory
    transport: Any
    websocket_protocol_in_use: str | None = None
    whole = False

    def __init__(self) -> None:
        super().__init__()
        self.unsent = 0
        self.congested = False
        self.view: View | None = None
        self._link: Link | None = None

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Take the data of one read. No exception may reach the reactor."""
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
        Pass on the whole data frames at the beginning of *data*, and return the rest.

        This takes only simple frames, in one pass: whole, final, unmasked, with the shortest encoding of their length,
        and with valid UTF-8 if they are text. Autobahn's state machine handles everything else.
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
        """Cancel Autobahn's ping timeout: any data shows that the server is alive."""
        if self.autoPingTimeoutCall is not None:
            self._cancelAutoPingTimeoutCall()

    def onAutoPingTimeout(self) -> None:
        """
        Give the server up in the next turn of the reactor. If this process stood still, it reads the answer before
        that.
        """
        self.autoPingTimeoutCall = self.factory._batched_timer.call_later(0, super().onAutoPingTimeout)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Pass a message on."""
        if self._link is not None:
            self._link.message_received(*((payload, isBinary) if self.view is None else _read(self.view, payload)))

    def onMessageBegin(self, isBinary: bool) -> None:
        """Begin a message. Its frames are joined as they come."""
        super().onMessageBegin(isBinary)
        self.message_data: Any = Joined()

    def onMessageFrameData(self, payload: bytes) -> None:
        """Keep the part of a frame that has arrived."""
        if not self.failedByMe:
            self.message_data.add(payload)

    def onMessageFrameEnd(self) -> None:
        """Do nothing: the frame's data was kept as it came."""

    def onMessageEnd(self) -> None:
        """Put a message together. Unlike the inherited method, this makes no Deferred for observers."""
        if not self.failedByMe:
            self.onMessage(self.message_data.take(), self.message_is_binary)
        self.message_data = None

    # Writing

    def send_message(self, payload: bytes, binary: bool) -> None:
        """Send a whole message. It is dropped if the connection is closing."""
        if self.state == _OPEN:
            payload, binary = self.encoded(payload, binary)
            self.send_fragment(payload, binary, first=True, last=True)

    def encoded(self, payload: bytes, binary: bool) -> tuple[bytes, bool]:
        """Return a message in the form that it travels in, and whether that is binary."""
        return (payload, binary) if self.view is None else (self.view.write(payload, binary), self.view.binary)

    def send_fragment(self, payload: bytes, binary: bool, *, first: bool, last: bool) -> None:
        """Send a piece of a message, encoded. No other message may begin before its last piece."""
        if self.state == _OPEN:
            if self.congested:
                self.unsent += len(payload)
            self.sendFrame(opcode=(2 if binary else 1) if first else 0, payload=payload, fin=last)

    def abort(self) -> None:
        """Close the connection at once."""
        self.dropConnection(abort=True)

    def pauseProducing(self) -> None:
        """Called when the transport's buffer is full; see :attr:`unsent`."""
        self.congested = True

    def resumeProducing(self) -> None:
        """Called when the transport has sent everything."""
        self.congested = False
        self.unsent = 0
        if self._link is not None:
            self._link.writable()

    def stopProducing(self) -> None:
        """Called when the transport is gone; :meth:`onClose` follows."""


def _read(view: View, payload: bytes) -> tuple[bytes, bool]:
    """Return the message that *payload* describes; in the place of one that cannot be read, its error."""
    try:
        return view.read_own(payload)
    except RemoteProtocolError as error:
        return Unreadable.of(error, None), False


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
