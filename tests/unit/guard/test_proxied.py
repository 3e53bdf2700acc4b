"""lhttp_tx.guard.proxied: connections that begin with a header of the PROXY protocol."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.tcp import Port
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.policies import ProtocolWrapper

from lhttp_tx.guard.descriptors import AcceptGuard
from lhttp_tx.guard.proxied import expects_proxy, is_proxied
from unit.guard.test_admission import Server, lose, status
from unit.transports.websocket.test_handshake import head
from unit.web.test_site import Transport

pytestmark = pytest.mark.usefixtures("clock")

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXY = IPv4Address("TCP", "198.51.100.7", 4711)
PUBLISH = b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"


def v1(client: str, port: int | str = 54321) -> bytes:
    family = "TCP6" if ":" in client else "TCP4"
    own = "2001:db8::2" if ":" in client else "10.0.0.2"
    return f"PROXY {family} {client} {own} {port} 80\r\n".encode("latin-1")


def v2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(addresses)) + addresses


class Listening:
    """The site behind an endpoint ``haproxy:``, guarded as a port is."""

    def __init__(self, *, trusted: tuple[str, ...] = (), **limits: int) -> None:
        self.server = Server(proxies=trusted, **limits)
        made: list[Any] = []

        class Endpoint:
            def listen(self, factory: Any) -> None:
                made.append(factory)

        proxyEndpoint(Endpoint()).listen(self.server.stack.site)  # type: ignore[arg-type]
        (self.factory,) = made
        assert expects_proxy(self.factory)

    def connect(self, *reads: bytes) -> Transport | None:
        if not self.server.admission.admits(None):
            return None
        transport = Transport()
        transport.peerAddr = PROXY
        transport.protocol = self.factory.buildProtocol(PROXY)
        transport.protocol.makeConnection(transport)
        for data in reads:
            if not transport.disconnecting:
                transport.protocol.dataReceived(data)
        return transport

    def statuses(self, *clients: str) -> list[int]:
        found = []
        for client in clients:
            transport = self.connect(v1(client) + head())
            assert transport is not None
            found.append(status(transport) if transport.value() else 0)
        return found


def test_clients_are_counted_by_the_address_that_the_proxy_tells() -> None:
    server = Listening(max_per_address=2)
    assert server.statuses(*["192.0.2.1"] * 3, "192.0.2.2") == [101, 101, 429, 101]
    assert server.statuses(*[f"192.0.2.{number}" for number in range(3, 100)]) == [101] * 97


def test_who_is_far_too_many_is_dropped_unheard() -> None:
    assert Listening(max_per_address=1).statuses(*["192.0.2.1"] * 19) == [101, *[429] * 16, 0, 0]


def test_those_that_end_make_room() -> None:
    server = Listening(max_per_address=1)
    for _ in range(3):
        transports = [server.connect(v1("192.0.2.1") + head()) for _ in range(2)]
        assert [status(transport) for transport in transports if transport is not None] == [101, 429]
        for transport in transports:
            lose(transport)
        assert server.server.is_empty


def test_a_session_has_the_address_that_the_proxy_tells() -> None:
    server = Listening()
    server.connect(v1("2001:DB8::0:1") + head())
    (session,) = server.server.stack.server.engine.sessions
    assert session.peer == "tcp6:2001:db8::1:54321"


@pytest.mark.parametrize(
    ("header", "peer"),
    [
        (b"PROXY UNKNOWN \r\n", "tcp4:198.51.100.7:4711"),
        (v2(0, 0, b""), "tcp4:198.51.100.7:4711"),
        (v2(1, 0x11, bytes([192, 0, 2, 1, 10, 0, 0, 2]) + struct.pack("!HH", 5, 80)), "tcp4:192.0.2.1:5"),
        (v2(1, 0x31, b"/run/\x1b[31m".ljust(216, b"\0")), "tcp4:198.51.100.7:4711"),
    ],
    ids=["unknown", "local", "binary", "unix"],
)
def test_other_headers_are_read(header: bytes, peer: str) -> None:
    server = Listening(trusted=("unix",))
    server.connect(header + head())
    (session,) = server.server.stack.server.engine.sessions
    assert session.peer == peer


@pytest.mark.parametrize(
    "header",
    [
        v1("\x1b[31m"),
        v1("fe80::1%\x1b[31m"),
        v1("fe80::1%1"),
        v1("192.0.2.1", 70_000),
        v1("192.0.2.1", "x"),
        v1("\xff"),
        b"PROXY TCP4 1\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        v2(1, 0x12, b""),
        v2(1, 0x77, b"x" * 20),
        v2(7, 0x11, b"x" * 12),
        b"x" * 1_000,
    ],
)
def test_a_header_that_makes_no_sense_ends_the_connection(header: bytes) -> None:
    server = Listening()
    transport = server.connect(header + head())
    assert transport is not None
    assert (transport.aborted, transport.value()) == (True, b"")


def test_who_is_behind_the_proxy_is_no_program_of_this_machine() -> None:
    message = b"LHTTP/1.0 chat\r\npublish:a\r\n\r\n"
    transport = Listening().connect(v1("127.0.0.1") + PUBLISH % (len(message), message))
    assert transport is not None
    assert status(transport) == 403


def test_a_port_behind_a_proxy_is_judged_without_the_proxys_address() -> None:
    asked: list[Any] = []
    reactor = MemoryReactorClock()
    guard = AcceptGuard(reactor, limits=lambda: None, judge=lambda address: not asked.append(address))  # type: ignore[func-returns-value]

    for factory in (Server().stack.site, Listening().factory):
        port = Port(0, factory, reactor=reactor)
        guard.watch(port)
        assert port.factory.buildProtocol(PROXY) is not None
    assert asked == [PROXY, None]


def test_other_transports_have_no_proxy() -> None:
    assert not is_proxied(StringTransport())
    assert not is_proxied(ProtocolWrapper(None, None))  # type: ignore[arg-type, type-var]
    assert not expects_proxy(Server().stack.site)
