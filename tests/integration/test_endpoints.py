"""Listening on something else than one TCP port: UNIX sockets, TLS, IPv6, and several at a time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from websockets.asyncio.client import connect as connect_asyncio
from websockets.sync.client import connect, unix_connect

from integration._server import (
    TIME_LIMIT,
    ServerProcess,
    client_frame,
    handshake_head,
    http_request,
    message,
    open_client,
    processor_arguments,
)


@pytest.fixture
def secure(serve: Callable[..., ServerProcess], certificate: tuple[Path, Path]) -> tuple[ServerProcess, ssl.SSLContext]:
    """A server with TLS, and what a client needs to trust it."""
    key_file, certificate_file = certificate
    endpoint = f"ssl:0:interface=127.0.0.1:privateKey={key_file}:certKey={certificate_file}"
    server = serve(*processor_arguments("echo"), listen=["--listen", endpoint])
    return server, ssl.create_default_context(cafile=str(certificate_file))


def secure_client(server: ServerProcess, trust: ssl.SSLContext) -> connect_asyncio:
    """
    Return a client over TLS, to enter.

    It is the one for asyncio: that with threads reads and writes one TLS connection from two of them, which breaks one
    handshake in some hundreds on a busy machine, whatever the server.
    """
    return connect_asyncio(f"wss://127.0.0.1:{server.port}/", ssl=trust, proxy=None, open_timeout=TIME_LIMIT)


def test_websocket_over_tls_is_served(secure: tuple[ServerProcess, ssl.SSLContext]) -> None:
    async def run() -> None:
        async with secure_client(*secure) as client:
            await client.send(message("chat", {"subscribe": "room"}))
            messages = [message("chat", {"publish": "room"}, str(number) + "x" * 20_000) for number in range(50)]
            for sent in messages:
                await client.send(sent)
            assert [await asyncio.wait_for(client.recv(), TIME_LIMIT) for _ in messages] == messages

    asyncio.run(run())


def test_messages_in_one_tls_segment_with_the_handshake_arrive(secure: tuple[ServerProcess, ssl.SSLContext]) -> None:
    server, trust = secure
    sent = message("echo", {}, "over TLS").encode("ascii")
    with (
        socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock,
        trust.wrap_socket(sock, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(handshake_head(server.port) + client_frame(sent))
        received = b""
        while not received.endswith(sent):
            piece = tls.recv(65_536)
            assert piece, received
            received += piece
    assert received.startswith(b"HTTP/1.1 101 ")


def test_client_that_speaks_no_tls_does_not_disturb(secure: tuple[ServerProcess, ssl.SSLContext]) -> None:
    server, trust = secure
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(handshake_head(server.port))
        while sock.recv(1000):
            pass
    test_websocket_over_tls_is_served((server, trust))


def test_tls_server_ends_with_1001(secure: tuple[ServerProcess, ssl.SSLContext]) -> None:
    server, trust = secure

    async def run() -> None:
        async with secure_client(server, trust) as client:
            server.process.terminate()
            assert [received async for received in client] == []
            assert client.close_code == 1001

    asyncio.run(run())
    server.process.wait(TIME_LIMIT)


def test_unix_socket_is_served(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    serve(*processor_arguments("echo"), listen=["--listen", "unix:lhttp.sock"])
    path = str(tmp_path / "lhttp.sock")
    with unix_connect(path, "ws://localhost/") as client:
        client.send(message("chat", {"subscribe": "room"}))
        client.send(message("chat", {"publish": "room"}, "over a UNIX socket"))
        assert client.recv(TIME_LIMIT) == message("chat", {"publish": "room"}, "over a UNIX socket")


def test_publishing_over_a_unix_socket_needs_a_token(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """A proxy in front is what UNIX sockets are for, so nothing tells that the caller is on this machine."""
    serve(listen=["--listen", "unix:lhttp.sock"])
    posted = message("chat", {"publish": "room"}).encode("ascii")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "lhttp.sock"))
        sock.sendall(
            b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(posted), posted)
        )
        assert sock.makefile("rb").readline().startswith(b"HTTP/1.1 403 ")


def test_unix_socket_is_gone_after_the_end(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = serve(listen=["--listen", "unix:lhttp.sock"])
    with unix_connect(str(tmp_path / "lhttp.sock"), "ws://localhost/"):
        pass
    server.stop()
    assert not (tmp_path / "lhttp.sock").exists()


def test_clients_of_several_endpoints_share_the_channels(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = serve(
        listen=[
            *("--port", "tcp:0:interface=127.0.0.1"),
            *("--listen", "tcp:0:interface=127.0.0.1", "--listen", "unix:lhttp.sock"),
        ],
        endpoints=3,
    )
    other_port = int(server.addresses[1].rpartition(":")[2])
    assert other_port != server.port
    with (
        open_client(server.port) as first,
        open_client(other_port) as second,
        unix_connect(str(tmp_path / "lhttp.sock"), "ws://localhost/") as third,
    ):
        for client in (first, second, third):
            client.send(message("chat", {"subscribe": "room", "receipt": "in"}))
            client.recv(TIME_LIMIT)
        sent = message("chat", {"publish": "room"}, "to all")
        assert http_request(server.port, "POST", "/publish", sent)[0] == 200
        assert [client.recv(TIME_LIMIT) for client in (first, second, third)] == [sent] * 3


def test_port_may_be_a_bare_number(serve: Callable[..., ServerProcess]) -> None:
    server = serve(*processor_arguments("echo"), listen=["--port", "0"])
    assert server.addresses[0] == f"0.0.0.0:{server.port}"
    with open_client(server.port) as client:
        client.send(message("echo"))
        assert client.recv(TIME_LIMIT) == message("echo")


def test_ipv6_is_served(serve: Callable[..., ServerProcess]) -> None:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = serve(*processor_arguments("echo"), listen=["--listen", r"tcp6:0:interface=\:\:1"])
    assert server.addresses[0] == f"[::1]:{server.port}"
    with (
        socket.create_connection(("::1", server.port), TIME_LIMIT) as sock,
        connect(f"ws://[::1]:{server.port}/", sock=sock, origin=f"http://[::1]:{server.port}") as client,
    ):
        client.send(message("echo"))
        assert client.recv(TIME_LIMIT) == message("echo")


def proxy_header(client: str) -> bytes:
    return f"PROXY TCP4 {client} 127.0.0.1 54321 80\r\n".encode("ascii")


def test_behind_the_proxy_protocol_clients_are_counted_by_their_own_address(
    serve: Callable[..., ServerProcess],
) -> None:
    endpoint = ("--listen", "haproxy:tcp:0:interface=127.0.0.1")
    server = serve("--max-per-address", "1", "--demo", listen=endpoint)
    statuses = []
    with ExitStack() as stack:
        for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT))
            sock.sendall(proxy_header(client) + handshake_head(server.port))
            statuses.append(int(sock.makefile("rb").readline().split()[1]))
    assert statuses == [101, 429, 101]
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(proxy_header("\x1b[31m") + handshake_head(server.port))
        with suppress(ConnectionError):
            assert sock.recv(1000) == b""
    assert "tcp4:192.0.2.1:54321" in server.log
    assert "\x1b" not in server.log
    assert "Traceback" not in server.log


def test_websocket_over_wrapped_tls_is_served(
    serve: Callable[..., ServerProcess], certificate: tuple[Path, Path]
) -> None:
    key_file, certificate_file = certificate
    endpoint = f"haproxy:ssl:0:interface=127.0.0.1:privateKey={key_file}:certKey={certificate_file}"
    server = serve(*processor_arguments("echo"), listen=["--listen", endpoint])
    trust = ssl.create_default_context(cafile=str(certificate_file))
    sent = message("echo", {}, "over TLS").encode("ascii")
    with (
        socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock,
        trust.wrap_socket(sock, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(proxy_header("192.0.2.1") + handshake_head(server.port) + client_frame(sent))
        received = b""
        while not received.endswith(sent):
            piece = tls.recv(65_536)
            assert piece, received
            received += piece
    assert received.startswith(b"HTTP/1.1 101 ")
