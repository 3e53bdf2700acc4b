"""
The fuzzer that looks for cost: what can a client make a server do, and hold, with few bytes?

    python -m fuzz.cost [--seconds N | --inputs N] [--seed N] [--corpus DIRECTORY] [--findings DIRECTORY]
    python -m fuzz.cost --replay FILE...
    python -m fuzz.cost --figures

It changes scripts (see :mod:`fuzz.world`) and measures them (see :mod:`fuzz.meter`). Of all that was tried it keeps,
for each measure and each function that took most of the work, the script that cost most: these are what is changed
next, so that it climbs in many places at once. What passes a bound is a finding; it is made smaller, kept, and the
line is printed that replays it. What takes many seconds is printed as a hint, and is no finding. With one seed and a
number of inputs it does the same each time, but for where those seconds lead it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from random import Random

from fuzz.figures import figures
from fuzz.hostile import HOSTILE
from fuzz.meter import PRICE, Cost, Meter, count_lines
from fuzz.mutate import beginnings, change
from fuzz.world import Script

__all__ = ["Search"]

_REPORT = 30.0
"""Seconds between two lines that say how far it is."""

_SURVEY = 20
"""Scripts that are measured in one go."""

_STEP = 1.02
"""By how much a script must be dearer than the best to be looked at."""

_SHRINKING = 60
"""Scripts that are tried to make a finding smaller."""


class Search:
    """
    The search for what is dear.

    :ivar tried: how many scripts were measured.
    :ivar best: for each measure and place the script that cost most, and how much.
    :ivar findings: for each measure and place that passed its bound the first script that did.
    """

    def __init__(self, meter: Meter, random: Random) -> None:
        self.tried = 0
        self.best: dict[tuple[str, str], tuple[float, Script]] = {}
        self.findings: dict[tuple[str, str], Script] = {}
        self._meter = meter
        self._random = random
        self._places: list[tuple[str, str]] = []

    def try_all(self, scripts: Sequence[Script]) -> Iterator[tuple[str, str]]:
        """Measure scripts, and those again that seem to be dearer than all before; yields the new findings."""
        for start in range(0, len(scripts), _SURVEY):
            some = scripts[start : start + _SURVEY]
            self.tried += len(some)
            for script, about in zip(some, self._meter.survey(some), strict=True):
                if about.excesses() or any(self._climbs(*value) for value in _values(script, about).items()):
                    yield from self._keep(script, self._meter.measure(script))

    def climb(self) -> Iterator[tuple[str, str]]:
        """Change some of the best, and try them; yields the new findings: the measure, and the place."""
        return self.try_all([change(self._pick(), self._pick, self._random) for _ in range(_SURVEY)])

    def _climbs(self, found: tuple[str, str], value: float) -> bool:
        best = self.best.get(found, (0.0, None))[0]
        if found[0] == "seconds":  # what a survey says about them is rough
            return value > max(PRICE / 5, 1.5 * best)
        return value > best * _STEP

    def _pick(self) -> Script:
        return self.best[self._random.choice(self._places)][1]

    def _keep(self, script: Script, cost: Cost) -> Iterator[tuple[str, str]]:
        for found, value in _values(script, cost).items():
            if found not in self.best:
                self._places.append(found)
                self._places.sort()
            if value > self.best.get(found, (-inf, script))[0]:
                self.best[found] = value, script
        for measure in cost.excesses():
            found = measure, _place(script, cost, measure)
            if found not in self.findings:
                self.findings[found] = script
                yield found

    def hints(self) -> list[str]:
        """Return a line for each place that took as many seconds as would be too dear in lines."""
        return [
            f"hint: in seconds {value:.1f} ordinary ones ({place})"
            for (measure, place), (value, _) in self.best.items()
            if measure == "seconds" and value > PRICE
        ]

    def shrink(self, measure: str, script: Script) -> Script:
        """Return a smaller script that still passes the bound of *measure*."""
        left = _SHRINKING
        smaller = True
        while smaller and left > 0:
            smaller = False
            for candidate in _smaller(script):
                left -= 1
                if measure in self._meter.measure(candidate).excesses():
                    script, smaller = candidate, True
                    break
                if left <= 0:
                    break
        return script

    def __str__(self) -> str:
        most = {
            measure: max((value for (kind, _), (value, _) in self.best.items() if kind == measure), default=0.0)
            for measure in ("lines", "turn", "all", "seconds", "held", "left")
        }
        return (
            f"{self.tried:,} inputs, {len(self._places)} places; dearest unit {most['lines']:.1f}, in a turn "
            f"{most['turn']:.1f}, all together "
            f"{most['all']:.1f}, in seconds {most['seconds']:.1f}; held {most['held'] / 1024:.0f} KiB, left "
            f"{most['left'] / 1024:.0f} KiB; {len(self.findings)} findings"
        )


def _place(script: Script, cost: Cost, measure: str) -> str:
    if measure == "lines":
        return cost.function
    if measure == "all":
        return cost.whole_function
    if measure == "seconds":
        return f"{script.steps[cost.dearest].kind} {cost.function}"
    if measure == "turn":
        return f"{script.steps[cost.turning].kind} {cost.function}"
    if measure == "failure":
        return cost.failure[:60]
    return script.steps[cost.fattest].kind


def _values(script: Script, cost: Cost) -> dict[tuple[str, str], float]:
    values = {
        "lines": cost.price,
        "turn": cost.turn_price,
        "all": cost.whole_price,
        "seconds": cost.seconds_price,
        "held": float(cost.held),
        "left": float(cost.left),
    }
    return {(measure, _place(script, cost, measure)): value for measure, value in values.items()}


def _smaller(script: Script) -> Iterator[Script]:
    steps = script.steps
    if len(steps) > 1:
        for index in range(len(steps)):
            yield replace(script, steps=steps[:index] + steps[index + 1 :])
    for index, step in enumerate(steps):
        changed = []
        if step.times > 1:
            changed += [replace(step, times=1), replace(step, times=step.times // 2)]
        size = len(step.payload)
        changed += [
            replace(step, payload=step.payload[:start] + step.payload[start + size // 4 :])
            for start in range(0, size, max(1, size // 4))
            if size > 100
        ]
        if step.width:
            changed.append(replace(step, width=0))
        for one in changed:
            yield replace(script, steps=(*steps[:index], one, *steps[index + 1 :]))


def _report(meter: Meter, measure: str, place: str, script: Script, directory: Path) -> None:
    cost = meter.measure(script)
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{measure}-{place.rpartition('/')[2]}").strip("-")[:80]
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{name}.json"
    file.write_text(script.dump(), encoding="utf-8")
    print(f"FOUND {measure} ({place}): {cost}", flush=True)
    for step in script.steps:
        shown = step.payload if len(step.payload) < 160 else step.payload[:150] + b"..."
        width = f", {step.width} bytes at a time" if step.width else ""
        print(
            f"    client {step.client}, {step.times} times{width}, {step.kind} of {len(step.payload)} bytes: {shown!r}"
        )
    if measure in ("held", "left"):
        for line in meter.holders(script):
            print(f"    {line}")
    print(f"    replay it with: tox -e fuzz-cost -- --replay {file}", flush=True)


def _replay(meter: Meter, files: Iterable[Path]) -> bool:
    """Measure what is in *files*, and return whether it keeps to the bounds."""
    passed = True
    for file in files:
        script = Script.load(file.read_text(encoding="utf-8"))
        cost = meter.measure(script)
        print(f"{file.name}: {cost}: {' '.join(cost.excesses()) or 'passed'}")
        if {"held", "left"} & {*cost.excesses()}:
            print(*meter.holders(script), sep="\n")
        passed = passed and not cost.excesses()
    return passed


def main() -> int:
    """Read the command line, search or replay, and return the exit status."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets decides what is done
        os.execve(
            sys.executable, [sys.executable, "-m", "fuzz.cost", *sys.argv[1:]], os.environ | {"PYTHONHASHSEED": "0"}
        )
    parser = argparse.ArgumentParser(prog="fuzz.cost", description="Look for what costs a server much.")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default 600)")
    parser.add_argument("--inputs", type=int, default=0, help="how many inputs, in the place of a time")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="makes the same again")
    parser.add_argument("--corpus", type=Path, default=None, help="where the dearest are kept, and looked for first")
    parser.add_argument("--findings", type=Path, default=Path(".fuzz/costs"), help="where findings are kept")
    parser.add_argument("--replay", type=Path, nargs="+", metavar="FILE", help="measure these scripts")
    parser.add_argument("--figures", action="store_true", help="tell what a message of a history costs, and do no more")
    options = parser.parse_args()
    if options.figures:
        print(*figures(count_lines), sep="\n")
        return 0
    meter = Meter()
    if options.replay:
        return 0 if _replay(meter, options.replay) else 1
    print(f"seed {options.seed}; an ordinary publication of {meter}", flush=True)
    search = Search(meter, Random(options.seed))
    end, report = time.monotonic() + options.seconds, time.monotonic() + _REPORT

    def lasts() -> bool:
        return search.tried < options.inputs if options.inputs else time.monotonic() < end

    kept = sorted(options.corpus.glob("*.json")) if options.corpus is not None else []
    found = search.try_all([*HOSTILE.values(), *beginnings(), *(Script.load(file.read_text("utf-8")) for file in kept)])
    for measure, place in found:
        print(f"found {measure}: {place}", flush=True)
    while lasts():
        for measure, place in search.climb():
            print(f"found {measure}: {place}", flush=True)
        if time.monotonic() > report:
            print(search, flush=True)
            report += _REPORT
    print(search, flush=True)
    for hint in search.hints():
        print(hint, flush=True)
    if options.corpus is not None:
        options.corpus.mkdir(parents=True, exist_ok=True)
        for number, (_, script) in enumerate(search.best.values()):
            (options.corpus / f"{number:04}.json").write_text(script.dump(), encoding="utf-8")
    for (measure, place), script in search.findings.items():
        _report(meter, measure, place, search.shrink(measure, script), options.findings)
    return 1 if search.findings else 0


if __name__ == "__main__":
    sys.exit(main())
