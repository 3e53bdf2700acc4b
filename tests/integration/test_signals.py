"""What the signals of a service manager do, in every way of running; workers are tested with a NATS beside them."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration._client import on_terminal
from integration._server import (
    TIME_LIMIT,
    RawClient,
    ServerProcess,
    handshake_head,
    message,
    processor_arguments,
    script,
    wait_until,
)

HELLO = message("chat", {"publish": "room"}, "hello")

HARMLESS = {
    "SIGHUP": "SIGHUP: there is no configuration file to read again",
    "SIGUSR1": "SIGUSR1: ",
    "SIGUSR2": "SIGUSR2: ignored",
    "SIGPIPE": None,
    "SIGTSTP": None,
    "SIGCONT": None,
}
"""Signals that do not end a server, in this order, and what its log says about each."""

LISTEN = ("lhttp", "--port", "tcp:0:interface=127.0.0.1")


def check_alive(port: int) -> None:
    """Let two clients talk to each other."""
    with RawClient(port) as one, RawClient(port) as other:
        other.subscribe("room")
        one.send(HELLO)
        assert other.receive()[1] == HELLO.encode()


@pytest.mark.parametrize(
    "runner",
    [("twistd", "-n", "--pidfile="), ("twistd", "-n", "--pidfile=", "--logfile=-"), ("twist", "--log-format=text")],
    ids=["twistd", "twistd to stdout", "twist"],
)
def test_signals_do_not_end_a_server_in_the_foreground(
    serve: Callable[..., ServerProcess], runner: tuple[str, ...]
) -> None:
    server = serve(runner=runner)
    for name, told in HARMLESS.items():
        server.process.send_signal(getattr(signal, name))
        if told is not None:
            server.wait_for_log(told)
    check_alive(server.port)


@pytest.mark.parametrize(
    "runner", [("twistd", "-n", "--pidfile="), ("twist", "--log-format=text")], ids=["twistd", "twist"]
)
def test_sigquit_stops_a_server_in_order(serve: Callable[..., ServerProcess], runner: tuple[str, ...]) -> None:
    server = serve(runner=runner)
    with RawClient(server.port) as client:
        client.subscribe("room")
        server.process.send_signal(signal.SIGQUIT)
        assert client.receive_close()[0] == 1001
        server.process.send_signal(signal.SIGQUIT)
        server.wait_for_log("already stopping")
        client.send((1001).to_bytes(2, "big"), 8)
        assert server.process.wait(TIME_LIMIT) == 0


def test_signals_do_not_end_a_server_with_a_configuration_file(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    (tmp_path / "lhttp.toml").write_text("max-queue = 5\n", "utf-8")
    server = serve("--config", "lhttp.toml")
    for name in HARMLESS:
        server.process.send_signal(getattr(signal, name))
    server.wait_for_log("active channel rules: 0")
    check_alive(server.port)


class Daemon:
    """A daemonized ``twistd``."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "server.log"
        done = subprocess.run(
            [script("twistd"), "--pidfile=server.pid", "--logfile=server.log", *LISTEN],
            cwd=directory,
            check=True,
            timeout=TIME_LIMIT,
        )
        assert done.returncode == 0
        wait_until(lambda: "listening on" in self.text(), "it listens")
        self.pid = int((directory / "server.pid").read_text("ascii"))
        self.port = int(re.findall(r"listening on 127\.0\.0\.1:(\d+)", self.text())[0])

    def text(self) -> str:
        """Return what is in its log."""
        return self.log.read_text("utf-8") if self.log.exists() else ""

    def signal(self, name: str, told: str | None = None) -> None:
        """Send it a signal, and wait for what its log says."""
        os.kill(self.pid, getattr(signal, name))
        if told is not None:
            wait_until(lambda: told in self.text(), told)


@pytest.fixture
def daemon(tmp_path: Path) -> object:
    daemon = Daemon(tmp_path)
    yield daemon
    os.kill(daemon.pid, signal.SIGTERM)
    wait_until(lambda: not (tmp_path / "server.pid").exists(), "it has stopped")
    assert "Traceback" not in daemon.text()


def test_signals_do_not_end_a_daemon(daemon: Daemon) -> None:
    for name, told in HARMLESS.items():
        daemon.signal(name, told)
    check_alive(daemon.port)


# The log


def test_log_that_was_moved_is_opened_again(daemon: Daemon, tmp_path: Path) -> None:
    check_rotation(daemon.pid, tmp_path / "server.log")


def test_log_that_logrotate_has_replaced_is_opened_and_not_rotated_once_more(daemon: Daemon, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.rename(tmp_path / "server.log.old")
    log.touch(0o640)
    daemon.signal("SIGUSR1", "server.log is a new file")
    assert not (tmp_path / "server.log.1").exists()


def test_log_in_its_place_is_rotated(daemon: Daemon, tmp_path: Path) -> None:
    daemon.signal("SIGUSR1", "server.log was rotated")
    assert "listening on" in (tmp_path / "server.log.1").read_text("utf-8")


def test_log_of_twist_that_was_moved_is_opened_again(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    process = subprocess.Popen([script("twist"), "--log-format=text", "--log-file=server.log", *LISTEN], cwd=tmp_path)
    try:
        wait_until(lambda: log.exists() and "listening on" in log.read_text("utf-8"), "it listens")
        check_rotation(process.pid, log)
    finally:
        process.terminate()
        assert process.wait(TIME_LIMIT) == -signal.SIGTERM


def check_rotation(pid: int, log: Path) -> None:
    """Move a log away, say so, and look where the process writes then."""
    old = log.with_name("elsewhere")
    log.rename(old)
    os.kill(pid, signal.SIGUSR1)
    wait_until(lambda: log.exists() and "is a new file" in log.read_text("utf-8"), "there is a new file")
    before = old.read_text("utf-8")
    os.kill(pid, signal.SIGUSR2)
    wait_until(lambda: "SIGUSR2: ignored" in log.read_text("utf-8"), "it is written to")
    assert old.read_text("utf-8") == before


def test_log_stays_where_it_is_if_there_can_be_no_new_one(daemon: Daemon, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.rename(tmp_path / "elsewhere")
    log.mkdir()
    daemon.signal("SIGUSR1")
    wait_until(
        lambda: "SIGUSR1: still writing to the old file" in (tmp_path / "elsewhere").read_text("utf-8"), "it says so"
    )
    log.rmdir()
    daemon.signal("SIGUSR1", "server.log is a new file")


# A terminal, and standing still


def test_server_ends_with_its_terminal(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            on_terminal(script("twistd"), "-n", "--pidfile=", *LISTEN),
            cwd=tmp_path,
            stdin=slave,
            stdout=log,
            stderr=log,
        )
    try:
        assert termios.tcgetattr(slave)
        os.close(slave)
        wait_until(lambda: b"listening on" in (tmp_path / "log").read_bytes(), "it listens")
        port = re.search(rb"listening on 127\.0\.0\.1:(\d+)", (tmp_path / "log").read_bytes())
        assert port is not None
        check_alive(int(port[1]))  # now its reactor runs
        os.close(master)
        assert process.wait(TIME_LIMIT) == 0
        assert b"the terminal is gone" in (tmp_path / "log").read_bytes()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_clients_that_answered_while_the_server_stood_still_are_not_dropped(
    serve: Callable[..., ServerProcess],
) -> None:
    server = serve("--ping-interval", "1", "--ping-timeout", "5")
    with RawClient(server.port) as client:
        opcode, payload = client.receive(pings=True)
        assert opcode == 9
        server.process.send_signal(signal.SIGSTOP)
        client.send(payload, 10)
        time.sleep(6)
        server.process.send_signal(signal.SIGCONT)
        client.send(message("x", {"receipt": "alive"}))
        assert client.receive()[1] == message("receipt", {"receipt-id": "alive"}).encode()


# What clients cause


def test_log_does_not_grow_with_what_clients_do_wrong(serve: Callable[..., ServerProcess]) -> None:
    server = serve(*processor_arguments("boom"))
    for number in range(1_000):
        with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
            head = handshake_head(server.port, f"/{number}", ("Origin: http://other.example",))
            sock.sendall(head.replace(b"127.0.0.1", b"300.0.0.1") if number % 2 else head)
            assert sock.recv(12) == b"HTTP/1.1 403"
    with RawClient(server.port) as client:
        for _ in range(500):
            client.send(message("boom"))
        for _ in range(500):
            assert b"status:500" in client.receive()[1]
    server.expect_traceback("RuntimeError: boom went the processor")
    assert server.stop() == -signal.SIGTERM
    assert len(server.log) < 20_000
    assert server.log.count("handshake refused with 403") < 100
