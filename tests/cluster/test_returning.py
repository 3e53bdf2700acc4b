"""A node that is restarted just before NATS is back, once and with a short absence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from integration._nats import needs_nats

pytestmark = needs_nats

TESTS = Path(__file__).parents[1]


def test_what_is_accepted_after_nats_is_back_reaches_everybody() -> None:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    done = subprocess.run(
        [sys.executable, "-m", "chaos.returning", "--runs", "1", "--away", "4"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("seed 1: right;")
