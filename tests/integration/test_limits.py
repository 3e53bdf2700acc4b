"""Limits on connections, on the speed of a client and on its errors, with real sockets and an honest client beside."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from integration._server import (
    TEXT,
    TIME_LIMIT,
    RawClient,
    ServerProcess,
    client_frame,
    handshake_head,
    http_request,
    message,
    on_one_of_these_clocks,
    open_client,
    processor_arguments,
    wait_until,
)


def own_address() -> str | None:
    """Return an address of this machine that is no loopback address, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return None
        found: str = sock.getsockname()[0]
    return None if found.startswith(("127.", "0.")) else found


def echo(client: RawClient, text: str = "x") -> None:
    """Fail if *client* is not served."""
    client.send(message("echo", {}, text))
    assert client.receive() == (TEXT, message("echo", {}, text).encode("ascii"))


def is_closed(sock: socket.socket) -> bool:
    """Return whether the server hangs up without a word."""
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def forwarded(address: str) -> str:
    return f"X-Forwarded-For: 198.51.100.1, {address}"


# Connections


def test_behind_a_proxy_a_client_may_have_so_many(serve: Callable[..., ServerProcess], stack: ExitStack) -> None:
    server = serve("--max-per-address", "3", "--trusted-proxy", "127.0.0.1", *processor_arguments("echo"))

    def connect(address: str) -> RawClient:
        return stack.enter_context(RawClient(server.port, headers=[forwarded(address)]))

    assert "trusted proxies: 127.0.0.1" in server.log
    clients = [connect("192.0.2.1") for _ in range(4)]
    assert [client.status for client in clients] == [101, 101, 101, 429]
    assert clients[3].stream.read() == b"too many connections of your address\n"
    assert connect("192.0.2.2").status == 101
    clients[0].close()
    wait_until(lambda: connect("192.0.2.1").status == 101, "the client that left does not count any more")
    echo(clients[1])


def test_a_flood_from_one_address_is_closed_unheard(serve: Callable[..., ServerProcess], stack: ExitStack) -> None:
    host = own_address()
    if host is None:
        pytest.skip("this machine has no address of its own")
    server = serve(
        *("--max-per-address", "5", *processor_arguments("echo")),
        listen=("--listen", f"tcp:0:interface={host}:backlog=1024"),
    )
    honest = stack.enter_context(RawClient(server.port, host=host))
    unheard = 0
    flood = [stack.enter_context(socket.create_connection((host, server.port), TIME_LIMIT)) for _ in range(20)]
    for _ in range(500):
        with socket.create_connection((host, server.port), TIME_LIMIT) as sock:
            unheard += is_closed(sock)
        echo(honest)
    assert unheard == 500
    assert server.log.count("refusing connections, such as that of") == 1
    assert server.log.count("refused") < 5
    for sock in flood:
        sock.close()
    with open_client(server.port, host=host) as client:
        client.send(message("echo"))
        assert client.recv(TIME_LIMIT) == message("echo")


def test_those_that_say_nothing_do_not_take_all_the_room(serve: Callable[..., ServerProcess], stack: ExitStack) -> None:
    server = serve("--max-pending", "50", "--handshake-timeout", "5", *processor_arguments("echo"))
    honest = [stack.enter_context(RawClient(server.port)) for _ in range(60)]  # these are none of them
    silent = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT)) for _ in range(80)]
    assert all(map(is_closed, silent[50:]))
    for client in honest:
        echo(client)
    assert all(map(is_closed, silent[:50]))  # their time is up
    assert stack.enter_context(RawClient(server.port)).status == 101
    assert http_request(server.port, "GET", "/health")[0] == 200


# Speed


def test_a_client_that_is_too_fast_is_slowed_down_and_loses_nothing(
    serve: Callable[..., ServerProcess], stack: ExitStack
) -> None:
    server = serve("--max-rate", "10", "--max-burst", "10", *processor_arguments("echo"))

    def attempt(seconds: int) -> None:
        fast, honest = (stack.enter_context(RawClient(server.port)) for _ in range(2))
        sent = [message("echo", {}, str(number)).encode("ascii") for number in range(10 * seconds + 11)]
        begin = time.monotonic()
        fast.sock.sendall(b"".join(map(client_frame, sent)))
        for _ in range(5):
            echo(honest)
        assert time.monotonic() - begin < seconds, "others wait for it"
        assert [fast.receive() for _ in sent] == [(TEXT, answer) for answer in sent]
        assert time.monotonic() - begin >= seconds

    on_one_of_these_clocks(attempt)


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_bytes_are_slowed_down_as_well(
    serve: Callable[..., ServerProcess], stack: ExitStack, certificate: tuple[Path, Path], secure: bool
) -> None:
    key, cert = certificate
    listen = ("--listen", f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={cert}") if secure else None
    server = serve("--max-byte-rate", "100000", *processor_arguments("echo"), **({"listen": listen} if listen else {}))
    sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT))
    if secure:
        context = ssl.create_default_context(cafile=str(cert))
        sock = stack.enter_context(context.wrap_socket(sock, server_hostname="127.0.0.1"))
    stream = stack.enter_context(sock.makefile("rb"))
    sock.sendall(handshake_head(server.port))
    while stream.readline() != b"\r\n":
        pass
    begin = time.monotonic()
    sock.sendall(client_frame(message("nothing", {}, "x" * 20_000).encode("ascii")) * 10)
    sock.sendall(client_frame(message("echo").encode("ascii")))
    assert stream.read(2 + len(message("echo")))[2:] == message("echo").encode("ascii")
    assert time.monotonic() - begin > 0.7


# Errors


def test_a_client_that_does_nothing_right_is_closed(serve: Callable[..., ServerProcess], stack: ExitStack) -> None:
    server = serve("--max-errors", "10", *processor_arguments("echo"))
    client = stack.enter_context(RawClient(server.port))
    for _ in range(3):
        for _ in range(9):
            client.send("nonsense")
            assert client.receive()[1].startswith(b"LHTTP/1.0 error\r\nstatus:400\r\n")
        echo(client)
    client.sock.sendall(client_frame(b"nonsense") * 50)
    for _ in range(10):
        assert client.receive()[1].startswith(b"LHTTP/1.0 error\r\nstatus:400\r\n")
    assert client.receive_close() == (1008, "too many errors in a row")
    server.wait_for_log("closed after 10 errors in a row")
    assert server.log.count("closed after 10 errors in a row") == 1
