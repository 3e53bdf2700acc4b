"""Positions, lists of them, and the headers that a stored publication carries."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.codec.message import Message, parse
from lhttp_tx.codec.positions import (
    MAX_OFFSET,
    format_position,
    mark,
    mark_run,
    offset_of,
    offsets_of,
    parse_position,
    parse_positions,
    unmarked,
)
from lhttp_tx.errors import RemoteProtocolError

OFFSETS = st.integers(0, MAX_OFFSET)
FORGED = st.sampled_from(["offset", "after", "Offset", "OFFSET", "aFtEr", "Offset-Of"])
NAMES = st.one_of(FORGED, st.sampled_from(["publish", "offset-x", "x-offset", "afterwards", "%", "a%d", "x"]))
VALUES = st.sampled_from(["", "5", "%d", "%", "offset:5", "x\t:y", "é"])
COMMANDS = st.one_of(st.sampled_from(["say", "%", "%d%s", "%%", "offset:", "after:1"]), st.just("c" * 64))
MESSAGES = st.builds(
    Message,
    COMMANDS,
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
    st.sampled_from([b"", b"body", b"\r\n\r\noffset:1\r\nafter:1\r\n", b"\noffset:2\r\n", b"%d"]),
)


def plain(message: Message) -> list[tuple[str, str]]:
    return [pair for pair in message.headers if pair[0].lower() not in ("offset", "after", "offset-of")]


@given(st.from_regex(r"[0-9A-Za-z_]{1,32}", fullmatch=True), OFFSETS)
def test_a_position_is_read_as_it_was_written(epoch: str, offset: int) -> None:
    assert parse_position(format_position(epoch, offset)) == (epoch, offset)


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "E", "E-", "-1", "E-01", "E-+1", "E-1 ", " E-1", "E--1", "E-1-1", "E.F-1", "E-٣", "é-1", "E-1\n"),
        *("E" * 33 + "-1", f"E-{MAX_OFFSET + 1}", "E-99999999999999999999", "E-" + "9" * 10_000),
    ],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_position(text)
    assert len(caught.value.reason) < 200


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("E-5", {"a": ("E", 5), "b=c": ("E", 5)}),
        ("a=E-5", {"a": ("E", 5)}),
        ("a=E-5 b=c=F-6", {"a": ("E", 5), "b=c": ("F", 6)}),
        ("  a=E-5 \t b=c=F-6 ", {"a": ("E", 5), "b=c": ("F", 6)}),
    ],
)
def test_a_list_gives_a_channel_its_position(value: str, found: dict[str, tuple[str, int]]) -> None:
    assert parse_positions(value, ["a", "b=c"]) == found


@pytest.mark.parametrize(
    "value",
    ["", " ", "=E-5", "c=E-5", "a", "a=", "a=5", "E-5 a=E-5", "a=E-5 E-5", "E-5 E-5", "a=E-5,b=E-6", "a=E-5 a=E-7"],
)
def test_what_is_no_list_of_positions_is_refused(value: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_positions(value, ["a", "b=c"])


@given(MESSAGES, OFFSETS, OFFSETS)
def test_a_mark_is_that_of_the_server_wherever_a_publisher_has_put_its_own(
    message: Message, offset: int, after: int
) -> None:
    marked = mark(message.raw, offset, after, "room")
    found = parse(marked)
    assert (found.command, found.body) == (message.command, message.body)
    listed = " ".join(message.headers.get_all("publish")).split()
    name = [("offset-of", "room")] if len(listed) > 1 else []
    assert [*found.headers] == [("offset", str(offset)), ("after", str(after)), *name, *plain(message)]
    assert (offset_of(marked), offsets_of(marked)) == (offset, (offset, after))


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.integers(1, MAX_OFFSET - 10), st.integers(0, 1), st.booleans())
def test_a_run_is_marked_as_one_after_another(run: list[Message], offset: int, gap: int, alike: bool) -> None:
    payloads = [run[0].raw + b"x" * index for index in range(len(run))] if alike else [message.raw for message in run]
    before = [*payloads]
    after = max(offset - 1 - gap, 0)
    marks = [after, *range(offset, offset + len(payloads))]
    expected = [
        mark(payload, number, behind, "room")
        for payload, number, behind in zip(payloads, range(offset, MAX_OFFSET), marks, strict=False)
    ]
    assert mark_run(payloads, offset, after, "room") == expected
    assert payloads == before


@pytest.mark.parametrize("forged", ["", "offset:7\r\n", "x:y\r\nAFTER:7\r\n"])
def test_a_message_without_a_blank_line_is_marked_too(forged: str) -> None:
    payload = f"LHTTP/1.0 x\r\npublish:a\r\n{forged}".encode()
    marked = mark_run([payload, payload], 5, 3, "room")
    assert [offsets_of(found) for found in marked] == [(5, 3), (6, 5)]
    for found in marked:
        assert parse(found).headers.get("publish") == "a"
        assert len(parse(found).headers.get_all("offset")) == 1
        assert len(parse(found).headers.get_all("after")) == 1


def test_a_head_that_begins_as_the_first_one_does_is_looked_at() -> None:
    run = [b"LHTTP/1.0 x\r\n\r\n", b"LHTTP/1.0 x\r\noffset:999\r\nafter:998\r\n\r\n"]
    assert mark_run(run, 1, 0, "room")[1] == b"LHTTP/1.0 x\r\noffset:2\r\nafter:1\r\n\r\n"


@given(MESSAGES)
def test_what_has_no_mark_is_left_as_it_is(message: Message) -> None:
    found = unmarked(message.raw)
    if len(plain(message)) == len(message.headers):
        assert found is message.raw
    assert [*parse(found).headers] == plain(message)
    assert parse(found).body == message.body


@given(MESSAGES)
def test_a_publication_that_no_store_has_marked_has_no_offset(message: Message) -> None:
    assert offset_of(unmarked(message.raw)) == 0
    assert offsets_of(unmarked(message.raw)) == (0, 0)


@pytest.mark.parametrize(
    "head",
    [
        *("LHTTP/1.0 x\r\noffset:5\r\n", "LHTTP/1.0 x\r\nafter:5\r\noffset:5\r\n", "LHTTP/1.0 x\r\nOffset:5\r\n"),
        *("LHTTP/1.0 x\r\na:b\r\noffset:5\r\nafter:4\r\n", "LHTTP/1.0 x\r\noffset:-5\r\nafter:4\r\n"),
        *("LHTTP/1.0 x y\r\noffset:5\r\nafter:4\r\n", "LHTTP/1.0 x\r\noffset:\r\nafter:4\r\n"),
    ],
)
def test_what_looks_like_a_mark_is_none(head: str) -> None:
    assert offset_of(head.encode() + b"\r\n") == 0
