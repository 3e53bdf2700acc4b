"""
Attacks on a real server, with an honest client beside each.

Whatever the attacker does for ``SECONDS``, the server's memory stays, the honest client loses nothing and does not
wait, and the attacker gets what the defence says.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest

from integration._hazards import MAX_P99, Flood, Stage, attack_beside_honest, waits_too_long
from integration._honest import Figures
from integration._server import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    TIME_LIMIT,
    Backend,
    RawClient,
    ServerProcess,
    client_frame,
    handshake_head,
    http_request,
    message,
    processor_arguments,
    wait_until,
)

pytestmark = pytest.mark.once

MAX_GROWTH = 20 * 2**20
QUIET_TIME = 0.3
"""Seconds after which a server that has taken nothing does not read."""

TOKEN = "a secret of more than sixteen bytes"
UPSTREAM_TIMEOUT = 5.0
HANDSHAKE_TIMEOUT = 5.0


# Attacks on WebSocket


def stall_while_much_is_published(stage: Stage) -> None:
    large = client_frame(message("chat", {"publish": "flood"}, "x" * 32_000).encode("ascii"))
    with RawClient(stage.port) as publisher:
        while stage.lasts():
            with RawClient(stage.port, receive_buffer=8192) as stalled:
                stalled.subscribe("flood")
                closed = stage.server.log.count("it does not read")
                while stage.server.log.count("it does not read") == closed:
                    publisher.sock.sendall(large)
                    time.sleep(0.001)
                while (frame := stalled.receive())[0] != CLOSE:
                    pass
                assert frame[1][:2] == (1013).to_bytes(2, "big")


def send_and_never_read(stage: Stage, frames: bytes) -> None:
    """Send from several connections for as long as the attack lasts, then until the server reads no more of it."""
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(stage.port, receive_buffer=8192)) for _ in range(3)]
        flood, quiet = Flood(clients, frames), time.monotonic()
        while stage.lasts() or time.monotonic() < quiet + QUIET_TIME:
            assert time.monotonic() < stage.end + TIME_LIMIT, "it goes on reading from a client that does not read"
            if flood.send():
                quiet = time.monotonic()


def flood_with_pings(stage: Stage) -> None:
    send_and_never_read(stage, client_frame(b"x" * 125, PING) * 500)


def flood_with_empty_pings(stage: Stage) -> None:
    send_and_never_read(stage, client_frame(b"", PING) * 10_000)


def flood_with_malformed_messages(stage: Stage) -> None:
    send_and_never_read(stage, client_frame(b"x", TEXT) * 10_000)


def flood_with_messages_to_be_answered(stage: Stage) -> None:
    send_and_never_read(stage, client_frame(message("echo").encode("ascii")) * 3_000)


def flood_with_empty_fragments(stage: Stage) -> None:
    whole = message("echo", {}, "in one piece").encode("ascii")
    while stage.lasts():
        with RawClient(stage.port) as client:
            for count in (1_250, 2_500):  # each uses up 64 bytes of twice the message's limit
                client.send(whole[:9], final=False)
                client.sock.sendall(client_frame(b"", 0, final=False) * count)
                if count == 1_250:
                    client.send(whole[9:], 0)
                    assert client.receive() == (TEXT, whole)
            assert client.receive_close()[0] == 1009


def flood_with_pongs(stage: Stage) -> None:
    with RawClient(stage.port) as client:
        while stage.lasts():
            client.sock.sendall(client_frame(b"", PONG) * 10_000)
        client.send(message("echo"))
        assert client.receive() == (TEXT, message("echo").encode("ascii"))


def send_fragments_without_end(stage: Stage) -> None:
    fragments = client_frame(b"x" * 1_000, 0, final=False) * 100
    while stage.lasts():
        with RawClient(stage.port) as client:
            client.send(b"x", BINARY, final=False)
            client.sock.sendall(fragments * 2)
            assert client.receive_close()[0] == 1009
            with suppress(ConnectionError):
                while stage.lasts():
                    client.sock.sendall(fragments)


def declare_a_terabyte(stage: Stage) -> None:
    while stage.lasts():
        with RawClient(stage.port) as client:
            client.sock.sendall(b"\x82\xff" + (2**40).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 10_000)
            assert client.receive_close()[0] == 1009


def send_a_deflate_bomb(stage: Stage) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = compressor.compress(bytes(20_000_000)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    frame = bytearray(client_frame(bomb[:-4], BINARY))
    frame[0] |= 0x40
    while stage.lasts():
        with RawClient(stage.port, headers=["Sec-WebSocket-Extensions: permessage-deflate"]) as client:
            accepted = any(line.lower().startswith(b"sec-websocket-extensions") for line in client.headers)
            with suppress(ConnectionError):
                client.sock.sendall(frame)
            assert client.receive_close()[0] == (1009 if accepted else 1002)


def offer_deflate_many_times(stage: Stage) -> None:
    clients: deque[RawClient] = deque()
    while stage.lasts():
        clients.append(RawClient(stage.port, headers=["Sec-WebSocket-Extensions: permessage-deflate"]))
        time.sleep(0.001)
        if len(clients) > 1_000:
            clients.popleft().close()
    for client in clients:
        client.close()
        time.sleep(0.0005)


def subscribe_without_end(stage: Stage) -> None:
    with RawClient(stage.port) as client:
        number = 0
        while stage.lasts():
            for _ in range(50):
                client.send(message("chat", {"subscribe": f"own.{number}"}))
                number += 1
            client.send(message("chat", {"receipt": "r"}))
            seen = []
            while b"receipt-id:r" not in (payload := client.receive()[1]):
                seen.append(payload)
            assert len(seen) == max(0, min(50, number - 128))
            assert all(b"\r\nstatus:429\r\n" in payload for payload in seen)


def publish_with_ever_new_heads(stage: Stage) -> None:
    with RawClient(stage.port) as client:
        number = 0
        while stage.lasts():
            frames = []
            for _ in range(100):
                number += 1
                headers = {"publish": f"new.{number}", "filler": f"{number}" * 60}
                frames.append(client_frame(message(f"c{number}", headers).encode("ascii")))
            client.sock.sendall(b"".join(frames))
        client.send(message("echo"))
        assert client.receive() == (TEXT, message("echo").encode("ascii"))


def connect_and_reset(stage: Stage) -> None:
    while stage.lasts():
        client = RawClient(stage.port)
        client.send(message("chat", {"subscribe": "a b c"}))
        client.reset()


# Attacks on HTTP and the handshake


def send_a_head_without_end(stage: Stage) -> None:
    floods = (b"x" * 40_000, b"a: b\r\n" * 3_000, b"a: " + b"x" * 30_000 + b"\r\n")
    quickest = dict.fromkeys(floods, TIME_LIMIT)
    while stage.lasts():
        for flood in floods:
            begin = time.monotonic()
            with socket.create_connection(("127.0.0.1", stage.port), TIME_LIMIT) as sock, suppress(ConnectionError):
                sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + flood)
                assert sock.recv(1_000) in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n")
                sock.sendall(b"x" * 1_000_000)
            quickest[flood] = min(quickest[flood], time.monotonic() - begin)
    assert max(quickest.values()) < HANDSHAKE_TIMEOUT, "it was ended by the time limit alone"


def drip(stage: Stage, head: bytes, extra: float = 0.0, count: int = 100) -> int:
    """
    Send *head* from many connections, byte by byte.

    :param extra: seconds for which it goes on when the attack is over, unless all were ended.
    :returns: how many of them were ended.
    """
    ended = 0
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", stage.port), TIME_LIMIT))
            selector.register(sock, selectors.EVENT_READ)
        for byte in head * 100:
            for key, _ in selector.select(0):
                selector.unregister(key.fileobj)
                ended += 1
            if not selector.get_map() or time.monotonic() > stage.end + extra:
                break
            for key in list(selector.get_map().values()):
                with suppress(ConnectionError):
                    key.fileobj.send(bytes([byte]))  # type: ignore[union-attr]
            time.sleep(0.02)
    return ended


def drip_handshakes(stage: Stage) -> None:
    head = handshake_head(stage.port).replace(b"\r\n\r\n", b"\r\nX-More: " + b"x" * 10_000)
    assert drip(stage, head, TIME_LIMIT) == 100


def ask_for_files_and_never_read(stage: Stage) -> None:
    requests = b"GET /lhttp.js HTTP/1.1\r\n\r\n" * 20_000
    with ExitStack() as stack:
        left: dict[socket.socket, memoryview] = {}
        for _ in range(8):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
            sock.connect(("127.0.0.1", stage.port))
            sock.setblocking(False)
            left[sock] = memoryview(requests)
        while stage.lasts():
            for sock in left:
                with suppress(BlockingIOError):
                    left[sock] = left[sock][sock.send(left[sock]) :]
            time.sleep(0.001)


def drip_bodies(stage: Stage) -> None:
    drip(stage, b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n" + b"x" * 10_000)


def post_300_megabytes(stage: Stage) -> None:
    while stage.lasts():
        for header, chunk in (
            (b"Content-Length: 300000000", b"x" * 65_536),
            (b"Transfer-Encoding: chunked", b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
        ):
            with socket.create_connection(("127.0.0.1", stage.port), TIME_LIMIT) as sock:
                sock.sendall(b"POST /publish HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n")
                answers, sent = sock.makefile("rb"), 0
                try:
                    while sent < 200_000 or (sent < 300_000_000 and stage.lasts()):
                        sent += sock.send(chunk)
                except ConnectionError:
                    continue  # it hung up on what came after its answer
                assert answers.readline().startswith(b"HTTP/1.1 413 ")


def come_from_another_site(stage: Stage) -> None:
    origin = ["Origin: https://evil.example"]
    good = message("chat", {"publish": "room"})
    while stage.lasts():
        with RawClient(stage.port, headers=origin) as client:
            assert client.status == 403
        with socket.create_connection(("127.0.0.1", stage.port), TIME_LIMIT) as sock:
            head = handshake_head(80, headers=["Origin: http://rebound.example"])
            sock.sendall(head.replace(b"Host: 127.0.0.1:80", b"Host: rebound.example"))
            assert sock.makefile("rb").readline().startswith(b"HTTP/1.1 403 ")
        for stranger in (
            {"Origin": "https://evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Host": "evil.example"},
        ):
            headers = {"Content-Type": "text/plain", **stranger}
            assert http_request(stage.port, "POST", "/publish", good, headers)[0] == 403


def put_escapes_where_they_may_be_logged(stage: Stage) -> None:
    while stage.lasts():
        for request in (
            b"GET /\x1b[31mred\r HTTP/1.1\r\nHost: localhost\r\n\r\n",
            handshake_head(80, headers=["Origin: http://\x1b[31m\x9b31m"]),
            handshake_head(80).replace(b"Version: 13", b"Version: \x1b[31m"),
            handshake_head(80).replace(b"dGhl", b"\x1b[31m"),
            handshake_head(80, headers=["Sec-WebSocket-Extensions: \x1b[31m"]),
            handshake_head(80, headers=["Sec-WebSocket-Protocol: \x1b[31m, \x1b[31m"]),
            handshake_head(80, path="/\x1b[31m\x0b[Main loop terminated"),
        ):
            with socket.create_connection(("127.0.0.1", stage.port), TIME_LIMIT) as sock:
                sock.sendall(request)
                answer = sock.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 ")
            assert b"\x1b" not in answer
        with RawClient(stage.port) as client:
            client.send(message("chat\x1b[31m"))
            assert b"\x1b" not in client.receive()[1]
    assert not re.search("[\x1b\x9b\r\x0b]", stage.server.log)


def guess_the_token(stage: Stage) -> None:
    good = message("chat", {"publish": "room"})
    while stage.lasts():
        for guess in ("é", "", TOKEN[:-1], "x" * 8_000, "\udcff"):
            header = f"Bearer {guess}".encode("utf-8", "surrogateescape").decode("latin-1")
            assert http_request(stage.port, "POST", "/publish", good, {"Authorization": header})[0] == 401


# Attacks by way of backends


def ask_backends(stage: Stage, path: str, expected: bytes) -> None:
    """Let several clients ask for *path* again and again; each answer holds *expected*."""
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(stage.port)) for _ in range(20)]
        while stage.lasts():
            for client in clients:
                client.send(message("chat", {"upstream": f"GET {stage.backend.url}{path}", "receipt": "r"}))
            for client in clients:
                assert expected in client.receive()[1]


def ask_for_a_redirect(stage: Stage) -> None:
    ask_backends(stage, "/redirect", b"\r\nupstream-status:302\r\n")
    assert not [path for _, path, _, _ in stage.backend.requests if path == "/redirected"]


def ask_for_a_bomb(stage: Stage) -> None:
    http_request(stage.backend.port, "GET", "/gzip")  # it takes a while to make
    ask_backends(stage, "/gzip", b"\r\n\r\n\x1f\x8b")


def ask_for_an_endless_answer(stage: Stage) -> None:
    ask_backends(stage, "/endless", b"\r\nreason:upstream answered with more than 65536 bytes\r\n")


def ask_for_what_never_comes(stage: Stage) -> None:
    ask_backends(stage, "/hang", b"\r\nstatus:504\r\n")


def spell_loopback_in_other_ways(stage: Stage) -> None:
    port = stage.backend.port
    hosts = (
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
        "0.0.0.0",
    )
    count = len(stage.backend.requests)
    while stage.lasts():
        with RawClient(stage.port) as client:
            for host in hosts:
                client.send(message("chat", {"upstream": f"GET http://{host}:{port}/record", "receipt": "r"}))
                answer = client.receive()[1]
                assert b"\r\nstatus:403\r\n" in answer or b"\r\nstatus:400\r\n" in answer
    assert len(stage.backend.requests) == count


# The stages

PLAIN: tuple[Callable[[Stage], None], ...] = (
    stall_while_much_is_published,
    flood_with_pings,
    flood_with_empty_pings,
    flood_with_pongs,
    flood_with_malformed_messages,
    flood_with_messages_to_be_answered,
    flood_with_empty_fragments,
    send_fragments_without_end,
    declare_a_terabyte,
    send_a_deflate_bomb,
    offer_deflate_many_times,
    subscribe_without_end,
    publish_with_ever_new_heads,
    connect_and_reset,
    send_a_head_without_end,
    drip_handshakes,
    ask_for_files_and_never_read,
    drip_bodies,
    post_300_megabytes,
    come_from_another_site,
    put_escapes_where_they_may_be_logged,
)

GUARDED = (guess_the_token,)

PROXY = (
    ask_for_a_redirect,
    ask_for_a_bomb,
    ask_for_an_endless_answer,
    ask_for_what_never_comes,
    spell_loopback_in_other_ways,
)


@pytest.fixture(scope="module")
def shared_backend() -> Iterator[Backend]:
    started = Backend()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(
        *processor_arguments("echo"),
        *("--handshake-timeout", str(HANDSHAKE_TIMEOUT)),
        cwd=tmp_path_factory.mktemp("plain"),
    )
    yield process
    process.check()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(environment={"LHTTP_PUBLISH_TOKEN": TOKEN}, cwd=tmp_path_factory.mktemp("guarded"))
    yield process
    process.check()


@pytest.fixture(scope="module")
def proxy(shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(
        *("--upstream-allow", shared_backend.url, "--upstream-timeout", str(UPSTREAM_TIMEOUT)),
        *("--upstream-max-failures", "0"),  # or the backend would soon be left alone
        cwd=tmp_path_factory.mktemp("proxy"),
    )
    yield process
    process.check()


def test_whoever_waits_for_seconds_waits_too_long_on_any_machine() -> None:
    figures = Figures(sent=100, lost=0, strange=0, median=0.01, p99=MAX_P99 / 2, growth=0)
    assert not waits_too_long(figures, MAX_P99)
    assert waits_too_long(replace(figures, p99=2.0), MAX_P99)


@pytest.mark.parametrize(
    ("where", "attack"),
    [
        *(("plain", attack) for attack in PLAIN),
        *(("guarded", attack) for attack in GUARDED),
        *(("proxy", attack) for attack in PROXY),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_attack_costs_others_nothing(
    request: pytest.FixtureRequest, shared_backend: Backend, where: str, attack: Callable[[Stage], None]
) -> None:
    server: ServerProcess = request.getfixturevalue(where)
    attack_beside_honest(server, shared_backend, attack, MAX_GROWTH)
    wait_until(lambda: http_request(server.port, "GET", "/")[0] == 426, "an answer after the attack")
