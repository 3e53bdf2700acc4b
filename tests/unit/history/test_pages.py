"""Pages of histories that several subscribers share."""

from __future__ import annotations

import tracemalloc
from typing import Any

from twisted.internet.task import Clock

from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.pages import Pages, SharedPage
from lhttp_tx.history.turns import Turns
from lhttp_tx.history.values import Retention
from lhttp_tx.transports.websocket.frames import PLAIN

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


def test_who_asks_for_the_same_shares_it() -> None:
    clock = Clock()
    store: Any = MemoryHistory(clock)
    store.start()
    store.append("room", KEPT, [b"LHTTP/1.0 chat\r\n\r\n" + b"x" * 50_000] * 3, False)
    pages = Pages(store, clock, Turns(clock))
    assert pages.read("room", KEPT, 0) is pages.read("room", KEPT, 0)
    store.stop()
