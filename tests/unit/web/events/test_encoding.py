"""lhttp_tx.web.events.encoding: messages as events, which no message can break out of."""

from __future__ import annotations

import base64
import json

import pytest
from event_source import parse_events
from hypothesis import given, strategies as st

from lhttp_tx.codec.message import Message
from lhttp_tx.codec.positions import mark
from lhttp_tx.engine.answers import close_message, missed_message
from lhttp_tx.web.events.encoding import Several, Single, view_body, view_json

NASTY = "\n\nid: 666\nevent: error\r\rdata: x\u2028\u2029\x85\x0b\x0c\0: "


def publication(body: str = "hi", command: str = "chat", *, channel: str = "room", binary: bool = False) -> bytes:
    return Message(command, {"publish": channel}, body, binary=binary).raw


def epoch_of(channel: str) -> str | None:
    return "e1" if channel == "room" else None


@given(st.text() | st.just(NASTY), st.from_regex(r"[!-~]{1,64}", fullmatch=True))
def test_the_json_of_any_message_is_one_event(body: str, command: str) -> None:
    (event,) = parse_events(view_json(publication(body, command), False))
    assert (event.name, event.body, event.last_id) == (command, body, "")
    assert event.message["COMMAND"] == command


@given(st.text() | st.just(NASTY))
def test_the_body_of_any_message_is_one_event_with_its_lines(body: str) -> None:
    (event,) = parse_events(view_body(publication(body), False))
    assert event.data == body.replace("\r\n", "\n").replace("\r", "\n")
    assert (event.name, event.last_id) == ("chat", "")


@given(st.text())
def test_json_has_no_character_that_a_library_may_take_for_a_line_end(body: str) -> None:
    (line,) = view_json(publication(body), False).decode().split("data: ")[1].split("\n\n")[:1]
    assert len(line.splitlines()) == 1


@given(st.binary())
def test_a_binary_body_is_a_data_url(body: bytes) -> None:
    raw = Message("chat", {"publish": "room"}, body, binary=True).raw
    (event,) = parse_events(view_body(raw, True))
    kind, _, coded = event.data.partition(",")
    assert kind == "data:application/octet-stream;base64"
    assert base64.b64decode(coded) == body


@pytest.mark.parametrize("command", ["missed", "error", "close", "receipt"])
def test_the_servers_own_messages_are_json_beside_bodies(command: str) -> None:
    raw = Message(command, {"channel": "room"}).raw
    assert json.loads(parse_events(view_body(raw, False))[0].data)["HEADERS"] == {"channel": "room"}
    forged = view_json(raw, False).partition(b"data: ")[2].decode("ascii").strip()
    told = json.loads(parse_events(view_body(publication(forged, command), False))[0].data)
    assert (told["HEADERS"], told["BODY"]) == ({"publish": "room"}, forged), "a publication passes for the server's own"


def test_a_stream_of_one_channel_has_positions_as_ids() -> None:
    marked = [mark(publication(str(number)), number, number - 1, "room") for number in (7, 8)]
    events = parse_events(Single(view_json, "room", epoch_of).encode([publication(), *marked], False))
    assert [(event.body, event.last_id) for event in events] == [("hi", ""), ("7", "e1-7"), ("8", "e1-8")]


def test_where_the_epoch_is_not_known_there_is_no_id() -> None:
    encoded = Single(view_json, "other", epoch_of).encode([mark(publication(), 7, 6, "other")], False)
    assert b"id:" not in encoded


def test_what_is_no_message_is_left_out() -> None:
    payloads = [b"LHTTP/1.0 a\nid: 1\n\n", b"", b"nonsense", publication()]
    assert [event.body for event in parse_events(Single(view_json, "room", epoch_of).encode(payloads, False))] == ["hi"]
    assert len(Several(view_json).encode(payloads, False)) == 1


def test_a_gap_tells_its_position() -> None:
    gap = missed_message("room", "e1-9").raw
    (event,) = parse_events(Single(view_json, "room", epoch_of).encode([gap], False))
    assert (event.name, event.last_id) == ("missed", "e1-9")
    assert Several(view_json).encode([gap], False)[0][:2] == (0, b"e1-9")


@pytest.mark.parametrize("raw", [
    Message("missed", {"channel": "room", "position": "e1-9", "publish": "room"}).raw,
    Message("missed", {"publish": "room", "channel": "room", "position": "e1-9"}).raw,
    Message("missed", {"channel": "room", "position": "e1-9"}, "x").raw,
    Message("missed", {"channel": "room", "position": "e1-9 id"}).raw,
])  # fmt: skip
def test_a_publication_cannot_pretend_to_be_a_gap(raw: bytes) -> None:
    (event,) = parse_events(Single(view_json, "room", epoch_of).encode([raw], False))
    assert event.last_id == ""
    assert Several(view_json).encode([raw], False)[0][1] == b""


def test_the_reason_of_a_close_cannot_break_out() -> None:
    (event,) = parse_events(view_json(close_message(4000, "gone\n\nid: 1\ud800").raw, False))
    assert (event.name, event.last_id) == ("close", "")
    assert event.message["HEADERS"]["code"] == "4000"
