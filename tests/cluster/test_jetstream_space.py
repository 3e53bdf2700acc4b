"""History on a NATS server whose JetStream has no space."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from integration._nats import NATSProcess, needs_nats
from integration._server import ServerProcess, http_request, message, wait_until

pytestmark = [needs_nats]


def health(port: int) -> dict[str, str]:
    status, _, answer = http_request(port, "GET", "/health")
    assert status == 200
    return json.loads(answer)


def publish(port: int, channel: str, size: int) -> tuple[int, bytes]:
    status, _, answer = http_request(port, "POST", "/publish", message("chat", {"publish": channel}, "x" * size))
    return status, answer


def test_health_tells_while_there_is_no_space(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    settings = tmp_path / "nats.conf"

    def limit(size: str) -> None:
        settings.write_text(f"jetstream {{store_dir: '{tmp_path}', max_file_store: {size}}}\n", "utf-8")

    limit("200KB")
    nats = NATSProcess("-c", str(settings))
    try:
        node = serve("--nats", nats.url, "--history", "room")
        wait_until(lambda: health(node.port) == {"status": "ok"}, "the history")
        while (found := publish(node.port, "room", 20_000))[0] == 200:
            pass
        assert found[0] == 503
        assert b"JetStream: " in found[1]
        assert health(node.port) == {"status": "degraded", "history": "unavailable"}
        assert http_request(node.port, "GET", "/ready")[0] == 200  # the other nodes have no space, either
        assert publish(node.port, "lobby", 20_000)[0] == 200
        nats.kill()
        limit("20MB")
        nats.start()
        wait_until(lambda: publish(node.port, "room", 20_000)[0] == 200, "room for publications")
        assert "history" not in health(node.port)
        wait_until(lambda: health(node.port) == {"status": "ok"}, "the way to NATS")
    finally:
        nats.kill()
