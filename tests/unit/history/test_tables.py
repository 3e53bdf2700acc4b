"""History classes and the key history of a channel rule, as they are written in a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.python.usage import UsageError

from lhttp_tx.history.tables import read_age, read_classes, read_history
from lhttp_tx.history.values import Retention
from lhttp_tx.twistd.options import Options


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800), ("1.5 h", 5_400), (5, 5), (0.5, 0.5)],
)
def test_an_age(value: Any, seconds: float) -> None:
    assert read_age(value) == seconds


@pytest.mark.parametrize("value", ["", "5", "h", "5w", "-5s", "5s ", "1e3s", "٣s", "5S", True, None, [], "9" * 99])
def test_what_is_no_age_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="age is"):
        read_age(value)


def test_the_key_of_a_rule() -> None:
    classes = {"long": Retention("long", age=1e6)}
    assert read_history(False, classes) is None
    assert read_history(True, classes) == Retention()
    assert read_history("long", classes) is classes["long"]
    found = read_history({"messages": 5, "age": "1h", "size": 2048, "recovery": 3}, classes)
    assert found is not None
    assert (found.messages, found.age, found.size, found.recovery) == (5, 3600.0, 2048, 3)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("short", r"no table \[retention.short\]; those that exist: long"),
        (5, "true, false, a table"),
        ([], "true, false, a table"),
        ({"message": 5}, "there is no key message; those that exist: messages"),
        ({"messages": 0}, "messages"),
        ({"messages": 5.5}, "messages is a whole number"),
        ({"messages": True}, "messages is a whole number"),
        ({"age": "0s"}, "age"),
        ({"age": "1y"}, "age is"),
        ({"age": float("nan")}, "age"),
        ({"age": float("inf")}, "age"),
        ({"size": 5}, "size"),
        ({"size": -1}, "size"),
        ({"recovery": 10**9}, "recovery"),
    ],
)
def test_what_makes_no_sense_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_history(value, {"long": Retention("long")})


BOUNDS = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.integers(1, 1_000_000),
        "age": st.one_of(st.integers(1, 315_360_000), st.floats(1.0, 315_360_000.0)),
        "size": st.one_of(st.just(0), st.integers(1024, 2**50)),
        "recovery": st.integers(0, 1_000_000),
    },
)


@given(BOUNDS, BOUNDS)
def test_classes_without_a_name_have_the_same_one_if_their_bounds_are(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    one, other = read_history(first, {}), read_history(second, {})
    assert one is not None
    assert other is not None
    assert (one.name == other.name) == (one == other)
    assert one == read_history(first, {})


@pytest.mark.parametrize(
    "table",
    [
        {"messages": 1_000_000, "age": 315_360_000, "size": 2**50, "recovery": 1_000_000},
        {"age": 1234567},
        {"age": 1234568},
        {"age": 1.0001},
    ],
)
def test_every_table_in_bounds_has_a_name(table: dict[str, Any]) -> None:
    assert read_history(table, {}) is not None


def test_classes_are_read_and_each_mistake_is_told() -> None:
    classes, problems = read_classes({"a": {"messages": 5}, "b": {"frob": 5}, "c d": {}, "e": {"age": "1h"}})
    assert classes["a"] == Retention("a", messages=5)
    assert classes["e"] == Retention("e", age=3600.0)
    assert [place for place, _ in problems] == [("b",), ("c d",)]


@pytest.mark.parametrize("tables", [5, [], {"a": 5}, [{"messages": 5}]])
def test_what_is_no_table_of_tables_is_told(tables: Any) -> None:
    classes, problems = read_classes(tables)
    assert classes == {}
    assert [place for place, _ in problems] == [()]


def parse(path: Path, text: str, *arguments: str) -> Options:
    path.write_text(text)
    options = Options()
    options.parseOptions(["--no-plugins", "--config", str(path), *arguments])
    return options


def test_a_file_says_which_channels_have_history(tmp_path: Path) -> None:
    rules = parse(
        tmp_path / "c.toml",
        """
history = ["log.>"]
history-messages = 7
[retention.long]
age = "7d"
[[channel]]
match = "a"
history = "long"
[[channel]]
match = "b"
history = {messages = 5}
[[channel]]
match = "c"
history = false
""",
    ).config
    assert (rules.history, rules.retention) == (("log.>",), Retention("options", messages=7))
    assert rules.rules is not None
    found = [rule.history for rule in rules.rules]
    assert found == [Retention("long", age=604_800.0), read_history({"messages": 5}, {}), None]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[channel]]\nmatch = "a"\nhistory = "long"\n', "3: history: there is no table [retention.long]"),
        ('[[channel]]\nmatch = "a"\nhistory = {messages = 0}\n', ":3: history: messages is from 1"),
        ("[retention.long]\nmessages = 5\nfrob = 1\n", "there is no key frob"),
        ('[[channel]]\nmatch = "a"\nhistory = true\necho = false\n', "echo = false"),
        ('history = ">"\n[[channel]]\nmatch = "a"\necho = false\n', "echo = false"),
        ('nats = "nats://x"\n[[channel]]\nmatch = "a"\nhistory = {size = 4096}\n', "bytes of a channel"),
        ('nats = "nats://x"\nnats-prefix = ""\nhistory = "b"\n', "prefix"),
        ("\n\n[retention.long]\nmessages = 0\n", "messages"),
        ("retention = 5\n", "write [retention.NAME]"),
        ("[retention.default]\nmessages = 5\n", "default is a reserved name"),
        ("[retention.options]\nmessages = 5\n", "options is a reserved name"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(tmp_path / "c.toml", text)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--history", "a..b"], "--history"),
        (["--history", "$a"], "--history"),
        (["--history", ""], "--history"),
        (["--history-messages", "0"], "messages"),
        (["--history-messages", "x"], "messages"),
        (["--history-age", "0"], "--history-age"),
        (["--history-age", "1y"], "--history-age"),
        (["--history-age", "²"], "--history-age"),
        (["--history-age", "nan"], "--history-age"),
        (["--history-age", ""], "--history-age"),
        (["--history-size", "-1"], "history-size"),
        (["--history-store", "disk"], "it is memory, sqlite:PATH or jetstream"),
        (["--history-store", "sqlite:"], "names no file"),
        (["--history-store", "jetstream"], "--nats"),
        (["--nats", "nats://x", "--history-store", "memory"], "JetStream"),
        (["--nats", "nats://x", "--history-store", "sqlite:x"], "JetStream"),
        (["--history-store", "sqlite:/"], "this is a folder"),
        (["--history-store", "sqlite:there/is/none.db"], "there is no folder there/is"),
        (["--history-replicas", "3"], "--nats"),
        (["--history-replicas", "0"], "history-replicas"),
        (["--history-in-memory"], "--nats"),
        (["--message-id-window", "0"], "message-id-window"),
        (["--message-id-window", "inf"], "message-id-window"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str], problem: str) -> None:
    options = Options()
    with pytest.raises(UsageError) as caught:
        options.parseOptions(["--no-plugins", *arguments])
    assert problem in str(caught.value)


def test_a_mistake_in_a_class_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parse(tmp_path / "c.toml", '[retention.a]\nmessages = 0\n[[channel]]\nmatch = "a"\nhistory = "a"\n')
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    ("arguments", "idle"),
    [
        ((), []),
        (("--history-store", "sqlite:x"), ["--history-store"]),
        (("--history-messages", "5", "--history-age", "1h"), ["--history-messages", "--history-age"]),
        (("--history-store", "sqlite:x", "--history", "a"), []),
    ],
)
def test_options_about_history_that_nothing_has_are_told(arguments: tuple[str, ...], idle: list[str]) -> None:
    options = Options()
    options.parseOptions(["--no-plugins", *arguments])
    assert [line.partition(" has no effect")[0] for line in options.idle] == idle


def test_options_are_settings() -> None:
    options = Options()
    options.parseOptions(
        [
            *("--no-plugins", "--history", "a.*", "--history", ">", "--history-messages", "5", "--history-age", "1.5h"),
            *("--history-store", "sqlite:x", "--history-size", "65536", "--message-id-window", "7"),
        ]
    )
    config = options.config
    assert config.history == ("a.*", ">")
    assert config.retention == Retention("options", messages=5, age=5400.0)
    assert (config.history_store, config.history_size, config.message_id_window) == ("sqlite:x", 65536, 7.0)


@pytest.mark.parametrize("age", ["90", "90.5"])
def test_an_age_may_be_a_number_of_seconds(age: str) -> None:
    options = Options()
    options.parseOptions(["--no-plugins", "--history-age", age])
    assert options.config.retention.age == float(age)
