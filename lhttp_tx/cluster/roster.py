"""
The roster: who is connected, and who is in which channel, in the whole cluster.

Each node sends the others the changes of its own connections, in numbered batches. A node that has missed batches asks
for them, and gets everything if they are forgotten. When a node dies, the others forget its connections. Used by
:mod:`lhttp_tx.cluster.presence` and :mod:`lhttp_tx.cluster.attendance`.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeAlias

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.cluster.telling import Backlog, Journal

__all__ = ["Age", "Entry", "Roster", "watch_channels"]

_BATCH_TIME = 0.05
"""Seconds for which a node collects changes before it sends them to the others."""

_BATCH_COUNT = 1_000
"""The most changes, or entries, in one message between nodes."""

_BATCH_SIZE = 262_144
"""The most bytes of these, approximately. By default, NATS accepts messages of up to 1 MiB."""

Age: TypeAlias = tuple[float, str]
"""The time since which a connection belongs to its user (see :class:`Entry`), and its id."""


@dataclass(slots=True)
class Entry:
    """
    One connection.

    :ivar connection: the id of the connection, unique in the cluster.
    :ivar node: the name of the node that it is connected to.
    :ivar user: the name of its user; ``None`` if the client is anonymous.
    :ivar since: the shared time of the nodes (:meth:`lhttp_tx.cluster.clocks.Clocks.shared`) since which it belongs to
        this user. If two times are equal, the connection with the greater id counts as later.
    :ivar channels: the channels with presence that it is subscribed to.
    """

    connection: str
    node: str
    user: str | None
    since: float
    channels: set[str] = field(default_factory=set)

    @property
    def age(self) -> Age:
        """The sort key of connections. The oldest comes first."""
        return (self.since, self.connection)


_AGE = attrgetter("age")


class _ByAge:
    """Entries in the order of their age. A change keeps the order, without sorting again."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        insort(self.entries, entry, key=_AGE)

    def discard(self, entry: Entry) -> None:
        index = bisect_left(self.entries, entry.age, key=_AGE)
        while index < len(self.entries) and self.entries[index].age == entry.age:
            if self.entries[index] is entry:
                del self.entries[index]
                return
            index += 1


class Roster:
    """
    The connections of all nodes, as far as the nodes have entered them.

    :ivar on_enter: functions that are called with a new entry.
    :ivar on_exit: functions that are called with a removed entry, which has no channels any more.
    :ivar on_join: functions that are called with an entry and a channel that it has joined.
    :ivar on_leave: functions that are called with an entry and a channel that it has left.
    """

    def __init__(self, nodes: Nodes, clock: IReactorTime, *, kind: str = "roster") -> None:
        """
        :param nodes: the other nodes. The roster sends nothing before they are started.
        :param clock: the reactor.
        :param kind: the kind of its messages between nodes. Each roster of a node has its own.
        """
        self.on_enter: list[Callable[[Entry], None]] = []
        self.on_exit: list[Callable[[Entry], None]] = []
        self.on_join: list[Callable[[Entry, str], None]] = []
        self.on_leave: list[Callable[[Entry, str], None]] = []
        self._nodes = nodes
        self._clock = clock
        self._entries: dict[str, dict[str, Entry]] = {nodes.name: {}}
        self._users: dict[str, _ByAge] = {}
        self._channels: dict[str, int] = {}
        self._kind = kind
        self._changes: list[list[Any]] = []
        self._changes_size = 0
        self._number = 0
        self._numbers: dict[str, int] = {}
        self._parts: dict[str, list[Any]] = {}
        self._seen: dict[str, int] = {}
        self._journal = Journal()
        self._backlog = Backlog(clock, nodes.tell)
        self._asking: list[str] = []
        self._timer: IDelayedCall | None = None
        nodes.greet(kind, lambda: self._number, self._heard)
        nodes.on_leave.append(self._node_left)
        nodes.handle(kind, self._changed)
        nodes.handle(kind + "-all", self._told)
        nodes.handle(kind + "-ask", self._asked)

    # Questions

    def newest(self, user: str) -> Entry | None:
        """Return the newest connection of *user*; ``None`` if there is none."""
        found = self._users.get(user)
        return None if found is None else found.entries[-1]

    def beyond(self, user: str, count: int) -> list[Entry]:
        """Return all connections of *user* except the *count* newest ones. The oldest comes first."""
        found = self._users.get(user)
        return [] if found is None else found.entries[: max(0, len(found.entries) - count)]

    def size(self, channel: str) -> int:
        """Return the number of connections in *channel*, if it has presence."""
        return self._channels.get(channel, 0)

    # Changes on this node

    def enter(self, connection: str, user: str | None, since: float) -> Entry:
        """Add a connection of this node, or give it another *user*. Return its entry."""
        old = self._entries[self._nodes.name].get(connection)
        if old is not None and old.user == user:
            return old
        self._change(["enter", connection, user, since])
        return self._enter(self._nodes.name, connection, user, since)

    def exit(self, connection: str) -> None:
        """Remove a connection of this node, and take it out of its channels."""
        if connection in self._entries[self._nodes.name]:
            self._change(["exit", connection])
            self._exit(self._nodes.name, connection)

    def join(self, connection: str, channel: str) -> None:
        """Note that a connection of this node has joined *channel*."""
        entry = self._entries[self._nodes.name].get(connection)
        if entry is not None and channel not in entry.channels:
            self._change(["join", connection, channel])
            self._join(self._nodes.name, connection, channel)

    def leave(self, connection: str, channel: str) -> None:
        """Note that a connection of this node has left *channel*."""
        entry = self._entries[self._nodes.name].get(connection)
        if entry is not None and channel in entry.channels:
            self._change(["leave", connection, channel])
            self._leave(self._nodes.name, connection, channel)

    def shift(self, seconds: float) -> None:
        """Add *seconds* to the times of all connections of this node. Their order stays the same."""
        mine = self._entries[self._nodes.name]
        for entry in sorted(mine.values(), key=_AGE, reverse=True):  # so none passes another, even for a moment
            if mine.get(entry.connection) is not entry:
                continue  # it was closed in the meantime
            self._change(["enter", entry.connection, entry.user, entry.since + seconds])
            self._enter(entry.node, entry.connection, entry.user, entry.since + seconds)

    def stop(self) -> None:
        """Stop telling the other nodes."""
        self._backlog.stop()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    # Changes on any node

    def _enter(self, node: str, connection: str, user: str | None, since: float) -> Entry:
        old = self._entries[node].get(connection)
        if old is not None and (old.user, old.since) == (user, since):
            return old
        channels = set(old.channels) if old is not None else set()
        if old is not None:
            self._exit(node, connection)
        entry = self._entries[node][connection] = Entry(connection, node, user, since)
        if user is not None:
            self._users.setdefault(user, _ByAge()).add(entry)
        _call(self.on_enter, entry)
        for channel in channels:
            self._join(node, connection, channel)
        return entry

    def _exit(self, node: str, connection: str) -> None:
        entry = self._entries[node].get(connection)
        if entry is None:
            return
        for channel in tuple(entry.channels):
            self._leave(node, connection, channel)
        del self._entries[node][connection]
        if entry.user is not None:
            found = self._users[entry.user]
            found.discard(entry)
            if not found.entries:
                del self._users[entry.user]
        _call(self.on_exit, entry)

    def _join(self, node: str, connection: str, channel: str) -> None:
        entry = self._entries[node].get(connection)
        if entry is not None and channel not in entry.channels:
            entry.channels.add(channel)
            self._channels[channel] = self._channels.get(channel, 0) + 1
            _call(self.on_join, entry, channel)

    def _leave(self, node: str, connection: str, channel: str) -> None:
        entry = self._entries[node].get(connection)
        if entry is not None and channel in entry.channels:
            entry.channels.discard(channel)
            self._channels[channel] -= 1
            if not self._channels[channel]:
                del self._channels[channel]
            _call(self.on_leave, entry, channel)

    # Messages to and from the other nodes

    def _change(self, change: list[Any]) -> None:
        if not self._nodes.running:
            self._number += 1  # nodes that find this one later will ask for everything
            self._journal.clear()
            return
        self._changes.append(change)
        self._changes_size += _size(change)
        if len(self._changes) >= _BATCH_COUNT or self._changes_size >= _BATCH_SIZE:
            self._tell()
        elif self._timer is None or not self._timer.active():
            self._timer = self._clock.callLater(_BATCH_TIME, self._tell)

    def _tell(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        changes, size = self._changes, self._changes_size
        self._changes, self._changes_size = [], 0
        if changes:
            self._number += 1
            batch = {"number": self._number, "changes": changes}
            self._journal.add(batch, size)
            self._nodes.tell_all(self._kind, batch)

    def _heard(self, node: str, number: object) -> None:
        """Take the number of the last batch from a node's heartbeat. Ask if it is missing here."""
        if isinstance(number, int) and number != self._numbers.get(node, 0):
            self._ask(node)

    def _changed(self, node: str, data: Any) -> None:
        known = self._numbers.get(node, 0)
        if data["number"] != known + 1:
            if data["number"] <= known:
                self._parts.pop(node, None)  # it is a duplicate
            elif node not in self._parts:
                self._ask(node)
            return
        self._numbers[node] = data["number"]
        self._parts.pop(node, None)
        self._entries.setdefault(node, {})
        for change in data["changes"]:
            self._apply(node, *change)

    def _apply(self, node: str, kind: str, connection: str, *rest: Any) -> None:
        if kind == "enter":
            self._enter(node, connection, rest[0], float(rest[1]))
        elif kind == "exit":
            self._exit(node, connection)
        elif kind == "join":
            self._join(node, connection, rest[0])
        elif kind == "leave":
            self._leave(node, connection, rest[0])

    def _ask(self, node: str) -> None:
        """Ask a node for missing batches. If parts of an answer have come since the last call, wait for the rest."""
        count = len(self._parts.get(node, ()))
        if count > self._seen.get(node, 0):
            self._seen[node] = count
            return
        self._parts[node] = []
        self._seen[node] = 0
        self._nodes.tell(node, self._kind + "-ask", {"since": self._numbers.get(node, 0)})

    def _asked(self, node: str, data: Any) -> None:
        """Send a node the batches that it has missed; or everything, if some of these are forgotten."""
        missed = self._journal.after(data and data.get("since"), self._number)
        if missed is None:
            if not self._asking:
                self._clock.callLater(0, self._tell_everything)  # other nodes may ask in the meantime
            self._asking.append(node)
            return
        self._backlog.add(node, self._kind, missed or [({"number": self._number, "changes": []}, 0)])

    def _tell_everything(self) -> None:
        """Send everything to the nodes that have asked, in parts."""
        names, self._asking = dict.fromkeys(self._asking), []
        self._tell()
        parts = list(_in_parts(self._entries[self._nodes.name].values()))
        told = [({"part": number, "number": None, "entries": part}, size) for number, (part, size) in enumerate(parts)]
        told[-1][0]["number"] = self._number
        for name in names:
            self._backlog.add(name, self._kind + "-all", told)

    def _told(self, node: str, data: Any) -> None:
        if data["part"] == 0:
            self._parts[node] = []
        parts = self._parts.get(node)
        if parts is None or len(parts) != data["part"]:
            return
        parts.append(data["entries"])
        if data["number"] is not None:
            del self._parts[node]
            self._seen.pop(node, None)
            self._numbers[node] = data["number"]
            self._replace(node, [entry for part in parts for entry in part])

    def _replace(self, node: str, entries: Iterable[list[Any]]) -> None:
        told: dict[str, tuple[str | None, float, list[str]]] = {}
        for connection, user, since, channels in entries:
            told.setdefault(connection, (user, since, []))[2].extend(channels)
        known = self._entries.setdefault(node, {})
        for connection in [found for found in known if found not in told]:
            self._exit(node, connection)
        for connection, (user, since, channels) in told.items():
            entry = self._enter(node, connection, user, float(since))
            for channel in entry.channels.difference(channels):
                self._leave(node, connection, channel)
            for channel in channels:
                self._join(node, connection, channel)

    def _node_left(self, node: str) -> None:
        for connection in list(self._entries.get(node, ())):
            self._exit(node, connection)
        self._entries.pop(node, None)
        self._numbers.pop(node, None)
        self._parts.pop(node, None)
        self._seen.pop(node, None)
        self._backlog.left(node)


def _in_parts(entries: Iterable[Entry]) -> Iterator[tuple[list[list[Any]], int]]:
    """Yield parts of limited size, with their sizes. An entry with many channels spans several parts."""
    part: list[list[Any]] = []
    size = 0
    for entry in entries:
        told: list[Any] = [entry.connection, entry.user, entry.since, []]
        part.append(told)
        size += _size(told)
        for channel in sorted(entry.channels):
            if size >= _BATCH_SIZE:
                yield part, size
                told = [*told[:3], []]
                part, size = [told], _size(told)
            told[3].append(channel)
            size += _size(channel)
        if len(part) >= _BATCH_COUNT or size >= _BATCH_SIZE:
            yield part, size
            part, size = [], 0
    yield part, size


def _size(told: object) -> int:
    """Return the number of bytes of *told* in a message between nodes."""
    return len(json.dumps(told)) + 1


def _call(watchers: list[Callable[..., None]], *arguments: Any) -> None:
    for watcher in watchers:
        watcher(*arguments)


def watch_channels(roster: Roster, call: Callable[[str, bool], None]) -> None:
    """Call *call* with a channel and whether it has entries, when it gets its first entry or loses its last."""

    def joined(_: Entry, channel: str) -> None:
        if roster.size(channel) == 1:
            call(channel, True)

    def left(_: Entry, channel: str) -> None:
        if not roster.size(channel):
            call(channel, False)

    roster.on_join.append(joined)
    roster.on_leave.append(left)
