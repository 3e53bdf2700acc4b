"""
Who is in a channel: people and how many connections they have, and what changes.

Made from the roster, so every node knows it of the whole cluster. A person who goes and comes back within a moment, as
when a page is loaded again, has not left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lhttp_tx.roster import Entry, Roster

__all__ = ["GRACE", "Presence", "PresenceEvent"]

GRACE = 3.0
"""Seconds that somebody may be gone before it counts as leaving."""

PresenceEvent: TypeAlias = Callable[[str, str, str | None, str], None]
"""Called with ``join`` or ``leave``, the channel, the user (``None``: anonymous), and the connection that caused it."""


class Presence:
    """
    Who is where.

    :ivar on_event: called when somebody joins or leaves a channel, with any number of connections.
    """

    def __init__(self, roster: Roster, clock: IReactorTime, *, grace: float = GRACE) -> None:
        """
        :param roster: who is connected.
        :param clock: the reactor.
        :param grace: seconds that somebody may be gone before it counts as leaving.
        """
        self.on_event: list[PresenceEvent] = []
        self._roster = roster
        self._clock = clock
        self._grace = grace
        self._counts: dict[tuple[str, str], int] = {}
        self._totals: dict[str, list[int]] = {}
        self._leaving: dict[tuple[str, str], IDelayedCall] = {}
        roster.on_join.append(self._joined)
        roster.on_leave.append(self._left)

    def people(self, channel: str) -> list[dict[str, Any]]:
        """
        Return who is in *channel*, those first who have been there longest.

        :returns: for each person ``user``, a name or ``None``, and ``connections``, the ids of theirs.
        """
        found: dict[str, dict[str, Any]] = {}
        for entry in self._roster.of_channel(channel):
            person = found.setdefault(_key(entry), {"user": entry.user, "connections": []})
            person["connections"].append(entry.connection)
        return list(found.values())

    def count(self, channel: str) -> tuple[int, int]:
        """Return how many people are in *channel*, and with how many connections."""
        people, connections = self._totals.get(channel, (0, 0))
        return people, connections

    def stop(self) -> None:
        """Tell no more of those who have left up to now."""
        for timer in self._leaving.values():
            timer.cancel()
        self._leaving.clear()

    def _joined(self, entry: Entry, channel: str) -> None:
        place = (channel, _key(entry))
        self._counts[place] = self._counts.get(place, 0) + 1
        totals = self._totals.setdefault(channel, [0, 0])
        totals[1] += 1
        if self._counts[place] > 1:
            return
        totals[0] += 1
        leaving = self._leaving.pop(place, None)
        if leaving is not None:
            leaving.cancel()
        else:
            self._tell("join", entry, channel)

    def _left(self, entry: Entry, channel: str) -> None:
        place = (channel, _key(entry))
        self._counts[place] -= 1
        totals = self._totals[channel]
        totals[1] -= 1
        if not totals[1]:
            del self._totals[channel]
        if not self._counts[place]:
            totals[0] -= 1
            del self._counts[place]
            self._leaving[place] = self._clock.callLater(self._grace, self._gone, place, entry)

    def _gone(self, place: tuple[str, str], entry: Entry) -> None:
        del self._leaving[place]
        self._tell("leave", entry, place[0])

    def _tell(self, event: str, entry: Entry, channel: str) -> None:
        for call in self.on_event:
            call(event, channel, entry.user, entry.connection)


def _key(entry: Entry) -> str:
    """Return what makes two connections those of one person: the user, or the connection itself if it is nobody's."""
    return f"user {entry.user}" if entry.user is not None else f"connection {entry.connection}"
