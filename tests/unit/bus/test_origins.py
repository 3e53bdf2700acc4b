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
