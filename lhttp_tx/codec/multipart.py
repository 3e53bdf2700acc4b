"""
Multipart bodies by offset.

Part of the codec: pure functions. Used by the multipart filter and by clients.
Source: the protocol document, section "Multipart: offsets instead of boundaries".
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from lhttp_tx.errors import LocalProtocolError, RemoteProtocolError
from lhttp_tx.message import Headers, Message, parse_header_lines

__all__ = ["Part", "join_parts", "parse_offsets", "split_parts"]

_MAX_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Part:
    """
    One part of a multipart body.

    :ivar headers: its headers; may be none.
    :ivar body: its body, verbatim.
    """

    headers: Headers = field(default_factory=Headers)
    body: bytes = b""


def parse_offsets(value: str) -> tuple[int, ...]:
    """
    Return the offsets that the value of a ``multipart`` header lists.

    :raises RemoteProtocolError: if they are not decimal, do not start at 0, or do not rise strictly.
    """
    offsets: list[int] = []
    for word in value.replace("\t", " ").split(" "):
        if not word:
            continue
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


def split_parts(offsets: tuple[int, ...], body: bytes) -> tuple[Part, ...]:
    """
    Return the parts of *body*: each from its offset to the next, the last to the end.

    :param offsets: as :func:`parse_offsets` returned them.
    :raises RemoteProtocolError: if an offset is not inside the body, or a part is malformed.
    """
    if offsets[-1] >= len(body):
        raise RemoteProtocolError(f"multipart offset {offsets[-1]} is not inside the body of {len(body)} bytes")
    ends = (*offsets[1:], len(body))
    return tuple(_parse_part(body[start:end]) for start, end in zip(offsets, ends, strict=True))


def join_parts(parts: Iterable[Part]) -> tuple[str, bytes]:
    """
    Return the value of the ``multipart`` header and the body for *parts*.

    :raises LocalProtocolError: if there is no part, or a header would not parse back the same.
    """
    chunks: list[bytes] = []
    offsets: list[int] = []
    size = 0
    for part in parts:
        offsets.append(size)
        # A message with the part's headers has the part's bytes behind its start line.
        carrier = Message("part", part.headers, part.body, binary=True)
        chunk = carrier.raw[carrier.raw.index(b"\r\n") + 2 :]
        chunks.append(chunk)
        size += len(chunk)
    if not offsets:
        raise LocalProtocolError("a multipart body has at least one part")
    return " ".join(map(str, offsets)), b"".join(chunks)


def _parse_part(raw: bytes) -> Part:
    if raw.startswith(b"\r\n"):
        return Part(Headers(), raw[2:])
    end = raw.find(b"\r\n\r\n")
    if end < 0:
        raise RemoteProtocolError("a part has no blank line between its headers and its body")
    return Part(parse_header_lines(raw[: end + 2]), raw[end + 4 :])
