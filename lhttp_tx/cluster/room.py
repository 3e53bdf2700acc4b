"""
The people of one channel, in order, and as JSON.

A join or leave costs work only for that person: nothing is sorted again, and only that person's JSON is made again. So
a question costs little, even in a room of thousands with many joins and leaves. Used by
:mod:`lhttp_tx.cluster.presence` and :mod:`lhttp_tx.cluster.announcer`.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import islice

from lhttp_tx.cluster.roster import Age, Entry
from lhttp_tx.codec.message import Message

__all__ = ["MAX_CONNECTIONS", "MAX_PEOPLE", "MAX_SIZE", "Person", "Room", "to_json"]

MAX_PEOPLE = 500
"""
The most people that an answer lists: those who have been there longest. The answer always has the number of all people.
"""

MAX_CONNECTIONS = 16
"""The most connections that an answer lists for each person: the oldest."""

MAX_SIZE = 60_000
"""The most bytes of the list of people, so that an answer is not larger than other messages."""


class Person:
    """
    A person in a room, with any number of connections.

    :ivar user: the name; ``None`` if the person is anonymous.
    """

    __slots__ = ("_ages", "_told", "user")

    def __init__(self, user: str | None) -> None:
        self.user = user
        self._ages: list[Age] = []
        self._told: bytes | None = None

    @property
    def age(self) -> Age:
        """The age of the person's oldest connection."""
        return self._ages[0]

    @property
    def connections(self) -> list[str]:
        """The ids of all connections. The oldest comes first."""
        return [connection for _, connection in self._ages]

    def add(self, age: Age) -> None:
        """Add a connection."""
        insort(self._ages, age)
        self._told = None

    def remove(self, age: Age) -> bool:
        """Remove a connection. Return whether the person has others."""
        del self._ages[bisect_left(self._ages, age)]
        self._told = None
        return bool(self._ages)

    def told(self) -> bytes:
        """Return this person as JSON, for answers."""
        if self._told is None:
            connections = [connection for _, connection in islice(self._ages, MAX_CONNECTIONS)]
            self._told = to_json({"user": self.user, "connections": connections}).encode("utf-8", "replace")
        return self._told


class Room:
    """
    The people in one channel.

    :ivar answer: the answer to questions, if it was made since somebody joined or left; else ``None``.
    :ivar connections: the number of connections of all people.
    """

    __slots__ = ("_order", "_people", "answer", "connections")

    def __init__(self) -> None:
        self.answer: Message | None = None
        self.connections = 0
        self._people: dict[str, Person] = {}
        self._order: list[tuple[Age, str]] = []

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self._people)

    def __iter__(self) -> Iterator[Person]:
        """Iterate over the people. Those who have been there longest come first."""
        return (self._people[key] for _, key in self._order)

    def join(self, key: str, entry: Entry) -> bool:
        """
        Add a connection.

        :param key: the person's key.
        :returns: whether the person was not in the room before.
        """
        self.answer = None
        self.connections += 1
        person = self._people.get(key)
        is_new = person is None
        if person is None:
            person = self._people[key] = Person(entry.user)
        else:
            self._leave_order(person, key)
        person.add(entry.age)
        insort(self._order, (person.age, key))
        return is_new

    def leave(self, key: str, entry: Entry) -> bool:
        """
        Remove a connection.

        :param key: the person's key.
        :returns: whether the person has left the room.
        """
        self.answer = None
        self.connections -= 1
        person = self._people[key]
        self._leave_order(person, key)
        if person.remove(entry.age):
            insort(self._order, (person.age, key))
            return False
        del self._people[key]
        return True

    def told(self) -> bytes:
        """Return a JSON list of the people, as many as fit into an answer."""
        found: list[bytes] = []
        size = 0
        for person in islice(self, MAX_PEOPLE):
            told = person.told()
            size += len(told) + 1
            if size > MAX_SIZE:
                break
            found.append(told)
        return b"[" + b",".join(found) + b"]"

    def _leave_order(self, person: Person, key: str) -> None:
        del self._order[bisect_left(self._order, (person.age, key))]


def to_json(told: object) -> str:
    """Return *told* as JSON in its shortest form."""
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))
