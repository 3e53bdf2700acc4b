"""Which link a publication comes from, and whether its node has given that link up."""

from __future__ import annotations

import re

import pytest

from lhttp_tx.bus.nats.origins import MAX_NODES, Origins


def late(origins: Origins, mark: bytes) -> bool:
    origin = origins.find(mark)
    assert origin is not None
    return origin.late


def test_what_a_link_brings_that_its_node_has_given_up_is_late() -> None:
    here, there = Origins(), Origins()
    old, new = there.begin(), there.begin()
    first = here.find(old)
    assert first is not None and not first.late
    assert not late(here, new)
    assert first.late and late(here, old)
    assert not late(here, new)


def test_links_of_other_nodes_do_not_matter() -> None:
    here, one, two = Origins(), Origins(), Origins()
    mark = one.begin()
    two.begin()
    assert not late(here, mark)
    assert not late(here, two.begin())
    assert not late(here, mark)


def test_what_a_node_has_published_itself_is_always_late() -> None:
    here = Origins()
    assert late(here, here.begin()) and late(here, here.begin())


def test_the_first_link_that_is_seen_may_be_any() -> None:
    here, there = Origins(), Origins()
    there.begin()
    assert not late(here, there.begin())


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"_INBOX.abc.1",
        b"_L",
        b"_L.",
        b"_L.abc",
        b"_L.abc.",
        b"_L.abc.x",
        b"x._L.a.-1",
        b"_INBOX.x_L.abc.1",
        b"_L.abc." + b"1" * 5000,
    ],
)
def test_what_no_node_has_marked_comes_from_nobody(reply: bytes) -> None:
    assert Origins().find(reply) is None


def test_a_mark_may_have_something_before_and_behind_it() -> None:
    """A NATS gateway writes before it where answers are to go; a later version may write something behind it."""
    here, there = Origins(), Origins()
    old, new = there.begin(), there.begin()
    assert not late(here, b"_GR_.abc.def." + new + b".x")
    assert late(here, old)


def test_marks_are_short_and_subjects_of_nats() -> None:
    origins = Origins()
    marks = [origins.begin() for _ in range(100)]
    assert all(re.fullmatch(rb"_L\.[\w-]{8}\.\d+", mark) for mark in marks)
    assert len({origin.node for origin in [Origins() for _ in range(1_000)]}) == 1_000


def test_nodes_that_are_remembered_are_bounded() -> None:
    here = Origins()
    for _ in range(MAX_NODES + 10):
        assert not late(here, Origins().begin())
    assert len(here._newest) == MAX_NODES


class Both:
    """Two nodes with clocks of their own, of which one takes what the other sends."""

    def __init__(self) -> None:
        self.time = 0.0
        self.olds = 0
        self.sender = Origins(4.0, lambda: self.time + 5_000.0)
        self.receiver = Origins(4.0, lambda: self.time)
        self.receiver.on_old = self._old
        self.mark = self.sender.begin()

    def _old(self) -> None:
        self.olds += 1

    def send(self) -> bytes:
        dates = self.sender.dates(self.mark)
        assert dates is not None
        return dates.mark()

    def takes(self, mark: bytes) -> bool:
        origin = self.receiver.find(mark)
        assert origin is not None
        return not origin.late and not origin.is_old()


@pytest.mark.parametrize(("delay", "taken"), [(0.1, True), (3.9, True), (5.2, False), (60.0, False)])
def test_what_takes_much_longer_than_the_quickest_message_is_too_old(delay: float, taken: bool) -> None:
    both = Both()
    mark = both.send()
    both.time += 0.1
    assert both.takes(mark)
    mark = both.send()
    both.time += 0.1 + delay
    assert [both.takes(mark), both.takes(mark)] == [taken] * 2
    assert both.olds == (0 if taken else 2)
    assert both.takes(both.send())


def test_a_date_that_is_used_for_too_long_becomes_too_old() -> None:
    both = Both()
    mark = both.send()
    assert both.takes(mark)
    both.time += 4.5
    assert both.takes(mark)
    both.time += 1.0
    assert not both.takes(mark)


def test_a_clock_that_has_stood_still_is_known_again_after_a_minute_or_two() -> None:
    both = Both()
    assert both.takes(both.send())
    taken = []
    for _ in range(140):
        both.time += 1.0
        both.time -= 100.0
        mark = both.send()
        both.time += 100.0
        taken.append(both.takes(mark))
    assert not taken[0] and taken[-1]
    assert taken == sorted(taken)


def test_a_date_of_a_link_that_its_node_has_given_up_is_late() -> None:
    both = Both()
    mark = both.send()
    assert both.takes(mark)
    both.mark = both.sender.begin()
    assert both.takes(both.send())
    assert not both.takes(mark)
    assert both.olds == 0


def test_dates_do_not_matter_where_nobody_bounds_them() -> None:
    both = Both()
    plain = Origins()
    marks = [both.send()]
    both.time += 1_000.0
    marks.append(both.send())
    first, second = (plain.find(mark) for mark in marks)
    assert first is second
    assert first is not None and first.owner is None


def test_dates_are_remembered_within_bounds() -> None:
    both = Both()
    for _ in range(1_000):
        both.time += 1.0
        assert both.takes(both.send())
    origin = both.receiver.find(both.mark)
    assert origin is not None and len(origin.dated) <= 16


def test_a_link_uses_a_date_for_a_while() -> None:
    both = Both()
    dates = both.sender.dates(both.mark)
    assert dates is not None
    marks = []
    for _ in range(9):
        marks.append(dates.mark())
        both.time += 0.25
    assert [marks.count(mark) for mark in dict.fromkeys(marks)] == [4, 4, 1]
    assert Origins().dates(both.mark) is None
