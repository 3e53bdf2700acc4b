"""
The headers that a stream adds to the publications that it republishes.

Pure functions, used by :mod:`lhttp_tx.bus.nats.jetstream.store`. Source: the NATS documentation, "JetStream Headers".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lhttp_tx.bus.nats.headers import Head, read_head
from lhttp_tx.codec.text import is_text

__all__ = ["REMOVED", "News", "read_news", "stamp_order"]

REMOVED: Final = "Lhttp-Removed"
"""The header of a removal marker: a message that is not a publication, at the place where a history was removed."""

_OFFSET, _STAMP, _AFTER = b"Nats-Sequence: ", b"Nats-Time-Stamp: ", b"Nats-Last-Sequence: "
"""The beginnings of the last three headers, in the order in which a stream appends them."""

_OFFSET_CUT, _STAMP_CUT, _AFTER_CUT = len(_OFFSET), len(_STAMP), len(_AFTER)

_ID = b"Nats-Msg-Id: "


@dataclass(slots=True)
class News:
    """
    Consecutive publications to one channel from one stream that have the same kind, text or binary.

    :ivar stream: the name of the stream; empty if it is not known.
    :ivar binary: whether they are binary.
    :ivar removed: for a removal marker, the offset of the last publication that was removed; ``None`` for publications.
    :ivar offsets: their sequence numbers in the stream.
    :ivar afters: for each, the sequence number of the one before it in the channel; 0 if there is none.
    :ivar stamps: the time at which each was stored, in the format of JetStream.
    :ivar payloads: the payloads as they were published.
    """

    stream: str
    binary: bool
    removed: int | None
    offsets: list[int]
    afters: list[int]
    stamps: list[str]
    payloads: list[bytes]

    def only(self, number: int) -> News:
        """Return the publication with this index."""
        if len(self.payloads) == 1:
            return self
        cut = slice(number, number + 1)
        offsets, afters, stamps = self.offsets[cut], self.afters[cut], self.stamps[cut]
        return News(self.stream, self.binary, self.removed, offsets, afters, stamps, self.payloads[cut])


def read_news(heads: list[Head], payloads: list[bytes]) -> list[News]:
    """
    Return publications that streams have republished. Consecutive ones of one kind are together.

    :param heads: the headers of each, with its sequence number.
    :param payloads: the payload of each.
    """
    found: list[News] = []
    news = News("", False, None, [], [], [], [])
    known: list[bytes] = []
    plain = False
    for head, payload in zip(heads, payloads, strict=True):
        lines = head.split(b"\r\n")
        others = [line for line in lines[:-5] if not line.startswith(_ID)] if _ID in head else lines[:-5]
        is_plain = payload.isascii() or is_text(payload)
        try:
            offset, stamp, after = lines[-5:-2]
            if not (offset.startswith(_OFFSET) and stamp.startswith(_STAMP) and after.startswith(_AFTER)):
                raise ValueError
            numbers = int(offset[_OFFSET_CUT:]), int(after[_AFTER_CUT:])
            when = stamp[_STAMP_CUT:].decode("ascii")
        except ValueError:  # written by another program, or by another version of NATS
            headers = read_head(head)
            numbers = _number(headers.get("Nats-Sequence")), _number(headers.get("Nats-Last-Sequence"))
            when, others = headers.get("Nats-Time-Stamp", ""), []
        if not others or others != known or is_plain is not plain:
            headers = read_head(head)
            removed = headers.get(REMOVED)
            binary = headers.get("Lhttp-Frame") == "binary" or not is_plain
            name = headers.get("Nats-Stream", "")
            news = News(name, binary, None if removed is None else _number(removed), [], [], [], [])
            found.append(news)
            known, plain = others, is_plain
        news.offsets.append(numbers[0])
        news.afters.append(numbers[1])
        news.stamps.append(when)
        news.payloads.append(payload)
    return found


def _number(text: str | None) -> int:
    """Return *text* as a sequence number; 0 if it is not one."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0


def stamp_order(stamp: str) -> tuple[str, str]:
    """Return a sort key for a time of the JetStream API, whose fraction of a second has up to nine digits."""
    seconds, _, rest = stamp.rstrip("Z").partition(".")
    return seconds, rest.ljust(9, "0")
