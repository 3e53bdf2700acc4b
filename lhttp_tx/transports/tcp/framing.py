r"""
Messages on a stream of bytes: each is its length as a decimal number, a line feed, and the message.

An empty message, ``0\n``, is a heartbeat. Pure functions on bytes. Source: the protocol document, section "Plain TCP".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Final, NamedTuple

from lhttp_tx.codec.text import is_text
from lhttp_tx.errors import LHTTPError, MessageTooLarge, RemoteProtocolError

__all__ = ["HEARTBEAT", "LENGTHS", "Taken", "begins", "by_kind", "frame", "take_messages"]

HEARTBEAT: Final = b"0\n"
"""An empty message."""

_MAX_DIGITS = 10
"""The most digits of a length. The largest limit on messages has as many."""

_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,%d})\n" % (_MAX_DIGITS - 1))
_BEGUN = re.compile(rb"(?:0|[1-9][0-9]{0,%d})?" % (_MAX_DIGITS - 1))
_HEARTBEATS = re.compile(rb"(?:0\n)+")


class Taken(NamedTuple):
    """
    The messages in a piece of a stream.

    :ivar messages: the whole messages, without heartbeats.
    :ivar position: the index at which the first incomplete message begins, or the first error.
    :ivar wanted: how many bytes from *position* on are needed before another call can take more; 0 at an error, or if
        everything was taken.
    :ivar error: the error at *position*; ``None`` if there is none.
    """

    messages: list[bytes]
    position: int
    wanted: int
    error: LHTTPError | None


def take_messages(data: bytes, largest: int) -> Taken:
    """
    Take the whole messages at the beginning of *data*.

    :param data: part of a stream, from the beginning of a message.
    :param largest: the most bytes of a message. A larger length is an error as soon as it is read.
    """
    messages: list[bytes] = []
    position, size = 0, len(data)
    match = _LENGTH.match
    while position < size:
        found = match(data, position)
        if found is None:
            error = _error(data, position)
            return Taken(messages, position, 0 if error else size - position + 1, error)
        length = int(found[1])
        if not length:
            position = _HEARTBEATS.match(data, position).end()  # type: ignore[union-attr]
            continue
        begin = found.end()
        end = begin + length
        if length > largest:
            return Taken(messages, position, 0, MessageTooLarge(f"a message has at most {largest} bytes, not {length}"))
        if end > size:
            return Taken(messages, position, end - position, None)
        messages.append(data[begin:end])
        position = end
    return Taken(messages, position, 0, None)


def begins(data: bytes) -> bool:
    """Return whether *data* begins with a whole length line."""
    return _LENGTH.match(data) is not None


def _error(data: bytes, position: int) -> LHTTPError | None:
    """Return the error in a line that is not a length; ``None`` if more bytes can still make it one."""
    stop = _BEGUN.match(data, position).end()  # type: ignore[union-attr]
    if stop == len(data):
        return None
    if stop - position == _MAX_DIGITS and data[stop : stop + 1].isdigit():
        return MessageTooLarge(f"the length of a message has more than {_MAX_DIGITS} digits")
    return RemoteProtocolError(
        "each message begins with its length in bytes: decimal digits without a leading zero, and a line feed"
    )


def by_kind(messages: list[bytes]) -> Iterator[tuple[list[bytes], bool]]:
    """Yield consecutive messages of one kind together, and whether they are binary, that is, not UTF-8."""
    if all(map(bytes.isascii, messages)):  # the usual case
        yield messages, False
        return
    for binary, run in groupby(messages, lambda payload: not is_text(payload)):
        yield [*run], binary


def frame(payload: bytes) -> bytes:
    """Return one message as it goes over the wire."""
    return b"%d\n%b" % (len(payload), payload)


class Lengths:
    """The encoding of deliveries, shared by all connections. See :class:`lhttp_tx.engine.delivery.Encoding`."""

    __slots__ = ()

    def encode(self, payloads: list[bytes], binary: bool) -> bytes:
        """Return the messages, joined. Text and binary messages look the same."""
        if len(payloads) == 1:
            return frame(payloads[0])
        return b"".join([b"%d\n%b" % (len(payload), payload) for payload in payloads])


LENGTHS: Final = Lengths()
