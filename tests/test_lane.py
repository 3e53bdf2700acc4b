"""The fast lane takes what is beyond doubt, and nothing else."""

import struct

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.lane import take_messages


def masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def frame(payload: bytes, first: int = 0x81, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65_536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + mask + masked(payload, mask)


@given(
    st.lists(st.one_of(st.text(max_size=300).map(str.encode), st.binary(max_size=300)), max_size=20),
    st.binary(min_size=4, max_size=4),
)
def test_whole_frames_are_unmasked_in_order(payloads: list[bytes], mask: bytes) -> None:
    data = b"".join(frame(payload, 0x82, mask) for payload in payloads)
    messages, more = take_messages(data, 1_000)
    assert [payload for payload, _, _ in messages] == payloads
    assert not more
    assert (messages[-1][2] if messages else 0) == len(data)


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5), st.data())
def test_a_cut_leaves_the_last_frame_for_later(payloads: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(frame(payload, 0x82) for payload in payloads)
    cut = data.draw(st.integers(1, len(frame(payloads[-1], 0x82)) - 1))
    messages, more = take_messages(whole[:-cut], 1_000)
    assert [payload for payload, _, _ in messages] == payloads[:-1]
    assert more


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535])
def test_every_size_that_the_lane_takes(size: int) -> None:
    messages, _ = take_messages(frame(b"x" * size), 65_535)
    assert messages == [(b"x" * size, False, len(frame(b"x" * size)))]


def test_text_and_binary_are_told_apart() -> None:
    messages, _ = take_messages(frame(b"a") + frame(b"\xff", 0x82), 10)
    assert [(payload, binary) for payload, binary, _ in messages] == [(b"a", False), (b"\xff", True)]


@pytest.mark.parametrize(
    "data",
    [
        frame(b"hello", 0x01),  # not final
        frame(b"hello", 0x80),  # continuation
        frame(b"hello", 0x88),  # close
        frame(b"hello", 0x89),  # ping
        frame(b"hello", 0xC1),  # compressed
        frame(b"hello", 0x83),  # reserved
        b"\x81\x05hello",  # not masked
        struct.pack("!BBH", 0x81, 0xFE, 5) + bytes(4) + b"hello",  # length not in its shortest form
        frame(bytes(65_536)),  # 64 bits of length
        frame(b"\xff"),  # text that is not UTF-8
        frame(b"x" * 1_001),  # larger than allowed
    ],
)
def test_everything_else_is_left_to_the_judge(data: bytes) -> None:
    before = frame(b"taken")
    messages, more = take_messages(before + data, 1_000)
    assert [payload for payload, _, _ in messages] == [b"taken"]
    assert messages[0][2] == len(before)
    assert not more
