"""
Attacks by way of event streams, of JSON, of Protocol Buffers and of the admin side, with an honest client beside each.

Most of what is sent was dear once, or held much: see ``fuzz/hostile.py``.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress

import pytest
from fuzz.hostile import HOSTILE
from fuzz.world import Step

from integration._hazards import THOROUGH, Stage, attack_beside_honest
from integration._server import (
    BINARY,
    TEXT,
    TIME_LIMIT,
    Backend,
    RawClient,
    ServerProcess,
    client_frame,
    http_request,
    message,
    wait_until,
)
from lhttp_tx.codec.views import VIEWS

pytestmark = pytest.mark.once

MAX_GROWTH = 20 * 2**20
STREAMS = 500 if THOROUGH else 100
STREAM = 20_000
"""Bytes that an idle stream takes at most in the process: twice what was measured."""

STRANGERS = 100
LARGE = 600
"""Messages of 20,000 bytes to those who do not read: more than the system and the server hold."""

MANY = 1_000
"""Messages of a channel with history."""

_CODECS = {3: "lhttp.json", 4: "lhttp.protobuf"}
"""The subprotocols of the clients in ``fuzz/hostile.py``."""


def answer(port: int, raw: bytes) -> bytes:
    """Return the beginning of what a request is answered with, and close the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIME_LIMIT) as sock, suppress(ConnectionError):
        sock.sendall(raw)
        return sock.recv(65_536)
    return b""


def ask_for_stream(port: int, query: str, *, receive_buffer: int | None = None, head: str = "") -> socket.socket:
    """Return a connection whose event stream has begun."""
    sock = socket.socket()
    sock.settimeout(TIME_LIMIT)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    sock.sendall(f"GET /events?{query} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode("ascii"))
    begun = sock.recv(64)
    assert begun.startswith(b"HTTP/1.1 200"), begun
    return sock


# Event streams


def hold_streams_that_never_read(stage: Stage) -> None:
    """Each holds what it may, and is cut off at last; then it comes again."""
    large = client_frame(message("chat", {"publish": "flood"}, "\x01" * 20_000).encode("ascii"))
    with RawClient(stage.port) as publisher:
        while stage.lasts():
            with ExitStack() as stack:
                streams = [
                    stack.enter_context(ask_for_stream(stage.port, query, receive_buffer=8_192))
                    for query in ("channel=flood", "channel=flood&data=body", "channel=flood&channel=kept.0")
                ]
                for number in range(LARGE):
                    publisher.sock.sendall(large)
                    if not number % 20:
                        publisher.send(message("chat", {"receipt": str(number)}))
                        publisher.receive()
                for stream in streams:
                    with suppress(ConnectionError):
                        while stream.recv(262_144):
                            pass


def hold_idle_streams(stage: Stage) -> None:
    """Their heads were large, and nothing of them is kept."""
    with ExitStack() as stack:
        head = f"Cookie: {'c' * 15_000}\r\n"
        for number in range(STREAMS):
            stack.enter_context(ask_for_stream(stage.port, f"channel=idle.{number}", head=head))
        while stage.lasts():
            time.sleep(0.05)


def ask_streams_for_everything(stage: Stage) -> None:
    """Ask for all of a history again and again, in each form, alone and with a channel of many others."""
    others = "+".join(f"kept.{number}" for number in range(1, 50))
    while stage.lasts():
        for query in ("channel=kept.0", "channel=kept.0&data=body", f"channel=kept.0+{others}"):
            with ask_for_stream(stage.port, f"{query}&last={MANY}") as sock:
                found = 0
                while found < MANY:
                    data = sock.recv(262_144)
                    assert data
                    found += data.count(b"event: chat\n")


def send_monsters(stage: Stage) -> None:
    """Send what was dear once as queries and as headers of event streams."""
    play(stage, [step for step in HOSTILE["a stream of many names"].steps if b"kept" not in step.payload])


# Codecs


def play(stage: Stage, steps: Iterable[Step]) -> None:
    """Send what a script sends, and wait for an answer to what comes behind it."""
    chosen = list(steps)
    end = b"LHTTP/1.0 chat\r\nreceipt:the end\r\n\r\n"
    with ExitStack() as stack:
        clients = {
            number: stack.enter_context(RawClient(stage.port, headers=[f"Sec-WebSocket-Protocol: {codec}"]))
            for number, codec in _CODECS.items()
        }
        while stage.lasts():
            for step in chosen:
                if step.kind == "http":
                    status = answer(stage.port, step.payload).split(b" ")[1:2]
                    assert status not in ([b"500"], [b"503"])
                    continue
                client = clients.get(step.client) or stack.enter_context(RawClient(stage.port))
                clients[step.client] = client
                for unit in step.units():
                    client.sock.sendall(unit)
                codec = _CODECS.get(step.client)
                view = end if codec is None else VIEWS[codec].write(end, False)
                client.send(view, BINARY if codec == "lhttp.protobuf" else TEXT)
                while b"the end" not in client.receive()[1]:
                    pass


def send_structure_in_json(stage: Stage) -> None:
    play(stage, HOSTILE["structure in JSON"].steps)


def send_texts_in_json(stage: Stage) -> None:
    play(stage, HOSTILE["texts in JSON"].steps)


def send_fields_in_protobuf(stage: Stage) -> None:
    play(stage, HOSTILE["fields in Protocol Buffers"].steps)


def publish_to_all_forms(stage: Stage) -> None:
    """Publish what is dear to write in another form, to somebody who takes it in each of them."""
    with ExitStack() as stack:
        for query in ("channel=viewed", "channel=viewed&data=body", "channel=viewed&channel=kept.0"):
            stack.enter_context(ask_for_stream(stage.port, query))
        for name in ("messages in all forms", "parts over HTTP"):
            play(stage, HOSTILE[name].steps)


# The admin side


def admin_port(server: ServerProcess) -> int:
    found = re.search(r"admin side on 127\.0\.0\.1:(\d+)", server.log)
    assert found is not None
    return int(found[1])


def leave_bodies_at_the_admin_side(stage: Stage) -> None:
    """Begin as many requests as it takes, with bodies as large as they may be, and no key."""
    port = admin_port(stage.server)
    head = b"POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(STRANGERS):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=TIME_LIMIT))
            with suppress(ConnectionError):
                sock.sendall(head + bytes(1_000_000))
        while stage.lasts():
            assert http_request(port, "GET", "/live")[0] == 200


ATTACKS: tuple[Callable[[Stage], None], ...] = (
    hold_streams_that_never_read,
    hold_idle_streams,
    ask_streams_for_everything,
    send_monsters,
    send_structure_in_json,
    send_texts_in_json,
    send_fields_in_protobuf,
    publish_to_all_forms,
    leave_bodies_at_the_admin_side,
)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    started = Backend()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess("--history", "kept.*", "--admin", "0", cwd=tmp_path_factory.mktemp("views"))
    with RawClient(process.port) as publisher:
        frame = client_frame(message("chat", {"publish": "kept.0"}, "hello").encode("ascii"))
        publisher.sock.sendall(frame * MANY)
        publisher.send(message("chat", {"publish": "kept.1", "receipt": "last"}))
        assert b"receipt-id:last" in publisher.receive()[1]
    process.wait_for_log("admin side on")
    yield process
    process.check()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_other_forms_cost_others_nothing(
    server: ServerProcess, attack: Callable[[Stage], None], backend: Backend
) -> None:
    growth = STREAMS * STREAM if attack is hold_idle_streams else 0
    attack_beside_honest(server, backend, attack, MAX_GROWTH + growth)
    wait_until(lambda: http_request(server.port, "GET", "/")[0] == 426, "an answer after the attack")
