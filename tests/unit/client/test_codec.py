"""The option ``codec``: a program does not notice in which form its messages travel."""

from __future__ import annotations

from typing import Any

import pytest
from client_world import World
from twisted.internet.task import Clock

from lhttp_tx import Message, Part
from lhttp_tx.client import Client, multipart_message
from lhttp_tx.client.websocket.connection import MessageConnection
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.views import JSON, PROTOBUF

CODECS = {"text": None, "json": JSON, "protobuf": PROTOBUF}
BODIES = [b"", "é\r\n\r\n\x00\x1f".encode(), bytes(range(256)), b"x" * 60_000]


@pytest.fixture
def world(clock: Clock) -> World:
    return World(clock, Limits())


@pytest.mark.parametrize("codec", CODECS)
def test_bodies_travel_byte_for_byte(world: World, codec: Any) -> None:
    speaker, reader = world.connected(codec=codec), world.connected()
    assert speaker._uplink.link is not None and speaker._uplink.link.transport.view is CODECS[codec]
    read: list[Message] = []
    own: list[Message] = []
    world.result(reader.subscribe("room", read.append).confirmed())
    world.result(speaker.subscribe("room", own.append).confirmed())
    for body in BODIES:
        world.result(speaker.publish("room", "chat", {"n": "ü"}, body, binary=True))
    assert [message.body for message in read] == [message.body for message in own] == BODIES
    assert {message.headers.get("n") for message in own} == {"ü"}


@pytest.mark.parametrize("codec", CODECS)
def test_requests_and_parts_work(world: World, codec: Any) -> None:
    client = world.connected(codec=codec)
    assert world.result(client.request("echo", body="hi")).text == "hi"
    parts = [Part([("k", "1")], b"\xff"), Part([], b"two")]
    assert world.result(client.request(multipart_message("parts", parts))).body == b"\xff|two"


@pytest.mark.parametrize("codec", CODECS)
def test_uploads_in_fragments_travel_too(world: World, codec: Any) -> None:
    client = world.connected(codec=codec)
    steps: list[tuple[int, int]] = []
    message = multipart_message("parts", [Part([], b"x" * 50_000)], binary=False)
    assert world.result(client.upload(message, lambda *step: steps.append(step))).body == b"x" * 50_000
    assert len(steps) > 2 and steps[-1][0] == steps[-1][1]


@pytest.mark.parametrize("codec", ["json", "protobuf"])
def test_a_view_that_is_none_is_an_error_and_the_next_one_arrives(world: World, codec: Any) -> None:
    client = world.connected(codec=codec)
    link = client._uplink.link
    assert link is not None and isinstance(link.transport, MessageConnection)
    link.transport.onMessage(b"\xff{", False)
    assert [error.status for error in world.errors] == [400]
    assert world.result(client.request("echo", body="still")).text == "still"


def test_another_codec_is_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match="codec is text, json or protobuf, not 'xml'"):
        Client("ws://localhost/", reactor=clock, codec="xml")  # type: ignore[arg-type]
