"""
Limits on the messages and bytes a second of one connection.

A connection has a :class:`Throttle` only if there are such limits. Beyond a limit, the
server refuses nothing and loses nothing: it stops reading until the client may go on, and TCP slows the client down.
Compressed bytes count with their inflated size, too. Must not import Autobahn.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lhttp_tx.codec.limits import Limits
from lhttp_tx.guard.rates import TokenBucket
from lhttp_tx.transports.websocket.flow import THROTTLED

__all__ = ["Throttle", "is_limited"]

_LEAST_BYTE_BURST = 65_536
"""Bytes that a client may always send at once: the size of one read."""

_LEAST_READ = 512
"""The fewest bytes of a read."""


def is_limited(limits: Limits) -> bool:
    """Return whether these limits need a throttle."""
    return limits.message_rate > 0 or limits.byte_rate > 0


class Throttled(Protocol):
    """A connection whose reading is throttled."""

    session: Any

    def hold_reading(self, why: int) -> None:
        """Stop reading, and stop passing messages on."""

    def go_on_reading(self, why: int) -> None:
        """Continue reading, unless there is another reason to wait."""


class Throttle:
    """
    Counts what one client sends, and slows it down.

    The connection passes messages to the throttle, which passes them to the session no faster than the limits allow.

    :ivar largest_read: the most bytes of a read; ``None`` if bytes are not counted.
    """

    __slots__ = ("_bytes", "_clock", "_connection", "_messages", "_over", "_waiting", "largest_read")

    def __init__(self, connection: Throttled, limits: Limits, clock: IReactorTime) -> None:
        """
        :param connection: the connection.
        :param limits: the rates and the bursts.
        :param clock: the reactor.
        """
        self._connection = connection
        self._clock = clock
        self._waiting: IDelayedCall | None = None
        self._over = False
        self._messages: TokenBucket | None = None
        self._bytes: TokenBucket | None = None
        self.largest_read: int | None = None
        now = clock.seconds()
        if limits.message_rate > 0:
            burst = limits.message_burst or max(1.0, limits.message_rate)
            self._messages = TokenBucket(limits.message_rate, burst, now)
        if limits.byte_rate > 0:
            self._bytes = TokenBucket(limits.byte_rate, max(limits.byte_rate, _LEAST_BYTE_BURST), now)
            self.largest_read = max(_LEAST_READ, limits.byte_rate // 10)

    def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
        """See :meth:`lhttp_tx.engine.conversation.Conversation.receive_run`."""
        if self._messages is not None:
            stop = first + max(1, self._messages.available(self._clock.seconds()))
            if stop < len(messages):
                messages = messages[:stop]
        taken: int = self._connection.session.receive_run(messages, first, binary)
        self._spend(self._messages, taken - first)
        return taken

    def receive(self, data: bytes, binary: bool) -> None:
        """See :meth:`lhttp_tx.engine.conversation.Conversation.receive`."""
        self._connection.session.receive(data, binary)
        self._spend(self._messages, 1)

    def count_bytes(self, size: int) -> None:
        """Count *size* bytes that were read or inflated."""
        self._spend(self._bytes, size)

    def stop(self) -> None:
        """Stop throttling, because the connection is closing and waits for the answer to its close frame."""
        self._over = True
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _spend(self, bucket: TokenBucket | None, count: int) -> None:
        if bucket is not None:
            self._hold_back(bucket.spend(count, self._clock.seconds()))

    def _hold_back(self, seconds: float) -> None:
        """Stop reading for *seconds*, if they are more than 0."""
        if seconds > 0 and self._waiting is None and not self._over:
            self._waiting = self._clock.callLater(seconds, self._go_on)
            self._connection.hold_reading(THROTTLED)

    def _go_on(self) -> None:
        now = self._clock.seconds()
        self._waiting = None
        wait = max(bucket.wait(now) for bucket in (self._messages, self._bytes) if bucket is not None)
        if wait > 0:
            self._hold_back(wait)
        else:
            self._connection.go_on_reading(THROTTLED)
