"""The fast lane takes what is beyond doubt, and nothing else."""

import struct
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.transports.websocket.reader import frames_size, take_messages


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


def of_sizes(sizes: list[int], first: int = 0x81) -> tuple[list[bytes], list[bytes]]:
    """Return payloads of *sizes*, each another, and their frames, each with another mask."""
    payloads = [(str(index).encode() * size)[:size] for index, size in enumerate(sizes)]
    masks = [struct.pack("!I", 0x9E3779B1 * index % 2**32) for index in range(len(sizes))]
    return payloads, [frame(payload, first, mask) for payload, mask in zip(payloads, masks, strict=True)]


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 3, 31, 32, 124, 125, 126]), st.sampled_from([1, 31, 32, 33, 200])),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0, 3]),
)
def test_frames_of_one_size_are_the_same_as_others(groups: list[tuple[int, int]], before: int) -> None:
    payloads, frames = of_sizes([size for size, count in groups for _ in range(count)])
    data = b"?" * before + b"".join(frames)
    assert take_messages(data, before, 1_000) == (payloads, False, len(data), False)


@pytest.mark.parametrize("size", [0, 5, 32, 125])
@pytest.mark.parametrize("count", [33, 40, 1_000])
def test_what_is_not_taken_is_not_taken_between_frames_of_one_size_either(size: int, count: int) -> None:
    payloads, frames = of_sizes([size] * count)
    for place in {0, 1, 31, 32, count - 1}:
        begin, rest = b"".join(frames[:place]), b"".join(frames[place + 1 :])
        unmasked = bytes((0x81, size)) + b"x" * (size + 4)
        for kind in (0x01, 0x80, 0x88, 0x89, 0xC1, 0x83):
            strange = bytes((kind,)) + frames[place][1:]
            assert take_messages(begin + strange + rest, 0, 1_000) == (payloads[:place], False, len(begin), False)
        expected = (payloads[:place], False, len(begin), False)
        assert take_messages(begin + unmasked + rest, 0, 1_000) == expected
        binary = bytes((0x82,)) + frames[place][1:]
        taken, is_binary, position, more = take_messages(begin + binary + rest, 0, 1_000)
        assert (taken, is_binary, position) == (
            (payloads[:place], False, len(begin)) if place else ([payloads[0]], True, len(frames[0]))
        )
        assert more


@pytest.mark.parametrize("cut", [1, 5, 37])
def test_a_cut_leaves_the_last_of_frames_of_one_size_for_later(cut: int) -> None:
    payloads, frames = of_sizes([32] * 100)
    whole = b"".join(frames)
    assert take_messages(whole[:-cut], 0, 1_000) == (payloads[:-1], False, len(whole) - 38, True)


def test_frames_of_one_size_are_held_to_the_bound_and_to_utf8() -> None:
    payloads, frames = of_sizes([32] * 100)
    data = b"".join(frames)
    assert take_messages(data, 0, 32)[0] == payloads
    assert take_messages(data, 0, 31) == ([], False, 0, False)
    data = b"".join([*frames[:50], frame(b"\xff" * 32), *frames[51:]])
    assert take_messages(data, 0, 32) == (payloads[:50], False, 50 * 38, False)
    binary = b"".join([*of_sizes([32] * 50, 0x82)[1], frame(b"\xff" * 32, 0x82)])
    assert take_messages(binary, 0, 32) == ([*payloads[:50], b"\xff" * 32], True, len(binary), False)


class Watched(bytes):
    """Bytes that count how many of them are looked at."""

    seen = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        Watched.seen += len(found) if isinstance(key, slice) else 1
        return found


@pytest.mark.parametrize("run", [1, 2, 31, 32, 33])
def test_each_byte_is_looked_at_a_few_times_however_kinds_and_sizes_change(run: int) -> None:
    def looked_at(count: int) -> float:
        data = Watched((frame(b"", 0x81) * run + frame(b"", 0x82) * run + frame(b"x", 0x82) * run) * count)
        Watched.seen = position = 0
        while position < len(data):
            position = take_messages(data, position, 1_000)[2]
        return Watched.seen / len(data)

    assert looked_at(2_000 // run) < 1.2 * looked_at(500 // run)


def test_text_and_binary_are_told_apart() -> None:
    text, binary = frame(b"a"), frame(b"\xff", 0x82)
    data = text + binary + text
    assert take_messages(data, 0, 10) == ([b"a"], False, len(text), True)
    assert take_messages(data, len(text), 10) == ([b"\xff"], True, len(text + binary), True)
    assert take_messages(data, len(text + binary), 10) == ([b"a"], False, len(data), False)


@pytest.mark.parametrize(("kind", "other"), [(0x81, 0x82), (0x82, 0x81)])
def test_frames_of_one_size_behind_a_batch_of_the_other_kind_are_left_for_the_next_call(kind: int, other: int) -> None:
    payloads, frames = of_sizes([999, 998] * 8 + [400], kind)  # the last one fills the batch
    behind, others = of_sizes([3] * 40, other)
    begin = sum(map(len, frames))
    data = b"".join(frames + others)
    assert take_messages(data, 0, 1_000) == (payloads, kind == 0x82, begin, True)
    assert take_messages(data, begin, 1_000) == (behind, other == 0x82, len(data), False)


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
