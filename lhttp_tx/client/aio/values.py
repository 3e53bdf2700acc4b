"""
Converts bodies that programs pass to :mod:`lhttp_tx.client.aio` and :mod:`lhttp_tx.client.sync`: str, bytes, or JSON
values.

This module uses no connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lhttp_tx.codec.headers import HeaderPairs, pairs_of
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.multipart import Part, join_parts
from lhttp_tx.errors import LocalProtocolError

__all__ = ["filled", "made"]


def filled(body: Any, headers: HeaderPairs | dict[str, str]) -> tuple[bytes | str, list[tuple[str, str]]]:
    """
    Return a body as a str or bytes, and the headers. Other values become JSON, with a header ``content-type``.

    :raises LocalProtocolError: if JSON cannot represent the body.
    """
    pairs = list(pairs_of(headers))
    if isinstance(body, str | bytes | bytearray | memoryview):
        return (body if isinstance(body, str) else bytes(body)), pairs
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"the body is not a value of JSON: {error}") from None
    if not any(name.lower() == "content-type" for name, _ in pairs):
        pairs.append(("content-type", "application/json"))
    return text, pairs


def made(
    command: str,
    body: Any,
    headers: HeaderPairs | dict[str, str],
    parts: Iterable[Part] | None,
    binary: bool | None,
) -> Message:
    """
    Return a message.

    :param command: the command.
    :param body: see :func:`filled`.
    :param headers: pairs of name and value, or a dict.
    :param parts: the parts of a multipart body, instead of *body*; or ``None``.
    :param binary: whether it is a binary message. By default, it is if the body is bytes, or if the multipart body is
        not UTF-8.
    :raises LocalProtocolError: if a value is malformed.
    """
    if parts is not None:
        offsets, joined = join_parts(parts)
        pairs = [*pairs_of(headers), ("multipart", offsets)]
        return Message(command, pairs, joined, binary=not _is_text(joined) if binary is None else binary)
    content, pairs = filled(body, headers)
    return Message(command, pairs, content, binary=isinstance(content, bytes) if binary is None else binary)


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
