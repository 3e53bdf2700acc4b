"""The people of a room: their order, what is told of them, and what a change of thousands costs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.cluster.room import MAX_CONNECTIONS, MAX_PEOPLE, MAX_SIZE, Room
from lhttp_tx.cluster.roster import Entry
from lhttp_tx.codec.message import Message
from lhttp_tx.testing import Client, Server

ASK = "LHTTP/1.0 presence\r\nchannel:room\r\n\r\n"
JOIN = "LHTTP/1.0 chat\r\nsubscribe:room\r\n\r\n"


class Counted(str):
    """An id that counts how often ids are compared."""

    __slots__ = ()
    compared = 0

    def __lt__(self, other: str) -> bool:
        Counted.compared += 1
        return str.__lt__(self, other)

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def entry(connection: str, user: str | None = None, since: float = 1.0) -> Entry:
    return Entry(connection, "node", user, since)


def key(found: Entry) -> str:
    return found.user or found.connection


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from([None, "alice", "bob"]), st.sampled_from([1.0, 2.0])), max_size=40
    )
)
def test_a_room_is_as_if_it_were_made_anew_each_time(changes: list[tuple[int, str | None, float]]) -> None:
    room = Room()
    there: dict[str, Entry] = {}
    for number, user, since in changes:
        found = there.pop(f"c{number}", None)
        if found is None:
            found = there[f"c{number}"] = entry(f"c{number}", user, since)
            is_alone = [key(other) for other in there.values()].count(key(found)) == 1
            assert room.join(key(found), found) is is_alone
        else:
            assert room.leave(key(found), found) is (key(found) not in map(key, there.values()))
        people: dict[str, dict[str, Any]] = {}
        for each in sorted(there.values(), key=lambda one: one.age):
            people.setdefault(key(each), {"user": each.user, "connections": []})["connections"].append(each.connection)
        assert [{"user": one.user, "connections": one.connections} for one in room] == list(people.values())
        assert (len(room), room.connections) == (len(people), len(there))
        assert json.loads(room.told()) == list(people.values())


@pytest.mark.parametrize("user", [None, "alice"], ids=["many people", "one person"])
def test_who_comes_and_goes_is_not_compared_with_everybody(user: str | None) -> None:
    room = Room()
    entries = [entry(Counted(f"{number:05}"), user) for number in range(3_000)]
    for found in entries:
        room.join(key(found), found)
    Counted.compared = 0
    for found in entries[1_000:1_010]:
        room.leave(key(found), found)
        room.join(key(found), found)
    assert Counted.compared < 20 * 200  # a hundred steps of bisecting, in two lists


def filled(count: int) -> tuple[Server, list[Client], Client]:
    """Return a server with so many people in its room, them, and one who asks."""
    server = Server(presence=["room"])
    people = [server.connect(user=f"user{number:05}") for number in range(count)]
    for person in people:
        server.clock.advance(1)
        person.send(JOIN)
    return server, people, server.connect()


def test_an_answer_is_made_once_until_somebody_comes_or_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, asker = filled(50)
    asker.send(ASK)
    (first,) = asker.take()
    written: list[object] = []
    original = json.dumps
    monkeypatch.setattr(json, "dumps", lambda told, **options: written.append(told) or original(told, **options))
    for _ in range(10):
        asker.send(ASK)
    assert asker.take() == [first] * 10
    assert written == []


def test_an_answer_after_a_change_writes_down_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    server, people, asker = filled(200)
    asker.send(ASK)
    written: list[object] = []
    original = json.dumps
    monkeypatch.setattr(json, "dumps", lambda told, **options: written.append(told) or original(told, **options))
    server.clock.advance(1)
    newcomer = server.connect(user="newcomer")
    newcomer.send(JOIN)
    people[0].disconnect()
    written.clear()
    asker.send(ASK)
    answer = json.loads(asker.take()[-1].text)
    assert (answer["count"], answer["people"][0]["user"], answer["people"][-1]["user"]) == (
        200,
        "user00001",
        "newcomer",
    )
    assert len(written) == 2  # what is told of the room, and of the newcomer


def test_those_who_ask_get_the_same_bytes() -> None:
    server, _, asker = filled(3)
    other = server.connect()
    for client in (asker, other):
        client.send(ASK)
    (first,), (second,) = asker.take(), other.take()
    assert first == second
    assert first.headers == Message("x", {"channel": "room", "content-type": "application/json"}).headers


def test_an_answer_is_no_larger_than_other_messages() -> None:
    room = Room()
    for number in range(MAX_PEOPLE):
        found = entry(f"{number:024}", f"{number:03}" + "é" * 126)
        room.join(key(found), found)
    told = room.told()
    assert MAX_SIZE - 400 < len(told) < MAX_SIZE + 2
    assert 150 < len(json.loads(told)) < MAX_PEOPLE


def test_a_name_that_is_too_long_for_any_answer_is_not_told() -> None:
    room = Room()
    for found in (entry("a", "alice"), entry("b", "b" * MAX_SIZE, 2.0)):
        room.join(key(found), found)
    assert [person["user"] for person in json.loads(room.told())] == ["alice"]
    assert len(room) == 2


def test_a_person_is_told_with_a_bounded_number_of_connections() -> None:
    room = Room()
    for number in range(1_000):
        room.join("alice", entry(f"{number:04}", "alice"))
    ((person),) = json.loads(room.told())
    assert person["connections"] == [f"{number:04}" for number in range(MAX_CONNECTIONS)]
    assert (len(room), room.connections) == (1, 1_000)


def test_only_those_who_ask_make_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(Room, "told", lambda self: made.append(self) or b"[]")
    filled(10)
    assert made == []
