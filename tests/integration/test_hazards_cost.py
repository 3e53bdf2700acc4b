"""
Messages, requests and handshakes that were dear once: what each costs the server, beside an honest client.

Every scenario prints seconds of CPU for a megabyte sent, how many ordinary publications of its size that is, and the
memory held for each of the attacker's connections.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import selectors
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from integration._costs import (
    BEHAVED,
    CLUSTERED,
    CLUSTERED_CHANNEL,
    CONNECTION,
    LIMIT,
    Attacker,
    Cost,
    Sent,
    Watch,
    allow_files,
    processor_time,
    settle,
    summed,
)
from integration._hazards import SECONDS, THOROUGH, waits_too_long
from integration._honest import HonestClient
from integration._nats import NATSProcess, needs_nats
from integration._server import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    TIME_LIMIT,
    RawClient,
    ServerProcess,
    client_frame,
    handshake_head,
    message,
    processor_arguments,
)

pytestmark = [pytest.mark.once, pytest.mark.skipif(sys.platform != "linux", reason="looks into Linux's /proc")]

Serve = Callable[..., ServerProcess]

MAX_P99 = 0.1 if THOROUGH else 0.5
"""Seconds that an honest client may wait. Beside other tests, on two cores, the machine alone takes a part of them."""

ATTEMPTS = 3
"""The machine may have been busy with something else: what takes too long must do so each time."""

ORDINARY = 65_000
"""Bytes of the largest ordinary publication: what is larger counts as several."""

REMEMBERED_NAMES = 8 * 2**20
"""Bytes in which the server remembers what rules and wildcard subscriptions say to names, whoever sent them."""

REMEMBERED = 16 * 2**20
"""Bytes in which the server remembers what is to be done with messages, whoever sent them."""

IDLE = 65_536
"""Bytes that a connection may hold of which nothing but a handshake has come: four times the largest head."""

OPEN_RULE = '[[channel]]\nmatch = "honest.>"\n[[channel]]\nmatch = "ordinary"\n'
"""Rules that leave the honest client, and ordinary publications, alone."""


@contextmanager
def beside_honest(server: ServerProcess) -> Iterator[None]:
    """What is done in the block costs an honest client nothing."""
    with HonestClient(server) as honest:
        yield
    print(honest.figures)
    assert (honest.figures.lost, honest.figures.strange) == (0, 0), honest.figures


def attack(server: ServerProcess, do: Callable[[Watch], Sent]) -> Cost:
    """Return the most that the attack *do* has cost; it is made again where the honest client had to wait."""
    costs = []
    for attempt in range(ATTEMPTS):
        with HonestClient(server) as honest:
            watch = Watch(server)
            costs.append(watch.cost(do(watch)))
        print(costs[-1])
        print(honest.figures)
        assert (honest.figures.lost, honest.figures.strange) == (0, 0), honest.figures
        if not waits_too_long(honest.figures, MAX_P99):
            break
        assert attempt < ATTEMPTS - 1, f"{costs[-1]}; {honest.figures}"
    return max(costs, key=lambda cost: (cost.price > LIMIT, cost.held))


def rules(path: Path, text: str) -> list[str]:
    """Return the options for channel rules, beside those that leave the honest client alone."""
    file = path / "rules.toml"
    file.write_text(OPEN_RULE + text, encoding="utf-8")
    return ["--config", str(file)]


def repeat(clients: list[Attacker], make: Callable[[], list[bytes]]) -> Sent:
    """Let each of *clients* send the messages that *make* makes, for as long as an attack lasts."""
    end = time.monotonic() + SECONDS
    sent = []
    while not sent or time.monotonic() < end:
        sent += [client.send(*make()) for client in clients]
    return summed(sent, len(clients))


def lhttp(headers: dict[str, str], body: str = "") -> bytes:
    """Return a message of a client."""
    return message("chat", headers, body).encode("utf-8")


# What the how-to says


def test_connections_that_behave_hold_little(serve: Serve) -> None:
    count = 1_000
    allow_files(2 * count + 200)
    server = serve("--ping-interval", "0")
    with ExitStack() as stack, beside_honest(server):
        first = [stack.enter_context(RawClient(server.port)) for _ in range(20)]
        for number, client in enumerate(first):
            client.subscribe(f"own.{number} group.{number % 20}")
        watch = Watch(server)
        for number in range(count):
            client = stack.enter_context(RawClient(server.port))
            client.subscribe(f"user.{number} group.{number % 20} all")
            client.send(lhttp({"publish": f"group.{number % 20}"}, f"hello from {number}"))
        watch.look()
    print(f"a connection that behaves holds {watch.held() / count / 1024:.1f} KiB")
    assert watch.held() / count <= BEHAVED


def test_connection_that_holds_all_it_may_keeps_to_the_figure(serve: Serve) -> None:
    server = serve(*processor_arguments("hang"), "--ping-interval", "0")
    count = 16
    message_size, queue_length, unsent = 65_536, 64, 1_048_576
    with ExitStack() as stack, beside_honest(server):
        publisher = stack.enter_context(Attacker(server.port))
        watch = Watch(server)
        for _ in range(count):
            client = stack.enter_context(RawClient(server.port, receive_buffer=8_192))
            client.subscribe("flood")
            client.send(message("hang"))
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
            client.sock.setblocking(False)
            large = client_frame(lhttp({"x": "y"}).ljust(message_size, b"x"))
            half = client_frame(b"x" * (2 * message_size), BINARY)[:-1]
            data = memoryview(large * queue_length + half)
            end = time.monotonic() + 1.0
            while data and time.monotonic() < end:
                try:
                    data = data[client.sock.send(data) :]
                    end = time.monotonic() + 1.0
                except BlockingIOError:
                    time.sleep(0.001)
        settle(server)
        watch.look()
        for _ in range(unsent // message_size - 1):
            publisher.send(lhttp({"publish": "flood"}).ljust(message_size, b"x"))
        settle(server)
        watch.look()
    print(f"a connection that holds all it may holds {watch.held() / count / 2**20:.2f} MiB")
    assert watch.held() / count <= CONNECTION


# Answers that nobody reads


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /lhttp.js HTTP/1.1\r\n\r\n",
        b"HEAD /lhttp.mjs HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"DELETE /publish HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /publish HTTP/1.1\r\nContent-Length: 34\r\n\r\nLHTTP/1.0 chat\r\npublish:unread\r\n\r\n",
    ],
    ids=lambda head: head.split(b" HTTP")[0].decode().replace("/", ""),
)
def test_requests_whose_answers_nobody_reads_are_not_handled(serve: Serve, request_head: bytes) -> None:
    server = serve()
    count = 2_500 if THOROUGH else 1_000

    def send(watch: Watch) -> Sent:
        sent = 0
        with ExitStack() as stack:
            for _ in range(8):
                sock = stack.enter_context(socket.socket())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
                sock.settimeout(TIME_LIMIT)
                sock.connect(("127.0.0.1", server.port))
                sock.setblocking(False)
                with suppress(BlockingIOError, ConnectionError):
                    sent += sock.send(request_head * count)
            settle(server)
            watch.look()
        return Sent(sent, max(1, sent // len(request_head)), 8)

    attack(server, send).check()


# Names and patterns


def test_wildcards_of_many_tokens_cost_no_more_than_few(serve: Serve, tmp_path: Path) -> None:
    server = serve(*rules(tmp_path, '[[channel]]\nmatch = "room.>"\nwildcards = true\n'))
    chosen = random.Random(1)
    patterns = [".".join(["room", *(chosen.choice("a*") for _ in range(122)), "x"]) for _ in range(128)]
    with Attacker(server.port) as client:
        for pattern in patterns:
            client.send(lhttp({"subscribe": pattern}))
        publication = lhttp({"publish": ".".join(["room", *"a" * 122, "b"])}, "hello")
        attack(server, lambda _: repeat([client], lambda: [publication] * 10)).check()


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
WORDS = [first + second for first, second in itertools.product(LETTERS, repeat=2)]


def test_lists_of_names_leave_little_in_memory(serve: Serve, tmp_path: Path) -> None:
    server = serve(*rules(tmp_path, '[[channel]]\nmatch = ">"\nmax_rate = 1000\necho = false\n'))
    count = 1_030 if THOROUGH else 200
    with ExitStack() as stack:
        clients = [stack.enter_context(Attacker(server.port)) for _ in range(4)]

        def send(watch: Watch) -> Sent:
            return summed(
                [
                    clients[number % 4].send(lhttp({"publish": " ".join([f"n{number}", *WORDS[:2_650]])}))
                    for number in range(count)
                ],
                4,
            )

        cost = attack(server, send)
    cost.check()


def test_no_place_in_a_rate_can_be_bought_by_filling_the_table(serve: Serve, tmp_path: Path) -> None:
    server = serve(*rules(tmp_path, '[[channel]]\nmatch = "room.>"\nmax_rate = 1\n'))
    count = 300
    with RawClient(server.port) as victim, Attacker(server.port) as client:
        victim.subscribe("room.v")
        begin = time.monotonic()

        def send(watch: Watch) -> Sent:
            sent = []
            for number in range(count):
                fresh = " ".join(f"room.f{number}x{index}" for index in range(31))
                sent.append(client.send(lhttp({"publish": f"room.v {fresh}"}, "hello")))
            return summed(sent)

        with beside_honest(server):
            watch = Watch(server)
            cost = watch.cost(send(watch))
        print(cost)
        elapsed = time.monotonic() - begin
        victim.send(lhttp({"subscribe": "other", "receipt": "end"}))
        delivered = 0
        while b"receipt-id:end" not in victim.receive()[1]:
            delivered += 1
    print(f"{delivered} of {count} publications of one a second delivered in {elapsed:.1f} s")
    assert 1 <= delivered <= elapsed + 2


def fresh_names(numbers: Iterator[int], count: int = 2_000) -> str:
    """Return so many names of three letters, other ones each time."""
    taken = itertools.islice(numbers, count)
    return " ".join(LETTERS[number // len(WORDS) % len(LETTERS)] + WORDS[number % len(WORDS)] for number in taken)


@pytest.mark.parametrize("header", ["publish", "subscribe", "unsubscribe"])
@pytest.mark.parametrize("ruled", [False, True], ids=["without rules", "a thousand rules"])
def test_long_lists_of_channels_are_refused_before_they_cost_anything(
    serve: Serve, tmp_path: Path, header: str, ruled: bool
) -> None:
    many = "".join(f'[[channel]]\nmatch = "topic.{number}.*"\nmax_size = 60000\n' for number in range(990))
    server = serve(*(rules(tmp_path, many) if ruled else ()))
    numbers = itertools.count()
    with Attacker(server.port) as client:
        attack(server, lambda _: repeat([client], lambda: [lhttp({header: fresh_names(numbers)})])).check()


@pytest.mark.parametrize("header", ["publish", "subscribe", "unsubscribe"])
def test_lists_as_long_as_they_may_be_cost_little(serve: Serve, header: str) -> None:
    server = serve()
    numbers = itertools.count()
    with Attacker(server.port) as client:

        def make() -> list[bytes]:
            sent = []
            for _ in range(5 if header == "subscribe" else 10):
                fresh = " ".join(f"f{next(numbers)}" for _ in range(32 if header == "publish" else 128))
                sent += [lhttp({header: fresh}), *([lhttp({"unsubscribe": fresh})] if header == "subscribe" else [])]
            return sent

        attack(server, lambda _: repeat([client], make)).check(CONNECTION + REMEMBERED)


def test_wildcards_times_a_list_of_channels_cost_little(serve: Serve, tmp_path: Path) -> None:
    server = serve(*rules(tmp_path, '[[channel]]\nmatch = "room.>"\nwildcards = true\n'))
    patterns = [
        ".".join(["room", *("*" if place in stars else "a" for place in range(6)), "x"])
        for stars in [*itertools.combinations(range(6), 2), *itertools.combinations(range(6), 1)]
    ]
    numbers = itertools.count()
    with ExitStack() as stack:
        clients = [stack.enter_context(Attacker(server.port)) for _ in range(4)]
        for client in clients:
            for pattern in patterns:
                client.send(lhttp({"subscribe": pattern}))

        def make() -> list[bytes]:
            names = (" ".join(f"room.a.a.a.a.a.a.{next(numbers)}" for _ in range(32)) for _ in range(10))
            return [lhttp({"publish": some}) for some in names]

        cost = attack(server, lambda _: repeat(clients, make))
        cost.check()
        assert cost.held * len(clients) <= REMEMBERED_NAMES  # as much for four clients as for one


# What clients make of it


JAVASCRIPT = """
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
const [library, ...files] = process.argv.slice(1);
const { parse } = await import(pathToFileURL(library));
const spent = files.map((file) => {
  const text = readFileSync(file, "utf8");
  parse(text);
  const begin = process.cpuUsage();
  let count = 0;
  do { for (let i = 0; i < 10; i++, count++) parse(text); } while (process.cpuUsage(begin).user < 2e5);
  return process.cpuUsage(begin).user / 1e6 / count;
});
console.log(JSON.stringify(spent));
"""

PYTHON = """
import json, sys, time
from pathlib import Path
from lhttp_tx.codec.message import parse
spent = []
for name in sys.argv[1:]:
    data, count, begin = Path(name).read_bytes(), 0, time.process_time()
    while time.process_time() - begin < 0.2:
        parse(data)
        count += 1
    spent.append((time.process_time() - begin) / count)
print(json.dumps(spent))
"""

HEADS = {
    "blanks in a value": {"a": "x" + " " * 7_900 + "x"},
    "blanks before a value": {"a": " " * 7_900 + "x"},
    "tabs in a value": {"a": "x" + "\t" * 7_900 + "x"},
    "many colons": {"a": ":" * 7_900},
    "blanks in an offset": {"offset": " " * 7_900},
    "many headers": {f"h{number}": "x" * 100 for number in range(60)},
}


@pytest.mark.parametrize("language", ["javascript", "python"])
@pytest.mark.parametrize("kind", HEADS)
def test_subscriber_reads_a_hostile_head_as_fast_as_any(serve: Serve, tmp_path: Path, language: str, kind: str) -> None:
    if language == "javascript" and shutil.which("node") is None:
        pytest.skip("Node is not installed")
    server = serve()
    files = []
    with beside_honest(server), RawClient(server.port) as subscriber, RawClient(server.port) as publisher:
        subscriber.subscribe("flood")
        hostile = lhttp({"publish": "flood", **HEADS[kind]}, "hello")
        usual = lhttp({"publish": "flood", "a": ""}, "hello")  # what is in a head of this size is no matter
        usual = usual.replace(b"a:", b"a:" + b"x" * (len(hostile) - len(usual)), 1)
        for name, sent in (("hostile", hostile), ("usual", usual)):
            publisher.send(sent)
            files.append(tmp_path / name)
            files[-1].write_bytes(subscriber.receive()[1])
    if language == "javascript":
        library = Path(__file__).parents[2] / "lhttp_tx" / "web" / "static" / "lhttp.mjs"
        command = ["node", "--input-type=module", "--eval", JAVASCRIPT, str(library)]
    else:
        command = [sys.executable, "-c", PYTHON]
    for _ in range(ATTEMPTS):
        spent = json.loads(subprocess.check_output([*command, *map(str, files)], timeout=4 * TIME_LIMIT))
        if spent[0] <= LIMIT * spent[1]:
            break
    size = files[0].stat().st_size
    print(
        f"{language}, {kind}: {spent[0] / size * 1e6:.3f} s of CPU for a MB, {1e3 * spent[0]:.3f} ms a message; an "
        f"ordinary one of that size {1e3 * spent[1]:.3f} ms: {spent[0] / spent[1]:.1f} times"
    )
    assert spent[0] <= LIMIT * spent[1]


# Questions


def test_who_is_in_a_full_room_is_cheap_to_tell(serve: Serve) -> None:
    members = 3_000 if THOROUGH else 1_000
    allow_files(2 * members + 200)
    server = serve("--presence", "room.>", "--ping-interval", "0")
    with ExitStack() as stack:
        for _ in range(members):
            client = stack.enter_context(RawClient(server.port))
            client.send(lhttp({"subscribe": "room.full"}))
        with Attacker(server.port) as client:
            question = message("presence", {"channel": "room.full"}).encode("ascii")
            client.send(question)
            before = client.received
            client.send(question)
            print(f"{len(question)} bytes ask, {client.received - before} bytes answer, {members} members")
            attack(server, lambda _: repeat([client], lambda: [question] * 10)).check()


# In a cluster


@needs_nats
def test_subscribing_on_the_bus_again_and_again_leaves_the_others_alone(serve: Serve) -> None:
    nats = NATSProcess()
    try:
        server = serve("--nats", nats.url, "--ping-interval", "0")
        server.wait_for_log("connected to NATS")
        numbers = itertools.count()
        with Attacker(server.port) as client:

            def make() -> list[bytes]:
                fresh = " ".join(f"fresh.{next(numbers):012}" for _ in range(128))
                return [lhttp({"subscribe": fresh}), lhttp({"unsubscribe": fresh})]

            attack(server, lambda _: repeat([client], make)).check(CONNECTION + CLUSTERED)
    finally:
        server.check()
        nats.kill()


def test_channels_in_a_cluster_hold_what_the_how_to_says(serve: Serve) -> None:
    nats = NATSProcess()
    try:
        server = serve("--nats", nats.url, "--ping-interval", "0")
        server.wait_for_log("connected to NATS")
        names = iter([f"fresh.{number:012}" for number in range(60 * 128)])
        with ExitStack() as stack:
            for number in range(60):
                if number == 10:  # what is needed once is there
                    watch = Watch(server)
                client = stack.enter_context(RawClient(server.port))
                client.subscribe(" ".join(itertools.islice(names, 128)))
            watch.look()
            channel = watch.held() / (50 * 128)
        print(f"{channel / 1024:.1f} KiB for a channel")
        assert channel <= CLUSTERED_CHANNEL
    finally:
        server.check()
        nats.kill()


# Connections that are no WebSocket


def test_connections_that_only_ask_for_health_leave_room_for_websockets(serve: Serve) -> None:
    count = 2_000 if THOROUGH else 200
    allow_files(2 * count + 300)
    server = serve(*(() if THOROUGH else ("--max-pending", str(count))))
    question = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ExitStack() as stack, beside_honest(server):
        watch = Watch(server)
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT))
            with suppress(ConnectionError):
                sock.sendall(question)
                sock.recv(1_000)
        watch.look()
        reached = 0
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock, suppress(ConnectionError):
                sock.sendall(handshake_head(server.port))
                reached += sock.recv(12) == b"HTTP/1.1 101"
        print(f"{reached} of 20 new WebSockets opened beside {count} connections that ask for /health")
        assert reached == 20
        cost = watch.cost(Sent(count * len(question), count, count))
        # Most of it is the connection, which a publication does not need: it is compared with another connection.
        begin = processor_time(server.pid)
        for _ in range(100):
            RawClient(server.port).close()
        usual = (processor_time(server.pid) - begin) / 100
        print(f"{cost}; {cost.seconds / count / usual:.1f} times what an ordinary WebSocket takes to open and close")
        assert cost.held <= IDLE
        assert cost.seconds <= 10 * count * usual


@pytest.mark.skipif(not THOROUGH, reason="takes longer than half a minute")
@pytest.mark.parametrize(
    "head",
    [
        b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n",
        b"POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: ",
    ],
    ids=["body", "trailer"],
)
def test_dripped_request_is_ended_within_half_a_minute(serve: Serve, head: bytes) -> None:
    server = serve()
    count, ended = 50, []
    with beside_honest(server), ExitStack() as stack, selectors.DefaultSelector() as selector:
        watch = Watch(server)
        sent = 0
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT))
            sock.sendall(head)
            sent += len(head)
            selector.register(sock, selectors.EVENT_READ)
        begin = time.monotonic()
        while selector.get_map() and time.monotonic() < begin + 70:
            for key, _ in selector.select(1.0):
                selector.unregister(key.fileobj)
                ended.append(time.monotonic() - begin)
            for key in list(selector.get_map().values()):
                with suppress(ConnectionError):
                    sent += key.fileobj.send(b"x")  # type: ignore[union-attr]
            watch.look()
            time.sleep(0.5)
        cost = watch.cost(Sent(sent, sent - count * len(head) + count, count))
    print(cost)
    print(f"{len(ended)} of {count} were ended, the last after {max(ended, default=0.0):.1f} s")
    assert len(ended) == count
    assert max(ended) < 33
    cost.check()


# Pieces


def test_message_of_very_many_fragments_holds_what_it_is_long(serve: Serve) -> None:
    server = serve()
    count = 130_000
    fragments = client_frame(b"x", 0, final=False) * 1_000

    def send(watch: Watch) -> Sent:
        size = 0
        with ExitStack() as stack:
            for _ in range(2):
                client = stack.enter_context(RawClient(server.port))
                with suppress(ConnectionError):
                    client.send(b"x", BINARY, final=False)
                    for _ in range(count // 1_000):
                        client.sock.sendall(fragments)
                        size += len(fragments)
                    client.send(b"done", PING)
                    while client.receive() != (PONG, b"done"):
                        pass
                watch.look()
        return Sent(size, max(1, size // ORDINARY), 2)  # as many ordinary ones as have its bytes, not its fragments

    cost = attack(server, send)
    print(f"{cost.seconds / 2:.2f} s of CPU for a message of {count} fragments of a byte")
    cost.check(2 * 2**20)


def test_handshake_with_thousands_of_parameters_leaves_little(serve: Serve) -> None:
    server = serve()
    count = 300 if THOROUGH else 100
    allow_files(2 * count + 300)
    query = "/?" + "&".join(f"{first}{second}=" for first, second in itertools.product(WORDS[:2_000], "ab"))[:15_790]
    head = handshake_head(server.port, query)
    with ExitStack() as stack:

        def send(watch: Watch) -> Sent:
            for _ in range(count):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT))
                with suppress(ConnectionError):
                    sock.sendall(head)
                    sock.recv(1_000)
            return Sent(count * len(head), count, count, 1)

        cost = attack(server, send)
        cost.check(IDLE)


# Limits that an operator has set


def test_inflated_bytes_count_for_the_rate_of_bytes(serve: Serve) -> None:
    rate, seconds, readers = 20_000, 3.0, 10
    server = serve("--max-byte-rate", str(rate), "--ping-interval", "0")
    bomb = gzip.compress(lhttp({"publish": "flood"}) + b"x" * 65_000, 9, mtime=0)
    frame = client_frame(bomb, BINARY)
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        received = dict.fromkeys(range(readers), 0)
        for number in range(readers):
            reader = stack.enter_context(RawClient(server.port))
            reader.subscribe("flood")
            reader.sock.setblocking(False)
            selector.register(reader.sock, selectors.EVENT_READ, number)
        attacker = stack.enter_context(RawClient(server.port, "/?support_gzip=1"))
        attacker.sock.setblocking(False)
        with beside_honest(server):
            watch = Watch(server)
            begin, sent = time.monotonic(), 0
            while time.monotonic() < begin + seconds:
                with suppress(BlockingIOError):
                    sent += attacker.sock.send(frame)
                for key, _ in selector.select(0):
                    received[key.data] += len(key.fileobj.recv(1_000_000))  # type: ignore[union-attr]
            elapsed = time.monotonic() - begin
        print(f"{sum(received.values()) / 1e6:.1f} MB to {readers} readers in {elapsed:.1f} s, of {sent / 1e3:.0f} KB")
        # What may come at once, one message more, and what the rate allows.
        allowed = 65_536 + 2 * 66_000 + 2 * rate * elapsed
        assert max(received.values()) <= allowed, f"{max(received.values())} bytes, {allowed:.0f} allowed"
        cost = watch.cost(Sent(sent, max(1, sent // len(frame)), 1 + readers))
        print(cost)
        cost.check()


AUTHENTICATOR = """
from lhttp_tx import Authenticator


class ByPath(Authenticator):
    def authenticate(self, attempt):
        return None if attempt.path == "/lobby" else attempt.identify("honest")
"""


def test_errors_before_a_login_count(serve: Serve, tmp_path: Path) -> None:
    plugin = tmp_path / "by_path.py"
    plugin.write_text(AUTHENTICATOR, encoding="utf-8")
    server = serve("--authenticator", f"{plugin}:ByPath", "--login-timeout", "20")
    count = 50_000 if THOROUGH else 5_000
    frame = client_frame(b"x", TEXT)
    closes: list[bytes] = []
    answers = 0

    def send(watch: Watch) -> Sent:
        nonlocal answers
        sent = 0
        with RawClient(server.port, "/lobby") as client, suppress(ConnectionError):
            for _ in range(count // 50):
                client.sock.sendall(frame * 50)
                sent += 50
                while True:
                    opcode, payload = client.receive()
                    if opcode == CLOSE:
                        closes.append(payload)
                        raise ConnectionError("closed")
                    answers += 1
                    if answers >= sent:
                        break
        return Sent(sent * len(frame), sent)

    with beside_honest(server):
        watch = Watch(server)
        cost = watch.cost(send(watch))
    print(cost)
    print(f"{answers} of {count} messages before the login were answered")
    assert answers <= 100
    assert closes and closes[0][:2] == (1008).to_bytes(2, "big")
    cost.check()
