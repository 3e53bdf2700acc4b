"""Publishing without a reference to the server."""

from collections.abc import Iterator

import pytest

import lhttp_tx
from lhttp_tx import Message, running
from lhttp_tx.testing import Server


@pytest.fixture(autouse=True)
def alone() -> None:
    """Forget the server of a test before."""
    running.stand_in(None)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    running.add(server)
    yield server
    running.discard(server)


def test_publish_finds_the_running_server(server: Server) -> None:
    client = server.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    lhttp_tx.publish("room", "news", body="hello")
    assert client.take() == [Message("news", {"publish": "room"}, "hello")]


def test_publish_without_a_server_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="no LHTTP server runs"):
        lhttp_tx.publish("room", "news")


def test_publish_with_two_servers_says_what_to_do(server: Server) -> None:
    other = Server()
    running.add(other)
    try:
        with pytest.raises(RuntimeError, match="several LHTTP servers"):
            lhttp_tx.publish("room", "news")
    finally:
        running.discard(other)


def test_control_and_presence_of_the_running_server_are_found() -> None:
    server = Server(presence=["room"])
    running.add(server)
    assert (running.control(), running.presence()) == (server.control, server.presence)
    running.discard(server)
    running.stand_in(None)
    for find in (running.control, running.presence):
        with pytest.raises(RuntimeError, match="no LHTTP server runs in this process"):
            find()


def test_control_with_two_servers_says_what_to_do(server: Server) -> None:
    other = Server()
    running.add(other)
    try:
        with pytest.raises(RuntimeError, match=r"use service\.control of the one you mean"):
            running.control()
    finally:
        running.discard(other)


def test_discarding_what_does_not_run_does_nothing() -> None:
    running.discard(Server())


def test_a_server_that_is_added_twice_is_one() -> None:
    server = Server()
    for _ in range(2):
        running.add(server)
    assert running.control() is server.control
    running.discard(server)
    running.stand_in(None)
    with pytest.raises(RuntimeError, match="no LHTTP server runs"):
        running.control()


def test_a_server_that_runs_comes_before_one_that_stands_in(server: Server) -> None:
    other = Server()
    client = server.connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    other.connect()
    lhttp_tx.publish("room", "news")
    assert len(client.take()) == 1
