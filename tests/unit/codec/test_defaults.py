"""lhttp_tx.codec.defaults: headers that every message of a command gets."""

from __future__ import annotations

from typing import Any

import pytest

from lhttp_tx.codec.defaults import NO_DEFAULTS, DefaultHeaders, read_defaults
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.errors import LHTTPError

LIMITS = Limits()


def test_default_headers_come_right_behind_the_start_line() -> None:
    defaults = DefaultHeaders({"chat": {"content-type": "json", "store": "no"}})
    message = parse(b"LHTTP/1.0 chat\r\npublish:a\r\n\r\nhello\r\n\r\n")
    found = defaults.complete_message(message, LIMITS)
    assert found.raw == b"LHTTP/1.0 chat\r\ncontent-type:json\r\nstore:no\r\npublish:a\r\n\r\nhello\r\n\r\n"
    assert parse(found.raw) == found
    assert parse(found.raw).headers == found.headers


def test_a_head_without_a_blank_line_gets_them_too() -> None:
    found = DefaultHeaders({"c": {"a": "1"}}).complete_message(parse(b"LHTTP/1.0 c\r\n"), LIMITS)
    assert found.raw == b"LHTTP/1.0 c\r\na:1\r\n"


@pytest.mark.parametrize("own", [b"a:2", b"A:2", b"a:"])
def test_a_header_of_the_message_wins_even_if_it_is_empty(own: bytes) -> None:
    message = parse(b"LHTTP/1.0 c\r\n" + own + b"\r\n\r\n")
    assert DefaultHeaders({"c": {"a": "1"}}).complete_message(message, LIMITS) is message


def test_other_commands_get_none() -> None:
    message = parse(b"LHTTP/1.0 C\r\n\r\n")
    assert DefaultHeaders({"c": {"a": "1"}}).complete_message(message, LIMITS) is message
    assert NO_DEFAULTS.complete_message(message, LIMITS) is message


def test_what_is_added_counts_for_the_bounds() -> None:
    defaults = DefaultHeaders({"c": {"a": "12345"}})
    message = Message("c", [("b", "1")], b"x" * 10)
    size = len(message.raw) + len(b"a:12345\r\n")
    assert len(defaults.complete_message(message, Limits(message_size=size)).raw) == size
    head = size - len(b"\r\n") - 10
    defaults.complete_message(message, Limits(head_size=head, message_size=size))
    for limits in (Limits(message_size=size - 1), Limits(head_size=head - 1), Limits(header_count=1)):
        with pytest.raises(LHTTPError) as caught:
            defaults.complete_message(message, limits)
        assert caught.value.status == 413


@pytest.mark.parametrize(
    ("table", "place", "problem"),
    [
        ([], (), "default-headers is a table of tables: write [default-headers.COMMAND]"),
        ({"a": "b"}, (), "default-headers is a table of tables: write [default-headers.COMMAND]"),
        ({"a b": {}}, ("a b",), "command 'a b' is not 1 to 64 visible ASCII characters"),
        ({"c": {"a": 1}}, ("c", "a"), "header a of c is a string"),
        ({"c": {"a b": ""}}, ("c", "a b"), "header name 'a b' is not visible ASCII characters without a colon"),
        ({"c": {"a": "1\r\nb:2"}}, ("c", "a"), "value '1\\r\\nb:2' of header a holds a control character"),
        ({"c": {"Receipt": "1"}}, ("c", "Receipt"), "header Receipt cannot have a default: each message needs its own"),
        (
            {"c": {"multipart": "0"}},
            ("c", "multipart"),
            "header multipart cannot have a default: it depends on the body",
        ),
        ({"c": {"a": "1", "A": "2"}}, ("c", "A"), "header A of c has two defaults"),
        ({"c": {"publish": "a..b"}}, ("c", "publish"), "channel 'a..b' has an empty token"),
        ({"c": {"a": "x" * 2_050}}, ("c",), "the headers of c have 2054 bytes, and at most 2048 are allowed"),
    ],
)
def test_a_mistake_is_told_with_its_place(table: Any, place: tuple[str, ...], problem: str) -> None:
    assert read_defaults(table) == (NO_DEFAULTS, [(place, problem)])


def test_a_mistake_of_a_program_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot have a default"):
        DefaultHeaders({"c": {"receipt": "1"}})


def test_there_are_not_too_many() -> None:
    _, problems = read_defaults({f"c{number}": {} for number in range(1_001)})
    assert problems == [((), "1001 commands have default headers, and at most 1000 are allowed")]
