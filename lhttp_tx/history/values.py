"""
The values that a history store takes and returns.

Public: authors of stores use these classes. Source: the protocol document, section "History".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple, final

from lhttp_tx.codec.bounds import Bound, check_fields
from lhttp_tx.errors import LHTTPError, RemoteProtocolError

if TYPE_CHECKING:
    from lhttp_tx.codec.message import Head

__all__ = [
    "DEFAULT_RETENTION",
    "ID_LINE",
    "OPTIONS_CLASS",
    "Filing",
    "Page",
    "Placing",
    "Retention",
    "Stored",
    "filing_of",
    "message_id_of",
]

_MESSAGE_ID = re.compile(r"[!-~]{1,64}")

ID_LINE = re.compile(rb"\nmessage-id:", re.IGNORECASE)
"""Matches in every head with a message id, even a malformed one."""

_STORE_LINE = re.compile(rb"\nstore:", re.IGNORECASE)


@final
@dataclass(frozen=True, slots=True)
class Retention:
    """
    A history class: how much of each of its channels a store keeps.

    :ivar name: the name of the history class, 1 to 32 letters, digits, ``-`` and ``_``. Two classes with the same name
        must have the same limits.
    :ivar messages: the most messages of a channel, 1 to 1,000,000.
    :ivar age: seconds for which a message is kept, from 1 to 315,360,000 (ten years).
    :ivar size: the most bytes of a channel, at least 1,024; 0: no limit.
    :ivar recovery: the most messages that one subscription recovers, up to 1,000,000. A client that has missed more
        gets ``missed``. 0: no limit.
    """

    name: str = "default"
    messages: int = 1000
    age: float = 86_400.0
    size: int = 0
    recovery: int = 0

    BOUNDS: ClassVar[dict[str, Bound]] = {
        "messages": Bound(int, 1, 1_000_000),
        "age": Bound(float, 1.0, 315_360_000.0),
        "size": Bound(int, 1024, 2**50, zero=True),
        "recovery": Bound(int, 1, 1_000_000, zero=True),
    }

    def __post_init__(self) -> None:
        """
        Check the fields.

        :raises TypeError: if a field has another type.
        :raises ValueError: if a field is out of bounds.
        """
        check_fields(self, self.BOUNDS)
        plain = self.name.replace("-", "").replace("_", "")
        if not (plain.isascii() and plain.isalnum() and len(self.name) <= 32):
            raise ValueError(f"name {self.name!r} of a history class is not 1 to 32 letters, digits, - and _")


DEFAULT_RETENTION = Retention()
"""The class of ``history = true`` in a channel rule, and of ``--history`` with default values."""

OPTIONS_CLASS = "options"
"""The name of the class of ``--history`` if ``--history-messages`` or ``--history-age`` has another value."""


class Stored(NamedTuple):
    """
    One message of a history.

    :ivar offset: the offset of the message.
    :ivar payload: the LHTTP message as subscribers get it, with ``offset`` and ``after``.
    :ivar binary: whether it is sent as a binary WebSocket message.
    """

    offset: int
    payload: bytes
    binary: bool


@final
@dataclass(slots=True)
class Page:
    """
    A part of the history of one channel.

    :ivar messages: the messages, oldest first.
    :ivar reaches: for :meth:`IHistoryStore.read <lhttp_tx.interfaces.IHistoryStore.read>`: whether the store is certain
        that no message is lost between the requested offset and the first of *messages*. It is also false if the store
        has not assigned the requested offset yet.
    :ivar total: the number of messages that the page would have without *limit* and *size*.
    :ivar tip: the offset of the newest message of the channel, or a larger one, whatever was requested. It is the
        position of a client that has all messages.
    """

    messages: list[Stored]
    reaches: bool
    total: int
    tip: int

    @property
    def more(self) -> bool:
        """Whether there are more messages than the page has."""
        return self.total > len(self.messages)


@final
@dataclass(slots=True)
class Placing:
    """
    The outcome of one publication in one channel. The store sets it.

    :ivar channel: the channel.
    :ivar message_id: the message id of the publication, or ``None``.
    :ivar position: the position in the history; ``None`` until it is known, and if the channel has no history.
    :ivar duplicate: whether a publication with this id was already published. If so, *position* is that of the first
        one.
    :ivar failure: why the publication was not stored; ``None`` if nothing is known to have failed.
    :ivar is_late: whether the store had not decided the outcome when it took the publication.
    """

    channel: str
    message_id: str | None = None
    position: str | None = None
    duplicate: bool = False
    failure: LHTTPError | None = field(default=None)
    is_late: bool = False


@final
class Filing:
    """
    How to store one message, and the outcome in each of its channels.

    :ivar message_id: the message id, or ``None``.
    :ivar stored: whether histories may store it; false for ``store:no``.
    :ivar placings: the outcomes, one for each channel.
    :ivar is_open: whether the store had not decided an outcome when it took the publication. It sets the outcome later.
    :ivar undo: a function that forgets the message id, if it is not known whether the bus has the message; ``None`` if
        there is nothing to forget. Its argument is the channels in which the message may be lost; ``None``: all.
    """

    __slots__ = ("is_open", "message_id", "placings", "stored", "undo")

    def __init__(self, message_id: str | None = None, stored: bool = True) -> None:
        self.message_id = message_id
        self.stored = stored
        self.placings: list[Placing] = []
        self.is_open = False
        self.undo: Callable[[frozenset[str] | None], None] | None = None

    def place(self, channel: str) -> Placing:
        """Return a new placing for *channel*."""
        placing = Placing(channel, self.message_id)
        self.placings.append(placing)
        return placing

    @property
    def is_kept(self) -> bool:
        """Whether a history stores the message. If so, its receipt waits for the store, too."""
        return self.is_open or any(placing.position is not None for placing in self.placings)

    @property
    def failure(self) -> LHTTPError | None:
        """Why the message was not stored in one of the channels; ``None`` if nothing is known to have failed."""
        return next((placing.failure for placing in self.placings if placing.failure is not None), None)

    @property
    def is_decided(self) -> bool:
        """Whether a store that decides outcomes later has decided all of them."""
        late = [placing for placing in self.placings if placing.is_late]
        return bool(late) and all(placing.position is not None or placing.failure is not None for placing in late)

    def check(self) -> None:
        """
        Do nothing unless the message was not stored.

        :raises LHTTPError: the failure.
        """
        if self.failure is not None:
            raise self.failure

    @property
    def duplicate(self) -> bool:
        """Whether the message is a duplicate in each of its channels."""
        return bool(self.placings) and all(placing.duplicate for placing in self.placings)

    @property
    def positions(self) -> dict[str, str]:
        """The known positions of the message, by channel."""
        return {placing.channel: placing.position for placing in self.placings if placing.position is not None}

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers ``position`` and ``duplicate`` for the receipt, as far as they apply."""
        placed = [f"{placing.channel}={placing.position}" for placing in self.placings if placing.position is not None]
        pairs = [("position", " ".join(placed))] if placed else []
        return [*pairs, ("duplicate", "1")] if self.duplicate else pairs


def message_id_of(head: Head) -> str | None:
    """
    Return the message id of a publication, or ``None`` if it has none.

    Source: the protocol document, section "Message ids".

    :raises RemoteProtocolError: if the id is not 1 to 64 visible ASCII characters.
    """
    message_id = head.headers.get("message-id")
    if message_id is None or _MESSAGE_ID.fullmatch(message_id):
        return message_id
    raise RemoteProtocolError(f"message-id {message_id[:64]!a} is not 1 to 64 visible ASCII characters")


def filing_of(head: Head, *, wanted: bool) -> Filing | None:
    """
    Return how to store a publication, and where to put the outcomes. Return ``None`` if it needs neither: nobody asks,
    and it has neither an id nor ``store:no``.

    :param wanted: whether somebody asks for the outcomes.
    :raises RemoteProtocolError: if the message id is malformed.
    """
    message_id = message_id_of(head) if ID_LINE.search(head.raw) else None
    stored = not _STORE_LINE.search(head.raw) or head.headers.get("store") != "no"
    return Filing(message_id, stored) if wanted or message_id is not None or not stored else None
