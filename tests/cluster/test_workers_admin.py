"""The admin side of several workers: one of them answers, for all."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from integration._nats import needs_nats
from integration._server import ServerProcess, http_request, message, wait_until

from cluster.test_workers import Connect, connect, workers

__all__ = ["connect"]

pytestmark = needs_nats
pytest.importorskip("prometheus_client", reason="prometheus-client is missing (the extra metrics)")

SECRET = "operator-secret-0123456789"
CONFIG = """
metrics = true
[admin]
listen = "tcp:0:interface=127.0.0.1"
[admin.keys.operator]
secret_file = "key"
methods = ["*"]
"""


class Admin:
    """The admin side of a server with two workers."""

    def __init__(self, serve: Callable[..., ServerProcess], directory: Path, *arguments: str) -> None:
        (directory / "lhttp.toml").write_text(CONFIG, "utf-8")
        self.key = directory / "key"
        self.key.write_text(SECRET, "utf-8")
        self.key.chmod(0o600)
        self.server = serve("--config", "lhttp.toml", "--workers", "2", *arguments, endpoints=2)
        self.server.wait_for_log("connected to NATS", count=2)
        self.server.wait_for_log("admin side on")
        (port,) = re.findall(r"admin side on 127\.0\.0\.1:(\d+)", self.server.log)
        self.port = int(port)

    def ask(self, method: str, path: str, body: str | None = None, secret: str = SECRET) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        status, _, told = http_request(self.port, method, path, body, headers)
        return status, told.decode("utf-8")

    def values(self, name: str) -> dict[str, float]:
        """Return the sum of a metric's samples, by the worker."""
        status, text = self.ask("GET", "/metrics")
        assert status == 200
        found: dict[str, float] = {}
        for labels, value in re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE):
            (worker,) = re.findall(r'worker="(\d+)"', labels) or [""]
            found[worker] = found.get(worker, 0.0) + float(value)
        return found

    def worker(self, number: int) -> int:
        """Return the process id of a worker."""
        (found,) = [
            pid
            for pid in workers(self.server)
            if f"_LHTTP_WORKER={number}/2/".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        ]
        return found


def test_one_worker_answers_for_all(serve: Callable[..., ServerProcess], connect: Connect, tmp_path: Path) -> None:
    admin = Admin(serve, tmp_path)
    clients = [connect(admin.server) for _ in range(12)]
    wait_until(lambda: sum(admin.values("lhttp_connections").values()) == 12, "all connections are told")
    assert admin.values("lhttp_connections").keys() <= {"1", "2"}
    assert admin.values("lhttp_build_info") == {"1": 1, "2": 1}
    assert admin.values("lhttp_workers") == {"": 2}
    assert admin.values("lhttp_workers_limit") == {"": 2}
    clients[0].send(message("chat", {"publish": "room"}, "hello"))
    wait_until(lambda: sum(admin.values("lhttp_publications_total").values()) == 1, "the publication is counted")
    wait_until(lambda: min(admin.values("lhttp_reactor_lag_seconds_count").values()) > 0, "both take samples")
    status, told = admin.ask("POST", "/api/connections", "{}")
    assert (status, len(json.loads(told)["connections"])) == (200, 12)
    trace = '{"trace": "t", "kind": "command", "name": "x"}'
    for method, order in (("incidents", "{}"), ("rates", "{}"), ("trace", trace)):
        status, told = admin.ask("POST", f"/api/{method}", order)
        assert (status, json.loads(told).get("unanswered")) == (200, []), (method, told)


def test_a_worker_that_hangs_is_left_out(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    admin = Admin(serve, tmp_path, "--worker-timeout", "0")
    wait_until(lambda: admin.values("lhttp_workers") == {"": 2}, "both are there")
    os.kill(admin.worker(2), signal.SIGSTOP)
    try:
        wait_until(lambda: admin.values("lhttp_workers") == {"": 1}, "one is left out")
        assert admin.values("lhttp_build_info") == {"1": 1}
    finally:
        os.kill(admin.worker(2), signal.SIGCONT)
    wait_until(lambda: admin.values("lhttp_workers") == {"": 2}, "both are there again")


def test_it_comes_back_with_its_worker(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    admin = Admin(serve, tmp_path)
    wait_until(lambda: admin.values("lhttp_workers") == {"": 2}, "both are there")
    os.kill(admin.worker(1), signal.SIGKILL)

    def is_whole() -> bool:
        with suppress(OSError):
            return admin.values("lhttp_workers") == {"": 2}
        return False

    wait_until(is_whole, "the admin side answers for both")


def test_new_keys_are_taken(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    admin = Admin(serve, tmp_path)
    admin.key.write_text("another-secret-0123456789", "utf-8")
    admin.server.process.send_signal(signal.SIGHUP)
    admin.server.wait_for_log("active keys of the admin side")
    wait_until(
        lambda: admin.ask("POST", "/api/info", "{}", "another-secret-0123456789")[0] == 200, "the new key is taken"
    )
    assert admin.ask("POST", "/api/info", "{}")[0] == 401
