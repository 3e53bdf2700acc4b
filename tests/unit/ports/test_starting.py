"""lhttp_tx.ports.starting: a full collection of the garbage of a server that has started is short."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from weakref import ref

import pytest
from twisted.internet.defer import Deferred

from lhttp_tx.errors import StartFailed
from lhttp_tx.ports.starting import freeze_when


class Circle:
    def __init__(self) -> None:
        self.own = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    gc.unfreeze()  # CPython 3.12 has frozen some objects by itself
    yield
    gc.unfreeze()


def test_what_there_is_after_the_start_is_not_looked_at_again() -> None:
    started: Deferred[None] = Deferred()
    freeze_when(started)
    kept, dropped = Circle(), ref(Circle())
    assert gc.get_freeze_count() == 0
    started.callback(None)
    assert dropped() is None  # what is of no use is not kept for ever
    assert gc.get_freeze_count() > 10_000
    later = Circle()
    looked_at = {id(found) for found in gc.get_objects()}
    assert id(later) in looked_at and id(kept) not in looked_at


def test_a_server_that_does_not_start_changes_nothing() -> None:
    started: Deferred[None] = Deferred()
    freeze_when(started)
    started.errback(StartFailed("it does not"))
    assert gc.get_freeze_count() == 0
