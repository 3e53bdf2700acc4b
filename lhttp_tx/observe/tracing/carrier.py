"""
Reads and writes the headers ``traceparent`` and ``tracestate``, as text and in the bytes of messages.

Pure functions. Source: W3C Trace Context (https://www.w3.org/TR/trace-context/). As it says, malformed headers count as
missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

__all__ = ["MAX_STATE", "NAMES", "Parent", "in_payload", "only", "read_parent", "write"]

NAMES: Final = ("traceparent", "tracestate")
"""The names of the headers."""

MAX_STATE: Final = 512
"""The most characters of a ``tracestate``. The server does not pass a longer one on."""

_MAX_PARENT = 256
"""The most characters of a ``traceparent`` of a later version. The current version has 55."""

_MAX_MEMBERS = 32
_SAMPLED = 1

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_MEMBER = re.compile(
    r"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
_LINES = tuple(f"\r\n{name}:".encode() for name in NAMES)
_RAW_NAMES = frozenset(name.encode() for name in NAMES)


class Parent(NamedTuple):
    """
    The span in another process that a message belongs to.

    :ivar trace_id: the number of its trace.
    :ivar span_id: the number of the span.
    :ivar flags: its flags, a byte.
    :ivar state: the entries of other tracing systems: names and values, at most 32.
    """

    trace_id: int
    span_id: int
    flags: int
    state: tuple[tuple[str, str], ...] = ()

    @property
    def is_sampled(self) -> bool:
        """Whether the other process records the span."""
        return bool(self.flags & _SAMPLED)


def read_parent(parent: str | None, state: str | None = None) -> Parent | None:
    """
    Return the parent that two headers name.

    :param parent: the value of ``traceparent``; ``None`` if it is missing.
    :param state: the value of ``tracestate``; ``None`` if it is missing. A malformed one counts as missing.
    :returns: ``None`` if *parent* is missing or malformed.
    """
    found = None if parent is None or len(parent) > _MAX_PARENT else _PARENT.fullmatch(parent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    numbers = int(trace_id, 16), int(span_id, 16)
    return Parent(*numbers, int(flags, 16), _read_state(state)) if all(numbers) else None


def _read_state(text: str | None) -> tuple[tuple[str, str], ...]:
    if not text or len(text) > MAX_STATE:
        return ()
    pairs: dict[str, str] = {}
    for member in text.split(","):
        stripped = member.strip(" \t")
        if not stripped:
            continue
        found = _MEMBER.fullmatch(stripped)
        if found is None or found[1] in pairs or len(pairs) == _MAX_MEMBERS:
            return ()
        pairs[found[1]] = found[2]
    return tuple(pairs.items())


def only(values: Sequence[bytes]) -> str | None:
    """Return the value of an HTTP header that may occur once; ``None`` if it is missing, repeated, or not ASCII."""
    if len(values) != 1 or not values[0].isascii():
        return None
    return values[0].decode("ascii").strip(" \t")


def in_payload(payload: bytes, head_size: int) -> Parent | None:
    """
    Return the parent that a message names. Only headers in lower case count, as servers write them.

    :param payload: an LHTTP message.
    :param head_size: the most bytes of a head. The bytes after them are not searched.
    """
    if payload.find(_LINES[0], 0, head_size) < 0:  # most messages have none
        return None
    return read_parent(_value(payload, 0, head_size), _value(payload, 1, head_size))


def _value(payload: bytes, which: int, head_size: int) -> str | None:
    end = payload.find(b"\r\n\r\n", 0, head_size)
    line = _LINES[which]
    at = payload.rfind(line, 0, head_size if end < 0 else end)
    if at < 0:
        return None
    begin = at + len(line)
    text = payload[begin : payload.find(b"\r\n", begin)]
    return text.decode("ascii").strip(" \t") if text.isascii() else None


def write(
    payload: bytes, fields: Iterable[tuple[str, str]], *, head_size: int, header_count: int, size: int = 0
) -> bytes:
    r"""
    Return a message with these headers directly after its start line. They replace its own ``traceparent`` and
    ``tracestate``.

    >>> write(b"LHTTP/1.0 a\r\nb:c\r\n\r\nd", [("traceparent", "0")], head_size=99, header_count=9)
    b'LHTTP/1.0 a\r\ntraceparent:0\r\nb:c\r\n\r\nd'

    :param payload: an LHTTP message. If it has no start line and headers, it is returned unchanged.
    :param fields: names, out of :data:`NAMES`, and values.
    :param head_size: the most bytes of a head.
    :param header_count: the most headers.
    :param size: the most bytes of a message; 0: any number.
    :returns: *payload* itself if the headers do not fit.
    """
    end = payload.find(b"\r\n\r\n")
    head = payload[: end + 2] if end >= 0 else payload
    start, *lines = head.split(b"\r\n")
    if not lines or lines.pop():
        return payload
    kept = [line for line in lines if line.partition(b":")[0].lower() not in _RAW_NAMES]
    written = [f"{name}:{value}".encode() for name, value in fields]
    new = b"".join(line + b"\r\n" for line in (start, *written, *kept))
    is_longer = len(new) > len(head)
    if (is_longer and len(new) > head_size) or (len(written) + len(kept) > max(header_count, len(lines))):
        return payload
    result = new + payload[len(head) :]
    return payload if size and is_longer and len(result) > size else result
