"""
Compressed frames, for clients that ask for them.

A delivery keeps its compressed form, so a publication is compressed once, however many clients get it. No state is kept
between messages, so compression costs a connection no memory.
"""

from __future__ import annotations

import gzip
import zlib
from functools import partial
from itertools import chain
from operator import getitem, is_not

from lhttp_tx.codec.text import is_text
from lhttp_tx.transports.websocket.frames import (
    FRAME_HEADS,
    FrameHeads,
    Framing,
    build_frame,
    build_frames,
    split_frames,
)

__all__ = ["Deflate", "Gzip", "gunzip"]

_LEVEL = 1
"""The level of compression. Level 1 is four times as fast as the usual one, and nearly as good for short messages."""

_MEMORY = 8
_LEAST_SIZE = 64
"""Bytes below which compression gains nothing."""

_COMPRESSED = 0x40
"""The bit of a frame's first byte that says that its message is compressed (RFC 7692, section 6)."""

_TAIL = b"\x00\x00\xff\xff"
"""The bytes removed from the end of a compressed message (RFC 7692, section 7.2.1)."""

_LAST = b"\x01\x00\x00\xff\xff"
"""An empty last block, which a compressed message does not have."""

_GZIP_MAGIC = b"\x1f\x8b"

_gzip = partial(zlib.compress, level=_LEVEL, wbits=31)
_DEFLATED_HEADS = tuple(FrameHeads(heads[0][0] | _COMPRESSED) for heads in FRAME_HEADS)


class Gzip(Framing):
    """Each message, gzip-compressed (RFC 1952), in a binary frame; the protocol document, section "Compression"."""

    takes_gzip = True
    compresses = True

    def frame(self, payload: bytes, binary: bool) -> bytes:
        """See :meth:`lhttp_tx.transports.websocket.frames.Framing.frame`."""
        return build_frame(_gzip(payload), True)

    def encode(self, payloads: list[bytes], binary: bool) -> bytes:
        """See :meth:`lhttp_tx.transports.websocket.frames.Framing.encode`."""
        return build_frames([*map(_gzip, payloads)], True)

    def decode(self, data: bytes) -> list[tuple[bytes, bool]]:
        """See :meth:`lhttp_tx.transports.websocket.frames.Framing.decode`."""
        return [_kind(gzip.decompress(payload)) for payload, _ in split_frames(data)]


class Deflate(Framing):
    """The extension permessage-deflate, without context takeover (RFC 7692, section 7)."""

    compresses = True

    def __init__(self, window_bits: int) -> None:
        """:param window_bits: the size of the window, as a power of two, 9 to 15."""
        self._window_bits = window_bits

    def frame(self, payload: bytes, binary: bool) -> bytes:
        """See :meth:`lhttp_tx.transports.websocket.frames.Framing.frame`."""
        return self.encode([payload], binary)

    def encode(self, payloads: list[bytes], binary: bool) -> bytes:
        """See :meth:`lhttp_tx.transports.websocket.frames.Framing.encode`."""
        made = [*map(self._deflate, payloads)]  # a page of a history has many
        kinds = map((FRAME_HEADS[binary], _DEFLATED_HEADS[binary]).__getitem__, map(is_not, made, payloads))
        heads = map(getitem, kinds, map(len, made))
        return b"".join(chain.from_iterable(zip(heads, made, strict=True)))

    def _deflate(self, payload: bytes) -> bytes:
        """Return *payload* compressed, or itself if that is no larger."""
        if len(payload) < _LEAST_SIZE:
            return payload
        compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -self._window_bits, _MEMORY)
        data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return min(payload, data.removesuffix(_TAIL), key=len)

    def decode(self, data: bytes) -> list[tuple[bytes, bool]]:
        """See :meth:`lhttp_tx.transports.websocket.frames.Framing.decode`."""
        plain = []
        position = 0
        while position < len(data):
            size, start = data[position + 1], position + 2
            if size > 125:
                width = 2 if size == 126 else 8
                size = int.from_bytes(data[start : start + width], "big")
                start += width
            payload = data[start : start + size]
            if data[position] & _COMPRESSED:
                payload = zlib.decompress(payload + _TAIL + _LAST, -15)
            plain.append(_kind(payload))
            position = start + size
        return plain


def _kind(payload: bytes) -> tuple[bytes, bool]:
    return payload, not is_text(payload)


def gunzip(payload: bytes, limit: int) -> tuple[bytes, int]:
    """
    Return the inflated *payload* if it is gzip-compressed, else *payload* itself; and the number of inflated bytes.

    :param payload: a message as a client sent it.
    :param limit: bytes of the result. A larger one is cut one byte after the limit, so that it counts as too large.
    """
    if not payload.startswith(_GZIP_MAGIC):
        return payload, 0
    decompressor = zlib.decompressobj(wbits=31)
    try:
        data = decompressor.decompress(payload, limit + 1)
    except zlib.error:
        return payload, limit  # an upper bound: zlib does not say where it has failed
    if len(data) <= limit and (not decompressor.eof or decompressor.unused_data):
        return payload, len(data)  # cut off, or followed by other data
    return data, len(data)
