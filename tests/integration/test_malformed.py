"""
Every malformed input of ``tests/vectors`` through the real server.

Each gets the right error, the connection lives on, and the next good message works.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from integration._server import (
    TIME_LIMIT,
    ServerProcess,
    http_request,
    message,
    open_client,
    processor_arguments,
    recv_bytes,
    send_bytes,
)
from integration._vectors import octets, parametrized, read


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with default limits and the upstream target that the vectors were written for."""
    process = ServerProcess(
        *processor_arguments("echo"),
        *("--upstream-allow", "http://backend.example/record"),
        cwd=tmp_path_factory.mktemp("strict"),
    )
    yield process
    process.check()


@pytest.fixture(scope="module")
def client(strict: ServerProcess) -> Iterator[ClientConnection]:
    """One connection for all malformed inputs: each must leave it as it was."""
    with open_client(strict.port) as connected:
        connected.send(message("chat", {"subscribe": "a b c room", "receipt": "in"}))
        connected.recv(TIME_LIMIT)
        yield connected


def test_malformed_inputs_are_at_least_eighty() -> None:
    assert len({(octets(entry, "raw"), entry["binary"]) for entry in read("malformed")}) >= 80


@parametrized("malformed")
def test_malformed_message_costs_an_error_and_nothing_else(client: ClientConnection, entry: dict[str, Any]) -> None:
    send_bytes(client, octets(entry, "raw"), entry["binary"])
    client.send(message("echo", {}, "the next good message"))
    raw, binary = recv_bytes(client)
    head, blank, body = raw.decode("utf-8").partition("\r\n\r\n")
    start, status, reason, *_ = head.split("\r\n")
    assert (start, status) == ("LHTTP/1.0 error", f"status:{entry['status']}")
    assert reason.startswith("reason:")
    assert entry["reason"] in reason
    assert (blank, body, binary) == ("\r\n\r\n", "", False)
    assert recv_bytes(client) == (message("echo", {}, "the next good message").encode("ascii"), False)


@parametrized("publish")
def test_posted_message_is_answered(strict: ServerProcess, entry: dict[str, Any]) -> None:
    channels = entry.get("channels", [])
    with open_client(strict.port) as listener:
        if channels:
            listener.send(message("chat", {"subscribe": " ".join(channels), "receipt": "in"}))
            listener.recv(TIME_LIMIT)
        kind = {} if entry.get("content_type") is None else {"Content-Type": entry["content_type"]}
        status, _, body = http_request(strict.port, "POST", "/publish", octets(entry, "raw"), kind)
        assert status == entry["status"]
        if status == 200:
            assert json.loads(body) == {"channels": channels}
        else:
            assert entry["reason"] in body.decode("utf-8")
        for _ in channels:
            delivered = entry["delivered"]
            assert recv_bytes(listener) == (octets(delivered, "raw"), delivered["binary"])
        listener.send(message("echo", {}, "nothing else"))
        assert listener.recv(TIME_LIMIT) == message("echo", {}, "nothing else")


def test_server_works_after_all_of_it(strict: ServerProcess) -> None:
    with open_client(strict.port) as jack, open_client(strict.port) as jill:
        jill.send(message("chat", {"subscribe": "room", "receipt": "in"}))
        jill.recv(TIME_LIMIT)
        jack.send(message("chat", {"publish": "room"}, "still here"))
        assert jill.recv(TIME_LIMIT) == message("chat", {"publish": "room"}, "still here")
