"""lhttp_tx.transports.http.backlog: entries with numbers, kept until the client has them."""

from __future__ import annotations

from line_counter import count_lines

from lhttp_tx.errors import Refused
from lhttp_tx.transports.http.backlog import Backlog

ROOM = 64 + 10
"""What an entry of ten bytes counts."""


def entry(number: int) -> bytes:
    return b"%010d" % number


def filled(count: int, limit: int = 100 * ROOM) -> Backlog:
    backlog = Backlog(limit)
    for number in range(1, count + 1):
        assert backlog.add(entry(number), (b"%d" % number, False))
    return backlog


def status(backlog: Backlog, after: int) -> int:
    try:
        backlog.check(after)
    except Refused as refused:
        return refused.status
    return 200


def test_what_is_not_acknowledged_is_handed_out_again() -> None:
    backlog = filled(3)
    assert backlog.take(0, 1_000) == [entry(1), entry(2), entry(3)]
    assert backlog.take(1, 1_000) == [entry(2), entry(3)]
    backlog.acknowledge(2)
    assert backlog.take(2, 1_000) == [entry(3)]
    assert status(backlog, 1) == 410


def test_an_answer_is_bounded_but_has_one_entry_at_least() -> None:
    backlog = filled(3)
    assert backlog.take(0, 20) == [entry(1), entry(2)]
    assert backlog.take(2, 1) == [entry(3)]


def test_what_was_never_handed_out_is_not_acknowledged() -> None:
    backlog = filled(3)
    backlog.take(0, 10)
    backlog.acknowledge(3)
    assert backlog.dropped == 1
    assert status(backlog, 3) == 400
    assert backlog.take(1, 1_000) == [entry(2), entry(3)]


def test_what_was_handed_out_makes_room() -> None:
    backlog = filled(3, limit=3 * ROOM)
    backlog.take(0, 20)
    assert backlog.add(entry(4))
    assert (status(backlog, 0), status(backlog, 1)) == (410, 200)
    assert backlog.take(1, 1_000) == [entry(2), entry(3), entry(4)]


def test_what_was_not_handed_out_is_bounded() -> None:
    backlog = filled(3, limit=3 * ROOM)
    assert not backlog.add(entry(4))
    assert backlog.last == 3
    assert backlog.add(entry(4), force=True)
    assert backlog.take(0, 1_000)[-1] == entry(4)


def test_one_entry_may_be_larger_than_all_together() -> None:
    backlog = Backlog(3 * ROOM)
    assert backlog.add(b"x" * 1_000)
    assert not backlog.add(entry(2))
    assert backlog.take(0, 10) == [b"x" * 1_000]
    assert backlog.add(b"x" * 1_000)
    assert (status(backlog, 0), status(backlog, 1)) == (410, 200)


def test_small_entries_count_too() -> None:
    backlog = Backlog(1_000)
    count = 0
    while backlog.add(b""):
        count += 1
    assert count == 1_000 // 64


def test_giving_up_tells_what_nobody_fetched() -> None:
    backlog = filled(3)
    backlog.take(0, 10)
    assert backlog.give_up() == [(b"2", False), (b"3", False)]
    assert (backlog.last, backlog.unhanded) == (1, 0)
    backlog.add(entry(9))
    assert backlog.take(1, 100) == [entry(9)]


def test_nothing_is_kept_for_good() -> None:
    backlog = Backlog(10 * ROOM)
    for number in range(1, 1_000):
        assert backlog.add(entry(number))
        backlog.take(number - 1, 100)
        assert backlog.last - backlog.dropped <= 10


def test_a_page_of_entries_is_added_as_a_whole_or_not_at_all() -> None:
    backlog = Backlog(1_000)
    assert backlog.add_all([b"a", b"b" * 10])
    assert (backlog.last, backlog.unhanded) == (2, 11 + 2 * 64)
    assert backlog.take(0, 100) == [b"a", b"b" * 10]
    assert backlog.unhanded == 0
    assert not backlog.add_all([b"c"] * 20)
    assert (backlog.last, backlog.unhanded) == (2, 0)
    assert backlog.add_all([b"c"] * 14)
    assert backlog.take(2, 1_000) == [b"c"] * 14
    assert backlog.dropped == 1  # what was handed out goes first where there is no room for all


def test_entries_are_handed_out_up_to_a_size_and_a_number() -> None:
    backlog = Backlog(1_000_000)
    assert backlog.add_all([b"x" * 10] * 3_000)
    assert len(backlog.take(0, 100)) == 10
    assert len(backlog.take(0, 5)) == 1
    assert len(backlog.take(10, 1_000_000)) == 1_000
    assert backlog.unhanded == 74 * (3_000 - 1_010)


def test_what_was_handed_out_in_part_is_given_up_in_part() -> None:
    backlog = Backlog(1_000_000)
    for number in range(5):
        backlog.add(b"%d" % number, (b"m%d" % number, False))
    assert backlog.take(0, 2) == [b"0", b"1"]
    assert backlog.take(1, 2) == [b"1", b"2"]
    assert backlog.give_up() == [(b"m3", False), (b"m4", False)]
    assert (backlog.last, backlog.unhanded) == (3, 0)
    assert backlog.take(0, 100) == [b"0", b"1", b"2"]


def test_many_entries_take_few_steps() -> None:
    """A client gets a thousand messages of a history for a few bytes, and may never fetch them."""
    backlog = Backlog(1_000_000)
    assert count_lines(lambda: backlog.add_all([b"x" * 10] * 3_000)) < 100
    assert count_lines(lambda: backlog.take(0, 100_000)) < 100
    assert count_lines(backlog.give_up) < 2 * 3_000
