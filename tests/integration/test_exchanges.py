"""Every exchange of ``vectors/exchanges.json`` through the real server, with the exact bytes that come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from integration._server import ServerProcess, open_client, recv_bytes, send_bytes
from integration._vectors import VECTORS, octets, parametrized

SYNC = "LHTTP/1.0 sync\r\nreceipt:sync\r\n\r\n"
SYNCED = (b"LHTTP/1.0 receipt\r\nreceipt-id:sync\r\n\r\n", False)
PROCESSORS = {"plain": ("echo", "upload"), "auth": ("auth",)}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ServerProcess]]:
    """The servers that the exchanges name, each with its processors."""
    started = {}
    for name, processors in PROCESSORS.items():
        arguments = [
            word for processor in processors for word in ("--processor", f"{VECTORS / 'processors.py'}:{processor}")
        ]
        started[name] = ServerProcess(*arguments, cwd=tmp_path_factory.mktemp(name))
    yield started
    for server in started.values():
        server.check()


@parametrized("exchanges")
def test_exchange_brings_back_the_exact_bytes(servers: dict[str, ServerProcess], entry: dict[str, Any]) -> None:
    names = {step["client"] for step in entry["steps"]}.union(*(step["receive"] for step in entry["steps"]))
    with ExitStack() as stack:
        port = servers[entry["server"]].port
        clients = {name: stack.enter_context(open_client(port)) for name in sorted(names)}
        for step in entry["steps"]:
            send_bytes(clients[step["client"]], octets(step["send"], "raw"), step["send"]["binary"])
            for name in sorted(names, key=lambda name: name != step["client"]):
                clients[name].send(SYNC)
                received = []
                while (got := recv_bytes(clients[name])) != SYNCED:
                    received.append(got)
                wanted = step["receive"].get(name, [])
                assert received == [(octets(message, "raw"), message["binary"]) for message in wanted]
