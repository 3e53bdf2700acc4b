"""The option that asks for Twisted's asyncio reactor."""

from __future__ import annotations

import subprocess
import sys

import pytest
from twisted.internet import reactor
from twisted.python.usage import UsageError

from lhttp_tx.twistd.options import Options

SHOW = """
import sys
from lhttp_tx.twistd.options import Options
Options().parseOptions(sys.argv[1:])
from twisted.internet import reactor
print(type(reactor).__name__)
"""


@pytest.mark.parametrize("arguments", [[], ["--asyncio"]])
def test_it_installs_the_reactor(arguments: list[str]) -> None:
    command = [sys.executable, "-c", SHOW, "--no-plugins", *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    assert (shown == "AsyncioSelectorReactor") is bool(arguments)


@pytest.mark.skipif(type(reactor).__name__ == "AsyncioSelectorReactor", reason="it is the one that is asked for")
def test_another_reactor_that_is_there_already_is_refused() -> None:
    with pytest.raises(UsageError, match="twistd --reactor=asyncio lhttp --asyncio"):
        Options().parseOptions(["--no-plugins", "--asyncio"])
