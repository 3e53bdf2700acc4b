"""What a history in memory takes, as the system counts it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path

from twisted.internet.task import Clock

from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.values import Retention


def resident():
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


channels, size = map(int, sys.argv[1:])
store = MemoryHistory(Clock(), size=size)
store.start()
before = resident()
for turn in range(2):
    for number in range(channels):
        payload = b"LHTTP/1.0 chat\\r\\npublish:room.%06d\\r\\n\\r\\nhello" % number
        store.append(f"room.{number:06}", Retention(), [payload], False)
print(resident() - before, store.size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into Linux's /proc")
def test_many_channels_keep_to_the_budget_of_all() -> None:
    budget = 64 * 2**20
    command = [sys.executable, "-c", PROGRAM, "100000", str(budget)]
    taken, counted = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert counted <= budget
    assert taken < 80 * 2**20
