"""
Reads pages of histories for clients that recover. Clients that ask for the same page share it.

If many clients lose their connections at the same time, they come back with the same position. The store reads the page
once for all of them, and each encoding is made once.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, groupby
from operator import add, attrgetter

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.history.turns import MESSAGE_COST, PORTION, Turns, rework_of
from lhttp_tx.history.values import Page, Retention, Stored
from lhttp_tx.interfaces import IHistoryStore

__all__ = ["PAGE_SIZE", "PAYLOAD", "READ_SHARE", "Pages", "SharedPage", "checked", "deliveries", "size_of"]

PAGE_SIZE = 131_072
"""A page that has reached this many bytes gets no further message."""

_SMALL = 1_024
"""The largest cost of a small message, in bytes. Portions of small messages all have the same number of messages."""

_BINARY = attrgetter("binary")
PAYLOAD = attrgetter("payload")
"""Returns the payload of a message of a page, without Python code for each: pages may be long."""

_PAGE_LENGTH = 2_000
"""The most messages of a page."""

_KEPT_SIZE = 8_388_608
"""The most bytes of memory of all pages that are kept for other clients."""

_PAGE_COST = 900
_DELIVERY_COST = 300
_MESSAGE_COST = 160
"""
Bytes of memory of a page, of each of its deliveries, and of each message, in addition to the messages' own bytes. These
count twice, because encoded copies exist. Measured, and rounded up. Further encodings count when they are made.
"""

READ_SHARE = 4
"""Reading this many messages counts as much as delivering one."""

_KEPT_TIME = 1.0
"""The most seconds for which pages are kept."""

_JOINED_TIME = 5.0
"""
Seconds for which others may join a reading. After that, the store is asked again, in case it has lost the request.
"""


class SharedPage:
    """
    A page, and its deliveries to subscribers.

    :ivar page: the page.
    :ivar deliveries: the messages of the page as deliveries, in order.
    :ivar number: the number of its reading. Readings are counted from 1, in the order in which they began.
    :ivar keep: called with deliveries that are made later, if the page is kept.
    """

    __slots__ = ("_channel", "_costly", "deliveries", "keep", "number", "page")

    def __init__(self, channel: str, page: Page, number: int) -> None:
        self.page = page
        self.deliveries = deliveries(channel, page.messages)
        self.number = number
        self.keep: Callable[[list[Delivery]], None] | None = None
        self._channel = channel
        self._costly: list[Delivery] | None = None

    def deliveries_for(self, *, costly: bool) -> list[Delivery]:
        """
        Return the messages of the page as deliveries, in order.

        :param costly: whether they are converted or compressed. Then they are smaller.
        """
        if not costly:
            return self.deliveries
        if self._costly is None:
            self._costly = deliveries(self._channel, self.page.messages, costly=True)
            if self.keep is not None:
                self.keep(self._costly)
        return self._costly


class _Reading:
    """
    A reading that is under way.

    :ivar waiters: the Deferreds that wait for the page, in order.
    :ivar since: the time of the clock at which it began.
    :ivar number: its number.
    """

    __slots__ = ("number", "since", "waiters")

    def __init__(self, since: float, number: int) -> None:
        self.waiters: dict[Deferred[SharedPage], None] = {}
        self.since = since
        self.number = number

    def wait(self) -> Deferred[SharedPage]:
        """Return a Deferred that succeeds with the page. Cancelling it does not affect others that wait."""
        waiter: Deferred[SharedPage] = Deferred(self.waiters.pop)
        self.waiters[waiter] = None
        return waiter


class Pages:
    """
    Reads pages, and keeps them for up to a second.

    :ivar reads: the number of readings that have begun.
    """

    def __init__(self, store: IHistoryStore, clock: IReactorTime, turns: Turns) -> None:
        """
        :param store: the history store.
        :param clock: the reactor.
        :param turns: counts the bytes that were read.
        """
        self._store = store
        self._turns = turns
        self._clock = clock
        self._kept: dict[tuple[str, Retention, int], SharedPage] = {}
        self._kept_size = 0
        self._generation = 0
        self._timer: IDelayedCall | None = None
        self._reading: dict[tuple[str, Retention, int], _Reading] = {}
        self.reads = 0

    def read(self, channel: str, retention: Retention, after: int) -> SharedPage | Deferred[SharedPage]:
        """
        Return a page of messages of *channel* after the offset *after*.

        :returns: the page, or a Deferred that succeeds with it, or fails with
            :exc:`lhttp_tx.errors.HistoryUnavailable`. Messages that were published after the reading began may be
            missing.
        """
        key = channel, retention, after
        now = self._clock.seconds()
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        reading = self._reading.get(key)
        if reading is not None and now - reading.since <= _JOINED_TIME:
            return reading.wait()
        self.reads += 1
        number = self.reads
        found = self._store.read(channel, retention, after=after, limit=_PAGE_LENGTH, size=PAGE_SIZE)
        if not isinstance(found, Deferred):
            return self._share(key, _check_page(found), number)
        self._reading[key] = reading = _Reading(now, number)
        waiter = reading.wait()
        found.addBoth(self._have_read, key, reading)  # a single callback, because many channels may catch up at once
        return waiter

    def _share(self, key: tuple[str, Retention, int], page: Page, number: int) -> SharedPage:
        shared = SharedPage(key[0], page, number)
        size = size_of(page)
        self._turns.spend(0, len(page.messages) // READ_SHARE)
        if page.messages:
            cost = _cost_of(shared, size)
            if self._kept_size + cost > _KEPT_SIZE:
                self._drop()
            self._kept_size += cost
            self._kept[key] = shared
            counts = partial(self._count, self._generation)
            for delivery in shared.deliveries:
                delivery.count(counts)
            shared.keep = partial(self._keep, self._generation)
            if self._timer is None:
                self._timer = self._clock.callLater(_KEPT_TIME, self.forget)
        return shared

    def forget(self) -> None:
        """Drop all pages."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._drop()

    def _drop(self) -> None:
        self._kept.clear()
        self._kept_size = 0
        self._generation += 1

    def _count(self, generation: int, made: object) -> None:
        """
        Count the bytes of an encoding of a kept page. Beyond the limit, drop all pages.

        :param generation: the number of times that pages were dropped when the page was read.
        :param made: the encoding.
        """
        self._add(generation, _bytes_of(made))

    def _keep(self, generation: int, further: list[Delivery]) -> None:
        """Count the bytes of further deliveries of a kept page, and of their encodings; see :meth:`_count`."""
        for delivery in further:
            delivery.count(partial(self._count, generation))
        self._add(generation, _DELIVERY_COST * len(further))

    def _add(self, generation: int, size: int) -> None:
        if generation == self._generation:
            self._kept_size += size
            if self._kept_size > _KEPT_SIZE:
                self._drop()

    def _have_read(self, answer: Page | Failure, key: tuple[str, Retention, int], reading: _Reading) -> None:
        if not isinstance(answer, Failure):
            try:
                shared = self._share(key, _check_page(answer), reading.number)
            except TypeError:
                answer = Failure()
            else:
                for waiter in self._waiters(key, reading):
                    waiter.callback(shared)
                return
        for waiter in self._waiters(key, reading):
            waiter.errback(answer)

    def _waiters(self, key: tuple[str, Retention, int], reading: _Reading) -> Iterator[Deferred[SharedPage]]:
        """Yield the Deferreds that still wait for a reading that has ended."""
        if self._reading.get(key) is reading:
            del self._reading[key]
        for waiter in tuple(reading.waiters):
            if waiter in reading.waiters:
                del reading.waiters[waiter]
                yield waiter


def checked(found: Page | Deferred[Page]) -> Page | Deferred[Page]:
    """
    Check what a store has returned, and return it.

    :raises TypeError: if it is neither a page nor a Deferred. If a Deferred succeeds with anything but a page, it fails
        with this error.
    """
    if isinstance(found, Deferred):
        return found.addCallback(_check_page)
    return _check_page(found)


def _check_page(found: object) -> Page:
    if not isinstance(found, Page):
        raise TypeError(f"a history store has returned {found!r}, which is no lhttp_tx.history.values.Page")
    return found


def _cost_of(shared: SharedPage, size: int) -> int:
    """
    Return the bytes of memory of a page that is kept.

    :param size: the bytes of its messages.
    """
    pieces = _DELIVERY_COST * len(shared.deliveries) + _MESSAGE_COST * len(shared.page.messages)
    return _PAGE_COST + pieces + 2 * size


def _bytes_of(made: object) -> int:
    """Return the bytes of memory of an encoding: bytes, or a list or a tuple of such."""
    if not isinstance(made, list | tuple):
        return sys.getsizeof(made)
    flat = {list, tuple}.isdisjoint(map(type, made))  # the usual case, and cheap for thousands of messages
    return sys.getsizeof(made) + sum(map(sys.getsizeof if flat else _bytes_of, made))


def deliveries(channel: str, messages: list[Stored], *, costly: bool = False) -> list[Delivery]:
    """
    Return the deliveries of *messages* for a subscriber of *channel*, in order. Each costs about
    :data:`~lhttp_tx.history.turns.PORTION` at most, or has one message.

    :param costly: whether the messages are converted or compressed; see :func:`~lhttp_tx.history.turns.rework_of`.
    """
    portions = _costly_portions if costly else _portions
    if len({*map(_BINARY, messages)}) < 2:  # the usual case
        return portions(channel, [*map(PAYLOAD, messages)], messages[0].binary) if messages else []
    found: list[Delivery] = []
    for binary, run in groupby(messages, _BINARY):
        found += portions(channel, [*map(PAYLOAD, run)], binary)
    return found


def _costly_portions(channel: str, payloads: list[bytes], binary: bool) -> list[Delivery]:
    costs = map(MESSAGE_COST.__add__, map(add, map(len, payloads), rework_of(payloads)))
    return _cut(channel, payloads, binary, [*accumulate(costs)])


def _portions(channel: str, payloads: list[bytes], binary: bool) -> list[Delivery]:
    count = len(payloads)
    most = max(map(len, payloads)) + MESSAGE_COST
    if most * count <= PORTION:
        return [Delivery(channel, payloads, binary)]
    if most <= _SMALL:
        step = PORTION // most
        return [Delivery(channel, payloads[begin : begin + step], binary) for begin in range(0, count, step)]
    return _cut(channel, payloads, binary, [*accumulate(map(MESSAGE_COST.__add__, map(len, payloads)))])


def _cut(channel: str, payloads: list[bytes], binary: bool, costs: list[int]) -> list[Delivery]:
    """Return deliveries. *costs* has the cost of the messages up to each one."""
    found: list[Delivery] = []
    begin, count = 0, len(payloads)
    while begin < count:
        end = bisect_left(costs, (costs[begin - 1] if begin else 0) + PORTION) + 1
        found.append(Delivery(channel, payloads[begin:end], binary))
        begin = end
    return found


def size_of(page: Page) -> int:
    """Return the bytes of the messages of a page."""
    return sum(map(len, map(PAYLOAD, page.messages)))
