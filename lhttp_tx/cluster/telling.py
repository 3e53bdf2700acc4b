"""
The messages of a node about its entries: those that it has sent, and those that it will send.

Parts of :mod:`lhttp_tx.cluster.roster`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["JOURNAL_SIZE", "TURN_SIZE", "Backlog", "Journal"]

JOURNAL_SIZE = 2_097_152
"""The most bytes of batches that a node remembers, for nodes that have missed some."""

TURN_SIZE = 524_288
"""
The most bytes of entries that a node sends in one turn. By default, the bus refuses publications while 4 MiB wait.
"""

_TURN = 0.05
"""Seconds between two turns."""

Batch: TypeAlias = dict[str, Any]
"""Changes, and the ``number`` of the batch."""

Sized: TypeAlias = tuple[Any, int]
"""The data of a message, and its approximate number of bytes."""


class Journal:
    """The last batches. Their numbers are consecutive."""

    def __init__(self) -> None:
        self._batches: deque[tuple[Batch, int]] = deque()
        self._size = 0

    def add(self, batch: Batch, size: int) -> None:
        """
        Remember a batch, and forget the oldest ones beyond :data:`JOURNAL_SIZE`.

        :param batch: the batch. Its number is that of the batch before plus one, unless :meth:`clear` was called in
            between.
        :param size: the bytes of the changes.
        """
        self._batches.append((batch, size))
        self._size += size
        while self._size > JOURNAL_SIZE:
            self._size -= self._batches.popleft()[1]

    def clear(self) -> None:
        """Forget all batches, because something has changed without a batch."""
        self._batches.clear()
        self._size = 0

    def after(self, number: object, last: int) -> list[Sized] | None:
        """
        Return the batches after a number.

        :param number: the number of the last batch that another node has; other values than an int count as unknown.
        :param last: the number of this node's last batch.
        :returns: ``None`` if some of these batches are forgotten, or *number* is unknown.
        """
        if not isinstance(number, int) or not 0 < number <= last:
            return None
        first = self._batches[0][0]["number"] if self._batches else last + 1
        return None if number + 1 < first else [sized for sized in self._batches if sized[0]["number"] > number]


class Backlog:
    """Messages that are sent a few at a time, so that publications can go in between."""

    def __init__(self, clock: IReactorTime, tell: Callable[[str, str, Any], bool]) -> None:
        """
        :param clock: the reactor.
        :param tell: called with the name of a node, a kind and data; sends the data, and returns whether the bus has
            taken it.
        """
        self._clock = clock
        self._tell = tell
        self._waiting: dict[str, tuple[str, deque[Sized]]] = {}
        self._timer: IDelayedCall | None = None

    def add(self, name: str, kind: str, messages: list[Sized]) -> None:
        """Send messages to a node. They replace messages that still wait for this node."""
        self._waiting.pop(name, None)
        self._waiting[name] = kind, deque(messages)
        if self._timer is None:
            self._turn()

    def left(self, name: str) -> None:
        """Drop the messages that wait for a node."""
        self._waiting.pop(name, None)

    def _turn(self) -> None:
        self._timer = None
        size = 0
        while self._waiting and size < TURN_SIZE:
            name, (kind, messages) = next(iter(self._waiting.items()))
            while messages and size < TURN_SIZE:
                message, message_size = messages.popleft()
                size += message_size
                if not self._tell(name, kind, message):
                    messages.clear()  # the node will ask again
            if not messages:
                del self._waiting[name]
        if self._waiting:
            self._timer = self._clock.callLater(_TURN, self._turn)

    def stop(self) -> None:
        """Drop all messages that wait."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
