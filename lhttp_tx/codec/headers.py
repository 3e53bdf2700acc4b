"""
Headers: pairs of name and value, and the lines that contain them.

:mod:`lhttp_tx.codec.message` uses this module for the head of a message, and :mod:`lhttp_tx.codec.multipart` for the
head of a part. Source of the grammar: the protocol document, section "Message format".
"""

import re
from collections.abc import Iterable, Iterator
from typing import final, overload

from lhttp_tx.codec.plain import are_lines
from lhttp_tx.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "HeaderPairs",
    "Headers",
    "encode",
    "header_line",
    "pairs_of",
    "parse_header_lines",
    "read_pairs",
    "shown",
    "split_lines",
]

_NAME = re.compile(rb"[\x21-\x39\x3b-\x7e]+")
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BLANKS = b" \t"
_PAIR = re.compile(r"^([^:\r\n]++):([^\r\n]*+)\r\n", re.MULTILINE)

HeaderPairs = Iterable[tuple[str, str]]
"""Pairs of name and value."""


@final
class Headers:
    """
    The headers of one message or part. They keep their order, cannot be changed, and names are not case-sensitive.

    Iterating yields pairs of name and value as they were written, including repetitions.
    """

    __slots__ = ("_pairs", "_values")

    def __init__(self, pairs: HeaderPairs = ()) -> None:
        """:param pairs: pairs of name and value. They are not checked here."""
        self._pairs = tuple(pairs)
        self._values: dict[str, tuple[str, ...]] | None = None

    def _index(self) -> dict[str, tuple[str, ...]]:
        """Return the values by name. The index is built on first use, since few heads need it."""
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
        """Return the value of *name*; the last one if it occurs several times; *default* if it does not occur."""
        values = (self._values or self._index()).get(name.lower())
        return default if values is None else values[-1]

    def get_all(self, name: str) -> tuple[str, ...]:
        """Return all values of *name* in order; an empty tuple if it does not occur."""
        return (self._values or self._index()).get(name.lower(), ())

    def names(self) -> frozenset[str]:
        """Return the names that occur, in lower case."""
        return frozenset([name.lower() for name, _ in self._pairs])

    def without(self, names: Iterable[str]) -> "Headers":
        """Return these headers without those whose names are in *names*, which are in lower case."""
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


def pairs_of(headers: HeaderPairs | dict[str, str]) -> HeaderPairs:
    """
    Return *headers* as pairs of name and value.

    :raises TypeError: if it is a text, such as a body that was passed in the place of the headers.
    """
    if isinstance(headers, dict):
        return headers.items()
    if isinstance(headers, str | bytes):
        raise TypeError(f"headers are a dict, or pairs of name and value, not {headers!r:.80}; a body goes into body=")
    return headers


def parse_header_lines(raw: bytes) -> Headers:
    """
    Parse header lines without a start line, such as those of a part of a multipart body.

    :param raw: the lines, each with its CRLF. It may be empty.
    :raises RemoteProtocolError: if a line is malformed.
    """
    if are_lines(raw):
        return Headers([(name, value.strip(" \t")) for name, value in _PAIR.findall(raw.decode("utf-8"))])
    return Headers(read_pairs(split_lines(raw)))


def split_lines(raw: bytes) -> list[bytes]:
    """
    Return the lines of a head, without their CRLFs.

    :raises RemoteProtocolError: if a line does not end in CRLF, or contains a CR or LF alone.
    """
    lines = raw.split(b"\r\n")
    if lines.pop():
        raise RemoteProtocolError("no CRLF ends the last header line")
    if raw.count(b"\n") != len(lines) or raw.count(b"\r") != len(lines):
        raise RemoteProtocolError("the head holds a bare CR or LF")
    return lines


def read_pairs(lines: list[bytes]) -> list[tuple[str, str]]:
    """
    Return the names and values of header lines.

    :raises RemoteProtocolError: if a line is malformed. The text shows what is wrong.
    """
    pairs = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise RemoteProtocolError(f"header line {shown(line)} has no colon")
        if not _NAME.fullmatch(name):
            raise RemoteProtocolError(f"header name {shown(name)} is not visible ASCII characters")
        if _CONTROLS.search(value):
            raise RemoteProtocolError(f"value of header {name.decode('ascii')} holds a control character")
        try:
            pairs.append((name.decode("ascii"), value.strip(_BLANKS).decode("utf-8")))
        except UnicodeDecodeError:
            raise RemoteProtocolError(f"value of header {name.decode('ascii')} is not UTF-8") from None
    return pairs


def header_line(name: str, value: str) -> bytes:
    """
    Return a header line in UTF-8, without its CRLF.

    :raises LocalProtocolError: if the name or the value is malformed, or the value begins or ends with a blank. The
        text shows it.
    :raises TypeError: if one is not a str.
    """
    raw_name, raw_value = encode(name, "header name"), encode(value, "header value")
    if not _NAME.fullmatch(raw_name):
        raise LocalProtocolError(f"header name {name!a} is not visible ASCII characters without a colon")
    if _CONTROLS.search(raw_value):
        raise LocalProtocolError(f"value {value!a} of header {name} holds a control character")
    if raw_value != raw_value.strip(_BLANKS):
        raise LocalProtocolError(f"value {value!a} of header {name} begins or ends with a blank")
    return raw_name + b":" + raw_value


def encode(text: str, what: str) -> bytes:
    """
    Return *text* as UTF-8.

    :param what: what the text is, for error texts.
    :raises LocalProtocolError: if *text* has a surrogate.
    :raises TypeError: if *text* is not a str.
    """
    try:
        return text.encode("utf-8")
    except AttributeError:
        raise TypeError(f"{what} is a str, not {text!r:.80}") from None
    except UnicodeEncodeError:
        raise LocalProtocolError(f"{what} {text[:64]!a} is not valid Unicode") from None


def shown(raw: bytes) -> str:
    """Return *raw* for an error text: at most 64 bytes of it, in one line of ASCII."""
    text = ascii(raw[:64].decode("utf-8", "replace"))
    return text if len(raw) <= 64 else text + "..."
