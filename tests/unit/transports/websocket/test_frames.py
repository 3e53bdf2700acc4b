"""lhttp_tx.transports.websocket.frames: what goes over the socket, byte by byte (RFC 6455, section 5)."""

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.transports.websocket.frames import build_frame, build_frames, split_frames


def test_text_frame_of_the_rfc() -> None:
    assert build_frame(b"Hello", False) == bytes.fromhex("810548656c6c6f")


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "8200"),
        (1, "8201"),
        (125, "827d"),
        (126, "827e007e"),
        (127, "827e007f"),
        (256, "827e0100"),
        (65_535, "827effff"),
        (65_536, "827f0000000000010000"),
        (65_537, "827f0000000000010001"),
    ],
)
def test_length_takes_its_shortest_form(size: int, head: str) -> None:
    payload = b"x" * size
    assert build_frame(payload, True) == bytes.fromhex(head) + payload


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize(("binary", "first"), [(False, 0x81), (True, 0x82)])
def test_kind_is_kept_for_every_form_of_length(size: int, binary: bool, first: int) -> None:
    assert build_frame(b"x" * size, binary)[0] == first


@given(st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=5))
def test_joined_frames_come_apart_again(payloads: list[tuple[bytes, bool]]) -> None:
    joined = b"".join(build_frame(payload, binary) for payload, binary in payloads)
    assert split_frames(joined) == payloads


@pytest.mark.parametrize("binary", [False, True])
def test_many_frames_are_the_frames_of_each(binary: bool) -> None:
    payloads = [b"x" * size for size in (0, 1, 125, 126, 65_535, 65_536, 0)]
    assert build_frames(payloads, binary) == b"".join(build_frame(payload, binary) for payload in payloads)


def test_no_frames_are_nothing() -> None:
    assert build_frames([], True) == b""


@pytest.mark.parametrize(
    "data", [b"\x01\x00", b"\x88\x00", b"\x89\x00", b"\xc1\x00", b"\x81\x80\x00\x00\x00\x00", b"\x81\x05Hell"]
)
def test_reading_back_takes_whole_unmasked_data_frames_alone(data: bytes) -> None:
    with pytest.raises(ValueError, match="frame"):
        split_frames(data)
