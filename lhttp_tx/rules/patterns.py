"""
Patterns of channel names in the notation of NATS: ``chat.*``, ``room.>``; and ``user.{user}``.

Used by :mod:`lhttp_tx.rules.model`. Pure functions, without I/O.
"""

from collections.abc import Iterable
from functools import reduce
from operator import and_
from typing import final

from lhttp_tx.codec.channels import check_channel
from lhttp_tx.errors import LHTTPError

__all__ = ["USER", "PatternIndex", "check_pattern", "covers", "first", "split_pattern"]

USER = "{user}"
"""The token of a pattern that stands for a user's name."""


def split_pattern(pattern: str) -> list[str]:
    """Return the tokens of a pattern, with ``*`` in place of ``{user}``."""
    return ["*" if token == USER else token for token in pattern.split(".")]


def covers(general: list[str], special: list[str]) -> bool:
    """Return whether *general* matches every channel that *special* matches. Both are tokens of patterns."""
    for number, wanted in enumerate(general):
        if wanted == ">":
            return number < len(special)
        if number >= len(special) or special[number] == ">":
            return False
        if wanted not in ("*", special[number]):
            return False
    return len(general) == len(special)


@final
class PatternIndex:
    """
    An index that finds the patterns that match a channel.

    A search takes a few operations for each token of a name, on integers that have a bit for each pattern. So a
    thousand patterns cost about as much as one, whatever the names are, and no cache is needed.
    """

    __slots__ = ("_after", "_all", "_any", "_covering", "_ended", "_fitting", "_open", "_star", "_touching")

    def __init__(self, patterns: Iterable[list[str]]) -> None:
        """:param patterns: the tokens of each pattern (:func:`split_pattern`)."""
        found = list(patterns)
        depth = max(map(len, found), default=0)
        self._all = (1 << len(found)) - 1
        literal: list[dict[str, int]] = [{} for _ in range(depth)]
        self._star = [0] * depth  # patterns with * at this position, or > at or before it
        self._any = [0] * depth  # patterns with any token at this position, or > before it
        self._open = [0] * depth  # patterns with > at or before this position
        self._ended = [0] * (depth + 1)  # patterns that match names of this many tokens
        self._after = 0  # patterns with > anywhere
        for number, tokens in enumerate(found):
            self._add(tokens, 1 << number, literal)
        # The patterns that fit each word, for each position: of channels, and of wildcard subscriptions.
        words = [{word: bits | star for word, bits in at.items()} for at, star in zip(literal, self._star, strict=True)]
        self._fitting = words
        self._touching = [{**at, "*": every, ">": every} for at, every in zip(words, self._any, strict=True)]
        self._covering = [
            {**at, "*": star, ">": rest} for at, star, rest in zip(words, self._star, self._open, strict=True)
        ]

    def _add(self, tokens: list[str], bit: int, literal: list[dict[str, int]]) -> None:
        last = len(tokens) - 1
        is_open = tokens[-1:] == [">"]
        for place, word in enumerate(tokens):
            self._any[place] |= bit
            if word == "*":
                self._star[place] |= bit
            elif word != ">":
                literal[place][word] = literal[place].get(word, 0) | bit
        if not is_open:
            self._ended[last + 1] |= bit
        else:
            self._after |= bit
            for place in range(last, len(self._star)):
                self._any[place] |= bit
                self._star[place] |= bit
                self._open[place] |= bit
                self._ended[place + 1] |= bit

    def matching(self, tokens: list[str]) -> int:
        """Return the patterns that match the channel with these tokens: a bit for each, the lowest for the first."""
        return self._narrow(tokens, self._fitting)

    def overlapping(self, tokens: list[str]) -> int:
        """Return the patterns that match some channel of the wildcard subscription with these tokens."""
        return self._narrow(tokens, self._touching)

    def covering(self, tokens: list[str]) -> int:
        """Return the patterns that match all channels of the wildcard subscription with these tokens."""
        return self._narrow(tokens, self._covering)

    def _narrow(self, tokens: list[str], fitting: list[dict[str, int]]) -> int:
        """
        Return the patterns that fit all tokens.

        :param fitting: for each position, the patterns that fit a word. Other words fit the patterns with ``*`` there.
        """
        left = reduce(and_, map(dict.get, fitting, tokens, self._star), self._all)
        if len(tokens) > len(fitting):
            return left & self._after
        return left if tokens[-1] == ">" else left & self._ended[len(tokens)]


def first(numbers: int) -> int | None:
    """Return the index of the lowest bit that is set; ``None`` if no bit is set."""
    return (numbers & -numbers).bit_length() - 1 if numbers else None


def check_pattern(pattern: str) -> None:
    """:raises ValueError: if *pattern* is not a pattern of channel names."""
    tokens = pattern.split(".")
    if ">" in tokens[:-1]:
        raise ValueError("> stands for the rest of a name: it must be the last token")
    for token in tokens:
        if token in ("*", ">", USER):
            continue
        if "*" in token or ">" in token:
            raise ValueError(f"* and > stand for whole tokens, between dots; {token!r} would match that name alone")
        if "{" in token or "}" in token:
            raise ValueError(f"{token!r}: the only name in braces is {USER}, and it is a token of its own")
    if tokens.count(USER) > 1:
        raise ValueError(f"{USER} may stand there once")
    try:
        check_channel(".".join("x" if token in ("*", ">", USER) else token for token in tokens))
    except LHTTPError as error:
        raise ValueError(f"no channel has such a name: {error.reason}") from None
