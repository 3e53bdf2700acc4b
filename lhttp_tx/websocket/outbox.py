"""
The outbox: what one read causes to be written, gathered to one write for each connection.

Used by the WebSocket edge. The hub joins the publications of a run once for all its subscribers; the outbox joins
what is left, such as the replies to the messages of one read, for each connection by itself.
"""

from typing import Protocol

from lhttp_tx.hub import Hub

__all__ = ["Outbox"]

_MAX_SIZE = 262_144
"""Bytes that are gathered before all of it is written, though the read may cause more."""


class Writer(Protocol):
    """A connection."""

    def write_frames(self, frames: bytes) -> None:
        """Write whole frames now; must not raise."""


class Outbox:
    """
    What the connections of one server have to write while a read is in hand.

    :ivar corked: how many reads are in hand; while there is one, frames are added here and not written.
    """

    __slots__ = ("_hub", "_size", "_waiting", "corked")

    def __init__(self, hub: Hub) -> None:
        """:param hub: corked and uncorked together with the outbox."""
        self.corked = 0
        self._hub = hub
        self._size = 0
        self._waiting: dict[Writer, list[bytes]] = {}

    def cork(self) -> None:
        """Begin to gather."""
        self.corked += 1
        self._hub.cork()

    def uncork(self) -> None:
        """Take back one :meth:`cork`; the last one writes everything, each connection's frames in order."""
        if self.corked > 1 or self._waiting:
            self._hub.uncork()
            self.corked -= 1
            if not self.corked:
                self.flush()
        else:
            self.corked = 0
            self._hub.uncork()

    def add(self, writer: Writer, frame: bytes) -> None:
        """Write *frame* to *writer* with the others."""
        frames = self._waiting.get(writer)
        if frames is None:
            self._waiting[writer] = [frame]
        else:
            frames.append(frame)
        self._size += len(frame)
        if self._size > _MAX_SIZE:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered, now."""
        waiting, self._waiting, self._size = self._waiting, {}, 0
        for writer, frames in waiting.items():
            writer.write_frames(frames[0] if len(frames) == 1 else b"".join(frames))
