"""
A client's side of one connection: sends and receives messages, and sends large ones in fragments.

:mod:`lhttp_tx.client.uplink` makes one for each connection, on top of a
:class:`~lhttp_tx.client.websocket.connection.Carrier`. It imports neither subscriptions nor answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol, final

from twisted.internet import protocol
from twisted.python.failure import Failure

from lhttp_tx.client.errors import QueueFull
from lhttp_tx.client.subscription import call_safely
from lhttp_tx.client.websocket.connection import Carrier
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import Head, Message, parse_head, split_head
from lhttp_tx.errors import LHTTPError

__all__ = ["ClientLink", "LinkOwner"]

_MAX_HEADS = 256
"""The most parsed heads of received messages that a connection keeps."""

_MAX_HEAD_SIZE = 512
"""
The most bytes of such a head. Others choose the heads, and a parsed list of channels takes twenty times as much memory
as its bytes.
"""

_FRAGMENT_SIZE = 16_384
"""The bytes of each fragment of an upload."""

_DONE = object()


class LinkOwner(Protocol):
    """The owner of a link. The link calls these methods to report events."""

    def link_made(self, link: ClientLink) -> None:
        """Called when the connection is made."""

    def link_lost(self, link: ClientLink, failure: Failure) -> None:
        """Called when the connection has ended."""

    def received(self, message: Message) -> None:
        """Called with each message."""

    def malformed(self, error: LHTTPError) -> None:
        """Called when a message is malformed."""


@final
class ClientLink(protocol.Protocol):
    """
    A client's side of one connection.

    :ivar abort_reason: why this side has closed the connection at once; ``None`` if it has not.
    :ivar heard: whether a message has come.
    """

    transport: Carrier  # type: ignore[assignment]

    def __init__(self, owner: LinkOwner, limits: Limits, unsent_size: int) -> None:
        """
        :param owner: the owner.
        :param limits: the limits of received messages.
        :param unsent_size: the most bytes that wait for a server that does not read.
        """
        self._owner = owner
        self._limits = limits
        self._unsent_size = unsent_size
        self._heads: dict[bytes, Head] = {}
        self._upload: Iterator[None] | None = None
        self._behind: deque[Message] = deque()
        self._behind_size = 0
        self.abort_reason: str | None = None
        self.heard = False

    @property
    def uploading(self) -> bool:
        """Whether a message is being sent in fragments."""
        return self._upload is not None

    def connectionMade(self) -> None:
        """Part of ``IProtocol``."""
        self._owner.link_made(self)

    def message_received(self, payload: bytes, binary: bool) -> None:
        """See :class:`~lhttp_tx.client.websocket.connection.Link`."""
        self.heard = True
        try:
            message = self._parse(payload, binary)
        except LHTTPError as error:
            self._owner.malformed(error)
        else:
            self._owner.received(message)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Part of ``IProtocol``."""
        self._upload = None
        self._behind.clear()
        self._owner.link_lost(self, reason)

    def send(self, message: Message) -> None:
        """
        Send a message, after the current upload if there is one.

        :raises QueueFull: if too many bytes wait to be sent.
        """
        waiting = self.transport.unsent + self._behind_size
        if waiting and waiting + len(message.raw) > self._unsent_size:
            raise QueueFull(f"the server does not read: {waiting} bytes are unsent")
        if self._upload is not None:
            self._behind.append(message)
            self._behind_size += len(message.raw)
        else:
            self.transport.send_message(message.raw, message.binary)

    def upload(self, message: Message, progress: Callable[[int, int], object]) -> None:
        """
        Send a message in fragments. Call *progress* with the number of bytes sent so far, and the size of the message.
        """
        self._upload = self._fragments(message, progress)
        self.writable()

    def _fragments(self, message: Message, progress: Callable[[int, int], object]) -> Iterator[None]:
        raw, binary = self.transport.encoded(message.raw, message.binary)
        size = len(raw)
        if self.transport.whole:
            self.transport.send_message(raw, binary)
            yield
            call_safely(progress, size, size)
            return
        for start in range(0, size, _FRAGMENT_SIZE):
            stop = min(start + _FRAGMENT_SIZE, size)
            self.transport.send_fragment(raw[start:stop], binary, first=start == 0, last=stop == size)
            call_safely(progress, stop, size)
            yield

    def writable(self) -> None:
        """See :class:`~lhttp_tx.client.websocket.connection.Link`. Continues an upload."""
        while self._upload is not None and not self.transport.congested:
            if next(self._upload, _DONE) is _DONE:
                self._upload = None
                behind, self._behind, self._behind_size = self._behind, deque(), 0
                for message in behind:
                    self.transport.send_message(message.raw, message.binary)

    def abort(self, reason: str) -> None:
        """Close the connection at once. *reason* explains it to the program."""
        self.abort_reason = reason
        self.transport.abort()

    def _parse(self, payload: bytes, binary: bool) -> Message:
        """Parse a message. Equal heads are usually parsed only once for a connection."""
        raw = split_head(payload, self._limits)
        head = self._heads.get(raw)
        if head is None:
            head = parse_head(raw, self._limits)
            if len(raw) <= _MAX_HEAD_SIZE:
                if len(self._heads) >= _MAX_HEADS:
                    self._heads.clear()
                self._heads[raw] = head
        return Message.from_parts(head, payload, binary)
