"""
The questions of this node to the other nodes of the cluster, over its links.

A part of :class:`lhttp_tx.bus.nats.bus.NATSBus`. :mod:`lhttp_tx.cluster.reach` knows the nodes, and asks them through
this module.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias, final

from twisted.internet.defer import Deferred

from lhttp_tx.bus.nats.link import Link
from lhttp_tx.errors import BusUnavailable

__all__ = ["Links", "Others", "Ways"]

_Send: TypeAlias = Callable[[str, bytes, bool], object]
"""Publishes over one link: takes a channel, a payload, and whether it is binary."""


class Others(Protocol):
    """The other nodes; see :class:`lhttp_tx.cluster.reach.Reach`."""

    def far_from(self, server: str) -> set[str]:
        """Return the nodes that are connected to other NATS servers than *server*."""

    def ask(self, send: _Send, server: str | None = None) -> Deferred[bool]:
        """
        Ask all nodes, or those that do not use *server*, for an answer. The Deferred succeeds with whether all have
        answered: then they have everything that was sent over the same link before.
        """

    def ask_soon(self, send: _Send, server: str) -> Deferred[bool]:
        """Like :meth:`ask` with *server*, but one question may serve several callers."""

    def gathered(self, send: _Send, patience: float) -> Deferred[None]:
        """Wait until all nodes have answered, or *patience* seconds if none does."""


class Links(Protocol):
    """The links of a node; see :class:`lhttp_tx.bus.nats.keeper.LinkKeeper`."""

    link: Link | None
    losses: int

    @property
    def steady_for(self) -> float:
        """Seconds since publications may go over the link; 0 if they may not."""


@final
class Ways:
    """
    Asks the other nodes over links.

    :ivar others: the other nodes; ``None`` if they cannot be asked.
    """

    def __init__(self, links: Links, subject_of: Callable[[str], str]) -> None:
        """
        :param links: the links of this node.
        :param subject_of: returns the subject of a channel.
        """
        self.others: Others | None = None
        self._links = links
        self._subject_of = subject_of
        self._sender: tuple[Link, _Send] | None = None

    @property
    def server(self) -> str:
        """The id of the NATS server that this node uses; empty if it is not connected."""
        link = self._links.link
        return "" if link is None else link.server

    @property
    def steady_for(self) -> float:
        """Seconds since the bus accepts publications; 0 if it does not."""
        return self._links.steady_for

    @property
    def losses(self) -> int:
        """The number of links that were lost while publications went over them."""
        return self._links.losses

    def urge(self, channel: str, payload: bytes, binary: bool) -> None:
        """
        Publish to other nodes at once, even while this node holds publications back to move to another server.

        :raises BusUnavailable: while NATS is unavailable.
        """
        link = self._links.link
        if link is None:
            raise BusUnavailable("the bus is unavailable, try again later")
        link.publish(self._subject_of(channel), payload, binary)

    def _over(self, link: Link) -> _Send:
        if self._sender is None or self._sender[0] is not link:
            self._sender = link, partial(self._send, link)
        return self._sender[1]

    def _send(self, link: Link, channel: str, payload: bytes, binary: bool) -> None:
        link.publish(self._subject_of(channel), payload, binary)

    def gathered(self, link: Link, patience: float) -> Deferred[None] | None:
        """
        Wait until the other nodes have answered over a new link.

        :param link: a new link.
        :param patience: the most seconds to wait for a first answer.
        :returns: a Deferred that succeeds in any case; ``None`` if other nodes cannot be asked.
        """
        return None if self.others is None else self.others.gathered(self._over(link), patience)

    def reached(self, link: Link) -> Deferred[bool] | None:
        """
        Find out when all nodes have the earlier publications over *link*, and their servers know its subscriptions.

        :returns: a Deferred that succeeds after a limited time: with ``True`` if all have answered, else with
            ``False``. ``None`` if other nodes cannot be asked.
        """
        return None if self.others is None else self.others.ask(self._over(link))

    def reached_far(self, link: Link) -> Deferred[bool] | None:
        """Like :meth:`reached`, but ask only the nodes at other servers. Return ``None`` if there are none."""
        if self.others is None or not self.others.far_from(link.server):
            return None
        return self.others.ask_soon(self._over(link), link.server)
