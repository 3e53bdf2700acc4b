"""What a node asks the others: whether they pass on to it, and whether they are back."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.cluster.nodes import HELLO_INTERVAL, Nodes
from lhttp_tx.cluster.reach import Reach, connect


class Ways:
    """The ways of a bus of one process, which pretends that its nodes use several servers."""

    def __init__(self, bus: MemoryBus, server: str) -> None:
        self.others: Any = None
        self.server = server
        self.steady_for = 0.0
        self.losses = 0
        self.bus = bus
        self.asked = 0
        self.deaf = False

    def send(self, channel: str, payload: bytes, binary: bool) -> None:
        self.asked += 1
        if not self.deaf:
            self.bus.publish(channel, payload, binary)

    def urge(self, channel: str, payload: bytes, binary: bool) -> None:
        if not self.deaf:
            self.bus.publish(channel, payload, binary)


class Node:
    """One node."""

    def __init__(self, cluster: Cluster, server: str) -> None:
        self.ways = Ways(cluster.bus, server)
        self.nodes = Nodes(cluster.bus, cluster.clock)
        self.reach = Reach(self.nodes, self.ways, cluster.clock)
        self.nodes.start()

    def ask(self, server: str | None = None) -> list[bool]:
        return results(self.reach.ask(self.ways.send, server))

    def gathered(self, patience: float = 0.6) -> list[None]:
        return results(self.reach.gathered(self.ways.send, patience))


class Cluster:
    """Nodes on one bus."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.clock = Clock()

    def node(self, server: str = "a") -> Node:
        return Node(self, server)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds * 20)):
            self.clock.advance(0.05)


def results(deferred: Deferred[Any]) -> list[Any]:
    found: list[Any] = []
    deferred.addCallback(found.append)
    return found


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def silence(node: Node) -> None:
    """Let *node* hear and say nothing."""
    node.ways.deaf = True
    node.nodes.running = False


# Whether the others pass on


def test_nodes_at_the_same_server_are_not_far(cluster: Cluster) -> None:
    one, two, three = cluster.node("a"), cluster.node("a"), cluster.node("b")
    assert one.reach.far_from("a") == {three.nodes.name}
    assert three.reach.far_from("b") == {one.nodes.name, two.nodes.name}


def test_a_node_that_moves_to_another_server_says_so(cluster: Cluster) -> None:
    one, two = cluster.node("a"), cluster.node("a")
    two.ways.server = "b"
    cluster.advance(HELLO_INTERVAL + 0.1)
    assert one.reach.far_from("a") == {two.nodes.name}


def test_nobody_is_asked_where_there_is_nobody(cluster: Cluster) -> None:
    one = cluster.node()
    assert one.ask() == [True] and one.ways.asked == 0


def test_all_answer(cluster: Cluster) -> None:
    one, _, _ = cluster.node("a"), cluster.node("b"), cluster.node("c")
    assert one.ask() == [True] and one.ways.asked == 1
    assert not one.reach._questions


def test_it_cannot_be_known_where_one_does_not_answer(cluster: Cluster) -> None:
    one, two, _ = cluster.node("a"), cluster.node("b"), cluster.node("c")
    silence(two)
    found = one.ask()
    cluster.advance(3.9)
    assert found == []
    cluster.advance(0.5)
    assert found == [False] and not one.reach._questions


def test_one_of_the_nodes_at_a_server_is_enough(cluster: Cluster) -> None:
    one, two, _ = cluster.node("a"), cluster.node("b"), cluster.node("b")
    silence(two)
    found = one.ask()
    cluster.advance(4.1)
    assert found == [True]


def test_one_that_leaves_need_not_answer(cluster: Cluster) -> None:
    one, two = cluster.node("a"), cluster.node("b")
    two.ways.deaf = True
    found = one.ask()
    assert found == []
    two.nodes.stop()
    assert found == [True]


def test_a_question_is_asked_again(cluster: Cluster) -> None:
    one, two = cluster.node("a"), cluster.node("b")
    two.ways.deaf = True
    found = one.ask()
    two.ways.deaf = False
    cluster.advance(0.6)
    assert found == [True] and one.ways.asked == 2
    cluster.advance(5.0)
    assert one.ways.asked == 2


def test_a_node_of_an_older_version_is_not_waited_for_and_nothing_is_known(cluster: Cluster) -> None:
    one = cluster.node("a")
    Nodes(cluster.bus, cluster.clock).start()
    assert one.nodes.others
    assert one.ask() == [False]
    assert one.gathered(0.0) == [None]


def test_those_who_ask_together_are_one_question(cluster: Cluster) -> None:
    one, _ = cluster.node("a"), cluster.node("b")
    send = one.ways.send
    found = [results(one.reach.ask_soon(send, "a")) for _ in range(100)]
    assert one.ways.asked == 0
    cluster.advance(0.05)
    assert (found, one.ways.asked) == ([[True]] * 100, 1)


def test_those_who_ask_over_different_links_are_two(cluster: Cluster) -> None:
    one, _ = cluster.node("a"), cluster.node("b")
    other = Ways(cluster.bus, "a")
    found = [results(one.reach.ask_soon(send, "a")) for send in (one.ways.send, other.send)]
    cluster.advance(0.05)
    assert (found, one.ways.asked, other.asked) == ([[True]] * 2, 1, 1)


# Whether they are back


def test_a_first_node_waits_for_a_moment_whether_anybody_answers(cluster: Cluster) -> None:
    found = cluster.node().gathered(0.6)
    cluster.advance(0.5)
    assert found == []
    cluster.advance(0.5)
    assert found == [None]


def test_a_node_that_joins_nodes_that_were_never_away_does_not_wait(cluster: Cluster) -> None:
    one = cluster.node()
    one.ways.steady_for = 60.0
    two = cluster.node()
    ghost = cluster.node()
    silence(ghost)
    new = Node(cluster, "a")
    found = new.gathered()
    cluster.advance(1.2)
    assert found == [None] and two.nodes.others


def test_a_new_node_waits_for_those_that_the_others_know(cluster: Cluster) -> None:
    one, slow = cluster.node(), cluster.node()
    silence(slow)
    new = Node(cluster, "a")
    assert (slow.nodes.name in one.nodes.others) and (slow.nodes.name not in new.nodes.others)
    found = new.gathered()
    cluster.advance(2.0)
    assert found == []
    slow.ways.deaf, slow.nodes.running = False, True
    cluster.advance(0.5)
    assert found == [None]


def test_a_node_that_does_not_come_back_is_waited_for_four_seconds(cluster: Cluster) -> None:
    one, gone = cluster.node(), cluster.node()
    silence(gone)
    found = one.gathered(0.0)
    cluster.advance(3.9)
    assert found == []
    cluster.advance(0.3)
    assert found == [None]


def test_it_is_waited_for_a_second_where_others_were_never_away(cluster: Cluster) -> None:
    one, gone, calm = cluster.node(), cluster.node(), cluster.node()
    calm.ways.steady_for = 60.0
    silence(gone)
    found = one.gathered(0.0)
    cluster.advance(0.9)
    assert found == []
    cluster.advance(0.5)
    assert found == [None]


def test_a_bus_that_does_not_want_to_know_is_left_alone(cluster: Cluster) -> None:
    connect(Nodes(cluster.bus, cluster.clock), cluster.bus, cluster.clock)
    assert not hasattr(cluster.bus, "ways")
