"""
Reads the query of ``GET /events``, and makes and reads the ids of events.

Pure functions on text. Source: the protocol document, section "Event streams".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import quote

from lhttp_tx.codec.limits import DEFAULT_LIMITS, Limits
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.positions import parse_position
from lhttp_tx.errors import LocalProtocolError, Refused, RemoteProtocolError
from lhttp_tx.guard.heads import unquote
from lhttp_tx.web.events.encoding import VIEWS, View

__all__ = ["MAX_ID_SIZE", "RECEIPT", "Places", "Wish", "read_id", "read_wish"]

MAX_ID_SIZE = 4_096
"""
The most bytes of an id. A client sends it back in a header, together with a query that names the same channels. The
head of a request has at most 16 KiB.
"""

RECEIPT = "events"
"""The beginning of the tokens of the receipts that a stream asks for."""

_MAX_LAST = 7
"""The most digits of ``last``."""

_ONCE = ("data", "last", "since", "ticket")
"""Parameters that have one value."""


@dataclass(frozen=True, slots=True)
class Wish:
    """
    The query of a client.

    :ivar channels: the channels, each once, in the order of the query. Their names are not checked yet.
    :ivar view: makes events from messages.
    :ivar positions: the positions after which the client wants to continue, by channel.
    :ivar last: how many of the newest messages the client wants first, of channels without a position; 0: none.
    :ivar resumes: whether the client continues an earlier stream: it has sent ``Last-Event-ID``.
    :ivar ticket: the client's ticket; ``None`` without one.
    """

    channels: tuple[str, ...]
    view: View
    positions: Mapping[str, str]
    last: int = 0
    resumes: bool = False
    ticket: str | None = None

    def messages(self) -> list[Message]:
        """
        Return the messages that subscribe to the channels, one or two.

        Each asks for a receipt: ``events0``, and ``events1``.

        :raises RemoteProtocolError: if a header of a message cannot hold the name of a channel.
        """
        known = [channel for channel in self.channels if channel in self.positions]
        others = [channel for channel in self.channels if channel not in self.positions]
        asks: list[list[tuple[str, str]]] = []
        if others:
            asks.append([("subscribe", " ".join(others)), *([("last", str(self.last))] if self.last else [])])
        if known:
            since = " ".join(f"{channel}={self.positions[channel]}" for channel in known)
            if len({*self.positions.values()}) == 1:
                since = self.positions[known[0]]
            asks.append([("subscribe", " ".join(known)), ("since", since)])
        try:
            return [
                Message("subscribe", [*pairs, ("gaps", "tell"), ("receipt", f"{RECEIPT}{number}")])
                for number, pairs in enumerate(asks)
            ]
        except LocalProtocolError as error:
            raise RemoteProtocolError(error.reason) from None


def read_wish(query: str, last_event_id: str | None, limits: Limits = DEFAULT_LIMITS) -> Wish:
    """
    Read the query of a request.

    :param query: the query as it was sent. The caller has checked its size and the number of its parameters.
    :param last_event_id: the header ``Last-Event-ID``, which replaces ``since``; ``None`` without one. ``last`` still
        applies to channels that it does not name.
    :param limits: ``listed`` limits the number of channels.
    :raises Refused: with status 400, or 429 if there are too many channels. The text says what is wrong.
    """
    names: list[str] = []
    values: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name == "channel":
            names += _unquoted(value).replace("\t", " ").split(" ")
        elif name in _ONCE:
            if name in values:
                raise Refused(400, f"the query has {name} more than once")
            values[name] = _unquoted(value)
    channels = tuple(dict.fromkeys(filter(None, names)))
    if not channels:
        raise Refused(400, "name channels in the query: /events?channel=news&channel=chat")
    if len(channels) > limits.listed:
        raise Refused(429, f"the query names more than {limits.listed} channels: use several streams")
    view = VIEWS.get(values.get("data", "json"))
    if view is None:
        raise Refused(400, f"data is one of {', '.join(VIEWS)}")
    last, since, identifier = values.get("last"), values.get("since"), last_event_id or None
    if last is not None and not (last.isascii() and last.isdigit() and len(last) <= _MAX_LAST):
        raise Refused(400, f"last {last[:64]!a} is not a number of messages")
    if last is not None and since is not None:
        raise Refused(400, "since and last cannot be combined")
    try:
        positions = read_id(since if identifier is None else identifier, channels)
    except RemoteProtocolError as error:
        raise Refused(400, f"{'since' if identifier is None else 'Last-Event-ID'}: {error.reason}") from None
    return Wish(channels, view, positions, int(last or 0), identifier is not None, values.get("ticket"))


def _unquoted(text: str) -> str:
    try:
        return unquote(text.replace("+", " ").encode("latin-1", "replace")).decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(400, "the query has escapes that are not UTF-8") from None


class Places:
    """
    The positions of a stream of several channels, and the ids that contain them.

    Every event has an id, and an id names all channels. The parts that stay the same are made once.
    """

    __slots__ = ("_pieces",)

    def __init__(self, positions: Mapping[str, str]) -> None:
        """:param positions: the positions to begin with, by channel."""
        self._pieces: dict[str, bytes] = {}
        self.update(positions)

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def update(self, positions: Mapping[str, str]) -> None:
        """Change the positions in some channels."""
        for channel, position in positions.items():
            self._pieces[channel] = self._name(channel) + position.encode("ascii")

    def id(self) -> bytes:
        """
        Return the id that contains all positions.

        It is ASCII without line ends: names are escaped as in URLs.
        """
        return b" ".join(self._pieces.values())

    def ids(self, channel: str, positions: list[bytes]) -> list[bytes]:
        """
        Move through *positions* of a channel, and return an id for each.

        :param positions: one or more positions, in order. The last one becomes the current position.
        """
        name = self._name(channel)
        self._pieces[channel] = b"\0"  # no piece contains this byte
        before, _, after = self.id().partition(b"\0")
        self._pieces[channel] = name + positions[-1]
        before += name
        return [before + position + after for position in positions]

    def _name(self, channel: str) -> bytes:
        """Return the escaped name of a channel, followed by ``=``."""
        known = self._pieces.get(channel)
        return f"{quote(channel, safe='')}=".encode("ascii") if known is None else known[: known.index(b"=") + 1]


def read_id(text: str | None, channels: Iterable[str]) -> Mapping[str, str]:
    """
    Return the positions in an id, by channel.

    :param text: one position for all *channels*, or an id as :meth:`Places.id` returns it; ``None`` without one.
    :raises RemoteProtocolError: if *text* is neither, or names a channel twice, or one that is not in *channels*.
    """
    if not text:
        return MappingProxyType({})
    words = [*filter(None, text.split(" "))]
    if len(words) == 1 and "=" not in words[0]:
        parse_position(words[0])
        return MappingProxyType(dict.fromkeys(channels, words[0]))
    known = frozenset(channels)
    found: dict[str, str] = {}
    for word in words:
        name, equals, position = word.rpartition("=")
        channel = unquote(name.encode("utf-8", "replace")).decode("utf-8", "replace")
        if not equals:
            raise RemoteProtocolError(f"{word[:64]!a} is no CHANNEL=POSITION")
        if channel not in known or channel in found:
            raise RemoteProtocolError(f"{channel[:64]!a} is not a channel of the query, or is named twice")
        parse_position(position)
        found[channel] = position
    return MappingProxyType(found)
