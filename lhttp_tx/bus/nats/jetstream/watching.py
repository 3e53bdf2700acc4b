"""
The subscribed channels with history of this node, and the checks for missing publications.

The node checks a channel when somebody subscribes, a moment later, and when the link or the leader of a stream has
changed. From time to time, it also checks channels without new publications, if their stream has new ones.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from lhttp_tx.bus.nats.bus import BusParts
from lhttp_tx.bus.nats.jetstream.asking import Found
from lhttp_tx.bus.nats.jetstream.classes import Classes
from lhttp_tx.bus.nats.jetstream.order import Order
from lhttp_tx.bus.nats.jetstream.reading import Reader
from lhttp_tx.bus.nats.jetstream.republished import REMOVED
from lhttp_tx.bus.nats.jetstream.sequence import Sequence
from lhttp_tx.bus.nats.jetstream.streams import Stream, StreamState
from lhttp_tx.bus.nats.link import Link, in_deferred
from lhttp_tx.bus.nats.subjects import channel_of, wildcard_subject_of
from lhttp_tx.codec.positions import format_position
from lhttp_tx.codec.wildcards import Wildcards, is_wildcard
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.values import Retention
from lhttp_tx.interfaces import MaybeDeferred

__all__ = ["Watch"]

_log = Logger()

_TICK = 0.25
"""Seconds between looks for checks that are due."""

_SPREAD = 0.5
"""Seconds after a subscription during which some servers of the NATS cluster may not know it yet."""

_QUIET = 10.0
"""Seconds after which a channel without new publications is checked again, if its stream has new ones."""

_LOOKS = 25
_CANDIDATES = 1_000
"""The most channels that are checked in a tick, and the most that are considered for a check."""

_SNAPSHOTS = 40
"""Ticks after which publications that have arrived over the bus count as complete for wildcards."""

_MAX_SWEPT = 100_000
"""
The most publications that are read for a wildcard. Beyond that, its subscribers are told that they have missed some.
"""

_PAGE = 1_000
_PAGE_SIZE = 4_194_304
"""The most publications, and the most bytes, that are read at once for a wildcard."""

_MAX_MET = 50_000
"""The most channels that are known only because of wildcards."""


@final
class Watch:
    """
    The subscribed channels and wildcards of this node.

    :ivar reader: reads from the streams.
    :ivar order: delivers their publications in order.
    """

    def __init__(
        self,
        link: Callable[[], Link | None],
        classes: Classes,
        retention_of: Callable[[str], Retention | None],
        parts: BusParts,
        missed: Callable[[str, str], None],
        *,
        clock: Any,
    ) -> None:
        """
        :param link: returns the link to use; ``None`` if there is none.
        :param classes: the streams.
        :param retention_of: returns the history class of a channel; ``None`` if it has no history.
        :param parts: the parts of the bus.
        :param missed: as for :class:`lhttp_tx.bus.nats.jetstream.order.Order`.
        :param clock: the reactor.
        """
        self.reader = Reader(link, self._known)
        self.order = Order(self.reader, parts, missed, self.meet, clock=clock)
        self._classes = classes
        self._parts = parts
        self._retention_of = retention_of
        self._missed = missed
        self._clock = clock
        self._wildcards = Wildcards()
        self._floors: dict[str, dict[str, int]] = {}
        self._met = 0
        self._fresh: deque[tuple[float, Sequence]] = deque()
        self._turn: OrderedDict[str, None] = OrderedDict()
        self._seen: deque[dict[str, int]] = deque(maxlen=_SNAPSHOTS)
        self._ticking: IDelayedCall | None = None
        self._sweeps: set[asyncio.Task[None]] = set()

    def _known(self, stream: Stream, channel: str) -> int:
        return max(self._classes.tips.find(stream, channel), self.order.known(stream, channel))

    def start(self) -> None:
        """Begin to check channels."""
        self._ticking = self._clock.callLater(_TICK, self._tick)

    def stop(self) -> None:
        """Stop checking, and forget all channels."""
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        for sweep in self._sweeps:
            sweep.cancel()
        self.order.clear()
        self._fresh.clear()
        self._turn.clear()

    # Subscriptions

    def add(self, name: str, subscribed: MaybeDeferred) -> MaybeDeferred:
        """
        Begin to watch a channel, or the channels that a wildcard matches.

        :param name: the channel or wildcard.
        :param subscribed: ``None`` if NATS has the subscription, else a Deferred that fires when it has.
        :returns: ``None`` or a Deferred. It fires when NATS has the subscription, and the offset is known after which
            publications are delivered.
        """
        if is_wildcard(name):
            if name in self._floors or not self._classes.all():
                return subscribed
            self._floors[name] = {}
            self._wildcards.add(name)
            return self._then(subscribed, lambda: in_deferred(self._find_floors(name)))
        stream = self._stream_of(name)
        if stream is None:
            return subscribed
        found = self.order.sequences.get(name)
        if found is None or found.stream is not stream:
            found = self.order.add(name, stream)
        found.exact = True
        self._turn[name] = None
        if subscribed is None and not found.queued and found.last >= 0:
            return None
        return self._then(subscribed, lambda: self._begin(found))

    def _stream_of(self, channel: str) -> Stream | None:
        retention = self._retention_of(channel)
        try:
            return None if retention is None else self._classes.stream(retention)
        except HistoryUnavailable as error:
            _log.error("no history for {channel}: {why}", channel=channel, why=error.reason)
            return None

    @staticmethod
    def _then(subscribed: MaybeDeferred, call: Callable[[], MaybeDeferred]) -> MaybeDeferred:
        return call() if subscribed is None else subscribed.addCallback(lambda _: call())

    def _begin(self, found: Sequence) -> MaybeDeferred:
        if self.order.sequences.get(found.name) is not found:
            return None
        self._fresh.append((self._clock.seconds() + _SPREAD, found))
        if found.last >= 0 and not found.reset:
            return None
        waiter: Deferred[None] = Deferred()
        found.waiters.append(waiter)
        self.order.queue(found)
        return waiter

    async def _find_floors(self, wildcard: str) -> None:
        """Find the last publication of each stream before a wildcard was subscribed to."""
        for stream in [stream for stream in self._classes.all() if stream.ready]:
            try:
                last = (await stream.look()).last
            except HistoryUnavailable:
                continue
            if wildcard in self._floors:
                self._floors[wildcard][stream.name] = last

    def remove(self, name: str) -> None:
        """Stop watching a channel or a wildcard."""
        if name in self._floors:
            del self._floors[name]
            self._wildcards.discard(name)
            if not self._floors:
                self._forget()
            return
        found = self.order.sequences.get(name)
        if found is not None and self._floors and self._wildcards.matching(name):
            found.exact = False  # a wildcard still needs it
        else:
            self.order.remove(name)

    def reconsider(self, names: Iterable[str]) -> None:
        """
        Look up the history classes of subscribed channels again.

        :param names: the channels and wildcards that are subscribed to.
        """
        for name in names:
            found = self.order.sequences.get(name)
            stream = None if is_wildcard(name) else self._stream_of(name)
            if found is not None and found.exact and found.stream is not stream:
                self.order.remove(name)
            if stream is not None and name not in self.order.sequences:
                self.order.add(name, stream, held=False).exact = True
                self._turn[name] = None

    def meet(self, channel: str, stream: Stream, after: int) -> int:
        """See ``meet`` of :class:`lhttp_tx.bus.nats.jetstream.order.Order`."""
        self._met += 1
        if self._met > _MAX_MET:
            self._forget()
        floors = [self._floors[name].get(stream.name) for name in self._wildcards.matching(channel)]
        known = [floor for floor in floors if floor is not None]
        return min([after, *known])

    def _forget(self) -> None:
        """
        Forget the channels that are known only because of wildcards. They begin again with their next publication.
        """
        for name, found in tuple(self.order.sequences.items()):
            if not found.exact and not found.queued:
                for floors in self._floors.values():
                    if found.last > floors.get(found.stream.name, found.last):
                        floors[found.stream.name] = found.last
                self.order.remove(name)
        self._met = 0

    # Checks

    def look(self, stream: Stream | None = None) -> None:
        """Check whether publications are missing in the channels of one stream, or of all streams."""
        for found in self.order.sequences.values():
            if found.exact and (stream is None or found.stream is stream):
                self.order.queue(found)
        for each in self._classes.all() if stream is None else (stream,):
            for wildcard, floors in self._floors.items():
                sweep = asyncio.ensure_future(self._sweep(wildcard, floors, each))
                self._sweeps.add(sweep)
                sweep.add_done_callback(self._sweeps.discard)

    def _tick(self) -> None:
        self._ticking = self._clock.callLater(_TICK, self._tick)
        now = self._clock.seconds()
        while self._fresh and self._fresh[0][0] <= now:
            found = self._fresh.popleft()[1]
            if self.order.sequences.get(found.name) is found:
                self.order.queue(found)
        self._look_at_quiet(now)
        if self._floors:
            self._seen.append(dict(self.order.seen))
            if len(self._seen) == _SNAPSHOTS:
                self._raise_floors(self._seen[0])

    def _look_at_quiet(self, now: float) -> None:
        looks = 0
        for _ in range(min(len(self._turn), _CANDIDATES)):
            name, _ = self._turn.popitem(last=False)
            found = self.order.sequences.get(name)
            if found is None or not found.exact:
                continue
            self._turn[name] = None
            if (
                not found.queued
                and found.stream.ready
                and found.stream.tip > max(found.checked, found.last)
                and now - found.looked > _QUIET
            ):
                self.order.queue(found)
                looks += 1
                if looks == _LOOKS:
                    return

    # Wildcards

    def _raise_floors(self, seen: dict[str, int]) -> None:
        for floors in self._floors.values():
            for name, floor in floors.items():
                floors[name] = max(floor, seen.get(name, 0))

    def doubt(self) -> None:
        """Note that publications that have recently arrived over the bus may be incomplete."""
        self._seen.clear()

    def changed(self, stream: Stream, before: StreamState | None, now: StreamState) -> None:
        """See ``changed`` of :class:`lhttp_tx.bus.nats.jetstream.streams.Stream`."""
        if before is None or before.epoch == now.epoch:
            self.look(stream)
            return
        self._seen.clear()
        for floors in self._floors.values():
            floors[stream.name] = 0
        self.order.restart(stream)

    async def _sweep(self, wildcard: str, floors: dict[str, int], stream: Stream) -> None:
        """
        Read the missing publications for a wildcard in one stream. Channels with subscribers by name are read
        separately.
        """
        subject = wildcard_subject_of(wildcard, stream.source)
        try:
            if stream.name not in floors:
                floors[stream.name] = (await stream.look()).last
                return
            tip, total = (await stream.look()).last, 0
            while self._floors.get(wildcard) is floors:
                got = await self.reader.behind(stream, subject, floors[stream.name] + 1, _PAGE, _PAGE_SIZE)
                self._take_missing(stream, got.found)
                total += len(got.found)
                if len(got.found) == got.total or total > _MAX_SWEPT:
                    floors[stream.name] = max(floors[stream.name], tip)
                    if len(got.found) < got.total:
                        self._missed(wildcard, format_position(stream.epoch, tip))
                    return
                floors[stream.name] = got.found[-1].offset
        except HistoryUnavailable as error:
            _log.warn("publications to {wildcard} may be missing: {why}", wildcard=wildcard, why=error.reason)

    def _take_missing(self, stream: Stream, messages: list[Found]) -> None:
        self._parts.begin()
        for each in messages:
            channel = channel_of(each.subject, stream.source)
            if channel is not None and REMOVED not in each.headers:
                self.order.take_missing(channel, stream, each)
        self._parts.end()
