"""Several workers on one port: real processes, with a real nats-server between them."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration._nats import NATSProcess, needs_nats
from integration._server import (
    TIME_LIMIT,
    RawClient,
    ServerProcess,
    http_request,
    message,
    processor_arguments,
    script,
    wait_until,
)

pytestmark = needs_nats

HELLO = message("chat", {"publish": "room"}, "hello")


@pytest.fixture(scope="module")
def nats() -> Iterator[NATSProcess]:
    process = NATSProcess()
    yield process
    process.stop()


@pytest.fixture
def pair(serve: Callable[..., ServerProcess], nats: NATSProcess) -> ServerProcess:
    """A server of two workers, both connected."""
    return start(serve, nats)


def start(serve: Callable[..., ServerProcess], nats: NATSProcess, *arguments: str, **options: object) -> ServerProcess:
    server = serve("--workers", "2", "--nats", nats.url, *arguments, **{"endpoints": 2, **options})
    server.wait_for_log("connected to NATS", count=2)
    return server


def workers(server: ServerProcess) -> list[int]:
    """Return the process ids of its workers."""
    return [int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text("ascii").split()]


def owners(server: ServerProcess) -> dict[int, int]:
    """Return how many established connections each worker has, by its process id."""
    inodes = {}
    for pid in workers(server):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:"):
                inodes[target[8:-1]] = pid
    counts = dict.fromkeys(workers(server), 0)
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{server.port:04X}") and fields[3] == "01" and fields[9] in inodes:
            counts[inodes[fields[9]]] += 1
    return counts


@pytest.fixture
def connect() -> Iterator[Callable[[ServerProcess], RawClient]]:
    """Connect a client that is subscribed to ``room``."""
    clients: list[RawClient] = []

    def connect(server: ServerProcess) -> RawClient:
        clients.append(RawClient(server.port))
        clients[-1].subscribe("room")
        return clients[-1]

    yield connect
    for client in clients:
        client.stream.close()
        client.sock.close()


Connect = Callable[[ServerProcess], RawClient]


def crowd(server: ServerProcess, connect: Connect) -> list[RawClient]:
    """Connect clients until each worker has some of them."""
    clients: list[RawClient] = []

    def enough() -> bool:
        clients.append(connect(server))
        return len(clients) >= 8 and all(owners(server).values())

    wait_until(enough, "both workers have clients")
    return clients


def test_clients_of_both_workers_share_their_channels(pair: ServerProcess, connect: Connect) -> None:
    clients = crowd(pair, connect)
    clients[0].send(HELLO)
    assert {client.receive()[1] for client in clients} == {HELLO.encode()}
    assert http_request(pair.port, "POST", "/publish", HELLO)[0] == 200
    assert {client.receive()[1] for client in clients} == {HELLO.encode()}


def test_worker_that_is_killed_is_replaced_and_nobody_else_notices(pair: ServerProcess, connect: Connect) -> None:
    clients = crowd(pair, connect)
    victim = workers(pair)[0]
    lost = owners(pair)[victim]
    os.kill(victim, signal.SIGKILL)
    connect(pair)  # its clients come back at once
    clients[-1].sock.settimeout(TIME_LIMIT)
    alive = [client for client in clients if answers(client)]
    assert len(clients) - len(alive) == lost
    pair.wait_for_log("died, restarting in")
    pair.wait_for_log("connected to NATS", count=3)
    wait_until(lambda: len(workers(pair)) == 2, "there are two workers again")
    alive[0].send(HELLO)
    assert {client.receive()[1] for client in alive} == {HELLO.encode()}


def test_a_worker_that_is_stopped_is_noticed_and_replaced(
    serve: Callable[..., ServerProcess], nats: NATSProcess, connect: Connect
) -> None:
    server = start(serve, nats, "--worker-timeout", "15")
    clients = crowd(server, connect)
    victim = workers(server)[0]
    lost = owners(server)[victim]
    os.kill(victim, signal.SIGSTOP)
    server.wait_for_log(f"hangs: no heartbeat for 15 s. Its process {victim} is stopped by a signal and used 0.0 s")
    server.wait_for_log("connected to NATS", count=3)
    for client in clients:
        client.sock.settimeout(TIME_LIMIT)
    assert len(clients) - sum(map(answers, clients)) == lost
    assert victim not in workers(server)
    assert len(workers(server)) == 2


def test_a_worker_in_an_endless_loop_says_where_and_is_replaced(
    serve: Callable[..., ServerProcess], nats: NATSProcess, connect: Connect
) -> None:
    server = start(serve, nats, "--worker-timeout", "15", *processor_arguments("spin"))
    crowd(server, connect)[0].send(message("spin"))
    server.wait_for_log("hangs: no heartbeat for 15 s.")
    wait_until(lambda: re.search(r"_processors\.py\", line \d+ in spin", server.log), "its traceback")
    server.wait_for_log("connected to NATS", count=3)


def answers(client: RawClient) -> bool:
    """Return whether the connection of *client* is alive."""
    try:
        client.send(message("x", {"receipt": "alive"}))
        return client.receive()[1] == message("receipt", {"receipt-id": "alive"}).encode()
    except (OSError, ValueError, AssertionError):
        return False


def test_sigterm_closes_the_clients_of_all_workers(pair: ServerProcess, connect: Connect) -> None:
    clients = crowd(pair, connect)
    pids = workers(pair)
    pair.process.send_signal(signal.SIGTERM)
    for client in clients:
        assert client.receive_close()[0] == 1001
        client.sock.shutdown(socket.SHUT_RDWR)
    assert pair.process.wait(TIME_LIMIT) in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", pair.port), TIME_LIMIT)


def test_connections_are_refused_while_workers_finish(
    serve: Callable[..., ServerProcess], nats: NATSProcess, connect: Connect
) -> None:
    server = start(serve, nats, "--drain-timeout", "600", *processor_arguments("hang"))
    busy = connect(server)
    busy.send(message("hang"))
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log(f"(TCP Port {server.port} Closed)", count=3)  # each says so a moment before it is
    wait_until(lambda: refuses(server.port), "nobody listens")
    assert server.process.poll() is None
    server.crash()


def refuses(port: int) -> bool:
    """Return whether connections to *port* are refused."""
    try:
        socket.create_connection(("127.0.0.1", port), TIME_LIMIT).close()
    except ConnectionError:
        return True
    return False


def test_one_worker_that_is_told_to_stop_leaves_the_port_to_the_other(pair: ServerProcess, connect: Connect) -> None:
    os.kill(workers(pair)[0], signal.SIGTERM)
    pair.wait_for_log("died, restarting in")
    connect(pair)
    pair.wait_for_log("connected to NATS", count=3)


def test_workers_do_not_outlive_their_supervisor(pair: ServerProcess, connect: Connect) -> None:
    pids = workers(pair)
    pair.crash()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the workers are gone")


def test_sighup_ends_nobody(pair: ServerProcess, connect: Connect) -> None:
    pids = workers(pair)
    for pid in pids:
        os.kill(pid, signal.SIGHUP)
    connect(pair)
    assert workers(pair) == pids


def test_what_fails_in_a_worker_is_in_the_one_log(
    serve: Callable[..., ServerProcess], nats: NATSProcess, connect: Connect
) -> None:
    server = start(serve, nats, *processor_arguments("boom"))
    client = connect(server)
    client.send(message("boom"))
    assert b"status:500" in client.receive()[1]
    server.expect_traceback("RuntimeError: boom went the processor")
    assert "[worker " in server.log


def test_workers_share_tls_and_unix_sockets(
    serve: Callable[..., ServerProcess], nats: NATSProcess, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    key, chain = certificate
    tls = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={chain}"
    server = start(serve, nats, listen=["--listen", tls, "--listen", f"unix:{tmp_path}/socket"], endpoints=4)
    context = ssl.create_default_context(cafile=str(chain))
    port = int(next(address for address in server.addresses if ":" in address).rpartition(":")[2])
    for _ in range(4):
        with (
            socket.create_connection(("127.0.0.1", port), TIME_LIMIT) as sock,
            context.wrap_socket(sock, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert secure.recv(12) == b"HTTP/1.0 200"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIME_LIMIT)
        sock.connect(f"{tmp_path}/socket")
        sock.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.0 200"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--workers", "2", "--nats-tls-ca", "ca.pem"], "name a server with --nats"),
        (["--workers", "0", "--nats", "nats://127.0.0.1"], "not from 1 to 256"),
    ],
)
def test_workers_that_cannot_be_are_refused(tmp_path: Path, arguments: list[str], text: str) -> None:
    done = subprocess.run(
        [script("twistd"), "-n", "lhttp", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=TIME_LIMIT
    )
    assert done.returncode == 1
    assert text in done.stdout + done.stderr


# Signals


def test_signals_of_a_service_manager_end_neither_supervisor_nor_workers(
    serve: Callable[..., ServerProcess], nats: NATSProcess, connect: Connect
) -> None:
    server = serve("--workers", "2", "--nats", nats.url, endpoints=0)
    server.wait_for_log("starting 2 workers")
    for _ in range(2):  # at first workers have not come to attend to them yet
        wait_until(lambda: len(workers(server)) == 2, "there are two workers")
        for pid in (server.pid, *workers(server)):
            for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGTSTP", "SIGCONT"):
                os.kill(pid, getattr(signal, name))
        server.wait_for_log("connected to NATS", count=2)
    server.wait_for_log("SIGUSR2: ignored", count=6)
    assert "died, restarting" not in server.log
    server.port = int(re.findall(r"listening on 127\.0\.0\.1:(\d+)", server.log)[0])
    client = connect(server)
    client.send(HELLO)
    assert client.receive()[1] == HELLO.encode()


def test_sigquit_stops_supervisor_and_workers(pair: ServerProcess, connect: Connect) -> None:
    pids = workers(pair)
    client = connect(pair)
    pair.process.send_signal(signal.SIGQUIT)
    assert client.receive_close()[0] == 1001
    client.sock.shutdown(socket.SHUT_RDWR)
    assert pair.process.wait(TIME_LIMIT) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_log_of_workers_that_was_moved_is_opened_again(nats: NATSProcess, tmp_path: Path) -> None:
    log, old = tmp_path / "server.log", tmp_path / "elsewhere"
    process = subprocess.Popen(
        [
            *(script("twistd"), "-n", "--pidfile=", "--logfile=server.log", "lhttp", "--workers", "2"),
            *("--nats", nats.url, "--port", "tcp:0:interface=127.0.0.1"),
        ],
        cwd=tmp_path,
    )
    try:
        wait_until(lambda: log.exists() and log.read_text("utf-8").count("connected to NATS") == 2, "they run")
        log.rename(old)
        process.send_signal(signal.SIGUSR1)
        wait_until(lambda: log.exists() and "is a new file" in log.read_text("utf-8"), "there is a new file")
        before = old.read_text("utf-8")
        for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split():
            os.kill(int(pid), signal.SIGUSR2)
        wait_until(lambda: log.read_text("utf-8").count("SIGUSR2: ignored") == 2, "workers write to it")
        assert old.read_text("utf-8") == before
    finally:
        process.terminate()
        process.wait(TIME_LIMIT)
