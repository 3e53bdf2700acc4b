"""Publishing without a reference to the server."""

from collections.abc import Iterator

import pytest

import lhttp_tx
from lhttp_tx import Message, running
from lhttp_tx.testing import Server


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    running.add(server.engine)
    yield server
    running.discard(server.engine)


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
    running.add(other.engine)
    try:
        with pytest.raises(RuntimeError, match="several LHTTP servers"):
            lhttp_tx.publish("room", "news")
    finally:
        running.discard(other.engine)


def test_control_and_presence_of_the_running_server_are_found() -> None:
    server = Server(presence=["room"])
    running.add(server.engine, server.community)
    assert (running.control(), running.presence()) == (server.control, server.presence)
    running.discard(server.engine)
    for find in (running.control, running.presence):
        with pytest.raises(RuntimeError, match="no LHTTP server runs in this process"):
            find()


def test_control_with_two_servers_says_what_to_do(server: Server) -> None:
    other = Server()
    running.add(other.engine)
    try:
        with pytest.raises(RuntimeError, match=r"use service\.control of the one you mean"):
            running.control()
    finally:
        running.discard(other.engine)


def test_discarding_what_does_not_run_does_nothing() -> None:
    running.discard(Server().engine)
