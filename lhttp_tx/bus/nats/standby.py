"""
The standby connection to NATS, if NATS has several servers. With it, the death of a server interrupts the node only for
a moment.

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
        :param addresses: the servers.
        :param reach: connects to one of them, and calls one of two functions.
        :param wanted: returns whether there is a link in use that needs a standby.
        """
        self._addresses = addresses
        self._reach = reach
        self._wanted = wanted
        self._link: Link | None = None
        self._seeking = False

    def check(self, used: Link) -> None:
        """
        Ask the standby link for a sign of life. If there is no such link, connect to a server other than that of
        *used*.
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
        """Whether there is a usable one."""
        return self._link is not None and self._link.usable

    def take(self) -> Link | None:
        """Give up the standby link and return it, for use from now on; ``None`` if there is no usable one."""
        link, self._link = self._link, None
        return link if link is not None and link.usable else None

    def lost(self, link: Link) -> None:
        """Drop *link*, if it is the standby link, because it is lost."""
        if link is self._link:
            self._link = None

    def leave(self, link: Link | None = None) -> None:
        """Close the link; if *link* is given, only if it is that one."""
        if self._link is not None and (link is None or link is self._link):
            self._link.close(flush=False)
            self._link = None
