"""The interface of a link's owner. Used by :class:`lhttp_tx.bus.nats.link.Link`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lhttp_tx.bus.nats.origins import Origins

if TYPE_CHECKING:
    from lhttp_tx.bus.nats.link import Link

__all__ = ["LinkOwner"]


class LinkOwner(Protocol):
    """
    The owner of a link. The link calls these methods to report events. They must not raise.

    :ivar origins: knows which links nodes have replaced.
    """

    origins: Origins

    def begin_batch(self) -> None:
        """Called before the publications of one read. :meth:`end_batch` is called after them."""

    def receive(
        self, link: Link, subject: str, payloads: list[bytes], binary: bool, wildcard: str | None = None
    ) -> None:
        """
        Take consecutive publications to *subject*.

        :param wildcard: the subject of the wildcard subscription that they came through; ``None`` if it was not a
            wildcard.
        """

    def receive_stored(
        self, link: Link, subject: str, heads: list[bytes], payloads: list[bytes], wildcard: str | None
    ) -> None:
        """
        Take consecutive publications that a stream has stored and republished.

        :param heads: the headers of each, which include its sequence number in the stream.
        """

    def end_batch(self) -> None:
        """Called after the last publication of a batch."""

    def link_lost(self, link: Link, reason: str) -> None:
        """Called once when the link is lost, unless :meth:`Link.close` was called before."""

    def link_leaving(self, link: Link) -> None:
        """Called when the server will soon close its connections (lame-duck mode)."""
