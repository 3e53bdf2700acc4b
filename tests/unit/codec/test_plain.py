"""lhttp_tx.codec.plain: header lines in other forms, as JSON and the protocol have them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, strategies as st
from line_counter import count_lines

from lhttp_tx.codec.headers import Headers, read_pairs, split_lines
from lhttp_tx.codec.json_view import encode_json
from lhttp_tx.codec.plain import (
    are_lines,
    json_headers,
    plain_command,
    protobuf_headers,
    usual_head,
    usual_json,
    usual_pairs,
    usual_protobuf,
)
from lhttp_tx.codec.positions import is_marked, mark
from lhttp_tx.codec.protobuf_view import encode_protobuf
from lhttp_tx.errors import RemoteProtocolError
from lhttp_tx.web.events.encoding import view_json

PIECES = st.sampled_from(
    [b"a", b"A", b"b", b":", b" ", b"\t", b'"', b"\\", b"\xc3\xa9", b"\r\n", b"\n", b"\x00", b"\xff"]
)
LINES = st.lists(PIECES, max_size=24).map(b"".join) | st.lists(
    st.tuples(st.sampled_from([b"a", b"B", b'"', b"\\"]), st.lists(PIECES, max_size=4).map(b"".join)), max_size=5
).map(lambda pairs: b"".join(name + b":" + value + b"\r\n" for name, value in pairs))


def parsed(lines: bytes) -> Headers | None:
    """Return what the grammar says of header lines; ``None`` if it does not allow them."""
    try:
        return Headers(read_pairs(split_lines(lines))) if lines else Headers()
    except RemoteProtocolError:
        return None


@given(LINES)
def test_lines_are_those_of_the_grammar(lines: bytes) -> None:
    assert are_lines(lines) == (parsed(lines) is not None)


@given(LINES.filter(are_lines))
def test_json_says_the_same(lines: bytes) -> None:
    headers = parsed(lines)
    assert headers is not None
    expected: dict[str, list[str]] = {}
    for name, value in headers:
        expected.setdefault(next((known for known in expected if known.lower() == name.lower()), name), []).append(
            value
        )
    found = json.loads(json_headers(lines))
    assert found == {name: values if len(values) > 1 else values[0] for name, values in expected.items()}


@given(LINES.filter(are_lines), st.sampled_from([1, 60, 130, 20_000]))
def test_fields_are_as_long_as_they_say(lines: bytes, length: int) -> None:
    lines += b"long:" + b"x" * length + b"\r\n"
    raw, names = protobuf_headers(0x1A, lines), []
    while raw:
        match = re.match(rb"\x1a([\x80-\xff]*[\x00-\x7f])", raw)
        assert match is not None
        size = sum((byte & 127) << (7 * place) for place, byte in enumerate(match[1]))
        header, raw = raw[match.end() : match.end() + size], raw[match.end() + size :]
        assert len(header) == size
        names.append(header[2 : 2 + header[1]].decode("ascii"))
    headers = parsed(lines)
    assert headers is not None
    assert names == [name for name, _ in headers]


@pytest.mark.parametrize("start", [b"LHTTP/1.0 ", b"LHTTP/1.0 a b", b'LHTTP/1.0 "', b"LHTTP/1.0 \\", b"chat", b""])
def test_commands_that_need_care_are_left_alone(start: bytes) -> None:
    assert plain_command(start) is None


USUAL = st.lists(
    st.tuples(st.sampled_from([b"a", b"B", b"b", b"c-d", b"multipart", b"x" * 59, b"y" * 70]),
              st.sampled_from([b"", b"1", b"a b", b"v" * 59, b"w" * 70, b" b", b"b ", b'"', b"a:b"])),
    max_size=5,
).map(lambda pairs: b"".join(name + b":" + value + b"\r\n" for name, value in pairs))  # fmt: skip


@given(USUAL | LINES)
def test_what_is_usual_is_written_as_everything_else(lines: bytes) -> None:
    found = usual_head(b"LHTTP/1.0 chat\r\n" + lines)
    if found is None:
        return
    headers = parsed(lines)
    assert headers is not None
    assert len(headers.names()) == len(headers)
    assert "multipart" not in headers
    assert found == (b"chat", lines)
    assert json.loads(usual_json(lines)) == dict(headers)
    assert usual_pairs(lines) == [*headers]
    assert usual_protobuf(0x1A, lines) == protobuf_headers(0x1A, lines)


@pytest.mark.parametrize(
    ("lines", "is_usual"),
    [
        (b"", True),
        (b"a:b\r\nc:\r\n", True),
        (b"a:b\r\nA:c\r\n", False),
        (b"a: b\r\n", False),
        (b"a:b \r\n", False),
        (b"a:b:c\r\n", False),
        (b'a:"\r\n', False),
        (b"a:\\\r\n", False),
        (b"a:\xc3\xa9\r\n", False),
        (b"Multipart:0\r\n", False),
    ],
)
def test_most_heads_are_usual(lines: bytes, is_usual: bool) -> None:
    assert (usual_head(b"LHTTP/1.0 chat\r\n" + lines) is not None) is is_usual


@pytest.mark.parametrize("command", [b"c", b"x" * 64])
@pytest.mark.parametrize("offset", [1, 2**63 - 1])
def test_marked_messages_are_known_as_such(command: bytes, offset: int) -> None:
    raw = b"LHTTP/1.0 " + command + b"\r\npublish:room\r\n\r\nhello"
    assert is_marked(mark(raw, offset, offset - 1, "room"))
    assert not is_marked(raw)


def test_reading_a_history_leaves_the_heads_of_others_in_the_cache() -> None:
    alive = b"LHTTP/1.0 chat\r\npublish:room\r\n\r\n" + b"hello"
    for write in (encode_json, encode_protobuf):
        write(alive)
        before = count_lines(lambda write=write: write(alive))
        for number in range(1, 3_000):
            write(mark(alive, number, number - 1, "room"))
        assert count_lines(lambda write=write: write(alive)) == before


@pytest.mark.parametrize("write", [encode_json, encode_protobuf, partial(view_json, binary=False)])
def test_heads_that_are_never_the_same_cost_few_lines(write: Callable[[bytes], bytes]) -> None:
    """A client asks for a thousand messages of a history with a few bytes; each has another offset."""
    raw = b"LHTTP/1.0 chat\r\noffset:%d\r\nafter:%d\r\npublish:room\r\nn:%d\r\n\r\nhello"
    payloads = [raw % (number, number - 1, number) for number in range(100)]
    write(payloads[0])
    assert count_lines(lambda: [write(payload) for payload in payloads[1:]]) < 30 * 100


@pytest.mark.parametrize("write", [encode_json, encode_protobuf])
def test_parts_cost_few_lines(write: Callable[[bytes], bytes]) -> None:
    part = b"a:b\r\na:c\r\n\r\n"
    offsets = b" ".join(b"%d" % (number * len(part)) for number in range(100))
    raw = b"LHTTP/1.0 chat\r\nmultipart:" + offsets + b"\r\n\r\n" + part * 100
    assert count_lines(lambda: write(raw)) < 45 * 100
