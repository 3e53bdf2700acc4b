"""Workers without a NATS of the operator's: real processes, and the nats-server that the supervisor starts."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from integration._nats import needs_nats
from integration._server import TIME_LIMIT, RawClient, ServerProcess, http_request, message, script, wait_until

from cluster.test_workers import Connect, connect, workers

__all__ = ["connect"]

pytestmark = needs_nats

HELLO = message("chat", {"publish": "room"}, "hello")


def start(serve: Callable[..., ServerProcess], *arguments: str) -> ServerProcess:
    server = serve("--workers", "2", *arguments, endpoints=2)
    server.wait_for_log("connected to NATS", count=2)
    return server


def broker(server: ServerProcess) -> int:
    """Return the process id of the nats-server."""
    (found,) = [pid for pid in workers(server) if b"nats.conf" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def home(server: ServerProcess) -> Path:
    return Path(Path(f"/proc/{broker(server)}/cmdline").read_bytes().split(b"\0")[2].decode()).parent


def test_workers_share_their_channels_by_themselves_and_leave_nothing_behind(
    serve: Callable[..., ServerProcess], connect: Connect
) -> None:
    server = start(serve)
    clients = [connect(server) for _ in range(12)]
    clients[0].send(HELLO)
    assert {client.receive()[1] for client in clients} == {HELLO.encode()}
    place, pid = home(server), broker(server)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {stat.S_IMODE((place / name).stat().st_mode) for name in ("password", "nats.conf")} == {0o600}
    secret = (place / "password").read_text("ascii")
    assert len(secret) == 64
    told = [Path(f"/proc/{found}/{file}").read_bytes() for found in workers(server) for file in ("cmdline", "environ")]
    assert not any(secret.encode() in text for text in told)
    assert secret not in server.log
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(TIME_LIMIT) in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert not place.exists()
    assert not Path(f"/proc/{pid}").exists()
    assert "cannot reach NATS" not in server.log


def test_who_does_not_know_the_secret_is_not_let_in(serve: Callable[..., ServerProcess]) -> None:
    server = start(serve)
    port = int(re.search(r'listen: "127\.0\.0\.1:(\d+)"', (home(server) / "nats.conf").read_text())[1])  # type: ignore[index]
    with socket.create_connection(("127.0.0.1", port), TIME_LIMIT) as sock:
        sock.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        told = b""
        while data := sock.recv(4_096):
            told += data
    assert b"Authorization Violation" in told


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_nats_server_that_dies_or_hangs_is_started_again(
    serve: Callable[..., ServerProcess], connect: Connect, number: int
) -> None:
    server = start(serve, "--worker-timeout", "15")
    clients = [connect(server) for _ in range(12)]
    os.kill(broker(server), number)
    if number == signal.SIGSTOP:
        server.wait_for_log("the nats-server of the workers hangs: its process is stopped by a signal")
    server.wait_for_log("the nats-server of the workers died, restarting in")
    server.wait_for_log("connected to NATS", count=4)
    wait_until(lambda: http_request(server.port, "POST", "/publish", HELLO)[0] == 200, "it publishes")
    assert all(map(listens, clients))


def listens(client: RawClient) -> bool:
    return HELLO.encode() in client.receive()[1]


def test_the_nats_server_does_not_outlive_its_supervisor(serve: Callable[..., ServerProcess]) -> None:
    server = start(serve)
    pids, place = workers(server), home(server)
    assert len(pids) == 3
    server.crash()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "all are gone")
    for name in ("password", "nats.conf"):
        (place / name).unlink()
    place.rmdir()


def test_history_is_kept_in_the_directory_of_the_operator(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    arguments = ("--history", "room", "--history-store", "jetstream", "--workers-store", str(tmp_path / "store"))
    asked = message("history", {"channel": "room"})
    server = start(serve, *arguments)
    wait_until(lambda: http_request(server.port, "POST", "/publish", HELLO)[0] == 200, "the history is there")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(TIME_LIMIT)
    again = start(serve, *arguments)
    wait_until(lambda: b'"ok"' in http_request(again.port, "GET", "/health")[2], "the history is there")
    client = RawClient(again.port)
    client.send(asked)
    assert b"hello" in client.receive()[1]
    client.close()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--history", "room"], "name a directory for it with --workers-store, or add --history-in-memory"),
        (["--nats-tls-ca", "ca.pem"], "--nats-tls-ca is for NATS: name a server with --nats"),
    ],
)
def test_options_that_do_not_fit_say_what_to_do(tmp_path: Path, arguments: list[str], text: str) -> None:
    done = subprocess.run(
        [script("twistd"), "-n", "--pidfile=", "lhttp", "--workers", "2", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=TIME_LIMIT,
        check=False,
    )
    assert done.returncode == 1
    assert text in " ".join(done.stdout.split())


def test_a_missing_nats_server_is_named_with_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys, lhttp_tx.twistd.topics.cluster as cluster\n"
        "cluster.find_server = lambda: None\n"
        "sys.argv = ['twistd', '-n', '--pidfile=', 'lhttp', '--workers', '2']\n"
        "from twisted.scripts.twistd import run\n"
        "run()\n"
    )
    done = subprocess.run(
        [script("python"), "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=TIME_LIMIT,
        check=False,
    )
    assert done.returncode == 1
    assert "--workers needs a nats-server, which it starts by itself: pip install" in " ".join(done.stdout.split())
