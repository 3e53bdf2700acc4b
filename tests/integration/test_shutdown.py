"""What SIGTERM does: stop accepting, finish what is in hand, close everyone with 1001, exit."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from integration._server import (
    CLOSE,
    TEXT,
    TIME_LIMIT,
    Backend,
    RawClient,
    ServerProcess,
    client_frame,
    http_request,
    message,
    processor_arguments,
    wait_until,
)

GOING_AWAY = (1001, "server is going away")


def send_behind_echo(client: RawClient, *messages: bytes) -> None:
    """Send *messages*, and return when the server has them in hand: what comes in one piece it takes in one turn."""
    first = message("echo").encode("ascii")
    client.sock.sendall(b"".join(map(client_frame, (first, *messages))))
    assert client.receive() == (TEXT, first)


def is_refused(port: int) -> bool:
    """Return whether nobody listens on *port*."""
    try:
        socket.create_connection(("127.0.0.1", port), TIME_LIMIT).close()
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_ends_the_process_and_closes_everyone_with_1001(
    serve: Callable[..., ServerProcess], number: signal.Signals
) -> None:
    server = serve()
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port)) for _ in range(50)]
        for client in clients:
            client.subscribe("room")
        server.process.send_signal(number)
        for client in clients:
            assert client.receive_close() == GOING_AWAY
            client.send((1001).to_bytes(2, "big"), CLOSE)
        assert server.process.wait(TIME_LIMIT) == -number


def test_idle_server_waits_for_nobody(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--drain-timeout", "600", "--close-timeout", "600")
    assert server.stop() == -signal.SIGTERM


def test_a_second_signal_changes_nothing(serve: Callable[..., ServerProcess]) -> None:
    server = serve()
    with RawClient(server.port) as client:
        client.subscribe("room")
        server.process.send_signal(signal.SIGTERM)
        assert client.receive_close() == GOING_AWAY
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGINT)
        server.wait_for_log("already stopping")
        client.send((1001).to_bytes(2, "big"), CLOSE)
        assert server.process.wait(TIME_LIMIT) == -signal.SIGTERM


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGQUIT])
def test_two_signals_in_one_moment_are_one(serve: Callable[..., ServerProcess], second: signal.Signals) -> None:
    server = serve()
    with RawClient(server.port) as client:
        client.subscribe("room")
        for number in (signal.SIGSTOP, signal.SIGTERM, second, signal.SIGCONT):
            server.process.send_signal(number)
        assert client.receive_close() == GOING_AWAY
        client.send((1001).to_bytes(2, "big"), CLOSE)
        server.process.wait(30)
    assert "Traceback" not in server.log


def test_client_that_does_not_answer_the_close_does_not_hold_it_up(serve: Callable[..., ServerProcess]) -> None:
    server = serve()
    with RawClient(server.port) as client:
        client.subscribe("room")
        assert server.stop() == -signal.SIGTERM
        assert client.receive_close() == GOING_AWAY


def test_connection_in_mid_handshake_does_not_hold_it_up(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--handshake-timeout", "600", "--drain-timeout", "600")
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost:")
        time.sleep(0.1)
        assert server.stop() == -signal.SIGTERM


def test_what_is_in_hand_is_finished_first(serve: Callable[..., ServerProcess]) -> None:
    server = serve(*processor_arguments("deferred", "echo"))
    with RawClient(server.port) as client:
        sent = [message("deferred", {}, str(number)).encode("ascii") for number in range(5)]
        send_behind_echo(client, *sent)
        server.process.send_signal(signal.SIGTERM)
        assert [client.receive() for _ in sent] == [(TEXT, answered) for answered in sent]
        assert client.receive_close() == GOING_AWAY
        client.send((1001).to_bytes(2, "big"), CLOSE)
        assert server.process.wait(TIME_LIMIT) == -signal.SIGTERM


def test_what_hangs_is_cancelled_after_the_drain_time(serve: Callable[..., ServerProcess]) -> None:
    server = serve(*processor_arguments("hang", "echo"), "--drain-timeout", "0.5")
    with RawClient(server.port) as client:
        send_behind_echo(client, message("hang").encode("ascii"))
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert client.receive() == (TEXT, message("error", {"status": "500", "reason": "cancelled"}).encode("ascii"))
        assert client.receive_close() == GOING_AWAY
        client.send((1001).to_bytes(2, "big"), CLOSE)
        assert server.process.wait(TIME_LIMIT) == -signal.SIGTERM
        assert time.monotonic() - begin >= 0.5


def test_message_on_its_way_upstream_is_finished_first(serve: Callable[..., ServerProcess], backend: Backend) -> None:
    server = serve("--upstream-allow", backend.url, "--upstream-timeout", "0.5")
    with RawClient(server.port) as client:
        client.send(message("chat", {"upstream": f"POST {backend.url}/hang"}))
        backend.wait_for(1)
        server.process.send_signal(signal.SIGTERM)
        assert b"status:504" in client.receive()[1]
        assert client.receive_close() == GOING_AWAY


def test_no_connection_is_taken_while_it_drains(serve: Callable[..., ServerProcess]) -> None:
    server = serve(*processor_arguments("hang", "echo"), "--drain-timeout", "600")
    with RawClient(server.port) as client:
        send_behind_echo(client, message("hang").encode("ascii"))
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log(f"(TCP Port {server.port} Closed)")  # it says so a moment before
        wait_until(lambda: is_refused(server.port), "nobody listens")
        assert server.process.poll() is None
        server.crash()


def test_processors_are_told_of_the_end(serve: Callable[..., ServerProcess]) -> None:
    server = serve(*processor_arguments("Visits"))
    with RawClient(server.port) as client:
        client.send(message("visit"))
        assert client.receive()[0] == TEXT
        assert server.stop() == -signal.SIGTERM
    server.wait_for_log("a visit ended after 1")


# A slow stop


@pytest.mark.parametrize(
    "runner", [("twistd", "-n", "--pidfile="), ("twist", "--log-format=text")], ids=["twistd", "twist"]
)
def test_a_slow_stop_goes_on_for_a_while_and_a_second_signal_ends_it(
    serve: Callable[..., ServerProcess], runner: tuple[str, ...]
) -> None:
    server = serve("--drain-delay", "600", "--drain-time", "600", "--close-timeout", "60", runner=runner)
    with RawClient(server.port) as client, RawClient(server.port) as other:
        client.subscribe("room")
        assert http_request(server.port, "GET", "/ready")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping: serving for 600 s more")
        assert http_request(server.port, "GET", "/ready")[::2] == (
            503,
            b'{"status": "unready", "reasons": ["stopping"]}\n',
        )
        assert http_request(server.port, "GET", "/live")[0] == 200
        with RawClient(server.port) as late:
            late.subscribe("room")
            other.send(message("say", {"publish": "room"}, "hi"))
            assert client.receive()[0] == late.receive()[0] == TEXT
            server.process.send_signal(signal.SIGTERM)
            for each in (client, other, late):
                assert each.receive_close() == (1001, "server is going away; retry-after=600")
                each.send((1001).to_bytes(2, "big"), CLOSE)
        assert server.process.wait(TIME_LIMIT) == -signal.SIGTERM
    assert "SIGTERM again: closing all connections now" in server.log


def test_clients_are_closed_one_after_another_and_the_work_in_hand_is_finished(
    serve: Callable[..., ServerProcess],
) -> None:
    server = serve("--drain-time", "2", "--close-timeout", "60", *processor_arguments("echo"))
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port)) for _ in range(10)]
        for client in clients:
            client.subscribe("room")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("closing 10 connections within 2 s")
        wait_until(lambda: is_refused(server.port), "it has stopped listening")
        ended = []
        for client in clients:
            assert client.receive_close() == (1001, "server is going away; retry-after=0.2")
            client.send((1001).to_bytes(2, "big"), CLOSE)
            ended.append(time.monotonic())
        assert server.process.wait(TIME_LIMIT) == -signal.SIGTERM
