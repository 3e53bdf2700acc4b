"""
What was not sent to a client that does not read, for whoever wants to keep it.

The protocol's factory puts :class:`Remembering` before the protocol class where there is such a hook; without one
nothing is remembered. Must not import Autobahn.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from lhttp_tx.codes import TOO_SLOW

__all__ = ["Remembering"]

if TYPE_CHECKING:
    from lhttp_tx.protocol import LHTTPServerProtocol as _Protocol
else:
    _Protocol = object


class Remembering(_Protocol):
    """What comes before the protocol class of connections whose unsent messages somebody wants."""

    _kept: deque[bytes] | None = None
    _kept_size = 0
    _refused: bytes = b""
    _told = False

    def write_frames(self, frames: bytes) -> None:
        """Write whole frames, and remember them for as long as some of them wait."""
        self._refused = frames
        super().write_frames(frames)
        self._refused = b""
        if self._kept is None:
            if not self._held():
                return
            self._kept = deque()
        self._kept.append(frames)
        self._kept_size += len(frames)
        held = self._held()
        while self._kept and self._kept_size - len(self._kept[0]) >= held:
            self._kept_size -= len(self._kept.popleft())
        if not self._kept:
            self._kept = None

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake; one that is too slow is given up."""
        if code == TOO_SLOW:
            self._tell()
        super().close(code, reason)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Tell the session what was not sent, then that its connection has ended."""
        self._tell()
        super().onClose(wasClean, code, reason)

    def _tell(self) -> None:
        session: Any = self.session
        if self._told or session is None or not hasattr(session, "undelivered"):
            return
        self._told = True
        unsent = [self._refused] if self._refused else []
        held = self._held()
        for frames in reversed(self._kept or ()):
            held -= len(frames)
            if held < 0:  # some of it is under way
                break
            unsent.append(frames)
        self._kept = None
        if unsent:
            decode = self._encoding.decode if self._encoding is not None else bytes
            session.undelivered(map(decode, reversed(unsent)))
