"""A process that runs out of something - file descriptors, room on the disk, memory - goes on with what it has."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from integration._server import (
    CLOSE,
    TEXT,
    TIME_LIMIT,
    Backend,
    RawClient,
    ServerProcess,
    http_request,
    message,
    processor_arguments,
    script,
    wait_until,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks at a process, and limits it, as Linux does")

FEW = 120
"""File descriptors of a server that has few."""


def with_ulimit(limit: str, *options: str) -> tuple[str, ...]:
    """Return how to run the server below a limit, in the words of the shell."""
    return ("/bin/sh", "-c", f'ulimit {limit}; exec "$@"', "sh", script("twistd"), "-n", "--pidfile=", *options)


def echo(client: RawClient, text: str = "x") -> None:
    """Fail if *client* is not served."""
    client.send(message("echo", {}, text))
    assert client.receive() == (TEXT, message("echo", {}, text).encode("ascii"))


def processor_time(server: ServerProcess) -> float:
    """Return the seconds of processor time that the server has used."""
    fields = Path(f"/proc/{server.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def open_files(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


# File descriptors


@pytest.fixture
def few(serve: Callable[..., ServerProcess], backend: Backend) -> ServerProcess:
    """A server with few file descriptors, and a backend."""
    return serve(*processor_arguments("echo"), "--upstream-allow", backend.url, runner=with_ulimit(f"-n {FEW}"))


@pytest.fixture
def crowd() -> Iterator[Callable[[int, int], None]]:
    """Connects that many clients to a port, whether they are let in or not."""
    with ExitStack() as stack:

        def come(port: int, count: int) -> None:
            for _ in range(count):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), TIME_LIMIT))

        yield come


def test_clients_who_are_connected_do_not_notice_that_the_table_is_full(
    few: ServerProcess, crowd: Callable[[int, int], None], backend: Backend
) -> None:
    with RawClient(few.port) as client, RawClient(few.port) as subscriber:
        subscriber.subscribe("mike")
        crowd(few.port, 3 * FEW)
        few.wait_for_log("refusing connections: few file descriptors are left")
        echo(client)
        client.send(message("chat", {"publish": "mike"}, "hello"))
        assert subscriber.receive() == (TEXT, message("chat", {"publish": "mike"}, "hello").encode("ascii"))
        client.send(message("chat", {"upstream": f"POST {backend.url}/record", "receipt": "r"}))
        assert client.receive()[1].startswith(b"LHTTP/1.0 receipt")
    assert open_files(few) < FEW


def test_a_crowd_that_keeps_coming_costs_neither_time_nor_memory_nor_log(few: ServerProcess) -> None:
    with RawClient(few.port) as client, ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", few.port))) for _ in range(2 * FEW)]
        echo(client)
        log, memory = len(few.log), few.resident_size()
        for _ in range(2000):
            socket.create_connection(("127.0.0.1", few.port)).close()
        echo(client)
        assert len(held) == 2 * FEW
        assert len(few.log) - log < 500
        assert few.resident_size() - memory < 2_000_000
        used = processor_time(few)
        time.sleep(1)
        assert processor_time(few) - used < 0.2


def test_clients_are_let_in_again_when_some_have_gone(few: ServerProcess) -> None:
    with ExitStack() as stack:
        held = [RawClient(few.port) for _ in range(20)]
        for _ in range(2 * FEW):
            stack.enter_context(socket.create_connection(("127.0.0.1", few.port)))
        few.wait_for_log("refusing connections")
        for client in held:
            client.close()

        def is_let_in() -> bool:
            try:
                return http_request(few.port, "GET", "/lhttp.js")[0] == 200
            except OSError:
                return False

        wait_until(is_let_in, "a new client is served")
        with RawClient(few.port) as client:
            echo(client)


def test_a_low_limit_is_raised_to_what_the_connections_need(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--max-connections", "500", runner=with_ulimit("-S -n 100"))
    assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[0] == 564
    assert "open files: limit raised from 100 to 564" in server.log


def test_a_limit_that_cannot_be_raised_is_a_warning_with_advice(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--max-connections", "500", runner=with_ulimit("-n 200"))
    assert "open files: the limit of 200 is enough for 150 connections, not for 500; raise the hard limit" in server.log


# The disk


class Silent:
    """A server whose log goes anywhere but to the test."""

    def __init__(self, directory: Path, *options: str, **streams: Any) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self.process = subprocess.Popen(
            [
                *(script("twistd"), "-n", "--pidfile=", *options),
                *("lhttp", "--no-plugins", "--port", f"tcp:{self.port}:interface=127.0.0.1"),
                *processor_arguments("echo", "boom"),
            ],
            cwd=directory,
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **streams},
        )
        wait_until(self._listens, "the server listens")

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), TIME_LIMIT).close()
        except OSError:
            return False
        return True

    def write_much(self, count: int) -> None:
        """Let it log *count* tracebacks, and fail if that costs a client anything."""
        with RawClient(self.port) as client:
            for _ in range(count):
                client.send(message("boom"))
                assert client.receive()[1].startswith(b"LHTTP/1.0 error\r\nstatus:500")
            echo(client)

    def stop(self) -> None:
        """Stop it; fail if it does not end as usual."""
        try:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(TIME_LIMIT) in (-signal.SIGTERM, 128 + signal.SIGTERM)
        finally:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def test_a_log_file_that_takes_nothing_stops_nobody(tmp_path: Path) -> None:
    with Silent(tmp_path, "--logfile", "/dev/full") as server:
        server.write_much(500)


def test_an_output_that_takes_nothing_stops_nobody(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full, Silent(tmp_path, stdout=full) as server:  # noqa: PTH123 - a device
        server.write_much(500)


def test_an_output_that_nobody_reads_any_more_stops_nobody(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with Silent(tmp_path, stdout=writing) as server:
        os.close(writing)
        os.close(reading)
        server.write_much(500)


def test_a_log_goes_on_when_the_disk_has_room_again(tmp_path: Path) -> None:
    log = tmp_path / "lhttp.log"
    with Silent(tmp_path, "--logfile", str(log)) as server:
        server.write_much(1)
        size = log.stat().st_size
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        server.write_much(500)
        server.process.send_signal(signal.SIGUSR2)  # what clients cause is told once, this each time
        server.write_much(1)
        assert log.stat().st_size == size
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        server.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: b"SIGUSR2: ignored" in log.read_bytes()[size:], "it is written")
        assert log.stat().st_size < size + 10_000


def test_a_body_of_unknown_length_needs_no_room_on_the_disk(serve: Callable[..., ServerProcess]) -> None:
    server = serve()
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    body = message("chat", {"publish": "mike"}, "x" * 60_000).encode("ascii")
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(b"POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")


# Memory


def test_a_message_that_there_is_no_memory_for_costs_its_own_connection(serve: Callable[..., ServerProcess]) -> None:
    size = 30_000_000
    server = serve(*processor_arguments("echo"), "--max-message-size", str(2 * size))
    with RawClient(server.port) as client:
        echo(client)
        status = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
        used = int(re.findall(r"VmSize:\s+(\d+) kB", status)[0]) * 1024
        resource.prlimit(server.pid, resource.RLIMIT_AS, (used + size * 3 // 2, resource.RLIM_INFINITY))
        with RawClient(server.port) as greedy:
            greedy.send(message("echo", {}, "x" * size))
            assert greedy.receive()[0] == CLOSE
        server.wait_for_log("MemoryError")
        echo(client)
        with RawClient(server.port) as another:
            echo(another)
        resource.prlimit(server.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    server.expect_traceback("MemoryError", server.log.count("MemoryError"))
