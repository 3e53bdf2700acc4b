"""``python -m chaos --help``."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from chaos import bus
from chaos.clients import Publisher, Subscriber
from chaos.ledger import Ledger
from chaos.worlds import WORLDS, World

_CHANNELS, _PUBLISHERS = 4, 5

_END_LIMIT = 60.0
"""Seconds that publishers and subscribers have for what is left, once everything runs again."""


async def _rage(world: World, rng: random.Random, subscribers: list[Subscriber], seconds: float) -> list[str]:
    """Let things happen for *seconds*; return what."""
    end = time.monotonic() + seconds
    happened: list[str] = []
    while time.monotonic() < end:
        await asyncio.sleep(0.3 + 1.5 * rng.random())
        if rng.random() < world.cuts:
            rng.choice(subscribers).cut()
            happened.append("cut a subscriber off")
        else:
            happened.append(await rng.choice(world.faults())())
    return happened


async def run(kind: str, seed: int, seconds: float, directory: Path) -> tuple[list[str], str]:
    """
    Run once.

    :returns: what was wrong, and a line about the run.
    """
    rng = random.Random(seed)
    world = WORLDS[kind](directory, rng)
    ledgers = [Ledger(f"room.{number}") for number in range(_CHANNELS)]
    try:
        await world.start()
        subscribers = [
            Subscriber(f"s{number}", world.url, random.Random(rng.random()), ledgers)
            for number in range(world.subscribers)
        ]
        publishers = [
            Publisher(f"p{number}", world.url, random.Random(rng.random()), ledgers, 0.02)
            for number in range(_PUBLISHERS)
        ]
        reading = [asyncio.ensure_future(each.run()) for each in subscribers]
        async with asyncio.timeout(_END_LIMIT):
            await asyncio.gather(*(each.caught_up.wait() for each in subscribers))
        writing = [asyncio.ensure_future(each.run()) for each in publishers]
        happened = await _rage(world, rng, subscribers, seconds)
        await world.heal()
        for publisher in publishers:
            publisher.is_stopping = True
        async with asyncio.timeout(_END_LIMIT):
            await asyncio.gather(*writing)
        for subscriber in subscribers:  # the last word is the server's
            subscriber.caught_up.clear()
            subscriber.cut()
        async with asyncio.timeout(_END_LIMIT):
            await asyncio.gather(*(each.caught_up.wait() for each in subscribers))
        for subscriber in subscribers:
            subscriber.is_over = True
            subscriber.cut()
        await asyncio.gather(*reading)
    finally:
        await world.stop()
    problems = [f"{ledger.channel}: {text}" for ledger in ledgers for text in ledger.problems(may_miss=world.may_miss)]
    accepted = sum(len(ledger.accepted) for ledger in ledgers)
    missed = sum(len(reader.missed) for ledger in ledgers for reader in ledger.readers)
    holes = sum(subscriber.holes for subscriber in subscribers)
    doubles = sum(subscriber.doubles for subscriber in subscribers)
    if doubles and not world.may_double:
        problems.append(f"{doubles} messages are there twice")
    told = (
        f"{len(happened)} faults, {accepted} receipts, {holes} holes closed by clients, {missed} times missed, "
        f"{doubles} sent again after a crash"
    )
    problems += world.complaints()
    if problems:
        problems += [f"what happened: {'; '.join(happened)}"]
    return problems, told


def main() -> int:
    """Run as the command line says; return 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument(
        "worlds", nargs="*", choices=[[], *WORLDS, "bus"], help="memory, sqlite, cluster, rolling, bus; default: all"
    )
    parser.add_argument("--runs", type=int, default=20, help="runs of each world (default: 20)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a run (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first run (default: 1)")
    parser.add_argument("--keep", type=Path, help="keep the logs in this directory")
    settings = parser.parse_args()
    failures = 0
    for kind in settings.worlds or [*WORLDS, "bus"]:
        for seed in range(settings.seed, settings.seed + settings.runs):
            with tempfile.TemporaryDirectory(prefix="chaos-") as name:
                directory = settings.keep / f"{kind}-{seed}" if settings.keep else Path(name)
                directory.mkdir(parents=True, exist_ok=True)
                try:
                    if kind == "bus":
                        problems, told = asyncio.run(bus.run(seed, settings.seconds, directory))
                    else:
                        problems, told = asyncio.run(run(kind, seed, settings.seconds, directory))
                except Exception as error:
                    problems, told = [f"the run broke off: {error!r}"], ""
            print(f"{kind}, seed {seed}: {'WRONG' if problems else 'right'}; {told}", flush=True)
            for problem in problems[:20]:
                print(f"  {problem}", flush=True)
            failures += bool(problems)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
