"""lhttp_tx.transports.websocket.opening: handshakes that Autobahn is not asked about, and what a connection holds."""

from __future__ import annotations

from typing import Any

import pytest
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from lhttp_tx import Request, processor
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.handshake import MAX_HEADERS
from lhttp_tx.transports.websocket.protocol import LHTTPServerProtocol
from unit.transports.websocket.test_handshake import BROWSER, FIELDS, head
from unit.transports.websocket.test_protocol import Peer, frame, messages


@processor("echo")
def echo(request: Request) -> None:
    request.reply()


@pytest.fixture
def factory(clock: Clock) -> LHTTPServerFactory:
    return LHTTPServerFactory(engine=Server(processors=[echo]).engine, reactor=clock)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LHTTPServerProtocol, "processHandshake", lambda *_: pytest.fail("Autobahn was asked"))


@pytest.mark.parametrize("fields", [FIELDS, BROWSER], ids=["plain", "browser"])
def test_an_ordinary_handshake_is_answered_at_once(
    at_once: None, factory: LHTTPServerFactory, fields: list[bytes]
) -> None:
    peer = Peer(factory)
    peer.protocol.dataReceived(head(fields) + frame("LHTTP/1.0 echo\r\n\r\nhello"))
    response, _, rest = peer.take().partition(b"\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 101 ")
    assert messages(rest) == [b"LHTTP/1.0 echo\r\n\r\nhello"]


def test_a_handshake_in_pieces_is_autobahns(factory: LHTTPServerFactory) -> None:
    peer = Peer(factory)
    for byte in head():
        peer.protocol.dataReceived(bytes((byte,)))
    assert peer.take().startswith(b"HTTP/1.1 101 ")


def test_a_handshake_that_comes_in_time_is_not_timed_out(factory: LHTTPServerFactory, clock: Clock) -> None:
    peer = Peer(factory)
    peer.protocol.dataReceived(head())
    clock.advance(6)
    assert not peer.transport.aborted
    assert len(clock.getDelayedCalls()) == 1


@pytest.mark.parametrize(
    ("policy", "fields", "status"),
    [
        (AccessPolicy(loopback_only=True), FIELDS, b"403"),
        (AccessPolicy(), [*FIELDS, b"Origin: https://other.example"], b"403"),
        (AccessPolicy(), [*FIELDS, b"Origin: https://chat.example"], b"101"),
    ],
)
def test_the_rules_hold(factory: LHTTPServerFactory, policy: AccessPolicy, fields: list[bytes], status: bytes) -> None:
    factory.policy = policy
    peer = Peer(factory)
    peer.protocol.dataReceived(head(fields))
    assert peer.take().split()[1] == status


def test_connections_are_bounded_in_number(factory: LHTTPServerFactory) -> None:
    factory.setProtocolOptions(maxConnections=1)
    statuses = []
    for _ in range(2):
        peer = Peer(factory)
        peer.protocol.dataReceived(head())
        statuses.append(peer.take().split()[1])
    assert statuses == [b"101", b"503"]


def test_a_subclass_that_decides_about_handshakes_is_asked(factory: LHTTPServerFactory) -> None:
    class Closed(LHTTPServerProtocol):
        def onConnect(self, request: Any) -> None:
            raise ConnectionDeny(404)

    peer = Peer(factory)
    factory.protocol = Closed
    denied = Peer(factory)
    for found in (peer, denied):
        found.protocol.dataReceived(head())
    assert [found.take().split()[1] for found in (peer, denied)] == [b"101", b"404"]


def test_a_subclass_that_does_not_is_opened_at_once(at_once: None, factory: LHTTPServerFactory) -> None:
    opened: list[str] = []

    class Watching(LHTTPServerProtocol):
        def onOpen(self) -> None:
            super().onOpen()
            opened.append(self.peer)

    factory.protocol = Watching
    peer = Peer(factory)
    peer.protocol.dataReceived(head())
    assert opened == [peer.protocol.peer]


# What a connection holds


def test_connections_share_what_autobahn_gives_to_each(factory: LHTTPServerFactory) -> None:
    peer = Peer(factory)
    peer.protocol.dataReceived(head())
    assert len(vars(peer.protocol)) < 20


def test_a_connection_begins_as_autobahn_makes_it(factory: LHTTPServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = Peer(factory).protocol
    monkeypatch.setattr(factory, "trimmed", False)
    whole = Peer(factory).protocol
    names = {*vars(whole)} - {"transport", "factory", "is_open", "is_closed"}
    assert len(names) > 30
    for name in names:
        found, wanted = getattr(trimmed, name), getattr(whole, name)
        assert type(found) is type(wanted)
        if wanted is None or isinstance(wanted, bool | int | str | bytes):
            assert found == wanted


@pytest.mark.parametrize("name", ["send_queue", "trafficStats", "utf8validator"])
def test_no_two_connections_share_what_they_change(factory: LHTTPServerFactory, name: str) -> None:
    first, second = Peer(factory).protocol, Peer(factory).protocol
    assert getattr(first, name) is getattr(first, name)
    assert getattr(first, name) is not getattr(second, name)


def test_a_newer_autobahn_may_give_each_connection_more(
    factory: LHTTPServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = WebSocketProtocol._connectionMade

    def connection_made(protocol: Any) -> None:
        before(protocol)
        protocol.added: list[int] = []

    monkeypatch.setattr(WebSocketProtocol, "_connectionMade", connection_made)
    first, second = Peer(factory), Peer(factory)
    assert first.protocol.added is not second.protocol.added
    first.protocol.dataReceived(head())
    assert first.take().startswith(b"HTTP/1.1 101 ")


def test_connections_are_counted(factory: LHTTPServerFactory) -> None:
    peers = [Peer(factory) for _ in range(3)]
    assert factory.countConnections == 3
    for peer in peers:
        peer.lose(ConnectionDone)
    assert factory.countConnections == 0


def test_an_end_that_is_out_of_the_ordinary_is_told_to_the_session(factory: LHTTPServerFactory) -> None:
    peer = Peer(factory)
    peer.protocol.dataReceived(head())
    peer.protocol.connectionLost(Failure(RuntimeError("out of descriptors")))
    assert factory.engine.sessions == set()
    assert factory.countConnections == 0


def test_bytes_wait_behind_those_that_are_cut_up(factory: LHTTPServerFactory, clock: Clock) -> None:
    peer = Peer(factory)
    peer.protocol.dataReceived(head())
    peer.take()
    peer.protocol.sendData(b"abcdef", chopsize=2)
    peer.protocol.sendData(b"gh")
    for _ in range(4):
        clock.advance(0.1)
    assert peer.take() == b"abcdefgh"


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize(("count", "status"), [(MAX_HEADERS, b"101"), (MAX_HEADERS + 1, b"431")])
def test_headers_are_bounded_in_number(factory: LHTTPServerFactory, count: int, status: bytes, pieces: int) -> None:
    data = head([*FIELDS, *(b"X-%d: x" % number for number in range(count - len(FIELDS)))])
    peer = Peer(factory)
    width = len(data) // pieces + 1
    for start in range(0, len(data), width):
        peer.protocol.dataReceived(data[start : start + width])
    assert peer.take().split()[1] == status


def test_lines_behind_a_handshake_are_no_headers(factory: LHTTPServerFactory) -> None:
    peer = Peer(factory)
    data = head([*FIELDS, b"Sec-WebSocket-Protocol: x"])  # Autobahn's to judge
    peer.protocol.dataReceived(data + frame("LHTTP/1.0 echo\r\n\r\n" + "\r\n" * 200))
    assert peer.take().split()[1] == b"101"
