"""lhttp_tx.checking: ``lhttp check-config``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lhttp_tx.client.cli import lhttp, run

PROCESSOR = """
from lhttp_tx import processor

@processor("echo")
def echo(request):
    request.reply()
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(directory: Path, text: str, *arguments: str) -> Result:
    (directory / "lhttp.toml").write_text(text, "utf-8")
    return CliRunner().invoke(lhttp, ["check-config", "lhttp.toml", *arguments], standalone_mode=False)


def test_a_file_that_is_in_order_is_summed_up(directory: Path) -> None:
    (directory / "mine.py").write_text(PROCESSOR, "utf-8")
    text = 'port = 8090\nprocessor = ["mine.py:echo"]\nno-plugins = true\n[[channel]]\nmatch = ">"\nmax_rate = 1\n'
    result = check(directory, text)
    assert result.output == "lhttp.toml: in order, with 3 options and 1 channel rule\n"
    assert result.return_value == 0


def test_an_empty_file_is_in_order(directory: Path) -> None:
    assert check(directory, "").output == "lhttp.toml: in order, with 0 options and 0 channel rules\n"


def test_what_is_left_open_is_told(directory: Path) -> None:
    told = check(directory, '[[channel]]\nmatch = "a.*"\n').output.splitlines()
    assert told[1:] == [
        'lhttp.toml: channels that match no rule are open to all; a last rule with match = ">" is for them'
    ]


def test_what_is_wrong_is_told_with_its_line(directory: Path) -> None:
    result = check(directory, 'max-conections = 5\ndemo = "yes"\n\n[[channel]]\nmatch = "chat*"\n')
    assert result.return_value == 1
    assert [line.split(" ")[0] for line in result.output.splitlines()] == [
        "lhttp.toml:1:",
        "lhttp.toml:2:",
        "lhttp.toml:5:",
    ]


def test_values_that_a_server_would_refuse_are_told(directory: Path) -> None:
    result = check(directory, 'max-unsent = 0\nlisten = "carrier-pigeon:1"\npublish-token-file = "none"')
    assert result.return_value == 1
    assert result.output.splitlines()[0] == "lhttp.toml:1: max-unsent: 0 is not from 1 to 2147483647"
    assert "lhttp.toml:2: --listen 'carrier-pigeon:1'" in result.output
    result = check(directory, 'publish-token-file = "none"')
    assert result.output.startswith("lhttp.toml:1: --publish-token-file: [Errno 2] No such file")


def test_a_problem_without_a_line_names_the_file(directory: Path) -> None:
    (directory / "mine.py").write_text(PROCESSOR, "utf-8")
    result = check(directory, 'processor = ["mine.py:echo", "mine.py:echo"]')
    assert result.output.startswith("lhttp.toml: command 'echo' has a processor already")


def test_a_file_that_is_not_there_is_told(directory: Path) -> None:
    result = CliRunner().invoke(lhttp, ["check-config", "none.toml"], standalone_mode=False)
    assert (result.return_value, result.output) == (1, "none.toml: No such file or directory\n")


def test_environment_variables_do_not_count(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHTTP_MAX_UNSENT", "0")
    assert check(directory, "max-unsent = 5").return_value == 0


def test_the_reactor_stays_as_it_is(directory: Path) -> None:
    pytest.importorskip("nats")
    result = check(directory, 'nats = "nats://127.0.0.1:4222"\n')
    assert result.output == "lhttp.toml: in order, with 1 option and 0 channel rules\n"


def test_the_rule_of_a_channel_is_told(directory: Path) -> None:
    text = """
    no-plugins = true
    auth = "memory:jack:secret"
    [[channel]]
    match = "user.{user}"
    subscribe = ["{user}", {role = "admin"}]
    publish = "authenticated"
    max_rate = 2.5
    echo = false
    presence = true
    """
    result = check(directory, text, "--channel", "user.jack", "--channel", "other")
    told = "subscribe {user} or claims role = 'admin', publish authenticated, presence, max_rate 2.5, no echo"
    assert result.output.splitlines()[1:] == [
        f"user.jack: lhttp.toml:5: user.{{user}}: {told}",
        "other: no rule: subscribe anybody, publish anybody",
    ]


def test_a_channel_that_cannot_be_is_wrong_usage(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check-config", "lhttp.toml", "--channel", "a..b"]) == 2
    assert "channel 'a..b' has an empty token" in capsys.readouterr().err


def test_the_command_is_listed_with_the_others() -> None:
    assert "check-config  Check the configuration file of a server." in CliRunner().invoke(lhttp, ["--help"]).output


def test_the_other_commands_do_without_the_server() -> None:
    program = "import sys, lhttp_tx.client.cli; print({'lhttp_tx.options', 'lhttp_tx.checking'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
