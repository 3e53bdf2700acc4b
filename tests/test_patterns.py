"""lhttp_tx.patterns; which rule holds is in test_rules.py."""

from __future__ import annotations

import pytest

from lhttp_tx.patterns import check_pattern, compile_pattern, covers, overlap, split_pattern


@pytest.mark.parametrize("pattern", ["a", "a.*", "*", ">", "*.>", "user.{user}.>", "é.$x"])
def test_a_pattern_is_taken(pattern: str) -> None:
    check_pattern(pattern)


def test_a_user_is_any_token() -> None:
    assert split_pattern("a.{user}.>") == ["a", "*", ">"]
    assert compile_pattern("a.{user}").fullmatch("a.jack")


def test_what_covers_another_overlaps_with_it() -> None:
    patterns = [text.split(".") for text in ["a", "a.b", "a.*", "*.b", "*", ">", "a.>", "*.*", "*.>", "a.b.>"]]
    for one in patterns:
        for other in patterns:
            assert overlap(one, other) == overlap(other, one)
            assert overlap(one, other) or not covers(one, other)
            assert not (covers(one, other) and covers(other, one)) or one == other
