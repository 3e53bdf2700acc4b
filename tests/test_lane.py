"""The fast lane takes what is beyond doubt, and nothing else."""

import struct

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.lane import frames_size, take_messages


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
    assert take_messages(data, 0, 1_000) == (payloads, bool(payloads), len(data), False)


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5), st.data())
def test_a_cut_leaves_the_last_frame_for_later(payloads: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(frame(payload, 0x82) for payload in payloads)
    cut = data.draw(st.integers(1, len(frame(payloads[-1], 0x82)) - 1))
    messages, _, position, more = take_messages(whole[:-cut], 0, 1_000)
    assert messages == payloads[:-1]
    assert position == frames_size(messages)
    assert more


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 1_000, 1_001, 1_002, 1_003, 1_004, 65_535])
def test_every_size_that_the_lane_takes(size: int) -> None:
    data = frame(b"x" * size)
    assert take_messages(data, 0, 65_535) == ([b"x" * size], False, len(data), False)


@given(st.lists(st.sampled_from([0, 1, 7, 125, 126, 500, 999, 1_000, 1_001, 5_000, 20_000]), max_size=12), st.data())
def test_small_and_large_frames_keep_their_order_and_their_masks(sizes: list[int], data: st.DataObject) -> None:
    payloads = [bytes([index + 65]) * size for index, size in enumerate(sizes)]
    masks = data.draw(st.lists(st.binary(min_size=4, max_size=4), min_size=len(sizes), max_size=len(sizes)))
    whole = b"".join(frame(payload, mask=mask) for payload, mask in zip(payloads, masks, strict=True))
    assert take_messages(whole, 0, 65_535) == (payloads, False, len(whole), False)


def test_text_and_binary_are_told_apart() -> None:
    text, binary = frame(b"a"), frame(b"\xff", 0x82)
    data = text + binary + text
    assert take_messages(data, 0, 10) == ([b"a"], False, len(text), True)
    assert take_messages(data, len(text), 10) == ([b"\xff"], True, len(text + binary), True)
    assert take_messages(data, len(text + binary), 10) == ([b"a"], False, len(data), False)


def test_text_that_is_not_utf8_ends_what_is_taken() -> None:
    data = frame("é".encode()) + frame(b"b") + frame(b"\xff") + frame(b"c")
    taken = frame("é".encode()) + frame(b"b")
    assert take_messages(data, 0, 10) == (["é".encode(), b"b"], False, len(taken), False)
    assert take_messages(b"before" + data, 6, 10)[2] == 6 + len(taken)


def test_nothing_is_taken_where_nothing_is() -> None:
    assert take_messages(b"", 0, 10) == ([], False, 0, False)


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
        frame(b"hello\xff"),
        frame(b"hello" * 50 + b"\xff"),
        frame(b"x" * 1_001),  # larger than allowed
    ],
)
def test_everything_else_is_left_to_the_judge(data: bytes) -> None:
    before = frame(b"taken")
    messages, _, position, more = take_messages(before + data, 0, 1_000)
    assert messages == [b"taken"]
    assert position == len(before)
    assert not more
    messages, _, position, more = take_messages(data, 0, 1_000)
    assert (messages, position, more) == ([], 0, False)


@pytest.mark.parametrize("size", [6, 125, 126, 900])
def test_a_frame_alone_may_be_as_large_as_is_allowed_and_no_larger(size: int) -> None:
    data = frame(b"x" * size)
    assert take_messages(data, 0, size) == ([b"x" * size], False, len(data), False)
    assert take_messages(data, 0, size - 1) == ([], False, 0, False)
