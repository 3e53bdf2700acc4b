"""
Attacks by way of histories on a real server, with an honest client beside each.

A short message may ask for much: nobody else waits for that, or loses anything by it, and what the server holds for the
attackers is what ``howto/production`` says of a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from integration._hazards import THOROUGH, Flood, Stage, attack_beside_honest
from integration._honest import FrameReader
from integration._server import (
    CLOSE,
    TEXT,
    TIME_LIMIT,
    Backend,
    RawClient,
    ServerProcess,
    client_frame,
    message,
    wait_until,
)

pytestmark = pytest.mark.once

CHANNELS = [f"kept.{number}" for number in range(128)]
"""As many as a connection may subscribe to."""

ALL = " ".join(CHANNELS)

LARGE, SMALL = 16_000, 1_000
"""The size of the messages in the first few channels, and how many very small ones there are in others."""

ATTACKERS = 10 if THOROUGH else 4

CONNECTION = int(2.25 * 2**20)
"""Bytes that one connection takes at most, with the default limits."""

PROCESS = {"memory": 10 * 2**20, "sqlite:history.db": 58 * 2**20}
"""Bytes that the process may take beside: what Python keeps for the next time, and the caches of SQLite."""


def fill(port: int) -> None:
    """Publish to all channels: to some of them large messages, to some many small ones, to the others a few."""
    with RawClient(port) as publisher:
        for number, channel in enumerate(CHANNELS):
            count, size = ((40, LARGE), (SMALL, 0), (5, 100))[min(number // 8, 2)]
            frame = client_frame(message("chat", {"publish": channel}, "x" * size).encode("ascii"))
            publisher.sock.sendall(frame * count)
        publisher.send(message("chat", {"publish": CHANNELS[0], "receipt": "last"}))
        assert b"receipt-id:last" in publisher.receive()[1]


def epoch_of(port: int) -> str:
    """Return the epoch of the histories."""
    with RawClient(port) as client:
        client.send(message("chat", {"subscribe": CHANNELS[0], "receipt": "r"}))
        return client.receive()[1].partition(b"position:")[2].partition(b"=")[2].partition(b"-")[0].decode("ascii")


def receive_until(client: RawClient, token: str) -> int:
    """Return how many messages come before the receipt with *token*."""
    wanted, count = f"receipt-id:{token}".encode("ascii"), 0
    while True:
        opcode, payload = client.receive()
        assert opcode == TEXT, (opcode, payload)
        if payload.startswith(b"LHTTP/1.0 receipt") and wanted in payload:
            return count
        assert not payload.startswith(b"LHTTP/1.0 error"), payload
        count += 1


def ask_for_everything(stage: Stage) -> None:
    """Ask for the whole history of all channels, again and again."""
    since = f"{epoch_of(stage.port)}-0"
    subscribe = message("chat", {"subscribe": ALL, "since": since, "receipt": "all"})
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(stage.port)) for _ in range(ATTACKERS)]
        while stage.lasts():
            for client in clients:
                client.send(subscribe)
            counts = {receive_until(client, "all") for client in clients}
            assert counts == {8 * 40 + 1 + 8 * SMALL + 112 * 5}


def ask_for_everything_and_never_read(stage: Stage) -> None:
    since = f"{epoch_of(stage.port)}-0"
    never_read(stage, client_frame(message("chat", {"subscribe": ALL, "since": since}).encode("ascii")))


def ask_for_the_last_and_never_read(stage: Stage) -> None:
    never_read(stage, client_frame(message("chat", {"subscribe": ALL, "last": "9999999"}).encode("ascii")))


def ask_for_history_and_never_read(stage: Stage) -> None:
    questions = (
        {"channel": CHANNELS[0], "limit": "500", "order": "newest"},
        {"channel": CHANNELS[8], "limit": "500"},
        {"channel": CHANNELS[8], "limit": "1", "order": "newest"},
    )
    never_read(stage, b"".join(client_frame(message("history", found).encode("ascii")) for found in questions))


def never_read(stage: Stage, frames: bytes) -> None:
    """
    Send *frames* from several connections, as often as the server takes them, and read nothing.

    At the end, one reads: it was not closed, and gets whole messages.
    """
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(stage.port, receive_buffer=8_192)) for _ in range(ATTACKERS)]
        flood = Flood(clients, frames)
        while stage.lasts():
            flood.send()
        reader, sock = FrameReader(), clients[0].sock
        sock.settimeout(TIME_LIMIT)
        found: list[tuple[int, bytes]] = []
        while len(found) < 100:
            data = sock.recv(262_144)
            assert data, "a client that reads at last was closed"
            found += reader.feed(data)
        assert CLOSE not in {opcode for opcode, _ in found}
        errors = [payload for _, payload in found if payload.startswith(b"LHTTP/1.0 error")]
        assert not errors, errors[0]


def subscribe_from_ever_new_positions(stage: Stage) -> None:
    """Ask for a few small messages of all channels, each time from another position, so that nothing is shared."""
    epoch, number = epoch_of(stage.port), 0
    names = " ".join(CHANNELS[16:])
    with RawClient(stage.port) as client:
        while stage.lasts():
            frames = []
            for _ in range(4):
                number += 1
                headers = {"subscribe": names, "since": f"{epoch}-{number}", "receipt": str(number)}
                frames.append(client_frame(message("chat", headers).encode("ascii")))
            client.sock.sendall(b"".join(frames))
            receive_until(client, str(number))


ATTACKS: tuple[Callable[[Stage], None], ...] = (
    ask_for_everything,
    ask_for_everything_and_never_read,
    ask_for_the_last_and_never_read,
    ask_for_history_and_never_read,
    subscribe_from_ever_new_positions,
)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    started = Backend()
    yield started
    started.stop()


@pytest.fixture(scope="module", params=PROCESS)
def store(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def server(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(*("--history", "kept.*", "--history-store", store), cwd=tmp_path_factory.mktemp("kept"))
    fill(process.port)
    yield process
    process.check()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_asking_for_the_past_costs_others_nothing(
    server: ServerProcess, store: str, attack: Callable[[Stage], None], backend: Backend
) -> None:
    attack_beside_honest(server, backend, attack, ATTACKERS * CONNECTION + PROCESS[store])
    wait_until(lambda: epoch_of(server.port), "an answer after the attack")
