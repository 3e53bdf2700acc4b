"""
Sorts the publications that come from streams.

Each stored publication has the offset of the one before it in its channel. If that one has not arrived, later ones are
held back until the missing ones were read from the stream. Duplicates are dropped. So all subscribers get each
publication once, in the order of the offsets, even if links or servers fail.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from typing import Any, final

from lhttp_tx.bus.nats.bus import BusParts
from lhttp_tx.bus.nats.jetstream.asking import Found
from lhttp_tx.bus.nats.jetstream.reading import Reader, stored
from lhttp_tx.bus.nats.jetstream.republished import News, stamp_order
from lhttp_tx.bus.nats.jetstream.sequence import Held, Sequence
from lhttp_tx.bus.nats.jetstream.streams import Stream
from lhttp_tx.codec.positions import format_position, mark, mark_all
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["Order"]

_log = RationedLogger(__name__)

_MAX_HELD = 1_000
_MAX_HELD_SIZE = 4_194_304
_MAX_HELD_IN_ALL = 67_108_864
"""
The most publications of a channel that are held back, their bytes, and the bytes of all channels. More are read later.
"""

_PAGE = 500
_PAGE_SIZE = 1_048_576
"""The most publications, and the most bytes, of one page that is read."""

_WORKERS = 32
"""The most channels that are read at the same time."""

_PATIENCE = 10.0
"""Seconds without progress in reading after which subscribers are told that they have missed publications."""

_WAITS = (0.05, 0.1, 0.2, 0.5)
"""Seconds between attempts to read. The last value is used for all further attempts."""


@final
class Order:
    """
    Delivers the publications of channels with history on this node in order.

    :ivar seen: the largest offset that has arrived over the bus, by the name of the stream.
    """

    def __init__(
        self,
        reader: Reader,
        parts: BusParts,
        missed: Callable[[str, str], None],
        meet: Callable[[str, Stream, int], int],
        *,
        clock: Any,
    ) -> None:
        """
        :param reader: reads from streams.
        :param parts: the parts of the bus.
        :param missed: called with a channel that has lost publications, and the position after which it continues.
        :param meet: called for the first publication of a channel that only wildcards match: with the channel, its
            stream, and the offset before that publication. Returns the offset up to which no publication is missing.
        :param clock: the reactor.
        """
        self.seen: dict[str, int] = {}
        self._reader = reader
        self._parts = parts
        self._missed = missed
        self._meet = meet
        self._clock = clock
        self._channels: dict[str, Sequence] = {}
        self._held_size = 0
        self._queue: deque[Sequence] = deque()
        self._workers: set[asyncio.Task[None]] = set()

    @property
    def sequences(self) -> dict[str, Sequence]:
        """The states of all channels, by channel. Do not change it."""
        return self._channels

    def known(self, stream: Stream, channel: str) -> int:
        """Return the largest known offset of *channel* in *stream*; 0 if none is known."""
        found = self._channels.get(channel)
        return found.top if found is not None and found.stream is stream else 0

    def add(self, channel: str, stream: Stream, *, held: bool = True) -> Sequence:
        """
        Begin to deliver a channel.

        :param held: whether to hold publications back until the end of the channel's history is known.
        """
        found = self._channels[channel] = Sequence(channel, stream, -1)
        found.held = [] if held else None
        return found

    def remove(self, channel: str) -> None:
        """Forget a channel, and fire the Deferreds that wait for it."""
        found = self._channels.pop(channel, None)
        if found is not None:
            self._let_go(found)
            found.tell()

    def clear(self) -> None:
        """Forget all channels, and stop reading."""
        for channel in tuple(self._channels):
            self.remove(channel)
        self._queue.clear()
        for worker in self._workers:
            worker.cancel()

    # Publications that arrive over the bus

    def take(self, channel: str, stream: Stream, news: News) -> bool:
        """
        Take publications that have arrived over the bus.

        :param stream: the stream that has stored them.
        :returns: ``False`` if this object does not deliver them, because the channel has another stream now.
        """
        found = self._channels.get(channel)
        if found is None:
            found = self._channels[channel] = Sequence(channel, stream, self._meet(channel, stream, news.afters[0]))
        elif found.stream is not stream:
            return False
        if news.removed is None and found.is_next(news):
            self._pass_on_news(found, news)
        else:
            for number in range(len(news.payloads)):
                self._take_one(found, news.only(number))
        return True

    def _take_one(self, found: Sequence, news: News) -> None:
        offset = news.offsets[0]
        if found.is_next(news):
            if news.removed is not None:
                found.follow(news)
                found.gone = offset, news.removed
                _saw(self.seen, found.stream, offset)
            else:
                self._pass_on_news(found, news)
        elif found.held is None and offset <= found.last:
            self._repeated(found, news)
        else:
            first = found.held is None
            self._hold(found, news, news.afters[0])
            if first:
                self.queue(found, first=True)
            _saw(self.seen, found.stream, offset)

    def _pass_on_news(self, found: Sequence, news: News) -> None:
        after = found.gone[1] if news.afters[0] == found.gone[0] else news.afters[0]
        found.follow(news)
        _saw(self.seen, found.stream, found.last)
        self._parts.deliver(found.name, mark_all(news.payloads, news.offsets, after, found.name), news.binary)

    def take_missing(self, channel: str, stream: Stream, message: Found) -> None:
        """Deliver a publication that was read for a wildcard, unless it is delivered in another way."""
        found = self._channels.get(channel)
        if found is None:
            found = self._channels[channel] = Sequence(channel, stream, message.offset - 1)
        elif found.exact or found.held is not None or found.stream is not stream or message.offset <= found.last:
            return
        after = found.last if found.stamp else 0
        found.last = found.top = message.offset
        found.stamp = message.headers["Nats-Time-Stamp"]
        shown = stored(message, after, channel)
        self._parts.deliver(channel, [shown.payload], shown.binary)

    def _repeated(self, found: Sequence, news: News) -> None:
        """Drop a duplicate. If its time is later than that of the last one, check whether the stream was reset."""
        stamp = news.stamps[0]
        if stamp == found.stamp or stamp_order(stamp) <= stamp_order(found.stamp) or not found.stamp:
            return
        found.doubted = True
        self._hold(found, news, 0)
        self.queue(found, first=True)

    def _hold(self, found: Sequence, news: News, after: int) -> None:
        """Hold back one publication until the ones before it were delivered. Beyond the limits, drop it."""
        if found.held is None:
            found.held = []
        held, offset, payload = found.held, news.offsets[0], news.payloads[0]
        found.top = max(found.top, offset)
        size = len(payload)
        if (
            news.removed is not None
            or found.overflown
            or len(held) >= _MAX_HELD
            or found.held_size + size > _MAX_HELD_SIZE
            or self._held_size + size > _MAX_HELD_IN_ALL
        ):
            found.overflown = True  # it is read from the stream later
            return
        held.append(Held(offset, after, payload, news.binary))
        found.held_size += size
        self._held_size += size

    def _let_go(self, found: Sequence) -> list[Held]:
        held, found.held = found.held or [], None
        self._held_size -= found.held_size
        found.held_size = 0
        return held

    # Missing publications

    def queue(self, found: Sequence, *, first: bool = False) -> None:
        """
        Read the missing publications of a channel, if there are any, when it is its turn.

        :param first: whether it comes before other channels.
        """
        if found.running or (found.queued and (found.urgent or not first)):
            return
        found.queued, found.urgent = True, first
        if first:
            self._queue.appendleft(found)  # it may be in the queue a second time
        else:
            self._queue.append(found)
        if len(self._workers) < _WORKERS:
            worker = asyncio.ensure_future(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        while self._queue:
            found = self._queue.popleft()
            if found.running or not found.queued:
                continue
            found.running = True
            try:
                await self._mend(found)
            except Exception:
                _log.failure("reading missing messages failed")
                self._pass_held(found)
            finally:
                found.queued = found.urgent = found.running = False
                found.tell()

    async def _mend(self, found: Sequence) -> None:
        """Read until nothing is missing. Without progress for :data:`_PATIENCE` seconds, continue without it."""
        begin, last, failures, why = self._clock.seconds(), found.last, 0, "the stream does not hold it"
        while self._channels.get(found.name) is found:
            tip = found.stream.tip
            try:
                if await self._try(found):
                    found.checked, found.looked = max(found.checked, tip), self._clock.seconds()
                    return
            except HistoryUnavailable as error:
                why = error.reason
                if found.held is None and not found.reset:
                    return  # it is checked again when the store works
                found.tell()
                if found.last < 0:
                    self._pass_held(found)
                    return
            if found.last != last:
                begin, last, failures = self._clock.seconds(), found.last, 0
                continue
            if self._clock.seconds() - begin > _PATIENCE:
                self._give_up(found, why)
                return
            await asyncio.sleep(_WAITS[min(failures, len(_WAITS) - 1)])
            failures += 1

    async def _try(self, found: Sequence) -> bool:
        """Read and deliver some missing publications; return whether no more are missing."""
        if found.doubted:
            await found.stream.look()
            found.doubted = False
        if found.last >= 0 and not found.reset:
            return await self._read(found)
        if not found.waiters and not found.reset:
            return True  # it begins with the next publication
        await self._begin(found)
        return self._merge(found)

    async def _begin(self, found: Sequence) -> None:
        """Find the newest offset of a channel of which no offset in this stream is known."""
        stream = found.stream
        if found.reset or not stream.ready:
            await stream.look()
        epoch, tip = stream.epoch, stream.tip
        offset = await self._reader.last_offset(stream, stream.subject_of(found.name))
        if stream.epoch != epoch:
            raise HistoryUnavailable("the history was reset")
        if not found.reset and found.last >= 0:
            return  # a publication has arrived in the meantime
        found.last, found.top, found.stamp = offset or tip, offset, ""
        if found.reset:
            found.reset = False
            self._miss(found, found.last)

    async def _read(self, found: Sequence) -> bool:
        """Read and deliver one page; return whether no more are missing."""
        stream, asked = found.stream, found.last
        if found.held is None:
            got = await self._reader.behind(stream, stream.subject_of(found.name), asked + 1, 1, 1)
            if not got.found and not found.reset:
                return found.held is None
        page = await self._reader.read(stream, found.name, asked, _PAGE, _PAGE_SIZE)
        if found.reset or self._channels.get(found.name) is not found:
            return False
        bound = stream.retention.recovery
        if not page.reaches or (bound and page.total > bound):
            if found.last != asked:
                return False  # others have arrived in the meantime
            _log.warn(
                "publications to {channel} are missing, and the history does not reach back far enough",
                channel=found.name,
            )
            found.last = max(page.tip, 0)
            self._miss(found, found.last)
        else:
            newer = [(each.payload, each.binary) for each in page.messages if each.offset > found.last]
            if newer:
                found.last, found.stamp = page.messages[-1].offset, ""
                self._pass_on(found, newer)
            if page.more:
                return False
            found.last = max(found.last, page.tip)
        found.top = max(found.top, min(found.last, page.tip))
        return self._merge(found)

    def _merge(self, found: Sequence) -> bool:
        """Deliver the publications that were held back, up to a gap; return whether there is none."""
        held, passed = self._let_go(found), []
        for number, (offset, after, payload, binary) in enumerate(held):
            if after <= found.last < offset:
                found.last, found.stamp = offset, ""
                passed.append((mark(payload, offset, after, found.name), binary))
            elif offset > found.last:
                found.held = held[number:]
                found.held_size = sum(len(each.payload) for each in found.held)
                self._held_size += found.held_size
                break
        self._pass_on(found, passed)
        overflown = found.overflown and found.held is None
        found.overflown = found.overflown and not overflown
        return found.held is None and not overflown

    def _pass_on(self, found: Sequence, publications: list[tuple[bytes, bool]]) -> None:
        """Deliver publications. Consecutive ones of one kind, text or binary, are delivered together."""
        self._parts.begin()
        for binary, several in groupby(publications, key=itemgetter(1)):
            self._parts.deliver(found.name, [payload for payload, _ in several], binary)
        self._parts.end()

    def restart(self, stream: Stream) -> None:
        """The offsets of *stream* start again: read the end of each channel, and tell subscribers the new positions."""
        self.seen.pop(stream.name, None)
        for found in self._channels.values():
            if found.stream is stream:
                self._let_go(found)
                found.held, found.reset, found.overflown = [], True, False
                self.queue(found)

    def _give_up(self, found: Sequence, why: str) -> None:
        """Continue without the missing publications."""
        _log.error("publications to {channel} may be missing: {why}", channel=found.name, why=why)
        held = found.held
        if found.reset:
            found.last = -1
        elif held:
            self._miss(found, held[0].after)
        self._pass_held(found)

    def _pass_held(self, found: Sequence) -> None:
        passed: list[tuple[bytes, bool]] = []
        for offset, after, payload, binary in self._let_go(found):
            if offset > found.last:
                found.last, found.stamp = offset, ""
                passed.append((mark(payload, offset, after, found.name), binary))
        found.overflown = False
        self._pass_on(found, passed)

    def _miss(self, found: Sequence, offset: int) -> None:
        try:
            self._missed(found.name, format_position(found.stream.epoch, offset))
        except Exception:
            _log.failure("telling subscribers of missing messages failed")


def _saw(seen: dict[str, int], stream: Stream, offset: int) -> None:
    if offset > seen.get(stream.name, 0):
        seen[stream.name] = offset
