"""Turns: what reading histories costs in one turn of the reactor has a bound."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx.history.turns import PORTION, Turns, cost_of, rework_of


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


def test_each_header_of_a_message_that_is_converted_counts() -> None:
    bare, two = b"LHTTP/1.0 x\r\n\r\n", b"LHTTP/1.0 x\r\na:b\r\nc:d\r\n\r\n"
    unfinished = b"LHTTP/1.0 x\r\na:b\r\nc:d\r\n"
    one, three = rework_of([bare])[0], rework_of([two])[0]
    assert three > one + 200
    assert rework_of([unfinished, bare + b"\r\n" * 500, two + b"x" * 9_000]) == [three, one, three]
    assert rework_of([]) == []


class Reader:
    """Who reads."""


def spend_all(clock: Clock, turns: Turns, reader: Reader) -> int:
    """Let *reader* have portions, a turn after the other, until it must wait for its account; returns their bytes."""
    spent = 0
    while turns.wait(reader) is None:
        turns.spend(PORTION, 0, reader)
        spent += PORTION
        clock.advance(0)
        turns.begin()
    return spent


def test_who_has_used_up_its_account_waits_and_others_do_not() -> None:
    clock = Clock()
    turns = Turns(clock)
    greedy, other = Reader(), Reader()
    assert 2_000_000 < spend_all(clock, turns, greedy) < 2_200_000
    waiting = turns.wait(greedy)
    assert waiting is not None
    assert turns.wait(other) is None
    assert turns.wait() is None
    clock.advance(0)
    assert not waiting.called
    clock.pump([0.01] * 10)
    assert waiting.called
    assert turns.wait(greedy) is None


def test_account_gets_eight_mebibytes_a_second() -> None:
    clock = Clock()
    turns = Turns(clock)
    reader = Reader()
    spend_all(clock, turns, reader)
    got = 0

    def portions() -> Iterator[Deferred[None] | None]:
        nonlocal got
        while True:
            yield turns.wait(reader)
            turns.spend(PORTION, 0, reader)
            got += PORTION

    def go_on(_: object) -> None:
        for waiting in steps:
            if waiting is not None:
                waiting.addCallback(go_on)
                return

    steps = portions()
    go_on(None)
    clock.pump([0.001] * 1_000)
    assert 7.5 * 2**20 < got < 8.5 * 2**20


def test_nobody_proceeds_once_the_turns_are_closed() -> None:
    clock = Clock()
    turns = Turns(clock)
    reader = Reader()
    spend_all(clock, turns, reader)
    waiting = turns.wait(reader)
    assert waiting is not None
    turns.close()
    clock.pump([0.1] * 10)
    assert not waiting.called
    assert clock.getDelayedCalls() == []


def test_small_messages_count_more_than_their_bytes() -> None:
    assert cost_of(100, 1) > 3 * 100
