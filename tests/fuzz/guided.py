"""
The coverage-guided fuzzer: Atheris, one process for each target.

    python -m fuzz.guided [--seconds N] [--corpus DIRECTORY] [--crashes DIRECTORY] [TARGET...]
    python -m fuzz.guided --replay FILE...

Each target begins with what the golden vectors hold and with what earlier runs found; what is found now is kept in the
corpus. An input that breaks a target is kept too, and the line is printed that replays it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_MAX_SIZE = 4_096
"""Bytes of an input."""

_ONE_INPUT = 10
"""Seconds that one input may take."""

_MEMORY = 1_024
"""MiB that the process may take."""

_FIGURES = re.compile(rb"cov: (\d+) ft: (\d+) corp: (\d+)")


def _fuzz(target: str, arguments: list[str]) -> None:
    """Become the fuzzer of *target*; it ends the process."""
    import atheris

    with atheris.instrument_imports(include=["lhttp_tx"]):
        from fuzz.targets import TARGETS

    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


def _replay(file: Path) -> None:
    """Give the input in *file* to the target that its name begins with; raises what the target raises."""
    from fuzz.targets import TARGETS

    data = file.read_bytes()
    target = file.name.partition("-")[0]
    if target not in TARGETS:
        raise SystemExit(f"{file}: its name must begin with a target and a dash; targets: {' '.join(TARGETS)}")
    print(f"{target}: {data!r}", flush=True)
    TARGETS[target](data)
    print(f"{target}: passed")


def _run(target: str, seconds: int, corpus: Path, crashes: Path) -> bool:
    """Fuzz *target* in a process of its own, print what came of it in a line, and return whether nothing broke."""
    from fuzz.seeds import seeds

    grown = corpus / target
    grown.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        for number, seed in enumerate(seeds(target)):
            Path(directory, f"{number:04}").write_bytes(seed)
        command = [sys.executable, "-m", "fuzz.guided", "--fuzz", target, "--", str(grown), directory]
        limits = [f"-max_total_time={seconds}", f"-max_len={_MAX_SIZE}", f"-timeout={_ONE_INPUT}"]
        output = [f"-artifact_prefix={crashes}/{target}-", f"-rss_limit_mb={_MEMORY}", "-print_final_stats=1"]
        process = subprocess.Popen([*command, *limits, *output], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        log = process.stdout.read()
        status = process.wait()
    figures = _FIGURES.findall(log)
    coverage, features, inputs = figures[-1] if figures else (b"0", b"0", b"0")
    executed = _statistic(log, "number_of_executed_units")
    speed = _statistic(log, "average_exec_per_sec")
    print(
        f"{target:11} {executed:>10,} inputs ({speed:,}/s), coverage {int(coverage)}, features {int(features)}, "
        f"corpus {int(inputs)}: {'nothing found' if status == 0 else f'FAILED (status {status})'}",
        flush=True,
    )
    if status:
        print(log.decode("utf-8", "backslashreplace")[-8_000:])
        for file in re.findall(rb"written to (\S+)", log):
            print(f"replay it with: tox -e fuzz -- --replay {file.decode()}", flush=True)
    elif not executed:
        print(f"{target}: not one input was tried\n{log.decode('utf-8', 'backslashreplace')[-2_000:]}")
        return False
    return status == 0


def _statistic(log: bytes, name: str) -> int:
    found = re.search(rb"stat::%s:\s+(\d+)" % name.encode("ascii"), log)
    return int(found[1]) if found else 0


def main() -> int:
    """Read the command line, fuzz or replay, and return the exit status."""
    parser = argparse.ArgumentParser(prog="fuzz.guided", description="Fuzz the codec and the connection.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="what to fuzz; all if left out")
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together (default 600)")
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz/corpus"), help="where what is found is kept")
    parser.add_argument("--crashes", type=Path, default=Path(".fuzz/crashes"), help="where what breaks is kept")
    parser.add_argument("--replay", type=Path, nargs="+", metavar="FILE", help="give these inputs to their targets")
    parser.add_argument("--fuzz", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args() if "--fuzz" not in sys.argv else (None, [])
    if options is None:
        _fuzz(sys.argv[2], sys.argv[4:])
        return 0
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    for file in options.replay or ():
        _replay(file)
    if options.replay:
        return 0
    from fuzz.targets import TARGETS

    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"unknown targets {' '.join(sorted(unknown))}; there are {' '.join(TARGETS)}")
    targets = options.targets or list(TARGETS)
    seconds = max(1, options.seconds // len(targets))
    passed = [_run(target, seconds, options.corpus, options.crashes) for target in targets]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
