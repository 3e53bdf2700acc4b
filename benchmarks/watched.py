"""
What it costs to be watched: metrics on, Prometheus reading them, and the dashboard open in a browser.

Used by :mod:`benchmarks.scenarios`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.bench import Bench, Connections, Prepare, Turn
from benchmarks.cluster import BODY, ROOM, burst_between
from benchmarks.figures import Case
from benchmarks.load import Outcome, paced
from benchmarks.servers import Server

__all__ = ["PLAIN", "WATCHED", "watched"]

PLAIN = "nothing on"
WATCHED = "metrics, a dashboard open"

_TIMES = 10
_KEY = "the key of an operator of benchmarks"
_CONFIG = """
metrics = true
[admin]
listen = "tcp:0:interface=127.0.0.1"
[admin.keys.operator]
secret_file = "{directory}/operator"
methods = ["*"]
"""


def watched(bench: Bench) -> None:
    """(r)"""
    if importlib.util.find_spec("prometheus_client") is None:
        bench.results.skipped["r"] = "metrics need prometheus-client"
        return
    count = bench.choose(100_000, 500)
    title = f"{_TIMES} bursts of {count:,} publishes of 32 bytes, 1 to 1"
    _compare(bench, "r.burst", title, _bursts(1, count))
    subscribers, count = bench.choose((100, 2_000), (5, 100))
    title = f"{_TIMES} bursts of {count:,} publishes of 32 bytes, 1 to {subscribers:,}"
    _compare(bench, "r.fan-out", title, _bursts(subscribers, count))
    subscribers, rate, seconds = bench.choose((1_000, 100, 6.0), (20, 50, 0.5))
    title = f"{rate} publishes/s of 32 bytes, 1 to {subscribers:,}"
    _compare(bench, "r.paced", title, _paced(subscribers, rate, int(rate * seconds)))


def _compare(bench: Bench, key: str, title: str, load: Prepare) -> None:
    """Measure a server that nobody watches, another one like it, and one that is watched."""
    case = Case(key, f"{title}, by who looks on", "deliveries")
    directory = bench.peers.scratch
    (directory / "operator").write_text(_KEY, encoding="ascii")
    (directory / "operator").chmod(0o600)
    config = directory / "watched.toml"
    config.write_text(_CONFIG.format(directory=directory), encoding="utf-8")
    with ExitStack() as stack:
        bench.progress.step(f"{case.title}: starting")
        turns = []
        for row in (PLAIN, f"{PLAIN}, again", WATCHED):
            options = ("--config", str(config)) if row == WATCHED else ()
            server = stack.enter_context(bench.peers.running("lhttp", options=options))
            connections = Connections(stack.enter_context(ExitStack()), bench.peers, tls=False)
            turns.append(Turn(row, server, load(server, connections)))
            if row == WATCHED:
                stack.enter_context(_onlooker(server))
        bench.settle(turns)
        bench.take_turns(case, turns)
    bench.report(case)


@contextmanager
def _onlooker(server: Server) -> Iterator[None]:
    """Let somebody look at a server while the block lasts, beside the load."""
    port = server.wait_for(r"admin side on 127\.0\.0\.1:(\d+)")
    path = str(Path(__file__).with_name("peers") / "onlooker.py")
    command = [sys.executable, path, port]
    process = subprocess.Popen(command, env=os.environ | {"ONLOOKER_KEY": _KEY}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"looking\n":
            raise RuntimeError("nobody looks at the server")
        yield
        if process.poll() is not None:
            raise RuntimeError("nobody looks at the server any more")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _bursts(subscribers: int, publications: int) -> Prepare:
    """Return a load: several bursts a turn, as one takes less CPU time than can be told apart."""

    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        burst = burst_between(server, server, connections, subscribers, publications)

        def run() -> Outcome:
            outcomes = [burst() for _ in range(_TIMES)]
            return Outcome(sum(each.messages for each in outcomes), sum(each.seconds for each in outcomes))

        return run

    return prepare


def _paced(subscribers: int, rate: int, publications: int) -> Prepare:
    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        dialect = server.dialect
        made = connections.subscribe(server, [[ROOM]] * subscribers)
        (writer,) = connections.open(server)
        readers = connections.readers(made, dialect)
        data, size = dialect.publish(ROOM, BODY), dialect.delivery_size(ROOM, BODY)

        def run() -> Outcome:
            readers.drain()
            return paced(readers, writer, data, size, rate, publications)

        return run

    return prepare
