"""
The servers of a NATS cluster that a node knows, in the order in which the node tries them.

A part of :class:`lhttp_tx.bus.nats.keeper.LinkKeeper`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from lhttp_tx.bus.nats.link import Link
from lhttp_tx.bus.nats.servers import shown_server

__all__ = ["Addresses"]


class Addresses:
    """The URLs of servers: first the configured ones in random order, then those that servers have announced."""

    def __init__(self, urls: Sequence[str]) -> None:
        """:param urls: the configured URLs, at least one."""
        self._urls = random.sample(urls, len(urls))

    @property
    def first(self) -> str:
        """The URL to try next."""
        return self._urls[0]

    def learn(self, link: Link) -> None:
        """Add the URLs that the server of *link* has announced."""
        known = set(map(shown_server, self._urls))
        self._urls += [url for url in link.other_urls if shown_server(url) not in known]

    def besides(self, link: Link) -> list[str]:
        """Return the URLs of all servers except that of *link*."""
        return [url for url in self._urls if shown_server(url) != shown_server(link.url)]

    def pass_over(self, url: str) -> None:
        """Try *url* last."""
        if url in self._urls:
            self._urls.remove(url)
            self._urls.append(url)

    def leave(self, link: Link) -> None:
        """Try the server of *link* last."""
        self._urls = [*self.besides(link), link.url]

    def prefer(self, link: Link) -> None:
        """Try the server of *link* first."""
        self._urls = [link.url, *self.besides(link)]
