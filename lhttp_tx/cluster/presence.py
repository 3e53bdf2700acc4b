"""
Presence: the people in a channel, their connections, and events when people join and leave.

It is derived from the roster, so every node knows the presence of the whole cluster. If a person comes back within a
few seconds, for example after reloading a page, there is no leave event. There is no join event either, unless a client
was given a list of the people in the meantime, because this person was missing in it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, TypeAlias

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lhttp_tx.cluster.room import Room
from lhttp_tx.cluster.roster import Entry, Roster

__all__ = ["GRACE", "Presence", "PresenceEvent"]

GRACE = 3.0
"""Seconds for which a person may be gone before there is a leave event."""

PresenceEvent: TypeAlias = Callable[[str, str, str | None, str], None]
"""Called with ``join`` or ``leave``, the channel, the user (``None``: anonymous), and the id of the connection."""


class Presence:
    """
    The people in all channels.

    :ivar on_event: functions that are called when a person joins or leaves a channel. Further connections of the same
        person cause no events.
    """

    def __init__(self, roster: Roster, clock: IReactorTime, *, grace: float = GRACE) -> None:
        """
        :param roster: has the connections of all nodes.
        :param clock: the reactor.
        :param grace: seconds for which a person may be gone before there is a leave event.
        """
        self.on_event: list[PresenceEvent] = []
        self._clock = clock
        self._grace = grace
        self._rooms: dict[str, Room] = {}
        self._leaving: dict[str, dict[str, tuple[IDelayedCall, float]]] = {}
        self._listed: dict[str, float] = {}
        roster.on_join.append(self._joined)
        roster.on_leave.append(self._left)

    def people(self, channel: str) -> list[dict[str, Any]]:
        """
        Return the people in *channel*. Those who have been there longest come first.

        :returns: for each person, ``user``, a name or ``None``, and ``connections``, the ids of the person's
            connections.
        """
        return [{"user": person.user, "connections": person.connections} for person in self.room(channel)]

    def room(self, channel: str) -> Room:
        """Return the people of *channel*. Do not change the result."""
        return self._rooms.get(channel) or Room()

    def listed(self, channel: str) -> None:
        """Note that a client is given a list of the people in *channel*, without those who have just left."""
        if channel in self._leaving:
            self._listed[channel] = self._clock.seconds()

    def count(self, channel: str) -> tuple[int, int]:
        """Return the number of people in *channel*, and the number of their connections."""
        room = self._rooms.get(channel)
        return (0, 0) if room is None else (len(room), room.connections)

    def totals(self) -> tuple[int, int, int]:
        """Return three numbers: of channels with people, of people in all channels, and of their connections."""
        rooms = self._rooms.values()
        return len(rooms), sum(map(len, rooms)), sum(room.connections for room in rooms)

    def stop(self) -> None:
        """Stop. There are no leave events for people who have just left."""
        for leaving in self._leaving.values():
            for timer, _ in leaving.values():
                timer.cancel()
        self._leaving.clear()
        self._listed.clear()

    def _joined(self, entry: Entry, channel: str) -> None:
        key = _key(entry)
        room = self._rooms.get(channel)
        if room is None:
            room = self._rooms[channel] = Room()
        if not room.join(key, entry):
            return
        leaving = self._leaving.get(channel, {}).get(key)
        if leaving is None:
            self._tell("join", entry, channel)
            return
        timer, since = leaving
        timer.cancel()
        was_missed = self._listed.get(channel, -inf) >= since
        self._forget(channel, key)
        if was_missed:
            self._tell("join", entry, channel)

    def _left(self, entry: Entry, channel: str) -> None:
        key = _key(entry)
        room = self._rooms[channel]
        has_left = room.leave(key, entry)
        if not room.connections:
            del self._rooms[channel]
        if has_left:
            timer = self._clock.callLater(self._grace, self._gone, channel, key, entry)
            self._leaving.setdefault(channel, {})[key] = (timer, self._clock.seconds())

    def _gone(self, channel: str, key: str, entry: Entry) -> None:
        self._forget(channel, key)
        self._tell("leave", entry, channel)

    def _forget(self, channel: str, key: str) -> None:
        """Forget that a person has just left."""
        leaving = self._leaving[channel]
        del leaving[key]
        if not leaving:
            del self._leaving[channel]
            self._listed.pop(channel, None)

    def _tell(self, event: str, entry: Entry, channel: str) -> None:
        for call in self.on_event:
            call(event, channel, entry.user, entry.connection)


def _key(entry: Entry) -> str:
    """Return a key for the person of a connection: its user, or the connection itself if it has no user."""
    return f"user {entry.user}" if entry.user is not None else f"connection {entry.connection}"
