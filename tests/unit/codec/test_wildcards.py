"""Wildcard subscriptions: what belongs to them, against the plain description."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, strategies as st
from line_counter import count_lines

from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.wildcards import Wildcards, is_wildcard

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
    assert not any((wildcards._edges, wildcards._passing, wildcards._ends, len(wildcards._cache)))


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


class Counted(Wildcards):
    """Counts how often the names are walked through."""

    walks = 0

    def _find(self, channel: str) -> list[str]:
        self.walks += 1
        return super()._find(channel)


def test_what_was_found_is_remembered_until_the_set_changes() -> None:
    wildcards = Counted()
    wildcards.add("a.*")
    assert [wildcards.matching(name) for name in ("a.b", "a.b", "a", "a", "x")] == [["a.*"], ["a.*"], [], [], []]
    assert wildcards.walks == 2  # nothing begins as the last one
    wildcards.add("*.b")
    assert sorted(wildcards.matching("a.b")) == ["*.b", "a.*"]
    wildcards.discard("a.*")
    assert wildcards.matching("a.b") == ["*.b"]
    wildcards.discard("a.*")
    wildcards.matching("a.b")
    assert wildcards.walks == 4


def test_what_a_name_has_in_common_with_the_last_one_is_not_looked_at_again() -> None:
    wildcards = Wildcards()
    for stars in itertools.combinations(range(6), 2):
        wildcards.add(".".join("*" if place in stars else "a" for place in range(6)) + ".x")
    long = ".".join("a" * 6)

    def lines(name: str) -> int:
        return count_lines(lambda: wildcards.matching(name))

    lines(f"{long}.0")
    assert lines(f"{long}.1") < lines("b.a.a.a.a.a.1") / 2
    assert lines(f"{long}.2") > lines(f"{long}.3")
    assert sorted(wildcards.matching(f"{long}.x")) == sorted(wildcards._names)
    assert wildcards.matching(f"{long}.y") == []


def test_what_is_remembered_is_bounded_in_bytes() -> None:
    wildcards = Wildcards(400_000)
    for number in range(100):
        wildcards.add("a." + ".".join("*" if number >> place & 1 else "b" for place in range(7)))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(5_000):
            wildcards.matching(f"a.{'b.' * 6}{number}" + 60 * "\u4e00")
            wildcards.matching(f"a.{'b.' * 6}b{number % 7 or ''}")
        assert len(wildcards._cache) > 100
        assert tracemalloc.get_traced_memory()[0] - before < 500_000
    finally:
        tracemalloc.stop()


def looked_at(wildcards: Wildcards, channel: str) -> int:
    """Return how many beginnings of names are looked at to find what *channel* belongs to."""
    looked = 0

    class Edges(dict[int, int]):
        def get(self, node: int, default: Any = None) -> Any:
            nonlocal looked
            looked += 1
            return super().get(node, default)

    wildcards._edges = {token: Edges(edges) for token, edges in wildcards._edges.items()}
    assert wildcards._find(channel) == []
    return looked


def starred(length: int, stars: tuple[int, ...], tail: str) -> str:
    return ".".join("*" if place in stars else "a" for place in range(length)) + tail


def test_what_it_takes_to_look_a_channel_up_does_not_depend_on_how_many_wildcards_there_are() -> None:
    limits, looks = Limits(), []
    length = limits.wildcard_tokens - 1
    for count in (1, 3_000):
        wildcards = Wildcards()
        for number in range(count):
            for stars in itertools.combinations(range(length), limits.wildcard_count):
                wildcards.add(starred(length, stars, f".x{number}"))
        looks.append(looked_at(wildcards, starred(length, (), ".b")))
    assert looks[0] == looks[1] <= 2 * 128
