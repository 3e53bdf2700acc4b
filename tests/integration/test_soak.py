"""A short soak: ``tox -e soak`` runs the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.once, pytest.mark.skipif(sys.platform != "linux", reason="looks into Linux's /proc")]

SECONDS, CLIENTS = 12, 200


def test_every_message_of_a_short_soak_is_accounted_for() -> None:
    tests = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-m", "soak", str(SECONDS), "--clients", str(CLIENTS)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=180,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
