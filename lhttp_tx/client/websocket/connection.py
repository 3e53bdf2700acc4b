"""
The lower part of a client's WebSocket connection: converts bytes to messages, and messages to bytes.

:mod:`lhttp_tx.client.websocket.protocol` adds the beginning and the end of a connection. Both are subclasses of
Autobahn's protocol. A :class:`Link` gets the messages.
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
"""The most bytes of a server's answer to the handshake. If there are more, the connection is closed."""

_TEXT, _BINARY = 0x81, 0x82


class Link(Protocol):
    """The user of a connection, which gets its messages."""

    def message_received(self, payload: bytes, binary: bool) -> None:
        """Called with each whole message. It must not raise."""

    def writable(self) -> None:
        """Called when the transport has sent everything."""


class Carrier(Protocol):
    """
    The interface of a connection: a WebSocket, or a session over HTTP.

    :ivar whole: whether messages are sent whole, and not in fragments.
    """

    whole: bool

    @property
    def unsent(self) -> int:
        """The bytes that wait until the server takes them."""

    @property
    def congested(self) -> bool:
        """Whether the server does not take messages fast enough."""

    def attach(self, link: Any, lost: Callable[[Failure], object], /) -> None:
        """Pass all messages from now on to *link*. Call *lost* with the reason when the connection has ended."""

    def onMessage(self, payload: bytes, binary: bool, /) -> None:
        """Pass a message on."""

    def send_message(self, payload: bytes, binary: bool) -> None:
        """Send a whole message. It is dropped if the connection is closing."""

    def encoded(self, payload: bytes, binary: bool) -> tuple[bytes, bool]:
        """Return a message in the form in which it is sent, and whether that is binary."""

    def send_fragment(self, payload: bytes, binary: bool, *, first: bool, last: bool) -> None:
        """Send a piece of an encoded message. Do not begin another message before the last piece."""

    def loseConnection(self) -> None:
        """Close the connection with a close handshake, or an equivalent."""

    def abort(self) -> None:
        """Drop the connection at once."""


class _QuietLog:
    """The log of Autobahn. It is only for debugging, because the client reports problems as errors and states."""

    def trace(self, *args: object, **kwargs: object) -> None:
        """Log nothing. Autobahn calls this several times for each frame, and formatting is expensive."""

    debug = info = trace

    def warn(self, format: str, **kwargs: object) -> None:  # noqa: A002 - Autobahn's name
        """Log at the lowest level."""
        _log.debug(format, **kwargs)

    error = warn


@implementer(IPushProducer)
class MessageConnection(WebSocketClientProtocol):
    """
    The messages of one WebSocket connection of a client.

    :ivar unsent: the bytes written since the transport's buffer is full; 0 while it is not.
    :ivar congested: whether the transport's buffer is full.
    :ivar view: the view that messages are sent in; ``None``: unchanged.
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
        """Take the data of one read. Exceptions are logged, and close the connection."""
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
        Take the whole data frames at the beginning of *data*, and return the rest.

        This takes only simple frames: whole, final, unmasked, of less than 64 KiB, with the shortest encoding of their
        length, and with valid UTF-8 if they are text. Autobahn handles everything else.
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
        """Cancel Autobahn's ping timeout, because any data shows that the server is alive."""
        if self.autoPingTimeoutCall is not None:
            self._cancelAutoPingTimeoutCall()

    def onAutoPingTimeout(self) -> None:
        """
        Close the connection in the next turn of the reactor. If this process was paused, it reads the answer before
        that.
        """
        self.autoPingTimeoutCall = self.factory._batched_timer.call_later(0, super().onAutoPingTimeout)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Pass a message to the link."""
        if self._link is not None:
            self._link.message_received(*((payload, isBinary) if self.view is None else _read(self.view, payload)))

    def onMessageBegin(self, isBinary: bool) -> None:
        """Begin a message. The data of its frames is joined when it comes."""
        super().onMessageBegin(isBinary)
        self.message_data: Any = Joined()

    def onMessageFrameData(self, payload: bytes) -> None:
        """Keep a part of a frame."""
        if not self.failedByMe:
            self.message_data.add(payload)

    def onMessageFrameEnd(self) -> None:
        """Do nothing: the data of the frame was kept when it came."""

    def onMessageEnd(self) -> None:
        """Handle a complete message. Unlike the inherited method, this makes no Deferred for observers."""
        if not self.failedByMe:
            self.onMessage(self.message_data.take(), self.message_is_binary)
        self.message_data = None

    # Writing

    def send_message(self, payload: bytes, binary: bool) -> None:
        """Send a whole message. If the connection is closing, drop it."""
        if self.state == _OPEN:
            payload, binary = self.encoded(payload, binary)
            self.send_fragment(payload, binary, first=True, last=True)

    def encoded(self, payload: bytes, binary: bool) -> tuple[bytes, bool]:
        """Return a message in the form in which it is sent, and whether this is binary."""
        return (payload, binary) if self.view is None else (self.view.write(payload, binary), self.view.binary)

    def send_fragment(self, payload: bytes, binary: bool, *, first: bool, last: bool) -> None:
        """
        Send a fragment of an encoded message. No other message may begin before the last fragment.

        :param first: whether it is the first fragment.
        :param last: whether it is the last one.
        """
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
        """Do nothing: the transport is lost, and :meth:`onClose` follows."""


def _read(view: View, payload: bytes) -> tuple[bytes, bool]:
    """
    Return the message that a view represents, and whether it is binary. If it cannot be read, return an
    :class:`~lhttp_tx.codec.message.Unreadable`.
    """
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
