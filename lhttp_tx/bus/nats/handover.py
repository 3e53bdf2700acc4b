"""
Publications that arrive while a node moves from one server of a NATS cluster to another.

For a moment, the node is subscribed at both servers, so that no publication is lost. Most publications then arrive
twice. A handover remembers which of them were already delivered. Used by :mod:`lhttp_tx.bus.nats.bus` and
:mod:`lhttp_tx.bus.nats.keeper`.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

__all__ = ["MAX_PUBLICATIONS", "MAX_SIZE", "Handover", "Publication"]

Publication: TypeAlias = tuple[str, bytes, bool]
"""Subject, payload, and whether it is binary."""

MAX_PUBLICATIONS = 200_000
"""
The most publications that one handover remembers. Beyond that, it drops publications from the new server until the node
has moved.
"""


MAX_SIZE = 67_108_864
"""The most bytes of publications that one handover holds back. Beyond that, it drops as well."""


class Handover:
    """
    Matches publications that arrive from the old server with those that arrive from the new one.

    :ivar full: whether a publication was dropped.
    :ivar moved: whether publications from the new server are delivered at once, rather than held back.
    """

    def __init__(self) -> None:
        self.full = self.moved = False
        self._earlier: Counter[int] = Counter()
        self._delivered: Counter[int] = Counter()
        self._held: list[Publication] = []
        self._count = 0
        self._size = 0

    def delivered(self, publication: Publication) -> None:
        """Remember that *publication* was delivered, and did not come from the new server."""
        if self._count < MAX_PUBLICATIONS:
            self._count += 1
            self._delivered[hash(publication)] += 1

    def begin(self) -> None:
        """
        Note that the other servers pass publications on to the new server from now on.

        Some publications that were delivered before this call do not come from the new server. So :meth:`release`
        forgets them: a later publication that is equal to one of them must not count as repeated.
        """
        self._earlier, self._delivered = self._delivered, Counter()

    def hold(self, publication: Publication) -> None:
        """
        Hold a publication from the new server back, until the old connection is closed. Drop it beyond the limits.
        """
        if self._count < MAX_PUBLICATIONS and self._size + len(publication[1]) <= MAX_SIZE:
            self._count += 1
            self._size += len(publication[1])
            self._held.append(publication)
        else:
            self.full = True

    def release(self) -> list[Publication]:
        """Return the publications that were held back and not delivered before, in the order in which they came."""
        held, self._held = self._held, []
        found = [publication for publication in held if not self.is_repeated(publication)]
        self._earlier.clear()
        return found

    def is_repeated(self, publication: Publication) -> bool:
        """
        Return whether *publication*, which has come from the new server, was already delivered. Each delivery counts
        once.
        """
        key = hash(publication)
        for delivered in (self._earlier, self._delivered):
            if delivered[key] > 0:
                delivered[key] -= 1
                return True
        return False
