"""
The results of publications, and pages of histories.

Used by :mod:`lhttp_tx.client.requests` and :mod:`lhttp_tx.client.publisher`. This module uses no connection.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict, final

from lhttp_tx.codec.headers import HeaderPairs, pairs_of
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.multipart import Part, parse_offsets, split_parts
from lhttp_tx.codec.positions import format_position, parse_position
from lhttp_tx.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["HistoryPage", "NextPage", "Published", "channel_values", "history_page", "identified", "published"]

_MESSAGE_ID = re.compile(r"[!-~]{1,64}")


@final
@dataclass(frozen=True, slots=True)
class Published:
    """
    The result of a publication.

    :ivar message_id: the message id; ``None`` if the publication has none.
    :ivar positions: the position in each channel with history, by channel.
    :ivar duplicate: whether the server already had a message with this id in all of the channels. If so, it has not
        published this one, and *positions* are those of the first.
    """

    message_id: str | None = None
    positions: Mapping[str, str] = field(default_factory=dict)
    duplicate: bool = False


class NextPage(TypedDict, total=False):
    """The arguments of :meth:`lhttp_tx.client.client.Client.history` that ask for the page after another one."""

    limit: int
    since: str
    before: str
    order: Literal["oldest", "newest"]


@final
@dataclass(frozen=True, slots=True)
class HistoryPage:
    """
    A page of the history of a channel: a sequence of messages, in the requested order.

    :ivar channel: the channel.
    :ivar messages: the messages, as subscribers get them.
    :ivar position: the position to pass as ``since`` for the next page. It is that of the last message of the page if
        there are more, else that of the newest message of the channel, or a later one. This is always so with
        ``before`` or ``order="newest"``.
    :ivar more: whether there are more messages in the requested direction.
    :ivar missed: whether messages after the requested ``since`` are missing, because the history does not reach back
        that far.
    :ivar next: the arguments that ask for the next page in the requested direction, as in ``await
        client.history(channel, **page.next)``; ``None`` after the last page.
    """

    channel: str
    messages: tuple[Message, ...]
    position: str
    more: bool
    missed: bool = False
    next: NextPage | None = None

    @property
    def start(self) -> str | None:
        """The position of the oldest message, to pass as ``before`` for the next page; ``None`` without messages."""
        if not self.messages:
            return None
        return min((self.position_of(message) for message in self.messages), key=lambda found: parse_position(found)[1])

    def position_of(self, message: Message) -> str:
        """Return the position of *message*, which must be one of this page."""
        return format_position(parse_position(self.position)[0], int(message.headers.get("offset", "0")))

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    def __getitem__(self, index: int) -> Message:
        return self.messages[index]


def channel_values(value: str | None) -> dict[str, str]:
    """Return the positions in the header ``position`` of a receipt, by channel. Malformed ones are ignored."""
    pairs = [word.rpartition("=") for word in (value or "").split()]
    return {channel: position for channel, equals, position in pairs if equals and _is_position(position)}


def _is_position(text: str) -> bool:
    try:
        parse_position(text)
    except RemoteProtocolError:
        return False
    return True


def identified(headers: HeaderPairs | dict[str, str], message_id: str | None) -> tuple[HeaderPairs, str]:
    """
    Return the headers of a publication with its message id, and the id.

    :param message_id: the id; by default, that in *headers*, or a random one. If others could guess it, they could
        publish a message with this id first, and the server would take this one for a duplicate.
    :raises LocalProtocolError: if the id is not 1 to 64 visible ASCII characters, or *headers* contains another one.
    """
    pairs = pairs_of(headers)
    given = next((value for name, value in pairs if name.lower() == "message-id"), None)
    if given is not None and message_id not in (None, given):
        raise LocalProtocolError("the header message-id and the argument message_id differ")
    found = given or message_id
    if found is None:
        found = secrets.token_urlsafe(12)
    elif not _MESSAGE_ID.fullmatch(found):
        raise LocalProtocolError(f"message id {found[:80]!a} is not 1 to 64 visible ASCII characters")
    return (pairs if given is not None else [*pairs, ("message-id", found)]), found


def published(receipt: Message, message_id: str) -> Published:
    """Return the result in the receipt of a publication."""
    positions = channel_values(receipt.headers.get("position"))
    return Published(message_id, positions, receipt.headers.get("duplicate") == "1")


def history_page(reply: Message, channel: str, asked: NextPage | None = None) -> HistoryPage:
    """
    Return the page in the answer to a ``history`` message.

    :param asked: the arguments that have asked for it; ``None``: the page does not tell how to ask for the next one.
    :raises RemoteProtocolError: if the answer is malformed.
    """
    headers = reply.headers
    position, offsets = headers.get("position", ""), headers.get("multipart")
    parse_position(position)
    parts = () if offsets is None else split_parts(parse_offsets(offsets), reply.body)
    messages = tuple(map(_message, parts))
    page = HistoryPage(channel, messages, position, headers.get("more") == "1", headers.get("missed") == "1")
    return replace(page, next=_next_page(page, asked))


def _next_page(page: HistoryPage, asked: NextPage | None) -> NextPage | None:
    if asked is None or page.start is None or not page.more:
        return None
    same: NextPage = {"limit": asked["limit"], "order": asked["order"]}
    if "before" in asked or asked["order"] == "newest":
        return {**same, "before": page.start}
    return {**same, "since": page.position}


def _message(part: Part) -> Message:
    pairs = list(part.headers)
    names = [name.lower() for name, _ in pairs]
    if "command" not in names:
        raise RemoteProtocolError("a message of the history has no command")
    _, command = pairs.pop(names.index("command"))  # the server's comes first; a publisher may have written others
    try:
        part.body.decode("utf-8")
        return Message(command, pairs, part.body)
    except UnicodeDecodeError:
        return Message(command, pairs, part.body, binary=True)
    except LocalProtocolError as error:
        raise RemoteProtocolError(f"a message of the history is malformed: {error.reason}") from error
