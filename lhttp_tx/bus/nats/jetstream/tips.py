"""
The last offsets of channels, as far as this node knows them.

Used by :mod:`lhttp_tx.bus.nats.jetstream.appends`, which notes them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import final

from lhttp_tx.bus.nats.jetstream.streams import Stream

__all__ = ["Tips"]

_MAX_TIPS = 20_000
"""The most channels whose last offset is remembered."""


@final
class Tips:
    """The largest known offset of each recently used channel."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()

    def find(self, stream: Stream, channel: str) -> int:
        """Return the largest known offset of *channel*; 0 if none is known."""
        return self._known.get((stream.name, channel), 0)

    def note(self, stream: Stream, channel: str, offset: int) -> None:
        """Remember that *channel* has a publication with *offset*."""
        key = stream.name, channel
        if offset > self._known.get(key, 0):
            self._known[key] = offset
            self._known.move_to_end(key)
            if len(self._known) > _MAX_TIPS:
                self._known.popitem(last=False)

    def forget(self, stream: Stream) -> None:
        """Forget the offsets of *stream*, because its offsets start again."""
        for key in [key for key in self._known if key[0] == stream.name]:
            del self._known[key]
