"""
The JSON view of a message: the bytes of a message to one JSON object, and back.

Part of the codec: pure functions. The subprotocol ``lhttp.json``, event streams and ``POST /publish`` use them. A view
changes how a message is written, not what it says. Source: the protocol document, section "JSON".
"""

from __future__ import annotations

import binascii
import json
from base64 import b64encode
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeAlias

from lhttp_tx.codec.headers import HeaderPairs, header_line
from lhttp_tx.codec.limits import DEFAULT_LIMITS, UNLIMITED, Limits
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.codec.multipart import MAX_PART_HEADERS, MAX_PARTS, Part, join_raw_parts, parse_offsets, split_parts
from lhttp_tx.codec.text import is_text
from lhttp_tx.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError

__all__ = ["decode_json", "encode_json"]

_VERSION = "LHTTP/1.0"

_WRITTEN_PARTS = 500
_WRITTEN_HEADERS = 5_000
"""
The most parts, and headers of parts, that are written as ``BODYS``: an answer of the history has so many parts. A body
of more is written as it is.
"""

_SMALL = 4_096
"""Bytes of a JSON text that is parsed without a look at its structure."""

_MARKS_PER_HEADER = 64
"""How many marks of structure (brackets, braces, commas, colons) a JSON text may have for each header of the limits."""

_MARKS = b"[]{},:"
_NO_MARKS = bytes(range(256)).translate(None, _MARKS)

_TOLD = 64
_REASON = 200
"""The most characters of what a client sent that an error repeats, and of a whole reason."""

_Pairs: TypeAlias = tuple[tuple[str, Any], ...]
"""A JSON object, as the parser returns it. Lists are lists."""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# No place of a message takes a number, so none is read: each becomes True.
_decode = json.JSONDecoder(
    object_pairs_hook=tuple, parse_int=bool, parse_float=bool, parse_constant=_no_constant
).decode
_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


# Writing


def encode_json(message: bytes) -> bytes:
    r"""
    Return the JSON view of a message: one object without line ends, in UTF-8.

    Its keys are ``VERSION``, ``COMMAND``, ``HEADERS`` (values are strings, or lists of strings where a header is
    repeated) and one of ``BODY`` (a string), ``BODY_BASE64`` (where the body is not UTF-8) and ``BODYS`` (the parts of
    a multipart message, without the header ``multipart``). A multipart body that cannot be split, or that has more
    than 500 parts or 5,000 headers, is written as any other body.

    >>> encode_json(b"LHTTP/1.0 chat\r\npublish:room\r\n\r\nhi")
    b'{"VERSION":"LHTTP/1.0","COMMAND":"chat","HEADERS":{"publish":"room"},"BODY":"hi"}'

    :param message: a whole message, of any size.
    :raises RemoteProtocolError: if it is not an LHTTP message.
    """
    parsed = parse(message, binary=True, limits=UNLIMITED)
    written: dict[str, Any] = {"VERSION": _VERSION, "COMMAND": parsed.command}
    parts = _parts(parsed)
    if parts is None:
        written["HEADERS"] = _headers(parsed.headers)
        _put_body(written, parsed.body)
    else:
        written["HEADERS"] = _headers(parsed.headers.without(("multipart",)))
        written["BODYS"] = [_written_part(part) for part in parts]
    return _encode(written).encode("utf-8")


def _parts(message: Message) -> tuple[Part, ...] | None:
    """Return the parts of a multipart message, ``None`` if it is none or is not to be split."""
    offsets = message.headers.get("multipart")
    if offsets is None:
        return None
    try:
        found = parse_offsets(offsets)
        return split_parts(found, message.body, _WRITTEN_HEADERS) if len(found) <= _WRITTEN_PARTS else None
    except RemoteProtocolError:
        return None


def _headers(pairs: HeaderPairs) -> dict[str, str | list[str]]:
    """Return headers as an object. Repeated ones are put together, under the name as it was first written."""
    written: dict[str, str | list[str]] = {}
    names: dict[str, str] = {}
    for name, value in pairs:
        first = names.setdefault(name.lower(), name)
        known = written.get(first)
        if known is None:
            written[first] = value
        elif isinstance(known, list):
            known.append(value)
        else:
            written[first] = [known, value]
    return written


def _put_body(written: dict[str, Any], body: bytes) -> None:
    if is_text(body):
        written["BODY"] = body.decode("utf-8")
    else:
        written["BODY_BASE64"] = b64encode(body).decode("ascii")


def _written_part(part: Part) -> dict[str, Any]:
    written: dict[str, Any] = {"HEADERS": _headers(part.headers)}
    _put_body(written, part.body)
    return written


# Reading


def decode_json(data: bytes, limits: Limits = DEFAULT_LIMITS, *, max_parts: int = MAX_PARTS) -> tuple[bytes, bool]:
    r"""
    Return the bytes of the message that a JSON view describes, and whether it is a binary message.

    Keys are read in any case. ``COMMAND`` is required. What is ``null`` counts as left out. ``HEADERS`` is an object,
    or a list of pairs. A message with a ``BODY_BASE64`` is binary; every other one is text. The work is bounded,
    whatever *data* is: a text of more than 4,096 bytes may have 64 brackets, braces, commas and colons for each header
    of the limits, outside strings. No number is ever read.

    >>> decode_json(b'{"COMMAND": "chat", "HEADERS": {"publish": "room"}, "BODY": "hi"}')
    (b'LHTTP/1.0 chat\r\npublish:room\r\n\r\nhi', False)

    :param data: the JSON text in UTF-8. Its size must be bounded already.
    :param limits: ``message_size``, ``head_size`` and ``header_count`` bound the message that is returned.
    :param max_parts: the most parts of a multipart message; 0: any number.
    :raises RemoteProtocolError: if it is not such a view. The text names the place.
    :raises MessageTooLarge: if it has too much of something.
    """
    fields = _fields(_parsed(data, limits), _KEYS, "the message")
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
    Refuse a text that would make many objects.

    :raises MessageTooLarge: if it has more than *most* marks of structure outside strings.
    """
    if len(data.translate(None, _NO_MARKS)) <= most:
        return
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # no quote is escaped any more
    pieces = plain.split(b'"', 2 * most + 2)  # every other one is in a string; between two strings there is a mark
    marks = len(b"".join(pieces[::2]).translate(None, _NO_MARKS))
    if marks > most or len(pieces) > 2 * most + 2:
        raise MessageTooLarge(f"the JSON text has more than {most} brackets, braces, commas and colons")


def _fields(found: object, known: frozenset[str], what: str) -> dict[str, Any]:
    """
    Return the values of an object by their keys in capitals.

    :param known: the keys that it may have, in capitals.
    :param what: what the object is, for the error.
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
    Return the pairs of ``HEADERS``.

    :param most: how many there may be.
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
    """Return the body, and whether it makes a message binary."""
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
    Return the offsets and the body of ``BODYS``, and whether it makes a message binary.

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
    is_binary, left = False, MAX_PART_HEADERS if max_parts else limits.header_count * len(found)
    for one in found:
        part = _fields(one, _PART_KEYS, "a part")
        body, binary = _body(part)
        is_binary = is_binary or binary
        lines = b""
        if "HEADERS" in part:
            pairs = _pairs(part["HEADERS"], left)
            left -= len(pairs)
            lines = b"".join([header_line(name, value) + b"\r\n" for name, value in pairs])
        chunks.append(lines + b"\r\n" + body)
    return *join_raw_parts(chunks), is_binary
