"""Turns: what reading histories costs in one turn of the reactor has a bound."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx.history.turns import Turns


def test_who_finds_no_room_waits_in_line() -> None:
    clock = Clock()
    turns = Turns(clock)
    got: list[int] = []
    waiting: list[Deferred[None]] = []

    def read(number: int) -> None:
        got.append(number)
        turns.spend(100_000, 0)

    for number in range(6):
        found = turns.wait()
        if found is None:
            read(number)
        else:
            waiting.append(found.addCallback(lambda _, number=number: read(number)))
    assert got == [0, 1]
    waiting[1].addErrback(lambda _: None).cancel()
    turns.begin()
    assert got == [0, 1, 2, 4]
    turns.begin()
    assert got == [0, 1, 2, 4, 5]
    assert turns.wait() is None
    clock.advance(0)
    assert clock.getDelayedCalls() == []


def test_who_comes_later_does_not_go_first() -> None:
    clock = Clock()
    turns = Turns(clock)
    turns.spend(1_000_000, 0)
    first = turns.wait()
    assert first is not None
    second = first.addCallback(lambda _: turns.wait())
    clock.advance(0)
    assert second.called
    assert turns.wait() is None


def test_many_small_messages_count() -> None:
    turns = Turns(Clock())
    turns.spend(0, 10_000)
    assert turns.wait() is not None
