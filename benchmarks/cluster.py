"""
What it costs to publish through NATS: from one node to another, beside one node alone, and beside the state before.

Used by :mod:`benchmarks.scenarios`.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.bench import Bench, Connections, Turn
from benchmarks.figures import Case
from benchmarks.load import Outcome, burst, trips
from benchmarks.servers import Group, Server
from benchmarks.wire import client_frame, frame_size

__all__ = ["BODY", "ROOM", "burst_between", "cluster"]

BODY = b"x" * 32
ROOM = "room"

_Load = Callable[[Server, Server, Connections, str], Callable[[], Outcome]]
"""Makes the connections of one turn: where to publish, where to subscribe, and the channel."""


def burst_between(
    source: Server,
    target: Server,
    connections: Connections,
    subscribers: int,
    publications: int,
    bodies: Sequence[bytes] = (BODY,),
    room: str = ROOM,
) -> Callable[[], Outcome]:
    """Return a load: the publisher is at one server and the subscribers are at another."""
    dialect = source.dialect
    made = connections.subscribe(target, [[room]] * subscribers)
    (writer,) = connections.open(source)
    readers = connections.readers(made, dialect)
    published = list(itertools.islice(itertools.cycle(bodies), publications))
    data = b"".join(dialect.publish(room, body) for body in published)
    expected = sum(dialect.delivery_size(room, body) for body in published)

    def run() -> Outcome:
        readers.drain()
        return burst(readers, writer, data, publications, expected)

    return run


def _delivered(turns: int) -> _Load:
    """Return a load: one publication in flight, until it is delivered."""

    def prepare(source: Server, target: Server, connections: Connections, room: str) -> Callable[[], Outcome]:
        dialect = source.dialect
        readers = connections.readers(connections.subscribe(target, [[room]]), dialect)
        (writer,) = connections.open(source)

        def run() -> Outcome:
            readers.drain()
            return trips(readers, writer, [dialect.publish(room, BODY)] * turns, dialect.delivery_size(room, BODY))

        return run

    return prepare


def _confirmed(turns: int) -> _Load:
    """Return a load: one publication in flight, until its receipt has come."""
    first = 100_000  # all numbers of receipts have as many digits

    def prepare(source: Server, target: Server, connections: Connections, room: str) -> Callable[[], Outcome]:
        (writer,) = connections.open(source)
        readers = connections.readers([writer], source.dialect)
        numbers = itertools.count(first)
        size = frame_size(len(f"LHTTP/1.0 receipt\r\nreceipt-id:{first}\r\n\r\n"))

        def run() -> Outcome:
            readers.drain()
            head = f"LHTTP/1.0 chat\r\npublish:{room}\r\nreceipt:"
            sent = [client_frame(f"{head}{next(numbers)}\r\n\r\n".encode("ascii") + BODY) for _ in range(turns)]
            return trips(readers, writer, sent, size)

        return run

    return prepare


@dataclass(slots=True)
class _Nodes:
    """One state of lhttp_tx: a node alone, and two nodes on one NATS server."""

    label: str
    alone: Server
    here: Server
    there: Server


@contextmanager
def _nodes(bench: Bench, key: str, label: str, options: tuple[str, ...]) -> Iterator[_Nodes]:
    with ExitStack() as stack:
        alone = stack.enter_context(bench.peers.running(key))
        here, there = (stack.enter_context(bench.peers.running(key, options=options)) for _ in range(2))
        for node in (here, there):
            node.wait_for("(connected to NATS)")
        yield _Nodes(label, alone, here, there)


def cluster(bench: Bench) -> None:
    """(k)"""
    if "nats" in bench.peers.missing or importlib.util.find_spec("nats") is None:
        bench.results.skipped["k"] = bench.peers.missing.get("nats", "nats-py is not installed (pip install nats-py)")
        return
    count, many, turns = bench.choose((10_000, 1_000, 2_000), (500, 50, 20))

    def bursts(subscribers: int, publications: int) -> _Load:
        return lambda source, target, connections, room: burst_between(
            source, target, connections, subscribers, publications, room=room
        )

    with ExitStack() as stack:
        bench.progress.step("nodes of a cluster: starting")
        nats = stack.enter_context(bench.peers.running("nats"))
        options = ("--nats", "nats://" + nats.wait_for(r"client connections on (127\.0\.0\.1:\d+)"))
        states = [
            stack.enter_context(_nodes(bench, key, ", before" if key == "before" else "", options))
            for key in bench.peers.among(["lhttp"])
        ]
        for key, title, unit, load in (
            ("k", f"burst of {count:,} publishes of 32 bytes, 1 to 1, between nodes", "deliveries", bursts(1, count)),
            ("k.100", f"burst of {many:,} publishes, 1 to 100, between nodes", "deliveries", bursts(100, many)),
            ("k.trip", "one publication in flight, until it is delivered", "deliveries", _delivered(turns)),
            ("k.receipt", "one publication in flight, until its receipt has come", "receipts", _confirmed(turns)),
        ):
            _compare(bench, Case(key, title, unit), states, nats, load)


def _compare(bench: Bench, case: Case, states: Sequence[_Nodes], nats: Server, load: _Load) -> None:
    with ExitStack() as stack:
        connections = Connections(stack, bench.peers, tls=False)
        turns = []
        for state in states:
            here, there = state.here, state.there
            for row, source, target, others in (
                ("one node, no NATS", state.alone, state.alone, ()),
                ("one node of two", here, here, (there, nats)),
                ("from node to node", here, there, (there, nats)),
            ):
                room = f"room{len(turns)}"
                turns.append(Turn(row + state.label, Group(source, *others), load(source, target, connections, room)))
        bench.settle(turns)
        bench.take_turns(case, turns)
    bench.report(case)
