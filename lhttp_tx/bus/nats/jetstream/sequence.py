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
    """
    A publication that is held back.

    :ivar offset: its offset.
    :ivar after: the offset of the publication before it in the channel; 0 if there is none.
    :ivar payload: the payload as it was published.
    :ivar binary: whether it is binary.
    """

    offset: int
    after: int
    payload: bytes
    binary: bool


@final
class Sequence:
    """
    The state of one channel.

    :ivar last: the offset of the last publication that was delivered; -1 if it is not known.
    :ivar top: the largest known offset.
    :ivar held: the publications that are held back; ``None`` if publications are delivered at once.
    :ivar held_size: their bytes.
    :ivar overflown: whether publications were dropped because of the limits, so that they must be read.
    :ivar stamp: the time at which the publication at *last* was stored; empty if it is not known.
    :ivar checked: the sequence number of the stream up to which no publication of the channel is missing.
    :ivar looked: the time of the clock at which this was checked.
    :ivar reset: whether the stream was reset, and subscribers have not been told the new position yet.
    :ivar gone: the offset of the last removal marker, and the offset of the last publication that was removed; 0 and 0
        if there is none.
    :ivar doubted: whether to check the stream before reading, because it may have been reset.
    :ivar queued: whether the channel waits to be read, or is being read.
    :ivar urgent: whether it comes before other channels.
    :ivar running: whether it is being read.
    :ivar exact: whether somebody is subscribed to it by name, rather than only through wildcards.
    :ivar waiters: Deferreds that fire when the channel was read.
    """

    __slots__ = (
        *("checked", "doubted", "exact", "gone", "held", "held_size", "last", "looked", "name", "overflown"),
        *("queued", "reset", "running", "stamp", "stream", "top", "urgent", "waiters"),
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
        self.reset = self.doubted = False
        self.queued = self.urgent = self.running = False
        self.exact = False
        self.stamp = ""
        self.gone = 0, 0
        self.waiters: list[Deferred[None]] = []

    def tell(self) -> None:
        """Fire the Deferreds that wait."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    def is_next(self, news: News) -> bool:
        """Return whether *news* directly continues the channel, without a gap before or in it."""
        last, offsets, afters = self.last, news.offsets, news.afters
        if self.held is not None or last >= offsets[0] or (last >= 0 and afters[0] > last):
            return False
        return len(offsets) == 1 or (afters[1:] == offsets[:-1] and all(map(lt, afters, offsets)))

    def follow(self, news: News) -> None:
        """Note that *news* was delivered."""
        self.last, self.stamp = news.offsets[-1], news.stamps[-1]
        if self.last > self.top:
            self.top = self.last
