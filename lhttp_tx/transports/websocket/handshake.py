"""
Reads an ordinary opening handshake of a WebSocket in one step.

Part of the codec: pure functions on bytes, used by :mod:`lhttp_tx.transports.websocket.opening`,
:mod:`lhttp_tx.transports.websocket.protocol` and
:mod:`lhttp_tx.web.site`. They accept only the plainest form: one whole ``GET``, each header once, and no extension
to negotiate (RFC 6455, section 4.2.1). twisted.web and Autobahn handle everything else. They decide what is legal, and
report what is wrong.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

from lhttp_tx.codec.views import VIEWS

__all__ = [
    "MAX_HEADERS",
    "SUBPROTOCOLS",
    "Handshake",
    "accept_handshake",
    "certificate_of",
    "choose_subprotocol",
    "read_handshake",
]

SUBPROTOCOLS = ("lhttp", *VIEWS)
"""The WebSocket subprotocols of the server. The server speaks the first one if the client offers none."""

_MAX_SUBPROTOCOL = 255
"""The longest unknown subprotocol that the server accepts, in characters. A connection stores it."""

_MAX_SIZE = 16_384
"""The largest head, in bytes. twisted.web has the same bound."""

MAX_HEADERS = 64
"""The most header lines of a handshake, and of any other request. Each one costs work."""

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""The text that RFC 6455, section 1.3, appends to the key."""

# The target begins with one slash and has no fragment; names are tokens; values are ASCII without control characters.
# The port of an origin must be valid: Autobahn refuses others even if every origin is allowed.
_HEAD = re.compile(
    rb"GET (/(?!/)[!\"$-~]*) HTTP/1\.1"
    rb"((?:\r\n[!#$%%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~]*){1,%d})" % MAX_HEADERS
)
_HOST = re.compile(r"(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://[0-9A-Za-z._-]+(?::(?:[1-5]?[0-9]{1,4}|6[0-4][0-9]{3}))?")
_KEY = re.compile(r"[0-9A-Za-z+/]{22}==")

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_UNUSUAL = frozenset({"content-length", "expect", "transfer-encoding"})
"""Headers that a plain handshake does not have."""

_OFFERS = frozenset({None, "permessage-deflate", "permessage-deflate; client_max_window_bits"})
"""The extensions that browsers and common clients offer. A server that does not compress need not answer them."""


@dataclass(slots=True)
class Handshake:
    """
    The opening handshake of a client.

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
    Return the ordinary opening handshake at the beginning of *data*; ``None`` if it is anything else.

    :param data: everything that the client has sent on this connection.
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
        and ("sec-websocket-protocol" not in headers or _is_plain_offer(headers["sec-websocket-protocol"]))
    ):
        return Handshake(match[1].decode("ascii"), headers, end + 4)
    return None


def certificate_of(transport: Any) -> bytes | None:
    """Return the certificate, in DER, that the peer of a TLS connection has presented; ``None`` without one."""
    from twisted.internet.ssl import Certificate

    found = transport.getPeerCertificate()
    return None if found is None else Certificate(found).dump()


def accept_handshake(handshake: Handshake) -> bytes:
    """Return the response that opens the WebSocket, without extensions."""
    accept = b64encode(sha1(handshake.headers["sec-websocket-key"].encode("ascii") + _MAGIC).digest())  # noqa: S324
    chosen = choose_subprotocol(handshake.headers.get("sec-websocket-protocol"))
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n%s"
        b"Sec-WebSocket-Accept: %s\r\n\r\n"
        % (b"" if chosen is None else b"Sec-WebSocket-Protocol: %s\r\n" % chosen.encode("ascii"), accept)
    )


def choose_subprotocol(offer: str | None) -> str | None:
    """
    Return the subprotocol that the server agrees to; ``None`` for none.

    It is the first one in the client's list that the server knows. If the server knows none and the client offers
    exactly one, it is that one, because browsers close a connection whose offer gets no answer.

    :param offer: the value of ``Sec-WebSocket-Protocol``, repeated headers joined by commas; ``None`` without one.
    """
    if offer is None:
        return None
    offered = [found for name in offer.split(",") if (found := name.strip(" \t"))]
    for name in offered:
        if name in SUBPROTOCOLS:
            return name
    if len(offered) == 1 and len(offered[0]) <= _MAX_SUBPROTOCOL and _TOKEN.fullmatch(offered[0]):
        return offered[0]
    return None


def _is_plain_offer(offer: str) -> bool:
    """Return whether an offer names subprotocols, each once."""
    names = [name.strip(" \t") for name in offer.split(",")]
    return len(set(names)) == len(names) and all(map(_TOKEN.fullmatch, names))


def _has_token(value: str, token: str) -> bool:
    value = value.lower()
    return value == token or token in map(str.strip, value.split(","))
