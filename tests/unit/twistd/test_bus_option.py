"""``--bus``: a bus of somebody else's making."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.python.usage import UsageError

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.service import LHTTPService
from lhttp_tx.twistd.options import Options
from lhttp_tx.twistd.tap import make_server

BUS = """
from lhttp_tx.bus.memory import MemoryBus

class MyBus(MemoryBus):
    description = "mine"

class LateBus(MemoryBus):
    is_immediate = False

bus = MyBus()
nothing = 5
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "buses.py"
    file.write_text(BUS)
    return str(file)


def parse(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(["--no-plugins", *arguments])
    return options


def test_without_it_there_is_none() -> None:
    assert parse().bus is None


@pytest.mark.parametrize("name", ["bus", "MyBus"])
def test_the_server_has_the_bus_that_is_named(path: str, name: str) -> None:
    options = parse("--bus", f"{path}:{name}")
    service = make_server(options, Clock())
    assert service._parts.bus is options.bus
    assert service._parts.bus.description == "mine"


def test_the_configuration_file_can_name_it(path: str, tmp_path: Path) -> None:
    (tmp_path / "lhttp.toml").write_text(f'bus = "{path}:bus"\n')
    assert isinstance(parse("--config", str(tmp_path / "lhttp.toml")).bus, MemoryBus)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--bus", "{}:nothing"], r"is no IBus; it must provide lhttp_tx\.interfaces\.IBus"),
        (["--bus", "{}:other"], "has no 'other'"),
        (["--bus", "{}:bus", "--nats", "nats://127.0.0.1"], "leave out --bus or --nats"),
        (["--bus", "{}:bus", "--workers", "2"], "--workers share their channels through NATS"),
    ],
)
def test_a_mistake_says_what_to_do(path: str, arguments: list[str], advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        parse(*[argument.format(path) for argument in arguments])


def test_a_bus_that_cannot_do_what_the_rules_ask_stops_the_start(path: str) -> None:
    options = parse("--bus", f"{path}:LateBus")
    rules = Rules([Rule("room", echo=False)])
    with pytest.raises(ValueError, match="echo = false"):
        LHTTPService(options.config.__class__(rules=rules), reactor=Clock(), bus=options.bus)


def test_a_class_in_the_place_of_a_bus_is_refused() -> None:
    with pytest.raises(ValueError, match="MemoryBus is a class"):
        LHTTPService(reactor=Clock(), bus=MemoryBus)  # type: ignore[arg-type]


@pytest.mark.parametrize("bus", [5, parse])
def test_what_is_no_bus_is_refused(bus: Any) -> None:
    with pytest.raises(ValueError, match=r"it must provide lhttp_tx\.interfaces\.IBus"):
        LHTTPService(reactor=Clock(), bus=bus)
