"""lhttp_tx.guard.heads: one host, each decisive header once, and no more of anything than is needed."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.errors import Refused
from lhttp_tx.guard.heads import check_counts, check_headers, origin_form, read_head, unquote


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", b"/"),
        (b"/a?b", b"/a?b"),
        (b"//other.example/", b"//other.example/"),
        (b"*", b"*"),
        (b"http://chat.example:81/a?b", b"/a?b"),
        (b"HTTPS://CHAT.example:81/a", b"/a"),
        (b"ws://chat.example:81", b"/"),
        (b"wss://chat.example:81?a", b"/?a"),
    ],
)
def test_a_target_is_brought_into_one_form(target: bytes, path: bytes) -> None:
    assert origin_form(target, b"chat.example:81") == path


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://other.example/", b"chat.example"),
        (b"http://chat.example:80/", b"chat.example"),
        (b"http://chat.example/", None),
        (b"http://chat.example@other.example/", b"chat.example"),
        (b"http:///", b"chat.example"),
        (b"ftp://chat.example/", b"chat.example"),
        (b"chat.example:80", b"chat.example:80"),
        (b"publish", b"chat.example"),
        (b"", b"chat.example"),
    ],
)
def test_a_target_of_another_host_is_refused(target: bytes, host: bytes | None) -> None:
    with pytest.raises(Refused, match="target of the request") as caught:
        origin_form(target, host)
    assert caught.value.status == 400


@pytest.mark.parametrize("name", [b"host", b"origin", b"sec-fetch-site", b"authorization", b"content-type"])
def test_a_header_that_decides_may_be_there_once(name: bytes) -> None:
    check_headers([b"cookie", name, b"cookie"])
    with pytest.raises(Refused, match=name.decode("ascii")):
        check_headers([name, b"cookie", name])


def test_a_head_is_read() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: 1 \r\nCookie: a=1\r\nx:\t2\r\nCookie: b=\xc3\x85"
    assert read_head(head) == (
        b"GET / HTTP/1.1",
        {"host": "a", "x": "1, 2", "cookie": "a=1; b=\xc3\x85"},
    )


@pytest.mark.parametrize("line", [b"no colon", b": x", b" folded: x", b"a : x", b"a: b\rc: d", b"a: b\nc: d", b"a: \0"])
def test_a_malformed_line_is_refused(line: bytes) -> None:
    with pytest.raises(Refused, match="malformed header line"):
        read_head(b"GET / HTTP/1.1\r\n" + line)
    with pytest.raises(Refused, match="malformed start line"):
        read_head(b"GET /\n HTTP/1.1")


def test_a_query_is_bounded_in_parameters_and_bytes() -> None:
    check_counts("/?" + "&".join(f"{number}=x" for number in range(64)), {})
    check_counts("/?a=" + "x" * 8_190, {})
    for query in ("&" * 64, "a=" + "x" * 8_191):
        with pytest.raises(Refused, match="64 parameters or 8192 bytes"):
            check_counts("/?" + query, {})


def test_a_path_is_bounded_in_segments_and_escapes() -> None:
    check_counts("/" + "a%41" * 128 + "/a" * 127 + "?" + "/%41" * 200, {})
    for path in ("/" * 257, "/" + "%41" * 256):
        with pytest.raises(Refused, match="256 segments and escapes"):
            check_counts(path, {})


@pytest.mark.parametrize("name", ["sec-websocket-protocol", "connection", "upgrade"])
def test_lists_are_bounded_in_number(name: str) -> None:
    check_counts("/", {name: "a, " * 63})
    for value in ("a," * 64, "a, " + " " * 127 + "b"):
        with pytest.raises(Refused, match=f"{name} has more than 64 entries"):
            check_counts("/", {name: value})


def test_extensions_are_bounded_with_their_parameters() -> None:
    check_counts("/", {"sec-websocket-extensions": "a; b=1, " * 15 + "a; b"})
    for value in ("a," * 32, "a" + ";b" * 32):
        with pytest.raises(Refused, match="more than 32 entries and parameters"):
            check_counts("/", {"sec-websocket-extensions": value})


@given(st.text("%0aFfg/\xe9\0").map(str.encode) | st.binary(max_size=20))
def test_what_is_escaped_is_what_python_makes_of_it(text: bytes) -> None:
    assert unquote(text) == unquote_to_bytes(text)
