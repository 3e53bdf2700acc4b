"""
WebSocket frames as a server sends them: whole, final and unmasked (RFC 6455, section 5.2).

Part of the codec: one pure function. The hub and the sessions use it, so that a publication is framed once for all
its subscribers.
"""

import struct

__all__ = ["build_frame"]

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
