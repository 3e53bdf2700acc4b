"""lhttp_tx.codec.headers: names with values, and their lines."""

import pytest

from lhttp_tx.codec.headers import Headers, parse_header_lines
from lhttp_tx.errors import RemoteProtocolError

HEADERS = Headers([("A", "1"), ("b", "2"), ("a", "3")])


def test_names_are_compared_without_regard_to_case() -> None:
    assert "a" in HEADERS
    assert "B" in HEADERS
    assert HEADERS.get("B") == "2"


def test_last_value_of_a_repeated_header_counts() -> None:
    assert HEADERS.get("a") == "3"


def test_all_values_of_a_repeated_header_can_be_had() -> None:
    assert HEADERS.get_all("A") == ("1", "3")


def test_absent_header_has_no_value() -> None:
    assert HEADERS.get("x") is None
    assert HEADERS.get("x", "default") == "default"
    assert HEADERS.get_all("x") == ()
    assert "x" not in HEADERS
    assert 1 not in HEADERS


def test_order_and_spelling_are_kept() -> None:
    assert list(HEADERS) == [("A", "1"), ("b", "2"), ("a", "3")]
    assert len(HEADERS) == 3
    assert HEADERS.names() == {"a", "b"}


def test_headers_can_be_left_out_in_every_spelling() -> None:
    assert HEADERS.without(["a"]) == Headers([("b", "2")])


def test_headers_are_equal_if_their_pairs_are() -> None:
    assert Headers([("a", "1")]) == Headers((("a", "1"),))
    assert hash(Headers([("a", "1")])) == hash(Headers([("a", "1")]))
    assert Headers([("a", "1")]) != Headers([("A", "1")])
    assert Headers() != ()


def test_header_lines_parse_without_a_start_line() -> None:
    assert parse_header_lines(b"h:1\r\nk: 2\r\n") == Headers([("h", "1"), ("k", "2")])
    assert parse_header_lines(b"") == Headers()


@pytest.mark.parametrize("raw", [b"h:1", b"h\r\n", b"h:1\n", b"h:\r\r\n", b"\r\n", b"h:1\r\n\r\n"])
def test_malformed_header_lines_are_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_header_lines(raw)
