"""Backends that are dead or hang: they cost their own users an error each, and the others nothing."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from integration._server import (
    TEXT,
    TIME_LIMIT,
    Backend,
    RawClient,
    ServerProcess,
    message,
    open_client,
    processor_arguments,
    wait_until,
)

HANGING = 100
LIMIT = 3.0
MUCH_SLOWER = 2.0
"""Times the usual. On a machine that does nothing else it is less than 1.2."""


def unused_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def status_of(answer: object) -> str:
    """Return the status of an error."""
    assert str(answer).startswith("LHTTP/1.0 error\r\nstatus:"), answer
    return str(answer)[24:27]


def ask(server: ServerProcess, url: str) -> str:
    """Send a message upstream; return the error's status, or the status of the backend."""
    with open_client(server.port) as client:
        client.send(message("chat", {"upstream": f"POST {url}", "receipt": "r"}))
        answer = str(client.recv(TIME_LIMIT))
        return answer.partition("upstream-status:")[2][:3] or status_of(answer)


def test_dead_backend_is_ruled_out_and_asked_again_when_it_lives(serve: Callable[..., ServerProcess]) -> None:
    port = unused_port()
    url = f"http://127.0.0.1:{port}/record"
    server = serve("--upstream-allow", url, "--upstream-max-failures", "3", "--upstream-cool-down", "10")
    assert [ask(server, url) for _ in range(10)] == ["502"] * 3 + ["503"] * 7
    backend = Backend(port=port)
    try:
        assert ask(server, url) == "503"
        assert backend.connections == 0
        wait_until(lambda: ask(server, url) == "200", "an answer of the backend")
    finally:
        backend.stop()
    assert server.log.count("not called for 10 seconds") == 1
    assert server.log.count(f"upstream http://127.0.0.1:{port} works again") == 1


def test_backend_that_is_ruled_out_does_not_keep_messages_from_subscribers(serve: Callable[..., ServerProcess]) -> None:
    url = f"http://127.0.0.1:{unused_port()}/"
    server = serve("--upstream-allow", url, "--upstream-max-failures", "1")
    with open_client(server.port) as client:
        client.send(message("chat", {"subscribe": "mike"}))
        for number in range(3):
            client.send(message("chat", {"upstream": f"POST {url}", "publish": "mike"}, str(number)))
            assert client.recv(TIME_LIMIT) == message("chat", {"publish": "mike"}, str(number))
            assert status_of(client.recv(TIME_LIMIT)) == ("503" if number else "502")


def test_backend_without_tls_is_ruled_out_for_https_alone(
    serve: Callable[..., ServerProcess], backend: Backend
) -> None:
    secure = backend.url.replace("http:", "https:")
    server = serve(
        *("--upstream-allow", backend.url, "--upstream-allow", secure, "--upstream-max-failures", "2"),
        *("--upstream-timeout", "30"),
    )
    assert [ask(server, f"{secure}/record") for _ in range(3)] == ["502", "502", "503"]
    assert ask(server, f"{backend.url}/record") == "200"


def test_backend_that_answers_500_is_not_ruled_out(serve: Callable[..., ServerProcess], backend: Backend) -> None:
    server = serve("--upstream-allow", backend.url, "--upstream-max-failures", "1")
    assert [ask(server, f"{backend.url}/teapot") for _ in range(5)] == ["418"] * 5


def test_without_a_limit_a_backend_is_always_asked(serve: Callable[..., ServerProcess]) -> None:
    url = f"http://127.0.0.1:{unused_port()}/"
    server = serve("--upstream-allow", url, "--upstream-max-failures", "0")
    assert [ask(server, url) for _ in range(7)] == ["502"] * 7


def test_endless_head_is_cut(serve: Callable[..., ServerProcess], backend: Backend) -> None:
    server = serve("--upstream-allow", backend.url)
    assert ask(server, f"{backend.url}/record") == "200"
    before = server.resident_size()
    with open_client(server.port) as client:
        client.send(message("chat", {"upstream": f"GET {backend.url}/headers"}))
        reason = "upstream answered with a head of more than 65536 bytes"
        assert client.recv(TIME_LIMIT) == message("error", {"status": "502", "reason": reason})
    assert server.resident_size() - before < 5_000_000


# Many that hang


class Hanging:
    """Clients who each wait for a backend; called again and again, it notes who has an answer."""

    def __init__(self, clients: list[RawClient], url: str) -> None:
        self.took: list[float] = []
        self._waiting = selectors.DefaultSelector()
        for client in clients:
            self._waiting.register(client.sock, selectors.EVENT_READ, (client, time.monotonic()))
            client.send(message("chat", {"upstream": f"POST {url}"}))

    def __call__(self) -> bool:
        """Return whether somebody still waits."""
        for key, _ in self._waiting.select(0):
            client, begin = key.data
            self.took.append(time.monotonic() - begin)
            opcode, answer = client.receive()
            assert (opcode, answer[:27]) == (TEXT, b"LHTTP/1.0 error\r\nstatus:504"), answer
            self._waiting.unregister(client.sock)
        return bool(self._waiting.get_map())


def round_trip(client: RawClient) -> float:
    """Return how long an echo took."""
    begin = time.monotonic()
    client.send(message("echo"))
    assert client.receive()[0] == TEXT
    return time.monotonic() - begin


def percentile_99(times: list[float]) -> float:
    """Return the time that one in a hundred passes."""
    return sorted(times)[int(len(times) * 0.99)]


@pytest.mark.once
def test_hundred_hanging_requests_slow_nobody_down_and_fail_at_their_time_limit(
    serve: Callable[..., ServerProcess],
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8 * HANGING) as hole:  # the kernel accepts; nobody answers
        url = f"http://127.0.0.1:{hole.getsockname()[1]}/"
        options = (
            *processor_arguments("echo"),
            *("--upstream-allow", url, "--upstream-timeout", str(LIMIT), "--upstream-max-in-flight", str(HANGING)),
            *("--upstream-max-failures", "0"),
        )
        # What else runs on this machine comes and goes, and would disturb a comparison with a quiet time before. So
        # another server is measured at the same time, by turns.
        busy, quiet = serve(*options), serve(*options)
        with ExitStack() as stack:
            clients = [stack.enter_context(RawClient(busy.port)) for _ in range(HANGING)]
            beside_them, elsewhere = (stack.enter_context(RawClient(server.port)) for server in (busy, quiet))
            ratios, took = [], []
            for _ in range(5):
                hanging = Hanging(clients, url)
                pairs = []
                while hanging():
                    pairs.append((round_trip(beside_them), round_trip(elsewhere)))
                    time.sleep(0.001)
                took += hanging.took
                ratios.append(percentile_99([time for time, _ in pairs]) / percentile_99([time for _, time in pairs]))
    assert len(took) == 5 * HANGING
    assert min(took) >= LIMIT
    assert min(ratios) < MUCH_SLOWER, ratios  # what else runs here only adds to some of them
