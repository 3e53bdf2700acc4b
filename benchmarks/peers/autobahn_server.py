"""
Plain Autobahn with the same logic: a dict of channels, each publication prepared once, an echo.

Takes an endpoint description and the seconds between pings; says where it listens. Run as a program.
"""

from __future__ import annotations

import sys
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString

_channels: dict[bytes, dict[Peer, None]] = {}


class Peer(WebSocketServerProtocol):
    """One connection."""

    def onOpen(self) -> None:
        """Remember its channels, to leave them. Autobahn means to set TCP_NODELAY, and in this version does not."""
        self.transport.setTcpNoDelay(True)
        self.channels: set[bytes] = set()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Subscribe, publish, echo, and send a receipt, as the message says."""
        head = payload.partition(b"\r\n\r\n")[0]
        start, *lines = head.split(b"\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        for channel in headers.get(b"subscribe", b"").split():
            _channels.setdefault(channel, {})[self] = None
            self.channels.add(channel)
        if b"publish" in headers:
            prepared = self.factory.prepareMessage(payload, isBinary)
            for channel in headers[b"publish"].split():
                for subscriber in list(_channels.get(channel, ())):
                    subscriber.sendPreparedMessage(prepared)
        if start == b"LHTTP/1.0 echo":
            self.sendMessage(payload, isBinary)
        if b"receipt" in headers:
            self.sendMessage(b"LHTTP/1.0 receipt\r\nreceipt-id:" + headers[b"receipt"] + b"\r\n\r\n")

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Leave the channels."""
        for channel in getattr(self, "channels", ()):
            _channels[channel].pop(self, None)
            if not _channels[channel]:
                del _channels[channel]


def main(endpoint: str, ping_interval: str) -> None:
    """Serve until killed."""
    factory = WebSocketServerFactory()
    factory.protocol = Peer
    factory.setProtocolOptions(autoPingInterval=float(ping_interval), autoPingTimeout=10)

    def listens(port: Any) -> None:
        print(f"listening on {port.getHost().port}", flush=True)

    serverFromString(reactor, endpoint).listen(factory).addCallback(listens)
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(*sys.argv[1:])
