"""A link to NATS whose other end is a test's: it speaks for the server."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

__all__ = ["Server", "linked"]

_PUB = re.compile(rb"PUB \S+ +(\d+)")


class Server(Protocol):
    """
    Speaks for NATS.

    :ivar heard: the commands since the connection was made, with the payloads of publications.
    :ivar silent: whether pings get no answer.
    """

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.silent = False
        self.unanswered = 0
        self._data = b""

    @property
    def pings(self) -> int:
        return self.heard.count(b"PING")

    def connectionMade(self) -> None:
        self._write(b'INFO {"server_id":"x","version":"2.10.0","proto":1,"max_payload":1048576,"headers":true}\r\n')

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        while b"\r\n" in self._data:
            line, _, rest = self._data.partition(b"\r\n")
            publication = _PUB.match(line)
            if publication is not None:
                size = int(publication[1])
                if len(rest) < size + 2:
                    return
                line, rest = rest[:size], rest[size + 2 :]
            self._data = rest
            self.heard.append(line)
            if line == b"PING":
                self.unanswered += 1
                if not self.silent:
                    self.answer()

    def answer(self, count: int | None = None) -> None:
        """Answer pings: all, or the oldest of them."""
        count = self.unanswered if count is None else count
        self.unanswered -= count
        self._write(b"PONG\r\n" * count)

    def refuse(self, subject: str, what: str = "Publish to") -> None:
        """Refuse a publication or a subscription, as a NATS does whose rules do not allow it."""
        self._write(f"-ERR 'Permissions Violation for {what} \"{subject}\"'\r\n".encode())

    def drop(self) -> None:
        """Close the connection."""
        assert self.transport is not None
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Not looked at."""

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


@asynccontextmanager
async def linked(owner: Any) -> AsyncIterator[tuple[Any, Server]]:
    """Within the context, there is a link of *owner*, and the server at its other end."""
    from twisted.internet import reactor

    from lhttp_tx.bus.nats.opening import open_link
    from lhttp_tx.bus.nats.servers import NATSServers

    server = Server()
    factory = Factory.forProtocol(lambda: server)  # type: ignore[arg-type]
    factory.noisy = False
    port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
    url = f"nats://127.0.0.1:{port.getHost().port}"
    link = await open_link(url, NATSServers((url,)), owner)
    try:
        yield link, server
    finally:
        server.silent = False
        server.answer()
        await link.close(flush=False)
        server.drop()
        await port.stopListening()
