"""
Remembers which messages wait for a client that does not read, for a hook that asks for undelivered messages.

A connection has an :class:`Unsent` only if there is such a hook. Must not import Autobahn.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Unsent"]


class Unsent:
    """
    The frames of one connection that may still wait to be sent: at most as many bytes as may wait, and one more write.
    """

    __slots__ = ("_kept", "_size")

    def __init__(self) -> None:
        self._kept: deque[bytes] = deque()
        self._size = 0

    def add(self, frames: bytes, held: int) -> None:
        """
        Remember written frames for as long as some of their bytes wait.

        :param held: bytes that wait, including these.
        """
        self._kept.append(frames)
        self._size += len(frames)
        while self._kept and self._size - len(self._kept[0]) >= held:
            self._size -= len(self._kept.popleft())

    def take(self, held: int) -> list[bytes]:
        """
        Return the frames of which no byte has left the server, in order, and forget all frames.

        :param held: bytes that wait.
        """
        unsent: list[bytes] = []
        while self._kept:
            frames = self._kept.pop()
            held -= len(frames)
            if held < 0:  # a part of this frame has left
                break
            unsent.append(frames)
        self._kept.clear()
        self._size = 0
        unsent.reverse()
        return unsent
