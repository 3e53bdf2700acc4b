"""
lhttp_tx.upstream.client and lhttp_tx.upstream.addresses: what is connected to, and which failures rule a backend out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.errors import UpstreamDown, UpstreamError, UpstreamForbidden, UpstreamTimeout
from lhttp_tx.upstream.client import UpstreamClient, UpstreamResponse
from lhttp_tx.upstream.targets import Target, TargetPolicy

URL = "http://backend.example/x"
PUBLIC = "8.8.8.8"
HEAD = b"HTTP/1.1 200 OK\r\n"


@implementer(IHostnameResolver)
class Resolver:
    """Gives the answers that a test put in, one for each question; the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[Sequence[str]] = [[PUBLIC]]

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0, *_: object, **__: object) -> None:
        receiver.resolutionBegan(None)
        for host in self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]:
            kind = IPv6Address if ":" in host else IPv4Address
            receiver.addressResolved(kind("TCP", host, portNumber))
        receiver.resolutionComplete()


@implementer(IReactorPluggableNameResolver)
class Reactor(MemoryReactorClock):
    """A reactor whose connections are made, or fail, when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = Resolver()

    def hosts(self) -> list[str]:
        """Return the addresses that were connected to."""
        return [client[0] for client in self.tcpClients]

    def refuse(self, why: Exception | None = None) -> None:
        """Let the last connection fail."""
        self.tcpClients[-1][2].clientConnectionFailed(None, Failure(why or error.ConnectionRefusedError()))
        self.advance(0.3)  # the endpoint waits a little between two addresses

    def connect(self) -> Any:
        """Let the last connection be made; return its protocol."""
        protocol = self.tcpClients[-1][2].buildProtocol(None)
        protocol.makeConnection(Transport(protocol))
        return protocol


class Transport(StringTransport):
    """A transport that tells its protocol of its end, as a real one does."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._protocol = protocol

    def loseConnection(self) -> None:
        if self.connected:
            self.connected = False
            self._protocol.connectionLost(Failure(error.ConnectionLost()))

    abortConnection = loseConnection


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def client(reactor: Reactor) -> Iterator[Callable[..., UpstreamClient]]:
    """Makes clients that rule a backend out at the second failure."""
    made: list[UpstreamClient] = []

    def make(*, public_only: bool = False, max_failures: int = 2) -> UpstreamClient:
        policy = TargetPolicy([URL, "http://other.example/"], public_only=public_only)
        made.append(UpstreamClient(reactor=reactor, policy=policy, max_failures=max_failures))
        return made[-1]

    yield make
    assert [found._in_flight for found in made] == [0] * len(made)


def ask(client: UpstreamClient, url: str = URL, *, want_body: bool = True) -> Deferred[UpstreamResponse]:
    return client.request("GET", Target.parse(url), b"", binary=False, want_body=want_body)


def error_of(answer: Deferred[Any]) -> BaseException:
    """Return what *answer* has failed with."""
    found: list[Failure] = []
    answer.addErrback(found.append)
    assert found, "there is no failure yet"
    return found[0].value


def result_of(answer: Deferred[Any]) -> Any:
    """Return what *answer* has succeeded with."""
    found: list[Any] = []
    answer.addCallback(found.append)
    assert found, "there is no result yet"
    return found[0]


def is_ruled_out(client: UpstreamClient, url: str = URL) -> bool:
    try:
        answer = ask(client, url)
    except UpstreamDown:
        return True
    answer.addErrback(lambda failure: failure.trap(CancelledError, UpstreamError))
    answer.cancel()
    return False


# Addresses


def test_only_the_allowed_addresses_of_a_name_are_connected_to(
    reactor: Reactor, client: Callable[..., UpstreamClient]
) -> None:
    reactor.nameResolver.answers = [["169.254.169.254", "224.0.0.1", PUBLIC, "::ffff:169.254.169.254"]]
    answer = ask(client())
    reactor.refuse()
    assert isinstance(error_of(answer), UpstreamError)
    assert reactor.hosts() == [PUBLIC]


def test_a_name_without_an_allowed_address_is_forbidden(
    reactor: Reactor, client: Callable[..., UpstreamClient]
) -> None:
    reactor.nameResolver.answers = [["127.0.0.1", "10.0.0.1", "::1", "fd00::1"]]
    assert isinstance(error_of(ask(client(public_only=True))), UpstreamForbidden)
    assert reactor.hosts() == []


def test_a_name_that_answers_differently_the_second_time_gains_nothing(
    reactor: Reactor, client: Callable[..., UpstreamClient]
) -> None:
    reactor.nameResolver.answers = [[PUBLIC], ["127.0.0.1"]]
    made = client(public_only=True)
    first = ask(made)
    reactor.refuse()
    error_of(first)
    assert isinstance(error_of(ask(made)), UpstreamForbidden)
    assert reactor.hosts() == [PUBLIC]


def test_a_name_that_is_not_found_is_an_error(reactor: Reactor, client: Callable[..., UpstreamClient]) -> None:
    reactor.nameResolver.answers = [[]]
    found = error_of(ask(client()))
    assert (type(found), str(found)) == (UpstreamError, "upstream request failed")


# What rules a backend out


def refused(reactor: Reactor, answer: Deferred[Any]) -> None:
    reactor.refuse()
    assert type(error_of(answer)) is UpstreamError


def not_answered_in_time(reactor: Reactor, answer: Deferred[Any]) -> None:
    reactor.connect()
    reactor.advance(10)
    assert type(error_of(answer)) is UpstreamTimeout


def not_connected_in_time(reactor: Reactor, answer: Deferred[Any]) -> None:
    reactor.advance(10)
    assert type(error_of(answer)) is UpstreamTimeout


def closed_before_the_head(reactor: Reactor, answer: Deferred[Any]) -> None:
    connection = reactor.connect()
    connection.dataReceived(HEAD)
    connection.transport.loseConnection()
    assert type(error_of(answer)) is UpstreamError


def answered_with_nonsense(reactor: Reactor, answer: Deferred[Any]) -> None:
    reactor.connect().dataReceived(b"220 mail.example ESMTP\r\n")
    assert type(error_of(answer)) is UpstreamError


def answered_with_an_endless_head(reactor: Reactor, answer: Deferred[Any]) -> None:
    connection = reactor.connect()
    connection.dataReceived(HEAD)
    for number in range(70):
        if connection.transport.connected:
            connection.dataReceived(b"x-%d: %s\r\n" % (number, b"x" * 1000))
    assert not connection.transport.connected
    assert str(error_of(answer)) == "upstream answered with a head of more than 65536 bytes"


def answered_with_endless_interim_answers(reactor: Reactor, answer: Deferred[Any]) -> None:
    connection = reactor.connect()
    for _ in range(70):
        if connection.transport.connected:
            connection.dataReceived(b"HTTP/1.1 103 Early\r\nlink: %s\r\n\r\n" % (b"x" * 1000))
    assert not connection.transport.connected
    assert str(error_of(answer)) == "upstream answered with a head of more than 65536 bytes"


@pytest.mark.parametrize(
    "happen",
    [
        refused,
        not_answered_in_time,
        not_connected_in_time,
        closed_before_the_head,
        answered_with_nonsense,
        answered_with_an_endless_head,
        answered_with_endless_interim_answers,
    ],
)
def test_without_the_head_of_an_answer_it_is_a_failure(
    reactor: Reactor, client: Callable[..., UpstreamClient], happen: Callable[[Reactor, Deferred[Any]], None]
) -> None:
    made = client()
    happen(reactor, ask(made))
    assert not is_ruled_out(made)
    happen(reactor, ask(made))
    assert is_ruled_out(made)


def test_a_name_that_is_not_found_is_a_failure(reactor: Reactor, client: Callable[..., UpstreamClient]) -> None:
    reactor.nameResolver.answers = [[]]
    made = client()
    for _ in range(2):
        error_of(ask(made))
    assert is_ruled_out(made)


def answered(status: bytes) -> Callable[[Reactor, Deferred[Any]], None]:
    def happen(reactor: Reactor, answer: Deferred[Any]) -> None:
        reactor.connect().dataReceived(
            b"HTTP/1.1 " + status + b" Status\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        assert result_of(answer).status == int(status)

    return happen


def answered_with_too_much(reactor: Reactor, answer: Deferred[Any]) -> None:
    connection = reactor.connect()
    connection.dataReceived(HEAD + b"Connection: close\r\n\r\n")
    for _ in range(3):
        connection.dataReceived(bytes(30_000))
    assert str(error_of(answer)) == "upstream answered with more than 65536 bytes"


def closed_within_the_body(reactor: Reactor, answer: Deferred[Any]) -> None:
    connection = reactor.connect()
    connection.dataReceived(HEAD + b"Content-Length: 10\r\n\r\nhalf")
    connection.transport.loseConnection()
    assert str(error_of(answer)) == "upstream broke off its answer"


def too_slow_within_the_body(reactor: Reactor, answer: Deferred[Any]) -> None:
    reactor.connect().dataReceived(HEAD + b"Content-Length: 10\r\n\r\nhalf")
    reactor.advance(10)
    assert type(error_of(answer)) is UpstreamTimeout


def cancelled_by_the_caller(reactor: Reactor, answer: Deferred[Any]) -> None:
    reactor.connect()
    answer.cancel()
    error_of(answer)


def no_socket_on_our_side(reactor: Reactor, answer: Deferred[Any]) -> None:
    reactor.refuse(error.ConnectBindError(24, "Too many open files"))
    assert type(error_of(answer)) is UpstreamError


@pytest.mark.parametrize(
    "happen",
    [
        answered(b"200"),
        answered(b"302"),
        answered(b"404"),
        answered(b"500"),
        answered(b"503"),
        answered_with_too_much,
        closed_within_the_body,
        too_slow_within_the_body,
        cancelled_by_the_caller,
        no_socket_on_our_side,
    ],
)
def test_anything_else_is_none(
    reactor: Reactor, client: Callable[..., UpstreamClient], happen: Callable[[Reactor, Deferred[Any]], None]
) -> None:
    made = client()
    for _ in range(4):
        happen(reactor, ask(made))
    assert not is_ruled_out(made)


def test_a_refused_address_is_none(reactor: Reactor, client: Callable[..., UpstreamClient]) -> None:
    reactor.nameResolver.answers = [["169.254.169.254"]]
    made = client()
    for _ in range(4):
        error_of(ask(made))
    assert isinstance(error_of(ask(made)), UpstreamForbidden)


def test_a_backend_that_is_ruled_out_is_not_connected_to(
    reactor: Reactor, client: Callable[..., UpstreamClient]
) -> None:
    made = client()
    for _ in range(2):
        refused(reactor, ask(made))
    for _ in range(10):
        with pytest.raises(UpstreamDown):
            ask(made)
    assert len(reactor.hosts()) == 2


def test_other_backends_are_asked_all_the_same(reactor: Reactor, client: Callable[..., UpstreamClient]) -> None:
    made = client()
    for _ in range(2):
        refused(reactor, ask(made))
    assert is_ruled_out(made)
    assert not is_ruled_out(made, "http://other.example/")


def test_a_backend_that_works_again_is_asked_again(reactor: Reactor, client: Callable[..., UpstreamClient]) -> None:
    made = client()
    for _ in range(2):
        refused(reactor, ask(made))
    reactor.advance(10)
    answered(b"500")(reactor, ask(made))
    answered(b"200")(reactor, ask(made))


def test_the_head_of_a_second_answer_is_counted_by_itself(
    reactor: Reactor, client: Callable[..., UpstreamClient]
) -> None:
    made = client()
    first = ask(made)
    connection = reactor.connect()
    head = HEAD + b"".join(b"x-%d: %s\r\n" % (number, b"x" * 1000) for number in range(40))
    connection.dataReceived(head + b"Content-Length: 0\r\n\r\n")
    assert result_of(first).status == 200
    second = ask(made)
    connection.dataReceived(head + b"Content-Length: 0\r\n\r\n")
    assert result_of(second).status == 200
    assert len(reactor.hosts()) == 1
    made.close()
