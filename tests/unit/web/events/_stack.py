"""A server with everything but sockets, and clients that open event streams."""

from __future__ import annotations

from typing import Any

import txaio
from event_source import Event, Parser
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.guard.admission import Admission
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.web.events.resource import EventsResource
from lhttp_tx.web.site import LHTTPSite, RootResource

__all__ = ["Stack", "Transport"]


class Transport(StringTransport):
    """A transport whose owner can be changed, as that of a TCP connection."""

    def __init__(self, host: str = "192.0.2.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 54321))
        self.protocol: Any = None
        self.aborted = False

    def unregisterProducer(self) -> None:
        self.producer = None

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()

    def end(self) -> None:
        """End the connection."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def head(self) -> str:
        """The head of the response."""
        return self.value().partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def status(self) -> int:
        """The status of the response; 0 if there is none yet."""
        return int(self.head[9:12] or 0)

    @property
    def body(self) -> bytes:
        """The body of the response."""
        return self.value().partition(b"\r\n\r\n")[2]

    @property
    def parser(self) -> Parser:
        """A parser that has got the body."""
        parser = Parser()
        parser.feed(self.body)
        return parser

    @property
    def events(self) -> list[Event]:
        """The events of the stream."""
        return self.parser.events

    @property
    def bodies(self) -> list[str]:
        """The bodies of the messages in the stream."""
        return [event.body for event in self.events]


class Stack:
    """
    A server without sockets.

    :ivar server: its parts.
    :ivar events: what answers ``/events``.
    """

    def __init__(
        self,
        *,
        policy: AccessPolicy | None = None,
        max_connections: int = 100,
        max_per_address: int = 0,
        **options: Any,
    ) -> None:
        """:param options: for :class:`~lhttp_tx.testing.Server`."""
        self.clock = Clock()
        txaio.config.loop = self.clock
        self.server = Server(clock=self.clock, **options)
        policy = policy or AccessPolicy()
        self.admission = Admission(self.clock, max_per_address=max_per_address)
        self.factory = LHTTPServerFactory(
            engine=self.server.engine,
            reactor=self.clock,
            policy=policy,
            gate=self.server.assembly.gate,
            admission=self.admission,
            max_connections=max_connections,
        )
        root = RootResource(factory=self.factory)
        self.events: EventsResource = root.children[b"events"]
        self.site: Any = LHTTPSite(root, max_body_size=1_000, reactor=self.clock, admission=self.admission)

    def request(
        self, target: str, *headers: str, method: str = "GET", host: str = "192.0.2.1", behind: bytes = b""
    ) -> Transport:
        """Return the connection of a request."""
        transport = Transport(host)
        transport.protocol = self.site.buildProtocol(transport.getPeer())
        transport.protocol.makeConnection(transport)
        lines = [f"{method} {target} HTTP/1.1", "Host: chat.example", *headers, "", ""]
        transport.protocol.dataReceived("\r\n".join(lines).encode("latin-1") + behind)
        return transport

    def stream(self, query: str, *headers: str, **options: Any) -> Transport:
        """Return the connection of a stream."""
        return self.request(f"/events?{query}", "Accept: text/event-stream", *headers, **options)

    def publish(self, channel: str, body: str, command: str = "chat", **options: Any) -> None:
        """Publish a message."""
        self.server.engine.publish(channel, command, (), body, **options)
