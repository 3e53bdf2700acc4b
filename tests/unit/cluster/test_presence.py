"""Presence: who is in a channel, and what counts as coming and going."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.cluster.presence import GRACE, Presence
from lhttp_tx.cluster.roster import Roster


class Node:
    """One node with its roster, and the events of its presence."""

    def __init__(self, bus: MemoryBus, clock: Clock) -> None:
        self.clock = clock
        self.nodes = Nodes(bus, clock)
        self.roster = Roster(self.nodes, clock)
        self.presence = Presence(self.roster, clock)
        self.events: list[tuple[Any, ...]] = []
        self.presence.on_event.append(lambda *event: self.events.append(event))
        self.nodes.start()

    def join(self, connection: str, user: str | None, since: float = 1.0) -> None:
        self.roster.enter(connection, user, since)
        self.roster.join(connection, "room")
        self.clock.advance(0.1)

    def exit(self, connection: str) -> None:
        self.roster.exit(connection)
        self.clock.advance(0.1)


@pytest.fixture
def nodes() -> tuple[Node, Node]:
    bus, clock = MemoryBus(), Clock()
    return Node(bus, clock), Node(bus, clock)


def test_people_are_listed_with_their_connections(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.join("a", "alice", 1.0)
    two.join("b", "bob", 2.0)
    two.join("c", "alice", 3.0)
    one.join("d", None, 4.0)
    for node in nodes:
        assert node.presence.people("room") == [
            {"user": "alice", "connections": ["a", "c"]},
            {"user": "bob", "connections": ["b"]},
            {"user": None, "connections": ["d"]},
        ]
        assert node.presence.count("room") == (3, 4)


def test_an_empty_channel_has_nobody(nodes: tuple[Node, Node]) -> None:
    assert nodes[0].presence.people("room") == []
    assert nodes[0].presence.count("room") == (0, 0)


def test_coming_is_told_on_every_node_once(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.join("a", "alice")
    two.join("b", "alice")
    assert one.events == two.events == [("join", "room", "alice", "a")]


def test_going_is_told_after_the_grace(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.join("a", "alice")
    one.exit("a")
    one.clock.advance(GRACE - 0.2)
    assert [event[0] for event in two.events] == ["join"]
    one.clock.advance(0.2)
    assert two.events == [("join", "room", "alice", "a"), ("leave", "room", "alice", "a")]


def test_a_page_that_is_loaded_again_has_not_left(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.join("a", "alice")
    one.exit("a")
    one.clock.advance(GRACE / 2)
    two.join("b", "alice")
    one.clock.advance(10 * GRACE)
    for node in nodes:
        assert [event[0] for event in node.events] == ["join"]


def test_one_of_two_connections_that_ends_is_no_leaving(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.join("a", "alice")
    two.join("b", "alice")
    one.exit("a")
    one.clock.advance(10 * GRACE)
    assert [event[0] for event in two.events] == ["join"]


def test_anonymous_connections_are_different_people(nodes: tuple[Node, Node]) -> None:
    one, _ = nodes
    one.join("a", None)
    one.join("b", None)
    assert one.events == [("join", "room", None, "a"), ("join", "room", None, "b")]


def test_nothing_is_told_after_the_end(nodes: tuple[Node, Node]) -> None:
    one, _ = nodes
    one.join("a", "alice")
    one.exit("a")
    one.presence.stop()
    one.clock.advance(10 * GRACE)
    assert [event[0] for event in one.events] == ["join"]


def test_who_comes_back_is_told_if_a_list_was_given_in_the_meantime(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.join("a", "alice")
    one.join("b", "bob")
    one.exit("a")
    two.presence.listed("room")
    one.clock.advance(0.1)
    one.exit("b")
    one.join("c", "bob")
    one.join("d", "alice")
    assert [event[:3] for event in two.events[2:]] == [("join", "room", "alice")], "bob left after the list"
    assert len(one.events) == 2, "no list was given on this node"
    one.clock.advance(GRACE)
    assert len(two.events) == 3


def test_nothing_is_kept_of_those_who_have_left(nodes: tuple[Node, Node]) -> None:
    one, _ = nodes
    presence = one.presence
    presence.listed("room")
    assert not presence._listed
    for connection in ("a", "b"):
        one.join(connection, "alice")
        one.exit(connection)
        presence.listed("room")
    one.clock.advance(GRACE)
    assert not presence._leaving and not presence._listed
