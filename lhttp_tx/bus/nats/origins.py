"""
Identifies the node and the link of a publication. So nodes can drop publications that come late over a replaced link.

If a NATS server or the network to it pauses, publications may arrive long after their node has moved to another link.
They may be duplicates, or arrive after newer ones. So each publication of a node has a mark, which names the node and
the link. The mark is in the reply subject of NATS, where it takes only a few bytes and needs no headers. Nobody
replies. If an operator limits the delay of publications, the mark also has a time, which is renewed four times within
this limit. Pure logic without I/O, used by :mod:`lhttp_tx.bus.nats.incoming` and :mod:`lhttp_tx.bus.nats.bus`. Source:
the how-to about clusters, section "Network partitions".
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from typing import Final, final

__all__ = ["MAX_NODES", "Dates", "Origin", "Origins"]

MAX_NODES: Final = 4_096
"""The most nodes whose newest link is remembered. Beyond that, the node that was seen first is forgotten."""

_BEGIN: Final = b"_L."
"""The beginning of a mark. The identity of the node, a dot, and the number of the link follow."""

_INNER: Final = b"." + _BEGIN

_MAX_DIGITS = 15

_MAX_DATES = 16
"""The most dates of one link that are remembered. The limit of the delay covers about five dates."""

_MEMORY = 60.0
"""The quickest message of a node counts for at least this many seconds, and for at most twice as many."""


@final
class Origin:
    """
    One link of one node; or its publications with one date, if marks have dates.

    :ivar number: the number of the link, which counts the links of its node.
    :ivar late: whether to drop its publications, because the node has a newer link, or is this node.
    :ivar dated: the origins of the same link with dates, by date.
    :ivar owner: the object whose clock decides when the date expires; ``None`` without a date.
    """

    __slots__ = ("_expires", "dated", "late", "number", "owner")

    def __init__(self, number: int, late: bool, owner: Origins | None = None, expires: float = 0.0) -> None:
        """
        :param expires: the time of the clock of *owner* after which publications with this date are too old.
        """
        self.number = number
        self.late = late
        self.dated: dict[bytes, Origin] = {}
        self.owner = owner
        self._expires = expires

    def is_old(self) -> bool:
        """Return whether a publication that arrives now is too old. If so, call ``on_old`` of the owner."""
        owner = self.owner
        if owner is None or owner.now() <= self._expires:
            return False
        owner.on_old()
        return True


class _Quickest:
    """
    The smallest difference between the arrival of a node's messages by this node's clock and their dates by the
    other's.

    It is the difference of the clocks plus the shortest time of transmission. Messages from more than two minutes ago
    do not count, because the clock of a machine that was suspended has changed.
    """

    __slots__ = ("_before", "_begun", "_least")

    def __init__(self, distance: float, now: float) -> None:
        self._before = self._least = distance
        self._begun = now

    def take(self, distance: float, now: float) -> float:
        """Take the difference of one message, in seconds. Return the smallest one."""
        if now - self._begun > _MEMORY:
            self._before, self._least, self._begun = self._least, distance, now
        else:
            self._least = min(self._least, distance)
        return min(self._before, self._least)


@final
class Origins:
    """
    The links of all nodes, as far as one node knows them.

    :ivar node: the identity of this node. It is random, and new at each start.
    :ivar step: seconds for which a link uses the same date; 0 if marks have no dates.
    :ivar now: returns the time of the clock, in seconds.
    :ivar on_old: called when a publication is dropped because it is too old. It must not raise.
    """

    def __init__(self, max_delay: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        """
        :param max_delay: messages are dropped if they take this many seconds longer than the quickest one of their
            node, or up to a quarter more; 0: never.
        :param now: returns the time of a monotonic clock, in seconds.
        """
        self.node = secrets.token_urlsafe(6).encode("ascii")
        self.step = max_delay / 4
        self.now = now
        self.on_old: Callable[[], None] = _nothing
        self._max_delay = max_delay
        self._count = 0
        self._newest: dict[bytes, Origin] = {}
        self._quickest: dict[bytes, _Quickest] = {}

    def begin(self) -> bytes:
        """
        Return a new mark for a link that this node uses from now on. Other nodes then drop publications with older
        marks.
        """
        self._count += 1
        return b"%b%b.%d" % (_BEGIN, self.node, self._count)

    def dates(self, mark: bytes) -> Dates | None:
        """Return an object that appends dates to *mark*; ``None`` if marks have no dates."""
        return Dates(self, mark) if self.step else None

    def find(self, mark: bytes) -> Origin | None:
        """
        Return the origin of a message; ``None`` if it has no mark.

        :param mark: the reply subject. NATS may have put something before the mark, and later versions may put
            something after it.

        >>> other = Origins()
        >>> here, old, new = Origins(), other.begin(), other.begin()
        >>> [here.find(mark).late for mark in (old, new, old)]
        [False, False, True]
        """
        begin = 0 if mark.startswith(_BEGIN) else mark.rfind(_INNER) + 1
        words = mark[begin + 3 :].split(b".") if begin or mark.startswith(_BEGIN) else ()
        if len(words) < 2 or not words[1].isdigit() or len(words[1]) > _MAX_DIGITS:
            return None
        node, number = words[0], int(words[1])
        if node == self.node:
            return Origin(number, True)
        newest = self._newest.get(node)
        if newest is None or number > newest.number:
            if newest is not None:
                for origin in (newest, *newest.dated.values()):
                    origin.late = True
            elif len(self._newest) >= MAX_NODES:
                oldest = next(iter(self._newest))
                del self._newest[oldest]
                self._quickest.pop(oldest, None)
            newest = self._newest[node] = Origin(number, False)
        if number != newest.number:
            return Origin(number, True)
        date = words[2] if len(words) > 2 else b""
        if not self._max_delay or not date.isdigit() or len(date) > _MAX_DIGITS:
            return newest
        return newest.dated.get(date) or self._find_dated(newest, node, date)

    def _find_dated(self, link: Origin, node: bytes, date: bytes) -> Origin:
        now, sent = self.now(), int(date) / 1_000
        quickest = self._quickest.get(node)
        if quickest is None:
            quickest = self._quickest[node] = _Quickest(now - sent, now)
        distance = quickest.take(now - sent, now)
        if len(link.dated) >= _MAX_DATES:
            del link.dated[next(iter(link.dated))]
        found = link.dated[date] = Origin(link.number, False, self, sent + distance + self._max_delay + self.step)
        return found


@final
class Dates:
    """Appends the date to the mark of a link. The date stays the same for a while."""

    __slots__ = ("_dated", "_due", "_mark", "_origins")

    def __init__(self, origins: Origins, mark: bytes) -> None:
        self._origins = origins
        self._mark = self._dated = mark
        self._due = -math.inf

    def mark(self) -> bytes:
        """Return the mark for publications that are sent now."""
        now = self._origins.now()
        if now >= self._due:
            self._dated = b"%b.%d" % (self._mark, now * 1_000)
            self._due = now + self._origins.step
        return self._dated


def _nothing() -> None:
    """Do nothing."""
