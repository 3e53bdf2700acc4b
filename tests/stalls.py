"""
A plugin for pytest that lets the machine stand still now and then, so that tests which depend on its speed fail.

    PYTHONPATH=tests pytest -p stalls --stall 3 tests/integration/test_auth.py

While tests run, some of their processes (pytest itself and what it has started) are stopped together for so many
seconds, after a random time of up to twice that; then they go on until the next stall. Which and when is random; the
seed is printed. What this makes fail depends on time: lengthen that time, or wait for what happens instead.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

__all__ = ["descendants", "is_stopped"]


def descendants(pid: int) -> list[int]:
    """Return the processes that *pid* has started, and those that these have, as Linux tells them."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text("ascii").split():
                found += [int(child), *descendants(int(child))]
    return found


def is_stopped(pid: int) -> bool:
    """Return whether a test has stopped the process *pid* itself, which must not let it go on."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "T"
    return False


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    parser.addoption("--stall", type=float, default=3.0, help="seconds for which processes are stopped")
    parser.addoption("--stall-seed", type=int, default=None, help="makes the same again, as far as processes do")


@pytest.fixture(autouse=True, scope="session")
def _stalls(request: pytest.FixtureRequest) -> Iterator[None]:
    seed = request.config.getoption("--stall-seed")
    seed = time.time_ns() % 2**32 if seed is None else seed
    print(f"stalls: seed {seed}")
    arguments = [str(os.getpid()), str(request.config.getoption("--stall")), str(seed)]
    process = subprocess.Popen([sys.executable, __file__, *arguments], start_new_session=True)
    yield
    process.terminate()
    process.wait()


def _main(pid: int, seconds: float, seed: int) -> None:
    """Stall the process *pid* and what it has started, until this process is told to end; then all of them go on."""
    rng = random.Random(seed)
    stopped: list[int] = []

    def tell(number: int) -> None:
        for one in stopped:
            with suppress(ProcessLookupError):
                os.kill(one, number)

    def end(*_: object) -> None:
        tell(signal.SIGCONT)
        sys.exit()

    signal.signal(signal.SIGTERM, end)
    while Path(f"/proc/{pid}").exists():
        time.sleep(2 * seconds * rng.random())
        everybody = [one for one in (pid, *descendants(pid)) if one != os.getpid() and not is_stopped(one)]
        stopped[:] = everybody if rng.random() < 0.3 else [one for one in everybody if rng.random() < 0.5]
        tell(signal.SIGSTOP)
        time.sleep(seconds)
        tell(signal.SIGCONT)
        stopped.clear()


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
