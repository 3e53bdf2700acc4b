"""
WebSocket frames as a server sends them: whole, final and unmasked (RFC 6455, section 5.2).

Pure functions, and the encoding of most connections: unchanged messages in plain frames.
:mod:`lhttp_tx.transports.websocket.compression` has the other encodings.
"""

import struct
from abc import ABC, abstractmethod
from itertools import chain

from lhttp_tx.codec.views import View

__all__ = ["FRAME_HEADS", "PLAIN", "FrameHeads", "Framing", "build_frame", "build_frames", "split_frames"]

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


class FrameHeads(dict[int, bytes]):
    """The head of a frame by the size of its payload. Heads for short payloads are kept. Others are made each time."""

    def __init__(self, first: int) -> None:
        super().__init__((size, bytes((first, size))) for size in range(126))
        self._first = first

    def __missing__(self, size: int) -> bytes:
        return _MEDIUM(self._first, 126, size) if size < 65_536 else _LONG(self._first, 127, size)


FRAME_HEADS = (FrameHeads(_TEXT), FrameHeads(_BINARY))
"""The heads of text and binary messages."""


def build_frames(payloads: list[bytes], binary: bool) -> bytes:
    """
    Return the joined WebSocket frames that carry *payloads*, without making each frame separately.

    :param binary: as for :func:`build_frame`.
    """
    heads = map(FRAME_HEADS[binary].__getitem__, map(len, payloads))
    return b"".join(chain.from_iterable(zip(heads, payloads, strict=True)))


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


class Framing(ABC):
    """
    Makes frames from messages: an :class:`~lhttp_tx.engine.delivery.Encoding`, shared by all connections that use it.

    :ivar takes_gzip: whether clients that get such frames may send gzip-compressed messages.
    :ivar view: the view that the frames carry; ``None`` for LHTTP's text.
    :ivar converts: whether the frames carry views.
    :ivar compresses: whether each message is compressed.
    """

    takes_gzip = converts = compresses = False
    view: View | None = None

    def encode(self, payloads: list[bytes], binary: bool) -> bytes:
        """Return the frames for *payloads*, joined; see :meth:`lhttp_tx.engine.delivery.Encoding.encode`."""
        return b"".join([self.frame(payload, binary) for payload in payloads])

    @abstractmethod
    def frame(self, payload: bytes, binary: bool) -> bytes:
        """Return the frame for one message. The parameters are those of :func:`build_frame`."""

    @abstractmethod
    def decode(self, data: bytes) -> list[tuple[bytes, bool]]:
        """
        Return the messages that the frames in *data* carry, and whether each is binary.

        A message that was compressed counts as binary if it is not UTF-8.
        """


class _Plain(Framing):
    """Unchanged messages in plain frames."""

    def encode(self, payloads: list[bytes], binary: bool) -> bytes:
        """See :meth:`Framing.encode`."""
        return build_frame(payloads[0], binary) if len(payloads) == 1 else build_frames(payloads, binary)

    frame = staticmethod(build_frame)
    decode = staticmethod(split_frames)


PLAIN = _Plain()
"""The encoding of connections that did not ask for another one."""
