"""
Who is connected, and who is in which channel, across the cluster.

Each node tells the others what happens to its own connections, in batches with a number; a node that has missed one
asks for all of it again. What a dead node told is forgotten. Used by :mod:`lhttp_tx.presence` and
:mod:`lhttp_tx.control`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lhttp_tx.nodes import Nodes

__all__ = ["Entry", "Roster"]

_BATCH_TIME = 0.05
"""Seconds for which changes are gathered before the other nodes are told."""

_BATCH_COUNT = 1_000
"""Changes, or entries, in one message between nodes."""

_BATCH_SIZE = 262_144
"""About how many bytes they may take; NATS takes 1 MiB at most."""


@dataclass(slots=True)
class Entry:
    """
    One connection.

    :ivar connection: its id, unique in the cluster.
    :ivar node: the name of the node that it is connected to.
    :ivar user: who it is, or ``None``.
    :ivar since: when it became that, in seconds since 1970; of two at the same time, the greater id is the later one.
    :ivar channels: the channels in which its presence counts.
    """

    connection: str
    node: str
    user: str | None
    since: float
    channels: set[str] = field(default_factory=set)

    @property
    def age(self) -> tuple[float, str]:
        """What connections of one user are sorted by, the oldest first."""
        return (self.since, self.connection)


class Roster:
    """
    The connections of all nodes, as far as they are told of.

    :ivar on_enter: called with an entry that is new.
    :ivar on_exit: called with an entry that is gone, without its channels.
    :ivar on_join: called with an entry and the channel that it is in now.
    :ivar on_leave: called with an entry and the channel that it is in no more.
    """

    def __init__(self, nodes: Nodes, clock: IReactorTime, *, kind: str = "roster") -> None:
        """
        :param nodes: how to tell the others, once they are looked for.
        :param clock: the reactor.
        :param kind: what its messages between nodes are called; each roster of a node has its own.
        """
        self.on_enter: list[Callable[[Entry], None]] = []
        self.on_exit: list[Callable[[Entry], None]] = []
        self.on_join: list[Callable[[Entry, str], None]] = []
        self.on_leave: list[Callable[[Entry, str], None]] = []
        self._nodes = nodes
        self._clock = clock
        self._entries: dict[str, dict[str, Entry]] = {nodes.name: {}}
        self._users: dict[str, dict[str, Entry]] = {}
        self._members: dict[str, dict[str, Entry]] = {}
        self._kind = kind
        self._changes: list[list[Any]] = []
        self._changes_size = 0
        self._number = 0
        self._numbers: dict[str, int] = {}
        self._parts: dict[str, list[Any]] = {}
        self._timer: IDelayedCall | None = None
        nodes.greet(kind, lambda: self._number, self._heard)
        nodes.on_leave.append(self._node_left)
        nodes.handle(kind, self._changed)
        nodes.handle(kind + "-all", self._told)
        nodes.handle(kind + "-ask", self._asked)

    # What there is

    def of_user(self, user: str) -> list[Entry]:
        """Return the connections of *user*, the oldest first."""
        return sorted(self._users.get(user, {}).values(), key=lambda entry: entry.age)

    def of_channel(self, channel: str) -> list[Entry]:
        """Return the connections whose presence counts in *channel*, the oldest first."""
        return sorted(self._members.get(channel, {}).values(), key=lambda entry: entry.age)

    def find(self, connection: str) -> Entry | None:
        """Return the entry of a connection."""
        for entries in self._entries.values():
            if connection in entries:
                return entries[connection]
        return None

    # What happens on this node

    def enter(self, connection: str, user: str | None, since: float) -> Entry:
        """Add a connection of this node, or give it another *user*."""
        old = self._entries[self._nodes.name].get(connection)
        if old is not None and old.user == user:
            return old
        self._change(["enter", connection, user, since])
        return self._enter(self._nodes.name, connection, user, since)

    def exit(self, connection: str) -> None:
        """Take a connection of this node away, and out of its channels."""
        if connection in self._entries[self._nodes.name]:
            self._change(["exit", connection])
            self._exit(self._nodes.name, connection)

    def join(self, connection: str, channel: str) -> None:
        """Say that a connection of this node is in *channel*."""
        entry = self._entries[self._nodes.name].get(connection)
        if entry is not None and channel not in entry.channels:
            self._change(["join", connection, channel])
            self._join(self._nodes.name, connection, channel)

    def leave(self, connection: str, channel: str) -> None:
        """Say that a connection of this node is in *channel* no more."""
        entry = self._entries[self._nodes.name].get(connection)
        if entry is not None and channel in entry.channels:
            self._change(["leave", connection, channel])
            self._leave(self._nodes.name, connection, channel)

    def stop(self) -> None:
        """Tell the others nothing more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    # Changes of any node

    def _enter(self, node: str, connection: str, user: str | None, since: float) -> Entry:
        old = self._entries[node].get(connection)
        if old is not None and old.user == user:
            return old
        channels = set(old.channels) if old is not None else set()
        if old is not None:
            self._exit(node, connection)
        entry = self._entries[node][connection] = Entry(connection, node, user, since)
        if user is not None:
            self._users.setdefault(user, {})[connection] = entry
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
            _discard(self._users, entry.user, connection)
        _call(self.on_exit, entry)

    def _join(self, node: str, connection: str, channel: str) -> None:
        entry = self._entries[node].get(connection)
        if entry is not None and channel not in entry.channels:
            entry.channels.add(channel)
            self._members.setdefault(channel, {})[connection] = entry
            _call(self.on_join, entry, channel)

    def _leave(self, node: str, connection: str, channel: str) -> None:
        entry = self._entries[node].get(connection)
        if entry is not None and channel in entry.channels:
            entry.channels.discard(channel)
            _discard(self._members, channel, connection)
            _call(self.on_leave, entry, channel)

    # Telling the others, and being told

    def _change(self, change: list[Any]) -> None:
        if not self._nodes.running:
            self._number += 1  # whoever hears of this node later asks for all of it
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
        changes, self._changes, self._changes_size = self._changes, [], 0
        if changes:
            self._number += 1
            self._nodes.tell_all(self._kind, {"number": self._number, "changes": changes})

    def _heard(self, node: str, number: object) -> None:
        """A sign of life says how many batches there were."""
        if isinstance(number, int) and number != self._numbers.get(node, 0):
            self._ask(node)

    def _changed(self, node: str, data: Any) -> None:
        if data["number"] != self._numbers.get(node, 0) + 1:
            if node not in self._parts:
                self._ask(node)
            return
        self._numbers[node] = data["number"]
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
        self._parts[node] = []
        self._nodes.tell(node, self._kind + "-ask", None)

    def _asked(self, node: str, _: Any) -> None:
        """Tell one node everything, in parts."""
        self._tell()
        parts = list(self._in_parts())
        for number, part in enumerate(parts, 1):
            last = self._number if number == len(parts) else None
            self._nodes.tell(node, self._kind + "-all", {"part": number - 1, "number": last, "entries": part})

    def _in_parts(self) -> Iterator[list[list[Any]]]:
        """Yield this node's entries in parts of a bounded size; one with many channels is in several of them."""
        part: list[list[Any]] = []
        size = 0
        for entry in self._entries[self._nodes.name].values():
            told: list[Any] = [entry.connection, entry.user, entry.since, []]
            part.append(told)
            size += _size(told)
            for channel in sorted(entry.channels):
                if size >= _BATCH_SIZE:
                    yield part
                    told = [*told[:3], []]
                    part, size = [told], _size(told)
                told[3].append(channel)
                size += _size(channel)
            if len(part) >= _BATCH_COUNT or size >= _BATCH_SIZE:
                yield part
                part, size = [], 0
        yield part

    def _told(self, node: str, data: Any) -> None:
        if data["part"] == 0:
            self._parts[node] = []
        parts = self._parts.setdefault(node, [])
        if len(parts) != data["part"]:
            return
        parts.append(data["entries"])
        if data["number"] is not None:
            del self._parts[node]
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


def _size(told: object) -> int:
    """Return how many bytes something takes in a message between nodes."""
    return len(json.dumps(told)) + 1


def _call(watchers: list[Callable[..., None]], *arguments: Any) -> None:
    for watcher in watchers:
        watcher(*arguments)


def _discard(table: dict[str, dict[str, Entry]], key: str, connection: str) -> None:
    found = table.get(key)
    if found is not None:
        found.pop(connection, None)
        if not found:
            del table[key]
