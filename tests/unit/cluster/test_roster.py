"""The roster: every node knows who is connected to which, also after messages were lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from twisted.internet.task import Clock

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.cluster.nodes import DEAD_AFTER, HELLO_INTERVAL, Nodes
from lhttp_tx.cluster.roster import Entry, Roster
from lhttp_tx.errors import BusUnavailable


class LossyBus(MemoryBus):
    """A bus that loses what is published while it is told to, or refuses it."""

    losing = False
    away = False

    def publish(self, channel: str, payload: bytes, binary: bool) -> None:
        if self.away:
            raise BusUnavailable("away")
        if not self.losing:
            super().publish(channel, payload, binary)


def find(roster: Roster, connection: str) -> Entry | None:
    return next((entries[connection] for entries in roster._entries.values() if connection in entries), None)


class Node:
    """One node with its roster."""

    def __init__(self, bus: LossyBus, clock: Clock) -> None:
        self.nodes = Nodes(bus, clock)
        self.roster = Roster(self.nodes, clock)
        self.joined: dict[str, list[Entry]] = {}
        self.roster.on_join.append(lambda entry, channel: self.joined.setdefault(channel, []).append(entry))
        self.roster.on_leave.append(lambda entry, channel: self.joined[channel].remove(entry))
        self.nodes.start()

    def crash(self, bus: LossyBus) -> None:
        assert self.nodes._timer is not None
        self.nodes._timer.cancel()
        for channel in ("$nodes", f"$node.{self.nodes.name}"):
            bus.unsubscribe(channel, self.nodes._receive)

    def members(self, channel: str) -> list[str]:
        found = sorted(self.joined.get(channel, ()), key=lambda entry: entry.age)
        assert self.roster.size(channel) == len(found)
        return [entry.connection for entry in found]

    def connections(self, user: str) -> list[str]:
        found = self.roster.beyond(user, 0)
        assert self.roster.newest(user) is (found[-1] if found else None)
        return [entry.connection for entry in found]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bus() -> LossyBus:
    return LossyBus()


def settle(clock: Clock) -> None:
    clock.pump([0.1] * int(10 * HELLO_INTERVAL + 2))


def test_connections_of_every_node_are_known_everywhere(bus: LossyBus, clock: Clock) -> None:
    one, two = Node(bus, clock), Node(bus, clock)
    one.roster.enter("a", "alice", 1.0)
    two.roster.enter("b", "alice", 2.0)
    clock.advance(0.1)
    assert one.connections("alice") == two.connections("alice") == ["a", "b"]
    found = find(one.roster, "b")
    assert found is not None
    assert (found.node, found.user, found.since) == (two.nodes.name, "alice", 2.0)


def test_members_of_a_channel_are_known_everywhere(bus: LossyBus, clock: Clock) -> None:
    one, two = Node(bus, clock), Node(bus, clock)
    one.roster.enter("a", "alice", 1.0)
    one.roster.join("a", "room")
    clock.advance(0.1)
    assert two.members("room") == ["a"]
    one.roster.leave("a", "room")
    clock.advance(0.1)
    assert two.members("room") == []


def test_a_connection_that_ends_is_gone_everywhere(bus: LossyBus, clock: Clock) -> None:
    one, two = Node(bus, clock), Node(bus, clock)
    one.roster.enter("a", "alice", 1.0)
    one.roster.join("a", "room")
    clock.advance(0.1)
    one.roster.exit("a")
    clock.advance(0.1)
    for node in (one, two):
        assert (node.members("room"), node.connections("alice"), find(node.roster, "a")) == ([], [], None)


def test_a_node_that_comes_later_learns_everything(bus: LossyBus, clock: Clock) -> None:
    one = Node(bus, clock)
    for number in range(2_500):
        one.roster.enter(str(number), f"user{number}", 1.0)
        one.roster.join(str(number), "room")
    clock.advance(0.1)
    two = Node(bus, clock)
    settle(clock)
    assert len(two.members("room")) == 2_500


def test_a_node_that_dies_takes_its_connections_with_it(bus: LossyBus, clock: Clock) -> None:
    one, two = Node(bus, clock), Node(bus, clock)
    gone: list[str] = []
    one.roster.on_exit.append(lambda entry: gone.append(entry.connection))
    two.roster.enter("b", "bob", 1.0)
    two.roster.join("b", "room")
    clock.advance(0.1)
    two.crash(bus)
    clock.pump([1.0] * int(DEAD_AFTER + HELLO_INTERVAL + 1))
    assert (one.members("room"), one.connections("bob"), gone) == ([], [], ["b"])


def test_a_node_that_stops_takes_its_connections_with_it_at_once(bus: LossyBus, clock: Clock) -> None:
    one, two = Node(bus, clock), Node(bus, clock)
    two.roster.enter("b", "bob", 1.0)
    clock.advance(0.1)
    two.nodes.stop()
    assert one.connections("bob") == []


@pytest.mark.parametrize("trouble", ["losing", "away"])
def test_what_was_missed_is_asked_for(bus: LossyBus, clock: Clock, trouble: str) -> None:
    one, two = Node(bus, clock), Node(bus, clock)
    one.roster.enter("a", "alice", 1.0)
    one.roster.enter("c", "carol", 1.0)
    one.roster.join("a", "room")
    clock.advance(0.1)
    setattr(bus, trouble, True)
    one.roster.exit("c")
    one.roster.enter("d", "dave", 1.0)
    one.roster.join("d", "room")
    one.roster.leave("a", "room")
    clock.advance(1.0)
    setattr(bus, trouble, False)
    settle(clock)
    assert (two.members("room"), two.connections("carol"), two.connections("alice")) == (["d"], [], ["a"])


def test_a_connection_that_logs_in_as_somebody_else_keeps_its_channels(bus: LossyBus, clock: Clock) -> None:
    one, two = Node(bus, clock), Node(bus, clock)
    one.roster.enter("a", None, 1.0)
    one.roster.join("a", "room")
    one.roster.enter("a", "alice", 2.0)
    clock.advance(0.1)
    assert two.connections("alice") == two.members("room") == ["a"]


def test_changes_are_told_in_batches(bus: LossyBus, clock: Clock) -> None:
    one, two = Node(bus, clock), Node(bus, clock)
    told: list[Any] = []
    two.nodes.handle("roster", lambda sender, data: told.append(len(data["changes"])))
    for number in range(1_500):
        one.roster.enter(str(number), None, 1.0)
    clock.advance(0.1)
    assert told == [1_000, 500]


def test_watchers_are_told_of_each_change_once(bus: LossyBus, clock: Clock) -> None:
    one, two = Node(bus, clock), Node(bus, clock)
    events: list[tuple[str, ...]] = []
    two.roster.on_enter.append(lambda entry: events.append(("enter", entry.connection)))
    two.roster.on_exit.append(lambda entry: events.append(("exit", entry.connection)))
    two.roster.on_join.append(lambda entry, channel: events.append(("join", entry.connection, channel)))
    two.roster.on_leave.append(lambda entry, channel: events.append(("leave", entry.connection, channel)))
    one.roster.enter("a", "alice", 1.0)
    one.roster.join("a", "room")
    one.roster.join("a", "room")
    one.roster.exit("a")
    one.roster.exit("a")
    settle(clock)
    assert events == [("enter", "a"), ("join", "a", "room"), ("leave", "a", "room"), ("exit", "a")]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "exit", "join", "leave", "lose", "wait"]),
        st.sampled_from("abc"),
        st.sampled_from(["x", "y"]),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_whatever_is_lost_all_nodes_agree_in_the_end(steps: list[tuple[str, str, str]]) -> None:
    clock, bus = Clock(), LossyBus()
    one, two = Node(bus, clock), Node(bus, clock)
    for kind, connection, other in steps:
        if kind == "enter":
            one.roster.enter(connection, other, 1.0)
        elif kind == "exit":
            one.roster.exit(connection)
        elif kind == "join":
            one.roster.join(connection, other)
        elif kind == "leave":
            one.roster.leave(connection, other)
        elif kind == "lose":
            bus.losing = not bus.losing
        else:
            clock.advance(0.06)
    bus.losing = False
    settle(clock)
    for name in ("x", "y"):
        assert one.members(name) == two.members(name)
        assert one.connections(name) == two.connections(name)


def test_an_entry_with_many_channels_is_told_in_parts_of_a_bounded_size(bus: LossyBus, clock: Clock) -> None:
    one = Node(bus, clock)
    names = [f"{number:0200}" for number in range(6_000)]
    for connection in ("a", "b"):
        one.roster.enter(connection, "alice", 1.0)
        for name in names:
            one.roster.join(connection, name)
    clock.advance(0.1)
    sizes: list[int] = []
    original = bus.publish

    def publish(channel: str, payload: bytes, binary: bool) -> None:
        sizes.append(len(payload))
        original(channel, payload, binary)

    bus.publish = publish  # type: ignore[method-assign]
    two = Node(bus, clock)
    settle(clock)
    for connection in ("a", "b"):
        found = find(two.roster, connection)
        assert found is not None
        assert found.channels == set(names)
    assert 100_000 < max(sizes) < 600_000


def test_many_changes_are_told_in_batches_of_a_bounded_size(bus: LossyBus, clock: Clock) -> None:
    one, two = Node(bus, clock), Node(bus, clock)
    told: list[int] = []
    two.nodes.handle("roster", lambda sender, data: told.append(len(str(data))))
    one.roster.enter("a", None, 1.0)
    for number in range(999):
        one.roster.join("a", f"{number:0255}" * 2)
    clock.advance(0.1)
    assert len(told) > 1
    assert max(told) < 400_000


def test_what_happens_before_the_start_is_told_after_it(bus: LossyBus, clock: Clock) -> None:
    one = Node(bus, clock)
    late = Nodes(bus, clock)
    roster = Roster(late, clock)
    roster.enter("x", "alice", 1.0)
    roster.join("x", "room")
    assert roster._changes == []
    late.start()
    settle(clock)
    assert one.connections("alice") == one.members("room") == ["x"]


def test_two_rosters_of_a_node_are_apart(bus: LossyBus, clock: Clock) -> None:
    one, two = Node(bus, clock), Node(bus, clock)
    others = [Roster(node.nodes, clock, kind="other") for node in (one, two)]
    one.roster.enter("a", "alice", 1.0)
    others[0].enter("b", "bob", 1.0)
    settle(clock)
    assert (two.connections("alice"), two.connections("bob")) == (["a"], [])
    assert [entry.connection for entry in others[1].beyond("bob", 0)] == ["b"]


def test_what_changes_nothing_is_not_told(bus: LossyBus, clock: Clock) -> None:
    one, two = Node(bus, clock), Node(bus, clock)
    one.roster.enter("a", "alice", 1.0)
    one.roster.join("a", "room")
    clock.advance(0.1)
    told: list[Any] = []
    two.nodes.handle("roster", lambda sender, data: told.append(data))
    one.roster.enter("a", "alice", 2.0)
    one.roster.join("a", "room")
    one.roster.leave("a", "other")
    one.roster.join("unknown", "room")
    clock.advance(0.1)
    assert told == []
