"""
Positions in the history of a channel, and the headers of stored publications.

Part of the codec: pure functions, used by stores, by the server and by the Python client.
Source: the protocol document, section "History".
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
"""An entry of a list of positions. Others are split only to say what is wrong with them: a list may be long."""

_MARKS = re.compile(rb"\n(?:offset|after|offset-of):", re.IGNORECASE)
"""Matches a head that contains one of the headers that :func:`mark` writes."""

_NAMES = frozenset((b"offset", b"after", b"offset-of"))

_PUBLISH = re.compile(rb"\npublish:([^\r\n]*)", re.IGNORECASE)
"""The header lines of a head that list channels to publish to."""

_MARKED = re.compile(rb"LHTTP/1\.0 [!-~]{1,64}\r\noffset:([0-9]{1,19})\r\nafter:([0-9]{1,19})\r\n")
"""The beginning of a message that :func:`mark` has made."""

_OFFSET = b"\r\noffset:"
_EARLIEST, _LATEST = 11, 84
"""The line end before the offset in it, and between which bytes that is."""

_LONGEST = 144
"""An upper bound of the bytes of such a beginning."""


def format_position(epoch: str, offset: int) -> str:
    """Return the position of *offset* in a store whose epoch is *epoch*."""
    return f"{epoch}-{offset}"


def parse_position(text: str) -> tuple[str, int]:
    """
    Return the epoch and the offset of a position.

    :raises RemoteProtocolError: if *text* is not a position.
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

    :param value: one position for all *channels*, or a list of ``CHANNEL=POSITION``. If an entry has several ``=``, the
        last one counts.
    :param channels: the channels that the message subscribes to.
    :raises RemoteProtocolError: if it is neither, names a channel twice, or names one that is not in *channels*.
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
    """Return what is wrong with an entry of a list of positions."""
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
    Return a publication with the headers ``offset`` and ``after``, right behind its start line.

    A publication to several channels also gets the header ``offset-of``, so that a client that is in several of them
    can tell the copies apart.

    :param payload: an LHTTP message. Headers of these names are removed from it.
    :param offset: its offset.
    :param after: the offset of the publication before it in its channel; 0 if there is none.
    :param channel: the channel.
    """
    return mark_run([payload], offset, after, channel)[0]


def mark_run(payloads: list[bytes], offset: int, after: int, channel: str) -> list[bytes]:
    """
    Return publications as :func:`mark` does, those behind the first with the offsets that follow.

    :param payloads: LHTTP messages that one channel gets one after another; not changed.
    :param offset: the offset of the first one.
    :param after: the offset of the publication before the first one; 0 if there is none.
    :param channel: the channel.
    """
    return mark_all(payloads, range(offset, offset + len(payloads)), after, channel)


def mark_all(payloads: list[bytes], offsets: Sequence[int], after: int, channel: str) -> list[bytes]:
    """
    Return publications as :func:`mark` does, each with an offset of its own.

    :param payloads: LHTTP messages that one channel gets one after another; not changed.
    :param offsets: their offsets, as many.
    :param after: the offset of the publication before the first one; 0 if there is none.
    :param channel: the channel.
    """
    first = payloads[0]
    head = first[: first.find(b"\r\n\r\n") + 4]  # with the blank line: else it might begin a longer one
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
    """Return the header line that says which channel an offset is of, where the head leaves that open."""
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
    """Return a publication without the headers that :func:`mark` writes; itself if it has none of them."""
    end = payload.find(b"\r\n\r\n") + 2
    head = payload[:end] if end > 1 else payload
    if not _MARKS.search(head):
        return payload
    lines = head.split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].lower() not in _NAMES]
    return b"\r\n".join(kept) + payload[len(head) :]


def is_marked(payload: bytes) -> bool:
    """Return whether a publication seems to be one that :func:`mark` has made. No other one has the same head then."""
    return payload.find(_OFFSET, _EARLIEST, _LATEST) > 0


def offset_of(payload: bytes) -> int:
    """Return the offset of a publication that :func:`mark` has made; 0 if it is none."""
    found = _MARKED.match(payload, 0, _LONGEST)
    return 0 if found is None else int(found[1])


def offsets_of(payload: bytes) -> tuple[int, int]:
    """Return the offset of a publication that :func:`mark` has made, and that of the one before it; else 0 and 0."""
    found = _MARKED.match(payload, 0, _LONGEST)
    return (0, 0) if found is None else (int(found[1]), int(found[2]))
