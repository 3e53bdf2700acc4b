"""lhttp_tx.twistd.checking: ``lhttp check-config``."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from lhttp_tx.client.command.cli import lhttp, run
from lhttp_tx.twistd.checking import main

PROCESSOR = """
from lhttp_tx import processor

@processor("echo")
def echo(request):
    request.reply()
"""


class Result(NamedTuple):
    return_value: int
    output: str


class Directory:
    """Where the server is started: its files, and what the command tells there."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def run(self, *arguments: str) -> Result:
        return Result(main(arguments), self._capsys.readouterr().out)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Directory:
    monkeypatch.chdir(tmp_path)
    return Directory(tmp_path, capsys)


def check(directory: Directory, text: str, *arguments: str) -> Result:
    (directory / "lhttp.toml").write_text(text, "utf-8")
    return directory.run("lhttp.toml", *arguments)


def test_a_file_that_is_in_order_is_summed_up(directory: Directory) -> None:
    (directory / "mine.py").write_text(PROCESSOR, "utf-8")
    text = 'port = 8090\nprocessor = ["mine.py:echo"]\nno-plugins = true\n[[channel]]\nmatch = ">"\nmax_rate = 1\n'
    result = check(directory, text)
    assert result.output.splitlines()[0] == "lhttp.toml: valid, with 3 options and 1 channel rule"
    assert result.return_value == 0


def test_an_empty_file_is_in_order(directory: Directory) -> None:
    assert check(directory, "").output == "lhttp.toml: valid, with 0 options and 0 channel rules\n"


def test_what_is_left_open_is_told(directory: Directory) -> None:
    told = check(directory, '[[channel]]\nmatch = "a.*"\n').output.splitlines()
    assert told[1:] == [
        'lhttp.toml: channels that match no rule are open to everyone; a last rule with match = ">" changes that'
    ]


def test_what_is_wrong_is_told_with_its_line(directory: Directory) -> None:
    result = check(directory, 'max-conections = 5\ndemo = "yes"\n\n[[channel]]\nmatch = "chat*"\n')
    assert result.return_value == 1
    assert [line.split(" ")[0] for line in result.output.splitlines()] == [
        "lhttp.toml:1:",
        "lhttp.toml:2:",
        "lhttp.toml:5:",
    ]


def test_values_that_a_server_would_refuse_are_told(directory: Directory) -> None:
    result = check(directory, 'max-unsent = 0\nlisten = "carrier-pigeon:1"\npublish-token-file = "none"')
    assert result.return_value == 1
    assert result.output.splitlines()[0] == "lhttp.toml:1: max-unsent: 0 is not from 1 to 2147483647"
    assert "lhttp.toml:2: --listen 'carrier-pigeon:1'" in result.output
    result = check(directory, 'publish-token-file = "none"')
    assert result.output.startswith("lhttp.toml:1: --publish-token-file: [Errno 2] No such file")


def test_a_problem_without_a_line_names_the_file(directory: Directory) -> None:
    (directory / "mine.py").write_text(PROCESSOR, "utf-8")
    result = check(directory, 'processor = ["mine.py:echo", "mine.py:echo"]')
    assert result.output.startswith("lhttp.toml: command 'echo' has a processor already")


def test_a_file_that_is_not_there_is_told(directory: Directory) -> None:
    assert directory.run("none.toml") == (1, "none.toml: No such file or directory\n")


def test_the_environment_counts_as_it_does_for_a_server(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHTTP_MAX_UNSENT", "0")
    result = check(directory, "max-unsent = 5")
    assert result == (1, "lhttp.toml: $LHTTP_MAX_UNSENT: max-unsent: 0 is not from 1 to 2147483647\n")
    monkeypatch.setenv("LHTTP_MAX_UNSENT", "7")
    assert check(directory, "max-unsent = 5").output.splitlines()[1] == "max-unsent = 7  # $LHTTP_MAX_UNSENT"


def test_a_token_that_a_server_would_refuse_is_told(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHTTP_PUBLISH_TOKEN", "short")
    assert check(directory, "").output == (
        "lhttp.toml: the token in $LHTTP_PUBLISH_TOKEN is shorter than 16 bytes; make a longer one\n"
    )


def test_without_a_file_the_environment_is_checked(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHTTP_DEMO", "yes")
    assert directory.run().output.splitlines() == [
        "the configuration: valid, with 1 option and 0 channel rules",
        "demo = true  # $LHTTP_DEMO",
    ]
    (directory / "mine.toml").write_text("max-queue = 3\n", "utf-8")
    monkeypatch.setenv("LHTTP_CONFIG", "mine.toml")
    assert "max-queue = 3  # mine.toml:1" in directory.run().output.splitlines()


def test_all_that_is_set_is_written_with_the_place_where_and_without_secrets(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nats")
    monkeypatch.setenv("LHTTP_PUBLISH_TOKEN", "a secret that is long enough")
    monkeypatch.setenv("LHTTP_NATS", "nats://me:pass@word@127.0.0.1 tls://token@example.com")
    monkeypatch.setenv("LHTTP_PROCESSOR_TIMEOUT", "2.5")
    text = 'auth = "memory:jack:password"\nno-plugins = true\nmax-queue = 3\nserver-name = ["a", "b"]\nport = 90\n'
    result = check(directory, text, "--", "--demo", "--listen", "unix:x", "--listen=unix:y", "-p", "91")
    assert result.output.splitlines() == [
        "lhttp.toml: valid, with 5 options and 0 channel rules",
        (
            "lhttp.toml: --config (a password is in it): other users of this machine can read lhttp.toml; "
            "forbid this with chmod o-rwx"
        ),
        'auth = ["memory:..."]  # lhttp.toml:1',
        "demo = true  # the command line",
        'listen = ["unix:x", "unix:y"]  # the command line',
        "max-queue = 3  # lhttp.toml:3",
        'nats = ["nats://...@127.0.0.1", "tls://...@example.com"]  # $LHTTP_NATS',
        "no-plugins = true  # lhttp.toml:2",
        'port = "91"  # the command line',
        "processor-timeout = 2.5  # $LHTTP_PROCESSOR_TIMEOUT",
        "# publish-token-file: the secret itself is in $LHTTP_PUBLISH_TOKEN",
        'server-name = ["a", "b"]  # lhttp.toml:4',
    ]


def test_what_is_written_is_a_configuration_file_again(directory: Directory) -> None:
    written = check(directory, 'max-rate = 2.5\nserver-name = ["a", "b"]\n', "--all").output
    settings = tomllib.loads(written.partition("\n")[2])
    assert settings.pop("server-name") == ["a", "b"]
    assert (settings["max-rate"], settings["demo"], settings["nats-prefix"]) == (2.5, False, "lhttp.")
    assert len(settings) > 40
    (directory / "again.toml").write_text(written.partition("\n")[2], "utf-8")
    assert directory.run("again.toml").return_value == 0


def test_a_file_of_users_is_no_secret(directory: Directory) -> None:
    (directory / "users").write_text("jack:secret\n", "utf-8")
    assert 'auth = ["file:users"]  # lhttp.toml:1' in check(directory, 'auth = "file:users"').output.splitlines()


def test_a_variable_that_sets_nothing_is_told(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHTTP_COLOUR", "red")
    assert check(directory, "").output.splitlines()[1:] == ["$LHTTP_COLOUR: has no effect: there is no such option"]


def test_the_reactor_stays_as_it_is(directory: Directory) -> None:
    pytest.importorskip("nats")
    result = check(directory, 'nats = "nats://127.0.0.1:4222"\n')
    assert result.output.splitlines()[0] == "lhttp.toml: valid, with 1 option and 0 channel rules"


def test_the_history_of_a_channel_is_told_whichever_way_it_was_given(directory: Directory) -> None:
    text = """
history = ["log.>", "room.*"]
history-messages = 7
[retention.chat]
messages = 500
age = "7d"
size = 4096
recovery = 20
[[channel]]
match = "room.a"
history = "chat"
[[channel]]
match = "room.*"
"""
    names = ("room.a", "room.b", "log.x", "other")
    result = check(directory, text, *(part for name in names for part in ("--channel", name)))
    lines = [line.partition("anybody, publish anybody")[2] for line in result.output.splitlines()[1:]]
    assert lines == [
        ", history of 500 messages for 7d and 4096 bytes at most and recovery of 20 messages",
        ", history of 7 messages for 1d",
        ", history of 7 messages for 1d",
        "",
    ]


def test_an_option_without_effect_is_told(directory: Directory) -> None:
    result = check(directory, 'history-store = "sqlite:x"\n')
    assert result.return_value == 0
    assert "--history-store has no effect: no channel has history" in result.output


def test_the_rule_of_a_channel_is_told(directory: Directory) -> None:
    text = """
    no-plugins = true
    auth = "file:users"
    [[channel]]
    match = "user.{user}"
    subscribe = ["{user}", {role = "admin"}]
    publish = "authenticated"
    max_rate = 2.5
    echo = false
    presence = true
    """
    (directory / "users").touch(0o600)
    result = check(directory, text, "--channel", "user.jack", "--channel", "other")
    told = "subscribe {user} or claims role = 'admin', publish authenticated, presence, max_rate 2.5, no echo"
    assert result.output.splitlines()[1:] == [
        f"user.jack: lhttp.toml:5: user.{{user}}: {told}",
        "other: no rule: subscribe anybody, publish anybody",
    ]


@pytest.mark.parametrize("arguments", [["--colour"], ["one", "two"], ["--chan", "a"]])
def test_wrong_usage_has_a_status_of_its_own(directory: Directory, arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_help_is_given(directory: Directory) -> None:
    told = directory.run("--help")
    assert (told.return_value, told.output.startswith("usage: lhttp check-config")) == (0, True)


def test_a_channel_that_cannot_be_is_wrong_usage(directory: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check-config", "lhttp.toml", "--channel", "a..b"]) == 2
    assert "channel 'a..b' has an empty token" in capsys.readouterr().err


def test_the_command_may_also_come_by_way_of_the_others(directory: Directory) -> None:
    (directory / "lhttp.toml").write_text("max-queue = 0", "utf-8")
    assert run(["check-config", "lhttp.toml", "--all"]) == 1


def test_the_command_is_listed_with_the_others() -> None:
    assert "check-config  Check the configuration of a server." in CliRunner().invoke(lhttp, ["--help"]).output


def test_the_other_commands_do_without_the_server() -> None:
    modules = "{'lhttp_tx.twistd.options', 'lhttp_tx.twistd.checking'}"
    program = f"import sys, lhttp_tx.client.command.cli; print({modules} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


LONG = "x" * 108
STARTED = ("--history", "room.*", "--log-format", "json")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--upgrade", "none/up"), "--upgrade none/up: the server may not make files in none, or it is not there"),
        (("--upgrade", "x" * 96), f"--upgrade {'x' * 96}: the path is too long for a UNIX socket; choose one of at"),
        (("--upgrade", "folder"), "--upgrade folder: folder is not a socket"),
        (("--listen", "unix:none/s"), "--listen unix:none/s: there is no directory "),
        (("--port", "unix:none/s"), "--listen unix:none/s: there is no directory "),
        (("--listen", f"unix:{LONG}"), f"--listen unix:{LONG}: a UNIX socket may have a path of 107 bytes, not of 108"),
        (("--listen", "unix:file"), "--listen unix:file: this is no socket"),
        (("--tcp", "haproxy:unix:none/s"), "--tcp haproxy:unix:none/s: there is no directory "),
        (("--admin", "unix:address=none/s:mode=600"), "--admin unix:address=none/s:mode=600: there is no directory "),
        (("--log-file", "none/log"), "--log-file none/log: there is no directory "),
        (("--log-file", "folder"), "--log-file folder: it is a directory; name a file"),
        (("--history-store", "sqlite:none/x"), "--history-store sqlite:none/x: there is no folder none"),
        (("--workers", "2", "--workers-store", "file/x"), "--workers-store file/x: "),
    ],
)
def test_a_path_that_cannot_be_made_is_told(directory: Directory, arguments: tuple[str, ...], told: str) -> None:
    (directory / "folder").mkdir()
    (directory / "file").write_text("x")
    result = directory.run("--", "--no-plugins", *STARTED, *arguments)
    assert told in result.output
    assert result.return_value == 1


def test_all_paths_that_cannot_be_made_are_told_at_once(directory: Directory) -> None:
    result = directory.run(
        "--", "--no-plugins", "--listen", "unix:none/a", "--tcp", "unix:none/b", "--upgrade", "none/c"
    )
    assert len(result.output.splitlines()) == 3


def test_paths_that_can_be_made_are_not_made(directory: Directory) -> None:
    paths = (
        "--listen",
        "unix:a",
        "--admin",
        "unix:b",
        "--upgrade",
        "c",
        "--log-file",
        "d",
        "--history-store",
        "sqlite:e",
    )
    result = directory.run("--", "--no-plugins", *STARTED, *paths)
    assert result.return_value == 0, result.output
    assert [*directory.path.iterdir()] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_told(directory: Directory) -> None:
    (directory / "folder").mkdir(mode=0o500)
    for arguments in (("--listen", "unix:folder/s"), ("--upgrade", "folder/s"), ("--log-file", "folder/log")):
        result = directory.run("--", "--no-plugins", *STARTED, *arguments)
        assert ("may not" in result.output, result.return_value) == (True, 1)
