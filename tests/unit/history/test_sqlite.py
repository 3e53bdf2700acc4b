"""The store in a file: the contract, and what is its own."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from pipes import at_once, put_pipe
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.logger import formatEvent, globalLogPublisher

from lhttp_tx.codec.positions import offsets_of, unmarked
from lhttp_tx.errors import HistoryUnavailable, StartFailed
from lhttp_tx.history import sqlite, sqlite_reader
from lhttp_tx.history.sqlite import SQLiteHistory
from lhttp_tx.history.sqlite_file import FileLock, explain, open_file
from lhttp_tx.history.sqlite_tables import Tables, Write
from lhttp_tx.history.values import Page, Placing, Retention
from lhttp_tx.testing import HistoryContract
from lhttp_tx.testing.bus import done

NUMBERS = count()
PLAIN = Retention("plain")
MANY = Retention("many", messages=100_000)


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    TestSQLiteHistory.folder = tmp_path_factory.mktemp("histories")


class TestSQLiteHistory(HistoryContract):
    outlives = True
    examples = 25
    clock = Clock()
    folder: Path

    def make_store(self) -> Any:
        self.path = self.folder / f"{next(NUMBERS)}.history"
        return self.open()

    def open(self) -> Any:
        return SQLiteHistory(self.path, reactor, window=self.window, wall=lambda: 1_000_000.0 + self.clock.seconds())

    async def restart(self, store: Any) -> Any:
        await store.stop()
        store = self.open()
        await store.start()
        return store

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


def payload(number: int, size: int = 0) -> bytes:
    return b"LHTTP/1.0 chat\r\nnumber:%d\r\n\r\n" % number + b"x" * size


def open_store(path: Path, **options: Any) -> SQLiteHistory:
    return SQLiteHistory(path, reactor, **options)


async def read(store: SQLiteHistory, channel: str, after: int = 0, retention: Retention = PLAIN) -> Page:
    return await store.read(channel, retention, after=after, limit=100_000, size=2**30)


def copy(path: Path, to: Path) -> Path:
    """Copy the files of a store, as a machine that loses its power leaves them."""
    for end in ("", "-wal", "-shm"):
        shutil.copyfile(f"{path}{end}", f"{to}{end}")
    return to


# Files that are refused


def put_nonsense(path: Path) -> None:
    path.write_bytes(b"nonsense" * 1000)


def put_other_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (thing)")
    connection.close()


def put_newer(path: Path) -> None:
    open_file(path, patience=0).connection.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()


def put_half(path: Path) -> None:
    connection = open_file(path, patience=0).connection
    connection.execute("DELETE FROM meta")
    connection.close()


@pytest.mark.parametrize(
    ("put", "reason"),
    [
        (put_nonsense, "not a history: use another file"),
        (put_other_database, "not a history: use another file"),
        (put_newer, "newer version"),
        (put_half, "damaged"),
        (Path.mkdir, "cannot be used"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_file_that_is_no_history_is_refused(tmp_path: Path, put: Any, reason: str) -> None:
    path = tmp_path / "history"
    put(path)
    before = path.read_bytes() if path.is_file() else None
    store = open_store(path)
    with pytest.raises(StartFailed, match=reason):
        await store.start()
    assert not store.available and store.trouble
    assert before == (path.read_bytes() if path.is_file() else None)
    path.rename(tmp_path / "elsewhere")
    await store.start()
    assert store.available
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="a folder that exists"):
        await open_store(tmp_path / "none" / "history").start()


@pytest_twisted.ensureDeferred
async def test_a_file_belongs_to_one_store_at_a_time(tmp_path: Path) -> None:
    first, second = (open_store(tmp_path / "history") for _ in range(2))
    await first.start()
    with pytest.raises(StartFailed, match="another server"):
        await second.start()
    await first.stop()
    await second.start()
    await second.stop()


@pytest_twisted.ensureDeferred
async def test_others_may_not_read_the_file(tmp_path: Path) -> None:
    store = open_store(tmp_path / "history")
    await store.start()
    store.append("room", PLAIN, [payload(1)], False)
    await done(store.confirm())
    assert [path.stat().st_mode & 0o077 for path in sorted(tmp_path.iterdir())] == [0, 0, 0, 0]
    await store.stop()


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (sqlite3.OperationalError("database or disk is full"), "make room"),
        (sqlite3.OperationalError("database is locked"), "end that program"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "the right to"),
        (sqlite3.OperationalError("disk I/O error"), "system's log"),
        (OSError(13, "Permission denied"), "Permission denied"),
    ],
)
def test_the_operator_is_told_what_to_do(error: Exception, cure: str) -> None:
    assert cure in explain(error, Path("room.history"))
    assert "room.history" in explain(error, Path("room.history"))


# Ends


@pytest_twisted.ensureDeferred
async def test_positions_of_before_an_unclean_end_are_good_or_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path / "history")
    await store.start()
    offsets = [offsets_of(store.append("room", PLAIN, [payload(number)], False)[0])[0] for number in range(5)]
    placing = Placing("other", "m1")
    store.append("other", PLAIN, [payload(5)], False, placing)
    await done(store.confirm())
    copied = open_store(copy(tmp_path / "history", tmp_path / "copied"))
    shown = [offsets_of(store.append("room", PLAIN, [payload(number)], False)[0])[0] for number in range(5)]
    await store.stop()

    await copied.start()
    assert copied.epoch == store.epoch
    for index, after in enumerate(offsets, 1):
        page = await read(copied, "room", after)
        assert page.reaches and [stored.offset for stored in page.messages] == offsets[index:]
    for after in shown:
        assert not (await read(copied, "room", after)).reaches
    again = Placing("other", "m1")
    assert copied.append("other", PLAIN, [payload(6)], False, again) == []
    assert again.duplicate and again.position == placing.position
    (marked,) = copied.append("room", PLAIN, [payload(7)], False)
    offset, after = offsets_of(marked)
    assert offset > shown[-1] and after == offsets[-1]
    for after in shown:
        assert not (await read(copied, "room", after)).reaches
    page = await read(copied, "room", offsets[-1])
    assert page.reaches and [stored.offset for stored in page.messages] == [offset]
    await copied.stop()


@pytest_twisted.ensureDeferred
async def test_many_unclean_ends_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lhttp_tx.history.sqlite_tables._GAPS", 3)
    path = tmp_path / "0"
    stored: list[int] = []
    lost: list[int] = []
    for number in range(1, 8):
        store = open_store(path)
        await store.start()
        stored.append(offsets_of(store.append("room", PLAIN, [payload(1)], False)[0])[0])
        await done(store.confirm())
        path = copy(path, tmp_path / str(number))
        lost.append(offsets_of(store.append("room", PLAIN, [payload(1)], False)[0])[0])
        await store.stop()
    store = open_store(path)
    await store.start()
    for after in lost:
        assert not (await read(store, "room", after)).reaches
    for after in stored[-3:]:
        assert (await read(store, "room", after)).reaches
    page = await read(store, "room")
    assert page.reaches and [found.offset for found in page.messages] == stored
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_a_clean_end_jumps_over_nothing(tmp_path: Path) -> None:
    for number in range(1, 4):
        store = open_store(tmp_path / "history")
        await store.start()
        (marked,) = store.append("room", PLAIN, [payload(number)], False)
        assert offsets_of(marked) == (number, number - 1)
        await store.stop()


@pytest_twisted.ensureDeferred
async def test_threads_run_from_start_to_stop(tmp_path: Path) -> None:
    def threads() -> list[str]:
        return sorted(thread.name for thread in threading.enumerate() if "history" in thread.name)

    store = open_store(tmp_path / "history")
    assert threads() == []
    await store.start()
    await store.start()
    assert threads() == ["lhttp history reader", "lhttp history writer"]
    await store.stop()
    assert store.available
    await store.stop()
    assert threads() == [] and not store.available
    with pytest.raises(HistoryUnavailable):
        await read(store, "room")


# Bounds


@pytest_twisted.ensureDeferred
async def test_more_than_a_class_keeps_does_not_stay_in_the_file(tmp_path: Path) -> None:
    few = Retention("few", messages=10)
    store = open_store(tmp_path / "history")
    await store.start()
    for number in range(500):
        store.append("room", few, [payload(number)], False)
        if number % 7 == 0:
            await done(store.confirm())
    page = await read(store, "room", retention=few)
    assert [unmarked(stored.payload) for stored in page.messages] == [payload(number) for number in range(490, 500)]
    await store.stop()
    connection = sqlite3.connect(tmp_path / "history")
    assert connection.execute("SELECT count(*) < 60 FROM message").fetchone() == (1,)
    connection.close()


@pytest_twisted.ensureDeferred
async def test_the_oldest_of_all_channels_go_and_the_file_does_not_grow(tmp_path: Path) -> None:
    store = open_store(tmp_path / "history", size=300_000)
    await store.start()
    sizes: list[int] = []
    for number in range(2000):
        store.append(f"room.{number % 7}", MANY, [payload(number, size=1000)], False)
        if number % 100 == 99:
            await done(store.confirm())
            pages = [await read(store, f"room.{channel}", retention=MANY) for channel in range(7)]
            totals = [page.total for page in pages]
            sizes.append(sum(len(stored.payload) for page in pages for stored in page.messages))
            assert max(totals) - min(totals) <= 1
    assert max(sizes) <= 300_000 and min(sizes[3:]) > 200_000
    assert not any(page.reaches for page in pages)
    for channel, page in enumerate(pages):
        assert (await read(store, f"room.{channel}", page.messages[0].offset, MANY)).reaches
    await store.stop()
    assert (tmp_path / "history").stat().st_size < 1_000_000


@pytest_twisted.ensureDeferred
async def test_channels_without_messages_are_forgotten_and_not_said_to_be_complete(tmp_path: Path) -> None:
    store = open_store(tmp_path / "history", size=60_000)
    await store.start()
    (marked,) = store.append("room", PLAIN, [payload(1)], False)
    first = offsets_of(marked)[0]
    await done(store.remove("room", PLAIN))
    for number in range(600):
        store.append(f"other.{number}", PLAIN, [payload(number)], False)
    await done(store.confirm())
    await store.stop()
    connection = sqlite3.connect(tmp_path / "history")
    assert connection.execute("SELECT count(*) < 250 FROM channel").fetchone() == (1,)
    connection.close()
    await store.start()
    page = await read(store, "room")
    assert not page.reaches and page.total == 0
    assert (await read(store, "room", page.tip)).reaches
    (marked,) = store.append("room", PLAIN, [payload(2)], False)
    assert offsets_of(marked)[1] >= first
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_after_is_right_for_channels_that_are_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_CHANNELS", 3)
    store = open_store(tmp_path / "history")
    await store.start()
    lasts: dict[str, int] = {}
    for number in range(300):
        channel = f"room.{number * number % 11}"
        (marked,) = store.append(channel, PLAIN, [payload(number)], False)
        offset, after = offsets_of(marked)
        assert after == lasts.get(channel, 0)
        lasts[channel] = offset
        if number % 10 == 0:
            await done(store.confirm())
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_nothing_is_taken_while_too_much_waits(tmp_path: Path) -> None:
    store = open_store(tmp_path / "history", in_hand=10_000)
    await store.start()
    with pytest.raises(HistoryUnavailable, match="slower"):
        for number in range(100):
            store.append("room", PLAIN, [payload(number, size=1000)], False)
    assert not store.available
    await done(store.confirm())
    assert store.available
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_bytes_are_kept_as_they_are(tmp_path: Path) -> None:
    bodies = [b"", b"\0", bytes(range(256)) * 20, b"\xff" * 100, "é日本".encode(), b",", b"x" * 100_000]
    payloads = [b"LHTTP/1.0 chat\r\n\r\n" + body for body in bodies]
    store = open_store(tmp_path / "history")
    await store.start()
    store.append("room", PLAIN, payloads, True)
    page = await read(store, "room")
    assert [unmarked(stored.payload) for stored in page.messages] == payloads
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_large_channels_are_read_in_pieces(tmp_path: Path) -> None:
    store = open_store(tmp_path / "history")
    await store.start()
    payloads = [payload(number, size=10_000) for number in range(300)]
    store.append("room", PLAIN, payloads, False)
    found: list[bytes] = []
    after = 0
    while len(found) < 300:
        page = await store.read("room", PLAIN, after=after, limit=50, size=95_000)
        assert page.reaches and page.total == 300 - len(found) and len(page.messages) == 10
        found += [unmarked(stored.payload) for stored in page.messages]
        after = page.messages[-1].offset
    assert found == payloads
    page = await store.newest("room", PLAIN, before=after, limit=50, size=95_000)
    assert [unmarked(stored.payload) for stored in page.messages] == payloads[-11:-1] and page.total == 299
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_a_log_that_is_deleted_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "history"
    store = open_store(path)
    await store.start()
    offsets: list[int] = []
    for number in range(4):
        (marked,) = store.append("room", PLAIN, [payload(number)], False)
        offsets.append(offsets_of(marked)[0])
        await done(store.confirm())
        if number == 1:
            await read(store, "room")
            Path(f"{path}-wal").unlink()
    copied = open_store(copy(path, tmp_path / "copied"))
    await copied.start()
    page = await read(copied, "room")
    assert page.reaches and [stored.offset for stored in page.messages] == offsets
    await copied.stop()
    await store.stop()


# Tidying up


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    opened = open_file(tmp_path / "history", patience=0)
    tables = Tables(opened.connection, size=2**30, window=10.0)
    tables.begin()
    yield tables
    opened.connection.close()


def counts(tables: Tables) -> tuple[int, int]:
    query = "SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM recent)"
    found: tuple[int, int] = tables.connection.execute(query).fetchone()
    return found


def test_what_is_too_old_is_swept_away(tables: Tables) -> None:
    short, long = Retention("short", age=100.0, messages=10_000), Retention("long", age=1000.0)
    tables.write([Write("a", short, 1, [payload(number) for number in range(5000)], False, 0.0, None)])
    tables.write([Write("b", long, 5001, [payload(1)], False, 0.0, "m1")])
    tables.write([Write("a", short, 5002, [payload(2)], False, 50.0, "m2")])
    for now, left in ((5.0, (5002, 2)), (20.0, (5002, 1)), (100.0, (2, 0)), (149.0, (2, 0)), (150.0, (1, 0))):
        while tables.sweep(now):
            pass
        assert counts(tables) == left
    while tables.sweep(1000.0):
        pass
    assert counts(tables) == (0, 0)


def test_pages_that_are_free_are_given_back(tables: Tables, tmp_path: Path) -> None:
    payloads = [payload(number, size=10_000) for number in range(300)]
    tables.write([Write("a", PLAIN, 1, payloads, False, 0.0, None)])
    tables.write([Write("a", PLAIN, 0, [], False, 0.0, None)])
    while tables.sweep(1.0):
        pass
    tables.end()
    assert (tmp_path / "history").stat().st_size < 2_500_000


def test_a_transaction_that_fails_changes_nothing(tables: Tables) -> None:
    tables.write([Write("a", PLAIN, 1, [payload(1)], False, 0.0, None)])
    with pytest.raises(sqlite3.IntegrityError):
        tables.write(
            [Write("b", PLAIN, 2, [payload(2)], False, 0.0, "m"), Write("a", PLAIN, 1, [b""], False, 0.0, None)]
        )
    tables.undo()
    assert counts(tables) == (1, 0) and tables.tip == 1
    tables.write([Write("b", PLAIN, 2, [payload(2)], False, 0.0, "m")])
    assert counts(tables) == (2, 1) and tables.tip == 2


@pytest_twisted.ensureDeferred
async def test_clients_are_not_told_where_the_file_is_and_the_log_is(tmp_path: Path) -> None:
    path = tmp_path / "history"
    store = open_store(path, patience=0.2)
    await store.start()
    store.append("room", PLAIN, [payload(1)], False)
    await done(store.confirm())
    told: list[str] = []
    logged: list[str] = []

    def observe(event: Any) -> None:
        logged.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        store.append("room", PLAIN, [payload(2)], False)
        while not store.trouble:
            await deferLater(reactor, 0.05)
        told.append(store.trouble)
        other.execute("ROLLBACK")
        other.close()
        while store.trouble:
            await deferLater(reactor, 0.05)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite_reader, "read_page", lambda *_: 1 / 0)
            with pytest.raises(HistoryUnavailable) as caught:
                await read(store, "room")
        told.append(str(caught.value.reason))
    finally:
        globalLogPublisher.removeObserver(observe)
        await store.stop()
    assert [("history" in text, str(tmp_path) in text) for text in told] == [(True, False)] * 2
    assert sum(str(path) in text for text in logged) >= 2


def test_a_lock_that_is_a_pipe_makes_nobody_wait(tmp_path: Path) -> None:
    put_pipe(tmp_path / "history-lock")
    lock = FileLock(tmp_path / "history")
    with at_once(), pytest.raises(StartFailed, match="used by another server: stop that one"):
        FileLock(tmp_path / "history")
    lock.release()
