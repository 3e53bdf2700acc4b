"""
Frames for clients that asked for compressed ones.

Part of the codec. The hub sends the same frames to every subscriber; an encoding turns them into those that its clients
asked for, and remembers the last ones, so that a publication is compressed once however many clients get it. Nothing
is kept from one message to the next, so a connection costs no memory for it.
"""

from __future__ import annotations

import gzip
import zlib
from abc import ABC, abstractmethod

from lhttp_tx.frames import build_frame, is_text, split_frames

__all__ = ["Deflate", "Encoding", "Gzip", "gunzip"]

_LEVEL = 1
"""How hard to try: the first level is four times as fast as the usual one, and nearly as small for short messages."""

_MEMORY = 8
_LEAST_SIZE = 64
"""Bytes below which compression gains nothing."""

_COMPRESSED = 0x40
"""The bit of a frame's first byte that says that its message is compressed (RFC 7692, section 6)."""

_TAIL = b"\x00\x00\xff\xff"
"""What is left off the end of a compressed message (RFC 7692, section 7.2.1)."""

_LAST = b"\x01\x00\x00\xff\xff"
"""An empty last block, which a compressed message does not have."""

_GZIP_MAGIC = b"\x1f\x8b"


class Encoding(ABC):
    """A way to send messages, shared by all connections that asked for it."""

    def __init__(self) -> None:
        self._plain = b""
        self._encoded = b""

    def encode(self, frames: bytes) -> bytes:
        """
        Return the frames that stand for *frames*.

        :param frames: one or more whole data frames, as :func:`lhttp_tx.frames.build_frame` returns them.
        """
        if frames is not self._plain:
            self._encoded = b"".join(self._encode(payload, binary) for payload, binary in split_frames(frames))
            self._plain = frames
        return self._encoded

    @abstractmethod
    def decode(self, frames: bytes) -> bytes:
        """Return the frames that *frames* stand for; each message is text if it can be."""

    @abstractmethod
    def _encode(self, payload: bytes, binary: bool) -> bytes:
        """Return the frame for one message."""


class Gzip(Encoding):
    """Each message, gzip-compressed (RFC 1952), in a binary frame; the protocol document, section "Compression"."""

    def _encode(self, payload: bytes, binary: bool) -> bytes:
        return build_frame(gzip.compress(payload, _LEVEL, mtime=0), True)

    def decode(self, frames: bytes) -> bytes:
        """See :meth:`Encoding.decode`."""
        return b"".join(_frame(gzip.decompress(payload)) for payload, _ in split_frames(frames))


class Deflate(Encoding):
    """The extension permessage-deflate, without context takeover (RFC 7692, section 7)."""

    def __init__(self, window_bits: int) -> None:
        """:param window_bits: the size of the window, as a power of two, 9 to 15."""
        super().__init__()
        self._window_bits = window_bits

    def _encode(self, payload: bytes, binary: bool) -> bytes:
        if len(payload) >= _LEAST_SIZE:
            compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -self._window_bits, _MEMORY)
            data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
            data = data.removesuffix(_TAIL)
            if len(data) < len(payload):
                frame = build_frame(data, binary)
                return bytes((frame[0] | _COMPRESSED,)) + frame[1:]
        return build_frame(payload, binary)

    def decode(self, frames: bytes) -> bytes:
        """See :meth:`Encoding.decode`."""
        plain = []
        position = 0
        while position < len(frames):
            size, start = frames[position + 1], position + 2
            if size > 125:
                width = 2 if size == 126 else 8
                size = int.from_bytes(frames[start : start + width], "big")
                start += width
            payload = frames[start : start + size]
            if frames[position] & _COMPRESSED:
                payload = zlib.decompress(payload + _TAIL + _LAST, -15)
            plain.append(_frame(payload))
            position = start + size
        return b"".join(plain)


def _frame(payload: bytes) -> bytes:
    return build_frame(payload, not is_text(payload))


def gunzip(payload: bytes, limit: int) -> bytes:
    """
    Return what *payload* holds if it is gzip-compressed, else *payload* itself.

    :param payload: a message as a client sent it.
    :param limit: bytes of the result; what is larger is cut off one byte later, so that it is seen to be too large.
    """
    if not payload.startswith(_GZIP_MAGIC):
        return payload
    decompressor = zlib.decompressobj(wbits=31)
    try:
        data = decompressor.decompress(payload, limit + 1)
    except zlib.error:
        return payload
    if len(data) <= limit and (not decompressor.eof or decompressor.unused_data):
        return payload  # cut off, or followed by something else
    return data
