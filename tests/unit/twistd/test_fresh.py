"""``--reload``: processors of files that change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.python.usage import UsageError

from lhttp_tx import Message, Processor
from lhttp_tx.config import Config
from lhttp_tx.interfaces import IProcessor
from lhttp_tx.service import LHTTPService
from lhttp_tx.testing import Client
from lhttp_tx.twistd.fresh import Freshener
from lhttp_tx.twistd.loading import load_object
from lhttp_tx.twistd.options import Options

SOURCE = """
from lhttp_tx import Processor, processor

events = []

@processor("{command}")
def word(request):
    request.reply("{word}")

class Counted(Processor):
    command = "counted"
    def on_start(self, server):
        events.append("start")
        {start}
    def on_close(self, session):
        events.append("close")
    def on_stop(self, server):
        events.append("stop")

counted = Counted()
"""


class World:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.write()
        self.clock: Any = Clock()
        named = [(f"{path}:{name}", self.load(name)) for name in ("word", "counted")]
        other = Processor()
        other.command = "other"
        processors = [*(found for _, found in named), other]
        self.service = LHTTPService(Config(), reactor=self.clock, processors=processors)
        self.freshener = Freshener(self.service, named, reactor=self.clock)
        self.service.startService()
        self.freshener.startService()
        self.client = Client(self.service.engine, "test")
        self.client.enter()

    def load(self, name: str) -> Any:
        return load_object(f"{self.path}:{name}", IProcessor)

    def write(self, word: str = "one", command: str = "word", start: str = "pass") -> None:
        self.path.write_text(SOURCE.format(word=word, command=command, start=start))

    def change(self, text: str | None = None, **parts: str) -> None:
        if text is None:
            self.write(**parts)
        else:
            self.path.write_text(text)
        self.clock.advance(0.6)

    def ask(self, command: str = "word") -> list[str]:
        self.client.send(Message(command))
        return [message.text for message in self.client.take()]


@pytest.fixture
def world(tmp_path: Path) -> Any:
    world = World(tmp_path / "desk.py")
    yield world
    world.freshener.stopService()
    world.service.stopService()
    world.clock.pump([1] * 40)


def test_a_changed_file_replaces_its_processors_and_connections_stay(world: World) -> None:
    assert world.ask() == ["one"]
    world.change(word="two")
    assert world.ask() == ["two"]
    world.change(word="six")  # of the same size, within the same second
    assert world.ask() == ["six"]
    assert world.client.connected


def test_a_processor_may_change_its_command(world: World) -> None:
    world.change(command="other word")
    assert world.ask() == ["one"]  # no command
    world.change(command="term")
    assert (world.ask(), world.ask("term")) == ([], ["one"])


@pytest.mark.parametrize(
    "text",
    [
        "def broken(:\n",
        "raise KeyError(3)\n",
        "word = counted = 3\n",
        SOURCE.format(word="x", command="other", start=""),
    ],
    ids=["syntax", "raises", "wrong", "taken"],
)
def test_an_error_keeps_what_was_there_and_is_shown(world: World, text: str, capsys: Any) -> None:
    world.change(text)
    assert world.ask() == ["one"]
    world.change(word="mended")
    assert world.ask() == ["mended"]


def test_a_start_that_fails_keeps_what_was_there(world: World, failures: list[Any]) -> None:
    world.change(word="two", start="raise OSError('away')")
    assert world.ask() == ["one"]
    assert [type(error) for error in failures] == [OSError]


def test_old_ones_are_told_of_the_end_and_of_the_stop(world: World) -> None:
    old = load_object(f"{world.path}:counted", IProcessor).on_start.__globals__["events"]
    world.ask("counted")
    world.change(word="two")
    new = load_object(f"{world.path}:counted", IProcessor).on_start.__globals__["events"]
    assert old is not new
    assert (old, new) == (["start"], ["start"])
    world.client.disconnect()
    assert (old, new) == (["start", "close"], ["start"])
    world.service.stopService()
    world.clock.pump([1] * 40)
    assert (old, new) == (["start", "close", "stop"], ["start", "stop"])


def test_a_file_that_is_away_for_a_moment_is_waited_for(world: World) -> None:
    world.path.unlink()
    world.clock.advance(0.6)
    world.change(word="back")
    assert world.ask() == ["back"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--reload"], "--reload is for processors of a file"),
        (["--reload", "--processor", "{}:word", "--workers", "2"], "--reload is for one process"),
    ],
)
def test_it_is_refused_where_it_does_nothing(arguments: list[str], problem: str, tmp_path: Path) -> None:
    (tmp_path / "desk.py").write_text(SOURCE.format(word="x", command="x", start="pass"))
    with pytest.raises(UsageError, match=problem):
        Options().parseOptions(["--no-plugins", *(each.format(tmp_path / "desk.py") for each in arguments)])
