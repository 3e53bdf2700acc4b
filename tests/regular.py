"""
A matcher that goes back as those of Python and of browsers do, and counts its steps; and texts that make it go back.

For ``test_regular.py``: what a regular expression costs is counted, and not timed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from re import _constants as op, _parser as parser  # type: ignore[attr-defined]
from typing import Any, TypeAlias

__all__ = ["Counter", "TooMany", "attacks"]

Next: TypeAlias = Callable[[int], int]
"""Goes on at a position; returns where the match ends, or -1."""

_CATEGORIES = {
    op.CATEGORY_SPACE: str.isspace,
    op.CATEGORY_NOT_SPACE: lambda char: not char.isspace(),
    op.CATEGORY_DIGIT: str.isdecimal,
    op.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
}
_SINGLE = (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN)
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)


class TooMany(Exception):
    """A match has taken more steps than allowed."""


class Counter:
    """A regular expression, and how many characters it has looked at."""

    def __init__(self, pattern: str | bytes, flags: int = 0) -> None:
        """:param flags: those of :mod:`re`."""
        self.tree = parser.parse(pattern, flags & ~re.UNICODE & ~re.DEBUG)
        self._ignores_case = bool(self.tree.state.flags & re.IGNORECASE)
        self._dot_takes_all = bool(self.tree.state.flags & re.DOTALL)
        self._text = ""
        self._limit = 0
        self.steps = 0

    def search_all(self, text: str, limit: int) -> int:
        """Return the steps of finding all matches in *text*; :raises TooMany: above *limit*."""
        self._begin(text, limit)
        find = self._sequence(list(self.tree), lambda at: at)
        start = 0
        while start <= len(text):
            self._step()
            start = max(find(start), start + 1)
        return self.steps

    def full(self, text: str, limit: int) -> int:
        """Return the steps of matching the whole of *text*; :raises TooMany: above *limit*."""
        self._begin(text, limit)
        self._sequence(list(self.tree), lambda at: at if at == len(text) else -1)(0)
        return self.steps

    def takes(self, item: Any, char: str) -> bool:
        """Return whether a part of the expression that takes one character takes *char*."""
        kind, value = item
        if kind is op.ANY:
            return self._dot_takes_all or char != "\n"
        if kind is op.IN:
            negated = value[0][0] is op.NEGATE
            return any(self._in_class(one, char) for one in value[negated:]) is not negated
        return self._same(chr(value), char) is (kind is op.LITERAL)

    def _in_class(self, one: Any, char: str) -> bool:
        kind, value = one
        if kind is op.LITERAL:
            return self._same(chr(value), char)
        if kind is op.RANGE:
            return any(value[0] <= ord(form) <= value[1] for form in self._forms(char))
        return _CATEGORIES[value](char)

    def _same(self, one: str, other: str) -> bool:
        return one == other or (self._ignores_case and one.lower() == other.lower())

    def _forms(self, char: str) -> set[str]:
        return {char, *(form for form in (char.lower(), char.upper()) if self._ignores_case and len(form) == 1)}

    def _begin(self, text: str, limit: int) -> None:
        self._text, self._limit, self.steps = text, limit, 0

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self._limit:
            raise TooMany

    def _sequence(self, items: Sequence[Any], following: Next) -> Next:
        for item in reversed(items):
            following = self._item(item, following)
        return following

    def _item(self, item: Any, following: Next) -> Next:
        kind, value = item
        if kind in _SINGLE:
            return lambda at: following(at + 1) if self._takes_at(item, at) else -1
        if kind is op.AT and value is op.AT_BEGINNING and self.tree.state.flags & re.MULTILINE:
            return lambda at: following(at) if at == 0 or self._text[at - 1] == "\n" else -1
        if kind is op.AT:
            edge = 0 if value in (op.AT_BEGINNING, op.AT_BEGINNING_STRING) else len(self._text)
            return lambda at: following(at) if at == edge else -1
        if kind is op.BRANCH:
            ways = [self._sequence(way, following) for way in value[1]]
            return lambda at: _first(ways, at)
        if kind is op.SUBPATTERN:
            return self._sequence(value[3], following)
        if kind in (op.ASSERT, op.ASSERT_NOT):
            inside = self._sequence(value[1], lambda at: at)
            back = value[1].getwidth()[0] if value[0] < 0 else 0
            wanted = kind is op.ASSERT
            return lambda at: following(at) if (at >= back and inside(at - back) >= 0) is wanted else -1
        if kind is op.POSSESSIVE_REPEAT:
            return self._keep(*value, following)
        if kind in _REPEATS:
            return self._repeat(*value, following)
        raise NotImplementedError(f"the counter does not know {kind}")

    def _takes_at(self, item: Any, at: int) -> bool:
        self._step()
        return at < len(self._text) and self.takes(item, self._text[at])

    def _repeat(self, least: int, most: int, body: Any, following: Next) -> Next:
        if len(body) == 1 and body[0][0] in _SINGLE:
            return self._repeat_one(least, most, body[0], following)

        def again(count: int, began: int) -> Next:
            def more(at: int) -> int:
                self._step()
                if count < most and (at > began or count < least):
                    end = self._sequence(body, again(count + 1, at))(at)
                    if end >= 0:
                        return end
                return following(at) if count >= least else -1

            return more

        return again(0, -1)

    def _keep(self, least: int, most: int, body: Any, following: Next) -> Next:
        """Return what repeats a part as often as it can, and never goes back."""
        inside = self._sequence(body, lambda at: at)

        def greedily(at: int) -> int:
            count = 0
            while count < most:
                self._step()
                end = inside(at)
                if end < 0 or end == at:
                    break
                at, count = end, count + 1
            return following(at) if count >= least else -1

        return greedily

    def _repeat_one(self, least: int, most: int, item: Any, following: Next) -> Next:
        def longest_first(at: int) -> int:
            count = 0
            while count < most and self._takes_at(item, at + count):
                count += 1
            for length in range(count, least - 1, -1):
                self._step()
                end = following(at + length)
                if end >= 0:
                    return end
            return -1

        return longest_first


def _first(ways: list[Next], at: int) -> int:
    """Return where the first of *ways* that leads anywhere ends."""
    for way in ways:
        end = way(at)
        if end >= 0:
            return end
    return -1


def attacks(counter: Counter) -> Iterator[Callable[[int], str]]:
    """Give functions that make texts of a length: what comes before a repetition, much of it, and what ends it."""
    alphabet = "".join(map(chr, range(256))) + "\ud800\u2028"
    samples = sorted({_sample(counter, item, alphabet) for item in _singles(counter.tree)})
    for before, body in _repetitions(counter, list(counter.tree), alphabet):
        pumps = {_example(counter, body, alphabet), *samples}
        for pump, tail in product(sorted(pumps - {""}), ("", "\x00", " x", *samples[:2])):
            yield lambda size, parts=(before, pump, tail): parts[0] + parts[1] * size + parts[2]  # type: ignore[misc]


def _sample(counter: Counter, item: Any, alphabet: str) -> str:
    return next((char for char in alphabet if counter.takes(item, char)), "")


def _parts(item: Any) -> list[Any]:
    """Return the sequences within a part of an expression."""
    kind, value = item
    if kind is op.BRANCH:
        return list(value[1])
    if kind is op.SUBPATTERN:
        return [value[3]]
    if kind in _REPEATS:
        return [value[2]]
    return [value[1]] if kind in (op.ASSERT, op.ASSERT_NOT) else []


def _singles(items: Any) -> Iterator[Any]:
    for item in items:
        if item[0] in _SINGLE:
            yield item
        for part in _parts(item):
            yield from _singles(part)


def _example(counter: Counter, items: Any, alphabet: str) -> str:
    """Return a text that the parts match, each repetition once at least."""
    found = ""
    for item in items:
        if item[0] in _SINGLE:
            found += _sample(counter, item, alphabet)
        elif item[0] not in (op.ASSERT, op.ASSERT_NOT, op.AT):
            times = max(item[1][0], 1) if item[0] in _REPEATS else 1
            found += _example(counter, _parts(item)[0], alphabet) * times
    return found


def _repetitions(counter: Counter, items: list[Any], alphabet: str, before: str = "") -> Iterator[tuple[str, Any]]:
    """Give each repetition: a text that leads to it, and what is repeated."""
    for number, item in enumerate(items):
        led = before + _example(counter, items[:number], alphabet)
        if item[0] in _REPEATS:
            yield led, item[1][2]
        for part in _parts(item):
            yield from _repetitions(counter, list(part), alphabet, led)
