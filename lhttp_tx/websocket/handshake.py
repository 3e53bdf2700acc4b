"""
The ordinary opening handshake of a WebSocket, read in one go.

Part of the codec: pure functions on bytes, used by :mod:`lhttp_tx.opening`, :mod:`lhttp_tx.protocol` and
:mod:`lhttp_tx.web.site`. They take only what is beyond doubt: one whole ``GET`` in the plainest form, each header once,
and nothing that has to be negotiated (RFC 6455, section 4.2.1). Anything else is left to twisted.web and Autobahn,
which stay the judges of what is legal and say what is wrong with it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha1

__all__ = ["Handshake", "accept_handshake", "read_handshake"]

_MAX_SIZE = 16_384
"""Bytes of a head; twisted.web has the same bound."""

_MAX_HEADERS = 100
"""Headers of a head; twisted.web takes 500."""

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What RFC 6455, section 1.3, adds to the key."""

# The target begins with one slash and has no fragment; names are tokens; values are ASCII without control characters.
# An origin's port is surely one: Autobahn refuses the others even where every origin is allowed.
_HEAD = re.compile(
    rb"GET (/(?!/)[!\"$-~]*) HTTP/1\.1"
    rb"((?:\r\n[!#$%%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~]*){1,%d})" % _MAX_HEADERS
)
_HOST = re.compile(r"(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://[0-9A-Za-z._-]+(?::(?:[1-5]?[0-9]{1,4}|6[0-4][0-9]{3}))?")
_KEY = re.compile(r"[0-9A-Za-z+/]{22}==")

_UNUSUAL = frozenset({"content-length", "expect", "sec-websocket-protocol", "transfer-encoding"})
"""Headers that ask for more than to be let in."""

_OFFERS = frozenset({None, "permessage-deflate", "permessage-deflate; client_max_window_bits"})
"""What browsers and common clients offer; a server that does not compress need not say anything to it."""


@dataclass(slots=True)
class Handshake:
    """
    What a client sent to open a WebSocket.

    :ivar target: path and query, as they were sent.
    :ivar headers: the values by lower-case name.
    :ivar size: bytes of the head; what follows it belongs to the WebSocket.
    """

    target: str
    headers: dict[str, str]
    size: int = 0

    @property
    def path(self) -> str:
        """The path, as it was sent: not unquoted."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the first ``?`` of the target, as it was sent."""
        return self.target.partition("?")[2]


def read_handshake(data: bytes) -> Handshake | None:
    """
    Return the ordinary opening handshake that *data* begins with, ``None`` if that is not beyond doubt.

    :param data: all that has come on the connection so far.
    """
    end = data.find(b"\r\n\r\n", 0, _MAX_SIZE)
    if end < 0:
        return None
    match = _HEAD.fullmatch(data, 0, end)
    if match is None:
        return None
    headers: dict[str, str] = {}
    lines = match[2].decode("ascii").split("\r\n")
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(" \t")
    headers.pop("", None)  # before the first line end
    if len(headers) != len(lines) - 1 or not _UNUSUAL.isdisjoint(headers):
        return None
    get = headers.get
    origin = get("origin")
    if (
        get("upgrade", "").lower() == "websocket"
        and _has_token(get("connection", ""), "upgrade")
        and get("sec-websocket-version") == "13"
        and _KEY.fullmatch(get("sec-websocket-key", ""))
        and _HOST.fullmatch(get("host", ""))
        and (origin is None or _ORIGIN.fullmatch(origin))
        and get("sec-websocket-extensions") in _OFFERS
    ):
        return Handshake(match[1].decode("ascii"), headers, end + 4)
    return None


def accept_handshake(handshake: Handshake) -> bytes:
    """Return the response that opens the WebSocket, without a subprotocol and without extensions."""
    accept = b64encode(sha1(handshake.headers["sec-websocket-key"].encode("ascii") + _MAGIC).digest())  # noqa: S324
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept
    )


def _has_token(value: str, token: str) -> bool:
    value = value.lower()
    return value == token or token in (part.strip() for part in value.split(","))
