"""
Positions in the history of a channel, and the headers of stored publications.

Part of the codec: pure functions. Used by stores, the server and the Python client. Source: the protocol document,
section "History".
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat

from lhttp_tx.errors import RemoteProtocolError

__all__ = [
    "MAX_OFFSET",
    "format_position",
    "is_marked",
    "mark",
    "mark_all",
    "mark_run",
    "offset_of",
    "offsets_of",
    "parse_position",
    "parse_positions",
    "unmarked",
]

MAX_OFFSET = 2**63 - 1
"""The largest offset."""

_POSITION = re.compile(r"([0-9A-Za-z_]{1,32})-(0|[1-9][0-9]{0,18})")

_ENTRY = re.compile(rf"(.*)={_POSITION.pattern}", re.DOTALL)
"""Matches an entry of a list of positions."""

_MARKS = re.compile(rb"\n(?:offset|after|offset-of):", re.IGNORECASE)
"""Finds the headers that :func:`mark` writes."""

_NAMES = frozenset((b"offset", b"after", b"offset-of"))

_PUBLISH = re.compile(rb"\npublish:([^\r\n]*)", re.IGNORECASE)
"""Finds ``publish`` headers."""

_MARKED = re.compile(rb"LHTTP/1\.0 [!-~]{1,64}\r\noffset:([0-9]{1,19})\r\nafter:([0-9]{1,19})\r\n")
"""Matches the beginning of a message that :func:`mark` has returned."""

_OFFSET = b"\r\noffset:"
_EARLIEST, _LATEST = 11, 84
"""The bytes before the offset in it, and the bounds of their index."""

_LONGEST = 144
"""An upper bound for the bytes of such a beginning."""


def format_position(epoch: str, offset: int) -> str:
    """Return the position with these two parts."""
    return f"{epoch}-{offset}"


def parse_position(text: str) -> tuple[str, int]:
    """
    Return the epoch and the offset of a position.

    :raises RemoteProtocolError: if *text* is not a position, or its offset is larger than :data:`MAX_OFFSET`.
    """
    found = _POSITION.fullmatch(text)
    if found is None:
        raise RemoteProtocolError(f"{text[:64]!a} is not a position, which is EPOCH-OFFSET")
    offset = int(found[2])
    if offset > MAX_OFFSET:
        raise RemoteProtocolError(f"offset {offset} is larger than {MAX_OFFSET}")
    return found[1], offset


def parse_positions(value: str, channels: Iterable[str]) -> Mapping[str, tuple[str, int]]:
    """
    Return the positions in the value of a ``since`` header, by channel.

    :param value: one position for all *channels*, or a list of ``CHANNEL=POSITION``. In an entry, the position begins
        after the last ``=``.
    :param channels: the channels that the message subscribes to.
    :raises RemoteProtocolError: if *value* is malformed, has a channel twice, or has a channel that is not in
        *channels*.
    """
    words = [*filter(None, value.replace("\t", " ").split(" "))]
    if not words:
        raise RemoteProtocolError("since contains no position")
    if len(words) == 1 and "=" not in words[0]:
        return dict.fromkeys(channels, parse_position(words[0]))
    known = frozenset(channels)
    found: dict[str, tuple[str, int]] = {}
    for word in words:
        entry = _ENTRY.fullmatch(word)
        if entry is None or entry[1] not in known or entry[1] in found:
            raise _refused(word, known)
        offset = int(entry[3])
        if offset > MAX_OFFSET:
            raise RemoteProtocolError(f"offset {offset} is larger than {MAX_OFFSET}")
        found[entry[1]] = entry[2], offset
    return found


def _refused(word: str, known: frozenset[str]) -> RemoteProtocolError:
    """Return the error of a malformed entry of a list of positions."""
    channel, equals, position = word.rpartition("=")
    if not equals:
        return RemoteProtocolError(f"since holds {word[:64]!a}, which is no CHANNEL=POSITION")
    if channel not in known:
        return RemoteProtocolError(f"since names {channel[:64]!a}, which the message does not subscribe to")
    if _POSITION.fullmatch(position):
        return RemoteProtocolError(f"since names {channel[:64]!a} twice")
    return RemoteProtocolError(f"{position[:64]!a} is not a position, which is EPOCH-OFFSET")


def mark(payload: bytes, offset: int, after: int, channel: str) -> bytes:
    """
    Return a publication with the headers ``offset`` and ``after`` directly after its start line.

    A publication to several channels also gets the header ``offset-of``. So a client that is subscribed to several of
    them can tell the copies apart.

    :param payload: an LHTTP message. If it has headers with these names, they are removed.
    :param offset: its offset.
    :param after: the offset of the publication before it in its channel; 0 if there is none.
    :param channel: the channel.
    """
    return mark_run([payload], offset, after, channel)[0]


def mark_run(payloads: list[bytes], offset: int, after: int, channel: str) -> list[bytes]:
    """
    Mark publications like :func:`mark`, with consecutive offsets.

    :param payloads: consecutive publications to one channel, at least one. The list is not changed.
    :param offset: the offset of the first one.
    :param after: the offset of the publication before the first one; 0 if there is none.
    :param channel: the channel.
    """
    return mark_all(payloads, range(offset, offset + len(payloads)), after, channel)


def mark_all(payloads: list[bytes], offsets: Sequence[int], after: int, channel: str) -> list[bytes]:
    """
    Mark publications like :func:`mark`, with the given offsets.

    :param payloads: consecutive publications to one channel, at least one. The list is not changed.
    :param offsets: the offset of each publication, in rising order.
    :param after: the offset of the publication before the first one; 0 if there is none.
    :param channel: the channel.
    """
    first = payloads[0]
    head = first[: first.find(b"\r\n\r\n") + 4]  # with the blank line, so that no longer head begins with it
    cut = head.find(b"\r\n") + 2
    if len(head) < 4 or _MARKS.search(head) or not all(map(bytes.startswith, payloads, repeat(head))):
        return _mark_each(payloads, offsets, after, channel)
    plain = head[:cut].replace(b"%", b"%%") + b"offset:%d\r\nafter:%d\r\n"
    marked = plain + _name(head, channel).replace(b"%", b"%%") + b"%b"
    return [
        marked % (number, before, payload[cut:])
        for number, before, payload in zip(offsets, chain((after,), offsets), payloads, strict=False)
    ]


def _name(head: bytes, channel: str) -> bytes:
    """Return the header line ``offset-of``; empty if the publication goes to one channel only."""
    names = b" ".join(_PUBLISH.findall(head)).split()
    return b"offset-of:%b\r\n" % channel.encode("utf-8") if len(names) > 1 else b""


def _mark_each(payloads: list[bytes], offsets: Sequence[int], after: int, channel: str) -> list[bytes]:
    marked: list[bytes] = []
    for number, payload in zip(offsets, payloads, strict=True):
        plain = unmarked(payload)
        cut = plain.find(b"\r\n") + 2
        name = _name(plain.partition(b"\r\n\r\n")[0] + b"\r\n", channel)
        marked.append(b"%boffset:%d\r\nafter:%d\r\n%b%b" % (plain[:cut], number, after, name, plain[cut:]))
        after = number
    return marked


def unmarked(payload: bytes) -> bytes:
    """Return a publication without the headers that :func:`mark` writes; *payload* itself if it has none of them."""
    end = payload.find(b"\r\n\r\n") + 2
    head = payload[:end] if end > 1 else payload
    if not _MARKS.search(head):
        return payload
    lines = head.split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].lower() not in _NAMES]
    return b"\r\n".join(kept) + payload[len(head) :]


def is_marked(payload: bytes) -> bool:
    """
    Return whether :func:`mark` has probably returned this publication. If so, no other publication has the same head.
    """
    return payload.find(_OFFSET, _EARLIEST, _LATEST) > 0


def offset_of(payload: bytes) -> int:
    """Return the offset of a publication that :func:`mark` has returned; 0 for other messages."""
    found = _MARKED.match(payload, 0, _LONGEST)
    return 0 if found is None else int(found[1])


def offsets_of(payload: bytes) -> tuple[int, int]:
    """Return ``offset`` and ``after`` of a publication that :func:`mark` has returned; 0 and 0 for other messages."""
    found = _MARKED.match(payload, 0, _LONGEST)
    return (0, 0) if found is None else (int(found[1]), int(found[2]))
