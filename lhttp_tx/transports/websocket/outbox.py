"""
The outbox: it joins all frames that one read causes into one write for each connection.

Used by the WebSocket edge. The hub joins the publications of a run once for all subscribers. The outbox joins
everything else for each connection, such as the replies to the messages of one read, or the publications to several
channels that come from another node in one piece.
"""

from time import perf_counter
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from lhttp_tx.engine.hub import Hub

__all__ = ["Outbox"]

_MAX_SIZE = 262_144
"""Gathered bytes after which everything is written, even if the read may cause more."""

_REFERENCE_SIZE = 16
"""The bytes that count for a frame if the previous connection writes the same frame."""

_MANY = 32
"""If a flush writes to so many connections, the next reads are joined."""

_MAX_HOLD = 0.002
"""The most seconds for which frames wait for further reads."""

_CLOSE = 0.0002
"""If more seconds have passed since the flush, the next read is none of a crowd, and is not joined with others."""

_EXPECTS, _HOLDS = 1, 2
"""Whether the next read is to be joined with those after it; whether reads are being joined."""


class Writer(Protocol):
    """A connection."""

    def write_frames(self, frames: bytes) -> None:
        """Write whole frames now; must not raise."""


class Outbox:
    """
    The frames that the connections of one server have to write, gathered while a read is being handled.

    If a read follows a flush to many connections at once, it will probably also cause frames for many. So will those
    after it. Then the outbox gathers frames until the reactor has handled all reads of its turn, for at most
    :data:`_MAX_HOLD` seconds. So fifty publishers that send at the same time cost each subscriber a few writes, and not
    fifty. One publisher that sends now and then waits for nobody.

    :ivar corked: how many reads are being handled. While there is one, frames are gathered here, and not written.
    """

    __slots__ = (
        "_clock",
        "_flushed_at",
        "_held_since",
        "_hub",
        "_joins",
        "_last",
        "_size",
        "_sized",
        "_waiting",
        "_writing",
        "corked",
    )

    def __init__(self, hub: Hub, clock: IReactorTime) -> None:
        """
        :param hub: the hub, which is corked and uncorked together with the outbox.
        :param clock: the reactor.
        """
        self.corked = 0
        self._hub = hub
        self._clock = clock
        self._size = 0
        self._last = b""
        self._waiting: dict[Writer, list[bytes]] = {}
        self._writing: dict[Writer, list[bytes]] | None = None
        self._sized: dict[Writer, tuple[int, int]] = {}
        self._joins = 0
        self._flushed_at = 0.0
        self._held_since = 0.0

    def cork(self) -> None:
        """Begin to gather."""
        self.corked += 1
        self._hub.cork()
        if self._joins:
            self._join()

    def _join(self) -> None:
        """Gather frames until the end of the reactor's turn, for at most :data:`_MAX_HOLD` seconds."""
        now = perf_counter()
        if self._joins == _EXPECTS:
            if now - self._flushed_at > _CLOSE:
                self._joins = 0
                return
            self._joins = _HOLDS
            self.corked += 1
            self._hub.cork()
            self._clock.callLater(0, self._release)
        elif now - self._held_since < _MAX_HOLD:
            return
        else:
            self._hub.flush()
            self.flush()
        self._held_since = perf_counter()

    def _release(self) -> None:
        self._joins = 0
        self.uncork()

    def uncork(self) -> None:
        """Undo one call of :meth:`cork`. The last call writes everything, with each connection's frames in order."""
        if self.corked > 1 or self._waiting:
            self._hub.uncork()
            self.corked -= 1
            if not self.corked:
                self.flush()
        else:
            self.corked = 0
            hub = self._hub
            hub.reached = 0
            hub.uncork()
            if hub.reached >= _MANY and not self._joins:
                self._joins, self._flushed_at = _EXPECTS, perf_counter()

    def add(self, writer: Writer, frame: bytes) -> None:
        """Add *frame* to the frames for *writer*."""
        frames = self._waiting.get(writer)
        if frames is None:
            self._waiting[writer] = [frame]
        else:
            frames.append(frame)
        if frame is self._last:
            self._size += _REFERENCE_SIZE
        else:
            self._last = frame
            self._size += len(frame)
        if self._size > _MAX_SIZE:
            self.flush()

    def size_of(self, writer: Writer) -> int:
        """Return how many bytes are gathered for *writer*."""
        being_written = sum(map(len, self._writing.get(writer, ()))) if self._writing is not None else 0
        frames = self._waiting.get(writer)
        if frames is None:
            return being_written
        # Only what came since the last call is counted: a client can cause thousands of calls between two writes.
        count, size = self._sized.get(writer, (0, 0))
        size += sum(map(len, frames[count:]))
        self._sized[writer] = len(frames), size
        return size + being_written

    def flush(self) -> None:
        """
        Write all gathered frames now.

        A write may close its connection, and a hook may then cause frames for others. These are written at the end,
        behind the earlier frames of each connection. So a flush within a flush does nothing.
        """
        if self._writing is not None:
            return
        self.corked += 1
        try:
            while self._waiting:
                waiting = self._writing = self._waiting
                self._waiting, self._size, self._last = {}, 0, b""
                if self._sized:
                    self._sized = {}
                for writer, frames in waiting.items():
                    if frames:
                        joined = frames[0] if len(frames) == 1 else b"".join(frames)
                        frames.clear()
                        writer.write_frames(joined)
                if len(waiting) >= _MANY and not self._joins:
                    self._joins, self._flushed_at = _EXPECTS, perf_counter()
        finally:
            self._writing = None
            self.corked -= 1

    def write(self, writer: Writer) -> None:
        """Write the frames that are gathered for *writer* now, for example because it closes."""
        self._sized.pop(writer, None)
        writing = self._writing.get(writer) if self._writing is not None else None
        frames = [*(writing or ()), *self._waiting.pop(writer, ())]
        if writing:
            writing.clear()
        if frames:
            writer.write_frames(b"".join(frames))
