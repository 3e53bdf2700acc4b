"""
The command ``history``: a client asks for a part of the history of a channel.

Source: the protocol document, section "History".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate, repeat
from operator import add
from typing import Any, cast

from twisted.internet.defer import Deferred

from lhttp_tx.codec.channels import check_channel
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.multipart import join_raw_parts
from lhttp_tx.codec.positions import format_position, parse_position
from lhttp_tx.engine.awaiting import as_deferred
from lhttp_tx.engine.handling import Handler
from lhttp_tx.engine.processors import Processor
from lhttp_tx.engine.request import Request
from lhttp_tx.engine.session import Session
from lhttp_tx.errors import Refused, RemoteProtocolError
from lhttp_tx.history.archive import Archive
from lhttp_tx.history.pages import PAGE_SIZE, PAYLOAD, checked, size_of
from lhttp_tx.history.turns import rework_of
from lhttp_tx.history.values import Page, Retention, Stored
from lhttp_tx.interfaces import MaybeAwaitable

__all__ = ["COMMAND", "HistoryProcessor"]

COMMAND = "history"
"""The command."""

_LIMIT = 100
"""The most messages of an answer if the request has no ``limit``."""

_MAX_LIMIT = 500
"""The most messages of an answer. The head of the answer has an offset for each."""

_CONVERTED_LIMIT, _CONVERTED_COST = 64, 131_072
"""
The most messages of an answer that is converted to JSON or Protocol Buffers, and the most that they may cost together:
see :func:`~lhttp_tx.history.turns.rework_of`. An answer is converted in one go, and everybody waits meanwhile.
"""

_PART_SIZE = 16
"""The most bytes that a message needs in the answer in addition to its own, because its command becomes a header."""

_START = b"LHTTP/1.0 "
"""The beginning of a message, before the command."""

_HEAD_SIZE = 8_192
"""The bytes of an answer that are reserved for its head."""


class HistoryProcessor(Processor):
    """Answers ``history`` with messages of the channel in the header ``channel``, if the client may subscribe to it."""

    command = COMMAND

    def __init__(
        self, archive: Archive, limits: Limits, check_access: Callable[[Session, str], MaybeAwaitable]
    ) -> None:
        """
        :param archive: the histories.
        :param limits: the limits of a message, which apply to the answer.
        :param check_access: raises an exception, or returns an awaitable that fails, if a client may not subscribe to a
            channel.
        """
        self._archive = archive
        self._size = max(limits.message_size - _HEAD_SIZE, 1)
        self._check_access = check_access

    def on_message(self, request: Request) -> MaybeAwaitable:
        """
        Answer a request.

        :raises RemoteProtocolError: if the request is malformed.
        :raises Refused: if the client may not subscribe to the channel (403), the channel has no history (404), or the
            position in ``before`` belongs to another epoch (410).
        :raises HistoryUnavailable: if the store cannot be read.
        """
        channel = request.headers.get("channel")
        if channel is None:
            raise RemoteProtocolError("a history message needs the header channel")
        check_channel(channel)
        question = _Question(request)
        if request.session.converts:
            question.limit = min(question.limit, _CONVERTED_LIMIT)
        waiting = self._check_access(request.session, channel)
        if waiting is None:
            return self._wait(None, request, channel, question)
        asking: Deferred[Any] = as_deferred(waiting, self)
        return asking.addCallback(self._wait, request, channel, question)

    def _wait(self, _: object, request: Request, channel: str, question: _Question) -> MaybeAwaitable:
        """Wait until the client has read earlier answers."""
        asker = cast(Handler, request.session)
        if asker.unsent <= PAGE_SIZE:
            return self._take_turns(None, request, channel, question)
        return asker.unhurried(asker.drained()).addCallback(self._take_turns, request, channel, question)

    def _take_turns(self, _: object, request: Request, channel: str, question: _Question) -> MaybeAwaitable:
        """Wait until it is this client's turn to read."""
        if request.session.closed:
            return None
        waiting = self._archive.turns.wait(request.session)
        if waiting is None:
            return self._read(None, request, channel, question)
        return cast(Handler, request.session).unhurried(waiting).addCallback(self._read, request, channel, question)

    def _read(self, _: object, request: Request, channel: str, question: _Question) -> MaybeAwaitable:
        retention = self._archive.retention(channel)
        if retention is None:
            raise Refused(404, f"channel {channel!a} has no history")
        found = checked(self._ask(channel, retention, question))
        if isinstance(found, Deferred):
            return found.addCallback(self._answer, request, channel, question)
        self._answer(found, request, channel, question)
        return None

    def _ask(self, channel: str, retention: Retention, question: _Question) -> Page | Deferred[Page]:
        store = self._archive.store
        question.epoch = epoch = store.epoch_of(retention)
        after, before = 0, 0
        if question.since is not None:
            if question.since[0] == epoch:
                after = question.since[1]
            else:
                question.missed = True
        if question.before is not None:
            if question.before[0] != epoch:
                raise Refused(410, "the history was reset after the position in before")
            before = max(question.before[1], 1)  # for a store, 0 means no position
        if question.newest_first or question.before is not None:
            return store.newest(channel, retention, before=before, limit=question.limit, size=self._size)
        return store.read(channel, retention, after=after, limit=question.limit, size=self._size)

    def _answer(self, page: Page, request: Request, channel: str, question: _Question) -> None:
        converts, messages = request.session.converts, page.messages[:: -1 if question.is_backward else 1]
        messages = self._fitting(messages, converts=converts)
        if question.is_backward:
            messages.reverse()
        rework = sum(rework_of([*map(PAYLOAD, messages)])) if converts else 0
        self._archive.turns.spend(size_of(page) + rework, len(page.messages), request.session)
        has_more = page.total > len(messages)
        offset = page.tip
        if has_more and messages and not question.is_backward:
            offset = messages[-1].offset
        if question.newest_first:
            messages.reverse()
        headers = [("channel", channel), ("position", format_position(question.epoch, offset))]
        if has_more:
            headers.append(("more", "1"))
        if question.missed or (question.since is not None and not page.reaches):
            headers.append(("missed", "1"))
        if request.receipt is not None:
            headers.append(("receipt-id", request.receipt))
        body = b""
        if messages:
            offsets, body = join_raw_parts(map(_part, map(PAYLOAD, messages)))
            headers.append(("multipart", offsets))
        request.session.send(Message(COMMAND, headers, body, binary=any(stored.binary for stored in messages)))

    def _fitting(self, messages: list[Stored], *, converts: bool) -> list[Stored]:
        """Return the first of *messages*: as many as fit into an answer, but at least one."""
        if not messages:
            return []
        payloads = [*map(PAYLOAD, messages)]
        sizes = map(add, map(len, payloads), repeat(_PART_SIZE))
        count = bisect_right([*accumulate(sizes)], self._size)
        if converts:
            count = min(
                count, bisect_right([*accumulate(map(add, map(len, payloads), rework_of(payloads)))], _CONVERTED_COST)
            )
        return messages[: max(count, 1)]


class _Question:
    """
    The request of a client.

    :ivar epoch: the epoch of the history; empty until it is known.
    :ivar limit: the most messages.
    :ivar since: the position after which the messages begin, or ``None``.
    :ivar before: the position before which the messages end, or ``None``.
    :ivar newest_first: whether the newest comes first.
    :ivar missed: whether *since* belongs to another epoch.
    """

    def __init__(self, request: Request) -> None:
        """:raises RemoteProtocolError: if a header is malformed, or two headers cannot be combined."""
        headers = request.headers
        limit, order = headers.get("limit"), headers.get("order")
        if limit is not None and not (limit.isascii() and limit.isdigit() and 0 < len(limit) <= 7 and int(limit)):
            raise RemoteProtocolError(f"limit {limit[:64]!a} is not a number of messages")
        if order not in (None, "newest", "oldest"):
            raise RemoteProtocolError(f"order {order[:64]!a} is neither newest nor oldest")
        self.limit = min(_LIMIT if limit is None else int(limit), _MAX_LIMIT)
        since, before = headers.get("since"), headers.get("before")
        if since is not None and before is not None:
            raise RemoteProtocolError("since and before cannot be combined")
        self.since = None if since is None else parse_position(since)
        self.before = None if before is None else parse_position(before)
        self.newest_first = order == "newest"
        if self.newest_first and self.since is not None:
            raise RemoteProtocolError("since and order:newest cannot be combined")
        self.missed = False
        self.epoch = ""

    @property
    def is_backward(self) -> bool:
        """Whether to read the newest messages, or those directly before a position."""
        return self.newest_first or self.before is not None


def _part(payload: bytes) -> bytes:
    """Return a message as a part: a header ``command`` replaces the start line, and the rest does not change."""
    if b"\r\n\r\n" not in payload:
        payload += b"\r\n"  # without a body, the blank line may be missing
    # It comes first, so that a header of this name that a publisher has written cannot be confused with it.
    return b"command:" + payload[len(_START) :]
