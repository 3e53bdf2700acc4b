"""A client on a plain stream, on a bare socket: it imports nothing of the project, and is free to misbehave."""

from __future__ import annotations

import re
import socket
from typing import Any

from integration._server import TIME_LIMIT, ServerProcess, message

__all__ = ["TCP", "Device", "framed", "tcp_port"]

TCP = ("--tcp", "tcp:0:interface=127.0.0.1:backlog=1024")
"""Options for a server that takes clients on plain streams."""


def framed(*payloads: bytes | str) -> bytes:
    """Return messages as they go over the wire."""
    found = [payload.encode("utf-8") if isinstance(payload, str) else payload for payload in payloads]
    return b"".join(b"%d\n" % len(payload) + payload for payload in found)


def tcp_port(server: ServerProcess) -> int:
    """Return the port of a server that was started with :data:`TCP`, the last that it listens on."""
    server.wait_for_log("listening on", count=2)
    return int(re.findall(r"listening on \S+:(\d+) \(", server.log)[-1])


class Device:
    """A client."""

    def __init__(self, port: int = 0, *, sock: Any = None, receive_buffer: int | None = None) -> None:
        """
        :param port: where to connect.
        :param sock: a socket that is connected, instead.
        :param receive_buffer: the size of the socket's receive buffer.
        """
        if sock is None:
            sock = socket.socket()
            sock.settimeout(TIME_LIMIT)
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.connect(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(TIME_LIMIT)
        self.sock = sock
        self.stream = sock.makefile("rb")

    def send(self, *payloads: bytes | str) -> None:
        """Send messages."""
        self.sock.sendall(framed(*payloads))

    def receive(self, heartbeats: bool = False) -> bytes:
        """
        Return the next message; fail if there is none.

        :param heartbeats: return heartbeats too, as an empty message; otherwise they are answered.
        """
        while True:
            line = self.stream.readline()
            if not line:
                raise ConnectionError("the server has hung up")
            assert re.fullmatch(rb"(0|[1-9][0-9]*)\n", line), line
            size = int(line)
            payload = self.stream.read(size)
            assert len(payload) == size
            if payload or heartbeats:
                return payload
            self.send(b"")

    def subscribe(self, channels: str, **headers: str) -> bytes:
        """Subscribe, and return the receipt."""
        self.send(message("chat", {"subscribe": channels, "receipt": "s", **headers}))
        receipt = self.receive()
        assert receipt.startswith(b"LHTTP/1.0 receipt\r\nreceipt-id:s\r\n"), receipt
        return receipt

    def receive_close(self) -> tuple[int, str]:
        """Return code and reason of the last message, which is the next one."""
        found = re.fullmatch(rb"LHTTP/1\.0 close\r\ncode:([0-9]+)\r\nreason:(.*)\r\n\r\n", payload := self.receive())
        assert found, payload
        assert self.stream.read(1) == b""
        return int(found[1]), found[2].decode("utf-8")

    def close(self) -> None:
        """Hang up."""
        self.stream.close()
        self.sock.close()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
