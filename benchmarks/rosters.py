"""
What nodes of a cluster send each other about who is where: ``python -m benchmarks.rosters``.

All nodes are in this process, on a clock that only the simulation moves. What they send is the real thing, byte by
byte, and counted as NATS carries it. So the figures do not depend on the machine.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.task import Clock

from lhttp_tx.bus.nats.subjects import subject_of
from lhttp_tx.cluster.nodes import HELLO_INTERVAL, Nodes
from lhttp_tx.cluster.presence import Presence
from lhttp_tx.cluster.roster import Roster
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.interfaces import BusReceiver, MaybeDeferred

__all__ = ["MAX_PAYLOAD", "MAX_WAITING", "Cluster", "Traffic"]

MAX_PAYLOAD = 1_048_576
"""Bytes of the largest message that NATS takes by default."""

MAX_WAITING = 4_194_304
"""Bytes that a node lets wait for NATS before it refuses publications."""

_MARK = " _L.AAAAAAAA.1"
_STEP = 0.05


@dataclass
class Traffic:
    """
    What the nodes have sent in some time.

    :ivar seconds: how long that was.
    :ivar messages: how many messages.
    :ivar sent: bytes that nodes sent to NATS.
    :ivar delivered: bytes that NATS sent to nodes.
    :ivar largest: bytes of the largest payload.
    :ivar burst: the most bytes that one node sent in one turn of its reactor.
    :ivar refused: messages that the bus refused because too much waited.
    """

    seconds: float = 0.0
    messages: int = 0
    sent: int = 0
    delivered: int = 0
    largest: int = 0
    burst: int = 0
    refused: int = 0


class _Net:
    """NATS, as far as the nodes can tell. It passes everything on at the next turn of its receiver, in order."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.buses: list[_Bus] = []
        self.traffic = Traffic()
        self.is_away = False

    def carry(self, sender: _Bus, channel: str, payload: bytes, binary: bool) -> None:
        subject = subject_of(channel, "lhttp.")
        size = len(payload) + len(f"PUB {subject}{_MARK} {len(payload)}\r\n\r\n")
        traffic = self.traffic
        if sender.waiting > MAX_WAITING:
            traffic.refused += 1
            raise BusUnavailable("the bus is congested, try again later")
        sender.waiting += size
        traffic.messages += 1
        traffic.sent += size
        traffic.largest = max(traffic.largest, len(payload))
        traffic.burst = max(traffic.burst, sender.waiting)
        for bus in self.buses:
            if bus is not sender and channel in bus.receivers:
                traffic.delivered += size
                bus.queue.append((channel, payload, binary))


class _Bus:
    """The bus of one node."""

    is_immediate = True

    def __init__(self, net: _Net) -> None:
        self.net = net
        self.receivers: dict[str, BusReceiver] = {}
        self.queue: list[tuple[str, bytes, bool]] = []
        self.waiting = 0
        self.on_open: list[Callable[[], None]] = []
        net.buses.append(self)

    @property
    def available(self) -> bool:
        return not self.net.is_away

    def subscribe(self, channel: str, receiver: BusReceiver) -> MaybeDeferred:
        self.receivers[channel] = receiver
        return None

    def unsubscribe(self, channel: str, receiver: BusReceiver) -> None:
        self.receivers.pop(channel, None)

    def publish(self, channel: str, payload: bytes, binary: bool) -> MaybeDeferred:
        if self.net.is_away:
            raise BusUnavailable("the bus is away, try again later")
        self.net.carry(self, channel, payload, binary)
        return None

    def turn(self) -> bool:
        """Take what has come; return whether there was anything. All that was written has gone."""
        self.waiting = 0
        queue, self.queue = self.queue, []
        for channel, payload, binary in queue:
            receiver = self.receivers.get(channel)
            if receiver is not None:
                receiver(channel, [payload], binary)
        return bool(queue)


@dataclass
class _Node:
    bus: _Bus
    nodes: Nodes
    roster: Roster
    presence: Presence
    connections: dict[str, tuple[str, str]] = field(default_factory=dict)


class Cluster:
    """
    Nodes with the users of rooms.

    :ivar clock: what the simulation moves.
    """

    def __init__(self, users: int, nodes: int = 5, room: int = 50) -> None:
        """
        :param users: how many users there are in all. Each has one connection, and is in one room.
        :param nodes: over how many nodes they are spread.
        :param room: users in each room.
        """
        self.clock = Clock()
        self.clock.advance(1_000_000.0)
        self._net = _Net(self.clock)
        self.nodes = [self._node() for _ in range(nodes)]
        self._count = 0
        self._rooms = max(1, users // room)
        for node in self.nodes:
            node.nodes.start()
        self.run(2 * HELLO_INTERVAL)
        for _ in range(users):
            self.enter()
        self.run(4 * HELLO_INTERVAL)

    def _node(self) -> _Node:
        bus = _Bus(self._net)
        nodes = Nodes(bus, self.clock, lambda: 1_700_000_000.0)  # type: ignore[arg-type]
        roster = Roster(nodes, self.clock)
        return _Node(bus, nodes, roster, Presence(roster, self.clock))

    def enter(self) -> None:
        """Let a user connect to the next node."""
        number = self._count
        self._count += 1
        node = self.nodes[number % len(self.nodes)]
        connection, user = f"{number:024x}", f"user-{number:06}"
        room = f"room.{number % self._rooms}"
        self._join(node, connection, user, room)

    def _join(self, node: _Node, connection: str, user: str, room: str) -> None:
        node.connections[connection] = user, room
        node.roster.enter(connection, user, node.nodes.clocks.shared())
        node.roster.join(connection, room)

    def exit(self) -> None:
        """Let the user go who has been there longest, of the node that has most."""
        node = max(self.nodes, key=lambda node: len(node.connections))
        connection = next(iter(node.connections))
        del node.connections[connection]
        node.roster.exit(connection)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / _STEP)):
            self.clock.advance(_STEP)
            is_busy = True
            while is_busy:
                is_busy = sum(node.bus.turn() for node in self.nodes) > 0

    def measured(self, seconds: float, work: Callable[[], Any] | None = None, begun: Traffic | None = None) -> Traffic:
        """Let time pass, with *work* in every step. Return what went between the nodes, *begun* included."""
        traffic = self._net.traffic = begun or Traffic()
        traffic.seconds = seconds
        for _ in range(round(seconds / _STEP)):
            if work is not None:
                work()
            self.run(_STEP)
        return traffic

    def outage(self, seconds: float, work: Callable[[], Any] | None = None) -> Traffic:
        """
        Let NATS be away for some time, with *work* at its beginning, then let all nodes be back at once.

        :returns: what went between the nodes in the ten seconds behind it.
        """
        self._net.is_away = True
        if work is not None:
            work()
        self.run(seconds)
        self._net.is_away = False
        self._net.traffic = Traffic()
        for node in self.nodes:
            for call in node.bus.on_open:
                call()
        return self.measured(10.0, begun=self._net.traffic)

    def restart(self) -> Traffic:
        """
        Let one node start again, and its users come back to it at once.

        :returns: what went between the nodes in the ten seconds behind it.
        """
        old = self.nodes.pop(0)
        old.roster.stop()
        old.nodes.stop()
        self._net.buses.remove(old.bus)
        self._net.traffic = Traffic()
        new = self._node()
        self.nodes.insert(0, new)
        new.nodes.start()
        self.run(2 * _STEP)
        for connection, (user, room) in old.connections.items():
            self._join(new, connection, user, room)
        return self.measured(10.0, begun=self._net.traffic)

    def move_all(self) -> Traffic:
        """
        Let all clients of all nodes lose their connections and come back at once.

        :returns: what went between the nodes in the ten seconds behind it.
        """
        self._net.traffic = Traffic()
        for node in self.nodes:
            connections, node.connections = node.connections, {}
            for connection, (user, room) in connections.items():
                node.roster.exit(connection)
                self._join(node, connection[::-1], user, room)
        return self.measured(10.0, begun=self._net.traffic)

    @property
    def agrees(self) -> bool:
        """Whether every node knows all people of all nodes."""
        count = sum(len(node.connections) for node in self.nodes)
        rooms: dict[str, int] = defaultdict(int)
        for node in self.nodes:
            for _, room in node.connections.values():
                rooms[room] += 1
        return all(
            node.presence.totals()[2] == count and all(node.presence.count(room)[1] == n for room, n in rooms.items())
            for node in self.nodes
        )


def _rows(users: int, nodes: int, churn: int) -> list[tuple[str, Traffic, int]]:
    """Return what was done, what went between the nodes, and how many changes there were."""
    cluster = Cluster(users, nodes)

    def change() -> None:
        for _ in range(round(churn * _STEP / 2)):
            cluster.exit()
            cluster.enter()

    def change_a_little() -> None:
        for _ in range(10 * nodes):
            cluster.exit()
            cluster.enter()

    rows = [("nothing", cluster.measured(60.0), 0)]
    rows.append((f"{churn} changes a second", cluster.measured(20.0, change), 20 * churn))
    rows.append(
        (f"NATS is away for 30 s, with {20 * nodes} changes", cluster.outage(30.0, change_a_little), 20 * nodes)
    )
    rows.append(("a node restarts, its users come back", cluster.restart(), users // nodes))
    rows.append(("all users come back at once", cluster.move_all(), 2 * users))
    if not cluster.agrees:
        raise RuntimeError("the nodes do not agree")
    return rows


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rosters", description=__doc__)
    parser.add_argument("--users", type=int, default=50_000, help="users in all (default: 50000)")
    parser.add_argument("--nodes", type=int, default=5, help="nodes (default: 5)")
    parser.add_argument("--churn", type=int, default=200, help="changes a second (default: 200)")
    settings = parser.parse_args()
    print(f"{settings.users} users on {settings.nodes} nodes")
    print(f"{'what happens':44}{'from nodes':>12}{'to nodes':>12}{'largest':>10}{'in a turn':>11}{'a change':>10}")
    for what, traffic, changes in _rows(settings.users, settings.nodes, settings.churn):
        if traffic.largest > MAX_PAYLOAD or traffic.refused:
            raise RuntimeError(f"{what}: {traffic}")
        scale, unit = (traffic.seconds, "/s") if traffic.seconds > 10.0 else (1.0, "")
        sent, delivered = (f"{round(size / scale):,}{unit}" for size in (traffic.sent, traffic.delivered))
        each = f"{traffic.sent / changes:,.0f}" if changes else ""
        print(f"{what:44}{sent:>12}{delivered:>12}{traffic.largest:>10,}{traffic.burst:>11,}{each:>10}")


if __name__ == "__main__":
    main()
