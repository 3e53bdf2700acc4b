"""lhttp_tx.cluster.listing: what a node tells of its connections and channels."""

from __future__ import annotations

from typing import Any

import pytest

from lhttp_tx.identity import Identity
from lhttp_tx.testing import Server

JOIN = "LHTTP/1.0 x\r\nsubscribe:{}\r\n\r\n"


def asked(server: Server, do: str, **details: Any) -> Any:
    found: list[Any] = []
    server.control.survey(do, **details).addCallback(found.append)
    ((answers, unanswered),) = found
    assert unanswered == ()
    (answer,) = answers.values()
    return answer


def search(server: Server, text: str, kinds: str = "user connection channel", patterns: str = ">") -> list[Any]:
    found = asked(server, "search", text=text, kinds=kinds.split(), patterns=patterns.split(), limit=3)
    return [tuple(row[:3]) for row in found]


@pytest.fixture
def server() -> Server:
    found = Server()
    for user, channel in (("Anna", "news.ANNOUNCED"), ("anna", "news.de"), ("bob", "annals"), ("bob", "$own")):
        found.connect(user=user).send(JOIN.format(channel))
    return found


def test_a_search_finds_parts_of_names_whatever_their_case(server: Server) -> None:
    assert search(server, "ann", "user channel") == [
        ("user", "Anna", 1),
        ("user", "anna", 1),
        ("channel", "annals", 1),
        ("channel", "news.ANNOUNCED", 1),
    ]
    assert search(server, "BOB") == [("user", "bob", 2)]
    assert search(server, "nobody") == []


def test_a_search_finds_connections_by_id_and_by_address(server: Server) -> None:
    client = server.connect(user="carl")
    connection = client.session.identity.connection_id
    assert search(server, connection[3:20].upper()) == [("connection", connection, 1)]
    found = asked(server, "search", text=client.peer, kinds=["connection"], patterns=[">"], limit=10)
    assert ["connection", connection, 1] in [row[:3] for row in found]


def test_a_search_looks_only_where_it_may(server: Server) -> None:
    assert search(server, "ann", "user") == [("user", "Anna", 1), ("user", "anna", 1)]
    assert search(server, "ann", "channel", "news.>") == [("channel", "news.ANNOUNCED", 1)]


def test_a_search_is_bounded(server: Server) -> None:
    for number in range(9):
        server.connect(user=f"user{number}")
    assert search(server, "user", "user") == [("user", f"user{number}", 1) for number in range(3)]


def test_one_connection_is_told_in_full(server: Server) -> None:
    client = server.connect(user="carl")
    for number in range(60):
        client.send(JOIN.format(f"c{number:02}"))
    session = client.session
    session.identity = Identity("carl", session.identity.connection_id, {"role": "x", "sub": "y"}, expires=7.5)
    (found,) = asked(server, "connection", connection=session.identity.connection_id)
    assert (found["user"], found["subscriptions"], len(found["channels"])) == ("carl", 60, 60)
    assert (found["state"], found["codec"], found["queued_bytes"]) == ("idle", "lhttp", 0)
    assert (found["expires"], found["claims"]) == (7.5, ["role", "sub"])
    assert "y" not in found["claims"]
    session.close()
    assert asked(server, "connection", connection=session.identity.connection_id) == []


def test_users_are_counted_once(server: Server) -> None:
    server.connect()
    found = asked(server, "info")
    assert (found["connections"], found["users"]) == (5, 3)
