"""
The JSON view of a message: converts the bytes of a message to a JSON object, and back.

Part of the codec: pure functions. The subprotocol ``lhttp.json``, event streams and ``POST /publish`` use them. A view
is the same message in another form. Source: the protocol document, section "JSON".
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from json.encoder import encode_basestring
from typing import Any, TypeAlias

from lhttp_tx.codec.headers import HeaderPairs, header_line
from lhttp_tx.codec.limits import DEFAULT_LIMITS, UNLIMITED, Limits
from lhttp_tx.codec.message import Head, Message, parse, parse_head
from lhttp_tx.codec.multipart import MAX_PART_FIELDS, MAX_PART_HEADERS, MAX_PARTS, join_raw_parts, split_raw_message
from lhttp_tx.codec.plain import are_lines, json_headers, plain_command, usual_head, usual_json
from lhttp_tx.codec.positions import is_marked
from lhttp_tx.codec.text import is_text
from lhttp_tx.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError

__all__ = ["decode_json", "decode_json_list", "encode_json", "receipt_of_json"]

_VERSION = "LHTTP/1.0"
_MULTIPART = frozenset({"multipart"})

_CACHED_SIZE = 512
_CACHED_COUNT = 512
"""The most bytes of a head whose view is cached; and the most entries of each cache, for writing and for reading."""

_WRITTEN_COUNT = 4
"""The most views in the cache for messages that are expensive to convert."""

_SMALL = 4_096
"""The most bytes of a JSON text that is parsed without checking its structure first."""

_MARKS_PER_HEADER = 64
"""The most brackets, braces, commas and colons that a larger JSON text may have for each header of the limits."""

_MARKS = b"[]{},:"
_NO_MARKS = bytes(range(256)).translate(None, _MARKS)

_BODY = b'"BODY":"'
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
"""The key of the body in most views; and the characters of a string that need no escape."""

_ASCII_LINE = re.compile(r"[\x21-\x39\x3b-\x7e]+:[\t\x20-\x7e]*\r\n")

_RECEIPTS = re.compile(rb'(?i)"receipt"[ \t\r\n]*[:,][ \t\r\n]*"([^"\\\x00-\x1f\x7f]*)"')
"""Finds ``receipt`` in a text that is otherwise malformed, so that its error can have a ``receipt-id``."""

_TOLD = 64
_REASON = 200
"""The most characters of a client's text that an error shows; and the most characters of a reason."""

_Pairs: TypeAlias = tuple[tuple[str, Any], ...]
"""A JSON object as the parser returns it. JSON arrays are lists."""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# Views contain no numbers. The parser does not compute them: each becomes True.
_decode = json.JSONDecoder(
    object_pairs_hook=tuple, parse_int=bool, parse_float=bool, parse_constant=_no_constant
).decode


# Writing


def encode_json(message: bytes) -> bytes:
    r"""
    Return the JSON view of a message: one object in UTF-8, without line breaks.

    Its keys are ``VERSION``, ``COMMAND``, ``HEADERS`` (the values are strings, or lists of strings for repeated
    headers), and one of these: ``BODY`` (a string), ``BODY_BASE64`` (if the body is not UTF-8), or ``BODYS`` (the parts
    of a multipart message, without the header ``multipart``). A multipart body that is malformed, or has more than 500
    parts or 5,000 headers, is written like any other body.

    >>> encode_json(b"LHTTP/1.0 chat\r\npublish:room\r\n\r\nhi")
    b'{"VERSION":"LHTTP/1.0","COMMAND":"chat","HEADERS":{"publish":"room"},"BODY":"hi"}'

    :param message: a whole message, of any size.
    :raises RemoteProtocolError: if *message* is malformed.
    """
    end = message.find(b"\r\n\r\n") + 2
    if 2 <= end <= _CACHED_SIZE:
        opening = (_make_opening if is_marked(message) else _opening)(message[:end])
        if opening is not None:
            return b"%b,%b}" % (opening, _body_field(message[end + 2 :]))
    return _written(message)


@lru_cache(_WRITTEN_COUNT)
def _written(message: bytes) -> bytes:
    """Return the view of a message with a large head or with parts. It is cached, because events need it again."""
    parsed = parse(message, binary=True, limits=UNLIMITED)
    parts = split_raw_message(parsed)
    if parts is None:
        return b"%b,%b}" % (_opened(parsed.head), _body_field(parsed.body))
    written = b",".join([b'{"HEADERS":%b,%b}' % (json_headers(lines), _body_field(body)) for lines, body in parts])
    return b'%b,"BODYS":[%b]}' % (_opened(parsed.head.without(_MULTIPART)), written)


def _make_opening(raw: bytes) -> bytes | None:
    """Return the view of a head without the closing brace; ``None`` if the message is multipart."""
    usual = usual_head(raw)
    if usual is not None:
        return b'{"VERSION":"LHTTP/1.0","COMMAND":"%b","HEADERS":%b' % (usual[0], usual_json(usual[1]))
    start, _, lines = raw.partition(b"\r\n")
    command = plain_command(start)
    if command is not None and are_lines(lines) and b"\nmultipart:" not in raw.lower():
        return b'{"VERSION":"LHTTP/1.0","COMMAND":"%b","HEADERS":%b' % (command, json_headers(lines))
    head = parse_head(raw, UNLIMITED)
    return None if "multipart" in head.headers else _opened(head)


_opening = lru_cache(_CACHED_COUNT)(_make_opening)
"""The same with a cache, for heads that other messages probably have, too."""


def _opened(head: Head) -> bytes:
    command = encode_basestring(head.command).encode("ascii")
    headers = json_headers(head.raw.partition(b"\r\n")[2])
    return b'{"VERSION":"LHTTP/1.0","COMMAND":%b,"HEADERS":%b' % (command, headers)


def _body_field(body: bytes) -> bytes:
    if is_text(body):
        return b'"BODY":' + encode_basestring(body.decode("utf-8")).encode("utf-8")
    return b'"BODY_BASE64":"%b"' % b64encode(body)


# Reading


def decode_json(data: bytes, limits: Limits = DEFAULT_LIMITS, *, max_parts: int = MAX_PARTS) -> tuple[bytes, bool]:
    r"""
    Return the message that a JSON view represents, and whether it is binary.

    Keys are not case-sensitive. ``COMMAND`` is required. ``null`` means that a key is missing. ``HEADERS`` is an
    object, or a list of pairs. A message with ``BODY_BASE64`` is binary, and all others are text. The work is limited,
    whatever *data* is: outside strings, a text of more than 4,096 bytes may have 64 brackets, braces, commas and colons
    for each header of the limits. Numbers are not computed.

    >>> decode_json(b'{"COMMAND": "chat", "HEADERS": {"publish": "room"}, "BODY": "hi"}')
    (b'LHTTP/1.0 chat\r\npublish:room\r\n\r\nhi', False)

    :param data: the JSON text in UTF-8. The caller must limit its size.
    :param limits: ``message_size`` and ``header_count`` limit the message. The caller checks the size of its head.
    :param max_parts: the most parts of a multipart message; 0: no limit.
    :raises RemoteProtocolError: if *data* is not a view. The text names the place.
    :raises MessageTooLarge: if a limit is exceeded.
    """
    at = data.find(_BODY, 0, _CACHED_SIZE) + len(_BODY)
    if len(_BODY) <= at <= len(data) - 2 and data.endswith(b'"}'):
        opening, count = _read_opening(data[:at])
        body = _string(data[at:-2]) if opening and count <= limits.header_count else None
        if body is not None and len(opening) + len(body) <= limits.message_size:
            return opening + body, False
    return _read(data, limits, max_parts)


@lru_cache(_CACHED_COUNT)
def _read_opening(opening: bytes) -> tuple[bytes, int]:
    """
    Return the head and the blank line for the beginning of a JSON text, and the number of headers.

    :param opening: the beginning, up to the opening quote of ``BODY``.
    :returns: empty bytes and 0 if the text would be malformed with only a string and a brace after it.
    """
    try:
        raw, _ = _read(opening + b'"}', UNLIMITED, 0)
    except RemoteProtocolError:
        return b"", 0
    return raw, raw.count(b"\n") - 2


def _string(raw: bytes) -> bytes | None:
    """Return the value of a JSON string with the characters *raw*; ``None`` if this is not a string."""
    if _PLAIN.fullmatch(raw):
        return raw if is_text(raw) else None
    try:
        found = _decode(f'"{raw.decode("utf-8")}"')
        return found.encode("utf-8") if isinstance(found, str) else None
    except ValueError:
        return None


def _read(data: bytes, limits: Limits, max_parts: int) -> tuple[bytes, bool]:
    """See :func:`decode_json`."""
    return _message(_parsed(data, limits), limits, max_parts)


def decode_json_list(data: bytes, limits: Limits = DEFAULT_LIMITS) -> list[tuple[bytes, bool]]:
    """
    Return the messages that a JSON list of views, or a single view, represents.

    The limits of :func:`decode_json` apply to the whole list.

    :raises RemoteProtocolError: if an element is not a view.
    :raises MessageTooLarge: if a limit is exceeded.
    """
    found = _parsed(data, limits)
    return [_message(one, limits, MAX_PARTS) for one in (found if isinstance(found, list) else (found,))]


def _message(found: object, limits: Limits, max_parts: int) -> tuple[bytes, bool]:
    fields = _fields(found, _KEYS, "the message")
    if fields.get("VERSION") not in (None, _VERSION):
        raise RemoteProtocolError(f"VERSION is not '{_VERSION}'")
    command = fields.get("COMMAND")
    if not isinstance(command, str):
        raise RemoteProtocolError("COMMAND is missing" if command is None else "COMMAND is not a string")
    headers = _pairs(fields.get("HEADERS"), limits.header_count)
    try:
        if fields.get("BODYS") is not None:
            offsets, body, binary = _joined(fields, headers, limits, max_parts)
            headers.append(("multipart", offsets))
        else:
            body, binary = _body(fields)
        raw = Message(command, headers, body, binary=True).raw
    except LocalProtocolError as error:
        raise RemoteProtocolError(error.reason[:_REASON]) from None
    if len(raw) > limits.message_size:
        raise MessageTooLarge(f"message of {len(raw)} bytes is larger than {limits.message_size}")
    return raw, binary


def receipt_of_json(data: bytes, limits: Limits = DEFAULT_LIMITS) -> str | None:
    """Return the token of the receipt that a malformed view asks for; ``None`` if it cannot be found."""
    found = _RECEIPTS.findall(data[: limits.message_size])
    return found[-1].decode("utf-8", "replace").strip(" \t") if found else None


_KEYS = frozenset({"VERSION", "COMMAND", "HEADERS", "BODY", "BODY_BASE64", "BODYS"})
_PART_KEYS = frozenset({"HEADERS", "BODY", "BODY_BASE64"})


def _parsed(data: bytes, limits: Limits) -> object:
    if len(data) > _SMALL:
        _check_structure(data, limits.header_count * _MARKS_PER_HEADER)
    try:
        return _decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"the JSON text is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise RemoteProtocolError(f"the JSON text is malformed at character {error.pos}: {error.msg}") from None
    except RecursionError:
        raise RemoteProtocolError("the JSON text is nested too deeply") from None
    except ValueError as error:
        raise RemoteProtocolError(f"the JSON text is malformed: {error}") from None


def _check_structure(data: bytes, most: int) -> None:
    """
    Refuse a text whose parsing would make too many objects.

    :raises MessageTooLarge: if it has more than *most* brackets, braces, commas and colons outside strings.
    """
    if len(data.translate(None, _NO_MARKS)) <= most:
        return
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # now no quote is escaped
    pieces = plain.split(b'"', 2 * most + 2)  # every second piece is in a string, and strings have a mark between them
    marks = len(b"".join(pieces[::2]).translate(None, _NO_MARKS))
    if marks > most or len(pieces) > 2 * most + 2:
        raise MessageTooLarge(f"the JSON text has more than {most} brackets, braces, commas and colons")


def _fields(found: object, known: frozenset[str], what: str) -> dict[str, Any]:
    """
    Return the values of an object, by key in upper case.

    :param found: the object, as the parser returns it.
    :param known: the allowed keys, in upper case.
    :param what: the name of the object, for error texts.
    :raises RemoteProtocolError: if *found* is not an object, or has an unknown key, or a key twice.
    """
    if not isinstance(found, tuple):
        raise RemoteProtocolError(f"{what} is not a JSON object")
    fields = {key.upper(): value for key, value in found}
    if len(fields) == len(found) and fields.keys() <= known and "".join([key for key, _ in found]).isascii():
        return fields
    for key, _ in found:
        if key.upper() not in known or not key.isascii():
            raise RemoteProtocolError(f"{what} has an unknown key {key[:_TOLD]!a}")
    names = [key.upper() for key, _ in found]
    raise RemoteProtocolError(f"{what} has {next(name for name in names if names.count(name) > 1)} twice")


def _pairs(found: object, most: int) -> list[tuple[str, str]]:
    """
    Return the pairs of name and value in ``HEADERS``.

    :param most: the most pairs.
    :raises RemoteProtocolError: if *found* is malformed; with status 413 if there are more.
    """
    if found is None:
        return []
    if isinstance(found, list):
        pairs = list(islice(_listed(found), most + 1))
    elif isinstance(found, tuple):
        pairs = list(islice(_named(found), most + 1))
    else:
        raise RemoteProtocolError("HEADERS is neither an object nor a list of pairs")
    if len(pairs) > most:
        raise RemoteProtocolError(f"there are more than {most} HEADERS", status=413)
    return pairs


def _listed(found: list[Any]) -> Iterator[tuple[str, str]]:
    for pair in found:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], str):
            raise RemoteProtocolError("HEADERS lists something that is not a pair of strings")
        yield pair[0], pair[1].strip(" \t")


def _named(found: _Pairs) -> Iterator[tuple[str, str]]:
    for name, value in found:
        for one in value if isinstance(value, list) else (value,):
            if not isinstance(one, str):
                raise RemoteProtocolError(f"the value of header {name[:_TOLD]!a} is not a string or a list of strings")
            yield name, one.strip(" \t")


def _body(fields: dict[str, Any]) -> tuple[bytes, bool]:
    """Return the body, and whether the message is binary because of it."""
    body, coded = fields.get("BODY"), fields.get("BODY_BASE64")
    if coded is not None:
        if body is not None:
            raise RemoteProtocolError("BODY and BODY_BASE64 exclude each other")
        if not isinstance(coded, str):
            raise RemoteProtocolError("BODY_BASE64 is not a string")
        try:
            return binascii.a2b_base64(coded.encode("ascii"), strict_mode=True), True
        except ValueError:
            raise RemoteProtocolError("BODY_BASE64 is not base64 (RFC 4648, section 4)") from None
    if body is None:
        return b"", False
    if not isinstance(body, str):
        raise RemoteProtocolError("BODY is not a string")
    try:
        return body.encode("utf-8"), False
    except UnicodeEncodeError:
        raise RemoteProtocolError("BODY holds half of a surrogate pair") from None


def _joined(fields: dict[str, Any], headers: HeaderPairs, limits: Limits, max_parts: int) -> tuple[str, bytes, bool]:
    """
    Return the offsets and the body for ``BODYS``, and whether a part makes the message binary.

    :raises RemoteProtocolError: if ``BODYS`` is malformed, contradicted or too long.
    :raises LocalProtocolError: if a header of a part is malformed.
    """
    found = fields["BODYS"]
    if fields.get("BODY") is not None or fields.get("BODY_BASE64") is not None:
        raise RemoteProtocolError("BODYS excludes BODY and BODY_BASE64")
    if any(name.lower() == "multipart" for name, _ in headers):
        raise RemoteProtocolError("BODYS excludes the header multipart, which follows from it")
    if not isinstance(found, list) or not found:
        raise RemoteProtocolError("BODYS is not a list of at least one part")
    if max_parts and len(found) > max_parts:
        raise MessageTooLarge(f"message of {len(found)} parts has more than {max_parts}")
    chunks: list[bytes] = []
    is_binary, left = False, limits.header_count * len(found)
    if max_parts:
        left = min(MAX_PART_HEADERS, MAX_PART_FIELDS - len(found))
    for one in found:
        part = _fields(one, _PART_KEYS, "a part")
        body, binary = _body(part)
        is_binary = is_binary or binary
        lines = b""
        if "HEADERS" in part:
            pairs = _pairs(part["HEADERS"], left)
            left -= len(pairs)
            lines = b"".join([_line(name, value) for name, value in pairs])
        chunks.append(lines + b"\r\n" + body)
    return *join_raw_parts(chunks), is_binary


def _line(name: str, value: str) -> bytes:
    """
    Return a header line with its CRLF. The value must have no blanks at its ends.

    :raises LocalProtocolError: if the name or the value is malformed.
    """
    line = f"{name}:{value}\r\n"
    if ":" not in name and _ASCII_LINE.fullmatch(line):
        return line.encode("ascii")
    return header_line(name, value) + b"\r\n"
