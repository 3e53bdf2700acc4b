"""The log of real processes: JSON, files, rotation, connections, stalls, workers, and what systemd is told."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration._nats import NATSProcess, needs_nats
from integration._server import (
    CLOSE,
    TIME_LIMIT,
    RawClient,
    ServerProcess,
    message,
    processor_arguments,
    wait_until,
)

RUNNERS = {"twistd": ("twistd", "-n", "--pidfile="), "twist": ("twist",)}
PORT = ("--port", "tcp:0:interface=127.0.0.1")


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line]


def named(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("runner", RUNNERS)
def test_json_on_standard_error_tells_of_connections_and_of_processors(
    serve: Callable[..., ServerProcess], runner: str
) -> None:
    server = serve(
        *("--log-format", "json", "--log-connections", "info", "--log-slow", "0.1", "--node-name", "n1"),
        *processor_arguments("echo", "hang"),
        *("--processor-timeout", "0.5"),
        runner=RUNNERS[runner],
    )
    with RawClient(server.port) as client:
        client.send(message("hang", body="a secret body"))
        server.wait_for_log("processor.slow")
        client.send((1000).to_bytes(2, "big"), CLOSE)
        server.wait_for_log("connection.closed")
    assert server.stop() in (-signal.SIGTERM, 128 + signal.SIGTERM)
    server.kill()
    assert "secret body" not in server.log and "\x1b" not in server.log
    lines = lines_of(server.log)
    assert {line["node"] for line in lines} == {"n1"}
    (opened,), (closed,), (slow, *_) = (
        named(lines, "connection.opened"),
        named(lines, "connection.closed"),
        named(lines, "processor.slow"),
    )
    assert opened["fields"]["peer"] == closed["fields"]["peer"] == slow["fields"]["peer"]
    assert closed["fields"]["code"] == 1000 and closed["fields"]["seconds"] >= 0
    assert slow["fields"]["command"] == "hang" and slow["fields"]["seconds"] >= 0.1
    assert named(lines, "server.listening")


def test_a_file_is_opened_again_when_it_was_moved(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    path = tmp_path / "lhttp.log"
    listen = f"unix:{tmp_path / 'socket'}"
    server = Quiet("--log-format", "json", "--log-file", str(path), "--log-keep", "3", "--listen", listen, cwd=tmp_path)
    try:
        wait_until(lambda: path.exists() and "server.listening" in path.read_text(), "it listens")
        path.rename(tmp_path / "moved")
        wait_until(lambda: server.signal_until_new(path), "there is a new file")
        wait_until(lambda: named(lines_of(path.read_text()), "log.reopened"), "it says so")
    finally:
        server.end()


class Quiet:
    """A server that writes nothing to its standard output."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        import subprocess

        from integration._server import script

        self.process = subprocess.Popen(
            [script("twistd"), "-n", "--pidfile=", "lhttp", *arguments, *PORT], cwd=cwd, stdout=subprocess.DEVNULL
        )

    def signal_until_new(self, path: Path) -> bool:
        if not path.exists():
            self.process.send_signal(signal.SIGUSR1)
        return path.exists()

    def end(self) -> None:
        self.process.terminate()
        try:
            assert self.process.wait(TIME_LIMIT) == -signal.SIGTERM
        finally:
            self.process.kill()
            self.process.wait()


def test_a_reactor_that_stands_still_is_told_of_with_what_it_stands_in(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    (tmp_path / "blocking.py").write_text(
        "import time\nfrom lhttp_tx import processor\n\n@processor('block')\ndef block(request):\n"
        "    stand_still()\n    request.reply()\n\ndef stand_still():\n    time.sleep(2)\n"
    )
    server = serve("--log-stalls", "0.3", "--processor", f"{tmp_path / 'blocking.py'}:block")
    with RawClient(server.port) as client:
        client.send(message("block"))
        assert client.receive()[1].startswith(b"LHTTP/1.0 block")
        server.wait_for_log("in stand_still")
        server.wait_for_log("the reactor runs again")
    assert "the reactor has been blocked for" in server.log


@needs_nats
def test_the_log_of_workers_has_their_events_and_their_numbers(serve: Callable[..., ServerProcess]) -> None:
    nats = NATSProcess()
    try:
        server = serve(
            *("--workers", "2", "--nats", nats.url, "--log-format", "json", "--log-connections", "info"), endpoints=2
        )
        server.wait_for_log("nats.connected", count=2)
        with RawClient(server.port):
            server.wait_for_log("connection.opened")
        server.stop()
        server.kill()
        lines = lines_of(server.log)
        assert {line["worker"] for line in named(lines, "nats.connected")} == {1, 2}
        assert named(lines, "nats.connected")[0]["logger"] == "lhttp_tx.bus.nats.keeper"
        assert named(lines, "connection.opened")[0]["fields"]["peer"].startswith("tcp4:127.0.0.1")
    finally:
        nats.stop()


MISTAKES = {
    "xml": (("--log-format", "xml"), "choose text or json"),
    "file alone": (("--log-file", "x"), "--log-file goes with --log-format"),
    "size alone": (("--log-format", "json", "--log-size", "100000"), "give it, too"),
    "age": (("--log-format", "json", "--log-file", "x", "--log-age", "soon"), "write a time"),
    "name": (("--node-name", "a b"), "letters, digits"),
    "directory": (("--log-format", "text", "--log-file", "no/such/file"), "--log-file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_before_the_start(name: str, tmp_path: Path) -> None:
    from integration.test_options import run

    arguments, text = MISTAKES[name]
    done = run("twistd", "-n", "--pidfile=", "lhttp", *arguments, cwd=tmp_path)
    assert done.returncode != 0 and text in done.stdout
    assert "Traceback" not in done.stdout


# systemd


class Manager:
    """A service manager, as far as a service sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.settimeout(TIME_LIMIT)
        self.told: list[str] = []

    def wait_for(self, line: str) -> list[str]:
        """Return the lines of the datagram that has *line*."""
        while True:
            found = self.sock.recv(4096).decode().split("\n")
            self.told += found
            if line in found:
                return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(tmp_path / "notify")
    yield found
    found.sock.close()


def test_systemd_is_told_of_the_start_the_reload_the_stop_and_of_life(
    serve: Callable[..., ServerProcess], manager: Manager, tmp_path: Path
) -> None:
    (tmp_path / "lhttp.toml").write_text("max-queue = 5\n")
    server = serve(
        *("--config", "lhttp.toml", "--drain-delay", "600"),
        environment={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "400000"},
    )
    assert f"MAINPID={server.pid}" in manager.wait_for("READY=1")
    manager.wait_for("WATCHDOG=1")
    server.process.send_signal(signal.SIGHUP)
    reloading = manager.wait_for("RELOADING=1")
    assert any(line.startswith("MONOTONIC_USEC=") and line[15:].isdigit() for line in reloading)
    manager.wait_for("READY=1")
    server.process.send_signal(signal.SIGTERM)
    manager.wait_for("STOPPING=1")
    manager.wait_for("WATCHDOG=1")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(TIME_LIMIT) == -signal.SIGTERM


@needs_nats
def test_systemd_is_told_once_all_workers_have_started(serve: Callable[..., ServerProcess], manager: Manager) -> None:
    nats = NATSProcess()
    try:
        server = serve(
            "--workers", "2", "--nats", nats.url, environment={"NOTIFY_SOCKET": str(manager.path)}, endpoints=2
        )
        assert f"MAINPID={server.pid}" in manager.wait_for("READY=1")
        assert not [line for line in manager.told if line.startswith("MAINPID=") and line != f"MAINPID={server.pid}"]
        server.stop()
    finally:
        nats.stop()


def test_a_manager_that_is_gone_costs_nothing(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = serve(environment={"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "100000"})
    with RawClient(server.port) as client:
        client.subscribe("room")
    assert server.process.poll() is None
