"""
Reads and changes the rows of a history in SQLite, one transaction after another.

A copy of some rows is kept in memory. It is correct as long as every transaction succeeds. After a failed one, the rows
are read again.

For each row of a result, and for each statement, the thread releases Python's global lock and has to get it back from
the reactor's thread. If the reactor is busy, this takes milliseconds. So one statement writes many rows here, and one
row of a query has many messages.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from typing import Any, final

from lhttp_tx.history.values import Retention

__all__ = ["CHANNEL_COST", "CHUNK", "COLUMNS", "MESSAGE_COST", "ROWS", "Row", "Rows"]

MESSAGE_COST = 64
CHANNEL_COST = 300
"""Bytes of a message and of a channel in the file, in addition to payload and name. Rounded up."""

ROWS = 10_000
"""The most channels whose rows are kept in memory."""

CHUNK = 512
"""The most rows that one step of cleaning up handles."""

_TOGETHER = tuple(2**power for power in range(7, -1, -1))
"""The numbers of rows that one statement may write, largest first. SQLite before 2020 accepts only 999 values."""


@final
class Row:
    """
    A row of the table of channels. It has the columns as attributes, and also:

    :ivar retention: the history class of the channel; ``None`` if it is not known.
    :ivar is_late: whether ``age`` and ``due`` must be written, too.
    """

    __slots__ = ("age", "count", "due", "floor", "id", "is_late", "last", "name", "retention", "size")

    def __init__(
        self, number: int, name: str, last: int, floor: int, count: int, size: int, age: float, due: float | None
    ) -> None:
        self.id = number
        self.name = name
        self.last = last
        self.floor = floor
        self.count = count
        self.size = size
        self.age = age
        self.due = due
        self.retention: Retention | None = None
        self.is_late = False


COLUMNS = "id, name, last, floor, count, size, age, due"


class Rows:
    """
    The tables that the writer changes.

    :ivar connection: the connection that writes.
    :ivar reserved: the largest offset that the store may assign.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        """:param connection: the connection that writes."""
        self.connection = connection
        self._rows: OrderedDict[str, Row] = OrderedDict()
        self._dirty: dict[int, Row] = {}
        self._taken = self._quiet = self._ids = self._forgotten = self.reserved = 0
        self._is_stale = False
        self._load()

    def _load(self) -> None:
        """Drop the copy of the rows, and read the totals."""
        self._rows.clear()
        self._dirty.clear()
        execute = self.connection.execute
        count, size = execute("SELECT count(*), coalesce(sum(size), 0) FROM channel").fetchone()
        self._taken = count * CHANNEL_COST + size
        (self._quiet,) = execute("SELECT count(*) FROM channel WHERE count = 0").fetchone()
        (self._ids,) = execute("SELECT count(*) FROM recent").fetchone()
        self._forgotten, self.reserved = self._get("forgotten"), self._get("reserved")
        self._is_stale = False

    @property
    def tip(self) -> int:
        """The largest offset that is or was stored, read from the file."""
        return self._get("tip")

    def _get(self, key: str) -> int:
        (value,) = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(value)

    def _set(self, **values: int) -> None:
        self.connection.executemany(
            "UPDATE meta SET value = ? WHERE key = ?", [(value, key) for key, value in values.items()]
        )

    def undo(self) -> None:
        """Roll back a failed transaction. The rows are read again before the next one."""
        self._is_stale = True
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _insert(self, start: str, columns: int, values: list[Any], end: str = "") -> None:
        """
        Insert rows with few statements.

        :param start: the statement up to ``VALUES``.
        :param columns: the number of columns.
        :param values: the values of all rows, one row after another.
        :param end: the rest of the statement.
        """
        row = f"({', '.join('?' * columns)})"
        done, left = 0, len(values) // columns
        for count in _TOGETHER:
            while left >= count:
                whole = done == 0 and left == count
                chunk = values if whole else values[done : done + count * columns]
                self.connection.execute(f"{start} {', '.join([row] * count)} {end}", chunk)
                done += count * columns
                left -= count

    def _find(self, channel: str, retention: Retention, *, new: bool) -> Row | None:
        execute = self.connection.execute
        found = execute(f"SELECT {COLUMNS} FROM channel WHERE name = ?", (channel,)).fetchone()  # noqa: S608
        if found is None and not new:
            return None
        if found is None:
            values = channel, self._forgotten, self._forgotten, 0, 0, retention.age, None
            made = execute(
                "INSERT INTO channel (name, last, floor, count, size, age, due) VALUES (?, ?, ?, ?, ?, ?, ?)", values
            )
            found = made.lastrowid, *values
            self._taken += CHANNEL_COST
            self._quiet += 1
        row = self._rows[channel] = Row(*found)
        return row

    def _flush(self) -> None:
        values: list[Any] = []
        late: list[tuple[float, float | None, int]] = []
        for row in self._dirty.values():
            values += (row.id, row.name, row.last, row.floor, row.count, row.size, row.age)
            if row.is_late:
                late.append((row.age, row.due, row.id))
                row.is_late = False
        update = ", ".join(f"{name} = excluded.{name}" for name in ("last", "floor", "count", "size"))
        self._insert(
            "INSERT INTO channel (id, name, last, floor, count, size, age) VALUES",
            7,
            values,
            f"ON CONFLICT (id) DO UPDATE SET {update}",
        )
        if late:
            self.connection.executemany("UPDATE channel SET age = ?, due = ? WHERE id = ?", late)
        self._dirty.clear()

    def _drop(self, row: Row, last: int, count: int, size: int) -> None:
        """
        Note that the messages of a channel up to an offset were deleted.

        :param last: the offset.
        :param count: the number of these messages.
        :param size: their bytes.
        """
        row.floor = max(row.floor, last)
        row.count -= count
        row.size -= size
        self._taken -= size
        if not row.count:
            row.due = None
            row.is_late = True
            self._quiet += 1

    def _cut(self, row: Row, last: int, count: int, size: int) -> None:
        self.connection.execute("DELETE FROM message WHERE channel = ? AND offset <= ?", (row.id, last))
        self._drop(row, last, count, size)

    def _oldest(self, where: str, *values: Any) -> list[tuple[int, int, int, float]]:
        """Return offset, channel, bytes and time of up to :data:`CHUNK` of the oldest messages."""
        (found,) = self.connection.execute(
            "SELECT group_concat(offset || ' ' || channel || ' ' || length(payload) || ' ' || time) FROM "  # noqa: S608
            f"(SELECT * FROM message {where} ORDER BY offset LIMIT {CHUNK})",
            values,
        ).fetchone()
        rows = (row.split(" ") for row in (found or "").split(",") if row)
        return [(int(offset), int(channel), int(size), float(time)) for offset, channel, size, time in rows]

    def _by_id(self, channel: int) -> Row:
        found = self.connection.execute(f"SELECT {COLUMNS} FROM channel WHERE id = ?", (channel,)).fetchone()  # noqa: S608
        return self._rows.get(found[1]) or Row(*found)
