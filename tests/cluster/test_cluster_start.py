"""``twistd`` and ``twist`` with NATS: the right reactor in the foreground and in the background."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration._nats import NATSProcess, needs_nats
from integration._server import TIME_LIMIT, RawClient, ServerProcess, message, script, wait_until

from cluster._cluster import join

pytestmark = needs_nats


@pytest.fixture(scope="module")
def nats() -> Iterator[NATSProcess]:
    process = NATSProcess()
    yield process
    process.stop()


def check_works(port: int) -> None:
    with RawClient(port) as client:
        client.subscribe("room")
        client.send(message("chat", {"publish": "room"}, "hello"))
        assert client.receive()[1].endswith(b"hello")


@pytest.mark.parametrize("reactor", [[], ["--reactor=asyncio"]], ids=["by itself", "on request"])
def test_twistd_runs_the_asyncio_reactor(
    serve: Callable[..., ServerProcess], nats: NATSProcess, reactor: list[str]
) -> None:
    check_works(join(serve("--nats", nats.url, runner=["twistd", *reactor, "-n", "--pidfile="])).port)


def test_twist_runs_the_asyncio_reactor(tmp_path: Path, nats: NATSProcess) -> None:
    node = ServerProcess("--nats", nats.url, cwd=tmp_path, runner=["twist", "--log-format=text"])
    try:
        check_works(join(node).port)
        assert node.stop() in (-signal.SIGTERM, 128 + signal.SIGTERM)
        assert "closing 0 connections" in node.log and "Traceback" not in node.log
    finally:
        node.kill()


@pytest.mark.parametrize(
    "command", [["twistd", "--reactor=select", "-n", "--pidfile="], ["twist", "--reactor=select"]], ids=" ".join
)
def test_another_reactor_is_refused_with_what_to_do(tmp_path: Path, nats: NATSProcess, command: list[str]) -> None:
    done = subprocess.run(
        [script(command[0]), *command[1:], "lhttp", "--port", "0", "--nats", nats.url],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    assert done.returncode != 0
    assert "--nats needs the asyncio reactor: twistd --reactor=asyncio lhttp --nats" in done.stdout + done.stderr


def test_a_server_without_nats_does_not_load_its_library(serve: Callable[..., ServerProcess]) -> None:
    node = serve(environment={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "lhttp_tx.service" in node.log
    settings = r"servers|subjects|jetstream(?:\.settings)?$"
    assert not re.search(rf"(?m)\| +(nats|lhttp_tx\.bus\.nats\.(?!{settings})\w+)\b", node.log)


def test_it_runs_in_the_background(tmp_path: Path, nats: NATSProcess) -> None:
    log, pidfile = tmp_path / "log", tmp_path / "pid"
    subprocess.run(
        [
            *(script("twistd"), f"--logfile={log}", f"--pidfile={pidfile}", "lhttp"),
            *("--port", "tcp:0:interface=127.0.0.1", "--nats", nats.url),
        ],
        cwd=tmp_path,
        timeout=TIME_LIMIT,
        check=True,
    )
    wait_until(lambda: pidfile.exists() and pidfile.read_text(), "it writes its process id")
    pid = int(pidfile.read_text())
    try:

        def said(text: str, count: int = 1) -> bool:
            return log.exists() and log.read_text("utf-8").count(text) >= count

        wait_until(lambda: said("connected to NATS"), "it connects")
        found = re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text("utf-8"))
        assert found is not None
        check_works(int(found[1]))
        nats.kill()
        nats.start()
        wait_until(lambda: said("connected to NATS", 2), "it connects again")
        check_works(int(found[1]))
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: said("Server Shut Down."), "it stops")
        wait_until(lambda: not pidfile.exists(), "it has gone")
        assert "Traceback" not in log.read_text("utf-8")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_what_was_published_before_a_stop_reaches_the_other_nodes(
    serve: Callable[..., ServerProcess], nats: NATSProcess
) -> None:
    leaving, staying = (join(serve("--nats", nats.url)) for _ in range(2))
    with RawClient(staying.port) as subscriber, RawClient(leaving.port) as publisher:
        subscriber.subscribe("last")
        for number in range(500):
            publisher.send(message("chat", {"publish": "last"}, str(number)))
        publisher.send(message("chat", {"receipt": "all"}))
        assert publisher.receive()[1] == message("receipt", {"receipt-id": "all"}).encode()
        leaving.process.send_signal(signal.SIGTERM)
        received = [subscriber.receive()[1].partition(b"\r\n\r\n")[2] for _ in range(500)]
    assert received == [b"%d" % number for number in range(500)]
    leaving.process.wait(TIME_LIMIT)


def test_a_node_stops_in_time_while_nats_hangs(serve: Callable[..., ServerProcess]) -> None:
    nats = NATSProcess()
    node = join(serve("--nats", nats.url))
    nats.send_signal(signal.SIGSTOP)
    try:
        assert node.stop() in (-signal.SIGTERM, 128 + signal.SIGTERM)
    finally:
        nats.kill()
