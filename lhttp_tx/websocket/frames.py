"""
WebSocket frames as a server sends them: whole, final and unmasked (RFC 6455, section 5.2).

Part of the codec: pure functions. The hub and the sessions use them, so that a publication is framed once for all its
subscribers.
"""

import struct
from itertools import chain

__all__ = ["build_frame", "build_frames", "is_text", "split_frames"]

_TEXT = 0x81
_BINARY = 0x82
_SHORT = [(bytes((_TEXT, size)), bytes((_BINARY, size))) for size in range(126)]
_MEDIUM = struct.Struct("!BBH").pack
_LONG = struct.Struct("!BBQ").pack


def build_frame(payload: bytes, binary: bool) -> bytes:
    """
    Return the WebSocket frame that carries *payload*.

    :param binary: whether it is a binary message; otherwise *payload* must be UTF-8.
    """
    size = len(payload)
    if size < 126:
        return _SHORT[size][binary] + payload
    first = _BINARY if binary else _TEXT
    if size < 65_536:
        return _MEDIUM(first, 126, size) + payload
    return _LONG(first, 127, size) + payload


class _Heads(dict[int, bytes]):
    """The head of a frame for each size of a payload: short ones are kept, longer ones are made each time."""

    def __init__(self, first: int) -> None:
        super().__init__((size, bytes((first, size))) for size in range(126))
        self._first = first

    def __missing__(self, size: int) -> bytes:
        return _MEDIUM(self._first, 126, size) if size < 65_536 else _LONG(self._first, 127, size)


_HEADS = (_Heads(_TEXT).__getitem__, _Heads(_BINARY).__getitem__)


def build_frames(payloads: list[bytes], binary: bool) -> bytes:
    """
    Return the WebSocket frames that carry *payloads*, joined; without a frame by itself for each of them.

    :param binary: as for :func:`build_frame`.
    """
    heads = map(_HEADS[binary], map(len, payloads))
    return b"".join(chain.from_iterable(zip(heads, payloads, strict=True)))


def is_text(payload: bytes) -> bool:
    """Return whether *payload* may travel as a text message: whether it is UTF-8."""
    if payload.isascii():
        return True
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def split_frames(data: bytes) -> list[tuple[bytes, bool]]:
    """
    Return the payloads of whole unmasked data frames, and whether each is binary.

    :raises ValueError: if *data* is anything else.
    """
    payloads = []
    position = 0
    while position < len(data):
        first, size = data[position], data[position + 1]
        position += 2
        if first not in (0x81, 0x82) or size > 127:
            raise ValueError(f"not a whole unmasked data frame: {data[:16]!r}")
        if size > 125:
            width = 2 if size == 126 else 8
            size = int.from_bytes(data[position : position + width], "big")
            position += width
        payload = data[position : position + size]
        if len(payload) != size:
            raise ValueError(f"frame of {size} bytes is cut off after {len(payload)}")
        payloads.append((payload, first == 0x82))
        position += size
    return payloads
