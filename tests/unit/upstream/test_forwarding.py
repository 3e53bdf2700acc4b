"""The headers of a message as those of an HTTP request: all that the client may say, and nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st
from twisted.web.http_headers import Headers

from lhttp_tx.codec.message import parse
from lhttp_tx.errors import RemoteProtocolError
from lhttp_tx.upstream.forwarding import http_headers


def test_headers_go_as_they_are() -> None:
    headers = {"content-type": "json", "X-Room": "é 7", "publish": "a b", "Authorization": "Bearer x", "empty": ""}
    assert dict(http_headers(headers.items())) == headers


@pytest.mark.parametrize(
    "name",
    [
        *("upstream", "receipt", "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding"),
        *("Upgrade", "HTTP2-Settings", "Content-Length", "Expect", "Host", "Accept-Encoding", "Forwarded", "Via"),
        *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-User", "X-Real-IP"),
        *(
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-HTTP-Method-Override",
            "Proxy",
            "Proxy-Authorization",
            "Sec-Fetch-Site",
        ),
        *("X_Forwarded_For", "Content_Length", "a_b", "(x)", "a/b", "a,b", 'a"b', "[x]", "{x}", "a;b", "a=b", "a@b"),
    ],
)
def test_what_is_not_the_clients_to_say_is_left_out(name: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert http_headers([(spelling, "1"), ("x", "2")]) == [("x", "2")]


def test_of_a_repeated_header_the_last_counts_and_lists_are_joined() -> None:
    pairs = [("x", "1"), ("publish", "a"), ("X", "2"), ("Publish", "b c"), ("subscribe", ""), ("subscribe", "d")]
    assert http_headers(pairs) == [("X", "2"), ("Publish", "a b c"), ("subscribe", "d")]


NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=20)


@given(st.lists(st.tuples(NAMES, st.text(st.characters(codec="utf-8"), max_size=20)), max_size=5))
def test_no_message_can_say_more_than_its_headers(pairs: list[tuple[str, str]]) -> None:
    head = "".join(f"{name}:{value}\r\n" for name, value in pairs)
    try:
        headers = parse(f"LHTTP/1.0 c\r\n{head}\r\n".encode(), binary=True).headers
    except RemoteProtocolError:
        return
    wire = Headers()
    for name, value in http_headers(headers):
        wire.setRawHeaders(name.encode("ascii"), [value.encode("utf-8")])
    for raw_name, values in wire.getAllRawHeaders():
        assert re.fullmatch(rb"[!#$%&'*+.^`|~0-9A-Za-z-]+", raw_name)
        assert len(values) == 1
        assert not re.search(rb"[\r\n\0]", values[0])
