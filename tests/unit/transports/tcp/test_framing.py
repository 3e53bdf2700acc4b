"""lhttp_tx.transports.tcp.framing: where a message ends, and what is no length."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.transports.tcp.framing import LENGTHS, begins, by_kind, take_messages
from unit.transports.tcp._stack import framed, split

LARGEST = 131_072


@given(st.lists(st.binary(max_size=300), max_size=20), st.binary(max_size=0))
def test_what_is_framed_is_taken(payloads: list[bytes], rest: bytes) -> None:
    taken = take_messages(framed(*payloads), LARGEST)
    assert taken.messages == [payload for payload in payloads if payload]
    assert (taken.position, taken.wanted, taken.error) == (len(framed(*payloads)), 0, None)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6), st.data())
def test_a_stream_can_be_cut_anywhere(payloads: list[bytes], data: st.DataObject) -> None:
    stream = framed(*payloads)
    cut = data.draw(st.integers(0, len(stream)))
    first = take_messages(stream[:cut], LARGEST)
    assert first.error is None
    assert (first.wanted == 0) == (first.position == cut)
    assert first.position + first.wanted <= len(stream)
    second = take_messages(stream[first.position :], LARGEST)
    assert [*first.messages, *second.messages] == payloads


@given(st.binary(max_size=64))
def test_no_bytes_are_too_strange(data: bytes) -> None:
    taken = take_messages(data, 20)
    assert 0 <= taken.position <= len(data)
    assert sum(map(len, taken.messages)) <= taken.position


@pytest.mark.parametrize("line", [b"", b"0", b"1", b"17", b"1234567890"])
def test_the_beginning_of_a_length_is_waited_for(line: bytes) -> None:
    assert take_messages(line, 2**31) == ([], 0, len(line) + 1 if line else 0, None)
    assert not begins(line)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        *((line, 400) for line in (b"007\nabcdefg", b"00\n", b"+5\nabcde", b"-1\n", b"-0", b" 5\n", b"5 \n", b"5\r\n")),
        *((line, 400) for line in (b"\n", b"\r\n", b"0x5\n", b"5.0\n", b"1e3\n", b"1_0\n", b"\xd9\xa1\n", b"GET / ")),
        *((line, 413) for line in (b"131073\n", b"9999999999\n", b"12345678901", b"9" * 5_000)),
    ],
)
def test_what_is_no_length_is_an_error_at_once(line: bytes, status: int) -> None:
    taken = take_messages(framed(b"before") + line, LARGEST)
    assert taken.messages == [b"before"]
    assert taken.error is not None
    assert taken.error.status == status
    assert (taken.position, taken.wanted) == (len(framed(b"before")), 0)


def test_the_largest_message_is_taken() -> None:
    assert take_messages(framed(b"x" * LARGEST), LARGEST).messages == [b"x" * LARGEST]


def test_a_message_says_how_many_bytes_are_wanted() -> None:
    assert take_messages(b"5\nab", LARGEST) == ([], 0, 7, None)


def test_heartbeats_are_skipped_together() -> None:
    assert take_messages(b"0\n" * 30_000 + b"1\nx" + b"0\n0", LARGEST) == ([b"x"], 60_005, 2, None)


def test_text_and_binary_messages_are_told_apart() -> None:
    messages = [b"a", "ä".encode(), b"\xff", b"\xfe", b"b"]
    assert list(by_kind(messages)) == [(messages[:2], False), (messages[2:4], True), (messages[4:], False)]
    assert list(by_kind([b"a", b"b"])) == [([b"a", b"b"], False)]


def test_deliveries_are_framed_alike_whether_text_or_binary() -> None:
    assert split(LENGTHS.encode([b"a", b"", b"\xff" * 10], True)) == [b"a", b"", b"\xff" * 10]
    assert LENGTHS.encode([b"abc"], False) == b"3\nabc"
