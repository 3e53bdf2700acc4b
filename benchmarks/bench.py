"""
One turn after another: A B A B, so that whatever else the machine does falls on all servers alike.

Used by :mod:`benchmarks.scenarios`.
"""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.dialects import Dialect
from benchmarks.figures import Case, Curve, Results, percentile
from benchmarks.load import Lost, Outcome, Readers, close_all, open_connections, open_streams, request
from benchmarks.servers import LABELS, Group, Peers, Server

__all__ = ["Bench", "Connections", "Prepare", "Progress", "Turn"]


class Progress(Protocol):
    """Where a run says how far it is."""

    def step(self, text: str) -> None:
        """Say what is done now; not while something is measured."""

    def finished(self, found: Case | Curve) -> None:
        """Show a result."""


class Connections:
    """Makes a turn's connections and closes them when its scenario ends."""

    def __init__(self, stack: ExitStack, peers: Peers, *, tls: bool) -> None:
        self._stack = stack
        self._context = peers.tls_context() if tls else None

    def open(self, server: Server, count: int = 1) -> list[socket.socket]:
        """Open connections that have said hello."""
        dialect = server.dialect
        if dialect.plain:
            made = open_streams(server.port, count)
        else:
            made = open_connections(server.port, count, dialect.path, self._context, dialect.subprotocol)
        self._stack.callback(close_all, made, reset=count > 100)
        if dialect.hello:
            request(made, [dialect.hello] * count, dialect.welcome)
        return made

    def subscribe(self, server: Server, channels: Sequence[list[str]]) -> list[socket.socket]:
        """Open a connection for each item of *channels*, subscribed to these."""
        made = self.open(server, len(channels))
        request(made, [server.dialect.subscribe(names) for names in channels], server.dialect.subscribed)
        return made

    def readers(self, made: Sequence[socket.socket], dialect: Dialect) -> Readers:
        """Return *made* as connections that count, once nothing more comes unasked."""
        readers = Readers(made, framed=dialect.framed, separator=dialect.separator)
        self._stack.callback(readers.close)
        return readers


Prepare = Callable[[Server, Connections], Callable[[], Outcome]]
"""Makes the connections to a server and returns what is one turn of load."""


@dataclass(slots=True)
class Turn:
    """Something to be measured in turn with others: a row of the table, its server, and its load."""

    row: str
    server: Server | Group
    run: Callable[[], Outcome]


class Bench:
    """
    One run of the benchmarks.

    :ivar quick: whether everything is to be small, to see that it works.
    """

    def __init__(self, *, peers: Peers, results: Results, progress: Progress, quick: bool, rounds: int) -> None:
        self.peers = peers
        self.results = results
        self.progress = progress
        self.quick = quick
        self.rounds = rounds

    def choose(self, full: Any, quick: Any) -> Any:
        """Return one of two sizes."""
        return quick if self.quick else full

    def compare(
        self,
        key: str,
        title: str,
        unit: str,
        rows: Sequence[str],
        prepare: Prepare,
        *,
        tls: bool = False,
        **options: Any,
    ) -> Case:
        """
        Measure the servers *rows* under the same load, and report it.

        :param options: further ones for :meth:`Peers.running`.
        """
        case = Case(key, title, unit)
        with ExitStack() as stack:
            turns = []
            for row in self.peers.among(rows):
                self.progress.step(f"{title}: starting {LABELS[row]}")
                server = stack.enter_context(self.peers.running(row, tls=tls, **options))
                connections = Connections(stack.enter_context(ExitStack()), self.peers, tls=tls)
                try:
                    turns.append(Turn(row, server, prepare(server, connections)))
                except (Lost, OSError) as error:
                    case.lost[row] = str(error)
            self.settle(turns)
            self.take_turns(case, turns)
        self.report(case)
        return case

    def settle(self, turns: Sequence[Turn]) -> None:
        """Wait until the servers have said what they say unasked."""
        time.sleep(max((turn.server.dialect.settle for turn in turns), default=0.0))

    def take_turns(self, case: Case, turns: Sequence[Turn]) -> None:
        """Run each turn once unmeasured, then all of them one after another for some rounds."""
        for number in range(self.rounds + 1):
            for turn in turns:
                if turn.row in case.lost:
                    continue
                state = f"round {number} of {self.rounds}" if number else "warming up"
                self.progress.step(f"{case.title}: {state}, {LABELS.get(turn.row, turn.row)}")
                try:
                    figures = self.measure(turn.server, turn.run)
                except (Lost, OSError) as error:
                    case.lost[turn.row] = str(error)
                    continue
                if number:
                    case.add(turn.row, figures)

    def measure(self, server: Server | Group, run: Callable[[], Outcome]) -> dict[str, float]:
        """Run one turn; return its figures."""
        gc.collect()
        gc.disable()
        try:
            server_before, load_before = server.settled_cpu(), time.process_time()
            outcome = run()
            load = time.process_time() - load_before
            cpu = server.settled_cpu() - server_before
        finally:
            gc.enable()
        figures = {
            "rate": outcome.messages / outcome.seconds,
            "cpu": cpu / outcome.messages * 1e6,
            "load": load / outcome.messages * 1e6,
        }
        if outcome.latencies:
            figures["p50"] = percentile(outcome.latencies, 0.50) * 1e3
            figures["p99"] = percentile(outcome.latencies, 0.99) * 1e3
        return figures

    def report(self, found: Case | Curve) -> None:
        """Keep a result and show it."""
        if isinstance(found, Case):
            self.results.cases.append(found)
        else:
            self.results.curves.append(found)
        self.progress.finished(found)
