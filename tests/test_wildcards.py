"""Wildcard subscriptions: what belongs to them, against the plain description."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.wildcards import Wildcards, is_wildcard

TOKENS = st.sampled_from(["a", "b", "$a", "_b", "*x", "x>"])
CHANNELS = st.lists(TOKENS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.builds(
    lambda tokens, tail: ".".join([*tokens, *tail]),
    st.lists(st.sampled_from(["a", "b", "$a", "*"]), min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
).filter(is_wildcard)


def belongs(channel: str, wildcard: str) -> bool:
    """The description of the protocol document, word by word."""
    if channel[0] in "$_":
        return False
    wanted, tokens = wildcard.split("."), channel.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(tokens) == len(wanted) and all(one in ("*", other) for one, other in zip(wanted, tokens, strict=True))


@given(CHANNELS, st.lists(PATTERNS, max_size=6))
def test_a_channel_belongs_to_what_the_description_says(channel: str, names: list[str]) -> None:
    wildcards = Wildcards()
    for name in names:
        wildcards.add(name)
    assert sorted(wildcards.matching(channel)) == sorted({name for name in names if belongs(channel, name)})
    assert len(wildcards) == len(set(names))


@given(st.lists(PATTERNS, max_size=6), st.lists(PATTERNS, max_size=6))
def test_what_is_taken_away_leaves_nothing(names: list[str], others: list[str]) -> None:
    wildcards = Wildcards()
    for name in names:
        wildcards.add(name)
    for name in [*others, *names, *names]:
        wildcards.discard(name)
    assert len(wildcards) == 0
    assert wildcards._root == {}


def test_everything_but_the_servers_own_belongs_to_all() -> None:
    wildcards = Wildcards()
    wildcards.add(">")
    assert wildcards.matching("a.b.c") == [">"]
    assert wildcards.matching("$nodes") == wildcards.matching("_x") == []


@pytest.mark.parametrize(
    ("name", "expected"), [("*", True), ("a.*.b", True), ("a.>", True), ("a*", False), ("a", False)]
)
def test_a_wildcard_is_a_whole_token(name: str, expected: bool) -> None:
    assert is_wildcard(name) is expected
