"""
The codec: parses bytes to a :class:`Message`, and makes the bytes of messages.

Pure functions without I/O. Everything above uses them. This module imports only other modules of the codec. Source of
the grammar: the protocol document, section "Message format".

A message keeps its original bytes. The codec parses the head at once, and reads the body only on request. So passing on
a message makes no copy.
"""

import json
import re
from collections.abc import Iterable
from copy import copy
from operator import methodcaller
from typing import Any, Literal, final

from lhttp_tx.codec.channels import check_channel, check_subscription, split_channels
from lhttp_tx.codec.headers import HeaderPairs, Headers, encode, header_line, pairs_of, read_pairs, shown, split_lines
from lhttp_tx.codec.limits import DEFAULT_LIMITS, UNLIMITED, Limits
from lhttp_tx.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError

__all__ = [
    "CHANNEL_LISTS",
    "SERVER_ONLY",
    "Head",
    "Message",
    "Unreadable",
    "parse",
    "parse_head",
    "publication",
    "split_head",
]

CHANNEL_LISTS = ("subscribe", "publish", "unsubscribe")
"""The headers that list channels."""

SERVER_ONLY = frozenset({"upstream", "receipt"})
"""The headers that are only for the server. Subscribers do not get them."""

_START = b"LHTTP/1.0 "
_PARTED = methodcaller("partition", ":")
_COMMAND = re.compile(rb"[\x21-\x7e]{1,64}")
_HEAD = re.compile(rb"LHTTP/1\.0 [\x21-\x7e]{1,64}\r\n(?:[\x21-\x39\x3b-\x7e]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*")
"""Matches a head that is valid, if its values are UTF-8 and the number of its headers is allowed."""


@final
class Head:
    """
    A parsed start line with its headers. Heads with equal bytes are equal, so a head can be parsed once and kept.

    :ivar raw: the start line and the header lines, each with its CRLF, without the blank line.
    :ivar command: the command, 1 to 64 visible ASCII characters.
    :ivar headers: the headers.
    :ivar reply: a cache for code that makes replies: the head of a reply with the headers of this one, or ``True`` if
        it is this head itself. ``None`` at first.
    """

    __slots__ = ("_channels", "_plain", "_stripped", "_without", "command", "headers", "raw", "reply")

    def __init__(self, raw: bytes, command: str, headers: Headers) -> None:
        self.raw = raw
        self.command = command
        self.headers = headers
        self._channels: tuple[tuple[str, tuple[str, ...]], ...] = ()
        self._plain: bool | None = None
        self._stripped: Head | None = None
        self._without: tuple[frozenset[str], Head | None] | None = None  # None: this head itself
        self.reply: Head | Literal[True] | None = None

    def channels(self, name: str, limits: Limits = UNLIMITED) -> tuple[str, ...]:
        """
        Return the channels in the header *name*. Each occurs once. The tuple is empty if there is no such header.

        The list is computed once for each head, so *limits* matter only in the first call. The engine makes this call.

        :param name: ``subscribe``, ``publish`` or ``unsubscribe``.
        :param limits: the limits for the number of channels, and for their names.
        :raises RemoteProtocolError: if a name is malformed or reserved, or if the list is empty or too long.
        """
        for known, channels in self._channels:
            if known == name:
                return channels
        values = [value for found, value in self.headers if found.lower() == name]
        is_published = name == "publish"
        check = check_channel if is_published else check_subscription
        channels = split_channels(values, check, limits, is_published=is_published) if values else ()
        self._channels = (*self._channels, (name, channels))
        return channels

    def stripped(self) -> "Head":
        """
        Return this head without the headers that are only for the server. If it has none of them, return this head
        itself.
        """
        if self._plain is None:
            self._plain = SERVER_ONLY.isdisjoint([name.lower() for name, _ in self.headers])
        if self._plain:
            return self
        if self._stripped is None:
            self._stripped = self.without(SERVER_ONLY)
        return self._stripped

    def without(self, names: frozenset[str]) -> "Head":
        """
        Return this head without the headers in *names*, which are in lower case. If it has none of them, return this
        head itself.

        The result is cached for the next call with the same object *names*.
        """
        if self._without is None or self._without[0] is not names:
            self._without = names, self._make_without(names)
        return self._without[1] or self

    def _make_without(self, names: frozenset[str]) -> "Head | None":
        if names.isdisjoint([name.lower() for name, _ in self.headers]):
            return None
        first, *lines = self.raw[:-2].split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].lower().decode("ascii") not in names]
        return Head(b"".join(line + b"\r\n" for line in (first, *kept)), self.command, self.headers.without(names))

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, Head) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"<Head {self.command} {self.headers!r}>"


@final
class Message:
    """
    One LHTTP message: command, headers, body, and whether it is a text or a binary message.

    Messages are equal if their bytes are equal, and both are text or both binary. Do not set the attributes.

    :ivar head: the parsed head.
    :ivar raw: the bytes of the whole message.
    :ivar binary: whether it is a binary WebSocket message.
    """

    __slots__ = ("binary", "head", "raw")

    def __init__(
        self,
        command: str,
        headers: HeaderPairs | dict[str, str] = (),
        body: bytes | str = b"",
        *,
        binary: bool = False,
    ) -> None:
        """
        Make a message. The values are checked, so that parsing the message returns the same values.

        :param command: 1 to 64 visible ASCII characters.
        :param headers: pairs of name and value, or a dict.
        :param body: the body; a str is sent as UTF-8.
        :param binary: whether it is a binary WebSocket message. The body of a text message must be UTF-8.
        :raises LocalProtocolError: if a value is malformed. The text shows it.
        :raises TypeError: if a value has a wrong type.
        """
        pairs = tuple(pairs_of(headers))
        raw_command = encode(command, "command")
        if not _COMMAND.fullmatch(raw_command):
            raise LocalProtocolError(f"command {command!a} is not 1 to 64 visible ASCII characters")
        raw = b"\r\n".join([_START + raw_command, *(header_line(name, value) for name, value in pairs), b""])
        self.head = Head(raw, command, Headers(pairs))
        self.raw = b"\r\n".join((raw, _body(body, binary)))
        self.binary = binary

    @classmethod
    def from_parts(cls, head: Head, raw: bytes, binary: bool) -> "Message":
        """
        Return a message without checks. The arguments must come from the codec.

        :param head: the parsed head. *raw* begins with its bytes.
        :param raw: the bytes of the whole message.
        :param binary: whether it is a binary message.
        """
        self = cls.__new__(cls)
        self.head = head
        self.raw = raw
        self.binary = binary
        return self

    @property
    def command(self) -> str:
        """The command."""
        return self.head.command

    @property
    def headers(self) -> Headers:
        """The headers."""
        return self.head.headers

    @property
    def body(self) -> bytes:
        """The bytes of the body. Each access makes a copy."""
        return self.raw[len(self.head.raw) + 2 :]

    @property
    def text(self) -> str:
        """
        The body as a str.

        :raises RemoteProtocolError: if the body is not UTF-8. This can happen only in binary messages.
        """
        try:
            return self.body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RemoteProtocolError(f"body is not UTF-8 at byte {error.start}") from None

    def json(self) -> Any:
        """
        Parse the body as JSON, and return the value.

        :raises RemoteProtocolError: if the body is not JSON in UTF-8.
        """
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise RemoteProtocolError(f"body is not JSON: {str(error)[:100]}") from None

    def stripped(self) -> "Message":
        """Return the message as subscribers get it: without the headers that are only for the server."""
        head = self.head.stripped()
        if head is self.head:
            return self
        return Message.from_parts(head, head.raw + self.raw[len(self.head.raw) :], self.binary)

    def replace(
        self,
        *,
        command: str | None = None,
        headers: HeaderPairs | dict[str, str] | None = None,
        body: bytes | str | None = None,
        binary: bool | None = None,
    ) -> "Message":
        """
        Return a copy of this message with other fields. ``None`` keeps a field.

        :raises LocalProtocolError: if a value is malformed.
        :raises TypeError: if a value has a wrong type.
        """
        binary = self.binary if binary is None else binary
        body = self.body if body is None else body
        if command is None and headers is None:
            return Message.from_parts(self.head, b"\r\n".join((self.head.raw, _body(body, binary))), binary)
        return Message(
            self.command if command is None else command,
            self.headers if headers is None else headers,
            body,
            binary=binary,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self.raw == other.raw and self.binary == other.binary

    def __hash__(self) -> int:
        return hash((self.raw, self.binary))

    def __repr__(self) -> str:
        kind = "binary" if self.binary else "text"
        return f"<Message {self.command} {self.headers!r} {len(self.raw)} bytes {kind}>"


class Unreadable(bytes):
    """
    A placeholder for a message from a client's view that cannot be read. It has no bytes. :func:`split_head` raises its
    error. So the client gets the error in the order of its messages.

    :ivar error: the error of reading the view.
    :ivar receipt: the token of the receipt that the client asked for; ``None`` if it is not known.
    """

    error: RemoteProtocolError
    receipt: str | None

    @classmethod
    def of(cls, error: RemoteProtocolError, receipt: str | None) -> "Unreadable":
        """Return a placeholder with these attributes."""
        self = cls()
        self.error = copy(error)  # a copy without a traceback, which would keep the frames of all callers
        self.receipt = receipt
        return self


def publication(
    channels: Iterable[str],
    command: str,
    headers: HeaderPairs | dict[str, str] = (),
    body: bytes | str = b"",
    *,
    binary: bool = False,
) -> Message:
    """
    Return a message with a ``publish`` header. The other parameters are those of :class:`Message`.

    :param channels: valid channel names.
    :raises LocalProtocolError: if a value is malformed.
    """
    return Message(command, [("publish", " ".join(channels)), *pairs_of(headers)], body, binary=binary)


def split_head(data: bytes, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """
    Return the bytes of the head of *data*: start line and header lines, without the blank line.

    :param data: one whole message.
    :param limits: this uses ``message_size`` and ``head_size``.
    :raises RemoteProtocolError: if no CRLF ends the head, or *data* is an :class:`Unreadable`.
    :raises MessageTooLarge: if the message or its head is too large.
    """
    if len(data) > limits.message_size:
        raise MessageTooLarge(f"message of {len(data)} bytes is larger than {limits.message_size}")
    end = data.find(b"\r\n\r\n")
    if end >= 0:
        head = data[: end + 2]
    elif data.endswith(b"\r\n"):
        head = data
    elif isinstance(data, Unreadable):
        raise copy(data.error)  # its traceback would refer to this frame, and this frame to it
    else:
        raise RemoteProtocolError("no CRLF ends the head" if data else "message is empty")
    if len(head) > limits.head_size:
        raise MessageTooLarge(f"head of {len(head)} bytes is larger than {limits.head_size}")
    return head


def parse_head(raw: bytes, limits: Limits = DEFAULT_LIMITS) -> Head:
    """
    Parse the bytes of a head.

    :param raw: the result of :func:`split_head`.
    :param limits: this uses ``header_count``.
    :raises RemoteProtocolError: if the head is malformed. The text shows what is wrong.
    """
    if not _HEAD.fullmatch(raw):
        raise _what_is_wrong(raw, limits)
    try:
        start, *lines, _ = raw.decode("utf-8").split("\r\n")
    except UnicodeDecodeError:
        raise _what_is_wrong(raw, limits) from None
    if len(lines) > limits.header_count:
        raise _what_is_wrong(raw, limits)
    pairs = [(name, value.strip(" \t")) for name, _, value in map(_PARTED, lines)]
    return Head(raw, start[len(_START) :], Headers(pairs))


def parse(data: bytes, *, binary: bool = False, limits: Limits = DEFAULT_LIMITS) -> Message:
    """
    Parse one message.

    :param data: the payload of one WebSocket data message.
    :param binary: whether it came as a binary message.
    :raises RemoteProtocolError: if the message is malformed.
    :raises MessageTooLarge: if the message or its head is too large.
    """
    return Message.from_parts(parse_head(split_head(data, limits), limits), data, binary)


def _what_is_wrong(raw: bytes, limits: Limits) -> RemoteProtocolError:
    """Return the first error in a head that is not valid."""
    try:
        lines = split_lines(raw)
        start = lines[0]
        if not start.startswith(_START):
            return RemoteProtocolError(f"start line {shown(start)} does not begin with 'LHTTP/1.0 '")
        command = start[len(_START) :]
        if not _COMMAND.fullmatch(command):
            return RemoteProtocolError(f"command {shown(command)} is not 1 to 64 visible ASCII characters")
        if len(lines) - 1 > limits.header_count:
            return RemoteProtocolError(f"{len(lines) - 1} headers are more than {limits.header_count}", status=413)
        read_pairs(lines[1:])
    except RemoteProtocolError as error:
        return error
    raise AssertionError(f"the head {shown(raw)} is valid")


def _body(body: bytes | str, binary: bool) -> bytes:
    raw = encode(body, "body") if isinstance(body, str) else body
    if not isinstance(raw, bytes | bytearray):
        raise TypeError(f"body is bytes or a str, not {raw!r:.80}")
    if not binary and not raw.isascii():
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise LocalProtocolError(f"body of a text message is not UTF-8 at byte {error.start}") from None
    return raw
