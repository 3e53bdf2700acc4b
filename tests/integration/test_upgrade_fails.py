"""The next process does not start, or dies: the one that has stopped for it serves again. Without NATS."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration._server import TIME_LIMIT, RawClient, ServerProcess, http_request, message, script, wait_until
from integration.test_upgrade import SLOW, callers, free_port, run

Serve = Callable[..., ServerProcess]

HOOKS = """
import time
from pathlib import Path
from twisted.internet.defer import Deferred
from lhttp_tx import Hooks

class Failing(Hooks):
    def on_start(self, server):
        raise RuntimeError("no database")

class Endless(Hooks):
    timeout = 600

    def on_start(self, server):
        Path("it starts").touch()
        return Deferred()
"""


@pytest.fixture
def listen(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "plugged.py").write_text(HOOKS, encoding="ascii")
    return "--listen", f"tcp:{free_port()}:interface=127.0.0.1", "--listen", f"unix:{tmp_path / 'http.sock'}"


def publish(port: int, body: str) -> None:
    assert http_request(port, "POST", "/publish", message("chat", {"publish": "room"}, body))[0] == 200


def stored(port: int) -> list[bytes]:
    """Return the last bytes of the messages in the history of the room."""
    with RawClient(port) as client:
        client.send(message("chat", {"subscribe": "room", "last": "10", "receipt": "1"}))
        found = []
        while not (data := client.receive()[1]).startswith(b"LHTTP/1.0 receipt"):
            found.append(data[-1:])
        return found


def next_socket(tmp_path: Path) -> int:
    wait_until((tmp_path / "next.sock").exists, "the socket for the next process")
    return (tmp_path / "next.sock").stat().st_ino


@contextmanager
def started(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Within the context, another process runs, which need not serve."""
    command = [script("twistd"), "-n", "--pidfile=", "lhttp", *arguments]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("store", ["memory", "sqlite:history.db"])
def test_an_on_start_that_fails_gives_the_sockets_back(
    serve: Serve, tmp_path: Path, listen: tuple[str, ...], store: str
) -> None:
    devices = free_port()
    options = ("--history", "room", "--history-store", store, "--tcp", f"tcp:{devices}:interface=127.0.0.1",
               "--admin", f"tcp:{free_port()}:interface=127.0.0.1", "--log-stalls", "5",
               "--upgrade", "next.sock")  # fmt: skip
    first = serve(*options, listen=listen, endpoints=3)
    port = first.port
    next_socket(tmp_path)
    publish(port, "1")
    path = str(tmp_path / "http.sock")
    with callers(port, path) as seen, RawClient(port) as client:
        client.subscribe("room")
        for number in range(2):
            failing = serve(*options, "--hooks", "plugged.py:Failing", listen=listen, endpoints=3)
            failing.expect_traceback("RuntimeError: no database")
            assert failing.process.wait(TIME_LIMIT) == 1
            wait_until(lambda number=number: first.log.count("serving again") == number + 1, "it serves again")
        assert client.receive_close()[0] == 1001
        publish(port, "2")
        count = len(seen)
        wait_until(lambda: len(seen) > count + 20, "more answers")
    assert set(seen) == {"HTTP/1.1 200"}
    assert stored(port) == [b"1", b"2"], "what was in memory is still there, too"
    with socket.create_connection(("127.0.0.1", devices), TIME_LIMIT) as device:
        device.sendall(b"42\nLHTTP/1.0 chat\r\nsubscribe:a\r\nreceipt:1\r\n\r\n")
        assert device.recv(3) == b"35\n"
    second = serve(*options, listen=listen, endpoints=3)
    assert first.process.wait(TIME_LIMIT) == 0
    wait_until(lambda: http_request(port, "GET", "/ready")[0] == 200, "it is ready")
    assert stored(port) == ([b"1", b"2"] if store != "memory" else [])
    assert Path(path).is_socket()
    second.stop()
    assert sorted(each.name for each in tmp_path.iterdir() if "sock" in each.name) == []


def test_a_process_that_is_killed_while_it_starts_gives_the_sockets_back(
    serve: Serve, tmp_path: Path, listen: tuple[str, ...]
) -> None:
    options = ("--history", "room", "--history-store", "sqlite:history.db", "--upgrade", "next.sock")
    first = serve(*options, listen=listen, endpoints=2)
    next_socket(tmp_path)
    with callers(first.port) as seen:
        with started(tmp_path, *options, "--hooks", "plugged.py:Endless", *listen) as endless:
            wait_until((tmp_path / "it starts").exists, "its on_start")
            assert f"process {endless.pid} takes over" in run(tmp_path, *options)
        publish(first.port, "1")
    assert set(seen) == {"HTTP/1.1 200"}
    assert stored(first.port) == [b"1"]
    first.stop()
    assert sorted(each.name for each in tmp_path.iterdir() if "sock" in each.name) == []


def test_a_process_that_is_killed_while_it_waits_gives_the_sockets_back(
    serve: Serve, tmp_path: Path, listen: tuple[str, ...]
) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="ascii")
    options = ("--processor", "slow.py:slow", "--upgrade", "next.sock")
    first = serve(*options, listen=listen, endpoints=2)
    next_socket(tmp_path)
    with RawClient(first.port) as client:
        client.send(message("slow"))
        with started(tmp_path, *options, *listen) as second:
            first.wait_for_log(f"process {second.pid} has taken over: stopping")
        (tmp_path / "go on").touch()
        assert client.receive()[1].endswith(b"done")
        assert client.receive_close()[0] == 1001
    publish(first.port, "1")
    assert "serving again" in first.log


def test_a_process_that_waits_accepts_nothing_that_nobody_would_get(
    serve: Serve, tmp_path: Path, listen: tuple[str, ...]
) -> None:
    """Its clients are gone. A request that was under way, or comes on an old connection, is told to come again."""
    options = ("--upgrade", "next.sock", "--drain-timeout", "1")
    first = serve(*options, listen=listen, endpoints=2)
    next_socket(tmp_path)
    body = message("chat", {"publish": "room"}, "hello").encode("ascii")
    request = b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with (
        socket.create_connection(("127.0.0.1", first.port), TIME_LIMIT) as half,
        socket.create_connection(("127.0.0.1", first.port), TIME_LIMIT) as idle,
    ):
        half.sendall(request[:-1])
        idle.sendall(request)
        assert idle.recv(1000).startswith(b"HTTP/1.1 200")
        with started(tmp_path, *options, "--hooks", "plugged.py:Endless", *listen):
            wait_until((tmp_path / "it starts").exists, "its on_start")
            half.sendall(request[-1:])
            idle.sendall(request)
            for sock in (half, idle):
                answer = b"".join(iter(lambda sock=sock: sock.recv(1000), b""))
                assert answer.startswith(b"HTTP/1.1 503") and b"Connection: close" in answer
        publish(first.port, "1")


def test_a_process_that_waits_can_be_stopped(serve: Serve, tmp_path: Path, listen: tuple[str, ...]) -> None:
    options = ("--upgrade", "next.sock")
    first = serve(*options, listen=listen, endpoints=2)
    next_socket(tmp_path)
    with started(tmp_path, *options, "--hooks", "plugged.py:Endless", *listen) as endless:
        wait_until((tmp_path / "it starts").exists, "its on_start")
        os.kill(first.pid, signal.SIGHUP)
        first.wait_for_log("SIGHUP")
        os.kill(first.pid, signal.SIGTERM)
        assert first.process.wait(TIME_LIMIT) == -signal.SIGTERM
        assert endless.poll() is None, "it has the sockets for good"
