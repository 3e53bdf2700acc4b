"""lhttp_tx.guard.admission: how many connections there may be, of one address and before they are WebSockets."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.web.server import Site

from lhttp_tx import Refused
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.auth.gate import Gate
from lhttp_tx.guard.admission import Admission, Place
from lhttp_tx.guard.proxies import TrustedProxies
from unit.transports.websocket.test_handshake import FIELDS, head
from unit.web.test_site import Stack, Transport

pytestmark = pytest.mark.usefixtures("clock")


def tcp(host: str) -> IPv4Address | IPv6Address:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, 54321)


class Server:
    """A server with everything but sockets, and with limits on its connections."""

    def __init__(self, *, judged: bool = False, proxies: tuple[str, ...] = (), gate: Any = None, **limits: int) -> None:
        self.clock = Clock()
        self.admission = Admission(self.clock, proxies=TrustedProxies(proxies), **limits)
        self.stack = Stack(judged=judged, admission=self.admission, gate=gate)
        self.stack.site.admission = self.admission  # type: ignore[attr-defined]

    def connect(self, host: str = "192.0.2.1", *, address: Any = None) -> Transport | None:
        """Return a connection, or ``None`` if it was closed at once."""
        address = tcp(host) if address is None else address
        if not self.admission.admits(address):
            return None
        transport = Transport()
        transport.peerAddr = address
        transport.protocol = self.stack.site.buildProtocol(address)
        transport.protocol.makeConnection(transport)
        return transport

    def open(self, host: str = "192.0.2.1", *fields: bytes, address: Any = None) -> Transport | None:
        transport = self.connect(host, address=address)
        if transport is not None:
            transport.protocol.dataReceived(head([*FIELDS, *fields]))
        return transport

    def statuses(self, count: int, host: str = "192.0.2.1", *fields: bytes) -> list[int]:
        """Return what so many handshakes get; 0 stands for nothing at all."""
        opened = [self.open(host, *fields) for _ in range(count)]
        return [0 if transport is None else status(transport) for transport in opened]

    @property
    def is_empty(self) -> bool:
        counts = (self.admission._connections, self.admission._websockets, self.admission.pending)
        return counts == ({}, {}, 0)


def status(transport: Transport) -> int:
    return int(transport.value().split()[1])


def lose(transport: Transport | None) -> None:
    assert transport is not None
    transport.protocol.connectionLost(connectionDone)


def forwarded(value: str) -> bytes:
    return b"X-Forwarded-For: " + value.encode("ascii")


# One address


@pytest.mark.parametrize("judged", [False, True], ids=["at once", "ordinary"])
def test_one_address_may_have_so_many_websockets(judged: bool) -> None:
    server = Server(judged=judged, max_per_address=2)
    assert server.statuses(3) == [101, 101, 429]
    assert server.statuses(1, "192.0.2.2") == [101]


def test_who_is_too_many_is_told_why() -> None:
    server = Server(max_per_address=1)
    server.open()
    transport = server.open()
    assert transport is not None
    assert transport.value().endswith(b"\r\n\r\ntoo many connections of your address\n")
    assert transport.disconnecting


def test_who_is_far_too_many_is_closed_unheard() -> None:
    server = Server(max_per_address=1)
    assert server.statuses(19) == [101, *[429] * 16, 0, 0]


def test_connections_that_say_nothing_count_too() -> None:
    server = Server(max_per_address=1)
    assert sum(server.connect() is not None for _ in range(30)) == 17
    assert server.connect("192.0.2.2") is not None


@pytest.mark.parametrize("judged", [False, True], ids=["at once", "ordinary"])
def test_those_that_end_make_room(judged: bool) -> None:
    server = Server(judged=judged, max_per_address=1)
    for _ in range(3):
        transports = [server.open() for _ in range(20)]
        silent = server.connect("192.0.2.2")
        assert [status(transport) for transport in transports[:2] if transport is not None] == [101, 429]
        for transport in (*transports[:17], silent):
            lose(transport)
        assert server.is_empty


def test_an_ipv6_network_counts_as_one_address() -> None:
    server = Server(max_per_address=2)
    assert [*server.statuses(2, "2001:db8::1"), *server.statuses(1, "2001:db8::2")] == [101, 101, 429]
    assert server.statuses(1, "2001:db8:0:1::1") == [101]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "10.0.0.1"])
def test_this_machine_and_trusted_proxies_have_no_limit(host: str) -> None:
    server = Server(max_per_address=1, proxies=("10.0.0.1",))
    assert server.statuses(30, host) == [101] * 30


def test_without_a_limit_nothing_is_counted() -> None:
    server = Server()
    assert server.statuses(30) == [101] * 30
    assert server.admission._connections == server.admission._websockets == {}


# Behind a proxy


@pytest.mark.parametrize("judged", [False, True], ids=["at once", "ordinary"])
def test_behind_a_proxy_the_clients_are_counted(judged: bool) -> None:
    server = Server(judged=judged, max_per_address=2, proxies=("10.0.0.1",))
    assert server.statuses(3, "10.0.0.1", forwarded("192.0.2.1")) == [101, 101, 429]
    assert server.statuses(1, "10.0.0.1", forwarded("192.0.2.2")) == [101]
    assert server.statuses(1, "192.0.2.1") == [429]


@pytest.mark.parametrize("judged", [False, True], ids=["at once", "ordinary"])
def test_nobody_else_is_believed(judged: bool) -> None:
    server = Server(judged=judged, max_per_address=2, proxies=("10.0.0.1",))
    opened = [server.open("10.0.0.2", forwarded(f"192.0.2.{number}")) for number in range(3)]
    assert [status(transport) for transport in opened if transport is not None] == [101, 101, 429]


def test_who_comes_through_a_unix_socket_can_be_a_proxy() -> None:
    server = Server(max_per_address=1, proxies=("unix",))
    address = UNIXAddress(None)
    opened = [server.open("", forwarded("192.0.2.1"), address=address) for _ in range(2)]
    assert [status(transport) for transport in opened if transport is not None] == [101, 429]


def test_several_headers_are_one_list() -> None:
    server = Server(max_per_address=1, proxies=("10.0.0.1",))
    fields = (forwarded("198.51.100.1"), forwarded("192.0.2.1"))
    assert server.statuses(2, "10.0.0.1", *fields) == [101, 429]
    assert server.statuses(1, "192.0.2.1") == [429]


@pytest.mark.parametrize("judged", [False, True], ids=["at once", "ordinary"])
@pytest.mark.parametrize(("client", "peer"), [("192.0.2.1", "tcp4:192.0.2.1"), ("2001:db8::1", "tcp6:2001:db8::1")])
def test_the_session_has_the_address_of_the_client(judged: bool, client: str, peer: str) -> None:
    server = Server(judged=judged, proxies=("10.0.0.1",))
    server.open("10.0.0.1", forwarded(client))
    server.open("10.0.0.2", forwarded(client))
    sessions = server.stack.server.engine.sessions
    assert {session.peer for session in sessions} == {peer, "tcp4:10.0.0.2:54321"}
    assert {session.identity.address for session in sessions} == {peer, "tcp4:10.0.0.2:54321"}


def test_those_behind_a_proxy_that_end_make_room() -> None:
    server = Server(max_per_address=1, proxies=("10.0.0.1",))
    for _ in range(3):
        transports = [server.open("10.0.0.1", forwarded("192.0.2.1")) for _ in range(2)]
        assert [status(transport) for transport in transports if transport is not None] == [101, 429]
        for transport in transports:
            lose(transport)
        assert server.is_empty


class Slow:
    """An authenticator that answers when the test says so."""

    timeout = None
    challenges = ()
    secret_parameters: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.asked: list[tuple[LoginAttempt, Deferred[Any]]] = []

    def authenticate(self, attempt: LoginAttempt) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.asked.append((attempt, answer))
        return answer


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def guarded(slow: Slow) -> Server:
    clock = Clock()
    authenticator: Any = slow
    gate = Gate([authenticator], clock=clock, allow_anonymous=False, login_timeout=0)
    return Server(max_per_address=1, proxies=("10.0.0.1",), gate=gate)


def test_who_waits_for_an_authenticator_counts(guarded: Server, slow: Slow) -> None:
    first = guarded.open("10.0.0.1", forwarded("192.0.2.1"))
    second = guarded.open("10.0.0.1", forwarded("192.0.2.1"))
    assert first is not None and second is not None
    assert (first.value(), status(second)) == (b"", 429)
    assert guarded.admission.pending == 2
    (attempt, answer) = slow.asked[0]
    assert attempt.address == "tcp4:192.0.2.1"
    answer.callback(attempt.identify("jack"))
    assert status(first) == 101
    assert guarded.admission.pending == 1  # the refused one has yet to end


def test_who_is_not_let_in_makes_room(guarded: Server, slow: Slow) -> None:
    first = guarded.open("10.0.0.1", forwarded("192.0.2.1"))
    slow.asked[0][1].errback(Refused(401, "no"))
    assert first is not None and status(first) == 401
    lose(first)
    assert guarded.is_empty


# No WebSocket yet


def test_those_that_are_no_websocket_are_bounded_in_number() -> None:
    server = Server(max_pending=2)
    first = server.connect("192.0.2.1")
    assert server.connect("127.0.0.1") is not None
    assert server.connect("192.0.2.3") is None
    lose(first)
    assert server.connect("192.0.2.3") is not None


@pytest.mark.parametrize("judged", [False, True], ids=["at once", "ordinary"])
def test_a_websocket_is_not_pending_any_more(judged: bool) -> None:
    server = Server(judged=judged, max_pending=1)
    transports = [server.open() for _ in range(3)]
    assert [status(transport) for transport in transports if transport is not None] == [101] * 3
    assert server.admission.pending == 0
    for transport in transports:
        lose(transport)
    assert server.is_empty


def test_a_factory_without_our_site_counts_as_well() -> None:
    server = Server(max_per_address=1)
    server.stack.site = Site(server.stack.root, reactor=server.clock)
    server.stack.site.admission = None  # type: ignore[attr-defined]
    transports = [server.open() for _ in range(2)]
    assert [status(transport) for transport in transports if transport is not None] == [101, 429]
    for transport in transports:
        lose(transport)
    assert server.is_empty


def test_leaving_twice_is_leaving_once() -> None:
    admission = Admission(Clock(), max_per_address=5)
    places: list[Place] = [admission.enter(tcp("192.0.2.1")) for _ in range(2)]
    places[0].leave()
    places[0].leave()
    assert admission._connections == {"192.0.2.1": 1}
    assert admission.pending == 1


# The log


def test_a_flood_is_a_line_in_ten_seconds(lines: list[str]) -> None:
    server = Server(max_per_address=1)
    server.statuses(100)
    why = "too many of one address (--max-per-address; if it is a proxy, name it with --trusted-proxy)"
    told = "status 429, too many connections of your address"
    assert lines == [f"warn: refusing connections, such as that of tcp4:192.0.2.1:54321: {told}"]
    server.clock.advance(10)
    assert lines[1:] == [
        f"warn: refused 15 more connections within 10 s: {told}",
        f"warn: refused 83 more connections within 10 s: {why}",
    ]
    server.clock.advance(10)
    assert lines[3:] == ["info: no connection was refused for 10 s"]
    assert server.clock.getDelayedCalls() == []
    assert dict(server.admission.refused) == {told: 16, why: 83}


def test_too_many_websockets_in_all_are_a_line_as_well(lines: list[str]) -> None:
    server = Server()
    server.stack.factory.setProtocolOptions(maxConnections=1)
    assert server.statuses(50) == [101, *[503] * 49]
    told = "status 503, maximum number of connections reached"
    assert [line for line in lines if "refus" in line] == [
        f"warn: refusing connections, such as that of tcp4:192.0.2.1:54321: {told}"
    ]


def test_reasons_are_bounded_in_number() -> None:
    admission = Admission(Clock())
    for number in range(100):
        admission.refuse("x", f"reason {number}")
    assert len(admission.refused) == 17
    assert admission.refused["other reasons"] == 84


def test_a_server_that_stops_reports_no_more() -> None:
    clock = Clock()
    admission = Admission(clock)
    admission.refuse("x", "y")
    admission.stop()
    admission.stop()
    assert clock.getDelayedCalls() == []
