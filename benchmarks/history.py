"""
What history costs: publishing to channels with and without it, receipts, and many clients that come back at once.

A scenario of :mod:`benchmarks.scenarios`.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from benchmarks.bench import Bench, Connections, Prepare, Turn
from benchmarks.dialects import HistoryDialect
from benchmarks.figures import Case
from benchmarks.load import PATIENCE, Lost, Outcome, burst, exchange
from benchmarks.servers import Group, Server
from benchmarks.wire import MarkCounter, PayloadMeter

__all__ = ["history"]

BODY = b"x" * 32
ROOM = "room"

_SILENCE = 0.5
"""Seconds after which a server that has answered has nothing to add."""

_LONG = "no history, as long"
"""
The row whose publications are as long without history as those of the other rows with it: what then is left of the
difference is the work, and the rest is the copying of the two headers.
"""

_WINDOW = 10
"""Publications with receipts at a time, where it does not matter how many."""


def _rows(bench: Bench) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the rows of every table, each with its server and how that is started."""
    database = f"sqlite:{bench.peers.scratch}/history-{time.time_ns()}.db"
    rows: dict[str, tuple[str, tuple[str, ...]]] = {
        "no history": ("lhttp", ()),
        "no history, again": ("lhttp", ()),
        _LONG: ("lhttp", ()),
        "memory": ("lhttp", ("--history", ROOM)),
        "SQLite": ("lhttp", ("--history", ROOM, "--history-store", database)),
    }
    return rows | {key: (key, ()) for key in bench.peers.among(["centrifugo"])}


def _dialect(server: Server) -> HistoryDialect:
    if not isinstance(server.dialect, HistoryDialect):
        raise TypeError(f"{server.key} has no history")
    return server.dialect


def _run(
    bench: Bench,
    source: Server,
    target: Server,
    connections: Connections,
    subscribers: int,
    count: int,
    *,
    is_kept: bool,
    is_long: bool = False,
) -> Callable[[], Outcome]:
    """
    Return a load: *count* publications at *source* at once, every subscriber at *target* gets each.

    :param is_long: whether they are as long as those in the middle of the load would be with history.
    """
    dialect = _dialect(source)
    middle = count * bench.rounds // 2
    body = BODY
    if is_long:
        body += b"x" * (dialect.kept_size(ROOM, BODY, middle) - dialect.delivery_size(ROOM, BODY))
    made = connections.subscribe(target, [[ROOM]] * subscribers)
    (writer,) = connections.open(source)
    readers = connections.readers(made, dialect)
    data = dialect.burst(ROOM, body, count)
    sizes = [dialect.delivery_size(ROOM, body) * count] * (bench.rounds + 1)
    if is_kept:
        offsets = [range(first, first + count) for first in range(1, count * len(sizes), count)]
        sizes = [sum(dialect.kept_size(ROOM, BODY, offset) for offset in those) for those in offsets]
    expected = iter(sizes)

    def run() -> Outcome:
        readers.drain()
        return burst(readers, writer, data, count, next(expected))

    return run


def _burst(bench: Bench, subscribers: int, count: int, row: str) -> Prepare:
    """Return that load with all at one server."""
    is_kept = not row.startswith("no")

    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        return _run(bench, server, server, connections, subscribers, count, is_kept=is_kept, is_long=row == _LONG)

    return prepare


def _batches(dialect: HistoryDialect, window: int, count: int) -> list[bytes]:
    """Return *count* times what publishes *window* messages with receipts, each under a number of its own."""
    return [
        b"".join(dialect.numbered(ROOM, BODY, number) for number in range(first, first + window))
        for first in range(1, count * window + 1, window)
    ]


def _receipts(bench: Bench, publishers: int, window: int, turns: int) -> Prepare:
    """
    Return a load: each publisher sends *window* messages with receipts, and again when all of these are there.

    A publisher numbers its messages from 1 and repeats none of its numbers, as a client does.

    :param turns: how often each does that in one turn of the benchmark.
    """

    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        dialect = _dialect(server)
        made = connections.open(server, publishers)
        batches = _batches(dialect, window, (bench.rounds + 1) * turns)
        firsts = itertools.count(0, turns)

        def run() -> Outcome:
            first = next(firsts)
            return _exchange(made, batches[first : first + turns], window, dialect.receipt)

        return run

    return prepare


def _exchange(made: Sequence[socket.socket], batches: Sequence[bytes], window: int, receipt: bytes) -> Outcome:
    """
    Send *batches* on every connection, each as soon as all receipts of the one before are there.

    :param window: the publications of a batch.
    :param receipt: what each receipt holds once.
    """
    poller = select.epoll()
    sockets = {sock.fileno(): sock for sock in made}
    begun = dict.fromkeys(sockets, 1)
    seen = dict.fromkeys(sockets, 0)
    counters = {number: MarkCounter(receipt) for number in sockets}
    unfinished = set(sockets)
    for number in sockets:
        poller.register(number, select.EPOLLIN)
    start = time.perf_counter()
    for sock in made:
        sock.sendall(batches[0])
    while unfinished:
        events = poller.poll(PATIENCE)
        if not events:
            raise Lost(f"{len(made) * len(batches) * window - sum(seen.values())} receipts did not come")
        for number, _ in events:
            data = sockets[number].recv(1 << 20)
            if not data:
                raise Lost("the server closed a connection")
            seen[number] += counters[number].feed(data)
            if seen[number] > begun[number] * window:
                raise Lost("more receipts came than were asked for")
            if seen[number] == begun[number] * window:
                if begun[number] < len(batches):
                    sockets[number].sendall(batches[begun[number]])
                    begun[number] += 1
                else:
                    unfinished.discard(number)
    seconds = time.perf_counter() - start
    poller.close()
    return Outcome(sum(seen.values()), seconds)


def _recover(bench: Bench, clients: int, count: int) -> Prepare:
    """Return a load: clients that have lost their connections come back, and each has missed *count* messages."""

    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        dialect = _dialect(server)
        watcher, writer, probe = connections.open(server, 3)
        found = dialect.position.search(_answer(watcher, dialect.subscribe([ROOM]), dialect.position))
        watcher.close()
        _exchange([writer], _batches(dialect, _WINDOW, count // _WINDOW), _WINDOW, dialect.receipt)
        message = dialect.resume(ROOM, found.groups() if found else ())
        answer = _answer(probe, message, dialect.recovered)
        if answer.count(BODY) != count:
            raise Lost(f"{answer.count(BODY)} of {count} messages were recovered")
        size = PayloadMeter(dialect.separator).feed(answer) if dialect.framed else len(answer)

        def run() -> Outcome:
            with ExitStack() as stack:
                back = Connections(stack, bench.peers, tls=False)
                return exchange(back.readers(back.open(server, clients), dialect), message, size, count, clients)

        return run

    return prepare


def _answer(sock: socket.socket, message: bytes, pattern: re.Pattern[bytes]) -> bytes:
    """Send *message*; return what comes until *pattern* is found in it and nothing more has come for a while."""
    seen = b""
    sock.settimeout(PATIENCE)
    sock.sendall(message)
    while True:
        try:
            data = sock.recv(1 << 20)
        except TimeoutError:
            if pattern.search(seen):
                return seen
            raise Lost(f"no {pattern.pattern!r} in the {len(seen)} bytes that came") from None
        if not data:
            raise Lost("the server closed a connection")
        seen += data
        if pattern.search(seen):
            sock.settimeout(_SILENCE)


def history(bench: Bench) -> None:
    """(o)"""
    for subscribers, count in bench.choose(((1, 10_000), (100, 1_000), (1_000, 200)), ((5, 500),)):
        case = Case(f"o.{subscribers}", f"burst of {count:,} publishes of 32 bytes, 1 to {subscribers:,}", "deliveries")
        _compare(bench, case, lambda row, s=subscribers, c=count: _burst(bench, s, c, row))
    publishers, window, turns = bench.choose((100, 10, 100), (5, 5, 10))
    title = f"{publishers} publishers, {window} publications with receipts at a time"
    _compare(
        bench,
        Case("o.receipts", title, "receipts"),
        lambda row: None if row == _LONG else _receipts(bench, publishers, window, turns),
    )
    clients, count = bench.choose((100, 1_000), (5, 100))
    title = f"{clients} clients come back at once, and each has missed {count:,} messages"
    _compare(
        bench,
        Case("o.recover", title, "messages"),
        lambda row: None if row.startswith("no") else _recover(bench, clients, count),
    )
    _jetstream(bench)


def _compare(bench: Bench, case: Case, load: Callable[[str], Prepare | None]) -> None:
    """Measure a server with each store, and without any, and its peers."""
    with ExitStack() as stack:
        bench.progress.step(f"{case.title}: starting")
        turns = []
        for row, (key, options) in _rows(bench).items():
            prepare = load(row)
            if prepare is None:
                continue
            server = stack.enter_context(bench.peers.running(key, options=options))
            connections = Connections(stack.enter_context(ExitStack()), bench.peers, tls=False)
            try:
                turns.append(Turn(row, server, prepare(server, connections)))
            except (Lost, OSError) as error:
                case.lost[row] = str(error)
        bench.settle(turns)
        bench.take_turns(case, turns)
    bench.report(case)


def _jetstream(bench: Bench) -> None:
    """Measure a burst from one node of a cluster to another, with and without history in JetStream, on disk."""
    if "nats" in bench.peers.missing or importlib.util.find_spec("nats") is None:
        bench.results.skipped["o.cluster"] = bench.peers.missing.get("nats", "nats-py is not installed")
        return
    count = bench.choose(10_000, 500)
    case = Case("o.cluster", f"burst of {count:,} publishes of 32 bytes, 1 to 1, from node to node", "deliveries")
    with ExitStack() as stack:
        bench.progress.step(f"{case.title}: starting")
        turns = []
        for row, options in (("no history", ()), ("JetStream", ("--history", ROOM))):
            nats = stack.enter_context(bench.peers.running("nats"))
            url = "nats://" + nats.wait_for(r"client connections on (127\.0\.0\.1:\d+)")
            here, there = (
                stack.enter_context(bench.peers.running("lhttp", options=("--nats", url, *options))) for _ in range(2)
            )
            for node in (here, there):
                node.wait_for("(connected to NATS)")
            connections = Connections(stack.enter_context(ExitStack()), bench.peers, tls=False)
            run = _run(bench, here, there, connections, 1, count, is_kept=bool(options))
            turns.append(Turn(row, Group(here, there, nats), run))
        bench.settle(turns)
        bench.take_turns(case, turns)
    bench.report(case)
