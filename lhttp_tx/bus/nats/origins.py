"""
Identifies the node and the link of a publication, so that nodes drop publications of a link that its node has replaced.

If a NATS server or the network to it pauses, publications may arrive long after their node has moved to another link.
They may be duplicates, or arrive after newer ones. So each publication of a node has a mark. The mark is in the reply
subject of NATS, because there it takes only some bytes, and needs no headers. Nobody replies. If an operator limits the
delay of publications, the mark also has the time, which changes a few times in this limit. Pure logic without I/O, used
by :mod:`lhttp_tx.bus.nats.incoming` and :mod:`lhttp_tx.bus.nats.bus`. Source: the protocol document, section "Cluster".
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from typing import Final, final

__all__ = ["MAX_NODES", "Dates", "Origin", "Origins"]

MAX_NODES: Final = 4_096
"""Nodes whose newest link is remembered. Beyond that, those that came first are forgotten."""

_BEGIN: Final = b"_L."
"""How marks begin. The identity of the node follows, a dot, and the number of its link."""

_INNER: Final = b"." + _BEGIN

_MAX_DIGITS = 15

_MAX_DATES = 16
"""Dates of one link that are remembered. Those that are older than the bound are looked at anew; it has five steps."""

_MEMORY = 60.0
"""Seconds for which the quickest message of a node counts at least, and half of those for which it counts at most."""


@final
class Origin:
    """
    One link of one node; if marks have dates, what it brings with one of them.

    :ivar late: whether what it brings is to be dropped: the node has a newer link, or is this node.
    :ivar dated: those of the same link with dates, by these.
    :ivar owner: whose clock says when it expires; ``None``: it does not.
    """

    __slots__ = ("_expires", "dated", "late", "number", "owner")

    def __init__(self, number: int, late: bool, owner: Origins | None = None, expires: float = 0.0) -> None:
        """
        :param expires: the time, by the clock of *owner*, after which what it brings is old.
        """
        self.number = number
        self.late = late
        self.dated: dict[bytes, Origin] = {}
        self.owner = owner
        self._expires = expires

    def is_old(self) -> bool:
        """Return whether what it brings now is too old, and tell the owner if it is."""
        owner = self.owner
        if owner is None or owner.now() <= self._expires:
            return False
        owner.on_old()
        return True


class _Quickest:
    """
    How far the clock of a node is behind this one's, with the time that the quickest of its messages took.

    What is older than a minute or two counts no more: a machine that was suspended has another clock.
    """

    __slots__ = ("_before", "_begun", "_least")

    def __init__(self, distance: float, now: float) -> None:
        self._before = self._least = distance
        self._begun = now

    def take(self, distance: float, now: float) -> float:
        """Learn from a message; return the least distance."""
        if now - self._begun > _MEMORY:
            self._before, self._least, self._begun = self._least, distance, now
        else:
            self._least = min(self._least, distance)
        return min(self._before, self._least)


@final
class Origins:
    """
    What one node knows of the links of all nodes.

    :ivar node: the identity of this node, new for each start of the process.
    :ivar step: seconds for which a link may use the same date; 0: without dates.
    :ivar now: the clock.
    :ivar on_old: called when something is dropped because it came too late. May not raise.
    """

    def __init__(self, max_delay: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        """
        :param max_delay: seconds that a message may take longer than the quickest one from its node before it is
            dropped, and a quarter more at most; 0: any time.
        :param now: a clock that only runs forward, in seconds.
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
        """Return the mark of a link of this node that is used from now on. It counts as newer than those before it."""
        self._count += 1
        return b"%b%b.%d" % (_BEGIN, self.node, self._count)

    def dates(self, mark: bytes) -> Dates | None:
        """Return what writes the time behind *mark*; ``None`` if nobody wants to know it."""
        return Dates(self, mark) if self.step else None

    def find(self, mark: bytes) -> Origin | None:
        """
        Return where a message comes from; ``None`` if it is none of a node's publications.

        :param mark: its subject for answers. NATS may have written something before it, and later versions may write
            something behind it.

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
    """The mark of a link with the time, which stays the same for a while."""

    __slots__ = ("_dated", "_due", "_mark", "_origins")

    def __init__(self, origins: Origins, mark: bytes) -> None:
        self._origins = origins
        self._mark = self._dated = mark
        self._due = -math.inf

    def mark(self) -> bytes:
        """Return the mark for what is published now."""
        now = self._origins.now()
        if now >= self._due:
            self._dated = b"%b.%d" % (self._mark, now * 1_000)
            self._due = now + self._origins.step
        return self._dated


def _nothing() -> None:
    """Nobody wants to know."""
