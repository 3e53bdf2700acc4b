"""Compressed frames: they hold what they should, and are made once for all who asked for them."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.transports.websocket.compression import Deflate, Gzip, gunzip
from lhttp_tx.transports.websocket.frames import PLAIN, Framing, build_frame, split_frames

MESSAGES = st.lists(st.text(max_size=300).map(str.encode), min_size=1, max_size=5)
LONG = b"LHTTP/1.0 chat\r\n\r\n" + b"hello " * 1000


@given(st.sampled_from([PLAIN, Gzip(), Deflate(9), Deflate(15)]), MESSAGES)
def test_what_is_encoded_can_be_decoded(framing: Framing, messages: list[bytes]) -> None:
    assert framing.decode(framing.encode(messages, False)) == [(message, False) for message in messages]


@given(MESSAGES)
def test_gzip_is_a_binary_frame_with_a_gzip_file_for_each_message(messages: list[bytes]) -> None:
    found = split_frames(Gzip().encode(messages, False))
    assert [binary for _, binary in found] == [True] * len(messages)
    assert [gzip.decompress(payload) for payload, _ in found] == messages


@pytest.mark.parametrize("window_bits", [9, 12, 15])
def test_deflate_can_be_inflated_without_what_came_before(window_bits: int) -> None:
    frame = Deflate(window_bits).frame(LONG, False)
    assert frame[0] == 0xC1  # final, compressed, text
    assert len(frame) < len(LONG) / 10
    assert zlib.decompressobj(-window_bits).decompress(frame[2:] + b"\0\0\xff\xff") == LONG


def test_short_messages_are_not_deflated() -> None:
    assert Deflate(15).frame(b"a" * 63, True) == build_frame(b"a" * 63, True)


def test_what_cannot_be_made_smaller_is_not_deflated() -> None:
    assert Deflate(15).frame(bytes(range(256)), True) == build_frame(bytes(range(256)), True)


@pytest.mark.parametrize("framing", [Gzip(), Deflate(12)])
def test_a_publication_is_compressed_once_for_all(framing: Framing) -> None:
    delivery = Delivery("room", [LONG], False)
    assert len({id(delivery.encoded(found)) for _ in range(1000) for found in (PLAIN, framing)}) == 2


@given(st.binary(max_size=500))
def test_gunzip_takes_what_gzip_makes_and_leaves_the_rest(data: bytes) -> None:
    assert gunzip(gzip.compress(data), 1000) == (data, len(data))
    if not data.startswith(b"\x1f\x8b"):
        assert gunzip(data, 1000) == (data, 0)


@given(st.binary(max_size=100))
def test_gunzip_never_fails(data: bytes) -> None:
    broken = b"\x1f\x8b" + data
    assert isinstance(gunzip(broken, 1000)[0], bytes)


def test_gunzip_stops_one_byte_past_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    data, inflated = gunzip(bomb, 1000)
    assert len(data) == inflated == 1001


@pytest.mark.parametrize("cut", [1, 8, 20])
def test_what_is_cut_off_is_left_as_it_is(cut: int) -> None:
    broken = gzip.compress(LONG)[:-cut]
    assert gunzip(broken, 100_000)[0] is broken


def test_what_is_followed_by_something_else_is_left_as_it_is() -> None:
    broken = gzip.compress(LONG) + b"x"
    assert gunzip(broken, 100_000) == (broken, len(LONG))


def test_what_fails_late_counts_as_inflated() -> None:
    broken = bytearray(gzip.compress(LONG))
    broken[-8] ^= 1  # the checksum
    assert gunzip(bytes(broken), 100_000) == (broken, 100_000)
