"""
A history in a file, with the SQLite of the standard library.

Publications get their offsets and are delivered at once. A thread writes them. One commit writes all publications that
have come in the meantime, and receipts wait for the commit. Clients' positions stay valid after a restart and after a
crash: the store reserves offsets in advance, and a start after a crash skips these.

All methods are called on the reactor's thread. :mod:`lhttp_tx.history.sqlite_writer` and
:mod:`lhttp_tx.history.sqlite_reader` have a thread each. :meth:`SQLiteHistory.start` starts the threads, and
:meth:`SQLiteHistory.stop` ends them.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, fail, succeed
from twisted.logger import Logger
from zope.interface import implementer

from lhttp_tx.codec.positions import format_position, mark_run
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.ids import MessageIds
from lhttp_tx.history.sqlite_file import connect, explain, without_folder
from lhttp_tx.history.sqlite_pending import Pending
from lhttp_tx.history.sqlite_reader import Reader, Reading
from lhttp_tx.history.sqlite_tables import Write
from lhttp_tx.history.sqlite_writer import Begun, Writer
from lhttp_tx.history.values import Page, Placing, Retention
from lhttp_tx.interfaces import IHistoryStore, MaybeDeferred

__all__ = ["SQLiteHistory"]

_CHANNELS = 10_000
"""The most channels whose last offset is remembered. Those of other channels are read from the file."""

_RUN_COST = 500
"""Bytes of memory of a run that waits to be written, in addition to its messages. Rounded up."""

_log = Logger()


@implementer(IHistoryStore)
class SQLiteHistory:
    """
    Keeps messages in a file, up to a limit for all channels together.

    Beyond the limit, the store drops the oldest messages of all channels. While the file cannot be written, the store
    keeps the publications that it has accepted in memory, tries again, and accepts no new ones.
    """

    spreads = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        clock: Any,
        *,
        size: int = 1_073_741_824,
        window: float = 120.0,
        in_hand: int = 33_554_432,
        patience: float = 10.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        :param path: the file. It is created if it does not exist. Its folder must exist, on a local disk. Files with
            the same name and the additions ``-wal``, ``-shm`` and ``-lock`` belong to it.
        :param clock: the reactor.
        :param size: the most bytes of everything that is kept. The file is somewhat larger.
        :param window: seconds for which message ids are remembered.
        :param in_hand: the most bytes that may wait to be written. Beyond that, the store accepts nothing.
        :param patience: the most seconds to wait for a confirmation; and the most seconds for which :meth:`stop` tries
            to write.
        :param wall: returns the time in seconds since 1970. It is called in several threads.
        """
        self._path = Path(path)
        self._reactor = clock
        self._size = size
        self._window = window
        self._most_in_hand = in_hand
        self._patience = patience
        self._wall = wall
        self.description = f"in the file {self._path}"
        self.files = self._path, Path(f"{self._path}-wal")
        self.epoch = ""
        self._users = 0
        self._turns = DeferredLock()
        self._is_open = False
        self._writer: Writer
        self._reader: Reader
        self._look_up_lock = threading.Lock()
        self._look_up_connection: sqlite3.Connection | None = None
        self._reset()

    def _reset(self) -> None:
        self._offset = self._committed = 0
        self._lasts: OrderedDict[str, int] = OrderedDict()
        self._ids = MessageIds(self._window)
        self._pending = Pending(self._reactor, self._patience, lambda: self.trouble)
        self._removed = 0

    @property
    def available(self) -> bool:
        """See :class:`lhttp_tx.interfaces.IHistoryStore`."""
        return self._is_open and not self.trouble

    @property
    def trouble(self) -> str:
        """See :class:`lhttp_tx.interfaces.IHistoryStore`."""
        if not self._is_open:
            return "the history store has stopped"
        if self._writer.trouble:
            return without_folder(self._writer.trouble, self._path)
        if self._pending.size > self._most_in_hand or self._offset >= self._writer.reserved:
            return f"the disk of the history {self._path.name} is slower than what is published: use a faster one"
        return ""

    def epoch_of(self, retention: Retention) -> str:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.epoch_of`. All classes have the same epoch."""
        return self.epoch

    # Start and end

    def start(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.start`."""
        return self._turns.run(self._start)

    def _start(self) -> Deferred[None]:
        self._users += 1
        if self._users > 1:
            return succeed(None)
        self._writer = Writer(
            self._path,
            self._reactor,
            size=self._size,
            window=self._window,
            patience=self._patience,
            now=self._wall,
            let_go=self._let_go,
            on_committed=self._on_committed,
            on_epoch=self._on_epoch,
            on_trouble=self._on_trouble,
        )
        begun: Deferred[Begun] = Deferred()
        self._writer.start(begun.callback, begun.errback)
        return begun.addCallbacks(self._begin, self._fail)

    def _begin(self, begun: Begun) -> None:
        self._reset()
        self.epoch = begun.epoch
        self._offset = self._committed = begun.offset
        for channel, message_id, offset, when in begun.recent:
            self._ids.note(channel, message_id, offset, when)
        self._reader = Reader(self._path, self._reactor)
        self._is_open = True

    def _fail(self, failure: Any) -> Any:
        self._users -= 1
        self._writer.join()
        return failure

    def stop(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.stop`."""
        return self._turns.run(self._stop)

    def _stop(self) -> Deferred[None]:
        self._users = max(self._users - 1, 0)
        if self._users or not self._is_open:
            return succeed(None)
        self._is_open = False
        ended: Deferred[str] = Deferred()
        self._reader.stop()
        self._writer.stop(ended.callback)
        return ended.addCallback(self._end)

    def _end(self, failure: str) -> None:
        self._writer.join()
        self._reader.join()
        if failure:
            _log.error("stopped before all publications were in the history: {failure}", failure=failure)
        self._pending.stop()
        self._reset()

    # Writing

    def append(
        self, channel: str, retention: Retention, payloads: list[bytes], binary: bool, placing: Placing | None = None
    ) -> list[bytes]:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.append`."""
        if not self.available or self._offset + len(payloads) > self._writer.reserved:
            raise HistoryUnavailable(self.trouble or "too much is published at once, try again later")
        now = self._wall()
        message_id = None
        if placing is not None and placing.message_id is not None:
            message_id = placing.message_id
            known = self._ids.find(channel, message_id, now)
            if known is not None:
                placing.duplicate = True
                placing.position = format_position(self.epoch, known)
                return []
        last = self._lasts.get(channel)
        if last is None:
            last = self._look_up(channel)
        first = self._offset + 1
        marked = mark_run(payloads, first, last, channel)
        self._offset += len(marked)
        self._lasts[channel] = self._offset
        self._lasts.move_to_end(channel)
        if len(self._lasts) > _CHANNELS:
            self._forget_lasts()
        self._write(Write(channel, retention, first, list(marked), binary, now, message_id))
        if placing is not None:
            placing.position = format_position(self.epoch, first)
            if message_id is not None:
                self._ids.note(channel, message_id, first, now)
        return marked

    def _write(self, write: Write) -> None:
        self._pending.add(sum(map(len, write.payloads)) + _RUN_COST)
        self._writer.put(write)

    def _forget_lasts(self) -> None:
        """
        Forget the last offset of the channel without publications for the longest time, if the file has this offset.
        """
        channel, last = next(iter(self._lasts.items()))
        if last <= self._committed:
            del self._lasts[channel]

    def _look_up(self, channel: str) -> int:
        """
        Read the last offset of a channel from the file. No message of the channel may be waiting to be written.

        :raises HistoryUnavailable: if the file cannot be read.
        """
        if not self._look_up_lock.acquire(blocking=False):
            raise HistoryUnavailable("the history is being created again, try again later")
        try:
            if self._look_up_connection is None:
                self._look_up_connection = connect(self._path, patience=0.0)
            execute = self._look_up_connection.execute
            found = execute("SELECT last FROM channel WHERE name = ?", (channel,)).fetchone()
            if found is None:
                found = execute("SELECT value FROM meta WHERE key = 'forgotten'").fetchone()
            return int(found[0])
        except sqlite3.Error as error:
            raise HistoryUnavailable(explain(error, Path(self._path.name))) from error
        finally:
            self._look_up_lock.release()

    def _let_go(self) -> None:
        """Close the connections that only read. Called in the writer's thread."""
        with self._look_up_lock:
            if self._look_up_connection is not None:
                self._look_up_connection.close()
                self._look_up_connection = None
        self._reader.close()

    def confirm(self) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.confirm`."""
        return self._pending.wait()

    def remove(self, channel: str, retention: Retention) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.remove`."""
        if not self._is_open:
            raise HistoryUnavailable(self.trouble)
        self._write(Write(channel, retention, 0, [], False, 0.0, None))
        self._removed = self._pending.given
        return self.confirm()

    def _on_committed(self, done: int, tip: int) -> None:
        self._committed = tip
        self._pending.finish(done)

    def _on_trouble(self, trouble: str) -> None:
        if trouble:
            _log.error(
                "{trouble}; trying again, publications with history are refused until then",
                trouble=trouble,
            )
        else:
            _log.info("the history {path} can be written again", path=str(self._path))

    def _on_epoch(self, epoch: str) -> None:
        self.epoch = epoch
        _log.error("the history {path} was deleted, a new one begins", path=str(self._path))

    # Reading

    def read(self, channel: str, retention: Retention, *, after: int, limit: int, size: int) -> Deferred[Page]:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.read`."""
        return self._page(Reading(channel, retention.messages, self._wall() - retention.age, after, False, limit, size))

    def newest(self, channel: str, retention: Retention, *, before: int, limit: int, size: int) -> Deferred[Page]:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.newest`."""
        return self._page(Reading(channel, retention.messages, self._wall() - retention.age, before, True, limit, size))

    def _page(self, reading: Reading) -> Deferred[Page]:
        """Read a page when the file has everything that the page may contain."""
        if not self._is_open:
            return fail(HistoryUnavailable(self.trouble))
        result: Deferred[Page] = Deferred()
        waits = (
            self._lasts.get(reading.channel, 0) > self._committed
            or self._committed < reading.bound <= self._offset
            or self._removed > self._pending.done
        )
        confirmed = self.confirm() if waits else None
        if confirmed is None:
            self._reader.read(reading, result)
        else:
            confirmed.addCallbacks(lambda _: self._reader.read(reading, result), result.errback)
        return result
