"""lhttp_tx.transports.http.relay: a client comes to any node."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from lhttp_tx import Message
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.errors import MessageTooLarge
from lhttp_tx.transports.http.relay import LONGEST_WAIT, Relay
from unit.transports.http._stack import Node, outcome, texts

pytestmark = pytest.mark.usefixtures("clock")


class Cluster:
    """
    Two nodes.

    :ivar home: has a session.
    :ivar away: the other one.
    """

    def __init__(self) -> None:
        self.home = Node(bus=MemoryBus())
        self.away = Node(beside=self.home)
        for node in (self.home, self.away):
            node.server.assembly.join()
        self.clock = self.home.clock
        self.clock.advance(2)
        self.relays = [Relay(node.sessions, node.server.assembly.nodes) for node in (self.home, self.away)]
        self.session = self.home.begin()
        self.secret = self.home.sessions.secret_of(self.session)

    def fetch(self, after: int = 0, *, wait: float = 0.0, begins: bool = True, at: int = 1) -> Deferred[Any]:
        return self.relays[at].fetch(self.secret, "f", after, wait=wait, begins=begins)

    def send(self, *messages: Message, number: int | None = None, at: int = 1) -> Any:
        runs = [([message.raw], message.binary) for message in messages]
        return outcome(self.relays[at].send(self.secret, runs, number, 0, 0))


class SmallBus(MemoryBus):
    """Takes no large messages."""

    def publish(self, channel: str, payload: bytes, binary: bool) -> None:
        if len(payload) > 1000:
            raise MessageTooLarge("larger than the limit of the bus")


SUBSCRIBE = Message("x", [("subscribe", "room"), ("receipt", "r")])


@pytest.mark.parametrize("at", [0, 1], ids=["home", "away"])
def test_a_client_sends_and_fetches_at_any_node(at: int) -> None:
    cluster = Cluster()
    cluster.send(SUBSCRIBE, Message("chat", [("publish", "room")], "hällo\u2028"), number=1, at=at)
    cluster.send(Message("chat", [("publish", "room")], b"\xff", binary=True), number=2, at=at)
    fetched = outcome(cluster.fetch(at=at))
    receipt, text, binary = texts(fetched)
    assert "receipt-id:r" in receipt
    assert text.endswith("hällo\u2028")
    assert isinstance(binary, dict)
    assert (fetched.last, fetched.over) == (3, False)


def test_a_request_waits_at_another_node() -> None:
    cluster = Cluster()
    cluster.send(SUBSCRIBE)
    waiting = cluster.fetch(1, wait=LONGEST_WAIT)
    outcome(cluster.fetch(0, at=0))
    waiting.addErrback(lambda _: None)
    waiting = cluster.fetch(1, wait=LONGEST_WAIT)
    cluster.away.publish("room", "hello")
    assert not waiting.called
    cluster.home.turn()
    assert texts(outcome(waiting))[0].endswith("hello")


def test_a_number_counts_at_all_nodes() -> None:
    cluster = Cluster()
    for at in (1, 0, 1):
        assert cluster.send(SUBSCRIBE, number=1, at=at) is None
    assert cluster.send(SUBSCRIBE, number=3) == 409
    assert len(outcome(cluster.fetch()).entries) == 1


def test_the_newest_request_fetches_whatever_its_node() -> None:
    cluster = Cluster()
    waiting = cluster.fetch(wait=20)
    cluster.relays[0].fetch(cluster.secret, "other", 0, wait=20, begins=True)
    assert outcome(waiting) == 409
    assert outcome(cluster.fetch(begins=False)) == 409


def test_a_client_ends_its_session_at_another_node() -> None:
    cluster = Cluster()
    assert outcome(cluster.relays[1].end(cluster.secret)) is None
    assert len(cluster.home.sessions) == 0
    assert outcome(cluster.fetch()) == outcome(cluster.fetch(at=0)) == cluster.send(SUBSCRIBE) == 404


@pytest.mark.parametrize("secret", ["", "x", "0" * 16 + "." + "0" * 16 + "." + "a" * 32])
@pytest.mark.parametrize("at", [0, 1])
def test_a_secret_of_nobody_is_refused(secret: str, at: int) -> None:
    cluster = Cluster()
    cluster.secret = secret
    assert outcome(cluster.fetch(at=at)) == outcome(cluster.relays[at].end(secret)) == 404


def test_a_wrong_key_is_refused_by_the_node_that_knows() -> None:
    cluster = Cluster()
    cluster.secret = cluster.secret[:-32] + "a" * 32
    assert outcome(cluster.fetch()) == 404
    assert len(cluster.home.sessions) == 1


def test_a_node_that_does_not_answer_is_not_waited_for() -> None:
    cluster = Cluster()
    cluster.home.server.assembly.nodes._handlers["http"] = lambda sender, data: Deferred()
    waiting = cluster.fetch(wait=5)
    cluster.clock.advance(14)
    assert not waiting.called
    cluster.clock.advance(1)
    assert outcome(waiting) == 504


def test_what_the_bus_cannot_carry_is_refused_and_makes_no_noise(failures: list[Any]) -> None:
    cluster = Cluster()
    cluster.away.server.assembly.nodes._bus = SmallBus()
    message = Message("chat", [("publish", "room")], "x" * 1000)
    sending = cluster.relays[1].send(cluster.secret, [([message.raw], False)], 1, 0, 0)
    assert outcome(sending) == 413
    assert failures == []


def test_a_node_that_leaves_has_no_sessions() -> None:
    cluster = Cluster()
    cluster.home.server.assembly.nodes._handlers["http"] = lambda sender, data: Deferred()
    waiting = cluster.fetch(wait=20)
    cluster.home.server.assembly.nodes.stop()
    assert outcome(waiting) == 404
    assert outcome(cluster.fetch()) == 404


def test_a_client_that_hangs_up_does_no_harm() -> None:
    cluster = Cluster()
    waiting = cluster.fetch(wait=20)
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    cluster.send(SUBSCRIBE)
    cluster.home.turn()
    assert len(outcome(cluster.fetch()).entries) == 1


def test_nonsense_of_another_node_is_answered(failures: list[Any]) -> None:
    cluster = Cluster()
    nodes = cluster.away.server.assembly.nodes
    answer = outcome(nodes.ask(cluster.home.sessions.name, "http", {"do": "dance"}, 2.0))
    assert answer == {"status": 500, "reason": "internal error"}
    assert len(failures) == 1
    failures.clear()
