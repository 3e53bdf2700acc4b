"""Wildcard subscriptions on a real server, and across two nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from integration._nats import NATSProcess, needs_nats
from integration._server import ServerProcess, message, open_client, recv_bytes

RULES = """\
[[channel]]
match = "room.>"
wildcards = true
"""
JOIN = message("x", {"subscribe": "room.*", "receipt": "1"})
HELLO = message("chat", {"publish": "room.7"}, "hello")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "lhttp.toml"
    path.write_text(RULES, encoding="utf-8")
    return path


def join_and_hear(at: ServerProcess, publisher_at: ServerProcess) -> None:
    with open_client(at.port) as client, open_client(publisher_at.port) as publisher:
        client.send(JOIN)
        assert b"receipt" in recv_bytes(client)[0]
        publisher.send(message("chat", {"publish": "room"}, "unheard"))
        publisher.send(HELLO)
        assert recv_bytes(client) == (HELLO.encode(), False)
        client.send(message("x", {"subscribe": ">"}))
        assert b"status:403" in recv_bytes(client)[0]


def test_a_wildcard_brings_what_belongs_to_it(serve: Callable[..., ServerProcess], config: Path) -> None:
    server = serve("--config", str(config))
    join_and_hear(server, server)


@needs_nats
def test_a_wildcard_brings_what_other_nodes_publish(serve: Callable[..., ServerProcess], config: Path) -> None:
    nats = NATSProcess()
    try:
        one, two = (serve("--config", str(config), "--nats", nats.url) for _ in range(2))
        for node in (one, two):
            node.wait_for_log("connected to NATS")
        join_and_hear(one, two)
        join_and_hear(two, one)
    finally:
        for node in (one, two):
            node.stop()
        nats.stop()
