"""
Writes a history in SQLite in its own thread. Writes that arrive during a commit go into the next one.

If a write fails, the thread tries again. In the meantime, the store accepts no new publications.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lhttp_tx.errors import StartFailed
from lhttp_tx.history.sqlite_file import FileLock, Opened, connect, explain, is_missing, open_file
from lhttp_tx.history.sqlite_tables import Tables, Write

__all__ = ["Begun", "Writer"]

_SWEEPING = 10.0
"""Seconds between checks for messages that are too old."""

_SHORTEST = 0.05
_LONGEST = 2.0
"""Seconds until a failed write is repeated: at first, and at most."""

_PATIENCE = 1.0
"""The most seconds that a commit waits for a lock."""


class _Replaced(Exception):
    """The file at the path is not the one that was opened."""


class Begun:
    """
    The state of a file when it was opened.

    :ivar epoch: the epoch of the history.
    :ivar offset: the offset after which new ones begin.
    :ivar recent: earlier message ids, each with channel, id, offset and time.
    """

    def __init__(self, epoch: str, offset: int, recent: list[tuple[str, str, int, float]]) -> None:
        self.epoch = epoch
        self.offset = offset
        self.recent = recent


class Writer:
    """
    A thread that opens a file, writes, and closes it.

    :ivar trouble: why it cannot write now; empty if it can. Set by the thread.
    :ivar reserved: the largest offset that the store may assign now. Set by the thread.
    """

    def __init__(
        self,
        path: Path,
        reactor: Any,
        *,
        size: int,
        window: float,
        patience: float,
        now: Callable[[], float],
        let_go: Callable[[], None],
        on_committed: Callable[[int, int], None],
        on_epoch: Callable[[str], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        """
        :param path: the file.
        :param reactor: the reactor, on whose thread the functions below are called.
        :param size: the most bytes of everything.
        :param window: seconds for which message ids are kept.
        :param patience: the most seconds for which the thread tries to write when it is stopped.
        :param now: returns the time in seconds since 1970. Called in the thread.
        :param let_go: closes all other connections of this process to the file. Called in the thread.
        :param on_committed: called with the number of writes that are committed since the start, and the last offset.
        :param on_epoch: called with the epoch of a new file, which replaces one that was deleted.
        :param on_trouble: called with :attr:`trouble` when writing begins to fail, and when it works again.
        """
        self._path = path
        self._reactor = reactor
        self._size = size
        self._window = window
        self._patience = patience
        self._now = now
        self._let_go = let_go
        self._on_committed = on_committed
        self._on_epoch = on_epoch
        self._on_trouble = on_trouble
        self._condition = threading.Condition()
        self._inbox: list[Write] = []
        self._is_waiting = self._is_ending = self._is_making = False
        self._tables: Tables
        self._identity: tuple[int, int] = (0, 0)
        self._tip = 0
        self._done = 0
        self.trouble = ""
        self.reserved = 0
        self._thread: threading.Thread | None = None

    # Called on the reactor's thread

    def start(self, succeed: Callable[[Begun], None], fail: Callable[[BaseException], None]) -> None:
        """
        Start the thread, which opens the file. Then one of the functions is called on the reactor's thread.

        :param succeed: called with the state of the file.
        :param fail: called with a :exc:`~lhttp_tx.errors.StartFailed`.
        """
        self._thread = threading.Thread(
            target=self._run, args=(succeed, fail), name="lhttp history writer", daemon=True
        )
        self._thread.start()

    def put(self, write: Write) -> None:
        """Add *write* to the next commit."""
        with self._condition:
            self._inbox.append(write)
            if self._is_waiting:
                self._condition.notify()

    def stop(self, done: Callable[[str], None]) -> None:
        """
        Write what waits, then close the file and end the thread.

        :param done: called on the reactor's thread with the reason if something could not be written, else with an
            empty text.
        """
        with self._condition:
            self._ended = done
            self._is_ending = True
            self._condition.notify()

    def join(self) -> None:
        """Wait until the thread has ended."""
        assert self._thread is not None
        self._thread.join()

    # Called in the thread

    def _run(self, succeed: Callable[[Begun], None], fail: Callable[[BaseException], None]) -> None:
        try:
            lock = FileLock(self._path)
        except StartFailed as error:
            self._reactor.callFromThread(fail, error)
            return
        try:
            begun = self._begin()
        except StartFailed as error:
            lock.release()
            self._reactor.callFromThread(fail, error)
            return
        except Exception as error:
            lock.release()
            self._reactor.callFromThread(fail, StartFailed(explain(error, self._path)))
            return
        self._reactor.callFromThread(succeed, begun)
        failure = self._serve()
        lock.release()
        self._reactor.callFromThread(self._ended, failure)

    def _begin(self) -> Begun:
        opened = self._open()
        try:
            self._tables = Tables(opened.connection, size=self._size, window=self._window)
            self._tip = self._tables.begin()
            self.reserved = self._tables.reserved
            return Begun(opened.epoch, self._tip, self._tables.recent(self._now() - self._window))
        except BaseException:
            opened.connection.close()
            raise

    def _open(self, base: int = 0) -> Opened:
        opened = open_file(self._path, patience=_PATIENCE, base=base)
        self._identity = self._look()
        return opened

    def _look(self) -> tuple[int, int]:
        status = os.stat(self._path)  # noqa: PTH116 - called for each commit
        return status.st_dev, status.st_ino

    def _serve(self) -> str:
        """Write until the store stops. Return why something could not be written, or an empty text."""
        swept = time.monotonic()
        while True:
            with self._condition:
                if not self._inbox and not self._is_ending:
                    self._is_waiting = True
                    self._condition.wait(max(swept + _SWEEPING - time.monotonic(), 0.0))
                    self._is_waiting = False
                batch, self._inbox = self._inbox, []
                is_ending = self._is_ending
            if batch and not self._insist(lambda: self._write(batch)):  # noqa: B023 - called at once
                break
            if is_ending and not batch:
                self._insist(self._tables.end)
                break
            if time.monotonic() - swept >= _SWEEPING and not self._sweep():
                swept = time.monotonic()
        failure = self.trouble
        try:
            self._let_go()
            self._tables.connection.close()
        except sqlite3.Error as error:
            failure = failure or explain(error, self._path)
        return failure

    def _sweep(self) -> bool:
        """
        Delete some messages that are too old. Return whether there may be more. Errors are ignored: the next write
        reports them.
        """
        try:
            return self._tables.sweep(self._now())
        except Exception:
            self._undo()
            return False

    def _try(self, work: Callable[[], None]) -> str:
        """Call *work*. Return why it has failed, or an empty text."""
        try:
            work()
        except Exception as error:
            self._undo()
            return str(error) if isinstance(error, _Replaced | StartFailed) else explain(error, self._path)
        return ""

    def _undo(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # the next attempt fails, too, and reports the reason
            self._tables.undo()

    def _insist(self, work: Callable[[], Any]) -> bool:
        """Call *work* until it succeeds. Return ``False`` if the store stops first, and its patience is over."""
        pause = _SHORTEST
        deadline = 0.0
        while True:
            before, self.trouble = self.trouble, self._try(work)
            if bool(before) is not bool(self.trouble):
                self._reactor.callFromThread(self._on_trouble, self.trouble)
            if not self.trouble:
                return True
            with self._condition:
                if self._is_ending:
                    deadline = deadline or time.monotonic() + self._patience
                    if time.monotonic() >= deadline:
                        return False
                self._condition.wait(pause)
            pause = min(pause * 2, _LONGEST)

    def _write(self, batch: list[Write]) -> None:
        """Commit *batch*, unless an earlier attempt has done so, and check that the commit went to the right file."""
        last = max((write.first + len(write.payloads) - 1 for write in batch if write.payloads), default=0)
        may_be_written = bool(self._check_file() or self.trouble)  # a commit that raised an error may have succeeded
        while True:
            if not last or not may_be_written or self._tables.tip < last:
                self._tables.write(batch)
            if not self._check_file():
                break
            may_be_written = True
        self._tip = last or self._tip
        self._done += len(batch)
        self.reserved = self._tables.reserved
        self._reactor.callFromThread(self._on_committed, self._done, self._tip)

    def _check_file(self) -> bool:
        """
        Create a new file, with another epoch, if the opened one was deleted.

        :returns: whether something was repaired, so that the last writes may have to be repeated.
        :raises _Replaced: if the operator must do something.
        """
        try:
            if self._look() == self._identity:
                return self._check_log()
        except FileNotFoundError:
            pass
        if not self._is_making and not is_missing(self._path):
            raise _Replaced(
                f"another file has taken the place of the history {self._path}: restart the server to use that one"
            )
        if not self._path.absolute().parent.is_dir():
            raise _Replaced(f"the folder of the history {self._path} is gone: make it again")
        self._let_go()
        self._tables.connection.close()
        if not self._is_making:
            for end in ("-wal", "-shm"):
                Path(f"{self._path}{end}").unlink(missing_ok=True)
        self._is_making = True
        opened = self._open(self._tip)
        try:
            tables = Tables(opened.connection, size=self._size, window=self._window)
            if opened.tip > self._tip or tables.begin() != self._tip:
                raise _Replaced(f"another file is in the place of the history {self._path}: restart the server")
        except BaseException:
            self._identity = 0, 0
            opened.connection.close()
            raise
        self._tables = tables
        self._is_making = False
        self._reactor.callFromThread(self._on_epoch, opened.epoch)
        return True

    def _check_log(self) -> bool:
        """
        Start a new write-ahead log if the old one was deleted. Otherwise, its contents would be lost when the process
        ends.
        """
        if os.path.exists(f"{self._path}-wal"):  # noqa: PTH110 - called for each commit
            return False
        self._let_go()
        self._tables.connection.close()  # the last connection moves the rest of the log into the file
        self._tables.connection = connect(self._path, patience=_PATIENCE)
        self._tables.undo()
        self._tables.lose(self._tip)
        return True
