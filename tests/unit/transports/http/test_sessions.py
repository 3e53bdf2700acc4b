"""lhttp_tx.transports.http.sessions: secrets, and how many sessions there are."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from lhttp_tx.errors import Refused
from lhttp_tx.guard.admission import Admission, Seat
from lhttp_tx.transports.http.sessions import node_of
from unit.transports.http._stack import Node

pytestmark = pytest.mark.usefixtures("clock")


def test_a_secret_finds_its_session_and_names_the_node() -> None:
    node = Node()
    one, two = node.begin(), node.begin()
    assert node.sessions.find(node.sessions.secret_of(one)) is one
    assert node.sessions.find(node.sessions.secret_of(two)) is two
    assert node_of(node.sessions.secret_of(one)) == node.server.assembly.nodes.name


def test_secrets_share_nothing_but_the_node() -> None:
    node = Node()
    parts = [node.sessions.secret_of(node.begin()).split(".") for _ in range(50)]
    assert [len({part[index] for part in parts}) for index in range(3)] == [1, 50, 50]


def test_a_wrong_secret_finds_nothing() -> None:
    node = Node()
    secret = node.sessions.secret_of(node.begin())
    other = node.sessions.secret_of(node.begin())
    mixed = secret.rpartition(".")[0] + "." + other.rpartition(".")[2]
    for wrong in (mixed, secret[:-1], secret + "x", secret.upper(), "", "é" * 66, secret[:-1] + "é", secret + "\n"):
        with pytest.raises(Refused) as caught:
            node.sessions.find(wrong)
        assert caught.value.status == 404


def test_sessions_count_as_connections() -> None:
    node = Node()
    node.factory.maxConnections = 2
    node.begin()
    client = node.begin()
    with pytest.raises(Refused) as caught:
        node.sessions.check()
    assert caught.value.status == 503
    client.end()
    client.end()
    node.sessions.check()


def test_a_session_is_pending_until_it_is_fetched() -> None:
    node = Node()
    node.admission._max_pending = 2
    first, second = node.begin(), node.begin()
    with pytest.raises(Refused) as caught:
        node.admission.check_pending()
    assert caught.value.status == 503
    node.fetch(second)
    node.begin()
    node.clock.advance(2)
    node.admission.check_pending()  # the first has had its time
    assert len(node.sessions) == 2
    with pytest.raises(Refused):
        node.fetch(first)
    node.fetch(second)


def test_a_session_counts_for_its_address_and_lets_it_have_two_connections_more() -> None:
    admission = Admission(Clock(), max_per_address=1)
    address = IPv4Address("TCP", "192.0.2.1", 1)
    places = [admission.enter(address)]
    places[0].check({})
    seat = Seat(places[0])
    seat.take()
    with pytest.raises(Refused):
        places[0].check({})
    while admission.admits(address):
        places.append(admission.enter(address))
    count = len(places)
    seat.leave()
    places.pop().leave()
    assert not admission.admits(address)
    places.pop().leave()
    assert not admission.admits(address)
    places.pop().leave()
    assert admission.admits(address)
    assert count == 1 + 16 + 2
    places[0].check({})


def test_a_connection_that_waits_for_a_session_is_not_pending() -> None:
    admission = Admission(Clock(), max_pending=5)
    place = admission.enter(None)
    place.watch(lambda: None)
    place.suspend()
    place.suspend()
    assert admission.pending == 0
    assert not admission.make_room()
    place.resume()
    place.resume()
    assert admission.pending == 1
    place.suspend()
    place.leave()
    place.resume()
    assert admission.pending == 0
