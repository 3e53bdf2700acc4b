"""
Channel rules: who may do what in which channels.

Each rule has a pattern of channel names. The first rule whose pattern matches a channel applies. A channel that matches
no rule behaves as without rules. Pure values without I/O, made from the tables ``[[channel]]`` of a configuration file;
:mod:`lhttp_tx.rules.filters` applies them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias, final

from lhttp_tx.codec.bounds import Bound, check_fields
from lhttp_tx.history.tables import read_history
from lhttp_tx.history.values import Retention
from lhttp_tx.identity import Identity
from lhttp_tx.rules.grants import ANYBODY, AUTHENTICATED, NOBODY, Access, asks_identity, names_user, read_access
from lhttp_tx.rules.patterns import USER, PatternIndex, check_pattern, covers, first, split_pattern

__all__ = ["ANYBODY", "AUTHENTICATED", "NOBODY", "Rule", "Rules", "RulesError", "check_history", "check_presence"]

_RULE_COUNT = 1000
"""
The most rules of a server. Finding the rule of a channel takes a few operations on integers with a bit for each rule.
"""

_MAX_SIZE = 2**31 - 1
_MIN_RATE, _MAX_RATE = 0.001, 1_000_000.0
_BOUNDS = {"max_size": Bound(int, 1, _MAX_SIZE, zero=True), "max_rate": Bound(float, _MIN_RATE, _MAX_RATE, zero=True)}

_NO_CLASSES: Mapping[str, Retention] = {}

Location: TypeAlias = tuple[str | int, ...]
"""The place of a problem: the index of a table, and a key in it."""


class RulesError(ValueError):
    """
    Raised for tables that do not form valid rules.

    :ivar problems: the place of each problem, and what is wrong there.
    """

    def __init__(self, problems: Iterable[tuple[Location, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(text for _, text in self.problems))


@final
@dataclass(frozen=True, slots=True)
class Rule:
    """
    A rule for the channels that match a pattern. Its defaults are the behaviour without rules.

    :ivar match: the pattern: ``*`` stands for a token, ``>`` at the end for one or more, ``{user}`` for a user's name.
    :ivar subscribe: who may subscribe.
    :ivar publish: who may publish.
    :ivar presence: whether clients that may subscribe can learn who is in the channel.
    :ivar wildcards: whether a wildcard subscription may include these channels.
    :ivar max_size: the most bytes of a message published there; 0: the limit of all messages.
    :ivar max_rate: messages a second that a connection may publish to one such channel; 0: no limit. After a pause, it
        may publish the messages of one second at once, and at least one.
    :ivar echo: whether a publisher that is subscribed gets its own messages.
    :ivar line: the line of the rule in its file; 0: the rule is not from a file.
    :ivar history: how much of such a channel is kept; ``None``: nothing.
    """

    match: str = field(default=">", metadata={"toml": "a pattern", "needed": True})
    subscribe: Access = field(default=ANYBODY, metadata={"toml": "who"})
    publish: Access = field(default=ANYBODY, metadata={"toml": "who"})
    presence: bool = field(default=False, metadata={"toml": "true or false"})
    wildcards: bool = field(default=False, metadata={"toml": "true or false"})
    max_size: int = field(default=0, metadata={"toml": f"a number from 1 to {_MAX_SIZE}, or 0"})
    max_rate: float = field(default=0.0, metadata={"toml": f"a number from {_MIN_RATE:g} to {_MAX_RATE:.0f}, or 0"})
    echo: bool = field(default=True, metadata={"toml": "true or false"})
    history: Retention | None = field(default=None, metadata={"toml": "true, false, a table or the name of a class"})
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        """
        Check the types and numbers; :class:`Rules` checks the pattern.

        :raises TypeError: if a field has a wrong type.
        :raises ValueError: if a number is out of bounds.
        """
        check_fields(self, _BOUNDS)

    @classmethod
    def keys(cls) -> dict[str, str]:
        """Return the keys of a table, each with a description of its value."""
        return {found.name: found.metadata["toml"] for found in fields(cls) if found.metadata}


_OPEN = Rule()


@final
class Rules:
    """The rules of a server, in order. The object never changes."""

    __slots__ = ("_accesses", "_index", "_rules", "_without_wildcards")

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        """:param rules: the rules. The first one that matches a channel applies."""
        self._rules = tuple(rules)
        self._index = PatternIndex(split_pattern(rule.match) for rule in self._rules)
        self._without_wildcards = 0
        accesses: dict[str, tuple[Access, int]] = {}
        for number, rule in enumerate(self._rules):
            self._without_wildcards |= (not rule.wildcards) << number
            key = repr(rule.subscribe)
            access, numbers = accesses.get(key, (rule.subscribe, 0))
            accesses[key] = (access, numbers | 1 << number)
        self._accesses = tuple(accesses.values())

    @classmethod
    def from_toml(
        cls,
        tables: object,
        line_of: Callable[[Location], int] = lambda _: 0,
        classes: Mapping[str, Retention] = _NO_CLASSES,
    ) -> Rules:
        """
        Make rules from the tables ``[[channel]]`` of a file.

        :param tables: the tables as the TOML parser returns them.
        :param classes: the history classes that they may name.
        :param line_of: returns the line of a table, or of a key in it.
        :raises RulesError: if the tables are not valid. It lists all problems.
        """
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise RulesError([((), "channel is an array of tables: write [[channel]] above each rule")])
        problems: list[tuple[Location, str]] = []
        rules: list[Rule] = []
        known: list[tuple[list[str], Rule]] = []
        if len(tables) > _RULE_COUNT:
            raise RulesError([((_RULE_COUNT,), f"there are more than {_RULE_COUNT} channel rules")])
        for index, table in enumerate(tables):
            found = _read_rule(table, problems, (index,), classes)
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
        """The first rule that depends on who a client is, or ``None``."""
        return next((rule for rule in self._rules if any(map(asks_identity, (rule.subscribe, rule.publish)))), None)

    def find(self, channel: str) -> Rule:
        """
        Return the rule for a channel: the first that matches, or else a rule with the defaults.

        :param channel: a valid channel name.
        """
        numbers = self._index.matching(channel.split("."))
        return self._rules[(numbers & -numbers).bit_length() - 1] if numbers else _OPEN  # the lowest bit

    def overlapping(self, wildcard: str) -> tuple[Rule, ...]:
        """
        Return every rule that applies to a channel in a wildcard subscription.

        If no rule applies to some of these channels, this includes a rule with the defaults.

        :param wildcard: a valid wildcard subscription (:func:`lhttp_tx.codec.channels.check_wildcard`), such as
            ``room.*``.
        """
        numbers, is_covered = self._touched(wildcard)
        found = tuple(rule for number, rule in enumerate(self._rules) if numbers >> number & 1)
        return found if is_covered else (*found, _OPEN)

    def _touched(self, wildcard: str) -> tuple[int, bool]:
        """Return the rules that apply within *wildcard*, a bit for each, and whether they cover all of it."""
        tokens = wildcard.split(".")
        numbers = self._index.overlapping(tokens)
        last = first(self._index.covering(tokens))
        return (numbers, False) if last is None else (numbers & ((2 << last) - 1), True)

    def allow_wildcard(self, identity: Identity, wildcard: str) -> bool:
        """Return whether *identity* may subscribe to all channels that match *wildcard*."""
        numbers, is_covered = self._touched(wildcard)
        if not is_covered or numbers & self._without_wildcards:
            return False
        return all(access.allows(identity, wildcard) for access, where in self._accesses if where & numbers)

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


def check_history(pattern: str) -> str:
    """
    Return *pattern* if it is a pattern of channels that may have history.

    :raises ValueError: if it is not. The text says why.
    """
    try:
        Rules.from_toml([{"match": pattern, "history": True}])
    except RulesError as error:
        raise ValueError(error.problems[0][1].removeprefix("match ")) from None
    return pattern


def check_presence(pattern: str) -> str:
    """
    Return *pattern* if it is a pattern of channels whose presence the server can keep.

    :raises ValueError: if it is not. The text says why.
    """
    try:
        Rules.from_toml([{"match": pattern, "presence": True}])
    except RulesError as error:
        raise ValueError(error.problems[0][1].removeprefix("match ")) from None
    return pattern


def _read_rule(
    table: Mapping[str, Any],
    problems: list[tuple[Location, str]],
    where: Location,
    classes: Mapping[str, Retention],
) -> Any:
    """Return the arguments of a rule; ``None`` if its pattern is not valid. Add the errors to *problems*."""
    readers: dict[str, Callable[[Any], Any]] = {
        "match": _read_match,
        "presence": _read_flag,
        "wildcards": _read_flag,
        "echo": _read_flag,
        "max_size": _read_size,
        "max_rate": _read_rate,
        "history": lambda value: read_history(value, classes),
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
