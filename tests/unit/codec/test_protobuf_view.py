"""lhttp_tx.codec.protobuf_view: messages as Protocol Buffers, beside Google's own reader and writer."""

from __future__ import annotations

from typing import Any

import pytest
from google_protobuf import MESSAGE, DecodeError
from hypothesis import given, strategies as st
from integration._vectors import octets, parametrized, read
from line_counter import count_lines

from lhttp_tx.codec.headers import Headers
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.codec.multipart import Part, join_parts, split_message
from lhttp_tx.codec.plain import protobuf_size
from lhttp_tx.codec.protobuf_view import decode_protobuf, encode_protobuf
from lhttp_tx.codec.text import is_text
from lhttp_tx.errors import RemoteProtocolError

names = st.text("abcXYZ-09!~", min_size=1, max_size=8).filter(lambda name: name.lower() != "multipart")
values = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=200).map(lambda value: value.strip(" \t"))
headers = st.lists(st.tuples(names, values), max_size=6)
bodies = st.binary(max_size=300) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))
parts = st.lists(st.builds(Part, headers.map(Headers), bodies), min_size=1, max_size=4)


def pairs_of(found: Any) -> list[tuple[str, str]]:
    return [(pair.name, pair.value) for pair in found.headers]


@parametrized("views")
def test_a_message_is_written_as_the_vector_says(entry: dict[str, Any]) -> None:
    assert encode_protobuf(octets(entry, "raw"), entry["binary"]) == octets(entry, "protobuf")


@parametrized("views")
def test_a_view_is_read_as_the_vector_says(entry: dict[str, Any]) -> None:
    key = next(name for name in ("read_protobuf", "read", "raw", "raw_base64") if name in entry)
    expected = octets(entry, key.removesuffix("_base64")), entry["binary"]
    assert decode_protobuf(octets(entry, "protobuf")) == expected


@parametrized("malformed_protobuf")
def test_what_is_no_view_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_protobuf(octets(entry, "protobuf"))
    assert caught.value.status == entry["status"]
    assert entry["reason"] in caught.value.reason
    assert caught.value.reason.isprintable() and len(caught.value.reason) <= 200


def test_names_are_unique() -> None:
    found = [entry["name"] for entry in read("malformed_protobuf")]
    assert sorted(set(found)) == sorted(found)


@given(names, headers, bodies, st.booleans())
def test_google_reads_what_is_written(command: str, pairs: list[tuple[str, str]], body: bytes, binary: bool) -> None:
    found = MESSAGE.FromString(encode_protobuf(Message(command, pairs, body, binary=True).raw, binary))
    assert (found.command, pairs_of(found), found.body, found.binary) == (command, pairs, body, binary)
    assert not found.version and not found.parts


@given(parts)
def test_google_reads_parts_that_are_written(given_parts: list[Part]) -> None:
    offsets, body = join_parts(given_parts)
    found = MESSAGE.FromString(encode_protobuf(Message("up", [("multipart", offsets)], body, binary=True).raw))
    assert [(pairs_of(part), part.body) for part in found.parts] == [
        (list(part.headers), part.body) for part in given_parts
    ]
    assert not found.body and not found.headers


@given(names, headers, bodies, st.booleans(), st.sampled_from(["", "LHTTP/1.0"]))
def test_what_google_writes_is_read(
    command: str, pairs: list[tuple[str, str]], body: bytes, binary: bool, version: str
) -> None:
    written = MESSAGE(command=command, body=body, binary=binary, version=version)
    for name, value in pairs:
        written.headers.add(name=name, value=value)
    raw, found = decode_protobuf(written.SerializeToString())
    assert raw == Message(command, pairs, body, binary=True).raw
    assert found is (binary or not is_text(body))


@given(parts)
def test_parts_that_google_writes_are_read(given_parts: list[Part]) -> None:
    written = MESSAGE(command="up")
    for part in given_parts:
        added = written.parts.add(body=part.body)
        for name, value in part.headers:
            added.headers.add(name=name, value=value)
    found = split_message(parse(decode_protobuf(written.SerializeToString())[0]))
    assert found is not None and list(found) == given_parts


@given(st.binary(max_size=40) | st.binary(max_size=30).map(lambda data: b"\x12\x01c" + data))
def test_any_bytes_are_read_as_google_reads_them_or_refused(data: bytes) -> None:
    try:
        raw, _ = decode_protobuf(data)
    except RemoteProtocolError as error:
        assert error.status in (400, 413)
        return
    try:
        found = MESSAGE.FromString(data)
    except DecodeError:
        return  # Google refuses some that say the same in a longer form
    message = parse(raw)
    assert message.command == found.command
    if not found.parts:
        assert message.body == found.body
        assert list(message.headers) == [(name, value.strip(" \t")) for name, value in pairs_of(found)]


@pytest.mark.parametrize("payload", [b"", b"hello", b"LHTTP/1.0 c", b"LHTTP/1.0 c\r\nno colon\r\n\r\n"])
def test_what_is_no_message_is_not_written(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        encode_protobuf(payload)


def test_fields_that_the_schema_does_not_have_are_skipped() -> None:
    unknown = b"\x38\x96\x01" + b"\x41" + bytes(8) + b"\x4d" + bytes(4) + b"\x52\x03abc" + b"\x10\x05"
    assert decode_protobuf(unknown + b"\x12\x01c" + unknown) == (b"LHTTP/1.0 c\r\n\r\n", False)


def test_limits_count_the_message() -> None:
    view = MESSAGE(command="c", body=b"x" * 87).SerializeToString()
    assert len(decode_protobuf(view, Limits(message_size=102))[0]) == 102
    with pytest.raises(RemoteProtocolError, match="message of 102 bytes is larger than 101"):
        decode_protobuf(view, Limits(message_size=101))


def lines_of(data: bytes) -> int:
    def read_it() -> None:
        with pytest.raises(RemoteProtocolError):
            decode_protobuf(data)

    return count_lines(read_it)


@pytest.mark.parametrize(("written", "counts"), [
    (b"\x0a\x01a\x12\x01b", (1, 64, 65)),
    (b"\x12\x01b\x0a\x01a", (1, 64, 65)),
    (b"\x0a\x01a\x12\x81\x00b", (1, 64, 65)),
    (b"\x0a\x01a\x12\x02\xc3\xa9", (1, 64, 65)),
    (b"\x0a\x01a", (1, 64, 65)),
])  # fmt: skip
def test_headers_are_read_however_they_are_written(written: bytes, counts: tuple[int, int, int]) -> None:
    header = b"\x1a%c%b" % (len(written), written)
    for count in counts:
        if count > 64:
            with pytest.raises(RemoteProtocolError):
                decode_protobuf(b"\x12\x01c" + header * count)
        else:
            raw, _ = decode_protobuf(b"\x12\x01c" + header * count)
            expected = pairs_of(MESSAGE.FromString(b"\x12\x01c" + header * count))
            assert [*parse(raw).headers] == expected


def test_only_so_many_headers_are_written_in_another_way() -> None:
    part = b"\x2a\x0a" + b"\x0a\x08" + b"\x7a\0\x12\x01b\x0a\x01a"
    assert decode_protobuf(b"\x12\x01c" + part * 64)
    with pytest.raises(RemoteProtocolError, match="too many fields"):
        decode_protobuf(b"\x12\x01c" + part * 65)


def test_parts_and_their_headers_are_bounded_together() -> None:
    header, part = b"\x0a\x06\x0a\x01a\x12\x01b", b"\x2a%c%b"
    for count, headers in ((128, 1), (44, 5), (1, 256)):
        body = (
            b"\x2a" + protobuf_size(len(header) * headers) + header * headers
            if headers > 15
            else part % (8 * headers, header * headers)
        )
        assert decode_protobuf(b"\x12\x01c" + body * count)
    with pytest.raises(RemoteProtocolError, match="the parts have more than 172 headers"):
        decode_protobuf(b"\x12\x01c" + part % (16, header * 2) * 128)


def test_fields_cost_no_more_than_their_bound() -> None:
    for data in (
        b"\x12\0" * 65_000,
        b"\x38\1" * 65_000,
        b"\x1a\x03\x0a\x01h" * 26_000,
        b"\x1a\x80\x80\x04" + b"\x0a\0" * 32_768,
        b"\x2a\0" * 65_000,
        b"\x12\x01c\x2a\x80\x80\x04" + b"\x0a\0" * 32_768,
        b"\x22\0" * 65_000,
        b"\xff" * 131_072,
        b"\x12\x01c" + (b"\x2a\xf4\x03" + b"\x12\0" * 250) * 125,
        b"\x12\x01c" + (b"\x2a\xf4\x03" + b"\x7a\0" * 250) * 125,
        b"\x12\x01c" + b"\x78" + b"\x80" * 9 + b"\x01" * 6_000,
        b"\x12\x01c" + b"\x2a\x12" + b"\x0a\x07\x7a\0\x7a\0\x0a\x01a" * 2,
        b"\x12\x01c" + (b"\x2a\x12" + b"\x0a\x07\x7a\0\x7a\0\x0a\x01a" * 2) * 128,
    ):
        assert lines_of(data) <= 12_000, data[:20]
