"""
Keeps the messages of a session for its client, as numbered entries, until the client acknowledges them.

A part of :mod:`lhttp_tx.transports.http.session`. No I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate, islice, repeat
from operator import itemgetter

from lhttp_tx.errors import Refused

__all__ = ["Backlog"]

_OVERHEAD = 64
"""Bytes that each entry counts in addition to its own. So the limit in bytes also limits the number of entries."""

_MOST_TAKEN = 1_000
"""The most entries that are handed out at a time."""

_ENTRY, _SIZE, _MESSAGE = map(itemgetter, range(3))
"""Get the parts of a kept entry."""


class Backlog:
    """
    The entries of one client. The first one has the number 1.

    Answers to requests hand entries out. The same entry may be handed out again until the client acknowledges it. If
    too many bytes are kept, the oldest handed-out entries are dropped first. A client whose answer was lost notices
    this, because it then asks for a number that is no longer kept.

    :ivar last: the number of the newest entry; 0 if there was none.
    :ivar unhanded: bytes of the entries that were never handed out.
    """

    __slots__ = ("_handed", "_kept", "_limit", "_size", "last", "unhanded")

    def __init__(self, limit: int) -> None:
        """:param limit: the most bytes of all kept entries, and also of the entries that were never handed out."""
        self.last = 0
        self.unhanded = 0
        self._limit = limit
        self._kept: deque[tuple[bytes, int, tuple[bytes, bool] | None]] = deque()
        self._size = 0
        self._handed = 0

    @property
    def dropped(self) -> int:
        """The number of the newest entry that is no longer kept; 0 if all are."""
        return self.last - len(self._kept)

    def add(self, entry: bytes, message: tuple[bytes, bool] | None = None, *, force: bool = False) -> bool:
        """
        Add an entry.

        :param message: the payload that the entry was made of, and whether it is binary; ``None`` if no hook asks for
            undelivered messages.
        :param force: whether to ignore the limit.
        :returns: whether it was added; ``False`` if too much waits for the client.
        """
        size = len(entry) + _OVERHEAD
        if self.unhanded and self.unhanded + size > self._limit and not force:
            return False
        self._kept.append((entry, size, message))
        self.last += 1
        self.unhanded += size
        self._size += size
        while self._size > self._limit and self.dropped < self._handed:
            self._size -= self._kept.popleft()[1]
        return True

    def add_all(self, entries: list[bytes]) -> bool:
        """
        Add the entries of several messages. If not all of them have room, add none.

        A page of a history may have many entries. So no Python code runs for each of them.
        """
        sizes = [*map(_OVERHEAD.__add__, map(len, entries))]
        size = sum(sizes)
        if self.unhanded + size > self._limit:
            return False
        self._kept.extend(zip(entries, sizes, repeat(None)))
        self.last += len(entries)
        self.unhanded += size
        self._size += size
        while self._size > self._limit and self.dropped < self._handed:
            self._size -= self._kept.popleft()[1]
        return True

    def acknowledge(self, number: int) -> None:
        """Drop the entries up to *number*, because the client has them. Entries that were never handed out stay."""
        while self.dropped < min(number, self._handed):
            self._size -= self._kept.popleft()[1]

    def check(self, after: int) -> None:
        """
        Check that the entries after the number *after* can be handed out.

        :raises Refused: with status 410 if some of them are no longer kept, 400 if no entry with the number *after* was
            handed out.
        """
        if after < self.dropped:
            raise Refused(410, f"the message with the number {after + 1} is not kept any more: connect again")
        if after > self._handed:
            raise Refused(400, f"after is {after}, but no message with this number was sent")

    def take(self, after: int, most: int) -> list[bytes]:
        """
        Hand out the entries after the number *after*, which must have passed :meth:`check`.

        :param most: the most bytes to hand out. A single entry may be larger. It hands out at most 1,000 entries.
        """
        begin = after - self.dropped
        some = [*islice(self._kept, begin, begin + _MOST_TAKEN)]
        sizes = [*accumulate(map(len, map(_ENTRY, some)))]
        taken = some[: max(1, bisect_right(sizes, most))]
        fresh = after + len(taken) - self._handed
        if fresh > 0:
            self.unhanded -= sum(map(_SIZE, taken[-fresh:]))
            self._handed += fresh
        return [*map(_ENTRY, taken)]

    def give_up(self) -> list[tuple[bytes, bool]]:
        """
        Drop the entries that were never handed out.

        :returns: the payloads that they were made of, as far as :meth:`add` got them, and whether each is binary.
        """
        count = self.last - self._handed
        dropped = [self._kept.pop() for _ in range(count)]
        self.last -= count
        self._size -= sum(map(_SIZE, dropped))
        self.unhanded = 0
        return [message for message in map(_MESSAGE, reversed(dropped)) if message is not None]
