"""lhttp_tx.web.heads: heads of requests, read together, are what twisted.web would read line by line; or refused."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from line_counter import count_lines
from twisted.internet.testing import StringTransport
from twisted.web.http import HTTPChannel, Request
from twisted.web.http_headers import _NameEncoder

from lhttp_tx.web.heads import _SPELLED, HeadChannel

GET = b"GET / HTTP/1.1"


class Seen(Request):
    """A request that is kept, and not answered."""

    def __init__(self, channel: Any, *arguments: Any) -> None:
        super().__init__(channel, *arguments)
        channel.seen.append(self)

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    def process(self) -> None:
        self.channel.processed += 1


def send(*reads: bytes, kind: type[HTTPChannel] = HeadChannel) -> Any:
    """Return a channel of *kind* that has got *reads*: the requests it has made, and how many are complete."""
    channel: Any = kind()
    channel.requestFactory = Seen
    channel.timeOut = None
    channel.seen = []
    channel.processed = 0
    channel.makeConnection(StringTransport())
    for data in reads:
        channel.dataReceived(data)
    return channel


def head(*lines: bytes, first: bytes = GET) -> bytes:
    return b"\r\n".join([first, *lines]) + b"\r\n\r\n"


def outcome(channel: Any) -> tuple[int, list[Any], bytes]:
    """Return what a resource would see, and what was answered."""
    found = [(one.method, one.uri, list(one.requestHeaders.getAllRawHeaders())) for one in channel.seen]
    return channel.processed, found if channel.processed else [], channel.transport.value()


NAMES = st.sampled_from(
    [b"Host", b"x-y", b"X-Y", b"etag", b"ETAG", b"TE", b"www-authenticate", b"a1-b2", b"a_b", b"-", b"3a-b!c", b"DnT"]
)
VALUES = st.sampled_from([b"", b" ", b"\t a", b"a ", b"a: b", b"\xc3\x85\x85", b"x" * 300]) | st.binary(max_size=4).map(
    lambda value: value.translate(None, b"\0\r\n")
)
LENGTHS = st.sampled_from(
    b"Content-Length: 3|content-length: 03|Content-Length: +3|Content-Length:|CONTENT-LENGTH: 1_0|Content-Length: 3, 3|"
    b"Transfer-Encoding: chunked|transfer-encoding: CHUNKED|Transfer-Encoding: identity|Transfer-Encoding: x|"
    b"Transfer-Encoding: chunked, gzip".split(b"|")
)
MALFORMED = st.sampled_from([b"a", b": b", b"a : b", b"a\0: b", b"a: \0b", b"a(: b", b"\xe9: b"])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.builds(lambda name, value: name + b":" + value, NAMES, VALUES) | LENGTHS | MALFORMED, max_size=9),
    st.lists(st.integers(0, 200), max_size=3),
    st.sampled_from([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n"]),
)
def test_a_head_is_read_as_twisted_reads_it(lines: list[bytes], cuts: list[int], body: bytes) -> None:
    data = head(*lines) + body
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reads = [data[start:end] for start, end in pairwise(edges) if start < end]
    wanted = outcome(send(data, kind=HTTPChannel))
    assert outcome(send(*reads)) == wanted


def test_names_that_twisted_spells_in_its_own_way_are_known() -> None:
    assert _NameEncoder._caseMappings.items() <= _SPELLED.items()


@pytest.mark.parametrize(
    "line",
    [
        *(b"a: b\nContent-Length: 3", b"a: b\rc: d", b"a: b\r", b"a\nb: c", b"a: b\0", b" a: b", b"\ta: b", b" "),
        *(b"a\r: b", b"a: b\r\n c: d", b"Content-Length: 0\r\n 3", b"Transfer-Encoding:\r\n chunked", b"\n", b"\0"),
    ],
)
@pytest.mark.parametrize("together", [True, False], ids=["together", "byte by byte"])
def test_a_line_that_two_programs_read_differently_is_refused(line: bytes, together: bool) -> None:
    data = head(b"Host: x", line, b"c: d")
    channel = send(*([data] if together else [bytes((byte,)) for byte in data]))
    assert channel.processed == 0
    assert channel.transport.value() == b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert channel.transport.disconnecting


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 3", b"Content-Length: 3"],
        [b"Content-Length: 3", b"content-length: 4"],
        [b"Content-Length: 3", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 3"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: gzip"],
        [b"Transfer-Encoding:"],
        [b"Content-Length: 0x3"],
        [b"Content-Length: -3"],
        [b"Content-Length: " + b"9" * 5_000],
    ],
)
def test_a_length_that_is_in_doubt_is_refused(lines: list[bytes]) -> None:
    channel = send(head(b"Host: x", *lines, first=b"POST / HTTP/1.1") + b"3\r\nabc\r\n0\r\n\r\n")
    assert channel.processed == 0
    assert channel.transport.value().startswith(b"HTTP/1.1 400 ")


def test_nothing_is_taken_behind_a_head_that_is_refused() -> None:
    channel = send(head(b"a b: c") + head(b"Host: x"), b"\r\n", head(b"Host: x"))
    assert channel.processed == 0
    assert channel.transport.value().count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("together", [True, False], ids=["together", "line by line"])
@pytest.mark.parametrize(("count", "processed"), [(64, 1), (65, 0)])
def test_headers_are_bounded_in_number(count: int, processed: int, together: bool) -> None:
    data = head(*[b"a:"] * count)
    reads = [data] if together else data.splitlines(keepends=True)
    assert send(*reads).processed == processed


@pytest.mark.parametrize("together", [True, False], ids=["together", "line by line"])
def test_a_head_is_bounded_in_bytes(together: bool) -> None:
    def processed(size: int) -> int:
        data = head(b"a: " + b"x" * 8_000, b"b: " + b"x" * size)
        reads = [data] if together else data.splitlines(keepends=True)
        return int(send(*reads).processed)

    assert processed(8_300) == 1
    assert processed(8_390) == 0


def test_a_head_without_an_end_is_refused() -> None:
    channel = send(GET + b"\r\n", *[b"a: " + b"x" * 4_000 + b"\r\n"] * 5)
    assert channel.transport.value().startswith(b"HTTP/1.1 400 ")


def test_what_stands_behind_a_head_is_the_next_request() -> None:
    channel = send(head(b"a: 1") + head(b"b: 2", first=b"GET /b HTTP/1.1"))
    channel.seen[0].finish()
    assert [one.uri for one in channel.seen] == [b"/", b"/b"]
    assert list(channel.seen[1].requestHeaders.getAllRawHeaders()) == [(b"B", [b"2"])]


# What it costs


def lines_of(*fields: bytes) -> int:
    return count_lines(lambda: send(head(*fields)))


@pytest.mark.parametrize(
    "field",
    [b"a:", b"aa: x", b"%d-" + b"x" * 200 + b": x", b"x-%d: " + b"y" * 200],
    ids=["tiny", "small", "long name", "long value"],
)
def test_a_header_takes_a_few_lines_of_python_however_long_it_is(field: bytes) -> None:
    fields = [field.replace(b"%d", b"%d" % number) for number in range(60)]
    assert lines_of(*fields) < lines_of(fields[0]) + 60 * 8


def test_a_long_method_is_not_looked_at() -> None:
    assert count_lines(lambda: send(head(first=b"x" * 8_000 + b" / HTTP/1.1"))) < lines_of() + 50


def test_names_of_clients_are_not_remembered() -> None:
    from twisted.web.http_headers import _nameEncoder

    before = len(_nameEncoder._canonicalHeaderCache)
    send(head(*(b"never-seen-%d: x" % number for number in range(60))))
    assert len(_nameEncoder._canonicalHeaderCache) == before
