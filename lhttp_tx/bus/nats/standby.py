"""
The standby connection to NATS, if NATS has several servers. Because of it, the death of a server interrupts the node
only for a moment.

A part of :class:`lhttp_tx.bus.nats.keeper.LinkKeeper`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from twisted.python.failure import Failure

from lhttp_tx.bus.nats.addresses import Addresses
from lhttp_tx.bus.nats.link import Link

__all__ = ["Standby"]

_Reach: TypeAlias = Callable[[str, Callable[[Link], None], Callable[[Failure], None]], None]


class Standby:
    """The standby link, if there is one."""

    def __init__(self, addresses: Addresses, reach: _Reach, wanted: Callable[[], bool]) -> None:
        """
        :param addresses: the URLs of the servers.
        :param reach: connects to a URL. Calls the first function with the link, or the second with the failure.
        :param wanted: returns whether the node is connected, so that it needs a standby link.
        """
        self._addresses = addresses
        self._reach = reach
        self._wanted = wanted
        self._link: Link | None = None
        self._seeking = False

    def check(self, used: Link) -> None:
        """
        Ping the server of the standby link. If there is no standby link, connect to a server other than that of *used*.
        """
        if self._link is not None:
            self._link.checked()
            return
        others = self._addresses.besides(used)
        if others and not self._seeking:
            self._seeking = True
            self._reach(others[0], self._found, lambda _: self._not_found(others[0]))

    def _found(self, link: Link) -> None:
        self._seeking = False
        if self._link is None and self._wanted():
            self._link = link
            self._addresses.learn(link)
        else:
            link.close(flush=False)

    def _not_found(self, url: str) -> None:
        self._seeking = False
        self._addresses.pass_over(url)

    @property
    def is_there(self) -> bool:
        """Whether there is a usable standby link."""
        return self._link is not None and self._link.usable

    def take(self) -> Link | None:
        """Return the standby link, which is no standby any more; ``None`` if there is no usable one."""
        link, self._link = self._link, None
        return link if link is not None and link.usable else None

    def lost(self, link: Link) -> None:
        """Forget *link* if it is the standby link, because it is lost."""
        if link is self._link:
            self._link = None

    def leave(self, link: Link | None = None) -> None:
        """Close the standby link. If *link* is given, do so only if *link* is the standby link."""
        if self._link is not None and (link is None or link is self._link):
            self._link.close(flush=False)
            self._link = None
