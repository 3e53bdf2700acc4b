"""lhttp_tx.rules.patterns; which rule holds is in test_rules.py."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.rules.patterns import PatternIndex, check_pattern, covers, split_pattern


@pytest.mark.parametrize("pattern", ["a", "a.*", "*", ">", "*.>", "user.{user}.>", "é.$x"])
def test_a_pattern_is_taken(pattern: str) -> None:
    check_pattern(pattern)


def test_a_user_is_any_token() -> None:
    assert split_pattern("a.{user}.>") == ["a", "*", ">"]
    assert PatternIndex([split_pattern("a.{user}")]).matching(["a", "jack"]) == 1


def overlap(one: list[str], other: list[str]) -> bool:
    """Say in other words than the module whether there is a channel that the tokens of both match."""
    for mine, theirs in zip(one, other, strict=False):
        if ">" in (mine, theirs):
            return True
        if mine != theirs and "*" not in (mine, theirs):
            return False
    return len(one) == len(other)


tokens = st.lists(st.sampled_from(["a", "b", "*"]), max_size=4)
patterns = st.builds(lambda start, end: [*start, *end] or [">"], tokens, st.sampled_from([[], [">"]]))


def bits(found: list[bool]) -> int:
    return sum(1 << number for number, each in enumerate(found) if each)


@given(st.lists(patterns, max_size=6), patterns)
def test_an_index_tells_which_patterns_overlap_and_cover(found: list[list[str]], wanted: list[str]) -> None:
    index = PatternIndex(found)
    assert index.overlapping(wanted) == bits([overlap(each, wanted) for each in found])
    assert index.covering(wanted) == bits([covers(each, wanted) for each in found])
    if not {"*", ">"} & set(wanted):
        assert index.matching(wanted) == bits([covers(each, wanted) for each in found])


def test_what_covers_another_overlaps_with_it() -> None:
    patterns = [text.split(".") for text in ["a", "a.b", "a.*", "*.b", "*", ">", "a.>", "*.*", "*.>", "a.b.>"]]
    for one in patterns:
        for other in patterns:
            assert overlap(one, other) == overlap(other, one)
            assert overlap(one, other) or not covers(one, other)
            assert not (covers(one, other) and covers(other, one)) or one == other
