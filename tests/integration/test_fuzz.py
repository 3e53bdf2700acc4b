"""
Short runs of two fuzzers: that of the protocol, and that which looks for cost.

``tox -e fuzz-protocol`` and ``tox -e fuzz-cost`` make long ones.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz.hostile import HOSTILE
from fuzz.protocol import arguments, run

from integration._server import ServerProcess

SECONDS = 10.0


@pytest.mark.once
def test_nothing_that_clients_do_disturbs_an_honest_one(serve: Callable[..., ServerProcess]) -> None:
    outcome = run(serve(*arguments()), seconds=SECONDS, seed=random.SystemRandom().randrange(2**32), warm_up=2.0)
    print(outcome)
    assert outcome.findings == []
    assert outcome.figures.sent > 100
    assert min(outcome.counts[life] for life in ("websocket", "bad_handshake", "http", "publish")) >= 10


# Cost


def fuzz_cost(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer that looks for cost in a process of its own: it forks, and the order of sets is fixed in it."""
    tests = str(Path(__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-m", "fuzz.cost", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.once
def test_nothing_that_clients_do_costs_too_much(tmp_path: Path) -> None:
    ran = fuzz_cost("--inputs", "600", "--seed", "1", "--findings", str(tmp_path))
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0, ran.stdout[-4_000:] + ran.stderr[-4_000:]


@pytest.mark.once
def test_what_was_dear_once_is_not(tmp_path: Path) -> None:
    files = []
    for name, script in HOSTILE.items():
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(script.dump(), encoding="utf-8")
    ran = fuzz_cost("--replay", *map(str, files))
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0, ran.stdout + ran.stderr
