"""
What arrives while a node moves from one server of a NATS cluster to another.

For a moment the node is subscribed at both, so that nothing is lost, and most publications arrive twice. A handover
says which of them were delivered already. Used by :mod:`lhttp_tx.bus.nats`.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

__all__ = ["MAX_PUBLICATIONS", "Handover", "Publication"]

Publication: TypeAlias = tuple[str, bytes, bool]
"""Subject, payload, and whether it is binary."""

MAX_PUBLICATIONS = 200_000
"""Publications that one handover keeps in mind; past it, what arrives by the new way is dropped until it is over."""


class Handover:
    """Matches what arrives by the old way with what arrives by the new one."""

    def __init__(self) -> None:
        self._delivered: Counter[int] = Counter()
        self._held: list[Publication] = []
        self._count = 0

    def delivered(self, publication: Publication) -> None:
        """Keep in mind that subscribers got *publication* without the new way."""
        if self._count < MAX_PUBLICATIONS:
            self._count += 1
            self._delivered[hash(publication)] += 1

    def hold(self, publication: Publication) -> None:
        """Keep what arrived by the new way, until the old one is closed."""
        if self._count < MAX_PUBLICATIONS:
            self._count += 1
            self._held.append(publication)

    def release(self) -> list[Publication]:
        """Return what was held and was not delivered, in the order in which it came."""
        held, self._held = self._held, []
        return [publication for publication in held if not self.is_repeated(publication)]

    def is_repeated(self, publication: Publication) -> bool:
        """Return whether *publication*, which arrives by the new way, was delivered; each delivery counts once."""
        key = hash(publication)
        if not self._delivered[key]:
            return False
        self._delivered[key] -= 1
        return True
