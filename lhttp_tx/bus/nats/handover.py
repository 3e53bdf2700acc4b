"""
Publications that arrive while a node moves from one server of a NATS cluster to another.

For a moment, the node is subscribed at both servers, so that nothing is lost. Most publications then arrive twice. A
handover knows which of them were already delivered. Used by :mod:`lhttp_tx.bus.nats.bus`.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

__all__ = ["MAX_PUBLICATIONS", "MAX_SIZE", "Handover", "Publication"]

Publication: TypeAlias = tuple[str, bytes, bool]
"""Subject, payload, and whether it is binary."""

MAX_PUBLICATIONS = 200_000
"""Publications that one handover remembers. Beyond that, it drops publications from the new server until it is over."""


MAX_SIZE = 67_108_864
"""Bytes of publications that it holds. Beyond that, likewise."""


class Handover:
    """
    Matches publications that arrive from the old server with those that arrive from the new one.

    :ivar full: whether something was dropped.
    :ivar moved: whether publications from the new server are delivered at once now.
    """

    def __init__(self) -> None:
        self.full = self.moved = False
        self._earlier: Counter[int] = Counter()
        self._delivered: Counter[int] = Counter()
        self._held: list[Publication] = []
        self._count = 0
        self._size = 0

    def delivered(self, publication: Publication) -> None:
        """Remember that subscribers have got *publication* from elsewhere than the new server."""
        if self._count < MAX_PUBLICATIONS:
            self._count += 1
            self._delivered[hash(publication)] += 1

    def begin(self) -> None:
        """
        All servers pass on to the new one from now on.

        Not all that was delivered before comes by the new one. So it counts until :meth:`release`, and not for later
        publications, which may be equal.
        """
        self._earlier, self._delivered = self._delivered, Counter()

    def hold(self, publication: Publication) -> None:
        """Hold a publication from the new server, until the old connection is closed."""
        if self._count < MAX_PUBLICATIONS and self._size + len(publication[1]) <= MAX_SIZE:
            self._count += 1
            self._size += len(publication[1])
            self._held.append(publication)
        else:
            self.full = True

    def release(self) -> list[Publication]:
        """Return the held publications that were not delivered, in the order in which they came."""
        held, self._held = self._held, []
        found = [publication for publication in held if not self.is_repeated(publication)]
        self._earlier.clear()
        return found

    def is_repeated(self, publication: Publication) -> bool:
        """
        Return whether *publication*, which arrives from the new server, was already delivered. Each delivery counts
        once.
        """
        key = hash(publication)
        for delivered in (self._earlier, self._delivered):
            if delivered[key] > 0:
                delivered[key] -= 1
                return True
        return False
