"""
Multipart bodies, whose parts begin at offsets.

Part of the codec: pure functions. Used by the multipart filter, the views, and the Python client. Source: the protocol
document, section "Multipart".
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, repeat
from operator import itemgetter, lt

from lhttp_tx.codec.headers import Headers, parse_header_lines
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.plain import are_lines
from lhttp_tx.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError

__all__ = [
    "MAX_PARTS",
    "MAX_PART_FIELDS",
    "MAX_PART_HEADERS",
    "Part",
    "check_parts",
    "check_split",
    "join_parts",
    "join_raw_parts",
    "parse_offsets",
    "split_message",
    "split_parts",
    "split_raw_message",
]

MAX_PARTS = 128
MAX_PART_HEADERS = 256
"""The most parts of a client's message, and the most headers of all its parts together."""

MAX_PART_FIELDS = 300
"""The most parts plus headers of parts of a client's message that is a view, because reading these is more work."""

_MAX_DIGITS = 10

_KEPT_OFFSETS = 4
"""The number of lists of offsets that are kept, because those of a message are needed several times."""

_SPLIT_PARTS = 500
_SPLIT_HEADERS = 5_000
"""
The most parts, and the most headers of parts, of a message that :func:`split_message` splits. An answer of the command
``history`` may have that many parts.
"""

_HEAD = itemgetter(0)

_NO_HEADERS = Headers()
"""All parts without headers share this object."""


@dataclass(frozen=True, slots=True)
class Part:
    """
    One part of a multipart body.

    :ivar headers: the headers of the part.
    :ivar body: the bytes of its body.
    """

    headers: Headers = field(default_factory=Headers)
    body: bytes = b""


@lru_cache(_KEPT_OFFSETS)
def parse_offsets(value: str) -> tuple[int, ...]:
    """
    Return the offsets in the value of a ``multipart`` header.

    :raises RemoteProtocolError: if there is no offset, or if the offsets are not decimal numbers, do not start at 0, or
        do not increase.
    """
    words = [*filter(None, value.replace("\t", " ").split(" "))]
    digits = "".join(words)
    if digits.isascii() and digits.isdigit() and max(map(len, words)) <= _MAX_DIGITS:
        found = tuple(map(int, words))
        if found[0] == 0 and all(map(lt, found, found[1:])):
            return found
    offsets: list[int] = []
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= _MAX_DIGITS):
            raise RemoteProtocolError(f"multipart offset {word[:64]!a} is not decimal")
        offset = int(word)
        if offsets and offset <= offsets[-1]:
            raise RemoteProtocolError(f"multipart offset {offset} does not rise above {offsets[-1]}")
        offsets.append(offset)
    if not offsets:
        raise RemoteProtocolError("multipart header lists no offset")
    if offsets[0] != 0:
        raise RemoteProtocolError(f"multipart offsets start at {offsets[0]}, not at 0")
    return tuple(offsets)


def split_parts(offsets: tuple[int, ...], body: bytes, max_headers: int = 0) -> tuple[Part, ...]:
    """
    Return the parts of *body*. Each goes from its offset to the next one, and the last to the end.

    :param offsets: the result of :func:`parse_offsets`.
    :param max_headers: the most headers of all parts together; 0: no limit.
    :raises RemoteProtocolError: if an offset is outside the body, or a part is malformed.
    :raises MessageTooLarge: if there are more than *max_headers* headers.
    """
    cut = _cut_parts(offsets, body, max_headers)
    return tuple(Part(parse_header_lines(head) if head else _NO_HEADERS, content) for head, content in cut)


def check_split(offsets: tuple[int, ...], body: bytes, max_headers: int = 0) -> None:
    """
    Check that :func:`split_parts` can split *body*. Otherwise raise its error.

    This makes no parts, and takes a small share of the time.
    """
    cut = _cut_parts(offsets, body, max_headers)
    if not are_lines(b"".join(map(_HEAD, cut))):
        split_parts(offsets, body, max_headers)


def _cut_parts(offsets: tuple[int, ...], body: bytes, max_headers: int) -> list[tuple[bytes, bytes]]:
    """Return the header lines and the body of each part, like :func:`split_parts`. The lines may be malformed."""
    if offsets[-1] >= len(body):
        raise RemoteProtocolError(f"multipart offset {offsets[-1]} is not inside the body of {len(body)} bytes")
    ends = (*offsets[1:], len(body))
    bare = [*map(body.startswith, repeat(b"\r\n"), offsets, ends)]
    if all(bare):  # there may be many, and small
        return [*zip(repeat(b""), map(body.__getitem__, map(slice, map((2).__add__, offsets), ends)), strict=False)]
    blanks = [*map(body.find, repeat(b"\r\n\r\n"), offsets, ends)]
    if any(blank < 0 and not is_bare for blank, is_bare in zip(blanks, bare, strict=True)):
        raise RemoteProtocolError("a part has no blank line between its headers and its body")
    cut = [
        (b"", body[start + 2 : end]) if is_bare else (body[start : blank + 2], body[blank + 4 : end])
        for start, end, blank, is_bare in zip(offsets, ends, blanks, bare, strict=True)
    ]
    if max_headers and sum(head.count(b"\n") for head, _ in cut) > max_headers:
        raise MessageTooLarge(f"the parts have more than {max_headers} headers")
    return cut


def check_parts(message: Message) -> None:
    """
    Check the parts of a message, with the limits for clients. Do nothing if it is not multipart.

    :raises RemoteProtocolError: if the offsets or the parts are malformed.
    :raises MessageTooLarge: if there are too many parts or headers of parts.
    """
    value = message.headers.get("multipart")
    if value is None:
        return
    offsets = parse_offsets(value)
    if len(offsets) > MAX_PARTS:
        raise MessageTooLarge(f"message of {len(offsets)} parts has more than {MAX_PARTS}")
    check_split(offsets, message.body, MAX_PART_HEADERS)


def split_message(message: Message) -> tuple[Part, ...] | None:
    """
    Return the parts of a message, for its view.

    :returns: the parts; ``None`` if the message has no ``multipart`` header, if the offsets or parts are malformed, or
        if there are more than 500 parts or 5,000 headers.
    """
    cut = split_raw_message(message)
    return None if cut is None else tuple(Part(parse_header_lines(head), content) for head, content in cut)


def split_raw_message(message: Message) -> list[tuple[bytes, bytes]] | None:
    """Like :func:`split_message`, but return bytes: the header lines and the body of each part."""
    offsets = message.headers.get("multipart")
    if offsets is None:
        return None
    try:
        found = parse_offsets(offsets)
        cut = _cut_parts(found, message.body, _SPLIT_HEADERS) if len(found) <= _SPLIT_PARTS else []
    except RemoteProtocolError:
        return None
    return cut if cut and are_lines(b"".join(map(_HEAD, cut))) else None


def join_parts(parts: Iterable[Part]) -> tuple[str, bytes]:
    """
    Return the value of the ``multipart`` header, and the body with *parts*.

    :raises LocalProtocolError: if there is no part, or a header is malformed.
    """
    chunks: list[bytes] = []
    offsets: list[int] = []
    size = 0
    for part in parts:
        offsets.append(size)
        # After its start line, a message with the same headers and body has the bytes of the part.
        carrier = Message("part", part.headers, part.body, binary=True)
        chunk = carrier.raw[carrier.raw.index(b"\r\n") + 2 :]
        chunks.append(chunk)
        size += len(chunk)
    if not offsets:
        raise LocalProtocolError("a multipart body has at least one part")
    return " ".join(map(str, offsets)), b"".join(chunks)


def join_raw_parts(parts: Iterable[bytes]) -> tuple[str, bytes]:
    """
    Return the value of the ``multipart`` header, and the body with parts that are already encoded.

    :param parts: at least one well-formed part, each with header lines, a blank line and the body.
    """
    chunks = list(parts)
    offsets = accumulate(map(len, chunks[:-1]), initial=0)
    return " ".join(map(str, offsets)), b"".join(chunks)
