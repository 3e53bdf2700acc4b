"""
The codec: bytes to :class:`Message` and back.

Pure functions without I/O. Everything above uses them; this module imports only its neighbours in the codec.
Source of the grammar: the protocol document, section "A message".

A message keeps the bytes it came in. The head is parsed, the body is looked at only when somebody asks for it, so
that forwarding a message costs no copy of it.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import final, overload

from lhttp_tx.channels import check_channel, check_subscription, split_channels
from lhttp_tx.errors import LHTTPError, LocalProtocolError, MessageTooLarge, RemoteProtocolError
from lhttp_tx.frames import split_frames
from lhttp_tx.limits import DEFAULT_LIMITS, UNLIMITED, Limits

__all__ = [
    "SERVER_ONLY",
    "Head",
    "Headers",
    "Message",
    "parse",
    "parse_head",
    "parse_header_lines",
    "split_head",
    "split_messages",
]

SERVER_ONLY = frozenset({"upstream", "receipt"})
"""Headers meant for the server alone: subscribers do not get them."""

_START = b"LHTTP/1.0 "
_COMMAND = re.compile(rb"[\x21-\x7e]{1,64}")
_HEAD = re.compile(rb"LHTTP/1\.0 [\x21-\x7e]{1,64}\r\n(?:[\x21-\x39\x3b-\x7e]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*")
"""A head that is in order, but for the UTF-8 of its values and the number of its headers."""

_NAME = re.compile(rb"[\x21-\x39\x3b-\x7e]+")
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BLANKS = b" \t"

HeaderPairs = Iterable[tuple[str, str]]


@final
class Headers:
    """
    The headers of one message or part: ordered, immutable, names compared without regard to case.

    Iterating gives ``(name, value)`` pairs as they were written, repetitions included.
    """

    __slots__ = ("_pairs", "_values")

    def __init__(self, pairs: HeaderPairs = ()) -> None:
        """:param pairs: names and values, already known to be well-formed or checked later by :class:`Message`."""
        self._pairs = tuple(pairs)
        self._values: dict[str, tuple[str, ...]] | None = None

    def _index(self) -> dict[str, tuple[str, ...]]:
        """Return the values of each name, gathered when somebody asks for the first time: few heads are asked."""
        if self._values is None:
            values: dict[str, tuple[str, ...]] = {}
            for name, value in self._pairs:
                key = name.lower()
                values[key] = (*values[key], value) if key in values else (value,)
            self._values = values
        return self._values

    @overload
    def get(self, name: str, default: None = None) -> str | None: ...

    @overload
    def get(self, name: str, default: str) -> str: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the value of *name*, the last one if it was repeated, else *default*."""
        values = (self._values or self._index()).get(name.lower())
        return default if values is None else values[-1]

    def get_all(self, name: str) -> tuple[str, ...]:
        """Return every value of *name* in order; empty if it is absent."""
        return (self._values or self._index()).get(name.lower(), ())

    def names(self) -> frozenset[str]:
        """Return the names that occur, in lower case."""
        return frozenset([name.lower() for name, _ in self._pairs])

    def without(self, names: Iterable[str]) -> "Headers":
        """Return these headers less those called *names* (lower case)."""
        dropped = frozenset(names)
        return Headers(pair for pair in self._pairs if pair[0].lower() not in dropped)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._index()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __eq__(self, other: object) -> bool:
        return self._pairs == other._pairs if isinstance(other, Headers) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __repr__(self) -> str:
        return f"Headers({list(self._pairs)!r})"


@final
class Head:
    """
    A parsed start line with its headers. Equal bytes give equal heads, so a head can be parsed once and kept.

    :ivar raw: start line and header lines, each with its CRLF, without the blank line.
    :ivar command: 1 to 64 visible ASCII characters.
    :ivar headers: the headers.
    """

    __slots__ = ("_channels", "_plain", "_stripped", "command", "headers", "raw")

    def __init__(self, raw: bytes, command: str, headers: Headers) -> None:
        self.raw = raw
        self.command = command
        self.headers = headers
        self._channels: tuple[tuple[str, tuple[str, ...]], ...] = ()
        self._plain: bool | None = None
        self._stripped: Head | None = None

    def channels(self, name: str) -> tuple[str, ...]:
        """
        Return the channels that the header *name* lists, each once; empty if there is no such header.

        The answer is computed once for each head.

        :raises RemoteProtocolError: if a name is malformed or reserved, or the list is empty.
        """
        for known, channels in self._channels:
            if known == name:
                return channels
        values = [value for found, value in self.headers if found.lower() == name]
        check = check_channel if name == "publish" else check_subscription
        channels = split_channels(values, check) if values else ()
        self._channels = (*self._channels, (name, channels))
        return channels

    def stripped(self) -> "Head":
        """Return this head less the headers meant for the server alone; itself if it has none of them."""
        if self._plain is None:
            self._plain = SERVER_ONLY.isdisjoint([name.lower() for name, _ in self.headers])
        if self._plain:
            return self
        if self._stripped is None:
            first, *lines = self.raw[:-2].split(b"\r\n")
            kept = [line for line in lines if line.partition(b":")[0].lower().decode("ascii") not in SERVER_ONLY]
            raw = b"".join(line + b"\r\n" for line in (first, *kept))
            self._stripped = Head(raw, self.command, self.headers.without(SERVER_ONLY))
        return self._stripped

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, Head) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"<Head {self.command} {self.headers!r}>"


@final
class Message:
    """
    One LHTTP message: command, headers, body, and whether it travels as WebSocket text or binary.

    Two messages are equal if their bytes and their kinds are.
    """

    __slots__ = ("_binary", "_head", "_raw")

    def __init__(
        self,
        command: str,
        headers: HeaderPairs | dict[str, str] = (),
        body: bytes | str = b"",
        *,
        binary: bool = False,
    ) -> None:
        """
        Build a message, checked to parse back the same.

        :param command: 1 to 64 visible ASCII characters.
        :param headers: pairs of name and value, or a dict of them.
        :param body: the body; a str is sent as UTF-8.
        :param binary: whether it travels as a binary WebSocket message. A text one must be UTF-8 throughout.
        :raises LocalProtocolError: if the grammar does not allow one of them; the text names it.
        """
        pairs = tuple(headers.items() if isinstance(headers, dict) else headers)
        raw_command = _encode(command, "command")
        if not _COMMAND.fullmatch(raw_command):
            raise LocalProtocolError(f"command {command!a} is not 1 to 64 visible ASCII characters")
        raw = b"\r\n".join([_START + raw_command, *(_header_line(name, value) for name, value in pairs), b""])
        self._head = Head(raw, command, Headers(pairs))
        self._raw = b"\r\n".join((raw, _body(body, binary)))
        self._binary = binary

    @classmethod
    def from_parts(cls, head: Head, raw: bytes, binary: bool) -> "Message":
        """
        Return the message of these parts, unchecked; used where they came out of the codec.

        :param head: the parsed head, whose bytes *raw* begins with.
        :param raw: the whole message.
        """
        self = cls.__new__(cls)
        self._head = head
        self._raw = raw
        self._binary = binary
        return self

    @property
    def head(self) -> Head:
        """The parsed head."""
        return self._head

    @property
    def raw(self) -> bytes:
        """The whole message as it goes over the wire."""
        return self._raw

    @property
    def binary(self) -> bool:
        """Whether it travels as a binary WebSocket message."""
        return self._binary

    @property
    def command(self) -> str:
        """The command."""
        return self._head.command

    @property
    def headers(self) -> Headers:
        """The headers."""
        return self._head.headers

    @property
    def body(self) -> bytes:
        """The body, verbatim; a copy is made at each call."""
        return self._raw[len(self._head.raw) + 2 :]

    @property
    def text(self) -> str:
        """
        The body as text.

        :raises RemoteProtocolError: if it is not UTF-8, which only the body of a binary message can be.
        """
        try:
            return self.body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RemoteProtocolError(f"body is not UTF-8 at byte {error.start}") from None

    def stripped(self) -> "Message":
        """Return the message as subscribers get it: less the headers meant for the server alone."""
        head = self._head.stripped()
        if head is self._head:
            return self
        return Message.from_parts(head, head.raw + self._raw[len(self._head.raw) :], self._binary)

    def replace(
        self,
        *,
        command: str | None = None,
        headers: HeaderPairs | dict[str, str] | None = None,
        body: bytes | str | None = None,
        binary: bool | None = None,
    ) -> "Message":
        """
        Return a message with some of its fields replaced; ``None`` keeps a field.

        :raises LocalProtocolError: as the constructor.
        """
        binary = self._binary if binary is None else binary
        body = self.body if body is None else body
        if command is None and headers is None:
            return Message.from_parts(self._head, b"\r\n".join((self._head.raw, _body(body, binary))), binary)
        return Message(
            self.command if command is None else command,
            self.headers if headers is None else headers,
            body,
            binary=binary,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self._raw == other._raw and self._binary == other._binary

    def __hash__(self) -> int:
        return hash((self._raw, self._binary))

    def __repr__(self) -> str:
        kind = "binary" if self._binary else "text"
        return f"<Message {self.command} {self.headers!r} {len(self._raw)} bytes {kind}>"


def split_head(data: bytes, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """
    Return the bytes of the head that *data* begins with: start line and header lines, without the blank line.

    :param data: one whole message.
    :param limits: ``message_size`` and ``head_size`` count here.
    :raises RemoteProtocolError: if no CRLF ends the head.
    :raises MessageTooLarge: if the message or its head is too large.
    """
    if len(data) > limits.message_size:
        raise MessageTooLarge(f"message of {len(data)} bytes is larger than {limits.message_size}")
    end = data.find(b"\r\n\r\n")
    if end >= 0:
        head = data[: end + 2]
    elif data.endswith(b"\r\n"):
        head = data
    else:
        raise RemoteProtocolError("no CRLF ends the head" if data else "message is empty")
    if len(head) > limits.head_size:
        raise MessageTooLarge(f"head of {len(head)} bytes is larger than {limits.head_size}")
    return head


def parse_head(raw: bytes, limits: Limits = DEFAULT_LIMITS) -> Head:
    """
    Parse what :func:`split_head` returned.

    :param limits: ``header_count`` counts here.
    :raises RemoteProtocolError: if the grammar does not allow it; the text names the value.
    """
    if not _HEAD.fullmatch(raw):
        raise _what_is_wrong(raw, limits)
    try:
        start, *lines, _ = raw.decode("utf-8").split("\r\n")
    except UnicodeDecodeError:
        raise _what_is_wrong(raw, limits) from None
    if len(lines) > limits.header_count:
        raise _what_is_wrong(raw, limits)
    pairs = []
    for line in lines:
        name, _, value = line.partition(":")
        pairs.append((name, value.strip(" \t")))
    return Head(raw, start[len(_START) :], Headers(pairs))


def parse_header_lines(raw: bytes) -> Headers:
    """
    Parse header lines without a start line, as a part of a multipart body begins with.

    :param raw: the lines, each with its CRLF; may be empty.
    :raises RemoteProtocolError: if the grammar does not allow one of them.
    """
    return Headers(_pairs(_lines(raw))) if raw else Headers()


def parse(data: bytes, *, binary: bool = False, limits: Limits = DEFAULT_LIMITS) -> Message:
    """
    Parse one message.

    :param data: the payload of one WebSocket data message.
    :param binary: whether it came as a binary one.
    :raises RemoteProtocolError: if the grammar does not allow it.
    :raises MessageTooLarge: if it passes one of the *limits*.
    """
    return Message.from_parts(parse_head(split_head(data, limits), limits), data, binary)


def split_messages(frames: bytes) -> list[Message]:
    """Return the messages that whole WebSocket frames carry; what a bus brings need not be one, and is left out."""
    found: list[Message] = []
    for payload, binary in split_frames(frames):
        with suppress(LHTTPError):
            found.append(parse(payload, binary=binary, limits=UNLIMITED))
    return found


def _what_is_wrong(raw: bytes, limits: Limits) -> RemoteProtocolError:
    """Return the error of a head that is not in order; the first one in it counts."""
    try:
        lines = _lines(raw)
        start = lines[0]
        if not start.startswith(_START):
            return RemoteProtocolError(f"start line {_shown(start)} does not begin with 'LHTTP/1.0 '")
        command = start[len(_START) :]
        if not _COMMAND.fullmatch(command):
            return RemoteProtocolError(f"command {_shown(command)} is not 1 to 64 visible ASCII characters")
        if len(lines) - 1 > limits.header_count:
            return RemoteProtocolError(f"{len(lines) - 1} headers are more than {limits.header_count}", status=413)
        _pairs(lines[1:])
    except RemoteProtocolError as error:
        return error
    raise AssertionError(f"the head {_shown(raw)} is in order")


def _lines(raw: bytes) -> list[bytes]:
    lines = raw.split(b"\r\n")
    if lines.pop():
        raise RemoteProtocolError("no CRLF ends the last header line")
    if raw.count(b"\n") != len(lines) or raw.count(b"\r") != len(lines):
        raise RemoteProtocolError("the head holds a bare CR or LF")
    return lines


def _pairs(lines: list[bytes]) -> list[tuple[str, str]]:
    pairs = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise RemoteProtocolError(f"header line {_shown(line)} has no colon")
        if not _NAME.fullmatch(name):
            raise RemoteProtocolError(f"header name {_shown(name)} is not visible ASCII characters")
        if _CONTROLS.search(value):
            raise RemoteProtocolError(f"value of header {name.decode('ascii')} holds a control character")
        try:
            pairs.append((name.decode("ascii"), value.strip(_BLANKS).decode("utf-8")))
        except UnicodeDecodeError:
            raise RemoteProtocolError(f"value of header {name.decode('ascii')} is not UTF-8") from None
    return pairs


def _header_line(name: str, value: str) -> bytes:
    raw_name, raw_value = _encode(name, "header name"), _encode(value, "header value")
    if not _NAME.fullmatch(raw_name):
        raise LocalProtocolError(f"header name {name!a} is not visible ASCII characters without a colon")
    if _CONTROLS.search(raw_value):
        raise LocalProtocolError(f"value {value!a} of header {name} holds a control character")
    if raw_value != raw_value.strip(_BLANKS):
        raise LocalProtocolError(f"value {value!a} of header {name} begins or ends with a blank")
    return raw_name + b":" + raw_value


def _body(body: bytes | str, binary: bool) -> bytes:
    raw = _encode(body, "body") if isinstance(body, str) else body
    if not binary and not raw.isascii():
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise LocalProtocolError(f"body of a text message is not UTF-8 at byte {error.start}") from None
    return raw


def _encode(text: str, what: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise LocalProtocolError(f"{what} {text[:64]!a} is not valid Unicode") from None


def _shown(raw: bytes) -> str:
    """Return *raw* for an error text: short, one line, ASCII."""
    text = ascii(raw[:64].decode("utf-8", "replace"))
    return text if len(raw) <= 64 else text + "..."
