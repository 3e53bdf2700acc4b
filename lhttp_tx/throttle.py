"""
Limits on the messages and bytes a second of one connection.

The protocol's factory puts :class:`Throttled` before the protocol class where there are such limits; without them there
is nothing to look at. Beyond a limit nothing is refused and nothing is lost: the server reads on when the client may go
on, and TCP holds it back meanwhile. Must not import Autobahn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall

from lhttp_tx.buckets import TokenBucket
from lhttp_tx.limits import Limits

__all__ = ["Throttled", "is_limited"]

_LEAST_BYTE_BURST = 65_536
"""Bytes that always may come at once: as many as are read at once."""

_LEAST_READ = 512
"""Bytes that are read at once, at least."""

if TYPE_CHECKING:
    from lhttp_tx.protocol import LHTTPServerProtocol as _Protocol
else:
    _Protocol = object


def is_limited(limits: Limits) -> bool:
    """Return whether connections with these limits are to be throttled."""
    return limits.message_rate > 0 or limits.byte_rate > 0


class Throttled(_Protocol):
    """What comes before the protocol class of connections that may not go as fast as they can."""

    _messages: TokenBucket | None = None
    _bytes: TokenBucket | None = None
    _inner: Any = None
    _metered: Any = None
    _session_is_full = False
    _closing = False
    _waiting: IDelayedCall | None = None

    @property
    def session(self) -> Any:
        """The session, or what counts the messages on their way to it."""
        return self._metered

    @session.setter
    def session(self, session: Any) -> None:
        limits = self.factory.engine.limits
        if self._inner is None:
            now = self._now()
            if limits.message_rate > 0:
                burst = limits.message_burst or max(1.0, limits.message_rate)
                self._messages = TokenBucket(limits.message_rate, burst, now)
            if limits.byte_rate > 0:
                self._bytes = TokenBucket(limits.byte_rate, max(limits.byte_rate, _LEAST_BYTE_BURST), now)
        self._inner = session
        self._metered = session if self._messages is None else _Meter(self, session, self._messages)

    def dataReceived(self, data: bytes) -> None:
        """Take what one read brought in, and count it."""
        super().dataReceived(data)
        if data and self._bytes is not None:
            self.hold_back(self._bytes.spend(len(data), self._now()))

    def hold_back(self, seconds: float) -> None:
        """Read nothing for *seconds*, if they are more than 0."""
        if seconds > 0 and self._waiting is None and not self._closing:
            self._waiting = self.factory.reactor.callLater(seconds, self._go_on)
            super().pause_reading()

    def _go_on(self) -> None:
        now = self._now()
        self._waiting = None
        wait = max(bucket.wait(now) for bucket in (self._messages, self._bytes) if bucket is not None)
        if wait > 0:
            self.hold_back(wait)
        elif not self._session_is_full:
            super().resume_reading()

    def pause_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ISessionTransport.pause_reading`."""
        self._session_is_full = True
        super().pause_reading()

    def resume_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ISessionTransport.resume_reading`."""
        self._session_is_full = False
        if self._waiting is None:
            super().resume_reading()

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        """Hold nothing back any more: the answer to the close frame is waited for."""
        self._stop_waiting()
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Tell the session that its connection has ended, however it did."""
        self._stop_waiting()
        super().onClose(wasClean, code, reason)

    def _pace(self, size: int, elapsed: float) -> None:
        super()._pace(size, elapsed)
        if self._bottom is not None and self._bytes is not None:
            most = max(_LEAST_READ, self.factory.engine.limits.byte_rate // 10)
            self._bottom.bufferSize = min(self._bottom.bufferSize, most)

    def _stop_waiting(self) -> None:
        self._closing = True
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _now(self) -> float:
        now: float = self.factory.reactor.seconds()
        return now


class _Meter:
    """Counts the messages on their way to a session, and lets no more through than may come."""

    __slots__ = ("_bucket", "_protocol", "_session")

    def __init__(self, protocol: Throttled, session: Any, bucket: TokenBucket) -> None:
        self._protocol = protocol
        self._session = session
        self._bucket = bucket

    def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
        """As :meth:`lhttp_tx.session.Session.receive_run`."""
        stop = first + max(1, self._bucket.available(self._protocol._now()))
        if stop < len(messages):
            messages = messages[:stop]
        taken: int = self._session.receive_run(messages, first, binary)
        self._spend(taken - first)
        return taken

    def receive(self, data: bytes, binary: bool) -> None:
        """As :meth:`lhttp_tx.session.Session.receive`."""
        self._session.receive(data, binary)
        self._spend(1)

    def _spend(self, count: int) -> None:
        self._protocol.hold_back(self._bucket.spend(count, self._protocol._now()))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)
