"""
The interface of a link's owner. A part of :class:`lhttp_tx.bus.nats.link.Link`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lhttp_tx.bus.nats.origins import Origins

if TYPE_CHECKING:
    from lhttp_tx.bus.nats.link import Link

__all__ = ["LinkOwner"]


class LinkOwner(Protocol):
    """
    The owner of a link. The link calls these methods to report events. No method may raise.

    :ivar origins: knows which links their nodes have given up.
    """

    origins: Origins

    def begin_batch(self) -> None:
        """Called before publications that one read has brought are passed on. :meth:`end_batch` follows after them."""

    def receive(
        self, link: Link, subject: str, payloads: list[bytes], binary: bool, wildcard: str | None = None
    ) -> None:
        """
        Take publications to *subject* that came one after another.

        :param wildcard: the subject of the wildcard subscription that brought them.
        """

    def receive_stored(
        self, link: Link, subject: str, heads: list[bytes], payloads: list[bytes], wildcard: str | None
    ) -> None:
        """
        Take publications that a stream has stored and passed on, and that came one after another.

        :param heads: the headers of each, which say where it is in the stream.
        """

    def end_batch(self) -> None:
        """Called after the last publication of a batch."""

    def link_lost(self, link: Link, reason: str) -> None:
        """Called once when the link is lost, unless :meth:`Link.close` was called before."""

    def link_leaving(self, link: Link) -> None:
        """Called when the server is going to close its connections soon (lame-duck mode)."""
