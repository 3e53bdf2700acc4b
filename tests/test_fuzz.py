"""What the fuzzers look at holds for the golden vectors, for changes of them, and for what Hypothesis makes up."""

from __future__ import annotations

import functools

import pytest
from fuzz.seeds import payloads, seeds
from fuzz.targets import HANDSHAKE, TARGETS
from hypothesis import given, strategies as st

from lhttp_tx.transports.websocket.handshake import read_handshake

PIECES = (
    b"\r\n",
    b"\r\n\r\n",
    b":",
    b" ",
    b"\t",
    b"\x00",
    b"\xff",
    b"\xc3",
    b"*",
    b".",
    b"%2e",
    b'"',
    b"{",
    b"\\",
    b"\x12\x01",
    b"\x81\x80",
    b"\x89\x00",
)


@functools.cache
def corpus(target: str) -> list[bytes]:
    return seeds(target)


@st.composite
def changed(draw: st.DrawFn, target: str) -> bytes:
    """A seed with a few bytes put in, taken out or written over, or one joined to another."""
    data = draw(st.sampled_from(corpus(target)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 4)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=3) | st.sampled_from(corpus(target)))
        data = (data[:start] + piece + data[end:])[:4_096]
    return data


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_passes(target: str) -> None:
    for seed in corpus(target)[:: 8 if target in ("connection", "stream") else 1]:  # the fuzzer tries them all
        TARGETS[target](seed)


def inputs(target: str) -> st.SearchStrategy[bytes]:
    """Changed seeds, and any bytes."""
    return changed(target) | st.binary(max_size=300)


@given(inputs("message"))
def test_message_parses_as_the_document_says_and_serialises_back_the_same(data: bytes) -> None:
    TARGETS["message"](data)


@given(inputs("multipart"))
def test_multipart_body_comes_apart_at_its_offsets_and_nowhere_else(data: bytes) -> None:
    TARGETS["multipart"](data)


@given(inputs("channels"))
def test_list_of_channels_is_what_it_says_or_refused(data: bytes) -> None:
    TARGETS["channels"](data)


@given(inputs("events"))
def test_message_is_one_event_and_query_asks_for_what_it_says(data: bytes) -> None:
    TARGETS["events"](data)


@given(inputs("admin"))
def test_call_of_the_admin_side_can_be_carried_out_or_is_refused(data: bytes) -> None:
    TARGETS["admin"](data)


@given(inputs("upstream"))
def test_allowed_upstream_is_below_the_listed_one_for_other_readers_too(data: bytes) -> None:
    TARGETS["upstream"](data)


@given(inputs("handshake"))
def test_handshake_that_is_answered_at_once_is_one_for_autobahn_too(data: bytes) -> None:
    TARGETS["handshake"](data)


@given(inputs("access"))
def test_access_rules_let_nobody_in_without_a_right(data: bytes) -> None:
    TARGETS["access"](data)


@given(inputs("json"))
def test_json_is_read_as_a_message_that_says_the_same_or_refused(data: bytes) -> None:
    TARGETS["json"](data)


@given(inputs("protobuf"))
def test_protobuf_is_read_as_a_message_that_says_the_same_or_refused(data: bytes) -> None:
    TARGETS["protobuf"](data)


def frame(payload: bytes, first: int, mask: bytes, long: bool) -> bytes:
    """A masked frame, its length in the shortest form, or not."""
    size = len(payload)
    if size < 126 and not long:
        length = bytes((0x80 | size,))
    else:
        length = b"\xfe" + size.to_bytes(2, "big")
    return bytes((first,)) + length + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


frames = st.builds(
    frame,
    st.sampled_from([raw[:2_100] for raw, _ in payloads()])
    | st.binary(max_size=130)
    | st.text(max_size=40).map(str.encode)
    | st.integers(990, 2_010).map(bytes),
    st.sampled_from([0x81, 0x81, 0x81, 0x82, 0x82, 0x01, 0x00, 0x80, 0x88, 0x89, 0x8A, 0xC1, 0x83]),
    st.binary(min_size=4, max_size=4),
    st.sampled_from([False, False, False, True]),
)


@given(inputs("lane"))
def test_lane_takes_the_plain_frames_and_nothing_else(data: bytes) -> None:
    TARGETS["lane"](data)


@given(st.lists(frames, max_size=8).map(b"".join), st.binary(min_size=2, max_size=2), st.integers(0, 5))
def test_lane_takes_the_plain_frames_of_any_stream(stream: bytes, knobs: bytes, missing: int) -> None:
    TARGETS["lane"](knobs + stream[: len(stream) - missing])


@given(inputs("connection"))
def test_connection_answers_the_same_however_it_is_cut(data: bytes) -> None:
    TARGETS["connection"](data)


@given(st.lists(frames, max_size=5).map(b"".join), st.integers(0, 255), st.integers(0, 5))
def test_connection_answers_any_stream_the_same_however_it_is_cut(stream: bytes, width: int, missing: int) -> None:
    TARGETS["connection"](bytes((width,)) + stream[: len(stream) - missing])


@given(inputs("stream"))
def test_plain_stream_is_taken_apart_and_answered_the_same_however_it_is_cut(data: bytes) -> None:
    TARGETS["stream"](data)


@given(inputs("bodies"))
def test_body_brings_the_messages_that_are_in_it_or_is_refused(data: bytes) -> None:
    TARGETS["bodies"](data)


NAMES = """
127.0.0.1  127.0.0.1:8081  localhost  LOCALHOST.  [::1]:80  [::ffff:127.0.0.1]  chat.example  evil.example  u@localhost
localhost/x  127.1  0  [::]  [fe80::1%25lo]  192.0.2.1  é  null
"""
names = st.sampled_from(["", *NAMES.split()])
origins = names | names.map("http://".__add__) | names.map("HTTPS://".__add__) | st.sampled_from(["file://", "http://"])


@given(
    names,
    names,
    origins,
    st.sampled_from(["", "same-origin", "same-site", "cross-site", "none", "NONE"]),
    st.sampled_from(["", "Bearer 0123456789abcdef", "bearer  0123456789abcdef ", "Bearer x", "Basic 0123456789abcdef"]),
    st.lists(st.sampled_from(["via", "x-forwarded-for", "x-real-ip", "forwarded", "accept"]), max_size=2),
)
def test_whoever_is_let_in_has_a_right_to_it(
    peer: str, host: str, origin: str, site: str, authorization: str, found: list[str]
) -> None:
    TARGETS["access"]("\n".join([peer, host, origin, site, authorization, *found]).encode("utf-8"))


# The seeds


@pytest.mark.parametrize("target", TARGETS)
def test_there_are_different_seeds(target: str) -> None:
    found = seeds(target)
    assert len(found) == len(set(found)) >= 10


def test_vectors_are_among_the_seeds() -> None:
    vectors = {raw for raw, _ in payloads() if len(raw) <= 4_096}
    assert len(vectors) > 200
    assert vectors <= set(seeds("message"))


def test_handshake_of_the_seeds_is_one_that_is_answered_at_once() -> None:
    assert read_handshake(HANDSHAKE) is not None
