"""
Reads a history in SQLite in its own thread, on its own connection.

A page shows the state at one time: everything that was committed before, and nothing else.
"""

from __future__ import annotations

import sqlite3
import threading
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.sqlite_file import connect, explain, without_folder
from lhttp_tx.history.values import Page, Stored
from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["Reader", "Reading"]

_log = RationedLogger(__name__)

_WAITING = 10_000
"""The most requests that may wait at the same time."""

_FEW = 512
"""The number of messages whose age one query checks."""

_SMALL = 1_048_576
"""The most bytes of a channel that may be read even if fewer are asked for."""

_PATIENCE = 1.0
"""The most seconds that a read waits for a lock."""


class Reading(NamedTuple):
    """
    A request for a page.

    :ivar channel: the channel.
    :ivar messages: the most messages of the channel that are kept.
    :ivar oldest: a time in seconds since 1970. Messages of this time and earlier ones are too old.
    :ivar bound: an offset. The page has messages after it. If *newest*, it has messages before it, or any if it is 0.
    :ivar newest: whether to read the newest messages, rather than the oldest.
    :ivar limit: the most messages.
    :ivar size: a page that has reached this many bytes gets no further message.
    """

    channel: str
    messages: int
    oldest: float
    bound: int
    newest: bool
    limit: int
    size: int


class Reader:
    """A thread that reads."""

    def __init__(self, path: Path, reactor: Any) -> None:
        """
        :param path: the file. It must exist when something is read.
        :param reactor: the reactor, on whose thread the Deferreds fire.
        """
        self._path = path
        self._reactor = reactor
        self._queue: SimpleQueue[tuple[Reading, Deferred[Page]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="lhttp history reader", daemon=True)
        self._thread.start()

    def read(self, reading: Reading, result: Deferred[Page]) -> None:
        """
        Read a page, and fire *result* with it on the reactor's thread. If too many requests wait, fail *result* at
        once.
        """
        if self._queue.qsize() >= _WAITING:
            result.errback(HistoryUnavailable("too many clients are reading the history, try again later"))
            return
        self._queue.put((reading, result))

    def close(self) -> None:
        """Close the file until the next reading. This waits for a reading that is under way."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def stop(self) -> None:
        """Finish all readings, then end the thread. :meth:`join` waits for the end."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            reading, result = item
            fire: Callable[[Any], None] = result.callback
            outcome: Page | Failure
            try:
                with self._lock:
                    outcome = self._read(reading)
            except Exception as error:
                self.close()
                fire = result.errback
                text = explain(error, self._path)
                self._reactor.callFromThread(_log.error, "reading failed: {text}", text=text)
                outcome = Failure(HistoryUnavailable(without_folder(text, self._path)))
            self._reactor.callFromThread(fire, outcome)
        self.close()

    def _read(self, reading: Reading) -> Page:
        if self._connection is None:
            self._connection = connect(self._path, patience=_PATIENCE)
            self._connection.execute("PRAGMA query_only=1")
            self._connection.text_factory = bytes
        self._connection.execute("BEGIN")
        try:
            return read_page(self._connection.execute, reading)
        finally:
            self._connection.execute("COMMIT")


def read_page(execute: Callable[..., sqlite3.Cursor], reading: Reading) -> Page:
    """Read a page within a transaction."""
    tip, forgotten, horizon = execute(
        "SELECT (SELECT value FROM meta WHERE key = 'tip'), (SELECT value FROM meta WHERE key = 'forgotten'), "
        "(SELECT value FROM meta WHERE key = 'horizon')"
    ).fetchone()
    bound, newest = reading.bound, reading.newest
    found = execute("SELECT id, floor, count, size FROM channel WHERE name = ?", (reading.channel,)).fetchone()
    floor, count = forgotten, 0
    messages: list[Stored] = []
    total = 0
    if found is not None:
        channel, floor, count, size = found
        floor, count = _valid(execute, reading, channel, floor, count)
        low = floor if newest else max(bound, floor)
        high = bound if newest and bound else tip + 1
        messages, is_full = _messages(execute, reading, channel, low, high, size)
        total = len(messages)
        if is_full and low == floor and high > tip:
            total = count
        elif is_full:
            (total,) = execute(
                "SELECT count(*) FROM message WHERE channel = ? AND offset > ? AND offset < ?", (channel, low, high)
            ).fetchone()
    return Page(messages, newest or _is_known(execute, bound, floor, horizon, tip), total, tip)


def _valid(
    execute: Callable[..., sqlite3.Cursor], reading: Reading, channel: int, floor: int, count: int
) -> tuple[int, int]:
    """Return *floor* and *count* without messages that are still in the file, but are too many or too old."""
    excess = count - reading.messages
    if excess > 0:
        (floor,) = execute(
            "SELECT offset FROM message WHERE channel = ? ORDER BY offset LIMIT 1 OFFSET ?", (channel, excess - 1)
        ).fetchone()
        count -= excess
    while count:
        last, old, seen = execute(
            "SELECT max(offset) FILTER (WHERE time <= ?), count(*) FILTER (WHERE time <= ?), count(*) FROM "
            "(SELECT offset, time FROM message WHERE channel = ? AND offset > ? ORDER BY offset LIMIT ?)",
            (reading.oldest, reading.oldest, channel, floor, min(count, _FEW)),
        ).fetchone()
        if not old:
            break
        floor, count = last, count - old
        if old < seen:
            break
    return floor, count


def _messages(
    execute: Callable[..., sqlite3.Cursor], reading: Reading, channel: int, low: int, high: int, size: int
) -> tuple[list[Stored], bool]:
    """
    Return messages between two offsets, oldest first, and whether a limit of the request was reached.

    The query returns them as one row, for the reason in :mod:`lhttp_tx.history.sqlite_rows`.

    :param low: the messages have larger offsets.
    :param high: the messages have smaller offsets.
    :param size: the bytes of all messages of the channel. If they are few, one query is enough.
    """
    is_small = size <= max(reading.size, _SMALL)
    payloads = "group_concat(CAST(payload AS TEXT), '')" if is_small else "NULL"
    heads = "group_concat(offset), group_concat(length(payload)), group_concat(binary)"
    order = "DESC" if reading.newest else "ASC"
    found = execute(
        f"SELECT {heads}, {payloads} FROM (SELECT offset, payload, binary FROM message "  # noqa: S608
        f"WHERE channel = ? AND offset > ? AND offset < ? ORDER BY offset {order} LIMIT ?)",
        (channel, low, high, reading.limit),
    ).fetchone()
    if found[0] is None:
        return [], False
    offsets, lengths, binaries = ([*map(int, column.split(b","))] for column in found[:3])
    ends = [*accumulate(lengths)]
    count = min(bisect_left(ends, reading.size) + 1, len(ends))
    joined = found[3]
    if not is_small:
        (joined,) = execute(
            "SELECT group_concat(CAST(payload AS TEXT), '') FROM (SELECT payload FROM message "  # noqa: S608
            f"WHERE channel = ? AND offset BETWEEN ? AND ? ORDER BY offset {order})",
            (channel, min(offsets[0], offsets[count - 1]), max(offsets[0], offsets[count - 1])),
        ).fetchone()
    assert len(joined) == ends[-1 if is_small else count - 1], "the messages are not those that were counted"
    pieces = [joined[start:end] for start, end in zip([0, *ends], ends[:count], strict=False)]
    messages = [*map(Stored, offsets[:count], pieces, map(bool, binaries))]
    if reading.newest:
        messages.reverse()
    return messages, count >= reading.limit or ends[count - 1] >= reading.size


def _is_known(execute: Callable[..., sqlite3.Cursor], after: int, floor: int, horizon: int, tip: int) -> bool:
    """Return whether no message after *after* is lost: none was dropped, and none was lost in a crash."""
    if after == 0:
        return floor == 0
    if not max(floor, horizon) <= after <= tip:
        return False
    gap = execute("SELECT last FROM gap WHERE first <= ? ORDER BY first DESC LIMIT 1", (after,)).fetchone()
    return gap is None or after > gap[0]
