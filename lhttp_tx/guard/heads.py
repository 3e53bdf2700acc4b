"""
Checks the head of an HTTP request: it has one host, and each important header once.

Part of the codec: pure functions on bytes, used by :mod:`lhttp_tx.transports.websocket.opening` and the web resources.
This module checks only what twisted.web and Autobahn do not check, or interpret differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from operator import methodcaller

from lhttp_tx.errors import Refused

__all__ = [
    "check_counts",
    "check_headers",
    "is_moderate",
    "is_shallow",
    "is_short_list",
    "origin_form",
    "read_fields",
    "read_head",
    "unquote",
]

_MAX_QUERY = 8_192
"""The most bytes of the query of a handshake. The session keeps its parameters."""

_MAX_PARAMETERS = 64
"""The most parameters of the query."""

_MAX_STEPS = 256
"""The most slashes and escapes of a path, together. Each one costs time when the path is parsed."""

_MAX_LIST = 64
"""The most entries of a list in a handshake, such as the list of subprotocols."""

_LISTS = ("connection", "sec-websocket-protocol", "upgrade")

_MAX_EXTENSIONS = 32
"""The most extensions in a handshake and parameters of them, together."""

_ONCE = frozenset(
    {
        *(b"authorization", b"content-length", b"content-type", b"host", b"origin", b"sec-fetch-site"),
        *(b"sec-websocket-key", b"sec-websocket-version"),
    }
)
"""Headers that must have one value. If one is repeated, two programs may use different values."""

_ABSOLUTE = re.compile(rb"(?i:https?|wss?)://([^/?#]*)(.*)", re.DOTALL)

# A name is a token, and ends at its colon. A value has no control character that ends a line or a string (RFC 9110,
# sections 5.1 and 5.5). A line that begins with a blank would continue the one before, and is not a header.
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\0\r\n]*\r\n)*")
_ESCAPE = re.compile(rb"(%[0-9A-Fa-f]{2})")
_ESCAPED = {
    b"%" + first.encode() + second.encode(): bytes.fromhex(first + second)
    for first in "0123456789ABCDEFabcdef"
    for second in "0123456789ABCDEFabcdef"
}
_ILLEGAL = re.compile(rb"[\0\r\n]")


def check_headers(names: Iterable[bytes]) -> None:
    """
    Check that no important header is repeated.

    :param names: the names of all headers in lower case. A repeated name occurs as often as it was sent.
    :raises Refused: with status 400 if a header that must have one value occurs more than once.
    """
    listed = list(names)
    if len(set(listed)) == len(listed):
        return
    for name in _ONCE:
        if listed.count(name) > 1:
            raise Refused(400, f"header {name.decode('ascii')} occurs more than once")


def check_counts(target: str, headers: Mapping[str, str]) -> None:
    """
    Check that an opening handshake does not have too many small parts, which take more memory than their bytes.

    :param target: the path and the query of an opening handshake, as they were sent.
    :param headers: its headers by lower-case name.
    :raises Refused: with status 400 if the path, the query or a list has too many parts.
    """
    if len(target) > _MAX_PARAMETERS:  # a shorter target cannot have too many
        path, _, query = target.encode("utf-8").partition(b"?")
        if not is_shallow(path):
            raise Refused(400, f"the path has more than {_MAX_STEPS} segments and escapes")
        if not is_moderate(query):
            raise Refused(400, f"the query has more than {_MAX_PARAMETERS} parameters or {_MAX_QUERY} bytes")
    for name in _LISTS:
        value = headers.get(name, "")
        if len(value) >= _MAX_LIST and not is_short_list(value.encode("utf-8")):
            raise Refused(400, f"header {name} has more than {_MAX_LIST} entries")
    offered = headers.get("sec-websocket-extensions", "")
    if len(offered) >= _MAX_EXTENSIONS and offered.count(",") + offered.count(";") >= _MAX_EXTENSIONS:
        raise Refused(400, f"header sec-websocket-extensions has more than {_MAX_EXTENSIONS} entries and parameters")


def is_short_list(value: bytes) -> bool:
    """Return whether a list in a header has few enough entries, whether commas or blanks separate them."""
    return value.count(b",") + value.count(b" ") + value.count(b"\t") < 2 * _MAX_LIST and value.count(b",") < _MAX_LIST


def is_moderate(query: bytes) -> bool:
    """Return whether *query* has few enough bytes and parameters, whatever separates them."""
    parted = query.count(b"&") + query.count(b";")
    return len(query) <= _MAX_QUERY and parted < _MAX_PARAMETERS


def is_shallow(path: bytes) -> bool:
    """Return whether *path* has few enough segments and escapes."""
    return len(path) <= _MAX_STEPS or path.count(b"/") + path.count(b"%") <= _MAX_STEPS


def unquote(text: bytes) -> bytes:
    """Return *text* with its escapes decoded. It has no loop in Python over the escapes."""
    if b"%" not in text:
        return text
    pieces = _ESCAPE.split(text)
    pieces[1::2] = map(_ESCAPED.__getitem__, pieces[1::2])
    return b"".join(pieces)


def origin_form(target: bytes, host: bytes | None) -> bytes:
    """
    Return a request's target as a path with a query (RFC 9112, section 3.2).

    :param target: the target as it was sent: a path with a query, ``*``, or a whole URL.
    :param host: the value of the ``Host`` header; ``None`` without one.
    :raises Refused: with status 400 if it is a URL of another host, or none of these forms.
    """
    if target[:1] == b"/" or target == b"*":
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise Refused(400, "the target of the request is neither a path nor a URL")
    if match[1].lower() != (host or b"").strip().lower():
        raise Refused(400, "the target of the request names another host than its Host header")
    return match[2] if match[2][:1] == b"/" else b"/" + match[2]


def read_fields(lines: bytes) -> tuple[list[bytes], list[bytes]] | None:
    """
    Return the names of headers in lower case, and their values without the blanks around them.

    There is no loop in Python over headers or bytes, so a head with many headers costs little more than one with few.

    :param lines: the header lines, each with its line end.
    :returns: as many values as names, in the order of the lines; ``None`` if a line is malformed or folded.
    """
    if not _FIELDS.fullmatch(lines):
        return None
    if not lines:
        return [], []
    names, _, values = zip(*map(methodcaller("partition", b":"), lines.split(b"\r\n")[:-1]), strict=True)
    return list(map(bytes.lower, names)), list(map(methodcaller("strip", b" \t"), values))


def read_head(head: bytes) -> tuple[bytes, dict[str, str]]:
    """
    Return the start line and the headers of a request, by lower-case name.

    A repeated header is joined by commas, ``cookie`` by semicolons (RFC 9113, section 8.2.3).

    :param head: the whole head, without the blank line at its end.
    :raises Refused: with status 400 if it is malformed, or if :func:`check_headers` refuses it.
    """
    start, end, lines = head.partition(b"\r\n")
    fields = read_fields(lines + end)
    if fields is None:
        raise Refused(400, "malformed header line")
    if _ILLEGAL.search(start):
        raise Refused(400, "malformed start line")
    check_headers(fields[0])
    found: dict[bytes, list[bytes]] = {}
    for name, value in zip(*fields, strict=True):
        found.setdefault(name, []).append(value)
    return start, {
        name.decode("ascii"): (b"; " if name == b"cookie" else b", ").join(values).decode("latin-1")
        for name, values in found.items()
    }
