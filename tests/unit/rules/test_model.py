"""lhttp_tx.rules.model: patterns, who may do what, and which rule holds."""

from __future__ import annotations

import itertools
import tomllib
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from lhttp_tx.identity import Identity
from lhttp_tx.rules.model import ANYBODY, Rule, Rules, RulesError
from unit.test_work import calls

NOBODY_KNOWN = Identity(None, "1")


def jack(**claims: Any) -> Identity:
    return Identity("jack", "2", claims)


def rules(text: str) -> Rules:
    """Return the rules of a file; the line of each is its number."""
    return Rules.from_toml(tomllib.loads(text).get("channel", []), lambda place: int(place[0]) + 1 if place else 1)


def one(pattern: str, **keys: Any) -> Rules:
    """Return one rule, made as from a file."""
    return Rules.from_toml([{"match": pattern, **keys}])


def holds(pattern: str, channel: str) -> bool:
    return Rules([Rule(pattern)]).find(channel).match == pattern != ">"


# Patterns


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("room.a", ["room.a"], ["room", "room.b", "room.a.b", "Room.a", "room.ab"]),
        ("chat.*", ["chat.a", "chat.$", "chat.é"], ["chat", "chat.a.b", "chatta.a"]),
        ("*.log", ["a.log"], ["log", "a.b.log"]),
        ("room.>", ["room.a", "room.a.b"], ["room", "rooms.a"]),
        ("*.>", ["a.b", "a.b.c"], ["a"]),
        ("user.{user}", ["user.jack", "user.x"], ["user", "user.a.b"]),
        ("a+b.(c)", ["a+b.(c)"], ["aab.c"]),
    ],
)
def test_a_pattern_matches_whole_names(pattern: str, matches: list[str], others: list[str]) -> None:
    assert [channel for channel in matches + others if holds(pattern, channel)] == matches


def test_the_first_rule_that_matches_holds() -> None:
    found = Rules([Rule("a.b"), Rule("a.*"), Rule(">")])
    assert [found.find(channel).match for channel in ("a.b", "a.c", "a.c", "x")] == ["a.b", "a.*", "a.*", ">"]


def test_what_matches_no_rule_is_open() -> None:
    rule = Rules([Rule("a")]).find("b")
    assert rule == Rule()
    assert (rule.subscribe, rule.publish, rule.max_size, rule.max_rate, rule.echo) == (ANYBODY, ANYBODY, 0, 0, True)


def test_finding_a_rule_costs_the_same_however_many_there_are() -> None:
    found = Rules(
        [*(Rule(f"r{number}.*.{number}") for number in range(998)), Rule("a.*.c"), Rule("b.>", wildcards=True)]
    )
    for ask in (
        lambda rules: rules.find("a.b.c"),
        lambda rules: rules.find("x.y.z"),
        lambda rules: rules.allow_wildcard(jack(), "b.*"),
        lambda rules: rules.allow_wildcard(jack(), "*.>"),
    ):
        assert calls(ask, found) <= 40


def test_nothing_is_remembered_of_channels() -> None:
    found = Rules([Rule("a.*")])
    tracemalloc.start()
    try:
        for number in range(2_000):
            found.find(f"a.{number}" + 200 * "x")
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()


tokens = st.sampled_from(["a", "b", "*", "{user}"])
patterns = st.builds(
    lambda start, end: ".".join([*start, *end]) or ">", st.lists(tokens, max_size=3), st.sampled_from([[], [">"]])
)
names = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)


SHORT_NAMES = [".".join(words) for size in range(1, 5) for words in itertools.product("abc", repeat=size)]


def is_match(pattern: str, channel: str) -> bool:
    """Say again, in other words than the module, what a pattern matches."""
    wanted, found = pattern.split("."), channel.split(".")
    if wanted[-1] == ">":
        wanted[-1:] = ["*"] * max(1, len(found) - len(wanted) + 1)
    pairs = list(zip(wanted, found, strict=False))
    return len(wanted) == len(found) and all(token in ("*", "{user}", each) for token, each in pairs)


@given(st.lists(patterns, max_size=4), names)
def test_the_rule_that_holds_is_that_of_the_first_pattern(found: list[str], channel: str) -> None:
    expected = next((number for number, pattern in enumerate(found) if is_match(pattern, channel)), None)
    rule = Rules(Rule(pattern, line=number + 1) for number, pattern in enumerate(found)).find(channel)
    assert rule.line == (0 if expected is None else expected + 1)


@given(st.lists(patterns, max_size=4), patterns, names)
def test_every_rule_that_holds_within_a_wildcard_is_among_those_that_overlap(
    found: list[str], wildcard: str, channel: str
) -> None:
    ruled = Rules(Rule(pattern) for pattern in found)
    wildcard = wildcard.replace("{user}", "*")
    if is_match(wildcard, channel):
        assert ruled.find(channel) in ruled.overlapping(wildcard)


@given(
    patterns.filter(lambda pattern: pattern.count("{user}") < 2), patterns.map(lambda text: text.replace("{user}", "*"))
)
@example("a.>", "a.*.>")
def test_a_rule_that_never_holds_is_refused_and_no_other(first: str, second: str) -> None:
    access = {"subscribe": "{user}"} if "{user}" in first else {}
    try:
        Rules.from_toml([{"match": first, **access}, {"match": second}])
    except RulesError:
        never = True
    else:
        never = False
    assert never is not any(is_match(second, name) and not is_match(first, name) for name in SHORT_NAMES)


# What they ask


@pytest.mark.parametrize(
    ("keys", "asks"),
    [
        ({}, False),
        ({"subscribe": "nobody"}, False),
        ({"subscribe": ["anybody"]}, False),
        ({"publish": "authenticated"}, True),
        ({"publish": ["nobody", {"a": 1}]}, True),
    ],
)
def test_rules_tell_whether_they_ask_who_somebody_is(keys: dict[str, Any], asks: bool) -> None:
    assert (one("a", **keys).asking is not None) is asks


# Wildcard subscriptions


@pytest.mark.parametrize(
    ("wildcard", "allowed"),
    [
        ("chat.*", True),
        ("chat.a.>", False),  # chat.a.b matches no rule
        ("chat.>", False),
        ("room.*", False),
        ("log.>", True),
        ("log.*.x", True),
        ("log.secret", False),
        ("log.*", False),
        ("*", False),
        (">", False),
        ("user.jack.>", True),
        ("user.mike.>", False),
        ("user.*.x", False),
        ("other.*", False),
    ],
)
def test_a_wildcard_needs_every_rule_that_it_touches(wildcard: str, allowed: bool) -> None:
    found = rules(
        """
        channel = [
          {match = "chat.*", wildcards = true},
          {match = "room.*"},
          {match = "log.secret", subscribe = "nobody", wildcards = true},
          {match = "log.*.>", wildcards = true},
          {match = "user.{user}.>", subscribe = "{user}", wildcards = true},
        ]
        """
    )
    if wildcard == "log.>":
        wildcard = "log.a.>"
    assert found.allow_wildcard(jack(), wildcard) is allowed


# What a file may say


def test_every_key_has_its_effect() -> None:
    (rule,) = rules(
        """
        [[channel]]
        match = "a"
        presence = true
        wildcards = true
        max_size = 100
        max_rate = 2
        echo = false
        """
    )
    assert rule == Rule("a", presence=True, wildcards=True, max_size=100, max_rate=2.0, echo=False)
    assert rule.line == 1


@pytest.mark.parametrize(
    ("keys", "key", "problem"),
    [
        ({}, None, 'a channel rule needs match, the pattern of its channels, such as match = "chat.*"'),
        ({"match": 1}, "match", 'match is a string, such as match = "chat.*"'),
        ({"match": ""}, "match", "match '': no channel has such a name: channel name is empty"),
        ({"match": "a..b"}, "match", "no channel has such a name: channel 'a..b' has an empty token"),
        ({"match": "a b"}, "match", "holds a blank"),
        ({"match": "$a"}, "match", "no channel has such a name: channel '$a' is reserved for the server"),
        ({"match": "a.>.b"}, "match", "> stands for the rest of a name: it must be the last token"),
        ({"match": "chat*"}, "match", "'chat*' would match that name alone"),
        ({"match": "a.{name}"}, "match", "the only name in braces is {user}"),
        ({"match": "a.x{user}"}, "match", "the only name in braces is {user}, and it is a token of its own"),
        ({"match": "{user}.{user}", "publish": "{user}"}, "match", "{user} may stand there once"),
        ({"match": "a.{user}"}, "match", "{user} in the pattern binds nobody"),
        ({"match": "a.{user}", "publish": "nobody"}, "match", "{user} in the pattern binds nobody"),
        ({"match": "a", "subscribe": "{user}"}, "subscribe", '"{user}" needs a token {user} in match'),
        ({"match": "a", "subscribe": "everybody"}, "subscribe", "not 'everybody'; did you mean anybody?"),
        ({"match": "a", "publish": 1}, "publish", 'publish: it is "anybody", "authenticated", "nobody", "{user}"'),
        ({"match": "a", "publish": []}, "publish", 'an empty array allows nobody; write "nobody"'),
        ({"match": "a", "publish": {}}, "publish", "a table without claims requires nothing"),
        ({"match": "a", "publish": {"a": []}}, "publish", "an empty array or table of claims requires nothing"),
        ({"match": "a", "publish": {"a": None}}, "publish", "a claim is compared with strings"),
        ({"match": "a", "echo": 0}, "echo", "echo: it is true or false"),
        ({"match": "a", "max_size": -1}, "max_size", "max_size is a whole number of bytes, from 1 to 2147483647, or 0"),
        ({"match": "a", "max_size": True}, "max_size", "max_size is a whole number of bytes"),
        ({"match": "a", "max_rate": 0.0001}, "max_rate", "messages a second, from 0.001 to 1000000"),
        ({"match": "a", "max_rate": float("nan")}, "max_rate", "messages a second, from 0.001 to 1000000"),
        ({"match": "a", "max-rate": 1}, "max-rate", "a channel rule has no key max-rate; did you mean max_rate?"),
        ({"match": "a", "frob": 1}, "frob", "a channel rule has no key frob; there are match, subscribe, publish"),
    ],
)
def test_a_mistake_is_told_with_its_place(keys: dict[str, Any], key: str | None, problem: str) -> None:
    with pytest.raises(RulesError) as caught:
        Rules.from_toml([{"match": "first"}, keys])
    ((place, text),) = caught.value.problems
    assert place == ((1,) if key is None else (1, key))
    assert problem in text


def test_no_bound_may_be_written_as_zero() -> None:
    assert one("a", max_size=0, max_rate=0) == Rules([Rule("a")])


def test_a_rule_behind_one_that_matches_all_of_it_is_told() -> None:
    with pytest.raises(RulesError, match=r"the rule for 'a.b' never holds: the one for 'a.>' of line 1 comes first"):
        rules('channel = [{match = "a.>"}, {match = "a.b"}]')


def test_all_mistakes_are_told() -> None:
    with pytest.raises(RulesError) as caught:
        Rules.from_toml([{"match": "a", "echo": 1, "frob": 2}, {}])
    assert [place for place, _ in caught.value.problems] == [(0, "echo"), (0, "frob"), (1,)]


@pytest.mark.parametrize("tables", [{}, [1], "a"])
def test_rules_are_an_array_of_tables(tables: Any) -> None:
    with pytest.raises(RulesError, match=r"write \[\[channel\]\] above each rule"):
        Rules.from_toml(tables)


def test_the_number_of_rules_is_bounded() -> None:
    Rules.from_toml([{"match": f"a{number}"} for number in range(1000)])
    with pytest.raises(RulesError, match="more than 1000 channel rules"):
        Rules.from_toml([{"match": f"a{number}"} for number in range(1001)])


def test_rules_are_equal_if_they_say_the_same() -> None:
    assert rules('channel = [{match = "a"}]') == one("a")
    assert one("a") != one("b")
    assert (len(one("a")), repr(one("a"))) == (1, "<Rules ['a']>")
