"""
WebSocket as the load generator speaks it: frames built beforehand, and payload bytes counted, never parsed.

Pure functions and two counters; used by :mod:`benchmarks.dialects` and :mod:`benchmarks.load`.
"""

from __future__ import annotations

import struct

__all__ = ["MarkCounter", "PayloadMeter", "client_frame", "frame_size", "handshake"]

_MASK = b"\x01\x02\x03\x04"


def handshake(path: str = "/", subprotocol: str = "") -> bytes:
    """Return the request that opens a WebSocket. The key is always the same: nobody here checks the answer to it."""
    offer = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode("ascii")


def client_frame(payload: bytes, *, binary: bool = False, mask: bytes = _MASK) -> bytes:
    """Return the masked frame in which a client sends *payload*."""
    size = len(payload)
    first = 0x82 if binary else 0x81
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return head + mask + (int.from_bytes(payload, "little") ^ key).to_bytes(size, "little")


def frame_size(payload_size: int) -> int:
    """Return how many bytes a server's frame with *payload_size* bytes takes on the wire."""
    return payload_size + (2 if payload_size < 126 else 4 if payload_size < 65_536 else 10)


class PayloadMeter:
    """Counts the payload bytes of a server's frames, for a server that puts any number of messages into one frame."""

    __slots__ = ("_head", "_payload_left", "_separator")

    def __init__(self, separator: int = 0) -> None:
        """
        :param separator: how many bytes stand between two messages of one frame. As many are counted for the end of
            each frame, so that a message with its separator counts the same wherever frames begin.
        """
        self._separator = separator
        self._payload_left = 0
        self._head = b""

    def feed(self, data: bytes | memoryview) -> int:
        """Return how many bytes of *data*, the next piece of the stream, are payload or count as such."""
        size = len(data)
        left = self._payload_left
        if size <= left:
            self._payload_left = left - size
            return size
        if self._head:
            data, self._head = self._head + bytes(data), b""
            size = len(data)
        payload, position = left, left
        while size - position >= 2:
            length, start = data[position + 1] & 0x7F, position + 2
            if length > 125:
                extra = 2 if length == 126 else 8
                if size - start < extra:
                    break
                length = int.from_bytes(data[start : start + extra], "big")
                start += extra
            payload += self._separator
            if start + length > size:
                self._payload_left = start + length - size
                return payload + size - start
            payload += length
            position = start + length
        self._payload_left = 0
        self._head = bytes(data[position:])
        return payload


class MarkCounter:
    """Counts the places in a stream where it says the same, for answers that are not all of one size."""

    __slots__ = ("_mark", "_tail")

    def __init__(self, mark: bytes) -> None:
        """:param mark: what is counted; no end of it may be a beginning of it."""
        self._mark = mark
        self._tail = b""

    def feed(self, data: bytes) -> int:
        """Return how many marks *data*, the next piece of the stream, completes."""
        data = self._tail + data
        self._tail = data[max(0, len(data) - len(self._mark) + 1) :]
        return data.count(self._mark)
