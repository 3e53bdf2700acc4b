"""
The client's end of one connection: messages out, in fragments if need be, and messages in.

Made by :mod:`lhttp_tx.client.uplink` for each connection, on top of a
:class:`~lhttp_tx.client.protocol.WebSocketConnection`. Knows neither subscriptions nor answers, and imports neither.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol, final

from twisted.internet import protocol
from twisted.python.failure import Failure

from lhttp_tx.client.errors import QueueFull
from lhttp_tx.client.protocol import WebSocketConnection
from lhttp_tx.client.subscription import call_safely
from lhttp_tx.errors import LHTTPError
from lhttp_tx.limits import Limits
from lhttp_tx.message import Head, Message, parse_head, split_head

__all__ = ["ClientLink", "LinkOwner"]

_MAX_HEADS = 256
"""Different heads of received messages that are remembered parsed."""

_FRAGMENT_SIZE = 16_384
"""Bytes in each fragment of a message whose sending is watched."""

_DONE = object()


class LinkOwner(Protocol):
    """Who has made a link."""

    def link_made(self, link: ClientLink) -> None:
        """The connection is up."""

    def link_lost(self, link: ClientLink, failure: Failure) -> None:
        """The connection has ended."""

    def received(self, message: Message) -> None:
        """A message has come."""

    def malformed(self, error: LHTTPError) -> None:
        """A message came that does not follow the protocol."""


@final
class ClientLink(protocol.Protocol):
    """
    The client's end of one connection.

    :ivar abort_reason: why this side has dropped the connection, if it has.
    """

    transport: WebSocketConnection  # type: ignore[assignment]

    def __init__(self, owner: LinkOwner, limits: Limits, unsent_size: int) -> None:
        """
        :param limits: of received messages.
        :param unsent_size: bytes that may wait for a server that does not read.
        """
        self._owner = owner
        self._limits = limits
        self._unsent_size = unsent_size
        self._heads: dict[bytes, Head] = {}
        self._upload: Iterator[None] | None = None
        self._behind: deque[Message] = deque()
        self._behind_size = 0
        self.abort_reason: str | None = None

    @property
    def uploading(self) -> bool:
        """Whether a message is being sent in fragments."""
        return self._upload is not None

    def connectionMade(self) -> None:
        """Part of ``IProtocol``."""
        self._owner.link_made(self)

    def message_received(self, payload: bytes, binary: bool) -> None:
        """See :class:`~lhttp_tx.client.protocol.Link`."""
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
        Send a message, behind the upload if there is one.

        :raises QueueFull: if as much as allowed waits already.
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
        """Send a message in fragments; *progress* is called with the bytes sent so far and those of all."""
        self._upload = self._fragments(message, progress)
        self.writable()

    def _fragments(self, message: Message, progress: Callable[[int, int], object]) -> Iterator[None]:
        raw, size = message.raw, len(message.raw)
        for start in range(0, size, _FRAGMENT_SIZE):
            stop = min(start + _FRAGMENT_SIZE, size)
            self.transport.send_fragment(raw[start:stop], message.binary, first=start == 0, last=stop == size)
            call_safely(progress, stop, size)
            yield

    def writable(self) -> None:
        """See :class:`~lhttp_tx.client.protocol.Link`; goes on with an upload."""
        while self._upload is not None and not self.transport.congested:
            if next(self._upload, _DONE) is _DONE:
                self._upload = None
                behind, self._behind, self._behind_size = self._behind, deque(), 0
                for message in behind:
                    self.transport.send_message(message.raw, message.binary)

    def abort(self, reason: str) -> None:
        """Drop the connection."""
        self.abort_reason = reason
        self.transport.abort()

    def _parse(self, payload: bytes, binary: bool) -> Message:
        """Parse a message; equal heads are parsed once for each connection."""
        raw = split_head(payload, self._limits)
        head = self._heads.get(raw)
        if head is None:
            head = parse_head(raw, self._limits)
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            self._heads[raw] = head
        return Message.from_parts(head, payload, binary)
