"""
Converts header lines to other forms, without Python code for each byte, and with little for each line.

The views in JSON and Protocol Buffers use this. It has to be fast: a client can ask with a few bytes for a history with
thousands of different heads. Part of the codec: pure functions on bytes.
"""

from __future__ import annotations

import re

from lhttp_tx.codec.text import is_text

__all__ = [
    "are_lines",
    "json_headers",
    "plain_command",
    "protobuf_headers",
    "usual_head",
    "usual_json",
    "usual_pairs",
    "usual_protobuf",
]

_COMMAND = re.compile(rb"LHTTP/1\.0 ([!#-\[\]-~]{1,64})")
_LINES = re.compile(rb"(?:[\x21-\x39\x3b-\x7e]+:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+")
"""Matches header lines that are valid, if their values are UTF-8."""

_SIMPLE = re.compile(rb"(?:[!#-9;-\[\]-~]+:(?! )[^\x00-\x1f\"\\\x7f]*+(?<! )\r\n)*+")
"""Matches header lines that need no escapes in JSON, and whose values have no blanks at their ends."""

_USUAL = rb"(?:[!#-9;-\[\]-~]++:(?! )[ !#-9;-\[\]-~]*+(?<! )\r\n)*+"
_USUAL_LINES = re.compile(_USUAL)
_USUAL_HEAD = re.compile(rb"LHTTP/1\.0 ([!#-\[\]-~]{1,64})\r\n(" + _USUAL + rb")")
"""Matches the lines of most messages: in ASCII, with one colon each."""

_PAIR = re.compile(rb"^([^:\r\n]++):([^\r\n]*+)\r\n", re.MULTILINE)
_FIELD = b"%c%c\n%c%b\x12%c%b"
"""A short header with a value in Protocol Buffers: tag, size, size of the name, name, size of the value, value."""

_NAME = re.compile(rb"^([^:\r\n]++):[^\r\n]*+\r\n", re.MULTILINE)


def are_lines(lines: bytes) -> bool:
    """Return whether *lines* consists of valid header lines, each with its CRLF. It may be empty."""
    return _LINES.fullmatch(lines) is not None and is_text(lines)


def plain_command(start: bytes) -> bytes | None:
    """Return the command of a start line; ``None`` if it is malformed, or JSON needs escapes for it."""
    match = _COMMAND.fullmatch(start)
    return None if match is None else match[1]


def usual_head(head: bytes) -> tuple[bytes, bytes] | None:
    """
    Return the command and the header lines of a head, if it has the form of most heads; else ``None``.

    In this form, the lines are in ASCII. Each has one colon, and its value has no blanks at its ends. JSON needs no
    escapes for the lines and the command. No name is repeated, and none is ``multipart``.
    """
    found = _USUAL_HEAD.fullmatch(head)
    return (found[1], found[2]) if found is not None and _are_different(found[2], b"multipart") else None


def _are_different(lines: bytes, *others: bytes) -> bool:
    """Return whether no name is repeated, or is one of *others*. Each line must have one colon."""
    names = [*lines.lower().replace(b"\r\n", b":").split(b":")[::2], *others]  # one is empty, after the last line
    return len({*names}) == len(names)


def usual_json(lines: bytes) -> bytes:
    """Like :func:`json_headers`, but only for lines that :func:`usual_head` has returned."""
    return b'{"%b"}' % lines[:-2].replace(b":", b'":"').replace(b"\r\n", b'","') if lines else b"{}"


def usual_pairs(lines: bytes) -> list[tuple[str, str]]:
    """Return the names and values of lines that :func:`usual_head` has returned."""
    words = lines.decode("ascii").replace("\r\n", ":").split(":")
    return [*zip(words[:-1:2], words[1::2], strict=True)]


def json_headers(lines: bytes) -> bytes:
    r"""
    Return header lines as a JSON object. The values of a repeated name are a list, with the first spelling of the name.

    >>> json_headers(b"publish:room\r\na:b\r\nA: c\r\n")
    b'{"publish":"room","a":["b","c"]}'

    :param lines: lines for which :func:`are_lines` is true.
    """
    if not lines:  # parts of a message often have none
        return b"{}"
    if _USUAL_LINES.fullmatch(lines) and _are_different(lines):
        return usual_json(lines)
    names = _NAME.findall(lines.lower())
    if _SIMPLE.fullmatch(lines) and len({*names}) == len(names):
        return b'{"%b"}' % b'","'.join(map(b'":"'.join, _PAIR.findall(lines)))
    escaped = lines.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    found: dict[bytes, list[bytes]] = {}
    for key, (name, value) in zip(names, _PAIR.findall(escaped), strict=True):
        found.setdefault(key, [name]).append(value.strip(b" \t").replace(b"\t", b"\\t"))
    return b"{%b}" % b",".join(
        [
            b'"%b":["%b"]' % (all_[0], b'","'.join(all_[1:])) if all_[2:] else b'"%b":"%b"' % (*all_,)
            for all_ in found.values()
        ]
    )


def protobuf_headers(tag: int, lines: bytes) -> bytes:
    r"""
    Return header lines as fields of Protocol Buffers. Each is a message with a name and, unless it is empty, a value.

    >>> protobuf_headers(0x1A, b"publish:room\r\n")
    b'\x1a\x0f\n\x07publish\x12\x04room'

    :param tag: the tag of these fields, one byte.
    :param lines: lines for which :func:`are_lines` is true.
    """
    if _USUAL_LINES.fullmatch(lines):
        return usual_protobuf(tag, lines)
    return _protobuf_pairs(tag, lines)


def _protobuf_pairs(tag: int, lines: bytes) -> bytes:
    pairs = [(name, value.strip(b" \t")) for name, value in _PAIR.findall(lines)]
    return b"".join([_short(tag, *pair) if len(pair[0]) + len(pair[1]) < 124 else _long(tag, *pair) for pair in pairs])


def usual_protobuf(tag: int, lines: bytes) -> bytes:
    """Like :func:`protobuf_headers`, but only for lines that :func:`usual_head` has returned."""
    words = lines.replace(b"\r\n", b":").split(b":")
    names, values = words[:-1:2], words[1::2]
    if b"" in values or max(map(len, words)) > 60:
        return _protobuf_pairs(tag, lines)
    sizes = zip(map(len, names), names, map(len, values), values, strict=True)
    return b"".join([_FIELD % (tag, one + other + 4, one, name, other, value) for one, name, other, value in sizes])


def _short(tag: int, name: bytes, value: bytes) -> bytes:
    if not value:
        return b"%c%c\n%c%b" % (tag, len(name) + 2, len(name), name)
    return _FIELD % (tag, len(name) + len(value) + 4, len(name), name, len(value), value)


def _long(tag: int, name: bytes, value: bytes) -> bytes:
    header = b"\n%b%b" % (protobuf_size(len(name)), name)
    if value:
        header += b"\x12%b%b" % (protobuf_size(len(value)), value)
    return b"%c%b%b" % (tag, protobuf_size(len(header)), header)


def protobuf_size(size: int) -> bytes:
    """Return a number of at least 0 as a varint of Protocol Buffers."""
    written = bytearray()
    while size > 127:
        written.append(size & 127 | 128)
        size >>= 7
    written.append(size)
    return bytes(written)
