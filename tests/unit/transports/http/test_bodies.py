"""lhttp_tx.transports.http.bodies: one message in a body, or several."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.codec.limits import DEFAULT_LIMITS
from lhttp_tx.errors import MessageTooLarge, RemoteProtocolError
from lhttp_tx.transports.http.bodies import MAX_MESSAGES, read_body

A, B = b"LHTTP/1.0 a\r\n\r\n1", b"LHTTP/1.0 b\r\n\r\n\xff"
JSON = "application/json; charset=utf-8"


def framed(*messages: bytes) -> bytes:
    return b"".join(b"%d\n%b" % (len(message), message) for message in messages)


def test_a_body_is_one_message() -> None:
    assert read_body(A, "text/plain", DEFAULT_LIMITS) == [([A], False)]


def test_an_empty_body_has_no_message() -> None:
    assert read_body(b"", JSON, DEFAULT_LIMITS) == []


def test_a_message_that_is_no_text_is_binary() -> None:
    assert read_body(B, "", DEFAULT_LIMITS) == [([B], True)]


def test_a_type_makes_text_binary() -> None:
    assert read_body(A, "Application/Octet-Stream", DEFAULT_LIMITS) == [([A], True)]


def test_messages_of_one_kind_stay_together() -> None:
    assert read_body(framed(A, A, B, A), "", DEFAULT_LIMITS) == [([A, A], False), ([B], True), ([A], False)]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=20))
def test_what_was_framed_comes_back(messages: list[bytes]) -> None:
    runs = read_body(framed(*messages), "", DEFAULT_LIMITS)
    assert [message for run, _ in runs for message in run] == messages


@pytest.mark.parametrize(
    "body",
    [
        *(b"1", b"5\nabc", b"1\nab", b"123456789\na", b"1\na-1\n", b"1 \na", b"0x1\na"),
        *(b"+1\na", b" 1\na", b"-1\na", b"01\na", b"1\na+1\na", b"1\na01\na", b"1\na 1\na"),
    ],
)
def test_a_malformed_body_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_body(body, "", DEFAULT_LIMITS)


@given(st.binary(max_size=100))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    for kind in ("", JSON):
        try:
            runs = read_body(body, kind, DEFAULT_LIMITS)
        except RemoteProtocolError:
            continue
        assert all(isinstance(message, bytes) for run, _ in runs for message in run)


def test_a_body_has_a_bounded_number_of_messages() -> None:
    assert len(read_body(b"0\n" * MAX_MESSAGES, "", DEFAULT_LIMITS)[0][0]) == MAX_MESSAGES
    with pytest.raises(MessageTooLarge):
        read_body(b"0\n" * (MAX_MESSAGES + 1), "", DEFAULT_LIMITS)


def test_a_message_is_bounded() -> None:
    with pytest.raises(MessageTooLarge):
        read_body(framed(A), "", replace(DEFAULT_LIMITS, message_size=len(A) - 1))


def test_json_describes_one_message_or_several() -> None:
    one = {"COMMAND": "a", "HEADERS": {"x": "y"}, "BODY": "1"}
    raw = b"LHTTP/1.0 a\r\nx:y\r\n\r\n1"
    assert read_body(json.dumps(one).encode(), JSON, DEFAULT_LIMITS) == [([raw], False)]
    coded = {"command": "b", "body_base64": "/w=="}
    assert read_body(json.dumps([one, coded]).encode(), JSON, DEFAULT_LIMITS) == [
        ([raw], False),
        ([b"LHTTP/1.0 b\r\n\r\n\xff"], True),
    ]


@pytest.mark.parametrize("body", [b"[1]", b"[[]]", b"{}", b'[{"COMMAND":"a"},{}]', b"[" * 60_000, b"[{" * 30_000])
def test_malformed_json_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_body(body, JSON, DEFAULT_LIMITS)
