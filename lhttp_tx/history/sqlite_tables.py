"""
Changes the tables of a history in SQLite, in the writer's thread. One transaction has all writes that wait.

The row of a channel has its totals. Each transaction updates it once. If SQLite raises an error, the caller calls
:meth:`~lhttp_tx.history.sqlite_rows.Rows.undo` and tries again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, NamedTuple

from lhttp_tx.history.sqlite_rows import CHANNEL_COST, CHUNK, COLUMNS, MESSAGE_COST, ROWS, Row, Rows
from lhttp_tx.history.values import Retention

__all__ = ["AHEAD", "Tables", "Write", "slack_of"]

AHEAD = 1_000_000
"""The number of offsets that are reserved after the stored ones. A start after a crash skips them."""

_IDS = 65_536
"""
The most message ids that are kept for the next start. :class:`lhttp_tx.history.ids.MessageIds` has room for about as
many.
"""

_GAPS = 100
"""The most crashes whose skipped offsets are remembered separately."""


class Write(NamedTuple):
    """
    Publications of one channel to write, or an order to remove all messages of the channel.

    :ivar channel: the channel.
    :ivar retention: the history class of the channel.
    :ivar first: the offset of the first message.
    :ivar payloads: the messages; an empty list removes all messages of the channel.
    :ivar binary: whether they are binary.
    :ivar time: the time of the publications, in seconds since 1970.
    :ivar message_id: the id of the only message; ``None`` if it has none.
    """

    channel: str
    retention: Retention
    first: int
    payloads: list[bytes]
    binary: bool
    time: float
    message_id: str | None


class Tables(Rows):
    """Writes to one file."""

    def __init__(self, connection: sqlite3.Connection, *, size: int, window: float) -> None:
        """
        :param connection: the connection that writes.
        :param size: the most bytes of all messages and channels together.
        :param window: seconds for which message ids are kept.
        """
        super().__init__(connection)
        self._size = size
        self._window = window

    # Start and end

    def begin(self) -> int:
        """
        Mark the file as in use, and return the offset after which new ones begin.

        After a crash, skip the offsets that subscribers may have seen, but that are not stored.
        """
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        tip = self._get("tip")
        if self.reserved > tip:
            execute("INSERT OR REPLACE INTO gap VALUES (?, ?)", (tip + 1, self.reserved))
            tip = self.reserved + 1
            old = execute("SELECT first, last FROM gap ORDER BY first DESC LIMIT -1 OFFSET ?", (_GAPS,)).fetchall()
            if old:
                execute("DELETE FROM gap WHERE first <= ?", (old[0][0],))
                self._set(horizon=old[0][1] + 1)
        self._set(tip=tip, reserved=tip + AHEAD)
        execute("COMMIT")
        self.reserved = tip + AHEAD
        return tip

    def end(self) -> None:
        """
        Mark the file as closed: all offsets that subscribers have seen are stored. Move the write-ahead log into the
        file.
        """
        self.connection.execute("UPDATE meta SET value = (SELECT value FROM meta WHERE key='tip') WHERE key='reserved'")
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def lose(self, tip: int) -> None:
        """Mark all messages up to *tip* as lost, if the file does not have the last of them."""
        if self.tip < tip:
            self._set(tip=tip, forgotten=tip, horizon=tip, reserved=tip + AHEAD)
            self.undo()

    def recent(self, oldest: float) -> list[tuple[str, str, int, float]]:
        """Return channel, message id, offset and time of all messages with an id that are newer than *oldest*."""
        return self.connection.execute(
            "SELECT channel, id, offset, time FROM recent WHERE time > ? ORDER BY offset", (oldest,)
        ).fetchall()

    # Writing

    def write(self, writes: Iterable[Write]) -> None:
        """
        Commit *writes* in one transaction, and delete messages beyond the limits.

        :raises sqlite3.Error: if this fails. Call :meth:`~lhttp_tx.history.sqlite_rows.Rows.undo` then.
        """
        if self._is_stale:
            self._load()
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        rows: list[Any] = []
        recent: list[tuple[int, str, str, float]] = []
        tip = 0
        for channel, retention, first, payloads, binary, time, message_id in writes:
            row = self._rows.get(channel) or self._find(channel, retention, new=bool(payloads))
            if row is None:
                continue
            self._dirty[row.id] = row
            if not payloads:
                self._insert("INSERT INTO message VALUES", 5, rows)
                rows = []
                self._clear(row)
                continue
            if not row.count:
                self._quiet -= 1
            row.retention = retention
            count = len(payloads)
            size = sum(map(len, payloads)) + MESSAGE_COST * count
            row.count += count
            row.size += size
            self._taken += size
            tip = row.last = first + count - 1
            row.age = retention.age
            if row.due is None or row.due > time + row.age:
                row.due = time + row.age
                row.is_late = True
            if message_id is not None:
                recent.append((first, channel, message_id, time))
            if count == 1:
                rows += (first, row.id, time, binary, payloads[0])
            else:
                for offset, payload in enumerate(payloads, first):
                    rows += (offset, row.id, time, binary, payload)
        self._insert("INSERT INTO message VALUES", 5, rows)
        for row in self._dirty.values():
            self._trim(row)
        self._flush()
        while self._taken > self._size and self._make_room():
            pass
        if recent:
            connection.executemany("INSERT OR REPLACE INTO recent VALUES (?, ?, ?, ?)", recent)
            self._ids += len(recent)
        if tip:
            reserved = self.reserved if self.reserved - tip > AHEAD // 2 else tip + AHEAD
            self._set(tip=tip, reserved=reserved)
        connection.execute("COMMIT")
        if tip:
            self.reserved = reserved
        while len(self._rows) > ROWS:
            self._rows.popitem(last=False)

    def _clear(self, row: Row) -> None:
        if row.count:
            self.connection.execute("DELETE FROM message WHERE channel = ?", (row.id,))
            self._drop(row, row.last, row.count, row.size)

    def _trim(self, row: Row) -> None:
        """
        Delete messages of a channel beyond the limits of its class.

        To delete many messages at once, a channel may have some more messages than its class allows. Readers skip
        these. If the class limits bytes, an eighth of the limit is freed.
        """
        retention = row.retention
        if retention is None:
            return
        excess = row.count - retention.messages
        if excess > slack_of(retention.messages):
            last, count, size = self.connection.execute(
                "SELECT max(offset), count(*), sum(length(payload)) FROM "
                "(SELECT offset, payload FROM message WHERE channel = ? ORDER BY offset LIMIT ?)",
                (row.id, excess),
            ).fetchone()
            self._cut(row, last, count, size + MESSAGE_COST * count)
        if retention.size:
            goal = row.size if row.size <= retention.size else retention.size - retention.size // 8
            while row.size > goal:
                last = count = size = 0
                for offset, _, length, _ in self._oldest("WHERE channel = ?", row.id):
                    left = row.size - size
                    if left <= goal or (left <= retention.size and count + 1 == row.count):
                        goal = left
                        break
                    last, count, size = offset, count + 1, size + length + MESSAGE_COST
                if not count:
                    break
                self._cut(row, last, count, size)

    # Cleaning up

    def _make_room(self) -> bool:
        """Delete some of the oldest messages, or some channels without messages. Return whether there were any."""
        if self._quiet * CHANNEL_COST > self._size // 2 and self._forget_channels():
            return True
        execute = self.connection.execute
        last = taken = 0
        dropped: dict[int, tuple[int, int, int]] = {}
        for offset, channel, length, _ in self._oldest(""):
            if self._taken - taken <= self._size:
                break
            _, count, size = dropped.get(channel, (0, 0, 0))
            dropped[channel] = offset, count + 1, size + length + MESSAGE_COST
            last = offset
            taken += length + MESSAGE_COST
        if not dropped:
            return self._forget_channels()
        execute("DELETE FROM message WHERE offset <= ?", (last,))
        for channel, what in dropped.items():
            row = self._by_id(channel)
            self._dirty[channel] = row
            self._drop(row, *what)
        self._flush()
        return True

    def _forget_channels(self) -> bool:
        execute = self.connection.execute
        found = execute("SELECT id, name, last FROM channel WHERE count = 0 ORDER BY last LIMIT ?", (CHUNK,)).fetchall()
        for number, name, last in found:
            execute("DELETE FROM channel WHERE id = ?", (number,))
            self._rows.pop(name, None)
            self._quiet -= 1
            self._taken -= CHANNEL_COST
            self._forgotten = max(self._forgotten, last)
        self._set(forgotten=self._forgotten)
        return bool(found)

    def sweep(self, now: float) -> bool:
        """
        Delete some messages that are too old, and free pages of the file. Return whether there may be more to do.

        :param now: the time in seconds since 1970.
        """
        if self._is_stale:
            self._load()
        execute = self.connection.execute
        due = execute(f"SELECT {COLUMNS} FROM channel WHERE due <= ? ORDER BY due LIMIT 64", (now,)).fetchall()  # noqa: S608
        oldest = execute("SELECT offset, time FROM recent ORDER BY offset LIMIT ?", (CHUNK,)).fetchall()
        too_many = self._ids - _IDS
        passed = [
            offset for index, (offset, time) in enumerate(oldest) if time <= now - self._window or index < too_many
        ]
        (free,), (pages,) = (execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count"))
        wasteful = free > CHUNK and free > pages // 4
        if not due and not passed and not wasteful:
            return False
        execute("BEGIN IMMEDIATE")
        for values in due:
            self._expire(self._rows.get(values[1]) or Row(*values), now)
        self._flush()
        if passed:
            execute("DELETE FROM recent WHERE offset <= ?", (passed[-1],))
            self._ids -= len([offset for offset, _ in oldest if offset <= passed[-1]])
        if wasteful:
            execute(f"PRAGMA incremental_vacuum({CHUNK})").fetchall()
        execute("COMMIT")
        (left,) = execute("PRAGMA freelist_count").fetchone()
        return bool(due or passed or left < free)

    def _expire(self, row: Row, now: float) -> None:
        """Delete some messages of a channel that are too old, and set the time of the next check."""
        last = count = size = 0
        found = self._oldest("WHERE channel = ?", row.id)
        row.due = found[-1][3] + row.age if found else None
        row.is_late = True
        for offset, _, length, time in found:
            if time > now - row.age:
                row.due = time + row.age
                break
            last, count, size = offset, count + 1, size + length + MESSAGE_COST
        if count:
            self._cut(row, last, count, size)
        self._dirty[row.id] = row


def slack_of(messages: int) -> int:
    """Return the number of messages beyond the limit of a class that may be in the file."""
    return messages // 8 + 32
