"""lhttp_tx.twistd.sources: which variables are looked at, and what becomes of those that set nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from lhttp_tx.twistd.options import Options
from lhttp_tx.twistd.settings import SettingsError
from lhttp_tx.twistd.sources import COMMAND_LINE, Sources


class Tried(Options):
    def __init__(self, environment: dict[str, str]) -> None:
        super().__init__()
        self.environment = environment
        self.told: list[str] = []

    def tell_unknown(self, variables: object) -> None:
        self.told.extend(variables)  # type: ignore[call-overload]


def parse(*arguments: str, **environment: str) -> Tried:
    options = Tried(environment)
    options.parseOptions(list(arguments))
    return options


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("LHTTP_MAX_CONECTIONS", "LHTTP_MAX_CONNECTIONS"),
        ("LHTTP_PUBLISH_TOKN", "LHTTP_PUBLISH_TOKEN"),
        ("LHTTP_CONFG", "LHTTP_CONFIG"),
        ("LHTTP_ALLOW_ORIGINS", "LHTTP_ALLOW_ORIGIN"),
        ("LHTTP_max_connections", "LHTTP_MAX_CONNECTIONS"),
    ],
)
def test_a_variable_that_is_almost_an_option_stops_the_start(variable: str, meant: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(**{variable: "5"})
    assert caught.value.problems == (f"${variable}: there is no such option; did you mean {meant}?",)


@pytest.mark.parametrize("variable", ["LHTTP_COLOUR", "LHTTP_VERSION", "LHTTP_HOST", "LHTTP_IMAGE", "LHTTP_"])
def test_any_other_variable_that_sets_nothing_is_told(variable: str) -> None:
    assert parse(**{variable: "5"}).told == [variable]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LHTTP_URL", "ws://127.0.0.1:8081/"),
        ("LHTTP_MAX_CONECTIONS", ""),
        ("LHTTP_SERVICE_HOST", "10.0.0.1"),
        ("LHTTP_SERVICE_PORT", "8081"),
        ("LHTTP_SERVICE_PORT_WEB", "8081"),
        ("LHTTP_PORT_8081_TCP", "tcp://10.0.0.1:8081"),
        ("LHTTP_PORT_8081_TCP_ADDR", "10.0.0.1"),
        ("LHTTP_NATS_SERVICE_HOST", "10.0.0.1"),
        ("LHTTP_NATS_PORT", "tcp://10.0.0.1:4222"),
        ("OTHER", "1"),
        ("LHTTPS", "1"),
    ],
)
def test_a_variable_that_is_somebody_elses_is_left_alone(variable: str, value: str) -> None:
    assert parse(**{variable: value}).told == []


def test_every_problem_is_told() -> None:
    with pytest.raises(SettingsError) as caught:
        parse(LHTTP_MAX_CONECTIONS="5", LHTTP_MAX_UNSENT="0")
    assert len(caught.value.problems) == 2


def test_an_empty_token_is_as_none() -> None:
    assert parse(LHTTP_PUBLISH_TOKEN="").config.publish_token is None


def test_an_empty_token_leaves_that_of_the_file_in_force(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("fedcba9876543210")
    (tmp_path / "lhttp.toml").write_text(f"publish-token-file = '{tmp_path / 'token'}'")
    options = parse("--config", str(tmp_path / "lhttp.toml"), LHTTP_PUBLISH_TOKEN="")
    assert options.config.publish_token == b"fedcba9876543210"


@pytest.mark.parametrize("token", [" ", "\n", " " * 20, "short"])
def test_a_token_that_is_too_short_stops_the_start(token: str) -> None:
    with pytest.raises(UsageError, match=r"the token in \$LHTTP_PUBLISH_TOKEN is shorter than 16 bytes"):
        parse(LHTTP_PUBLISH_TOKEN=token)


def test_the_token_of_the_process_counts_only_where_its_environment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHTTP_PUBLISH_TOKEN", "fedcba9876543210")
    assert parse().config.publish_token is None


@pytest.mark.parametrize("option", ["--nats-password-file", "--nats-token-file"])
def test_a_file_with_a_secret_that_is_empty_stops_the_start(option: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    user = ("--nats-user", "me") if "password" in option else ()
    with pytest.raises(UsageError, match=rf"{option}: .*secret is empty"):
        parse("--nats", "nats://127.0.0.1", *user, option, str(tmp_path / "secret"))


def test_it_is_known_where_each_option_was_set(tmp_path: Path) -> None:
    file = tmp_path / "lhttp.toml"
    file.write_text('demo = true\nserver-name = ["a", "b"]\nmax-queue = 3\n')
    sources = parse("--config", str(file), "--max-queue=4", "-p", "80", LHTTP_DEMO="no").sources
    assert isinstance(sources, Sources)
    assert sources.origins == {
        "demo": "$LHTTP_DEMO",
        "server-name": f"{file}:2",
        "max-queue": COMMAND_LINE,
        "port": COMMAND_LINE,
    }
    assert sources.lists == {"server-name": ["a", "b"]}
