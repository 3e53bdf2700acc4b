"""
The soak as a program: starts a server, lets the clients work for a time, and exits with 1 if anything was wrong.

A rehearsal of a tenth of the time comes first: the server's memory at the end is compared with what it had after it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from integration._honest import resident_size
from integration._server import CLOSE, RawClient, ServerProcess, message, wait_until

from soak.actors import Stage, cast
from soak.ledger import Ledger

MAX_GROWTH = 10 * 2**20

CACHE_SIZE = 16 * 2**20
"""Bytes that the server's memory of heads may take: it fills in the first minutes, which a short rehearsal is not."""

FILLING = 300.0
"""Seconds after which it is full."""

REHEARSAL = 10.0
"""Seconds that the rehearsal takes at least."""

CENSUS = Path(__file__).parent.parent / "integration" / "_census.py"


def take_census(port: int) -> dict[str, Any]:
    """Return what the server holds, counted by itself after a collection."""
    with RawClient(port) as client:
        client.send(message("census"))
        counted: dict[str, Any] = json.loads(client.receive()[1].partition(b"\r\n\r\n")[2])
        client.send(b"\x03\xe8", CLOSE)
        client.receive()
    return counted


def settle(port: int) -> dict[str, Any]:
    """Return the census when all sessions but its own have ended."""
    wait_until(lambda: take_census(port)["objects"]["Session"] == 1, "the end of all sessions")
    return take_census(port)


async def play(server: ServerProcess, ledger: Ledger, seconds: float, clients: int) -> int:
    """Let *clients* work for *seconds*; return the largest size that the server's memory had, in bytes."""
    stage = Stage(server.port, ledger)
    tasks = cast(stage, clients)
    begin = report = time.monotonic()
    peak = 0
    while (now := time.monotonic()) < begin + seconds:
        peak = max(peak, resident_size(server.pid))
        if now >= report:
            report += 60
            print(
                f"{now - begin:6.0f} s: {ledger.accepted} accepted, {ledger.delivered} delivered, "
                f"{resident_size(server.pid) / 2**20:.1f} MiB, {len(ledger.faults)} faults",
                flush=True,
            )
        await asyncio.sleep(min(1.0, begin + seconds - now))
    stage.over.set()
    over = time.monotonic()
    done, late = await asyncio.wait(tasks, timeout=90)
    print(f"{time.monotonic() - begin:6.0f} s: {time.monotonic() - over:.1f} s until all had gone", flush=True)
    for task in late:
        ledger.fault(f"an actor did not come to an end: {task}")
        task.cancel()
    for task in done:
        task.result()
    return peak


def soak(seconds: float, clients: int, directory: Path) -> list[str]:
    """Run the whole, print the figures, and return what was wrong."""
    server = ServerProcess("--processor", f"{CENSUS}:census", cwd=directory)
    try:
        ledger = Ledger()
        rehearsal = max(REHEARSAL, seconds / 10)
        asyncio.run(play(server, ledger, rehearsal, clients))
        before = settle(server.port)
        peak = asyncio.run(play(server, ledger, seconds, clients))
        after = settle(server.port)
        slow = server.log.count("it does not read")
        faults = list(ledger.faults)
        if ledger.stalled != slow:
            faults.append(f"{ledger.stalled} stalled clients were closed, {slow} lines in the log")
        if after["resident"] - before["resident"] > MAX_GROWTH + (CACHE_SIZE if rehearsal < FILLING else 0):
            faults.append("memory grew")
        faults += [
            f"{what}: {before[what]} before, {after[what]} after"
            for what in ("files", "channels", "objects")
            if before[what] != after[what]
        ]
        growth, most = after["resident"] - before["resident"], peak - before["resident"]
        print(
            f"{seconds:g} s with {clients} clients: {ledger.sent} messages sent, {ledger.accepted} accepted, "
            f"{ledger.delivered} delivered, of which {ledger.audited} were due and all are there but for the faults; "
            f"{slow} closed as too slow; memory {before['resident'] / 2**20:.1f} MiB {growth / 2**20:+.1f}, "
            f"at most {most / 2**20:+.1f}; {after['files']} files, {after['objects']}; {len(faults)} faults"
        )
    finally:
        server.check()
    return faults


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=3600.0)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as directory:
        faults = soak(arguments.seconds, arguments.clients, Path(directory))
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
