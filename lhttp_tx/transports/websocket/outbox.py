"""
The outbox: it joins all frames that one read causes into one write for each connection.

Used by the WebSocket edge. The hub joins the publications of a run once for all subscribers. The outbox joins
everything else for each connection, such as the replies to the messages of one read, or the publications to several
channels that come from another node in one piece.
"""

from typing import Protocol

from lhttp_tx.engine.hub import Hub

__all__ = ["Outbox"]

_MAX_SIZE = 262_144
"""Gathered bytes after which everything is written, even if the read may cause more."""


class Writer(Protocol):
    """A connection."""

    def write_frames(self, frames: bytes) -> None:
        """Write whole frames now; must not raise."""


class Outbox:
    """
    The frames that the connections of one server have to write, gathered while a read is being handled.

    :ivar corked: how many reads are being handled. While there is one, frames are gathered here, and not written.
    """

    __slots__ = ("_hub", "_size", "_waiting", "corked")

    def __init__(self, hub: Hub) -> None:
        """:param hub: the hub, which is corked and uncorked together with the outbox."""
        self.corked = 0
        self._hub = hub
        self._size = 0
        self._waiting: dict[Writer, list[bytes]] = {}

    def cork(self) -> None:
        """Begin to gather."""
        self.corked += 1
        self._hub.cork()

    def uncork(self) -> None:
        """Undo one call of :meth:`cork`. The last call writes everything, with each connection's frames in order."""
        if self.corked > 1 or self._waiting:
            self._hub.uncork()
            self.corked -= 1
            if not self.corked:
                self.flush()
        else:
            self.corked = 0
            self._hub.uncork()

    def add(self, writer: Writer, frame: bytes) -> None:
        """Add *frame* to the frames for *writer*."""
        frames = self._waiting.get(writer)
        if frames is None:
            self._waiting[writer] = [frame]
        else:
            frames.append(frame)
        self._size += len(frame)
        if self._size > _MAX_SIZE:
            self.flush()

    def size_of(self, writer: Writer) -> int:
        """Return how many bytes are gathered for *writer*."""
        return sum(map(len, self._waiting.get(writer, ())))

    def flush(self) -> None:
        """Write all gathered frames now."""
        waiting, self._waiting, self._size = self._waiting, {}, 0
        for writer, frames in waiting.items():
            writer.write_frames(frames[0] if len(frames) == 1 else b"".join(frames))
