"""
What the integration tests share: the server as a process, clients, and a backend.

The clients here are written from RFC 6455 and import nothing of the project, so that a mistake in its codec cannot
hide behind the same mistake in the test.
"""

from __future__ import annotations

import functools
import gzip
import http.client
import http.server
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from integration._forks import ForkedProcess, fits

__all__ = [
    "BINARY",
    "CLOSE",
    "PING",
    "PONG",
    "PROCESSORS",
    "RESET",
    "TEXT",
    "TIMES",
    "TIME_LIMIT",
    "Backend",
    "RawClient",
    "ServerProcess",
    "client_frame",
    "handshake_head",
    "http_request",
    "message",
    "on_one_of_these_clocks",
    "open_client",
    "processor_arguments",
    "recv_bytes",
    "script",
    "send_bytes",
    "server_frame",
    "wait_until",
]

TIME_LIMIT = 30.0
"""Seconds that anything may take before a test gives up."""

LONGEST_WAIT = 120.0
"""Seconds that a client may wait for a frame while it answers pings."""

TIMES = (3, 12, 48)
"""Seconds that something may last which is to run out in a test, such as a token: the next where one was too short."""

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
"""Opcodes of WebSocket frames."""

RESET = struct.pack("ii", 1, 0)
"""The SO_LINGER with which closing a socket resets its connection."""

PROCESSORS = Path(__file__).with_name("_processors.py")

T = TypeVar("T")


def script(name: str) -> str:
    """Return the path of the command *name* that belongs to the running Python."""
    return str(Path(sysconfig.get_path("scripts"), name))


def processor_arguments(*names: str) -> list[str]:
    """Return the arguments that load the processors *names* of ``_processors.py``."""
    return [argument for name in names for argument in ("--processor", f"{PROCESSORS}:{name}")]


def message(command: str, headers: dict[str, str] | None = None, body: str = "") -> str:
    """Return an LHTTP message."""
    lines = [f"LHTTP/1.0 {command}", *(f"{name}:{value}" for name, value in (headers or {}).items())]
    return "\r\n".join(lines) + "\r\n\r\n" + body


def wait_until(condition: Callable[[], Any], what: str, limit: float = TIME_LIMIT) -> None:
    """Return once *condition* is true; fail after *limit* seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"not within {limit:g} seconds: {what}"
        time.sleep(0.01)


def on_one_of_these_clocks(attempt: Callable[[int], T]) -> T:
    """
    Return what *attempt* returns for the first of :data:`TIMES` for which it does not fail.

    For a test that has to do something before a time is up, which a machine that stands still may keep it from. What is
    broken fails with the longest time as well.
    """
    *shorter, longest = TIMES
    for seconds in shorter:
        with suppress(AssertionError, pytest.fail.Exception, OSError, WebSocketException, subprocess.TimeoutExpired):
            return attempt(seconds)
    return attempt(longest)


class ServerProcess:
    """
    A ``twistd lhttp`` process in the foreground.

    :ivar port: the TCP port of the first address that it listens on.
    :ivar addresses: what it says that it listens on.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        listen: Iterable[str] = ("--port", "tcp:0:interface=127.0.0.1:backlog=1024"),
        endpoints: int = 1,
        environment: dict[str, str] | None = None,
        runner: Iterable[str] = ("twistd", "-n", "--pidfile="),
        fork: bool = True,
    ) -> None:
        """
        :param arguments: the arguments of ``twistd lhttp``.
        :param cwd: its folder.
        :param listen: the arguments that say where it listens.
        :param endpoints: how many endpoints these are.
        :param environment: variables in addition to those of this process.
        :param runner: the command that runs it, and the arguments of that.
        :param fork: whether it may be forked; see :mod:`integration._forks`.
        """
        name, *options = runner
        self._expected_tracebacks = 0
        self._crashed = False
        self._lines: list[str] = []
        self._changed = threading.Condition()
        inherited = {key: value for key, value in os.environ.items() if key != "LHTTP_PUBLISH_TOKEN"}
        environment = inherited | {"PYTHONUNBUFFERED": "1", **(environment or {})}
        command = [script(name), *options, "lhttp", *listen, *arguments]
        self.process = (
            ForkedProcess(command[1:], cwd=cwd, environment=environment)
            if fork and name == "twistd" and fits(environment)
            else subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="backslashreplace",
            )
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.wait_for_log("listening on", count=endpoints)
        except BaseException:
            self.kill()
            raise
        self.addresses: list[str] = re.findall(r"listening on (\S+) \(", self.log)
        ports = [int(address.rpartition(":")[2]) for address in self.addresses if re.search(r":\d+$", address)]
        self.port = ports[0] if ports else 0
        if self.port and "ssl:" not in " ".join(listen):
            # It says where it listens before the reactor runs; a signal that came in between would just kill it.
            host = self.addresses[0].rpartition(":")[0].strip("[]")
            with socket.create_connection((host, self.port), TIME_LIMIT) as sock:
                header = b"PROXY UNKNOWN \r\n" if "haproxy:" in " ".join(listen) else b""
                sock.sendall(header + b"GET / HTTP/1.0\r\n\r\n")
                assert sock.recv(9) == b"HTTP/1.0 "

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_for_log(self, text: str, count: int = 1) -> None:
        """Return once *text* stands *count* times in the log; fail if it does not within the time limit."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: "".join(self._lines).count(text) >= count or not self._reader.is_alive(), TIME_LIMIT
            )
        assert found and self.log.count(text) >= count, f"{text!r} is not in the log:\n{self.log}"

    def expect_traceback(self, text: str, count: int = 1) -> None:
        """Wait for *count* tracebacks that end with *text*; without this a traceback fails the test."""
        self.wait_for_log(text, count)
        self._expected_tracebacks += count

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status; fail if it does not exit within the time limit."""
        self.process.send_signal(number)
        return self.process.wait(TIME_LIMIT)

    def crash(self) -> None:
        """End it without a word, as a lost machine does; :meth:`check` does not mind."""
        self._crashed = True
        self.kill()

    def check(self) -> None:
        """Stop it if it still runs; fail if it does not exit, or logged a traceback that no test expects."""
        try:
            if self.process.poll() is None:
                assert self.stop() in (-signal.SIGTERM, 128 + signal.SIGTERM)
        finally:
            self.kill()
        stopped = "Main loop terminated" in self.log or "Server Shut Down" in self.log
        assert self._crashed or stopped, f"it was killed before it had stopped\n{self.log}"
        tracebacks = len(re.findall(r"Traceback|Unhandled [Ee]rror", self.log))
        assert tracebacks == self._expected_tracebacks, f"tracebacks: {tracebacks}\n{self.log}"

    def kill(self) -> None:
        """End it whatever it does, and read the rest of its log."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(TIME_LIMIT)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def resident_size(self) -> int:
        """Return the bytes of memory that it has in use."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


@contextmanager
def open_client(port: int, path: str = "/", host: str = "127.0.0.1", **options: Any) -> Iterator[ClientConnection]:
    """Connect a client of the ``websockets`` library; without the proxy that the environment may name."""
    with (
        socket.create_connection((host, port), TIME_LIMIT) as sock,
        connect(f"ws://{host}:{port}{path}", sock=sock, **options) as client,
    ):
        yield client


def recv_bytes(client: ClientConnection) -> tuple[bytes, bool]:
    """Return the next message of *client*, and whether it is binary."""
    received = client.recv(timeout=TIME_LIMIT)
    return (received.encode("utf-8"), False) if isinstance(received, str) else (received, True)


def send_bytes(client: ClientConnection, payload: bytes, binary: bool) -> None:
    """Send *payload* as a binary or a text message."""
    client.send(payload if binary else payload.decode("utf-8"))


def http_request(
    port: int, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Make a request with :mod:`http.client`; return status, headers with lower-case names, and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIME_LIMIT)
    try:
        payload = body.encode("utf-8") if isinstance(body, str) else body
        connection.request(method, path, payload, headers or {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


# WebSocket by hand


def client_frame(payload: bytes, opcode: int = TEXT, *, final: bool = True, mask: bytes = b"\0\0\0\0") -> bytes:
    """Return a masked frame; with the default mask the payload goes over the wire as it is."""
    if any(mask):
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([opcode | (0x80 if final else 0)]) + _length(len(payload), 0x80) + mask + payload


def server_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return the frame in which a server sends *payload*."""
    return bytes([0x80 | opcode]) + _length(len(payload), 0) + payload


def _length(size: int, flag: int) -> bytes:
    if size < 126:
        return bytes([flag | size])
    return struct.pack("!BH", flag | 126, size) if size < 65_536 else struct.pack("!BQ", flag | 127, size)


def handshake_head(port: int, path: str = "/", headers: Iterable[str] = (), host: str = "127.0.0.1") -> bytes:
    """Return the head of an opening handshake."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


class RawClient:
    """A WebSocket client on a bare socket: fast, and free to misbehave."""

    def __init__(
        self,
        port: int,
        path: str = "/",
        *,
        headers: Iterable[str] = (),
        with_handshake: bytes = b"",
        receive_buffer: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        """
        :param with_handshake: bytes to send in one segment with the opening handshake.
        :param receive_buffer: the size of the socket's receive buffer.
        """
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.settimeout(TIME_LIMIT)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.connect((host, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.sock.makefile("rb")
        self.sock.sendall(handshake_head(port, path, headers) + with_handshake)
        self.status = int(self.stream.readline().split()[1])
        self.headers = [line.strip() for line in iter(self.stream.readline, b"\r\n")]

    def send(self, payload: bytes | str, opcode: int = TEXT, **options: Any) -> None:
        """Send one frame."""
        data = payload.encode("utf-8") if isinstance(payload, str) else payload
        self.sock.sendall(client_frame(data, opcode, **options))

    def receive(self, pings: bool = False) -> tuple[int, bytes]:
        """
        Return opcode and payload of the next frame.

        :param pings: return pings too; otherwise they are answered, for who waits for long gets some.
        """
        end = time.monotonic() + LONGEST_WAIT
        while (frame := self._receive())[0] == PING and not pings:
            if time.monotonic() > end:
                raise TimeoutError("only pings come")
            self.send(frame[1], PONG)
        return frame

    def _receive(self) -> tuple[int, bytes]:
        first, size = self._read(2)
        assert first & 0x80 and not size & 0x80, "a server's frame is whole and unmasked"
        if size == 126:
            (size,) = struct.unpack("!H", self._read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._read(8))
        return first & 0x0F, self._read(size)

    def receive_close(self) -> tuple[int, str]:
        """Return code and reason of the close frame that comes next."""
        opcode, payload = self.receive()
        assert opcode == CLOSE, (opcode, payload)
        return struct.unpack("!H", payload[:2])[0], payload[2:].decode("utf-8")

    def subscribe(self, channels: str) -> None:
        """Subscribe, and return when the server says that it is done."""
        self.send(message("chat", {"subscribe": channels, "receipt": "s"}))
        opcode, receipt = self.receive()
        assert opcode == TEXT and receipt.startswith(b"LHTTP/1.0 receipt\r\nreceipt-id:s\r\n"), (opcode, receipt)

    def _read(self, size: int) -> bytes:
        data = self.stream.read(size)
        if len(data) < size:
            raise ConnectionError("the server has hung up")
        return data

    def close(self) -> None:
        """Hang up without a closing handshake."""
        self.stream.close()
        self.sock.close()

    def reset(self) -> None:
        """Hang up with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# A backend


class Backend:
    """
    An HTTP server that records what it gets; what it answers depends on the path.

    :ivar requests: method, path, headers with lower-case names, and body of each request, in order.
    :ivar connections: how many connections were made to it.
    """

    def __init__(self, host: str = "127.0.0.1", context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0
        self.released = threading.Event()
        self._server = (_BackendServer6 if ":" in host else _BackendServer)((host, port), _Handler)
        self._server.backend = self
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def bodies(self) -> list[bytes]:
        """Return the bodies of the requests so far."""
        return [body for _, _, _, body in self.requests]

    def wait_for(self, count: int) -> None:
        """Return once *count* requests have come; fail if they do not within the time limit."""
        wait_until(lambda: len(self.requests) >= count, f"{count} requests at the backend")

    def stop(self) -> None:
        """Stop it; requests that hang end."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(TIME_LIMIT)


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(bytes(30_000_000))


class _BackendServer(http.server.ThreadingHTTPServer):
    backend: Backend
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the server under test hangs up on purpose."""


class _BackendServer6(_BackendServer):
    address_family = socket.AF_INET6


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = TIME_LIMIT
    disable_nagle_algorithm = True
    server: _BackendServer

    def setup(self) -> None:
        super().setup()
        self.server.backend.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""

    def handle_request(self) -> None:
        backend = self.server.backend
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        backend.requests.append((self.command, self.path, headers, body))
        answer = getattr(self, "answer_" + self.path.strip("/").partition("?")[0].replace("/", "_"), None)
        if answer is None:
            self.respond(200, b"recorded")
        else:
            answer()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request

    def respond(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_redirect(self) -> None:
        self.respond(302, b"elsewhere", Location=f"{self.server.backend.url}/redirected")

    def answer_teapot(self) -> None:
        self.respond(418, b"short and stout")

    def answer_cookie(self) -> None:
        self.respond(200, b"take this", Set_Cookie="session=secret; Path=/")

    def answer_latin1(self) -> None:
        self.respond(200, b"caf\xe9")

    def answer_gzip(self) -> None:
        self.respond(200, _bomb(), Content_Encoding="gzip")

    def answer_endless(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.close_connection = True
        while not self.server.backend.released.is_set():
            self.wfile.write(bytes(65_536))

    def answer_headers(self) -> None:
        self.send_response(200)
        self.flush_headers()
        self.close_connection = True
        while not self.server.backend.released.is_set():
            self.wfile.write(b"x-more: and more\r\n" * 1000)

    def answer_hang(self) -> None:
        self.server.backend.released.wait(TIME_LIMIT)
        self.close_connection = True

    def answer_broken(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"only this")
        self.close_connection = True
