"""``--upgrade`` where two processes can serve together, because NATS stands between them, and with workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from integration._nats import NATSProcess, needs_nats
from integration._server import TIME_LIMIT, RawClient, ServerProcess, http_request, message, wait_until
from integration.test_upgrade import callers, free_port

from cluster.test_workers import workers

pytestmark = needs_nats

Serve = Callable[..., ServerProcess]

FAILING = """
from lhttp_tx import Hooks

class Failing(Hooks):
    def on_start(self, server):
        raise RuntimeError("no database")
"""


def test_a_start_that_fails_leaves_the_running_server_as_it_is(serve: Serve, nats: NATSProcess, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING, encoding="ascii")
    listen = ("--listen", f"tcp:{free_port()}:interface=127.0.0.1")
    options = ("--nats", nats.url, "--upgrade", "next.sock")
    first = serve(*options, "--drain-delay", "600", listen=listen)
    port = first.port
    wait_until((tmp_path / "next.sock").exists, "the socket for the next process")
    with callers(port) as seen, RawClient(port) as client:
        client.subscribe("room")
        failing = serve(*options, "--hooks", "failing.py:Failing", listen=listen)
        failing.expect_traceback("RuntimeError: no database")
        assert failing.process.wait(TIME_LIMIT) == 1
        assert first.process.poll() is None
        wait_until(lambda: http_request(port, "GET", "/ready")[0] == 200, "the first one is ready")
        with RawClient(port) as other:
            other.send(message("chat", {"publish": "room"}, "hello"))
            assert client.receive()[1].endswith(b"hello")
        serve(*options, listen=listen)
        assert first.process.wait(TIME_LIMIT) == 0
        assert client.receive_close()[0] == 1001
    assert set(seen) == {"HTTP/1.1 200"}


def test_workers_and_their_own_nats_server_are_replaced(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    listen = ("--listen", f"tcp:{port}:interface=127.0.0.1")
    options = ("--workers", "2", "--upgrade", "next.sock")
    first = serve(*options, listen=listen)
    wait_until((tmp_path / "next.sock").exists, "the socket for the next process")
    with RawClient(port) as client:
        client.subscribe("room")
        with callers(port) as seen:
            second = serve(*options, listen=listen)
            assert first.process.wait(TIME_LIMIT) == 0
            assert client.receive_close()[0] == 1001
            wait_until((tmp_path / "next.sock").exists, "the second one has started")
            count = len(seen)
            wait_until(lambda: len(seen) > count + 20, "more answers")
    assert len(workers(second)) >= 2
    refused = [each for each in seen if "Refused" in each]
    assert not refused, refused
