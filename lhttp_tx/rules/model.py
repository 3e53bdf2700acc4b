"""
Channel rules: who may do what in which channels.

A rule has a pattern of channel names; of all rules, the first whose pattern matches a channel is the one that holds.
Pure values without I/O, made from the tables ``[[channel]]`` of a configuration file; :mod:`lhttp_tx.filters.rules`
asks them. What matches no rule is as without rules.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias, final

from lhttp_tx.grants import ANYBODY, AUTHENTICATED, NOBODY, Access, asks_identity, names_user, read_access
from lhttp_tx.identity import Identity
from lhttp_tx.patterns import USER, check_pattern, compile_pattern, covers, overlap, split_pattern

__all__ = ["ANYBODY", "AUTHENTICATED", "NOBODY", "Rule", "Rules", "RulesError"]

_CACHE_COUNT = 4096
"""Channels whose rules are remembered; past it, all are forgotten."""

_RULE_COUNT = 1000
"""Rules that there may be: each is looked at for a channel that was not seen for a while."""

_MAX_SIZE = 2**31 - 1
_MIN_RATE, _MAX_RATE = 0.001, 1_000_000.0

Location: TypeAlias = tuple[str | int, ...]
"""Where a problem is: the index of a table, and a key in it."""


class RulesError(ValueError):
    """
    Tables that make no rules.

    :ivar problems: where, and what is wrong there.
    """

    def __init__(self, problems: Iterable[tuple[Location, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(text for _, text in self.problems))


@final
@dataclass(frozen=True, slots=True)
class Rule:
    """
    What holds for the channels that match a pattern. The defaults are what holds without rules.

    :ivar match: the pattern: ``*`` stands for a token, ``>`` at the end for one or more, ``{user}`` for a user's name.
    :ivar subscribe: who may subscribe.
    :ivar publish: who may publish.
    :ivar presence: whether those who may subscribe can learn who is there.
    :ivar wildcards: whether a wildcard subscription may take in these channels.
    :ivar max_size: bytes of a message that is published there; 0: as many as of any message.
    :ivar max_rate: messages a second that a connection may publish to one such channel; 0: any number. After a pause it
        may publish as many at once as in a second, and at least one.
    :ivar echo: whether a publisher that is subscribed gets its own messages.
    :ivar line: where it stands in its file; 0: nowhere.
    """

    match: str = field(default=">", metadata={"toml": "a pattern", "needed": True})
    subscribe: Access = field(default=ANYBODY, metadata={"toml": "who"})
    publish: Access = field(default=ANYBODY, metadata={"toml": "who"})
    presence: bool = field(default=False, metadata={"toml": "true or false"})
    wildcards: bool = field(default=False, metadata={"toml": "true or false"})
    max_size: int = field(default=0, metadata={"toml": f"a number from 1 to {_MAX_SIZE}, or 0"})
    max_rate: float = field(default=0.0, metadata={"toml": f"a number from {_MIN_RATE:g} to {_MAX_RATE:.0f}, or 0"})
    echo: bool = field(default=True, metadata={"toml": "true or false"})
    line: int = field(default=0, compare=False)

    @classmethod
    def keys(cls) -> dict[str, str]:
        """Return the keys of a table, each with what its value is."""
        return {found.name: found.metadata["toml"] for found in fields(cls) if found.metadata}


_OPEN = Rule()


@final
class Rules:
    """The rules of a server, in order; they never change."""

    __slots__ = ("_cache", "_patterns", "_rules")

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        """:param rules: those that come first are asked first."""
        self._rules = tuple(rules)
        self._patterns = tuple((compile_pattern(rule.match), rule) for rule in self._rules)
        self._cache: dict[str, Rule] = {}

    @classmethod
    def from_toml(cls, tables: object, line_of: Callable[[Location], int] = lambda _: 0) -> Rules:
        """
        Make rules of the tables ``[[channel]]`` of a file.

        :param tables: what the TOML parser made of them.
        :param line_of: returns the line of a table, or of a key in it.
        :raises RulesError: if they make no sense; all that makes none is told.
        """
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise RulesError([((), "channel is an array of tables: write [[channel]] above each rule")])
        problems: list[tuple[Location, str]] = []
        rules: list[Rule] = []
        known: list[tuple[list[str], Rule]] = []
        if len(tables) > _RULE_COUNT:
            raise RulesError([((_RULE_COUNT,), f"there are more than {_RULE_COUNT} channel rules")])
        for index, table in enumerate(tables):
            found = _read_rule(table, problems, (index,))
            if found is None:
                continue
            tokens = split_pattern(found["match"])
            earlier = next((rule for others, rule in known if covers(others, tokens)), None)
            rule = Rule(**found, line=line_of((index, "match")))
            known.append((tokens, rule))
            if earlier is not None:
                where = f" of line {earlier.line}" if earlier.line else ""
                why = f"the one for {earlier.match!r}{where} comes first"
                problems.append(((index, "match"), f"the rule for {rule.match!r} never holds: {why}; move it up"))
            rules.append(rule)
        if problems:
            raise RulesError(problems)
        return cls(rules)

    @property
    def asking(self) -> Rule | None:
        """The first rule that asks who somebody is, or ``None``."""
        return next((rule for rule in self._rules if any(map(asks_identity, (rule.subscribe, rule.publish)))), None)

    def find(self, channel: str) -> Rule:
        """
        Return the rule that holds for a channel: the first that matches, or one that allows what is allowed without.

        :param channel: a valid channel name.
        """
        rule = self._cache.get(channel)
        if rule is None:
            rule = next((rule for pattern, rule in self._patterns if pattern.fullmatch(channel)), _OPEN)
            if len(self._cache) >= _CACHE_COUNT:
                self._cache.clear()
            self._cache[channel] = rule
        return rule

    def overlapping(self, wildcard: str) -> tuple[Rule, ...]:
        """
        Return every rule that holds for a channel which a wildcard subscription takes in, perhaps the one for no rule.

        :param wildcard: a valid wildcard subscription (:func:`lhttp_tx.channels.check_wildcard`), such as ``room.*``.
        """
        wanted = wildcard.split(".")
        found: list[Rule] = []
        for rule in self._rules:
            tokens = split_pattern(rule.match)
            if overlap(tokens, wanted):
                found.append(rule)
                if covers(tokens, wanted):
                    return tuple(found)
        return (*found, _OPEN)

    def allow_wildcard(self, identity: Identity, wildcard: str) -> bool:
        """Return whether *identity* may subscribe to all channels that *wildcard* takes in."""
        return all(rule.wildcards and rule.subscribe.allows(identity, wildcard) for rule in self.overlapping(wildcard))

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rules) and self._rules == other._rules

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Rules {[rule.match for rule in self._rules]}>"


# Tables


def _read_rule(table: Mapping[str, Any], problems: list[tuple[Location, str]], where: Location) -> Any:
    """Return the arguments of a rule, or ``None`` if its pattern is of no use; tell what is wrong."""
    readers: dict[str, Callable[[Any], Any]] = {
        "match": _read_match,
        "presence": _read_flag,
        "wildcards": _read_flag,
        "echo": _read_flag,
        "max_size": _read_size,
        "max_rate": _read_rate,
    }
    position = None
    found: dict[str, Any] = {}
    match = table.get("match")
    if isinstance(match, str) and USER in match.split("."):
        position = match.split(".").index(USER)
    for key, value in table.items():
        try:
            if key in ("subscribe", "publish"):
                found[key] = read_access(value, position)
            elif key in readers:
                found[key] = readers[key](value)
            else:
                guesses = difflib.get_close_matches(key.replace("-", "_").lower(), Rule.keys(), 1, 0.7)
                guess = f"did you mean {guesses[0]}?" if guesses else f"there are {', '.join(Rule.keys())}"
                raise ValueError(f"a channel rule has no key {key}; {guess}")
        except ValueError as error:
            text = str(error)
            problems.append(((*where, key), text if text.startswith((key, "a channel rule")) else f"{key}: {text}"))
    if "match" not in table:
        problems.append((where, 'a channel rule needs match, the pattern of its channels, such as match = "chat.*"'))
    elif position is not None and "match" in found:
        unread = any(key in table and key not in found for key in _ACCESSES)
        if not unread and not any(names_user(found.get(key)) for key in _ACCESSES):
            advice = f'write subscribe = "{USER}" or publish = "{USER}", or * instead of it'
            problems.append(((*where, "match"), f"{USER} in the pattern binds nobody: {advice}"))
    return found if "match" in found else None


_ACCESSES = ("subscribe", "publish")


def _read_match(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError('match is a string, such as match = "chat.*"')
    try:
        check_pattern(value)
    except ValueError as error:
        raise ValueError(f"match {value!r}: {error}") from None
    return value


def _read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it is true or false")
    return value


def _read_size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_SIZE:
        raise ValueError(f"max_size is a whole number of bytes, from 1 to {_MAX_SIZE}, or 0 for no bound")
    return value


def _read_rate(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (value != 0 and not _MIN_RATE <= value <= _MAX_RATE):
        bounds = f"from {_MIN_RATE:g} to {_MAX_RATE:.0f}, or 0 for no bound"
        raise ValueError(f"max_rate is a number of messages a second, {bounds}")
    return float(value)
