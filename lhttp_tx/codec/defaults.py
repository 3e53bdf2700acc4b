"""
Default headers: headers that the messages of a command get if they do not have them.

Pure values, made from the tables ``[default-headers.COMMAND]`` of a configuration file. The engine uses them once for
each different head. Source: the protocol document, section "How the server handles a message".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, final

from lhttp_tx.codec.headers import Headers, header_line
from lhttp_tx.codec.limits import UNLIMITED, Limits
from lhttp_tx.codec.message import CHANNEL_LISTS, Head, Message
from lhttp_tx.errors import LHTTPError, MessageTooLarge, RemoteProtocolError

__all__ = ["NO_DEFAULTS", "Addition", "DefaultHeaders", "read_defaults"]

_MAX_SIZE = 2_048
"""The most bytes of the default headers of one command."""

_MAX_COMMANDS = 1_000

_REFUSED = {
    "after": "the server sets it",
    "message-id": "each message needs its own",
    "multipart": "it depends on the body",
    "offset": "the server sets it",
    "receipt": "each message needs its own",
}
"""Headers that cannot have a default, and why."""


class Addition(NamedTuple):
    """
    How to add the default headers to messages with one head.

    :ivar start: the start line and the default headers, which replace the first *cut* bytes of a message.
    :ivar cut: the bytes of the start line, with its CRLF.
    """

    start: bytes
    cut: int

    def to(self, data: bytes) -> bytes:
        """Return the message *data* with the default headers."""
        return self.start + data[self.cut :]

    @property
    def lines(self) -> bytes:
        """The default headers as bytes. A CRLF comes before each."""
        return self.start[self.cut - 2 : -2]

    @property
    def size(self) -> int:
        """The number of bytes that are added to a message."""
        return len(self.start) - self.cut


@final
class DefaultHeaders:
    """
    The default headers of all commands.

    :ivar size: the most bytes that are added to a message.
    """

    __slots__ = ("_tables", "size")

    def __init__(self, tables: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """
        :param tables: the headers, by command.
        :raises ValueError: if a command, a name or a value is malformed, if a header cannot have a default, or if there
            are too many.
        """
        found = {command: dict(table) for command, table in (tables or {}).items()}
        for _, problem in _problems(found):
            raise ValueError(problem)
        self._tables = {command: tuple(table.items()) for command, table in found.items() if table}
        self.size = max((_size(table) for table in found.values()), default=0)

    def complete(self, head: Head, limits: Limits = UNLIMITED, size: int = 0) -> tuple[Head, Addition | None]:
        """
        Return *head* with the default headers of its command, and how to add them to messages. They come directly after
        the start line. A header that *head* already has, even an empty one, is not added.

        :param limits: this uses ``message_size``, ``head_size`` and ``header_count``.
        :param size: the bytes of the message.
        :returns: *head* itself and ``None`` if there is nothing to add.
        :raises RemoteProtocolError: with status 413 if there would be too many headers.
        :raises MessageTooLarge: if the head or the message would be too large.
        """
        table = self._tables.get(head.command)
        if table is None:
            return head, None
        known = {name.lower() for name, _ in head.headers}
        missing = tuple(pair for pair in table if pair[0].lower() not in known)
        if not missing:
            return head, None
        cut = head.raw.find(b"\r\n") + 2
        start = head.raw[:cut] + b"".join(header_line(name, value) + b"\r\n" for name, value in missing)
        headers = Headers((*missing, *head.headers))
        if len(headers) > limits.header_count:
            raise RemoteProtocolError(f"{len(headers)} headers are more than {limits.header_count}", status=413)
        raw = start + head.raw[cut:]
        if len(raw) > limits.head_size:
            raise MessageTooLarge(f"head of {len(raw)} bytes is larger than {limits.head_size}")
        size += len(start) - cut
        if size > limits.message_size:
            raise MessageTooLarge(
                f"message of {size} bytes, with default headers, is larger than {limits.message_size}"
            )
        return Head(raw, head.command, headers), Addition(start, cut)

    def lacking(self, head: Head) -> bool:
        """Return whether *head* lacks default headers of its command."""
        return head.command in self._tables and self.complete(head)[1] is not None

    def complete_message(self, message: Message, limits: Limits) -> Message:
        """
        Return *message* with the default headers of its command; *message* itself if there is nothing to add.

        :raises RemoteProtocolError: like :meth:`complete`.
        :raises MessageTooLarge: like :meth:`complete`.
        """
        head, addition = self.complete(message.head, limits, len(message.raw))
        if addition is None:
            return message
        return Message.from_parts(head, addition.to(message.raw), message.binary)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the commands that have default headers."""
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def __eq__(self, other: object) -> bool:
        return self._tables == other._tables if isinstance(other, DefaultHeaders) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._tables.items()))

    def __repr__(self) -> str:
        return f"<DefaultHeaders {', '.join(sorted(self._tables)) or 'none'}>"


def read_defaults(tables: Any) -> tuple[DefaultHeaders, list[tuple[tuple[str, ...], str]]]:
    """
    Return the default headers of the tables ``[default-headers.COMMAND]``, and the mistakes in them.

    :param tables: the table ``default-headers`` as :mod:`tomllib` reads it.
    :returns: the headers, none if there is a mistake; and the mistakes, each as a pair of its place below
        ``default-headers`` and a text.
    """
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        return NO_DEFAULTS, [((), "default-headers is a table of tables: write [default-headers.COMMAND]")]
    problems = list(_problems(tables))
    return (NO_DEFAULTS if problems else DefaultHeaders(tables)), problems


def _problems(tables: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[tuple[str, ...], str]]:
    if len(tables) > _MAX_COMMANDS:
        yield (), f"{len(tables)} commands have default headers, and at most {_MAX_COMMANDS} are allowed"
    for command, table in tables.items():
        try:
            Message(command)
        except LHTTPError as error:
            yield (command,), error.reason
            continue
        known: set[str] = set()
        sound = True
        for name, value in table.items():
            problem = _problem(command, name, value)
            if problem is None and name.lower() in known:
                problem = f"header {name} of {command} has two defaults"
            known.add(name.lower())
            if problem is not None:
                sound = False
                yield (command, name), problem
        if sound and _size(table) > _MAX_SIZE:
            yield (command,), f"the headers of {command} have {_size(table)} bytes, and at most {_MAX_SIZE} are allowed"


def _problem(command: str, name: str, value: Any) -> str | None:
    if not isinstance(value, str):
        return f"header {name} of {command} is a string"
    why = _REFUSED.get(name.lower())
    if why is not None:
        return f"header {name} cannot have a default: {why}"
    try:
        head = Message(command, [(name, value)]).head
        if name.lower() in CHANNEL_LISTS:
            head.channels(name.lower())
    except LHTTPError as error:
        return error.reason
    return None


def _size(table: Mapping[str, str]) -> int:
    return sum(len(header_line(name, value)) + 2 for name, value in table.items())


NO_DEFAULTS = DefaultHeaders()
