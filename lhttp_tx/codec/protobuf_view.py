"""
The Protocol Buffers view of a message: converts the bytes of a message to a ``Message`` of ``lhttp.proto``, and back.

Part of the codec: pure functions. ``lhttp_tx/web/static/lhttp.proto`` is the schema. Its messages have few fields, so
this module reads and writes them itself. So nothing has to be installed or generated, and the cost of hostile messages
is known: fields that the schema does not have cause no objects. Source of the encoding: Protocol Buffers, "Encoding";
and of the view: the protocol document, section "Protocol Buffers".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from operator import lshift

from lhttp_tx.codec.headers import header_line
from lhttp_tx.codec.limits import DEFAULT_LIMITS, UNLIMITED, Limits
from lhttp_tx.codec.message import Head, Message, parse, parse_head
from lhttp_tx.codec.multipart import MAX_PART_FIELDS, MAX_PART_HEADERS, MAX_PARTS, join_raw_parts, split_raw_message
from lhttp_tx.codec.plain import (
    are_lines,
    plain_command,
    protobuf_headers,
    protobuf_size,
    usual_head,
    usual_protobuf,
)
from lhttp_tx.codec.positions import is_marked
from lhttp_tx.codec.text import is_text
from lhttp_tx.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError

__all__ = ["decode_protobuf", "encode_protobuf", "receipt_of_protobuf"]

_VERSION = b"LHTTP/1.0"
_MULTIPART = frozenset({"multipart"})

_CACHED_SIZE = 512
_CACHED_COUNT = 512
"""The most bytes of a head whose view is cached; and the most entries of each cache, for writing and for reading."""

_MAX_FIELDS = 2
_HEADER_FIELDS = 4
_ODD_HEADERS = 64
"""
The most fields of a message for each header of the limits, without parts; the most fields of a header; and the most
short headers that are not in the usual form.
"""

_SHORT = 128
"""Headers with fewer bytes than this are short."""

_REASON = 200
"""The most characters of a reason."""

# Tags: the number of a field, and its wire type.
_LENGTH, _VARINT = 2, 0
_MESSAGE_COMMAND, _MESSAGE_HEADERS, _MESSAGE_BODY = b"\x12", b"\x1a", b"\x22"
_MESSAGE_PARTS, _MESSAGE_BINARY = b"\x2a", b"\x30\x01"
_SIMPLE = b"\x0a" + _MESSAGE_COMMAND + _MESSAGE_HEADERS
"""The tags of version, command and headers, which come before a body."""

_HEADER_NAME, _HEADER_VALUE = b"\x0a", b"\x12"
_PART_HEADERS, _PART_BODY = b"\x0a", b"\x12"

_VARINT_BYTES = re.compile(rb"[\x80-\xff]{0,9}[\x00-\x7f]", re.DOTALL)
_LOW_BITS = (127).__and__
_SHIFTS = range(0, 70, 7)

_SHORT_FIELDS = {bytes((tag, size)): (tag >> 3, size + 2) for tag in range(10, 43, 8) for size in range(128)}
_OTHER = (0, 0)
"""The number and the whole size of short fields with the numbers 1 to 5, by their first two bytes."""

_LINE = re.compile(rb"[\x21-\x39\x3b-\x7e]+:[^\x00-\x08\x0a-\x1f\x7f]*")

_KINDS = {1: _LENGTH, 2: _LENGTH, 3: _LENGTH, 4: _LENGTH, 5: _LENGTH, 6: _VARINT}
"""The wire types of the fields of a ``Message``. ``Header`` and ``Part`` have the first two of these fields."""


# Writing


def encode_protobuf(message: bytes, binary: bool = False) -> bytes:
    r"""
    Return the Protocol Buffers view of a message.

    If the JSON view of the message has ``BODYS``, this view has ``parts``, without the header ``multipart``.

    >>> encode_protobuf(b"LHTTP/1.0 chat\r\npublish:room\r\n\r\nhi")
    b'\x12\x04chat\x1a\x0f\n\x07publish\x12\x04room"\x02hi'

    :param message: a whole message, of any size.
    :param binary: whether it is a binary message.
    :raises RemoteProtocolError: if *message* is malformed.
    """
    end = message.find(b"\r\n\r\n") + 2
    if 2 <= end <= _CACHED_SIZE:
        opening = (_make_opening if is_marked(message) else _opening)(message[:end])
        if opening is not None:
            body = message[end + 2 :]
            return b"".join((opening, _field(_MESSAGE_BODY, body) if body else b"", _MESSAGE_BINARY if binary else b""))
    parsed = parse(message, binary=binary, limits=UNLIMITED)
    parts = split_raw_message(parsed)
    fields = [_opened(parsed.head if parts is None else parsed.head.without(_MULTIPART))]
    if parts is not None:
        fields += [_field(_MESSAGE_PARTS, _written_part(lines, body)) for lines, body in parts]
    elif parsed.body:
        fields.append(_field(_MESSAGE_BODY, parsed.body))
    return b"".join((*fields, _MESSAGE_BINARY if binary else b""))


def _make_opening(raw: bytes) -> bytes | None:
    """Return the view of a head; ``None`` if the message is multipart."""
    usual = usual_head(raw)
    if usual is not None:
        fields = usual_protobuf(_MESSAGE_HEADERS[0], usual[1])
        return b"%b%c%b%b" % (_MESSAGE_COMMAND, len(usual[0]), usual[0], fields)
    start, _, lines = raw.partition(b"\r\n")
    command = plain_command(start)
    if command is not None and are_lines(lines) and b"\nmultipart:" not in raw.lower():
        fields = protobuf_headers(_MESSAGE_HEADERS[0], lines)
        return b"%b%c%b%b" % (_MESSAGE_COMMAND, len(command), command, fields)
    head = parse_head(raw, UNLIMITED)
    return None if "multipart" in head.headers else _opened(head)


_opening = lru_cache(_CACHED_COUNT)(_make_opening)
"""The same with a cache, for heads that other messages probably have, too."""


def _opened(head: Head) -> bytes:
    fields = protobuf_headers(_MESSAGE_HEADERS[0], head.raw.partition(b"\r\n")[2])
    return _field(_MESSAGE_COMMAND, head.command.encode("ascii")) + fields


def _written_part(lines: bytes, body: bytes) -> bytes:
    fields = protobuf_headers(_PART_HEADERS[0], lines) if lines else b""
    return fields + _field(_PART_BODY, body) if body else fields


def _field(tag: bytes, value: bytes) -> bytes:
    size = len(value)
    return b"%b%c%b" % (tag, size, value) if size < _SHORT else b"%b%b%b" % (tag, protobuf_size(size), value)


# Reading


def decode_protobuf(data: bytes, limits: Limits = DEFAULT_LIMITS, *, max_parts: int = MAX_PARTS) -> tuple[bytes, bool]:
    r"""
    Return the message that a Protocol Buffers view represents, and whether it is binary.

    Fields that the schema does not have are skipped. A view may have two fields for each header of the limits, not
    counting parts. A message is binary if its view says so, or if its body is not UTF-8.

    >>> decode_protobuf(b'\x12\x04chat"\x02hi')
    (b'LHTTP/1.0 chat\r\n\r\nhi', False)

    :param data: one ``Message``. The caller must limit its size.
    :param limits: ``message_size`` and ``header_count`` limit the message. ``head_size`` limits each header. The caller
        checks the size of the whole head.
    :param max_parts: the most parts of a multipart message; 0: no limit.
    :raises RemoteProtocolError: if *data* is not a view.
    :raises MessageTooLarge: if a limit is exceeded.
    """
    found = _read_quickly(data, limits.header_count)
    raw, is_binary = _read(data, limits, max_parts) if found is None else found
    if len(raw) > limits.message_size:
        raise MessageTooLarge(f"message of {len(raw)} bytes is larger than {limits.message_size}")
    return raw, is_binary


def _read_quickly(data: bytes, most: int) -> tuple[bytes, bool] | None:
    """
    Read a view with the help of the cache of heads. Return ``None`` if it must be read in full.

    :param most: the most headers.
    """
    position, end = 0, min(len(data) - 1, _CACHED_SIZE)
    while position < end and data[position] in _SIMPLE and data[position + 1] < 128:
        position += 2 + data[position + 1]
    if position >= end or data[position] != _MESSAGE_BODY[0]:
        return None
    opening, count = _read_opening(data[:position])
    if not opening or count > most:
        return None
    size, begin = _varint(data, position + 1)
    body, rest = data[begin : begin + size], data[begin + size :]
    if len(body) != size or rest not in (b"", _MESSAGE_BINARY):
        return None
    return opening + body, bool(rest) or not is_text(body)


@lru_cache(_CACHED_COUNT)
def _read_opening(opening: bytes) -> tuple[bytes, int]:
    """
    Return the head and the blank line for the beginning of a view, and the number of headers.

    :returns: empty bytes and 0 if the beginning is malformed.
    """
    try:
        raw, _ = _read(opening, UNLIMITED, 0)
    except RemoteProtocolError:
        return b"", 0
    return raw, raw.count(b"\n") - 2


def _read(data: bytes, limits: Limits, max_parts: int) -> tuple[bytes, bool]:
    """See :func:`decode_protobuf`."""
    command, body, is_binary = b"", b"", False
    headers: list[bytes] = []
    parts: list[bytes] = []
    odd = _Room(_ODD_HEADERS)
    room = _Room(limits.header_count * _MAX_FIELDS + (max_parts or len(data)))
    for number, value in _fields(data, room):
        if number == 3:
            headers.append(_header(value, limits, odd))
            if len(headers) > limits.header_count:
                raise RemoteProtocolError(f"there are more than {limits.header_count} headers", status=413)
        elif number == 5:
            parts.append(value)
        elif number == 4:
            body = value
        elif number == 2:
            command = value
        elif number == 6:
            is_binary = value != b"\0"
        elif number == 1 and value not in (b"", _VERSION):
            raise RemoteProtocolError("version is not 'LHTTP/1.0'")
    if parts:
        if body:
            raise RemoteProtocolError("parts exclude a body")
        if any(line[:10].lower() == b"multipart:" for line in headers):
            raise RemoteProtocolError("parts exclude the header multipart, which follows from them")
        if max_parts and len(parts) > max_parts:
            raise MessageTooLarge(f"message of {len(parts)} parts has more than {max_parts}")
        offsets, body = _joined(parts, limits, max_parts, odd)
        headers.append(b"multipart:" + offsets.encode("ascii"))
    raw = b"".join((_start(command), *[line + b"\r\n" for line in headers], b"\r\n", body))
    return raw, is_binary or not is_text(body)


def receipt_of_protobuf(data: bytes, limits: Limits = DEFAULT_LIMITS) -> str | None:
    """Return the token of the receipt that a malformed view asks for; ``None`` if it cannot be found."""
    found: str | None = None
    odd = _Room(_ODD_HEADERS)
    try:
        for number, value in _fields(data, _Room(limits.header_count * _MAX_FIELDS)):
            if number == 3 and len(value) < limits.head_size:
                name, _, token = _header(value, limits, odd).partition(b":")
                found = token.decode("utf-8") if name.lower() == b"receipt" else found
    except RemoteProtocolError:
        pass
    return found


def _start(command: bytes) -> bytes:
    """Return a start line with its CRLF."""
    if not command:
        raise RemoteProtocolError("command is missing")
    try:
        return Message(_text(command, "command")).head.raw
    except LocalProtocolError as error:
        raise RemoteProtocolError(error.reason[:_REASON]) from None


def _joined(parts: list[bytes], limits: Limits, max_parts: int, odd: _Room) -> tuple[str, bytes]:
    """Return the offsets and the body for ``parts``."""
    chunks: list[bytes] = []
    left = min(MAX_PART_HEADERS, MAX_PART_FIELDS - len(parts)) if max_parts else limits.header_count * len(parts)
    most = left
    room = _Room(left + len(parts))
    for part in parts:
        lines = []
        body = b""
        for number, value in _fields(part, room):
            if number == 1:
                lines.append(_header(value, limits, odd) + b"\r\n")
            elif number == 2:
                body = value
        left -= len(lines)
        if left < 0:
            raise MessageTooLarge(f"the parts have more than {most} headers")
        chunks.append(b"%b\r\n%b" % (b"".join(lines), body))
    return join_raw_parts(chunks)


def _header(data: bytes, limits: Limits, odd: _Room) -> bytes:
    """
    Return a header as a line, without its CRLF.

    :param odd: the number of short headers in an unusual form that may still follow. Such a header lowers it by one.
    """
    size = len(data)
    if 2 < size < _SHORT and data[0] == _HEADER_NAME[0]:
        name, rest = data[2 : 2 + data[1]], data[2 + data[1] :]
        line = b"%b:%b" % (name, rest[2:].strip(b" \t"))
        is_usual = rest[:2] == b"\x12%c" % max(len(rest) - 2, 0) if rest else len(name) == data[1]
        if is_usual and b":" not in name and _LINE.fullmatch(line) and (line.isascii() or is_text(line)):
            return line
    if size < _SHORT:
        odd.left -= 1
        if odd.left < 0:
            raise MessageTooLarge("there are too many fields")
    name = value = b""
    for number, found in _fields(data, _Room(_HEADER_FIELDS)):
        if number == 1:
            name = found
        elif number == 2:
            value = found
    if len(name) + len(value) > limits.head_size:
        raise MessageTooLarge(f"head is larger than {limits.head_size} bytes")
    try:
        return header_line(_text(name, "header name"), _text(value, "header value").strip(" \t"))
    except LocalProtocolError as error:
        raise RemoteProtocolError(error.reason[:_REASON]) from None


def _text(raw: bytes, what: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise RemoteProtocolError(f"{what} is not UTF-8") from None


class _Room:
    """The number of fields that may still follow."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


def _fields(data: bytes, room: _Room) -> Iterator[tuple[int, bytes]]:
    r"""
    Yield the numbers and values of the fields 1 to 6. The value of a varint is ``b"\0"`` if it is 0, else ``b"\1"``.

    :param room: the number of fields that may still follow. Each field lowers it by one; a field that the schema does
        not have, by two.
    :raises RemoteProtocolError: if *data* is not in the encoding of Protocol Buffers.
    :raises MessageTooLarge: if there are more fields.
    """
    position, end = 0, len(data)
    while position < end:
        room.left -= 1
        if room.left < 0:
            raise MessageTooLarge("there are too many fields")
        number, size = _SHORT_FIELDS.get(data[position : position + 2], _OTHER)
        if size and position + size <= end:
            position += size
            yield number, data[position - size + 2 : position]
            continue
        tag, position = (data[position], position + 1) if data[position] < 128 else _varint(data, position)
        kind = tag & 7
        if kind == _LENGTH:
            short = position < end and data[position] < 128
            size, position = (data[position], position + 1) if short else _varint(data, position)
            value = data[position : position + size]
            position += size
        elif kind == _VARINT:
            amount, position = _varint(data, position)
            value = b"\1" if amount else b"\0"
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
            value = b""
        else:
            raise RemoteProtocolError(f"field {tag >> 3 & 0xFFFFFFFF} has the wire type {kind}")
        if position > end:
            raise _cut_off()
        if not 8 <= tag < 2**32:
            raise RemoteProtocolError("the number of a field is out of bounds")
        if _KINDS.get(tag >> 3) == kind:
            yield tag >> 3, value
        else:  # this was more work than for a known field
            room.left -= 1


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a varint of at most 64 bits, and the index after it."""
    match = _VARINT_BYTES.match(data, position)
    if match is None:
        raise _cut_off() if len(data) - position < 10 else RemoteProtocolError("a number has more than 10 bytes")
    return sum(map(lshift, map(_LOW_BITS, match[0]), _SHIFTS)) & 0xFFFF_FFFF_FFFF_FFFF, match.end()


def _cut_off() -> RemoteProtocolError:
    return RemoteProtocolError("the message is cut off")
