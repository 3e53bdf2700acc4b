"""
The command: ``python -m benchmarks``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.figures import Results
from benchmarks.load import Lost
from benchmarks.report import Terminal, targets_table
from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import LABELS, Peers, cores
from benchmarks.svg import write_plots

__all__ = ["is_broken", "main"]

FILE_LIMIT = 20_000
"""Open files that the largest scenario wants."""


def _names(known: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.replace(",", " ").split()
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise argparse.ArgumentTypeError(f"{text!r}: choose among {', '.join(known)}")
        return names

    return parse


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.description = "Measure the server beside its peers, in the same run, turn by turn."
    parser.add_argument("--quick", action="store_true", help="everything small: to see that it works, not how fast")
    parser.add_argument("--scenario", type=_names(list(SCENARIOS)), default=list(SCENARIOS), metavar="a,b,...")
    parser.add_argument("--peers", type=_names(list(LABELS)), default=list(LABELS), metavar="nats,ws,...")
    parser.add_argument(
        "--before", type=Path, metavar="DIR", help="measure another state of lhttp_tx, too: the bin/ of its environment"
    )
    parser.add_argument("--rounds", type=int, help="turns of each server (default: 5, with --quick 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--svg", type=Path, metavar="DIR", help="write plots")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="measure nothing, show and plot an earlier run")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    if "lhttp" not in options.peers:
        options.peers.append("lhttp")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return 0, or 1 if messages were lost or a scenario was broken off."""
    options = _options(arguments)
    terminal = Terminal()
    if options.list:
        terminal.say("\n".join(f"{key}  {scenario.title}" for key, scenario in SCENARIOS.items()))
        return 0
    if options.from_json:
        results = Results.from_json(json.loads(options.from_json.read_text("utf-8")))
        for found in (*results.cases, *results.curves):
            terminal.finished(found)
    else:
        results = _run(options, terminal)
    for name, reason in results.skipped.items():
        terminal.say(f"left out: {name}: {reason}")
    if targets := targets_table(results):
        terminal.say(targets)
    if options.json:
        options.json.write_text(json.dumps(results.to_json(), indent=1) + "\n", encoding="utf-8")
    if options.svg:
        terminal.say("\n".join(str(path) for path in write_plots(results, options.svg)))
    return int(is_broken(results))


def is_broken(results: Results) -> bool:
    """Return whether lhttp_tx lost messages, in whatever row it stands, or a scenario was broken off."""
    peers = LABELS.keys() - {"lhttp"}
    lost = any(case.lost.keys() - peers for case in results.cases)
    return lost or any(reason.startswith("broken off") for reason in results.skipped.values())


def _run(options: argparse.Namespace, terminal: Terminal) -> Results:
    results = Results()
    chosen = cores()
    before = os.sched_getaffinity(0) if chosen else set()
    with tempfile.TemporaryDirectory() as directory:
        terminal.step("looking for the peers")
        peers = Peers(Path(directory), wanted=options.peers, before=options.before)
        results.about = _about(peers, options)
        terminal.say("\n".join(f"{name}: {value}" for name, value in results.about.items()))
        results.skipped |= {LABELS[key]: why for key, why in peers.missing.items() if why != "left out"}
        if not chosen:
            results.skipped["pinning"] = "there is one core, or no way to choose: server and load share it"
        _raise_file_limit(results)
        rounds = options.rounds or (2 if options.quick else 5)
        bench = Bench(peers=peers, results=results, progress=terminal, quick=options.quick, rounds=rounds)
        try:
            if chosen:
                os.sched_setaffinity(0, chosen[1])
            for key in options.scenario:
                try:
                    SCENARIOS[key].run(bench)
                except (Lost, OSError, RuntimeError) as error:
                    results.skipped[key] = f"broken off: {error}"
        except KeyboardInterrupt:
            results.skipped["the rest"] = "interrupted"
        finally:
            if chosen:
                os.sched_setaffinity(0, before)
    results.about["load average at the end"] = _load_average()
    return results


def _about(peers: Peers, options: argparse.Namespace) -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    versions = {"python": platform.python_version(), **peers.versions()}
    return {
        "command": shlex.join(["python", "-m", "benchmarks", *_chosen(options)]),
        "time": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cpu": f"{os.cpu_count()} x {models[0] if models else platform.processor()}",
        "system": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "load average at the start": _load_average(),
    }


def _chosen(options: argparse.Namespace) -> list[str]:
    """Return the options that decide what is measured."""
    chosen = ["--quick"] if options.quick else []
    if options.scenario != list(SCENARIOS):
        chosen += ["--scenario", ",".join(options.scenario)]
    if options.peers != list(LABELS):
        chosen += ["--peers", ",".join(options.peers)]
    return [*chosen, "--rounds", str(options.rounds)] if options.rounds else chosen


def _load_average() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def _raise_file_limit(results: Results) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILE_LIMIT if hard == resource.RLIM_INFINITY else min(FILE_LIMIT, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < FILE_LIMIT:
        results.skipped["open files"] = f"the limit is {wanted}: the largest scenarios may fail"


if __name__ == "__main__":
    sys.exit(main())
