"""lhttp_tx.testing.history_model: what the contract suite of stores compares a store with."""

from __future__ import annotations

from typing import cast

from twisted.internet.task import Clock

from lhttp_tx.codec.positions import offsets_of
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.values import Page
from lhttp_tx.testing.history_model import RETENTIONS, Model


def test_a_page_of_the_newest_messages_may_end_with_a_large_one() -> None:
    model, store = Model(120.0), MemoryHistory(Clock())
    store.start()
    payloads = [*model.payloads(1, 1500), *model.payloads(1)]
    marked = store.append("room", RETENTIONS[0], payloads, False)
    model.append(0, [offsets_of(payload)[0] for payload in marked], payloads)
    page = cast(Page, store.newest("room", RETENTIONS[0], before=0, limit=2, size=500))
    assert len(page.messages) == 2
    model.check_newest(0, page, 0, 2, 500)
