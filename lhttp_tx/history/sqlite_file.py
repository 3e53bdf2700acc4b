"""
The file of a history in SQLite: its lock, its tables, and explanations of errors.

This module does not use threads. Take the lock (:class:`FileLock`) before you open a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
from pathlib import Path
from typing import NamedTuple, final

from lhttp_tx.errors import StartFailed

__all__ = ["FileLock", "Opened", "connect", "create", "explain", "is_missing", "open_file", "without_folder"]

_APPLICATION = 0x4C485448
"""The ``application_id`` of SQLite that marks a file as a history."""

_VERSION = 1
"""The version of the tables. The server does not use files with a higher version."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE channel (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, last INTEGER NOT NULL, floor INTEGER NOT NULL,
    count INTEGER NOT NULL, size INTEGER NOT NULL, age REAL NOT NULL, due REAL
);
CREATE INDEX channel_due ON channel (due) WHERE due IS NOT NULL;
CREATE INDEX channel_quiet ON channel (last) WHERE count = 0;
CREATE TABLE message (
    offset INTEGER PRIMARY KEY, channel INTEGER NOT NULL, time REAL NOT NULL, binary INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX message_channel ON message (channel, offset);
CREATE TABLE recent (offset INTEGER PRIMARY KEY, channel TEXT NOT NULL, id TEXT NOT NULL, time REAL NOT NULL);
CREATE TABLE gap (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);
"""

_CACHE_SIZE = 16_777_216
"""The most bytes of pages that each of the three connections caches."""

_LOG_PAGES = 4000
"""The number of pages in the write-ahead log at which SQLite moves them into the file."""

_JOURNAL_SIZE = 67_108_864
"""The most bytes that the file of the write-ahead log keeps when it is empty."""


@final
class FileLock:
    """
    The lock of a file. While a store has it, other processes and other stores of this process cannot use the file.
    """

    def __init__(self, path: Path) -> None:
        """
        Take the lock of a file.

        The lock is a separate file, which is never removed. A lock on the database itself would end as soon as the
        process opens and closes the database a second time.

        :raises StartFailed: if another store has the lock, or the lock file cannot be created.
        """
        self._name = f"{path}-lock"
        try:
            self._descriptor = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartFailed(
                f"the history {path} cannot be opened: {error.strerror}; it needs a folder that exists and that the "
                f"server may write to"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = self._holder()
            os.close(self._descriptor)
            raise StartFailed(
                f"the history {path} is used by another server{f' (process {holder})' if holder.isdigit() else ''}: "
                f"stop that one, or give this one a file of its own"
            ) from error
        with contextlib.suppress(OSError):  # the number only helps the operator
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def _holder(self) -> str:
        """Return what the holder of the lock has written."""
        try:
            return os.read(self._descriptor, 20).decode("ascii", "replace").strip()
        except OSError:  # somebody has put a pipe there
            return ""

    def release(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


class Opened(NamedTuple):
    """
    The state of a file when it is opened.

    :ivar connection: the connection that writes.
    :ivar epoch: the epoch of the history.
    :ivar tip: the largest offset that is or was stored.
    :ivar reserved: the largest offset that subscribers may have seen.
    """

    connection: sqlite3.Connection
    epoch: str
    tip: int
    reserved: int


def connect(path: Path, *, patience: float) -> sqlite3.Connection:
    """
    Return a connection to an existing file. Only one thread at a time may use it.

    :param patience: the most seconds to wait for a lock of another connection.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=patience,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_SIZE // 1024}")
        connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit={_JOURNAL_SIZE}")
    except BaseException:
        connection.close()
        raise
    return connection


def create(path: Path) -> None:
    """Create an empty file that only its owner may read, unless it exists."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        folder = os.open(path.absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def open_file(path: Path, *, patience: float, base: int = 0) -> Opened:
    """
    Open a file. Create it with its tables if it is new.

    :param patience: see :func:`connect`.
    :param base: for a new file: its offsets begin after this one, and messages up to it count as lost.
    :raises StartFailed: if the file is not a history, is damaged, or was written by a newer version.
    :raises sqlite3.Error: if SQLite cannot use the file.
    :raises OSError: if the file cannot be created.
    """
    create(path)
    connection = connect(path, patience=patience)
    try:
        _prepare(connection, path, base)
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        return Opened(connection, str(meta["epoch"]), meta["tip"], meta["reserved"])
    except KeyError as error:
        connection.close()
        raise StartFailed(f"the history {path} is damaged: move it away, or put a copy in its place") from error
    except BaseException:
        connection.close()
        raise


def _prepare(connection: sqlite3.Connection, path: Path, base: int) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application not in ((0, _APPLICATION) if not tables else (_APPLICATION,)):
        raise StartFailed(f"{path} is a database, but not a history: use another file")
    if version > _VERSION:
        raise StartFailed(
            f"the history {path} was written by a newer version of lhttp_tx: use that one, or another file"
        )
    if not tables:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise StartFailed(f"the history {path} is on a file system without shared memory: put it on a local disk")
    if not tables:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
        values = {"epoch": secrets.token_hex(5), "tip": base, "reserved": base, "forgotten": base, "horizon": 0}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
        connection.execute(f"PRAGMA application_id={_APPLICATION}")
        connection.execute(f"PRAGMA user_version={_VERSION}")
        connection.execute("COMMIT")


def is_missing(path: Path) -> bool:
    """Return whether there is no file at *path*."""
    return not path.exists()


_CURES = (
    ("disk is full", "there is no room left on its disk: make room"),
    ("locked", "another program has locked it: end that program"),
    ("readonly", "it may not be written to: give the server the right to"),
    ("unable to open", "it cannot be opened: is the folder there, and may the server write to it?"),
    ("malformed", "it is damaged: stop the server, and move it away or put a copy in its place"),
    ("not a database", "it is not a history: use another file"),
    ("disk I/O error", "its disk fails, or has no room left: look at the system's log"),
)


def explain(error: BaseException, path: Path) -> str:
    """Return a text for the operator: why a file cannot be used, and what to do."""
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    cure = next((cure for sign, cure in _CURES if sign in text), "look at the system's log")
    return f"the history {path} cannot be used ({text}): {cure}"


def without_folder(text: str, path: Path) -> str:
    """Return an explanation for clients. It has the name of the file, but not its folder."""
    for folder in {str(path.parent), str(path.absolute().parent)}:
        text = text.replace(f"{folder}{os.sep}", "")
    return text
