"""The history in a file, where processes are killed, disks are full, and files are locked, deleted and copied."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from integration._history_writer import CHANNELS, KEPT, payload_of
from lhttp_tx.codec.positions import offsets_of, unmarked
from lhttp_tx.errors import StartFailed
from lhttp_tx.history.sqlite import SQLiteHistory
from lhttp_tx.history.values import Page
from lhttp_tx.testing.bus import done

SCRIPT = Path(__file__).with_name("_history_writer.py")
TIME_LIMIT = 60.0


class Account:
    """What a publisher said."""

    def __init__(self, text: str) -> None:
        self.epochs: list[str] = []
        self.shown: dict[str, dict[int, int]] = {channel: {} for channel in CHANNELS}
        self.safe = self.newest = 0
        self.refused: list[str] = []
        self.unknown: list[str] = []
        self.last = ""
        for line in text[: text.rfind("\n") + 1].splitlines():
            self.last, _, rest = line.partition(" ")
            if self.last == "epoch":
                self.epochs.append(rest)
            elif self.last == "shown":
                channel, offset, number = rest.split(" ")
                self.shown[channel][int(offset)] = int(number)
                self.newest = int(offset)
            elif self.last == "safe":
                self.safe = max(self.safe, int(rest))
            elif self.last in ("refused", "unknown"):
                getattr(self, self.last).append(rest)


class Publishing:
    """A process that publishes."""

    def __init__(self, folder: Path, patience: float = 10.0) -> None:
        self.path = folder / "history"
        self.said = folder / "said"
        with self.said.open("wb") as said:
            self.process = subprocess.Popen([sys.executable, SCRIPT, self.path, str(patience)], stdout=said)

    def account(self) -> Account:
        return Account(self.said.read_text("utf-8"))

    def wait(self, condition: Callable[[Account], Any]) -> Account:
        deadline = time.monotonic() + TIME_LIMIT
        while not condition(account := self.account()):
            assert self.process.poll() is None, "it has ended"
            assert time.monotonic() < deadline, account.__dict__
            time.sleep(0.02)
        return account

    def goes_on(self) -> Account:
        """Wait until it has published much more, and it was confirmed."""
        safe = self.account().safe
        return self.wait(lambda account: account.safe > safe + 500)

    def copy(self, folder: Path) -> Account:
        """Copy its files as they are at one moment, and return what it had said by then."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)
        folder.mkdir()
        for end in ("", "-wal", "-shm"):
            shutil.copyfile(f"{self.path}{end}", folder / f"history{end}")
        account = self.account()
        self.process.send_signal(signal.SIGCONT)
        return account

    def end(self) -> Account:
        self.process.terminate()
        assert self.process.wait(TIME_LIMIT) == 0
        assert self.account().last == "end"
        return self.account()


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Callable[..., Publishing]]:
    started: list[Publishing] = []

    def start(**options: Any) -> Publishing:
        started.append(Publishing(tmp_path, **options))
        started[-1].wait(lambda account: account.safe)
        return started[-1]

    yield start
    for publishing in started:
        publishing.process.kill()
        publishing.process.wait()


async def read(store: Any, channel: str, after: int) -> Page:
    page: Page = await store.read(channel, KEPT, after=after, limit=1_000_000, size=2**30)
    return page


async def check(path: Path, account: Account, *, whole: bool = False) -> None:
    """
    Hold a file against what its publisher had said when it ended.

    :param whole: whether everything must be there, confirmed or not.
    """
    store = SQLiteHistory(path, reactor)
    await store.start()
    try:
        assert store.epoch == account.epochs[-1]
        for channel, shown in account.shown.items():
            page = await read(store, channel, 0)
            found = {stored.offset: unmarked(stored.payload) for stored in page.messages}
            offsets = [stored.offset for stored in page.messages]
            assert page.reaches and page.total == len(found) and offsets == sorted(found)
            assert [offsets_of(stored.payload)[1] for stored in page.messages] == [0, *offsets[:-1]]
            for offset, number in shown.items():
                if whole or offset <= account.safe:
                    assert found[offset] == payload_of(number)
            for after in [*list(shown)[-50:], *list(shown)[:: max(len(shown) // 20, 1)]]:
                page = await read(store, channel, after)
                assert [stored.offset for stored in page.messages] == [each for each in offsets if each > after]
                assert page.reaches or after > account.safe
                assert after in found or not page.reaches
            last = offsets[-1]
            (marked,) = store.append(channel, KEPT, [payload_of(0)], False)
            await done(store.confirm())
            offset, before = offsets_of(marked)
            assert offset > account.newest and before == last
            page = await read(store, channel, last)
            assert page.reaches and [stored.offset for stored in page.messages] == [offset]
    finally:
        await store.stop()


@pytest.mark.parametrize("count", [0, 300, 3000])
@pytest_twisted.ensureDeferred
async def test_nothing_that_was_confirmed_is_lost_when_the_server_is_killed(
    publish: Callable[..., Publishing], count: int
) -> None:
    publishing = publish()
    publishing.wait(lambda account: account.safe > count)
    publishing.process.kill()
    publishing.process.wait()
    await check(publishing.path, publishing.account())


@pytest_twisted.ensureDeferred
async def test_files_that_are_copied_at_any_moment_are_a_good_history(
    publish: Callable[..., Publishing], tmp_path: Path
) -> None:
    publishing = publish()
    copies: list[tuple[Path, Account]] = []
    for number in range(4):
        time.sleep(0.05 + number * 0.02)
        folder = tmp_path / f"copy.{number}"
        copies.append((folder / "history", publishing.copy(folder)))
    publishing.end()
    for path, account in copies:
        await check(path, account)


@pytest_twisted.ensureDeferred
async def test_everything_is_there_when_the_server_ends(publish: Callable[..., Publishing]) -> None:
    publishing = publish()
    publishing.goes_on()
    await check(publishing.path, publishing.end(), whole=True)


@pytest_twisted.ensureDeferred
async def test_kills_in_a_row_lose_nothing_that_was_confirmed(publish: Callable[..., Publishing]) -> None:
    safe: dict[str, list[int]] = {channel: [] for channel in CHANNELS}
    for _ in range(4):
        publishing = publish()
        publishing.process.kill()
        publishing.process.wait()
        account = publishing.account()
        for channel, shown in account.shown.items():
            assert not safe[channel] or min(shown, default=account.newest) > safe[channel][-1]
            safe[channel] += [offset for offset in shown if offset <= account.safe]
    store = SQLiteHistory(publishing.path, reactor)
    await store.start()
    for channel, offsets in safe.items():
        page = await read(store, channel, 0)
        assert {stored.offset for stored in page.messages} >= set(offsets) and page.reaches
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_a_server_whose_disk_was_full_goes_on(publish: Callable[..., Publishing]) -> None:
    publishing = publish(patience=0.5)
    size = Path(f"{publishing.path}-wal").stat().st_size
    resource.prlimit(publishing.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    account = publishing.wait(lambda account: account.refused and account.unknown)
    assert "history" in account.refused[-1] and "room" in account.refused[-1]
    resource.prlimit(publishing.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    publishing.goes_on()
    await check(publishing.path, publishing.end(), whole=True)


@pytest_twisted.ensureDeferred
async def test_a_server_whose_file_was_locked_goes_on(publish: Callable[..., Publishing]) -> None:
    publishing = publish(patience=0.5)
    other = sqlite3.connect(publishing.path, isolation_level=None, timeout=TIME_LIMIT)
    other.execute("BEGIN EXCLUSIVE")
    account = publishing.wait(lambda account: account.refused and account.unknown)
    assert "another program has locked it" in account.refused[-1]
    other.execute("ROLLBACK")
    other.close()
    publishing.goes_on()
    await check(publishing.path, publishing.end(), whole=True)


@pytest_twisted.ensureDeferred
async def test_a_server_that_cannot_write_ends_all_the_same(publish: Callable[..., Publishing]) -> None:
    publishing = publish(patience=0.5)
    other = sqlite3.connect(publishing.path, isolation_level=None, timeout=TIME_LIMIT)
    other.execute("BEGIN EXCLUSIVE")
    publishing.wait(lambda account: account.unknown)
    account = publishing.end()
    other.close()
    await check(publishing.path, account)


@pytest_twisted.ensureDeferred
async def test_a_file_that_was_deleted_is_made_anew(publish: Callable[..., Publishing]) -> None:
    publishing = publish()
    publishing.path.unlink()
    account = publishing.wait(lambda account: len(account.epochs) == 2)
    assert account.epochs[0] != account.epochs[1]
    publishing.goes_on()
    account = publishing.end()
    store = SQLiteHistory(publishing.path, reactor)
    await store.start()
    assert store.epoch == account.epochs[1]
    for channel, shown in account.shown.items():
        page = await read(store, channel, 0)
        offsets = [stored.offset for stored in page.messages]
        assert not page.reaches and offsets == list(shown)[-len(offsets) :]
        assert not (await read(store, channel, min(shown))).reaches
        assert (await read(store, channel, offsets[0])).reaches
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_a_file_that_another_one_has_taken_the_place_of_is_left_alone(
    publish: Callable[..., Publishing], tmp_path: Path
) -> None:
    publishing = publish(patience=0.5)
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / "other").rename(publishing.path)
    account = publishing.wait(lambda account: account.refused)
    assert "restart the server" in account.refused[-1]
    publishing.end()
    assert publishing.path.read_bytes() == b"precious"


@pytest_twisted.ensureDeferred
async def test_a_file_that_another_server_uses_is_refused(publish: Callable[..., Publishing]) -> None:
    publishing = publish()
    with pytest.raises(StartFailed, match=rf"another server \(process {publishing.process.pid}\)"):
        await SQLiteHistory(publishing.path, reactor).start()
    publishing.goes_on()
    publishing.process.kill()
    publishing.process.wait()
    store = SQLiteHistory(publishing.path, reactor)
    await store.start()
    assert store.available
    await store.stop()
