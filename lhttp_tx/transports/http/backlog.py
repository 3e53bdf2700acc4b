"""
What a session has for its client: numbered entries, kept until the client says that it has them.

A part of :mod:`lhttp_tx.transports.http.session`. No I/O.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from lhttp_tx.errors import Refused

__all__ = ["Backlog"]

_OVERHEAD = 64
"""Bytes that an entry counts beside its own, so that their number is bounded, too."""


class Backlog:
    """
    The entries of one client. The first one has the number 1.

    Entries are handed out with an answer, and may be handed out again until they are acknowledged. If too many bytes
    are kept, those that were handed out are dropped first: a client whose answer was lost on its way finds out, because
    it asks for a number that is not there any more.

    :ivar last: the number of the newest entry; 0 if there was none.
    :ivar unhanded: bytes of the entries that were never handed out.
    """

    __slots__ = ("_handed", "_kept", "_limit", "_size", "last", "unhanded")

    def __init__(self, limit: int) -> None:
        """:param limit: bytes of the entries that are kept, and of those that were never handed out."""
        self.last = 0
        self.unhanded = 0
        self._limit = limit
        self._kept: deque[tuple[bytes, int, tuple[bytes, bool] | None]] = deque()
        self._size = 0
        self._handed = 0

    @property
    def dropped(self) -> int:
        """The number of the newest entry that is not kept any more."""
        return self.last - len(self._kept)

    def add(self, entry: bytes, message: tuple[bytes, bool] | None = None, *, force: bool = False) -> bool:
        """
        Add an entry.

        :param message: what it was made of, if somebody may want to know what was never handed out.
        :param force: whether to add it whatever the limit.
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

    def acknowledge(self, number: int) -> None:
        """Drop the entries up to *number*, which the client has. Entries that were not handed out stay."""
        while self.dropped < min(number, self._handed):
            self._size -= self._kept.popleft()[1]

    def check(self, after: int) -> None:
        """
        :raises Refused: with status 410 if the entries behind the number *after* are not all kept, 400 if there was no
            entry with this number.
        """
        if after < self.dropped:
            raise Refused(410, f"the message with the number {after + 1} is not kept any more: connect again")
        if after > self._handed:
            raise Refused(400, f"after is {after}, but no message with this number was sent")

    def take(self, after: int, most: int) -> list[bytes]:
        """
        Hand out the entries behind the number *after*, which :meth:`check` has taken.

        :param most: bytes; one entry may be larger.
        """
        taken: list[bytes] = []
        size = 0
        for number, (entry, counted, _) in enumerate(islice(self._kept, after - self.dropped, None), after + 1):
            if taken and size + len(entry) > most:
                break
            taken.append(entry)
            size += len(entry)
            if number > self._handed:
                self._handed = number
                self.unhanded -= counted
        return taken

    def give_up(self) -> list[tuple[bytes, bool]]:
        """Drop the entries that were never handed out. Return the messages that they were made of, if known."""
        given_up: list[tuple[bytes, bool]] = []
        while self.last > self._handed:
            _, size, message = self._kept.pop()
            self.last -= 1
            self._size -= size
            if message is not None:
                given_up.append(message)
        self.unhanded = 0
        return given_up[::-1]
