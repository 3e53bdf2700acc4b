"""lhttp_tx.twistd.plugin_cache: an installation that is read-only is nothing to log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lhttp_tx.twistd.plugin_cache import tells_of_unwritten

PROGRAM = """
import sys
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.plugin import getPlugins
from twisted.application.service import IServiceMaker

names = [plugin.tapname for plugin in getPlugins(IServiceMaker)]
from lhttp_tx.twistd.plugin_cache import forget_unwritten
if sys.argv[1] == "forget":
    forget_unwritten()
from twisted.logger import Logger
Logger().info("begun: {is_there}", is_there="lhttp" in names)
globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A directory with a plugin of which no list can be kept: what would be the list is a directory."""
    directory = tmp_path / "twisted/plugins"
    (directory / "dropin.cache/in-the-way").mkdir(parents=True)
    (directory / "of_a_test.py").write_text("")
    return tmp_path


def told(plugins: Path, what: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what],
        env={**os.environ, "PYTHONPATH": str(plugins)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_list_that_cannot_be_written_is_not_logged(plugins: Path) -> None:
    (line,) = told(plugins, "forget")
    assert line.endswith("begun: True")


def test_without_it_twisted_logs_so(plugins: Path) -> None:
    lines = told(plugins, "remember")
    assert len(lines) == 2
    assert "Unable to write to plugin cache" in lines[0]


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        ({"format": "Unable to write to plugin cache %(path)s: error number %(errno)d"}, True),
        ({"format": None}, False),
        ({"log_format": "listening"}, False),
    ],
)
def test_no_other_event_is_meant(event: dict[str, object], outcome: bool) -> None:
    assert tells_of_unwritten(event) == outcome
