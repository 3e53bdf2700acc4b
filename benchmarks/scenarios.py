"""
The scenarios, each under the letter by which ``--scenario`` names it.

Used by :mod:`benchmarks.__main__`.
"""

from __future__ import annotations

import importlib.util
import itertools
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench, Connections, Prepare, Turn
from benchmarks.cluster import BODY, ROOM, burst_between, cluster
from benchmarks.dialects import CENTRIFUGO_PLAIN, LHTTP, EventsDialect, LHTTPDialect, StreamDialect, ViewDialect
from benchmarks.figures import Case, Curve
from benchmarks.history import history
from benchmarks.load import Lost, Outcome, burst, close_all, exchange, open_connections, paced, rush
from benchmarks.servers import LABELS, Server
from benchmarks.watched import watched

__all__ = ["SCENARIOS", "Scenario"]

MIXED_BODIES = [b"x" * (8 + 17 * number % 49) for number in range(49)]
"""Bodies of 8 to 56 bytes, 32 on average, of which no two that follow each other are of one size."""

PUBSUB_PEERS = ("lhttp", "autobahn", "nats", "ws", "socketio")
ECHO_PEERS = ("lhttp", "autobahn", "ws", "socketio")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What ``--list`` shows, and what runs it."""

    title: str
    run: Callable[[Bench], None]


def _burst(bench: Bench, subscribers: int, publications: int, bodies: Sequence[bytes] = (BODY,)) -> Prepare:
    """Return a load: all publications as fast as they are taken, every subscriber gets each."""

    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        return burst_between(server, server, connections, subscribers, publications, bodies)

    return prepare


def bursts(bench: Bench) -> None:
    """(a)"""
    for count in bench.choose((10_000, 200_000), (2_000,)):
        title = f"burst of {count:,} publishes of 32 bytes, 1 to 1"
        bench.compare(f"a.{count}", title, "deliveries", PUBSUB_PEERS, _burst(bench, 1, count))
    count = bench.choose(10_000, 2_000)
    title = f"burst of {count:,} publishes of 8 to 56 bytes, 1 to 1"
    bench.compare("a.mixed", title, "deliveries", PUBSUB_PEERS, _burst(bench, 1, count, MIXED_BODIES))


def fan_out(bench: Bench) -> None:
    """(b)"""
    for subscribers, publications in bench.choose(((100, 1_000), (1_000, 200)), ((20, 200),)):
        title = f"burst of {publications:,} publishes of 32 bytes, 1 to {subscribers:,}"
        prepare = _burst(bench, subscribers, publications)
        bench.compare(f"b.{subscribers}", title, "deliveries", PUBSUB_PEERS, prepare)
    publishers, publications, subscribers = bench.choose((50, 20, 100), (5, 20, 10))
    title = f"{publishers} publishers of {publications} messages of 32 bytes at once, to {subscribers}"
    prepare = _rush(publishers, publications, subscribers)
    bench.compare(f"b.{publishers}x{publications}", title, "deliveries", PUBSUB_PEERS, prepare)


def _rush(publishers: int, publications: int, subscribers: int) -> Prepare:
    """Return a load: every publisher sends its messages at once, every subscriber gets each."""

    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        dialect = server.dialect
        readers = connections.readers(connections.subscribe(server, [[ROOM]] * subscribers), dialect)
        writers = connections.open(server, publishers)
        data = dialect.publish(ROOM, BODY) * publications
        expected = dialect.delivery_size(ROOM, BODY) * publications * publishers

        def run() -> Outcome:
            readers.drain()
            return rush(readers, writers, data, publications, expected)

        return run

    return prepare


def steady(bench: Bench) -> None:
    """(c)"""
    for subscribers, rate, seconds in bench.choose(((1_000, 100, 2.0), (100, 500, 2.0)), ((50, 50, 0.5),)):

        def prepare(
            server: Server,
            connections: Connections,
            subscribers: int = subscribers,
            rate: float = rate,
            publications: int = int(rate * seconds),
        ) -> Callable[[], Outcome]:
            dialect = server.dialect
            made = connections.subscribe(server, [[ROOM]] * subscribers)
            (writer,) = connections.open(server)
            readers = connections.readers(made, dialect)
            data, size = dialect.publish(ROOM, BODY), dialect.delivery_size(ROOM, BODY)

            def run() -> Outcome:
                readers.drain()
                return paced(readers, writer, data, size, rate, publications)

            return run

        bench.compare(
            f"c.{subscribers}",
            f"{rate} publishes/s of 32 bytes, 1 to {subscribers:,}",
            "deliveries",
            ("lhttp", "bare", *PUBSUB_PEERS[1:]),
            prepare,
            publication=LHTTP.message(ROOM, BODY).decode("ascii"),
        )


def _echo(connection_count: int, window: int, turns: int, command: str = "echo") -> Prepare:
    """Return a load: each connection sends *window* messages, again and again when all are answered."""

    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        dialect = server.dialect
        readers = connections.readers(connections.open(server, connection_count), dialect)
        data = dialect.echo(BODY, command) * window
        size = dialect.echo_size(BODY, command) * window

        def run() -> Outcome:
            readers.drain()
            return exchange(readers, data, size, window, turns)

        return run

    return prepare


def echoes(bench: Bench) -> None:
    """(d)"""
    turns = bench.choose(3_000, 100)
    bench.compare("d.1", "echo, 1 connection, 1 message at a time", "echoes", ECHO_PEERS, _echo(1, 1, turns))
    for count, window in bench.choose(((10, 1), (100, 1), (10, 100), (100, 100)), ((5, 20),)):
        total = bench.choose(100_000 if window > 1 else 10_000, 1_000)
        bench.compare(
            f"d.{count}x{window}",
            f"echo, {count} connections, {window} message{'s' * (window > 1)} at a time",
            "echoes",
            ECHO_PEERS,
            _echo(count, window, total // window),
        )


def processor_kinds(bench: Bench) -> None:
    """(e)"""
    case = Case("e", "echo by kind of processor, 10 connections, 100 messages at a time", "echoes")
    commands = {
        "plain": "echo",
        "Deferred, fired": "echo-deferred",
        "coroutine, no wait": "echo-coroutine",
        "coroutine, one turn": "echo-waiting",
    }
    with bench.peers.running("lhttp") as server, ExitStack() as stack:
        connections = Connections(stack, bench.peers, tls=False)
        window, count = bench.choose((100, 500), (20, 20))
        turns = [
            Turn(row, server, _echo(10, window, count, command)(server, connections))
            for row, command in commands.items()
        ]
        bench.take_turns(case, turns)
    bench.report(case)


def bodies(bench: Bench) -> None:
    """(f)"""
    sizes = ((1_024, 5_000), (16_384, 1_000), (61_440, 300))
    for size, publications in bench.choose(sizes, ((1_024, 200),)):
        title = f"burst of {publications:,} publishes of {size // 1024} KiB, 1 to 10"
        bench.compare(f"f.{size}", title, "deliveries", PUBSUB_PEERS, _burst(bench, 10, publications, [b"x" * size]))


def _open(count: int, query: str = "") -> Prepare:
    """Return a load: connections that are opened and lost; the CPU time is that of both."""

    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        def run() -> Outcome:
            start = time.perf_counter()
            made = open_connections(server.port, count, server.dialect.path + query)
            seconds = time.perf_counter() - start
            close_all(made, reset=True)
            return Outcome(count, seconds)

        return run

    return prepare


def idle(bench: Bench) -> None:
    """(g)"""
    count = bench.choose(1_000, 50)
    title = f"{count:,} connections opened, {min(count, 32)} at a time"
    bench.compare("g.accept", title, "connections", PUBSUB_PEERS, _open(count), ping=30)
    total = bench.choose(10_000, 200)
    case = Case(
        "g.memory", f"memory of {total:,} idle connections, each subscribed to 1 of 100 channels", "connections"
    )
    for row in bench.peers.among(PUBSUB_PEERS):
        bench.progress.step(f"{case.title}: {LABELS[row]}")
        with bench.peers.running(row, ping=30) as server, ExitStack() as stack:
            connections = Connections(stack, bench.peers, tls=False)
            names = [[f"idle{number % 100}"] for number in range(total)]
            try:
                connections.subscribe(server, names[:100])
                server.settled_cpu()
                before = server.memory()
                connections.subscribe(server, names)
                server.settled_cpu()
                case.add(row, {"memory": (server.memory() - before) / total / 1024})
            except (Lost, OSError) as error:
                case.lost[row] = str(error)
    bench.report(case)


def _channel_load(
    bench: Bench, server: Server, connections: Connections, channels: int, publications: int
) -> tuple[Callable[[], Outcome], float]:
    """Subscribe to that many channels, 100 a connection; return the load of one publish to each in turn, and memory."""
    dialect = server.dialect
    per_connection = min(100, channels)
    names = [f"c{number:06}" for number in range(channels)]
    before = server.memory()
    made = connections.subscribe(server, [list(group) for group in _grouped(names, per_connection)])
    server.settled_cpu()
    memory = (server.memory() - before) / channels / 1024
    (writer,) = connections.open(server)
    readers = connections.readers(made, dialect)
    # Neighbours in the order of publishing are on different connections.
    order = [name for group in itertools.zip_longest(*_grouped(names, per_connection)) for name in group if name]
    rounds = publications // channels
    data = b"".join(dialect.publish(name, BODY) for name in order) * rounds
    expected = dialect.delivery_size(names[0], BODY, per_connection) * per_connection * rounds

    def run() -> Outcome:
        readers.drain()
        outcome = burst(readers, writer, data, publications, expected)
        return Outcome(publications, outcome.seconds)

    return run, memory


def _grouped(names: Sequence[str], size: int) -> list[Sequence[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]


def channels(bench: Bench) -> None:
    """(h)"""
    publications = bench.choose(100_000, 2_000)
    for count in bench.choose((1_000, 100_000), (200,)):
        memory: dict[str, float] = {}

        def prepare(
            server: Server, connections: Connections, count: int = count, memory: dict[str, float] = memory
        ) -> Callable[[], Outcome]:
            run, memory[server.key] = _channel_load(bench, server, connections, count, publications)
            return run

        title = f"burst of {publications:,} publishes over {count:,} channels, 1 subscriber each"
        bench.compare(f"h.{count}", title, "deliveries", ("lhttp", "autobahn", "nats"), prepare)
        found = Case(
            f"h.{count}.memory", f"memory of each of {count:,} channels, its share of a connection included", ""
        )
        for row, value in memory.items():
            found.add(row, {"memory": value})
        bench.report(found)


def posts(bench: Bench) -> None:
    """(i)"""
    count, turns = bench.choose((10, 5_000), (4, 100))

    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        message = LHTTP.message(ROOM, BODY)
        data = b"POST /publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (len(message), message)
        (subscriber,) = connections.subscribe(server, [[ROOM]])
        made = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
        made[0].sendall(data)
        answer = made[0].recv(65_536)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise Lost(f"POST was refused: {answer[:60]!r}")
        for sock in made:
            sock.setblocking(False)
        readers = connections.readers(made, LHTTP)
        expected = LHTTP.delivery_size(ROOM, BODY) * turns

        def run() -> Outcome:
            _read(subscriber)
            outcome = exchange(readers, data, len(answer), 1, turns)
            received = _read(subscriber)
            if received != expected:
                raise Lost(f"{expected - received} bytes did not reach the subscriber")
            return outcome

        return run

    bench.compare(
        "i", f"POST /publish on {count} kept-alive connections, 1 subscriber", "requests", ("lhttp",), prepare
    )


def _read(sock: socket.socket) -> int:
    total = 0
    try:
        while size := len(sock.recv(1 << 20)):
            total += size
    except BlockingIOError:
        pass
    return total


def growth(bench: Bench) -> None:
    """(j)"""
    _grow_by_load(
        bench,
        Curve("j.subscribers", "A publish, by its subscribers", "subscribers", "server CPU us a publish"),
        [(count, count, 500, BODY) for count in bench.choose((1, 100, 300, 600, 1_000), (1, 20))],
        per_publication=True,
    )
    sizes = bench.choose((32, 1_024, 4_096, 16_384, 32_768, 61_440), (32, 1_024))
    _grow_by_load(
        bench,
        Curve("j.size", "A delivery, 1 to 1, by its size", "bytes of body", "server CPU us a delivery"),
        [
            (size, 1, max(500, min(10_000, 10_000_000 // size)) if not bench.quick else 100, b"x" * size)
            for size in sizes
        ],
        per_publication=False,
    )
    _grow_by_company(
        bench,
        Curve(
            "j.channels",
            "A publish, 1 to 1, by other channels",
            "other channels, each with a subscriber",
            "times its cost without",
            untouched=True,
        ),
        bench.choose((0, 20_000, 50_000, 100_000), (0, 500)),
        per_connection=100,
    )
    _grow_by_company(
        bench,
        Curve(
            "j.connections",
            "A publish, 1 to 1, by other connections",
            "other idle connections, subscribed",
            "times its cost without",
            untouched=True,
        ),
        bench.choose((0, 2_000, 4_000, 6_000), (0, 100)),
        per_connection=1,
    )


GROWTH_PEERS = ("lhttp", "autobahn", "nats")
_ALONE = ", alone"


def _grow_by_load(
    bench: Bench, curve: Curve, points: Sequence[tuple[int, int, int, bytes]], *, per_publication: bool
) -> None:
    """Measure the points ``(x, subscribers, publications, body)``, at each of them the servers turn by turn."""
    for x, subscribers, publications, body in points:
        case = Case(curve.key, f"{curve.title}: {x:,}", "")
        with ExitStack() as stack:
            turns = []
            for row in GROWTH_PEERS:
                if row not in bench.peers.missing:
                    server = stack.enter_context(bench.peers.running(row))
                    connections = Connections(stack.enter_context(ExitStack()), bench.peers, tls=False)
                    turns.append(
                        Turn(row, server, _burst(bench, subscribers, publications, [body])(server, connections))
                    )
            bench.settle(turns)
            bench.take_turns(case, turns)
        _add_points(bench, curve, case, x, subscribers if per_publication else 1)
    bench.report(curve)


def _grow_by_company(bench: Bench, curve: Curve, points: Sequence[int], *, per_connection: int) -> None:
    """
    Measure a burst 1 to 1 while more and more that it does not touch stands by.

    What it costs then is compared with what it costs, right before, at a server of the same kind that stands alone: the
    points of a curve are minutes apart, and the machine is not always equally fast.
    """
    load = _burst(bench, 1, bench.choose(20_000, 500))
    with ExitStack() as stack:
        turns, companions, present = [], [], 0
        for row in GROWTH_PEERS:
            if row not in bench.peers.missing:
                for name in (f"{row}{_ALONE}", row):
                    server = stack.enter_context(bench.peers.running(row))
                    connections = Connections(stack.enter_context(ExitStack()), bench.peers, tls=False)
                    turns.append(Turn(name, server, load(server, connections)))
                companions.append((server, connections))
        for x in points:
            names = [f"other{number:06}" for number in range(present, x)]
            present = x
            for server, connections in companions:
                bench.progress.step(f"{curve.title}: {x:,}, {LABELS[server.key]}")
                if names:
                    connections.subscribe(server, [list(group) for group in _grouped(names, per_connection)])
            bench.settle(turns)
            case = Case(curve.key, f"{curve.title}: {x:,}", "")
            bench.take_turns(case, turns)
            for row in GROWTH_PEERS:
                if row in case.rows and f"{row}{_ALONE}" in case.rows:
                    costs = zip(case.rows[row]["cpu"], case.rows[f"{row}{_ALONE}"]["cpu"], strict=False)
                    times = statistics.median(cost / alone for cost, alone in costs)
                    curve.series.setdefault(row, []).append((x, times))
            _add_lost(bench, curve, case, x)
    bench.report(curve)


def _add_points(bench: Bench, curve: Curve, case: Case, x: float, factor: float) -> None:
    for row, figures in case.rows.items():
        curve.series.setdefault(row, []).append((x, statistics.median(figures["cpu"]) * factor))
    _add_lost(bench, curve, case, x)


def _add_lost(bench: Bench, curve: Curve, case: Case, x: float) -> None:
    for row, reason in case.lost.items():
        bench.results.skipped[f"{curve.key} at {x:,}, {LABELS.get(row, row)}"] = reason


def tls(bench: Bench) -> None:
    """(l)"""
    rows = ("lhttp", "autobahn")
    count = bench.choose(10_000, 500)
    title = f"TLS: burst of {count:,} publishes of 32 bytes, 1 to 1"
    bench.compare("l.1", title, "deliveries", rows, _burst(bench, 1, count), tls=True)
    subscribers, count = bench.choose((100, 500), (5, 50))
    title = f"TLS: burst of {count:,} publishes of 32 bytes, 1 to {subscribers}"
    bench.compare("l.100", title, "deliveries", rows, _burst(bench, subscribers, count), tls=True)
    turns = bench.choose(2_000, 50)
    bench.compare(
        "l.echo", "TLS: echo, 1 connection, 1 message at a time", "echoes", rows, _echo(1, 1, turns), tls=True
    )


def features(bench: Bench) -> None:
    """(m)"""
    directory = bench.peers.scratch
    rules = directory / "rules.toml"
    rules.write_text('[[channel]]\nmatch = "room"\npublish = "anybody"\nsubscribe = "anybody"\n', encoding="ascii")
    strict = directory / "strict.toml"
    strict.write_text('[[channel]]\nmatch = "room"\nmax_size = 60000\nmax_rate = 1000000\n', encoding="ascii")
    hooks = Path(__file__).with_name("processors.py")
    variants: dict[str, tuple[str, ...]] = {
        "nothing on": (),
        "nothing on, again": (),
        "channel rules": ("--config", str(rules)),
        "channel rules with size and rate": ("--config", str(strict)),
        "presence of every channel": ("--presence", ">"),
        "hook on_message": ("--hooks", f"{hooks}:Watching"),
        "hook before_delivery": ("--hooks", f"{hooks}:Choosing"),
    }
    identity, query = _identity(directory)
    if identity:
        variants["identity by tokens"] = identity
    subscribers, count = bench.choose((10, 10_000), (2, 500))
    title = f"burst of {count:,} publishes, 1 to {subscribers}, by what is switched on"
    loads = {row: (options, _burst(bench, subscribers, count)) for row, options in variants.items()}
    _compare_variants(bench, Case("m", title, "deliveries"), loads)
    count = bench.choose(1_000, 50)
    title = f"{count:,} connections opened, {min(count, 32)} at a time, by who is asked"
    loads = {"nothing on": ((), _open(count)), "nothing on, again": ((), _open(count))}
    if identity:
        loads["identity by tokens"] = (identity, _open(count, query))
    _compare_variants(bench, Case("m.accept", title, "connections"), loads)


def wildcards(bench: Bench) -> None:
    """(n)"""
    rules = bench.peers.scratch / "wildcards.toml"
    rules.write_text('[[channel]]\nmatch = ">"\nwildcards = true\n', encoding="ascii")
    count, others = bench.choose((20_000, 10_000), (200, 100))
    middle = ["a"] * 6
    costly = []
    for places in itertools.combinations(range(len(middle)), 2):
        tokens = ["*" if place in places else "a" for place in range(len(middle))]
        costly.append(".".join([ROOM, *tokens, "x"]))
    channels = [".".join([ROOM, *middle, f"{number:06}"]) for number in range(count)]
    variants: dict[str, list[str]] = {
        "no other": [],
        "no other, again": [],
        f"{others:,} others": [f"{ROOM}.{number}.*.>" for number in range(others)],
        "those that cost most": costly,
    }
    title = f"burst of {count:,} publishes to channels that are all new, 1 to 1, by other wildcard subscriptions"
    loads = {
        row: (("--config", str(rules)), _to_wildcard(channels, [list(each) for each in _grouped(names, 100)]))
        for row, names in variants.items()
    }
    _compare_variants(bench, Case("n", title, "deliveries"), loads)


def _to_wildcard(channels: list[str], others: list[list[str]]) -> Prepare:
    """Return a load: a publish to each of *channels*, to one who is subscribed to all, beside *others*."""

    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        dialect = server.dialect
        if others:
            connections.subscribe(server, others)
        readers = connections.readers(connections.subscribe(server, [[f"{ROOM}.>"]]), dialect)
        (writer,) = connections.open(server)
        data = b"".join(dialect.publish(channel, BODY) for channel in channels)
        expected = sum(dialect.delivery_size(channel, BODY) for channel in channels)

        def run() -> Outcome:
            readers.drain()
            return burst(readers, writer, data, len(channels), expected)

        return run

    return prepare


def _identity(directory: Path) -> tuple[tuple[str, ...], str]:
    """Return the options of a server that takes tokens, and the query of a handshake with one; empty without PyJWT."""
    if importlib.util.find_spec("jwt") is None:
        return (), ""
    import jwt

    key = "a secret of the benchmark that is long enough"
    file = directory / "secret"
    file.write_text(key, encoding="ascii")
    token = jwt.encode({"sub": "alice", "exp": int(time.time()) + 86_400}, key, "HS256")
    return ("--jwt-key-file", str(file), "--jwt-query", "token", "--allow-anonymous"), f"?token={token}"


def codecs(bench: Bench) -> None:
    """(p)"""
    subscribers, count = bench.choose((1_000, 200), (20, 100))
    dialects = {"text": LHTTP, "text, again": LHTTP}
    dialects |= {"JSON": ViewDialect("lhttp.json"), "Protocol Buffers": ViewDialect("lhttp.protobuf")}
    title = f"burst of {count:,} publishes of 32 bytes, 1 to {subscribers:,}, by what all clients speak"
    loads: dict[str, tuple[tuple[str, ...], Prepare]] = {
        row: ((), _burst_in(dialect, bench, subscribers, count)) for row, dialect in dialects.items()
    }
    loads["server-sent events"] = ((), _burst_of_events(bench, subscribers, count))
    _compare_variants(bench, Case("p", title, "deliveries"), loads)
    title = f"burst of {count:,} publishes of 32 bytes, 1 to {subscribers:,}, beside Centrifugo, which speaks JSON"
    bench.compare(
        "p.centrifugo", title, "deliveries", ("lhttp", "centrifugo"), _burst_as_json(bench, subscribers, count)
    )


def _burst_as_json(bench: Bench, subscribers: int, publications: int) -> Prepare:
    """Return the load of a burst whose clients all speak JSON, in a channel without history."""
    prepare = _burst(bench, subscribers, publications)

    def prepare_in(server: Server, connections: Connections) -> Callable[[], Outcome]:
        server.dialect = CENTRIFUGO_PLAIN if server.key == "centrifugo" else ViewDialect("lhttp.json")
        return prepare(server, connections)

    return prepare_in


def _burst_of_events(bench: Bench, subscribers: int, publications: int) -> Prepare:
    """Return the load of a burst that comes as server-sent events."""

    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        events = server.dialect = EventsDialect()
        readers = connections.readers(connections.subscribe(server, [[ROOM]] * subscribers), events)
        server.dialect = LHTTP
        (writer,) = connections.open(server)
        data = LHTTP.publish(ROOM, BODY) * publications
        expected = events.delivery_size(ROOM, BODY) * publications

        def run() -> Outcome:
            readers.drain()
            return burst(readers, writer, data, publications, expected)

        return run

    return prepare


def streams(bench: Bench) -> None:
    """(q)"""
    subscribers, count = bench.choose((100, 1_000), (20, 100))
    title = f"burst of {count:,} publishes of 32 bytes, 1 to {subscribers:,}, by what all clients speak"
    plain = _burst_in(StreamDialect(), bench, subscribers, count)

    def prepare(server: Server, connections: Connections) -> Callable[[], Outcome]:
        server.port = int(server.wait_for(r"(?s)listening on 127\.0\.0\.1:.*listening on 127\.0\.0\.1:(\d+)"))
        return plain(server, connections)

    options = ("--tcp", "tcp:0:interface=127.0.0.1:backlog=1024")
    websocket = _burst_in(LHTTP, bench, subscribers, count)
    loads = {
        "WebSocket": (options, websocket),
        "WebSocket, again": (options, websocket),
        "plain TCP": (options, prepare),
    }
    _compare_variants(bench, Case("q", title, "deliveries"), loads)


def _burst_in(dialect: LHTTPDialect, bench: Bench, subscribers: int, publications: int) -> Prepare:
    """Return the load of a burst whose clients all speak *dialect*."""
    prepare = _burst(bench, subscribers, publications)

    def prepare_in(server: Server, connections: Connections) -> Callable[[], Outcome]:
        server.dialect = dialect
        return prepare(server, connections)

    return prepare_in


def _compare_variants(bench: Bench, case: Case, loads: dict[str, tuple[tuple[str, ...], Prepare]]) -> None:
    """Measure servers that differ in their options, each with its load."""
    with ExitStack() as stack:
        bench.progress.step(f"{case.title}: starting")
        turns = []
        for row, (options, load) in loads.items():
            server = stack.enter_context(bench.peers.running("lhttp", options=options))
            connections = Connections(stack.enter_context(ExitStack()), bench.peers, tls=False)
            turns.append(Turn(row, server, load(server, connections)))
        bench.settle(turns)
        bench.take_turns(case, turns)
    bench.report(case)


SCENARIOS = {
    "a": Scenario("burst of 10,000 and of 200,000 publishes of 32 bytes, and of mixed sizes, 1 to 1", bursts),
    "b": Scenario("fan-out 1 to 100 and 1 to 1,000, burst, and from 50 publishers at once", fan_out),
    "c": Scenario("fan-out 1 to 1,000 at 100/s and 1 to 100 at 500/s: CPU for each delivery, p50, p99", steady),
    "d": Scenario("echo: round trip, and throughput with 10 and 100 connections", echoes),
    "e": Scenario("plain, Deferred and coroutine processors", processor_kinds),
    "f": Scenario("bodies of 1, 16 and 60 KiB", bodies),
    "g": Scenario("10,000 idle subscribed connections: memory; connections opened a second", idle),
    "h": Scenario("100,000 channels with one subscriber each", channels),
    "i": Scenario("POST /publish on kept-alive connections", posts),
    "j": Scenario("growth of the cost by subscribers, message size, channels, connections", growth),
    "k": Scenario("through NATS from node to node: bursts, time to delivery and to receipt", cluster),
    "l": Scenario("TLS", tls),
    "m": Scenario("what channel rules, identity, presence and hooks cost", features),
    "n": Scenario("what wildcard subscriptions cost those who publish", wildcards),
    "o": Scenario("what history costs, and how fast clients recover", history),
    "p": Scenario(
        "fan-out 1 to 1,000 to clients of text, JSON, Protocol Buffers, event streams, and of Centrifugo", codecs
    ),
    "q": Scenario("fan-out 1 to 100 to WebSockets and to plain streams", streams),
    "r": Scenario("bursts, fan-out and paced with metrics on and the dashboard open", watched),
}
"""The scenarios by their letter."""
