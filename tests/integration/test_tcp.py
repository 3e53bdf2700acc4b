"""LHTTP on plain streams over real sockets: TCP, TLS, UNIX sockets, proxies, restarts, logins and bad clients."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import stat
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from integration._device import TCP, Device, framed, tcp_port
from integration._nats import needs_nats
from integration._server import (
    RESET,
    TIME_LIMIT,
    ServerProcess,
    http_request,
    message,
    on_one_of_these_clocks,
    open_client,
    processor_arguments,
    recv_bytes,
    send_bytes,
)

Serve = Callable[..., ServerProcess]


def serving(serve: Serve, *arguments: str, **options: Any) -> tuple[ServerProcess, int]:
    server = serve(*TCP, *arguments, endpoints=2, **options)
    return server, tcp_port(server)


def test_a_publication_is_the_same_in_a_websocket_and_in_a_stream(serve: Serve) -> None:
    server, port = serving(serve)
    raw = b"LHTTP/1.0 chat\r\npublish:room\r\nx:1\r\n\r\n"
    with Device(port) as device, open_client(server.port) as browser:
        device.subscribe("room")
        browser.send(message("chat", {"subscribe": "room", "receipt": "1"}))
        recv_bytes(browser)
        for body, binary in ((b"text", False), ("zwölf".encode(), False), (b"\x00\xff\n0\n", True)):
            device.send(raw + body)
            assert device.receive() == raw + body
            assert recv_bytes(browser) == (raw + body, binary)
            send_bytes(browser, raw + body, binary)
            assert device.receive() == raw + body
            assert recv_bytes(browser) == (raw + body, binary)
        assert http_request(server.port, "POST", "/publish", raw + b"over HTTP")[0] == 200
        assert device.receive() == raw + b"over HTTP"


def test_processors_receipts_and_errors_are_those_of_a_websocket(serve: Serve) -> None:
    _, port = serving(serve, *processor_arguments("echo", "refuse"))
    with Device(port) as device:
        device.send(message("echo", {"a": "b"}, "hello"), message("x", {"receipt": "1"}), "no message")
        assert device.receive() == message("echo", {"a": "b"}, "hello").encode()
        assert device.receive() == message("receipt", {"receipt-id": "1"}).encode()
        assert device.receive().startswith(b"LHTTP/1.0 error\r\nstatus:400\r\n")
        device.send(message("x", {"receipt": "2"}))
        assert device.receive() == message("receipt", {"receipt-id": "2"}).encode()


def test_many_messages_go_both_ways_in_order(serve: Serve) -> None:
    _, port = serving(serve)
    count = 5_000
    with Device(port) as publisher, Device(port) as subscriber:
        subscriber.subscribe("room")
        bodies = [f"{number}" + "x" * (number % 700) for number in range(count)]
        stream = framed(*(message("chat", {"publish": "room"}, body) for body in bodies))
        sending = threading.Thread(target=publisher.sock.sendall, args=(stream,))
        sending.start()
        for body in bodies:
            assert subscriber.receive().endswith(b"\r\n\r\n" + body.encode())
        sending.join(TIME_LIMIT)


def test_history_is_caught_up_with(serve: Serve) -> None:
    _, port = serving(serve, "--history", "room.*")
    with Device(port) as device:
        receipt = device.subscribe("room.a")
        found = re.search(rb"position:room\.a=(\S+)", receipt)
        assert found is not None
        for body in ("one", "two"):
            device.send(message("chat", {"publish": "room.a"}, body))
            assert device.receive().endswith(body.encode())
    with Device(port) as device:
        device.send(message("chat", {"subscribe": "room.a", "since": found[1].decode(), "receipt": "s"}))
        came = [device.receive() for _ in range(3)]
        assert [payload.rpartition(b"\r\n\r\n")[2] for payload in came] == [b"one", b"two", b""]
        assert b"recovered:room.a" in came[2]


# Ends


def test_a_client_that_half_closes_gets_its_answers(serve: Serve) -> None:
    _, port = serving(serve, *processor_arguments("deferred"))
    with Device(port) as device:
        device.send(message("deferred", {}, "slow"), message("x", {"receipt": "1"}))
        device.sock.shutdown(socket.SHUT_WR)
        assert device.receive().startswith(b"LHTTP/1.0 deferred\r\n")
        assert device.receive() == message("receipt", {"receipt-id": "1"}).encode()
        assert device.receive_close() == (1000, "")


def test_when_the_server_stops_clients_are_told(serve: Serve) -> None:
    server, port = serving(serve)
    with Device(port) as device, Device(port) as silent:
        device.subscribe("room")
        server.process.send_signal(signal.SIGTERM)
        assert device.receive_close() == (1001, "server is going away")
        assert silent.receive_close() == (1001, "server is going away")
    server.process.wait(TIME_LIMIT)


def test_clients_that_are_closed_in_turn_are_told_when_to_come_again(serve: Serve) -> None:
    server, port = serving(serve, "--drain-time", "1")
    with Device(port) as device:
        device.subscribe("room")
        server.process.send_signal(signal.SIGTERM)
        code, reason = device.receive_close()
    assert (code, reason.partition("=")[0]) == (1001, "server is going away; retry-after")
    assert 0 < float(reason.partition("=")[2]) < 10
    server.process.wait(TIME_LIMIT)


def test_a_client_that_still_sends_reads_the_last_message(serve: Serve) -> None:
    """A socket that is closed with bytes unread resets the connection, and what was sent may never be read."""
    _, port = serving(serve)
    for _ in range(20):
        with Device(port) as device:
            with suppress(ConnectionError):
                device.sock.sendall(b"no length\n" + b"x" * 300_000)
            assert device.receive().startswith(b"LHTTP/1.0 error\r\nstatus:400\r\n")
            assert device.receive_close()[0] == 1002


def test_heartbeats_find_a_client_that_is_gone_and_keep_one_that_answers(serve: Serve) -> None:
    server, port = serving(serve, "--ping-interval", "1", "--ping-timeout", "4")
    with Device(port) as living, Device(port) as gone:
        living.subscribe("room")
        gone.subscribe("room")
        assert living.receive(heartbeats=True) == b""
        living.send(b"")
        ended = threading.Event()

        def listen() -> None:
            with suppress(ConnectionError, AssertionError, OSError, ValueError):
                while True:
                    living.receive()
            ended.set()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        server.wait_for_log("does not answer heartbeats")
        while (payload := gone.receive(heartbeats=True)) == b"":
            pass
        assert b"code:1008" in payload
        assert not ended.is_set()
        assert server.log.count("does not answer heartbeats") == 1
        living.sock.shutdown(socket.SHUT_RDWR)
        thread.join(TIME_LIMIT)


# Other sockets


def test_tls(serve: Serve, certificate: tuple[Path, Path]) -> None:
    key, cert = certificate
    endpoint = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={cert}"
    server = serve("--tcp", endpoint, endpoints=2)
    trust = ssl.create_default_context(cafile=str(cert))
    port = tcp_port(server)

    def connect() -> Device:
        sock = socket.create_connection(("127.0.0.1", port), TIME_LIMIT)
        return Device(sock=trust.wrap_socket(sock, server_hostname="127.0.0.1"))

    body = "x" * 60_000
    with connect() as device, connect() as bad:
        device.subscribe("room")
        for _ in range(50):
            device.send(message("chat", {"publish": "room"}, body))
            assert device.receive() == message("chat", {"publish": "room"}, body).encode()
        bad.sock.sendall(b"007\n")
        assert bad.receive().startswith(b"LHTTP/1.0 error\r\nstatus:400\r\n")
        assert bad.receive_close()[0] == 1002
        with socket.create_connection(("127.0.0.1", port), TIME_LIMIT) as plain:
            plain.sendall(framed(message("x")))
            with suppress(ConnectionError):
                while plain.recv(1000):
                    pass
        server.process.send_signal(signal.SIGTERM)
        assert device.receive_close() == (1001, "server is going away")
    server.process.wait(TIME_LIMIT)


def test_a_unix_socket_with_its_mode(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "devices.sock"
    server = serve("--tcp", f"unix:{path}", "--unix-mode", "600", endpoints=2)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    with Device(sock=sock) as device:
        device.subscribe("room")
        device.send(message("chat", {"publish": "room"}, "hello"))
        assert device.receive().endswith(b"hello")
        device.sock.shutdown(socket.SHUT_WR)
        assert device.receive_close() == (1000, "")
    assert "unix" in server.log


def test_addresses_that_a_proxy_reports_count(serve: Serve) -> None:
    server = serve("--tcp", "haproxy:tcp:0:interface=127.0.0.1", "--max-per-address", "1", endpoints=2)
    port = tcp_port(server)
    with ExitStack() as stack:

        def connect(client: str) -> Device:
            device = stack.enter_context(Device(port))
            addresses = socket.inet_aton(client) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 54321, 80)
            device.sock.sendall(b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses)) + addresses)
            return device

        first, second, other = connect("192.0.2.1"), connect("192.0.2.1"), connect("192.0.2.2")
        first.subscribe("room")
        other.subscribe("room")
        second.send(message("x"))
        assert second.receive().startswith(b"LHTTP/1.0 error\r\nstatus:429\r\n")
        assert second.receive_close()[0] == 1008
        with Device(port) as bare, suppress(ConnectionError):
            bare.send(message("x"))
            assert bare.stream.read(1) == b""
    assert "Traceback" not in server.log


def test_pages_still_reach_only_loopback_names_if_devices_come_from_anywhere(serve: Serve) -> None:
    server = serve("--tcp", "tcp:0", endpoints=2)
    status, _, text = http_request(
        server.port,
        "GET",
        "/",
        headers={
            "Host": "evil.example",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        },
    )
    assert (status, b"Host" in text) == (403, True)
    assert server.log.count("anyone who can reach") == 1


# Logins


def test_a_device_logs_in_with_a_message(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("alice:wonderland\n", encoding="ascii")

    def attempt(seconds: int) -> None:
        server, port = serving(serve, "--auth", "file:passwords", "--login-timeout", f"{seconds}")
        with Device(port) as device, Device(port) as stranger, Device(port) as silent:
            silent.send(b"")
            stranger.send(message("chat", {"publish": "room"}))
            assert stranger.receive().startswith(b"LHTTP/1.0 error\r\nstatus:401\r\n")
            device.send(message("login", {"user": "alice", "password": "wonderland"}))
            assert device.receive() == message("login", {"user": "alice"}).encode()
            device.subscribe("room")
            stranger.send(*[message("login", {"user": "alice", "password": "x"})] * 3)
            for _ in range(3):
                assert stranger.receive().startswith(b"LHTTP/1.0 error\r\nstatus:401\r\n")
            assert stranger.receive_close()[0] == 1008
            assert silent.receive_close() == (4408, f"no login within {seconds} seconds")
            device.subscribe("room")
        assert "wonderland" not in server.log

    on_one_of_these_clocks(attempt)


def test_without_a_time_for_logins_that_of_handshakes_counts(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("alice:wonderland\n", encoding="ascii")
    _, port = serving(serve, "--auth", "file:passwords", "--handshake-timeout", "0.5")
    with Device(port) as silent, Device(port) as dripping:
        silent.send(b"")
        dripping.sock.sendall(b"1")
        assert silent.receive_close() == (4408, "no login within 0.5 seconds")
        assert dripping.receive_close() == (1008, "no message within 0.5 seconds")


# Hostile


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"007\nLHTTP/1", 400, 1002),
        (b"+5\nhello", 400, 1002),
        (b"-1\n", 400, 1002),
        (b" 5\nhello", 400, 1002),
        (b"5\r\nhello", 400, 1002),
        (b"\n", 400, 1002),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, 1002),
        (b"POST /publish HTTP/1.1\r\nHost: x\r\n\r\n5\nLHTTP", 400, 1002),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, 1002),
        (b"131073\n", 413, 1009),
        (b"4294967295\n", 413, 1009),
        (b"9" * 100_000, 413, 1009),
        (b"1" + b"0" * 4_000_000, 413, 1009),
    ],
)
def test_what_is_no_stream_of_messages_gets_an_error_and_an_end(
    device_port: int, data: bytes, status: int, code: int
) -> None:
    for begin in (b"", framed(b""), framed(message("x", {"receipt": "1"}))):
        with Device(device_port) as honest, Device(device_port) as device:
            honest.subscribe("room")

            def send(device: Device = device, begin: bytes = begin) -> None:
                with suppress(ConnectionError):
                    device.sock.sendall(begin + data)

            sending = threading.Thread(target=send)
            sending.start()
            if len(begin) > 2:
                assert device.receive().startswith(b"LHTTP/1.0 receipt")
            assert device.receive().startswith(b"LHTTP/1.0 error\r\nstatus:%d\r\n" % status)
            assert device.receive_close()[0] == code
            sending.join(TIME_LIMIT)
            honest.send(message("chat", {"publish": "room"}, "still here"))
            assert honest.receive().endswith(b"still here")


@pytest.fixture(scope="module")
def device_port(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = ServerProcess(*TCP, cwd=tmp_path_factory.mktemp("devices"), endpoints=2)
    yield tcp_port(server)
    server.check()


def test_a_byte_at_a_time(device_port: int) -> None:
    with Device(device_port) as device:
        for byte in framed(b"", message("chat", {"subscribe": "drip", "publish": "drip", "receipt": "1"}, "slow"), b""):
            device.sock.sendall(bytes([byte]))
        assert device.receive().endswith(b"slow")
        assert device.receive() == message("receipt", {"receipt-id": "1"}).encode()


def test_a_message_of_more_than_the_limit_is_an_error_only(device_port: int) -> None:
    with Device(device_port) as device:
        device.send(message("x", {"receipt": "1"}, "x" * 70_000), message("x", {"receipt": "2"}))
        assert device.receive().startswith(b"LHTTP/1.0 error\r\nstatus:413\r\n")
        assert device.receive() == message("receipt", {"receipt-id": "2"}).encode()


def test_too_many_errors_in_a_row_end_it(device_port: int) -> None:
    with Device(device_port) as device:
        device.send(*[b"x"] * 101)
        for _ in range(100):
            assert device.receive().startswith(b"LHTTP/1.0 error\r\nstatus:400\r\n")
        assert device.receive_close() == (1008, "too many errors in a row")


@pytest.mark.parametrize("data", [b"", b"12", b"100\nLHTTP/1.0 x", framed(message("chat", {"subscribe": "room"}))])
def test_clients_that_vanish_leave_nothing_behind(device_port: int, data: bytes) -> None:
    for _ in range(20):
        device = Device(device_port)
        device.sock.sendall(data)
        device.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        device.close()
    with Device(device_port) as honest:
        honest.subscribe("room")


def test_a_client_that_does_not_read_is_closed_and_others_do_not_notice(serve: Serve) -> None:
    server, port = serving(serve, "--max-unsent", "200000")
    with Device(port, receive_buffer=8_192) as stalled, Device(port) as other:
        stalled.subscribe("room")
        other.subscribe("room")
        number = 0
        while "it does not read" not in server.log:
            assert number < 2_000
            other.send(message("chat", {"publish": "room"}, f"{number:08d}" + "x" * 16_000))
            assert f"{number:08d}".encode() in other.receive()
            number += 1
        other.subscribe("room")
        number = 0
        with suppress(ConnectionError):
            while b"\r\n\r\n%08dx" % number in (payload := stalled.receive()):
                number += 1
            assert payload.startswith(b"LHTTP/1.0 close\r\ncode:1013\r\n")


def test_a_flood_from_a_client_that_does_not_read_stops(serve: Serve) -> None:
    server, port = serving(serve, "--max-unsent", "200000")
    before = server.resident_size()
    with Device(port, receive_buffer=8_192) as stalled, Device(port) as other:
        stalled.sock.settimeout(1.0)
        data = framed(*[message("x", {"receipt": "x" * 200})] * 100)
        with suppress(TimeoutError):
            for _ in range(5_000):
                stalled.sock.sendall(data)
            pytest.fail("the server goes on reading")
        other.subscribe("room")
        assert server.resident_size() - before < 15 * 2**20


# What an operator sees


@needs_nats
def test_workers_share_the_port(serve: Serve) -> None:
    server = serve(*TCP, "--workers", "2", endpoints=4)
    server.wait_for_log("connected to NATS", count=2)
    port = tcp_port(server)
    with ExitStack() as stack:
        devices = [stack.enter_context(Device(port)) for _ in range(20)]
        for device in devices:
            device.subscribe("room")
        devices[0].send(message("chat", {"publish": "room"}, "to all"))
        for device in devices:
            assert device.receive().endswith(b"to all")


def test_it_is_off_unless_it_is_asked_for(serve: Serve) -> None:
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(framed(message("chat", {"publish": "room", "receipt": "1"})))
        sock.shutdown(socket.SHUT_WR)
        found = b""
        while piece := sock.recv(1000):
            found += piece
    assert b"LHTTP" not in found
    assert json.loads(http_request(server.port, "GET", "/health")[2]) == {"status": "ok"}
