"""lhttp_tx.codec.json_view: messages as JSON objects."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st
from integration._vectors import octets, parametrized, read
from line_counter import count_lines

from lhttp_tx.codec.headers import Headers
from lhttp_tx.codec.json_view import decode_json, encode_json
from lhttp_tx.codec.limits import UNLIMITED, Limits
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.codec.multipart import Part, join_parts, parse_offsets, split_parts
from lhttp_tx.errors import RemoteProtocolError

names = st.text("abcXYZ-09!~", min_size=1, max_size=8)
values = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map(lambda value: value.strip(" \t"))
headers = st.lists(st.tuples(names, values), max_size=6)
bodies = st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))
parts = st.lists(st.builds(Part, headers.map(Headers), bodies), min_size=1, max_size=4)


def grouped(pairs: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name.lower(), []).append(value)
    return found


@parametrized("views")
def test_a_message_is_written_as_the_vector_says(entry: dict[str, Any]) -> None:
    written = encode_json(octets(entry, "raw"))
    assert json.loads(written) == entry["json"]
    assert list(json.loads(written)) == list(entry["json"])
    assert b"\n" not in written and b"\r" not in written


@parametrized("views")
def test_a_view_is_read_as_the_vector_says(entry: dict[str, Any]) -> None:
    expected = octets(entry, "read" if "read" in entry else "raw"), entry.get("read_binary", entry["binary"])
    for text in (json.dumps(entry["json"]), encode_json(octets(entry, "raw")).decode("utf-8"), *entry.get("also", ())):
        assert decode_json(text.encode("utf-8")) == expected, text


@parametrized("malformed_json")
def test_a_text_that_is_no_view_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_json(octets(entry, "json"))
    assert caught.value.status == entry["status"]
    assert entry["reason"] in caught.value.reason
    assert caught.value.reason.isprintable() and len(caught.value.reason) <= 200


@pytest.mark.parametrize("name", ["views", "malformed_json"])
def test_names_are_unique(name: str) -> None:
    found = [entry["name"] for entry in read(name)]
    assert sorted(set(found)) == sorted(found)


@pytest.mark.parametrize("raw", [octets(entry, "raw") for entry in read("messages")])
def test_every_vector_of_messages_comes_back(raw: bytes) -> None:
    message = parse(raw)
    again = parse(decode_json(encode_json(raw), max_parts=0)[0])
    assert again.command == message.command
    assert grouped(again.headers.without(("multipart",))) == grouped(message.headers.without(("multipart",)))
    if "BODYS" in json.loads(encode_json(raw)):
        offsets, expected = (one.headers.get("multipart", "") for one in (again, message))
        found = split_parts(parse_offsets(offsets), again.body)
        assert [one.body for one in found] == [one.body for one in split_parts(parse_offsets(expected), message.body)]
    else:
        assert again.body == message.body


@given(names, headers, bodies)
def test_what_is_written_is_read_back(command: str, pairs: list[tuple[str, str]], body: bytes) -> None:
    pairs = [(name, value) for name, value in pairs if name.lower() != "multipart"]
    raw, _ = decode_json(encode_json(Message(command, pairs, body, binary=True).raw))
    again = parse(raw)
    assert (again.command, grouped(again.headers), again.body) == (command, grouped(pairs), body)


@given(parts)
def test_parts_are_written_and_read_back(given_parts: list[Part]) -> None:
    offsets, body = join_parts(given_parts)
    view = encode_json(Message("up", [("multipart", offsets)], body, binary=True).raw)
    assert len(json.loads(view)["BODYS"]) == len(given_parts)
    again = parse(decode_json(view)[0])
    found = split_parts(parse_offsets(again.headers.get("multipart", "")), again.body)
    expected = [(grouped(part.headers), part.body) for part in given_parts]
    assert [(grouped(part.headers), part.body) for part in found] == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@given(
    st.dictionaries(
        st.sampled_from(["VERSION", "COMMAND", "HEADERS", "BODY", "BODY_BASE64", "BODYS", "body", "x"]),
        json_values | st.sampled_from(["c", "LHTTP/1.0", "aGk=", [], [{"BODY": "x"}], {"h": "v"}]),
    )
)
def test_any_object_is_read_or_refused(value: dict[str, Any]) -> None:
    try:
        raw, binary = decode_json(json.dumps(value).encode("ascii"))
    except RemoteProtocolError as error:
        assert error.status in (400, 413)
        assert error.reason.isprintable()
    else:
        assert parse(raw, binary=binary).raw == raw


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_json(data)


@pytest.mark.parametrize(
    "payload", [b"", b"hello", b"LHTTP/1.0 c", b"LHTTP/1.0 c\r\nno colon\r\n\r\n", b"LHTTP/1.0 c\r\nh:\xff\r\n\r\n"]
)
def test_what_is_no_message_is_not_written(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        encode_json(payload)


def test_base64_makes_a_binary_message_even_of_text() -> None:
    assert decode_json(b'{"COMMAND":"c","BODY_BASE64":"aGk="}') == (b"LHTTP/1.0 c\r\n\r\nhi", True)
    assert decode_json(b'{"COMMAND":"c","BODYS":[{"BODY_BASE64":"aGk="}]}')[1] is True


def test_limits_count_the_message_and_not_its_view() -> None:
    raw = Message("c", [], "x" * 87).raw
    assert len(raw) == 102
    escaped = raw[:15].decode("ascii") + "\\u0078" * 87
    view = f'{{"COMMAND":"c","BODY":"{escaped[15:]}"}}'.encode("ascii")
    assert decode_json(view, Limits(message_size=102))[0] == raw
    with pytest.raises(RemoteProtocolError, match="message of 102 bytes is larger than 101") as caught:
        decode_json(view, Limits(message_size=101))
    assert caught.value.status == 413


def test_a_body_with_many_brackets_is_read() -> None:
    body = json.dumps([{"a": [1, 2, 3], "b": '"'}] * 1_500)
    view = encode_json(Message("c", [("publish", "a")], body).raw)
    assert parse(decode_json(view)[0]).text == body


def test_many_parts_are_written_and_too_many_are_left_together() -> None:
    for count, is_split in ((500, True), (501, False)):
        offsets, body = join_parts([Part(body=b"x")] * count)
        view = encode_json(Message("up", [("multipart", offsets)], body).raw)
        assert ("BODYS" in json.loads(view)) is is_split
        assert parse(decode_json(view, UNLIMITED, max_parts=0)[0]).headers.get("multipart") == offsets


def lines_of(data: bytes) -> int:
    def read_it() -> None:
        with pytest.raises(RemoteProtocolError):
            decode_json(data)

    return count_lines(read_it)


def test_structure_costs_no_more_than_its_bound() -> None:
    few = lines_of(b'{"COMMAND":"c","BODYS":[' + b"{}," * 128 + b"{}]}")
    for data in (
        b"[" * 131_072,
        b'{"a":' * 26_000,
        b"[" + b"[]," * 43_000 + b"[]]",
        b"[" + b'"",' * 43_000 + b'""]',
        b'{"COMMAND":"c","BODYS":[' + b"{}," * 43_000 + b"{}]}",
        b'{"COMMAND":"c","HEADERS":{' + b'"h":"v",' * 16_000 + b'"h":"v"}}',
        b'{"COMMAND":"c","HEADERS":[' + b'["h","v"],' * 13_000 + b'["h","v"]]}',
        b'{"COMMAND":"c","HEADERS":{"h":[' + b'"",' * 43_000 + b'""]}}',
        b'{"COMMAND":"c","BODY":"' + b'\\"' * 65_000,
        b'{"COMMAND":"c","BODY":[' + b"1," * 65_000 + b"1]}",
        b'{"COMMAND":"c","BODY":"' + b'\\"{' * 43_000,
        b'{"COMMAND":"c","BODY":"' + b'\\"{' * 43_000 + b"\\",
    ):
        assert lines_of(data) <= 4 * few, data[:40]
