"""
Makes the events of a stream from messages.

Pure functions, and the encodings of deliveries to streams. Source: the HTML standard, section "Parsing an event
stream".
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeAlias

from lhttp_tx.codec.json_view import encode_json
from lhttp_tx.codec.limits import UNLIMITED
from lhttp_tx.codec.message import parse
from lhttp_tx.codec.plain import are_lines, plain_command
from lhttp_tx.codec.positions import offset_of
from lhttp_tx.errors import LHTTPError

__all__ = ["VIEWS", "Event", "Several", "Single", "View", "id_line", "view_body", "view_json"]

View: TypeAlias = Callable[[bytes, bool], bytes]
"""
Returns the event of a message, without its id: the lines ``event`` and ``data``, and the blank line.

It raises :exc:`~lhttp_tx.errors.RemoteProtocolError` if the bytes are not a message.
"""

Event: TypeAlias = tuple[int, bytes, bytes]
"""
The offset of a publication, 0 without one; the position in a ``missed`` event, empty in others; and the event.
"""

_BODY_TYPE = b"data:application/octet-stream;base64,"
"""The prefix of a binary body in base64. The whole is a URL (RFC 2397)."""

_OWN = frozenset({b"close", b"error", b"missed", b"receipt"})
"""The commands of the server's own messages. Their content is in their headers."""

_MISSED = re.compile(rb"LHTTP/1\.0 missed\r\nchannel:[^\r\n]*\r\nposition:([0-9A-Za-z_]{1,32}-[0-9]{1,19})\r\n\r\n")
"""
The message ``missed`` for a channel with history. A publication never matches, because it has the header ``publish``.
"""

_MISLEADING = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
"""
Characters that some libraries wrongly take for line ends in an event stream, with their escapes in JSON.
"""


def view_json(payload: bytes, binary: bool) -> bytes:
    """Return the event of a message, with its JSON view as the data; see :data:`View`."""
    data = encode_json(payload)
    if not data.isascii():
        for character, escape in _MISLEADING:
            data = data.replace(character, escape)
    return b"event: %b\ndata: %b\n\n" % (payload[10 : payload.find(b"\r\n")], data)


def view_body(payload: bytes, binary: bool) -> bytes:
    """
    Return the event of a message, with its body as the data; see :data:`View`.

    The body of a binary message becomes a ``data:`` URL. The server's own messages become JSON, because their content
    is in their headers. So do publications with the same commands, so that a client can tell them from the server's
    own.
    """
    head, _, body = payload.partition(b"\r\n\r\n")
    start, _, lines = head.partition(b"\r\n")
    command = plain_command(start)
    if command is None or not are_lines(lines and lines + b"\r\n"):  # it is not a message
        message = parse(payload, binary=binary, limits=UNLIMITED)
        command, body = message.command.encode("ascii"), message.body
    if command in _OWN:
        return view_json(payload, binary)
    text = _BODY_TYPE + b64encode(body) if binary else body
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    return b"event: %b\ndata: %b\n\n" % (command, lines)


VIEWS: Mapping[str, View] = {"json": view_json, "body": view_body}
"""The values of the parameter ``data``."""


def id_line(identifier: bytes) -> bytes:
    """Return the line with the id of an event, from which a client can continue."""
    return b"id: %b\n" % identifier


def _events(payloads: list[bytes], binary: bool, view: View) -> list[Event]:
    offsets = [*map(offset_of, payloads)]
    if all(offsets):  # a page of a history may have many
        with suppress(LHTTPError):
            return [(offset, b"", view(payload, binary)) for offset, payload in zip(offsets, payloads, strict=True)]
    found: list[Event] = []
    for payload in payloads:
        try:
            event = view(payload, binary)
        except LHTTPError:  # a bus may deliver any bytes
            continue
        offset = offset_of(payload)
        missed = None if offset else _MISSED.fullmatch(payload)
        found.append((offset, b"" if missed is None else missed[1], event))
    return found


class Several:
    """
    The encoding for streams of several channels: the events, to which each stream adds its own ids.

    An :class:`~lhttp_tx.engine.delivery.Encoding`; all streams with one form share one.

    :ivar form: makes events from messages.
    """

    __slots__ = ("form",)

    def __init__(self, form: View) -> None:
        """:param form: makes events from messages."""
        self.form = form

    def encode(self, payloads: list[bytes], binary: bool) -> list[Event]:
        """See :meth:`lhttp_tx.engine.delivery.Encoding.encode`. What is no message is left out."""
        return _events(payloads, binary, self.form)


class Single:
    """
    The encoding for streams of one channel: the events with their ids, joined.

    An :class:`~lhttp_tx.engine.delivery.Encoding`; all streams of the channel with one form share one.

    :ivar form: makes events from messages.
    """

    __slots__ = ("__weakref__", "_channel", "_epoch_of", "form")

    def __init__(self, form: View, channel: str, epoch_of: Callable[[str], str | None]) -> None:
        """
        :param form: makes events from messages.
        :param epoch_of: returns the epoch of the positions of a channel; ``None`` if it is not known.
        """
        self.form = form
        self._channel = channel
        self._epoch_of = epoch_of

    def encode(self, payloads: list[bytes], binary: bool) -> bytes:
        """See :meth:`lhttp_tx.engine.delivery.Encoding.encode`. What is no message is left out."""
        events = _events(payloads, binary, self.form)
        known = self._epoch_of(self._channel) if any(offset or position for offset, position, _ in events) else None
        if known is None:
            return b"".join([event for _, _, event in events])
        epoch = known.encode("ascii")
        if all(offset for offset, _, _ in events):
            return b"".join([b"id: %b-%d\n%b" % (epoch, offset, event) for offset, _, event in events])
        lines: list[bytes] = []
        for offset, position, event in events:
            identifier = b"%b-%d" % (epoch, offset) if offset else position
            lines += (id_line(identifier), event) if identifier else (event,)
        return b"".join(lines)
