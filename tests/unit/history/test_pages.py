"""Pages of histories that several subscribers share."""

from __future__ import annotations

import random
import sys
import tracemalloc
from base64 import b64encode
from typing import Any

import pytest
from twisted.internet.task import Clock

from lhttp_tx.codec.views import JSON, PROTOBUF
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.pages import Pages, SharedPage, _bytes_of, deliveries
from lhttp_tx.history.turns import PORTION, Turns, cost_of, rework_of
from lhttp_tx.history.values import Retention, Stored
from lhttp_tx.transports.http.entries import FORMS
from lhttp_tx.transports.websocket.coded import CodedFraming
from lhttp_tx.transports.websocket.compression import Deflate, Gzip
from lhttp_tx.transports.websocket.frames import PLAIN
from lhttp_tx.web.events.encoding import Several, view_json

KEPT = Retention()


def test_very_many_small_pages_take_no_more_than_few_large_ones() -> None:
    clock = Clock()
    store: Any = MemoryHistory(clock)
    store.start()
    store.append("other", KEPT, [b"LHTTP/1.0 chat\r\n\r\n"] * 20_000, False)
    store.append("room", KEPT, [b"LHTTP/1.0 chat\r\n\r\n"], False)
    pages = Pages(store, clock, Turns(clock))
    tracemalloc.start()
    try:
        for after in range(20_000):  # each is a position of its own, behind which there is the one message
            shared = pages.read("room", KEPT, after)
            assert isinstance(shared, SharedPage)
            for delivery in shared.deliveries:
                delivery.encoded(PLAIN)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 9 * 2**20
    store.stop()


def test_deliveries_that_are_converted_are_smaller_and_their_memory_counts() -> None:
    clock = Clock()
    store: Any = MemoryHistory(clock)
    store.start()
    small = b"LHTTP/1.0 chat\r\npublish:room\r\n\r\nhello"
    large = b"LHTTP/1.0 chat\r\n" + b"a:b\r\n" * 60 + b"\r\nhello"
    store.append("room", KEPT, [small] * 300 + [large] * 100, False)
    pages = Pages(store, clock, Turns(clock))
    shared = pages.read("room", KEPT, 0)
    assert isinstance(shared, SharedPage)
    whole = shared.deliveries_for(costly=False)
    before = pages._kept_size
    parts = shared.deliveries_for(costly=True)
    assert shared.deliveries_for(costly=True) is parts
    assert [payload for part in parts for payload in part.payloads] == [
        payload for part in whole for payload in part.payloads
    ]
    for part in parts:
        cost = cost_of(sum(map(len, part.payloads)), len(part)) + sum(rework_of(part.payloads))
        assert cost <= PORTION + cost_of(len(part.payloads[-1]), 1) + rework_of(part.payloads[-1:])[0]
    assert len(parts) > 20 > len(whole)
    added = pages._kept_size - before
    assert added >= 100 * len(parts)
    parts[0].encoded(CodedFraming(JSON, PLAIN))
    assert pages._kept_size > before + added
    store.stop()


ENCODINGS: list[Any] = [PLAIN, Gzip(), *map(Deflate, (9, 12, 15))]
ENCODINGS += [CodedFraming(view, frames) for view in (JSON, PROTOBUF) for frames in ENCODINGS[:2]]
ENCODINGS += [*FORMS.values(), Several(view_json)]


def test_pages_in_all_encodings_take_no_more_than_in_one() -> None:
    clock = Clock()
    store: Any = MemoryHistory(clock)
    store.start()
    payloads = [b"LHTTP/1.0 chat\r\npublish:room\r\n\r\n" + b64encode(random.randbytes(900)) for _ in range(2_000)]
    store.append("room", KEPT, payloads, False)
    pages = Pages(store, clock, Turns(clock))
    largest = 0
    tracemalloc.start()
    try:
        for after in range(0, 1_900, 50):
            shared = pages.read("room", KEPT, after)
            assert isinstance(shared, SharedPage)
            for delivery in shared.deliveries:
                for encoding in ENCODINGS:
                    made = delivery.encoded(encoding)
                    assert delivery.encoded(encoding) is made
            del shared, delivery, made
            largest = max(largest, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert 4 * 2**20 < largest < 10 * 2**20
    clock.advance(2.0)
    assert (pages._kept, pages._kept_size) == ({}, 0)
    store.stop()


def test_encodings_of_pages_that_are_kept_no_more_do_not_count() -> None:
    clock = Clock()
    store: Any = MemoryHistory(clock)
    store.start()
    store.append("room", KEPT, [b"LHTTP/1.0 chat\r\n\r\n" + b"x" * 50_000] * 3, False)
    pages = Pages(store, clock, Turns(clock))
    shared: Any = pages.read("room", KEPT, 0)
    clock.advance(2.0)
    kept: Any = pages.read("room", KEPT, 1)
    before = pages._kept_size
    for delivery in shared.deliveries:
        delivery.encoded(ENCODINGS[-1])
        delivery.encoded(ENCODINGS[0])
    assert pages._kept_size == before
    for delivery in kept.deliveries:
        delivery.encoded(PLAIN)
    assert pages._kept_size == before  # the first one is counted already
    for delivery in kept.deliveries:
        delivery.encoded(ENCODINGS[-1])
    assert before + 100_000 < pages._kept_size < before + 110_000
    store.stop()


def test_the_bytes_of_very_many_frames_are_counted_in_a_few_calls() -> None:
    """The cost fuzzer found what counted each of them in Python."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event == "call"

    frames = [b"x" * 20] * 10_000
    sys.setprofile(note)
    try:
        size = _bytes_of((frames, (b"head",)))
    finally:
        sys.setprofile(None)
    assert count < 10
    assert size > 10_000 * sys.getsizeof(frames[0])


def test_who_asks_for_the_same_shares_it() -> None:
    clock = Clock()
    store: Any = MemoryHistory(clock)
    store.start()
    store.append("room", KEPT, [b"LHTTP/1.0 chat\r\n\r\n" + b"x" * 50_000] * 3, False)
    pages = Pages(store, clock, Turns(clock))
    assert pages.read("room", KEPT, 0) is pages.read("room", KEPT, 0)
    store.stop()


@pytest.mark.parametrize(
    "sizes",
    [
        [50] * 3_000,
        [5_000] * 100,
        [10, 60_000] * 20,
        [10] * 2_000 + [60_000] * 3,
        [200_000],
        [200_000, 1, 1, 200_000],
        [],
    ],
)
@pytest.mark.parametrize("kinds", [1, 2])
def test_messages_are_handed_over_in_portions_in_their_order(sizes: list[int], kinds: int) -> None:
    messages = [Stored(number, b"%06d" % number + b"x" * size, number % kinds > 0) for number, size in enumerate(sizes)]
    found = deliveries("room", messages)
    assert [payload for delivery in found for payload in delivery.payloads] == [stored.payload for stored in messages]
    assert [delivery.binary for delivery in found for _ in delivery.payloads] == [stored.binary for stored in messages]
    largest = max((len(stored.payload) for stored in messages), default=0)
    for delivery in found:
        cost = cost_of(sum(map(len, delivery.payloads)), len(delivery))
        assert cost <= PORTION + largest + 256
    if kinds == 1:  # nor are they cut smaller than need be
        whole = cost_of(sum(len(stored.payload) for stored in messages), len(messages))
        assert len(found) <= 2 * whole // PORTION + 1
