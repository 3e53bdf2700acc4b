"""
Remembers the message ids of the last minutes, in memory.

Source: the protocol document, section "Message ids".
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["MessageIds"]

_COST = 250
"""Bytes of memory of an id, in addition to its own bytes and those of the channel's name. Measured, and rounded up."""


class MessageIds:
    """
    Remembers message ids with their channels and offsets, for a limited time and up to a limit of bytes.

    Beyond the limit of bytes, the oldest ids are forgotten before their time.
    """

    def __init__(self, window: float, size: int = 16_777_216) -> None:
        """
        :param window: seconds for which an id is remembered.
        :param size: the most bytes of all ids.
        """
        self._window = window
        self._room = size
        self._size = size
        self._known: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def find(self, channel: str, message_id: str, now: float) -> int | None:
        """Return the offset that belongs to an id; ``None`` if the id is not known."""
        found = self._known.get((channel, message_id))
        return None if found is None or found[1] <= now - self._window else found[0]

    def note(self, channel: str, message_id: str, offset: int, now: float) -> None:
        """
        Remember that *message_id* was published.

        :param offset: its offset; 0 in a channel without history.
        :param now: the time of the same clock for all calls, in seconds.
        """
        key = channel, message_id
        if self._known.pop(key, None) is None:
            self._room -= self._cost(key)
        self._known[key] = offset, now
        while self._known and (self._room < 0 or next(iter(self._known.values()))[1] <= now - self._window):
            self._room += self._cost(self._known.popitem(last=False)[0])

    def forget(self, channel: str, message_id: str) -> None:
        """Forget an id."""
        if self._known.pop((channel, message_id), None) is not None:
            self._room += self._cost((channel, message_id))

    @staticmethod
    def _cost(key: tuple[str, str]) -> int:
        return _COST + len(key[0]) + len(key[1])

    def __len__(self) -> int:
        return len(self._known)
