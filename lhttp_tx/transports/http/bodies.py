"""
Reads the body of a request: one message or several.

Pure functions. Source: the protocol document, section "Without WebSocket".
"""

from __future__ import annotations

import re
from typing import TypeAlias

from lhttp_tx.codec.json_view import decode_json_list
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.text import is_text
from lhttp_tx.errors import MessageTooLarge, RemoteProtocolError

__all__ = ["MAX_MESSAGES", "Run", "read_body"]

Run: TypeAlias = tuple[list[bytes], bool]
"""Consecutive messages of one kind, and whether they are binary. Text messages are valid UTF-8."""

MAX_MESSAGES = 1_000
"""The most messages of one body."""

_MAX_DIGITS = 8
_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,%d})\n" % (_MAX_DIGITS - 1))
_BEGINS_WITH_NUMBER = re.compile(rb"[-+ \t\r\n]*[0-9]")
"""What no message begins with: a length, well-formed or not."""

_START = b"LHTTP/"

_JSON_TYPE = "application/json"
_BINARY_TYPE = "application/octet-stream"


def read_body(data: bytes, content_type: str, limits: Limits) -> list[Run]:
    r"""
    Return the messages of a body in their order. They are not parsed: the session refuses those that are malformed.

    The body is one message, or several, each with its length in bytes as a decimal number and a line feed before it.
    This number has no sign, no space and no leading zero. As ``application/json``, the body is one JSON view of a
    message, or a list of views. A message is binary if it is not UTF-8, or if the type is ``application/octet-stream``.

    >>> from lhttp_tx.codec.limits import DEFAULT_LIMITS
    >>> read_body(b"15\nLHTTP/1.0 a\r\n\r\n15\nLHTTP/1.0 b\r\n\r\n", "", DEFAULT_LIMITS)
    [([b'LHTTP/1.0 a\r\n\r\n', b'LHTTP/1.0 b\r\n\r\n'], False)]

    :param data: the body. Its size must be bounded already.
    :param content_type: the header ``Content-Type``.
    :raises RemoteProtocolError: if the body has none of these forms.
    :raises MessageTooLarge: if there are more than :data:`MAX_MESSAGES`, or one is larger than ``message_size``.
    """
    kind = content_type.partition(";")[0].strip(" \t").lower()
    if not data:
        return []
    if kind == _JSON_TYPE and not data.startswith(_START):
        found = decode_json_list(data, limits)
    else:
        messages = _split(data) if _BEGINS_WITH_NUMBER.match(data) else [data]
        found = [(message, kind == _BINARY_TYPE or not is_text(message)) for message in messages]
    if len(found) > MAX_MESSAGES:
        raise MessageTooLarge(f"a body has at most {MAX_MESSAGES} messages")
    runs: list[Run] = []
    for message, binary in found:
        if len(message) > limits.message_size:
            raise MessageTooLarge(f"message of {len(message)} bytes is larger than {limits.message_size}")
        if runs and runs[-1][1] is binary:
            runs[-1][0].append(message)
        else:
            runs.append(([message], binary))
    return runs


def _split(data: bytes) -> list[bytes]:
    messages: list[bytes] = []
    position = 0
    while position < len(data):
        length = _LENGTH.match(data, position)
        if length is None:
            raise RemoteProtocolError(f"no length of a message at byte {position} of the body")
        begin = length.end()
        position = begin + int(length[1])
        if position > len(data):
            raise RemoteProtocolError(f"the body ends within message {len(messages) + 1}")
        messages.append(data[begin:position])
        if len(messages) > MAX_MESSAGES:
            raise MessageTooLarge(f"a body has at most {MAX_MESSAGES} messages")
    return messages
