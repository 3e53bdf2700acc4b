"""Channel rules where several workers share a port, with a real nats-server between them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from integration._nats import NATSProcess, needs_nats
from integration._server import TIME_LIMIT, ServerProcess, message, open_client

pytestmark = needs_nats


@pytest.fixture
def nats() -> Iterator[NATSProcess]:
    process = NATSProcess()
    yield process
    process.stop()


def test_sighup_puts_other_rules_in_force_in_every_worker(
    serve: Callable[..., ServerProcess], nats: NATSProcess, tmp_path: Path
) -> None:
    file = tmp_path / "lhttp.toml"
    file.write_text(f'workers = 2\nnats = "{nats.url}"\n', "utf-8")
    server = serve("--config", "lhttp.toml", endpoints=2)
    server.wait_for_log("connected to NATS", count=2)
    file.write_text(f'workers = 2\nnats = "{nats.url}"\n[[channel]]\nmatch = "a*"\n', "utf-8")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("not applied, the old channel rules stay active")
    closed = '[[channel]]\nmatch = "a"\nsubscribe = "nobody"\npublish = "nobody"\n'
    file.write_text(f'workers = 2\nnats = "{nats.url}"\n{closed}', "utf-8")
    with ExitStack() as stack:
        clients = [stack.enter_context(open_client(server.port)) for _ in range(6)]
        for client in clients:
            client.send(message("chat", {"subscribe": "a", "receipt": "1"}))
            assert client.recv(TIME_LIMIT) == message("receipt", {"receipt-id": "1"})
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("active channel rules: 1", count=3)  # the one that watches over them reads it first
        assert server.log.count("not applied, the old channel rules") == 1
        for client in clients:
            lost = {"status": "403", "reason": "not allowed to subscribe to channel 'a'", "unsubscribed": "a"}
            assert client.recv(TIME_LIMIT) == message("error", lost)
            client.send(message("chat", {"publish": "a"}))
            refusal = {"status": "403", "reason": "not allowed to publish to channel 'a'"}
            assert client.recv(TIME_LIMIT) == message("error", refusal)
