"""
The state of one channel whose publications come from a stream.

A part of :mod:`lhttp_tx.bus.nats.jetstream.order`.
"""

from __future__ import annotations

from operator import lt
from typing import NamedTuple, final

from twisted.internet.defer import Deferred

from lhttp_tx.bus.nats.jetstream.republished import News
from lhttp_tx.bus.nats.jetstream.streams import Stream

__all__ = ["Held", "Sequence"]


class Held(NamedTuple):
    """A publication that is held back, as it was published."""

    offset: int
    after: int
    payload: bytes
    binary: bool


@final
class Sequence:
    """
    One channel.

    :ivar last: the offset of the last publication that was passed on; -1 if that is not known.
    :ivar top: the largest offset that is known.
    :ivar held: what is held back; ``None`` if nothing is to be.
    :ivar checked: up to which sequence number of the stream nothing of the channel is missing.
    :ivar looked: when that was found out.
    :ivar anew: whether its stream is another one now, so that subscribers are to be told a new position.
    :ivar gone: where the history was removed lately, and the offset of the last one before that.
    :ivar doubted: whether its stream is to be looked at first.
    :ivar queued: whether it is to be read, or is being read.
    :ivar urgent: whether it is to be read before others.
    :ivar running: whether it is being read.
    :ivar exact: whether it was subscribed to by its name.
    """

    __slots__ = (
        *("anew", "checked", "doubted", "exact", "gone", "held", "held_size", "last", "looked", "name", "overflown"),
        *("queued", "running", "stamp", "stream", "top", "urgent", "waiters"),
    )

    def __init__(self, name: str, stream: Stream, last: int) -> None:
        self.name = name
        self.stream = stream
        self.last = last
        self.top = max(last, 0)
        self.held: list[Held] | None = None
        self.held_size = 0
        self.overflown = False
        self.checked = 0
        self.looked = 0.0
        self.anew = self.doubted = False
        self.queued = self.urgent = self.running = False
        self.exact = False
        self.stamp = ""
        self.gone = 0, 0
        self.waiters: list[Deferred[None]] = []

    def tell(self) -> None:
        """Tell those who wait that it was looked at."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    def is_next(self, news: News) -> bool:
        """Return whether *news* is what comes next, with nothing missing before any of it."""
        last, offsets, afters = self.last, news.offsets, news.afters
        if self.held is not None or last >= offsets[0] or (last >= 0 and afters[0] > last):
            return False
        return len(offsets) == 1 or (afters[1:] == offsets[:-1] and all(map(lt, afters, offsets)))

    def follow(self, news: News) -> None:
        """Note that *news* was passed on."""
        self.last, self.stamp = news.offsets[-1], news.stamps[-1]
        if self.last > self.top:
            self.top = self.last
