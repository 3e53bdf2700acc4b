"""
Handles many pings and pongs in one read.

Pure functions, used by :mod:`lhttp_tx.transports.websocket.protocol`. Each ping or pong is answered or ignored as by
Autobahn. But a read full of empty pings is handled in one pass, and answered in one write, so that it costs little.
"""

from __future__ import annotations

__all__ = ["take_pings"]

_PING, _PONG = 0x89, 0x8A
"""The first bytes of final frames without extension bits (RFC 6455, section 5.5)."""

_MAX_SIZE = 125
"""The largest payload of a control frame."""


def take_pings(data: bytes, position: int, awaited: bytes | None) -> tuple[bytes, int]:
    """
    Return the answers to consecutive pings in *data*, and the index of the first other frame.

    Pongs among them are ignored, up to the expected one. Frames that are incomplete, not masked or not valid are left
    to Autobahn.

    :param data: the data of a read.
    :param position: the index in *data* where a frame begins.
    :param awaited: the payload of the expected pong.
    """
    end = len(data)
    answers: list[bytes] = []
    while end - position >= 6:
        kind, size = data[position], data[position + 1] - 0x80
        start = position + 6
        stop = start + size
        if kind not in (_PING, _PONG) or not 0 <= size <= _MAX_SIZE or stop > end:
            break
        payload = b""
        if size:
            key = int.from_bytes((data[position + 2 : start] * ((size + 3) >> 2))[:size], "little")
            payload = (int.from_bytes(data[start:stop], "little") ^ key).to_bytes(size, "little")
        if kind == _PING:
            answers.append(bytes((_PONG, size)) + payload)
        elif payload == awaited:
            break
        position = stop
    return b"".join(answers), position
