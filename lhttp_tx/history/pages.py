"""
Pages of histories for subscribers that recover. Subscribers that ask for the same page share it.

Many clients that lost their connections at the same time come back with the same position. The store is asked once for
all of them, and each encoding is made once.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterator
from functools import partial
from itertools import accumulate, groupby, repeat
from operator import attrgetter
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.history.turns import PORTION, Turns, cost_of
from lhttp_tx.history.values import Page, Retention, Stored
from lhttp_tx.interfaces import IHistoryStore

__all__ = ["PAGE_SIZE", "PAYLOAD", "READ_SHARE", "Pages", "SharedPage", "checked", "deliveries", "portions", "size_of"]

PAGE_SIZE = 131_072
"""Bytes after which no message is added to a page."""

PAYLOAD = attrgetter("payload")
"""Returns the payload of a message of a page; pages may be long."""

_PAGE_LENGTH = 2_000
"""The most messages of a page."""

_KEPT_SIZE = 8_388_608
"""The most bytes of the pages that are kept for others, with all that belongs to them."""

_PAGE_COST = 900
_DELIVERY_COST = 300
_MESSAGE_COST = 160
"""
Bytes that a page, each delivery of it and each message take beside the messages, which are there twice: as they are and
encoded. Measured, and rounded up. Further encodings count when they are made.
"""

READ_SHARE = 4
"""Reading so many messages counts as handing over one."""

_KEPT_TIME = 1.0
"""How long they are kept, in seconds, at most."""

_JOINED_TIME = 5.0
"""How long others may join a reading, in seconds. Later ones ask the store again, which may have lost the question."""


class SharedPage(NamedTuple):
    """
    A page, and its deliveries to subscribers.

    :ivar page: the page.
    :ivar deliveries: its messages, in order.
    :ivar number: the number of its reading, from 1 on, in the order in which readings began.
    """

    page: Page
    deliveries: list[Delivery]
    number: int


class _Reading:
    """
    A reading that is under way.

    :ivar waiters: those who wait for the page, in order.
    :ivar since: when it began.
    :ivar number: its number.
    """

    __slots__ = ("number", "since", "waiters")

    def __init__(self, since: float, number: int) -> None:
        self.waiters: dict[Deferred[SharedPage], None] = {}
        self.since = since
        self.number = number

    def wait(self) -> Deferred[SharedPage]:
        """Return a Deferred of the page. Who cancels it does not take the page away from the others."""
        waiter: Deferred[SharedPage] = Deferred(self.waiters.pop)
        self.waiters[waiter] = None
        return waiter


class Pages:
    """
    Reads pages, and keeps them for a moment.

    :ivar reads: how many readings have begun.
    """

    def __init__(self, store: IHistoryStore, clock: IReactorTime, turns: Turns) -> None:
        """
        :param store: where to read.
        :param clock: the reactor.
        :param turns: counts what was read.
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
        Return the messages of *channel* behind the offset *after*.

        :returns: the page, or a Deferred of it that fails with :exc:`lhttp_tx.errors.HistoryUnavailable`. It may
            lack what was published after its reading began.
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
        found.addBoth(self._have_read, key, reading)  # one callback: many channels may catch up at once
        return waiter

    def _share(self, key: tuple[str, Retention, int], page: Page, number: int) -> SharedPage:
        shared = SharedPage(page, deliveries(key[0], page.messages), number)
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
            if self._timer is None:
                self._timer = self._clock.callLater(_KEPT_TIME, self.forget)
        return shared

    def forget(self) -> None:
        """Keep no page any longer."""
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
        Count an encoding of a page that is kept. If there is too much, keep no page.

        :param generation: the number of times that pages were dropped when the page was read.
        :param made: the encoding.
        """
        if generation == self._generation:
            self._kept_size += _bytes_of(made)
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
        """Yield those who still wait for a reading that has ended."""
        if self._reading.get(key) is reading:
            del self._reading[key]
        for waiter in tuple(reading.waiters):
            if waiter in reading.waiters:
                del reading.waiters[waiter]
                yield waiter


def checked(found: Page | Deferred[Page]) -> Page | Deferred[Page]:
    """
    Return what a store has answered, or fail it.

    :raises TypeError: if it is neither a page nor a Deferred. A Deferred of anything else fails with it.
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
    Return the bytes that a page takes while it is kept.

    :param size: bytes of its messages.
    """
    pieces = _DELIVERY_COST * len(shared.deliveries) + _MESSAGE_COST * len(shared.page.messages)
    return _PAGE_COST + pieces + 2 * size


def _bytes_of(made: object) -> int:
    """Return the bytes of memory of an encoding: bytes, or a list or a tuple of such."""
    inner = sum(map(_bytes_of, made)) if isinstance(made, list | tuple) else 0
    return sys.getsizeof(made) + inner


def deliveries(channel: str, messages: list[Stored]) -> list[Delivery]:
    """Return the deliveries of *messages* for a subscriber of *channel*, in order, none larger than a portion."""
    return [
        Delivery(channel, [*map(PAYLOAD, run)], binary)
        for some in portions(messages)
        for binary, run in groupby(some, attrgetter("binary"))
    ]


def size_of(page: Page) -> int:
    """Return the bytes of the messages of a page."""
    return sum(map(len, map(PAYLOAD, page.messages)))


def portions(messages: list[Stored]) -> Iterator[list[Stored]]:
    """Return *messages* in portions of :data:`~lhttp_tx.history.turns.PORTION`, as turns count, in their order."""
    costs = [*accumulate(map(cost_of, map(len, map(PAYLOAD, messages)), repeat(1)))]
    begin = 0
    while begin < len(messages):
        before = costs[begin - 1] if begin else 0
        end = bisect_left(costs, before + PORTION) + 1
        yield messages[begin:end]
        begin = end
