"""The tools for a user's tests are as strict as the real thing."""

import doctest

import pytest
from zope.interface.verify import verifyObject

from lhttp_tx import Message, testing
from lhttp_tx.frames import build_frame
from lhttp_tx.interfaces import ISessionTransport
from lhttp_tx.testing import Server, split_frames


def test_the_example_in_the_docstring_is_right() -> None:
    assert doctest.testmod(testing).failed == 0


def test_a_client_is_a_session_transport() -> None:
    assert verifyObject(ISessionTransport, Server().connect())


def test_text_and_bytes_can_be_sent() -> None:
    client = Server().connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    client.send(b"LHTTP/1.0 x\r\npublish:room\r\n\r\n\xff")
    client.send("LHTTP/1.0 x\r\npublish:room\r\n\r\nhi")
    client.send(Message("x", {"publish": "room"}, "ho"))
    assert [(message.body, message.binary) for message in client.take()] == [
        (b"\xff", True),
        (b"hi", False),
        (b"ho", False),
    ]


def test_who_has_gone_can_send_nothing() -> None:
    client = Server().connect()
    client.disconnect()
    with pytest.raises(ConnectionError):
        client.send("LHTTP/1.0 x\r\n\r\n")


def test_two_servers_with_one_bus_are_a_cluster() -> None:
    first = Server()
    second = Server(bus=first.bus)
    reader, writer = first.connect(), second.connect()
    reader.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    writer.send("LHTTP/1.0 x\r\npublish:room\r\n\r\nhi")
    assert [message.text for message in reader.take()] == ["hi"]


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frames_of_every_size_are_split(size: int) -> None:
    data = build_frame(bytes(size), True) + build_frame(b"next", False)
    assert split_frames(data) == [(bytes(size), True), (b"next", False)]


@pytest.mark.parametrize("data", [b"\x88\x00", b"\x81\x85hello", b"\x81\x05hell"])
def test_anything_but_whole_unmasked_data_frames_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="frame"):
        split_frames(data)
