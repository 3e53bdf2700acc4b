"""The parts of the ``lhttp`` command that need no server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from lhttp_tx import Message
from lhttp_tx.client.command.bench import Histogram, Result, Settings
from lhttp_tx.client.command.chat import Chat
from lhttp_tx.client.command.cli import lhttp, run
from lhttp_tx.client.command.login_options import make_client
from lhttp_tx.client.command.publish import _publish_token
from lhttp_tx.client.command.text import escaped, message_json, printable
from lhttp_tx.observe.extras import install_command

STRANGE = "a\x1b[31mb\x07\u202ec\u2028d"


@implementer(IReactorPluggableNameResolver)
class ResolvingReactor(MemoryReactorClock):
    """Has a resolver, as endpoints want it; nothing is resolved here."""

    nameResolver = None


def test_nothing_that_moves_the_cursor_or_turns_the_text_is_printed() -> None:
    assert printable(STRANGE) == "a\ufffd[31mb\ufffd\ufffdc\ufffdd"
    assert printable("x\ny") == "x\ufffdy"
    assert printable("Grüße, 世界 👋 a b") == "Grüße, 世界 👋 a b"


def test_a_line_for_programs_is_one_line_that_can_be_read_back() -> None:
    line = escaped("a\tb\nc\\d" + STRANGE)
    assert line == r"a\tb\nc\\da\u001b[31mb\u0007\u202ec\u2028d"
    assert json.loads(f'"{line}"') == "a\tb\nc\\d" + STRANGE


def test_json_holds_the_whole_message() -> None:
    message = Message("chat", [("a", "1"), ("a", "2")], "é\n")
    assert json.loads(message_json(message, "room")) == {
        "channel": "room",
        "command": "chat",
        "headers": [["a", "1"], ["a", "2"]],
        "binary": False,
        "body": "é\n",
    }


def test_json_holds_a_body_that_is_no_text() -> None:
    found = json.loads(message_json(Message("chat", body=b"\xff", binary=True)))
    assert (found["body_base64"], found["binary"], "body" in found) == ("/w==", True, False)


def test_percentiles_have_three_digits() -> None:
    histogram = Histogram()
    for milliseconds in range(1, 1_001):
        histogram.add(milliseconds * 1_000_000)
    assert [histogram.percentile(percent) for percent in (50, 99, 100)] == [500.0, 990.0, 1_000.0]
    assert histogram.maximum == 1_000_000


def test_no_times_have_no_percentiles() -> None:
    assert Histogram().percentile(50) == 0.0


def test_a_result_without_messages_can_be_written() -> None:
    assert Result().summary(Settings())["delivered_per_second"] == 0
    assert "lost 0" in Result().text(Settings())


@pytest.mark.parametrize("name", sorted(lhttp.commands))
def test_every_option_of_every_subcommand_has_help(name: str) -> None:
    command = lhttp.commands[name]
    assert command.help
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.help, parameter.name  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted({*lhttp.commands} - {"admin", "check-config", "completion", "token"}))
def test_help_is_given(name: str) -> None:
    result = CliRunner().invoke(lhttp, [name, "--help"])
    assert (result.exit_code, "LHTTP_URL" in result.output) == (0, True)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["publish"],
        ["publish", "a..b", "x"],
        ["publish", "a", "x", "--url", "ftp://x/"],
        ["publish", "a", "x", "--url", "ws://"],
        ["publish", "a", "x", "--lines"],
        ["publish", "a", "--lines", "--http"],
        ["publish", "a", "x", "--header", "nocolon"],
        ["publish", "a", "x", "--timeout", "0"],
        ["publish", "a", "--file", "/nonexistent"],
        ["subscribe"],
        ["subscribe", "a", "--count", "0"],
        ["subscribe", "a", "--url", "http://127.0.0.1/"],
        ["subscribe", "$a"],
        ["upload"],
        ["upload", __file__, "--channel", ""],
        ["bench", "--size", "1"],
        ["bench", "--channel", ""],
        ["chat", "http://127.0.0.1/"],
        ["chat", "not-a-url"],
        ["chat", "--name", "a\nb"],
        ["publish", "a", "x", "--command", "two words"],
    ],
)
def test_wrong_usage_is_told_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err


def test_without_its_libraries_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError(\"No module named 'click'\", name='click')\n")
    code = "import sys; from lhttp_tx.client.command.main import main; sys.argv = ['lhttp', '--help']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"lhttp: click is not installed; run: {install_command('cli')}\n"


def test_the_configuration_is_checked_without_those_libraries(tmp_path: Path) -> None:
    for name in ("click", "prompt_toolkit"):
        (tmp_path / f"{name}.py").write_text(
            f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')\n"
        )
    code = "import sys; from lhttp_tx.client.command.main import main; sys.argv = ['lhttp', 'check-config']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "the configuration: valid, with 0 options and 0 channel rules\n"


def test_an_empty_token_of_the_environment_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHTTP_PUBLISH_TOKEN", "")
    told = _publish_token("http://chat.example/", token_file=None, user=None, password_file=None, plaintext_login=False)
    assert told is None


def test_completion_is_offered() -> None:
    result = CliRunner().invoke(lhttp, prog_name="lhttp", env={"_LHTTP_COMPLETE": "bash_source"})
    assert "_lhttp_completion" in result.output


@pytest.fixture
def room() -> Chat:
    lines: list[str] = []
    chat = Chat(
        ResolvingReactor(),
        connect=partial(make_client, "ws://127.0.0.1/", None, None),
        room="r",
        name="jack",
        color=True,
        write=lines.append,
        notes=lines.append,
    )
    chat.lines = lines  # type: ignore[attr-defined]
    return chat


def test_a_message_is_shown_with_its_name_in_a_colour_and_its_lines_below(room: Chat) -> None:
    room._show(Message("chat", {"from": "mi\u202eke"}, "one\n\x1b[2Jtwo"))
    first, second = room.lines  # type: ignore[attr-defined]
    assert first.endswith(": one")
    assert "mi\ufffdke\x1b[0m" in first
    assert second.endswith("\ufffd[2Jtwo")


def test_an_empty_message_is_not_shown(room: Chat) -> None:
    room._show(Message("chat", {"subscribe": "r"}))
    assert room.lines == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["", " ", "x" * 33, "a\nb", "a\x1bb"])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name is"):
        connect = partial(make_client, "ws://a/", None, None)
        Chat(ResolvingReactor(), connect=connect, room="r", name=name, color=False, write=print, notes=print)
