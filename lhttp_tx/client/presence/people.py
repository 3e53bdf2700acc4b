"""
The people in a channel, as a client knows them, and what has changed.

Used by :mod:`lhttp_tx.client.presence.following`. This module sends nothing. Source: the protocol document, section
"Presence".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, final

from lhttp_tx.codec.message import Message
from lhttp_tx.errors import RemoteProtocolError

__all__ = [
    "MAX_PEOPLE",
    "Members",
    "PeopleList",
    "Person",
    "PresenceChange",
    "PresenceView",
    "key_of",
    "read_answer",
    "read_change",
]

MAX_PEOPLE = 10_000
"""The most people that a client remembers for each presence."""


@final
@dataclass(frozen=True, slots=True)
class Person:
    """
    A person in a channel.

    :ivar user: the name; ``None`` if the person is anonymous.
    :ivar connections: the ids of the connections that the server has listed, at least one. If the person has come since
        the last list, it is the one that came.
    """

    user: str | None
    connections: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class PresenceChange:
    """
    A change of a presence.

    :ivar event: ``join`` or ``leave``; or ``sync``, when the client has got a list of the people from the server.
    :ivar user: the name of who joined or left; ``None`` if the person is anonymous, and for ``sync``.
    :ivar connection: the id of a connection of who joined or left; ``None`` for ``sync``.
    """

    event: Literal["join", "leave", "sync"]
    user: str | None = None
    connection: str | None = None


@final
@dataclass(frozen=True, slots=True)
class PeopleList:
    """
    A list of the people from the server.

    :ivar count: the number of all people, listed or not.
    :ivar connections: the number of all their connections.
    :ivar complete: whether the node that answers hears all others.
    :ivar people: those who are listed.
    """

    count: int
    connections: int
    complete: bool
    people: tuple[Person, ...]


@final
class Members:
    """
    The people of one channel.

    :ivar channel: the channel.
    :ivar count: the number of all people, listed or not.
    :ivar connections: the number of all their connections.
    :ivar complete: see :class:`PeopleList`.
    :ivar closed: whether the presence has ended.
    """

    def __init__(self, channel: str) -> None:
        """:param channel: the channel."""
        self.channel = channel
        self.count = 0
        self.connections = 0
        self.complete = True
        self.closed = False
        self._people: dict[str, Person] = {}
        self._knows_all = False

    @property
    def people(self) -> list[Person]:
        """Those who are listed."""
        return list(self._people.values())

    def has(self, user: str) -> bool:
        """Return whether the list has *user*."""
        return f"u{user}" in self._people

    def replace(self, answer: PeopleList, since: Iterable[PresenceChange]) -> list[PresenceChange]:
        """
        Take a new list. Return who has left and who has come compared with the last one, as far as it is certain.

        A person who is missing in a list has left only if the list has all people. A person who is new in it has come
        only if the last one had all.

        :param since: the last change of each person since the list was asked for. The list may contain it or not.
        """
        old, knew_all = self._people, self._knows_all
        self._people = {_key(person): person for person in answer.people[:MAX_PEOPLE]}
        self._knows_all = len(self._people) >= answer.count
        for change in since:
            self._put(change)
        self.count, self.connections, self.complete = answer.count, answer.connections, answer.complete
        left = [person for key, person in old.items() if key not in self._people] if self._knows_all else []
        come = [person for key, person in self._people.items() if key not in old] if knew_all else []
        changes = [PresenceChange("leave", person.user, person.connections[0]) for person in left]
        return changes + [PresenceChange("join", person.user, person.connections[0]) for person in come]

    def apply(self, change: PresenceChange, count: int, connections: int) -> bool:
        """
        Note that a person has joined or left. Return ``False`` if this was known.

        :param count: the number of people after it.
        :param connections: the number of their connections.
        """
        self.count, self.connections = count, connections
        return self._put(change)

    def _put(self, change: PresenceChange) -> bool:
        key = _key_of(change.user, change.connection)
        if change.event == "leave":
            return self._people.pop(key, None) is not None or not self._knows_all
        if key in self._people:
            return False
        if len(self._people) < MAX_PEOPLE:
            self._people[key] = Person(change.user, (change.connection or "",))
        else:
            self._knows_all = False
        return True


class PresenceView:
    """
    What a program can see of a presence, with each kind of client.

    :ivar members: the people, for the other kinds of clients.
    """

    def __init__(self, members: Members) -> None:
        """:param members: the people."""
        self.members = members

    @property
    def channel(self) -> str:
        """The channel."""
        return self.members.channel

    @property
    def people(self) -> list[Person]:
        """
        The people, as far as the server lists them. Those who have been there longest come first.

        A server lists at most 500, and the client adds those who join later, up to 10,000.
        """
        while True:
            try:
                return self.members.people
            except RuntimeError:  # the thread of a client without a loop has changed them in the meantime
                continue

    @property
    def users(self) -> list[str]:
        """The names of the people in :attr:`people` who have one."""
        return [person.user for person in self.people if person.user is not None]

    @property
    def count(self) -> int:
        """The number of all people, listed or not. A user with several connections counts once."""
        return self.members.count

    @property
    def connections(self) -> int:
        """The number of the connections of all people."""
        return self.members.connections

    @property
    def complete(self) -> bool:
        """
        Whether the last list had the people of all nodes. If it had not, the client asks again every three seconds.
        """
        return self.members.complete

    @property
    def closed(self) -> bool:
        """Whether the presence has ended, so that it no longer changes."""
        return self.members.closed

    def has(self, user: str) -> bool:
        """Return whether :attr:`people` has a user with this name."""
        return self.members.has(user)


def read_answer(reply: Message, channel: str) -> PeopleList | None:
    """
    Return the list in the reply to a ``presence`` message; ``None`` if it is a message about another channel.

    :raises RemoteProtocolError: if it is malformed.
    """
    found = reply.json()
    if not isinstance(found, dict) or not isinstance(found.get("people"), list):
        if "publish" in reply.headers:  # a join or leave in a channel that this client has just left
            return None
        raise RemoteProtocolError("the answer has no list of people")
    if found.get("channel") != channel:
        return None
    count, connections = _number(found.get("count")), _number(found.get("connections"))
    people = tuple(map(_person, found["people"]))
    return PeopleList(count, connections, found.get("complete") is not False, people)


def read_change(message: Message) -> tuple[PresenceChange, int, int]:
    """
    Return what a message about a join or leave tells, and the numbers of people and connections after it.

    :raises RemoteProtocolError: if it is malformed.
    """
    found = message.json()
    if not isinstance(found, dict) or found.get("event") not in ("join", "leave"):
        raise RemoteProtocolError("the message tells neither a join nor a leave")
    user = _user(found)
    change = PresenceChange(found["event"], user, _id(found.get("connection")))
    return change, _number(found.get("count")), _number(found.get("connections"))


def key_of(change: PresenceChange) -> str:
    """Return a key for the person of a change: the user, or the connection if the person is anonymous."""
    return _key_of(change.user, change.connection)


def _person(found: Any) -> Person:
    if not isinstance(found, dict) or not isinstance(found.get("connections"), list) or not found["connections"]:
        raise RemoteProtocolError("a person in the list has no connections")
    return Person(_user(found), tuple(map(_id, found["connections"])))


def _user(found: dict[str, Any]) -> str | None:
    user = found.get("user")
    if user is not None and not isinstance(user, str):
        raise RemoteProtocolError(f"user {user!r:.80} is neither a name nor null")
    return user


def _id(found: Any) -> str:
    if not isinstance(found, str):
        raise RemoteProtocolError(f"connection {found!r:.80} is no id")
    return found


def _number(found: Any) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise RemoteProtocolError(f"{found!r:.80} is not a number of people or connections")
    return found


def _key(person: Person) -> str:
    return _key_of(person.user, person.connections[0])


def _key_of(user: str | None, connection: str | None) -> str:
    return f"c{connection}" if user is None else f"u{user}"
