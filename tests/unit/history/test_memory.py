"""The store in memory: the contract, and what is its own."""

from __future__ import annotations

from typing import Any

from line_counter import count_lines
from twisted.internet.task import Clock

from lhttp_tx.codec.positions import offsets_of
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.values import Retention
from lhttp_tx.testing import HistoryContract, Server

PLAIN = Retention("plain")


class TestMemoryHistory(HistoryContract):
    clock = Clock()

    def make_store(self) -> Any:
        return MemoryHistory(self.clock, window=self.window)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


def payload(size: int) -> bytes:
    return b"LHTTP/1.0 chat\r\n\r\n" + b"x" * size


def test_the_oldest_messages_of_all_channels_make_room() -> None:
    store = MemoryHistory(Clock(), size=100_000)
    store.start()
    for number in range(1000):
        store.append(f"room.{number % 7}", PLAIN, [payload(1000)], False)
        assert store.size <= 100_000
    totals = [store.read(f"room.{number}", PLAIN, after=0, limit=1, size=1).total for number in range(7)]
    assert sum(totals) > 60 and max(totals) - min(totals) <= 1
    store.stop()


def test_a_page_counts_what_is_behind_it_however_long_the_runs_are() -> None:
    store = MemoryHistory(Clock())
    store.start()
    for number in range(100):
        store.append("a", PLAIN, [b"LHTTP/1.0 a%d\r\n\r\n" % number] * (1 + number % 3), False)
        store.append("b" if number % 2 else "a", PLAIN, [b"LHTTP/1.0 b\r\n\r\n"], bool(number % 5))
    every = store.read("a", PLAIN, after=0, limit=1_000, size=10**6).messages
    offsets = [stored.offset for stored in every]
    assert len(every) == sum(1 + number % 3 for number in range(100)) + 50
    for after in range(every[-1].offset + 1):
        behind = [stored for stored in every if stored.offset > after]
        before = [stored for stored in every if stored.offset < after]
        for limit in (1, 7, 1_000):
            page = store.read("a", PLAIN, after=after, limit=limit, size=10**6)
            assert (page.total, page.messages) == (len(behind), behind[:limit])
            if after:
                page = store.newest("a", PLAIN, before=after, limit=limit, size=10**6)
                assert (page.total, page.messages) == (len(before), before[-limit:])
    assert offsets == sorted(offsets)


def test_channels_that_were_forgotten_are_not_said_to_be_complete() -> None:
    store = MemoryHistory(Clock(), size=20_000)
    store.start()
    store.append("room", PLAIN, [payload(1)], False)
    for number in range(100):
        store.append(f"other.{number}", PLAIN, [payload(1000)], False)
    store.append("room", PLAIN, [payload(1)], False)
    page = store.read("room", PLAIN, after=0, limit=10, size=10_000)
    assert not page.reaches and page.total == 1
    store.stop()


def test_a_forgotten_channel_does_not_say_that_nothing_came_before() -> None:
    store = MemoryHistory(Clock(), size=20_000)
    store.start()
    first, second = (offsets_of(store.append("room", PLAIN, [payload(1)], False)[0])[0] for _ in range(2))
    for number in range(100):
        store.append(f"other.{number}", PLAIN, [payload(1000)], False)
    (marked,) = store.append("room", PLAIN, [payload(1)], False)
    assert offsets_of(marked)[1] >= second > first
    store.stop()


def test_smaller_bounds_hold_for_what_is_there_already() -> None:
    store = MemoryHistory(Clock())
    store.start()
    for _ in range(7):
        store.append("room", PLAIN, [payload(500)], False)
    few = Retention("few", messages=3)
    assert [each.offset for each in store.newest("room", few, before=0, limit=10, size=10_000).messages] == [5, 6, 7]
    page = store.read("room", few, after=3, limit=10, size=10_000)
    assert (page.total, page.reaches) == (3, False)
    small = Retention("small", size=1024)
    assert [each.offset for each in store.read("room", small, after=0, limit=10, size=10_000).messages] == [7]
    store.stop()


MANY = Retention("many", messages=100_000)


def scattered(count: int) -> MemoryHistory:
    """Return a store with *count* messages of ``room``, none of which follows the one before it."""
    store = MemoryHistory(Clock())
    store.start()
    for _ in range(count):
        for channel in ("room", "other"):
            store.append(channel, MANY, [payload(1)], False)
    return store


def test_a_question_costs_no_more_because_much_is_kept() -> None:
    few, many = scattered(100), scattered(10_000)
    for question in (
        lambda store: store.newest("room", MANY, before=0, limit=1, size=1),
        lambda store: store.newest("room", MANY, before=100, limit=1, size=1),
        lambda store: store.read("room", MANY, after=0, limit=1, size=1),
        lambda store: store.read("room", MANY, after=100, limit=1, size=1),
    ):
        cheap, dear = (count_lines(lambda store=store: question(store)) for store in (few, many))  # noqa: B023
        assert dear < cheap + 50
    few.stop()
    many.stop()


def test_what_is_older_than_what_is_too_old_goes_with_it() -> None:
    clock = Clock()
    store = MemoryHistory(clock)
    store.start()
    for number in range(3):
        store.append("room", Retention("long", age=1000.0), [payload(number)], False)
        clock.advance(2.0)
    for number in range(3):
        store.append("room", Retention("short", age=30.0), [payload(number)], False)
        clock.advance(2.0)
    clock.advance(40.0)
    page = store.read("room", Retention("long", age=1000.0), after=0, limit=10, size=10_000)
    assert (page.messages, page.total, page.reaches) == ([], 0, False)
    store.append("room", PLAIN, [payload(1)], False)
    assert store.newest("room", PLAIN, before=0, limit=10, size=10_000).total == 1
    store.stop()


def test_pages_are_let_go_after_a_moment_although_nobody_reads() -> None:
    server = Server(history=["kept"])
    publisher, reader = server.connect(), server.connect()
    for _ in range(20):
        publisher.send(f"LHTTP/1.0 x\r\npublish:kept\r\n\r\n{1000 * 'x'}")
    epoch = server.assembly.histories.store.epoch
    reader.send(f"LHTTP/1.0 x\r\nsubscribe:kept\r\nsince:{epoch}-0\r\n\r\n")
    server.clock.advance(0.5)
    pages = server.assembly.histories._recovery._pages
    assert len(reader.take()) >= 20 and pages._kept
    server.clock.advance(1.0)
    assert (pages._kept, pages._kept_size) == ({}, 0)
    other = server.connect()
    other.send(f"LHTTP/1.0 x\r\nsubscribe:kept\r\nsince:{epoch}-1\r\n\r\n")
    assert pages._kept
    server.assembly.histories.close()
    assert not pages._kept and pages._timer is None
