"""What of a trace travels in headers: malformed headers count as missing, and nothing else of a message changes."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.codec.message import parse
from lhttp_tx.observe.tracing.carrier import MAX_STATE, Parent, in_payload, only, read_parent, write

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NUMBERS = int(TRACE, 16), int(SPAN, 16)
GOOD = f"00-{TRACE}-{SPAN}-01"
BOUNDS = {"head_size": 8192, "header_count": 64}


@pytest.mark.parametrize(
    ("text", "flags"),
    [(GOOD, 1), (f"00-{TRACE}-{SPAN}-00", 0), (f"00-{TRACE}-{SPAN}-03", 3), (f"01-{TRACE}-{SPAN}-01-more", 1)],
)
def test_a_parent_is_read(text: str, flags: int) -> None:
    assert read_parent(text) == Parent(*NUMBERS, flags)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        GOOD.upper(),
        GOOD[:-1],
        GOOD + "-",
        GOOD + "0",
        f" {GOOD}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        GOOD.replace("-", "_"),
        "\N{ARABIC-INDIC DIGIT ONE}" + GOOD[1:],
        f"01-{TRACE}-{SPAN}-01-" + "x" * 300,
    ],
)
def test_what_is_malformed_counts_as_missing(text: str | None) -> None:
    assert read_parent(text) is None


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("a=1,b@c=2", (("a", "1"), ("b@c", "2"))),
        (" a=1 , ,b=x y", (("a", "1"), ("b", "x y"))),
        ("a=1,a=2", ()),
        ("A=1", ()),
        ("a", ()),
        ("a=b=c", ()),
        ("a=\N{EURO SIGN}", ()),
        ("a=" + "x" * 257, ()),
        (f"a={'x' * 250},b={'x' * 250}", (("a", "x" * 250), ("b", "x" * 250))),
        (f"a={'x' * 255},b={'x' * (MAX_STATE - 260)}", (("a", "x" * 255), ("b", "x" * (MAX_STATE - 260)))),
        (f"a={'x' * 255},b={'x' * (MAX_STATE - 259)}", ()),
        (",".join(f"k{number}=1" for number in range(32)), tuple((f"k{number}", "1") for number in range(32))),
        (",".join(f"k{number}=1" for number in range(33)), ()),
    ],
)
def test_a_malformed_state_is_left_out_alone(text: str, state: tuple[tuple[str, str], ...]) -> None:
    assert read_parent(GOOD, text) == Parent(*NUMBERS, 1, state)


def test_a_header_of_http_may_come_once() -> None:
    assert only([GOOD.encode()]) == GOOD
    assert only([]) is only([b"a", b"b"]) is only([b"\xff"]) is None


def test_a_message_names_its_parent_in_its_head_alone() -> None:
    head = f"LHTTP/1.0 a\r\ntraceparent: {GOOD}\r\ntracestate:a=1\r\n"
    assert in_payload(f"{head}\r\nbody".encode(), 8192) == Parent(*NUMBERS, 1, (("a", "1"),))
    assert in_payload(head.encode(), 8192) == Parent(*NUMBERS, 1, (("a", "1"),))
    assert in_payload(f"LHTTP/1.0 a\r\n\r\n\r\ntraceparent:{GOOD}\r\n".encode(), 8192) is None
    assert in_payload(f"LHTTP/1.0 a\r\n{'x' * 99}:1\r\ntraceparent:{GOOD}\r\n\r\n".encode(), 99) is None
    assert in_payload(b"", 8192) is None


def test_of_repeated_headers_the_last_one_counts() -> None:
    payload = f"LHTTP/1.0 a\r\ntraceparent:nonsense\r\ntraceparent:{GOOD}\r\n\r\n"
    assert in_payload(payload.encode(), 8192) == Parent(*NUMBERS, 1)


def test_headers_are_written_in_the_place_of_those_that_are_there() -> None:
    before = b"LHTTP/1.0 a\r\nTraceParent:x\r\nb:c\r\ntracestate:y\r\n\r\n\r\ntraceparent:body"
    after = write(before, [("traceparent", GOOD)], **BOUNDS)
    assert after == f"LHTTP/1.0 a\r\ntraceparent:{GOOD}\r\nb:c\r\n\r\n\r\ntraceparent:body".encode()


@pytest.mark.parametrize(
    ("payload", "bounds"),
    [
        (b"", {}),
        (b"no message", {}),
        (b"LHTTP/1.0 a\r\nunfinished", {}),
        (b"LHTTP/1.0 a\r\nb:c\r\n\r\n", {"head_size": 70}),
        (b"LHTTP/1.0 a\r\nb:c\r\n\r\n", {"header_count": 1}),
        (b"LHTTP/1.0 a\r\nb:c\r\n\r\n" + b"x" * 50, {"size": 100}),
    ],
)
def test_what_has_no_room_stays_as_it_is(payload: bytes, bounds: dict[str, int]) -> None:
    assert write(payload, [("traceparent", GOOD)], **{**BOUNDS, **bounds}) is payload


@given(st.binary(max_size=200))
def test_any_bytes_are_read_and_written(data: bytes) -> None:
    in_payload(data, 8192)
    assert write(data, [("traceparent", GOOD)], **BOUNDS).endswith(data.partition(b"\r\n\r\n")[2])


@given(
    st.lists(st.tuples(st.sampled_from(["a", "traceparent", "Tracestate"]), st.text("xyz ", max_size=3)), max_size=5)
)
def test_a_message_stays_one(pairs: list[tuple[str, str]]) -> None:
    head = "".join(f"{name}:{value}\r\n" for name, value in pairs)
    written = parse(write(f"LHTTP/1.0 c\r\n{head}\r\nbody".encode(), [("traceparent", GOOD)], **BOUNDS))
    assert written.headers.get_all("traceparent") == (GOOD,)
    assert "tracestate" not in written.headers
    assert list(written.headers.get_all("a")) == [value.strip(" ") for name, value in pairs if name == "a"]
    assert written.body == b"body"
