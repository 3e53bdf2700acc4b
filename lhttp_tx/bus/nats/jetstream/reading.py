"""
Reads the history of channels from streams, with direct gets.

Any replica of a stream may answer a direct get, and a replica may lag behind. So the reader asks again until messages
that are known to exist are there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, final

from lhttp_tx.bus.nats.jetstream.asking import Found, Got, Outdated, ask, get, put
from lhttp_tx.bus.nats.jetstream.republished import REMOVED
from lhttp_tx.bus.nats.jetstream.streams import Stream
from lhttp_tx.bus.nats.link import Link
from lhttp_tx.codec.positions import mark
from lhttp_tx.codec.text import is_text
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.values import Page, Stored

__all__ = ["Reader", "shown_offset", "stored"]

_BATCH = 1_000
_BATCH_SIZE = 1_048_576
"""The most messages, and the most bytes, that one direct get asks for."""

_NEWEST_SIZE = 67_108_864
"""The most bytes that are read to find the newest messages of a channel."""

_MAX_READING = 8
"""The most direct gets that are under way at the same time."""

_PATIENCE = 100
_WAIT = 0.02
"""How often a replica that lags behind is asked, and the seconds in between. Also how often a removal is tried."""

_PROBES = 40
"""The most direct gets to find the place where the newest messages begin."""


_Asked: TypeAlias = tuple[str, int, int, int]
_Read: TypeAlias = Callable[..., Coroutine[Any, Any, Page]]


class _Behind(Exception):
    """A replica lags behind the leader of its stream."""


def shown_offset(found: Found) -> int:
    """
    Return the offset that the next message has as ``after``. For a removal marker, this is the offset of the last
    message that was removed.
    """
    removed = found.headers.get(REMOVED)
    return found.offset if removed is None else int(removed)


def stored(found: Found, after: int, channel: str) -> Stored:
    """
    Return a message of a stream as subscribers get it.

    :param found: the message.
    :param after: the offset of the message before it in the channel, or 0.
    :param channel: its channel.
    """
    binary = found.headers.get("Lhttp-Frame") == "binary" or not is_text(found.payload)
    return Stored(found.offset, mark(found.payload, found.offset, after, channel), binary)


@final
class Reader:
    """Reads pages. Callers that ask for the same page at the same time share one request."""

    def __init__(self, link: Callable[[], Link | None], known: Callable[[Stream, str], int]) -> None:
        """
        :param link: returns the link to use; ``None`` if there is none.
        :param known: returns the largest known offset of a channel in a stream; 0 if none is known.
        """
        self._link = link
        self._known = known
        self._room = asyncio.Semaphore(_MAX_READING)
        self._removals: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._shared: dict[tuple[object, ...], asyncio.Task[Page]] = {}

    async def read(self, stream: Stream, channel: str, after: int, limit: int, size: int) -> Page:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.read`."""
        return await self._share(stream, channel, ("read", after, limit, size), self._read)

    async def newest(self, stream: Stream, channel: str, before: int, limit: int, size: int) -> Page:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.newest`."""
        return await self._share(stream, channel, ("newest", before, limit, size), self._newest)

    async def _share(self, stream: Stream, channel: str, what: _Asked, read: _Read) -> Page:
        removal = self._removals.get((stream.name, channel))
        if removal is not None:
            await asyncio.wait((removal,))
        epoch = stream.epoch
        known = self._known(stream, channel)
        key = stream.name, epoch, channel, what, known
        task = self._shared.get(key)
        if task is None:
            task = self._shared[key] = asyncio.ensure_future(self._patiently(stream, channel, what, read))
            task.add_done_callback(lambda task: self._ended(key, task))
        page = await asyncio.shield(task)
        if stream.epoch != epoch:
            raise HistoryUnavailable("the history was reset, try again")
        return page

    def _ended(self, key: tuple[object, ...], task: asyncio.Task[Page]) -> None:
        self._shared.pop(key, None)
        if not task.cancelled():
            task.exception()  # asyncio logs errors that nobody has retrieved

    async def _patiently(self, stream: Stream, channel: str, what: _Asked, read: _Read) -> Page:
        """Read until the page reaches the known offset, or the leader says that this message is gone."""
        known = self._known(stream, channel)
        for _ in range(_PATIENCE):
            with contextlib.suppress(_Behind):
                page: Page = await read(stream, channel, *what[1:])
                if page.tip >= known or await self._last_of_leader(stream, stream.subject_of(channel)) <= page.tip:
                    return page  # or the message is gone
            await asyncio.sleep(_WAIT)
        raise HistoryUnavailable("the history store is behind, try again later")

    async def last_offset(self, stream: Stream, subject: str) -> int:
        """
        Return the offset of the newest message to *subject*; 0 if there is none. Replicas that lag behind do not affect
        the 0.
        """
        found = await self.last(stream, subject)
        return await self._last_of_leader(stream, subject) if found is None else found.offset

    async def _last_of_leader(self, stream: Stream, subject: str) -> int:
        """Ask the leader for the offset of the newest message to *subject*; 0 if there is none."""
        answer = await ask(self._link(), f"STREAM.MSG.GET.{stream.name}", {"last_by_subj": subject})
        if "error" not in answer:
            return int(answer["message"]["seq"])
        if answer["error"].get("code") == 404:
            return 0
        raise HistoryUnavailable(f"JetStream: {answer['error'].get('description')}")

    # Direct gets

    async def get(self, stream: Stream, **body: Any) -> Got:
        """Make one direct get; see :func:`lhttp_tx.bus.nats.jetstream.asking.get`."""
        async with self._room:
            return await get(self._link(), stream.name, body)

    async def behind(self, stream: Stream, subject: str, start: int, limit: int, size: int, *, spare: int = 0) -> Got:
        """
        Return messages from a sequence number on.

        :param stream: the stream.
        :param subject: their subject, or a wildcard.
        :param start: the smallest sequence number.
        :param limit: the most messages.
        :param size: the bytes of payloads after which no more are fetched.
        :param spare: the number of messages at the beginning whose bytes do not count.
        """
        start = max(start, 1)
        got = await self.get(
            stream, seq=start, next_by_subj=subject, batch=min(limit, _BATCH), max_bytes=min(size, _BATCH_SIZE)
        )
        found, total = got
        taken = sum(len(each.payload) for each in found[spare:])
        while 0 < len(found) < min(limit, total) and taken < size:
            more = await self.get(
                stream,
                seq=found[-1].offset + 1,
                next_by_subj=subject,
                batch=min(limit - len(found), _BATCH),
                max_bytes=min(size - taken, _BATCH_SIZE),
            )
            if not more.found:
                return Got(found, len(found))
            total = len(found) + more.total
            found += more.found
            taken = sum(len(each.payload) for each in found[spare:])
        return Got(found, total)

    async def last(self, stream: Stream, subject: str, up_to: int = 0) -> Found | None:
        """
        Return the newest message to *subject*; ``None`` if there is none.

        :param up_to: the largest sequence number; 0: any.
        """
        body: dict[str, Any] = {"multi_last": [subject], "batch": 1}
        if up_to:
            body["up_to_seq"] = up_to
        found = (await self.get(stream, **body)).found
        return found[0] if found else None

    async def remove(self, stream: Stream, channel: str) -> None:
        """Remove the history of a channel. Callers that read it from now on wait until it is removed."""
        key = stream.name, channel
        before = self._removals.get(key)
        removal = self._removals[key] = asyncio.ensure_future(self._remove(stream, channel, before))
        try:
            await removal
        finally:
            if self._removals.get(key) is removal:
                del self._removals[key]

    async def _remove(self, stream: Stream, channel: str, before: asyncio.Task[None] | None) -> None:
        """Append a marker with the offset of the last message, then remove all messages before the marker."""
        if before is not None:
            await asyncio.wait((before,))
        subject = stream.subject_of(channel)
        for _ in range(_PATIENCE):
            last = await self.last(stream, subject)
            if last is None or REMOVED in last.headers:
                return
            headers = {REMOVED: str(last.offset), "Nats-Expected-Last-Subject-Sequence": str(last.offset)}
            with contextlib.suppress(Outdated):  # a message was appended in the meantime
                offset = await put(self._link(), subject, headers)
                answer = await ask(self._link(), f"STREAM.PURGE.{stream.name}", {"filter": subject, "seq": offset})
                if "error" in answer:
                    raise HistoryUnavailable(f"JetStream: {answer['error'].get('description')}")
                return
        raise HistoryUnavailable("too much is published to the channel to remove its history, try again later")

    # Pages

    async def _read(self, stream: Stream, channel: str, after: int, limit: int, size: int) -> Page:
        subject = stream.subject_of(channel)
        tip = stream.tip
        found, total = await self.behind(stream, subject, after, limit + 1, size, spare=1)
        if not found:
            return await self._empty(stream, subject, after, tip)
        complete = len(found) == total
        removed = found[0].headers.get(REMOVED)
        before, floor = shown_offset(found[0]), found[0].offset
        hidden = 1
        if floor == after:
            reaches = True
        elif removed is not None:
            reaches = after >= int(removed)
        else:
            reaches, before = await self._reaches(stream, subject, total, after)
            floor = after
            hidden = max(total - stream.retention.messages, 0)  # these are kept only for their offsets
            if hidden:
                before = floor = found[min(hidden, len(found)) - 1].offset
        found, total = found[hidden:], total - hidden
        messages = _within(channel, found, before, limit, size)
        if complete and len(messages) == total:
            return Page(messages, reaches, total, max(messages[-1].offset if messages else 0, floor, after))
        newest = await self.last(stream, subject)
        return Page(messages, reaches, total, max(newest.offset if newest is not None else 0, after))

    async def _empty(self, stream: Stream, subject: str, after: int, tip: int) -> Page:
        """
        Return the page of a channel that has no message at *after* or later.

        :param tip: the largest known sequence number of the stream before this was found.
        """
        last = await self._last_of_leader(stream, subject)
        if last >= max(after, 1):
            raise _Behind
        if last and after <= tip:
            return Page([], True, 0, tip)
        state = await stream.look()
        valid = after <= state.last
        reaches = valid and (last > 0 or state.young <= after + 1)
        return Page([], reaches, 0, max(after, tip) if valid else tip)

    async def _reaches(self, stream: Stream, subject: str, total: int, after: int) -> tuple[bool, int]:
        """
        Return whether no message after *after* is lost, and the offset of the message before the first of them, or 0.

        :param total: the number of messages after *after*.

        JetStream removes the oldest messages first: those of a channel that has too many, and all that are too old.
        """
        before = await self.last(stream, subject, after) if after else None
        if before is not None:
            return True, shown_offset(before)
        if total > stream.retention.messages:
            return False, 0
        return (await stream.look()).young <= after + 1, 0

    async def _newest(self, stream: Stream, channel: str, before: int, limit: int, size: int) -> Page:
        subject = stream.subject_of(channel)
        tip = stream.tip
        oldest = await self.behind(stream, subject, 1, 1, 1)
        last = await self.last(stream, subject)
        if not oldest.found or last is None:
            return await self._empty(stream, subject, 0, tip)
        behind = (await self.behind(stream, subject, before, 1, 1)).total if before else 0
        newest = await self.last(stream, subject, before - 1) if before > 1 else None if before else last
        removed = oldest.found[0].headers.get(REMOVED) is not None
        hidden = 1 if removed else max(oldest.total - stream.retention.messages, 0)
        count = oldest.total - behind - hidden
        if newest is None or count <= 0:
            return Page([], True, 0, last.offset)
        ends = oldest.found[0].offset, newest.offset
        start = await self._start_of(stream, subject, ends, (count + hidden, behind), limit + 1)
        got = await self.behind(stream, subject, start, count + hidden, _NEWEST_SIZE)
        found = [each for each in got.found if not before or each.offset < before]
        spare = hidden if start == ends[0] else 1  # the first message serves only as the offset before the second
        earlier, shown = shown_offset(found[spare - 1]) if found and spare else 0, found[spare:]
        return Page(_backward(channel, shown, earlier, limit, size), True, count, last.offset)

    async def _start_of(
        self, stream: Stream, subject: str, ends: tuple[int, int], counts: tuple[int, int], wanted: int
    ) -> int:
        """
        Return a sequence number from which on a channel has at least *wanted* messages, but not many more.

        :param ends: the sequence numbers of the oldest message, and of the newest one that counts.
        :param counts: the number of messages between these, both included, and the number after these.
        """
        (low, high), (count, behind) = ends, counts
        if count <= 2 * wanted + 100:
            return low
        few = 1  # messages from *high* on
        for _ in range(_PROBES):
            share = (count - wanted * 1.3 - 20) / max(count - few, 1)
            middle = min(max(low + int((high - low) * share), low + 1), high - 1)
            if middle <= low:
                break
            number = (await self.behind(stream, subject, middle, 1, 1)).total - behind
            if wanted <= number <= 2 * wanted + 100:
                return middle
            if number < wanted:
                high, few = middle, max(number, 1)
            else:
                low, count = middle, number
        return low


def _within(channel: str, found: list[Found], before: int, limit: int, size: int) -> list[Stored]:
    """Return the first messages within *limit* and *size*, with the headers ``offset`` and ``after``."""
    messages: list[Stored] = []
    room = 0
    for each in found[:limit]:
        messages.append(stored(each, before, channel))
        before = each.offset
        room += len(messages[-1].payload)
        if room >= size:
            break
    return messages


def _backward(channel: str, found: list[Found], before: int, limit: int, size: int) -> list[Stored]:
    """Return the last messages that fit, oldest first, each marked with the offset of the one before it."""
    messages: list[Stored] = []
    room = 0
    for index in range(len(found) - 1, max(len(found) - limit, 0) - 1, -1):
        messages.append(stored(found[index], found[index - 1].offset if index else before, channel))
        room += len(messages[-1].payload)
        if room >= size:
            break
    messages.reverse()
    return messages
