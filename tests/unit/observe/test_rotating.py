"""A log file that is rotated by its size and by its age, and of which a number is kept."""

from __future__ import annotations

from pathlib import Path

from lhttp_tx.observe.log_files import reopen
from lhttp_tx.observe.rotating import RotatingLogFile


class Now:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 1_000.0

    def __call__(self) -> float:
        return self.time


def contents(path: Path) -> dict[str, str]:
    return {found.name: found.read_text() for found in path.iterdir()}


def test_a_large_file_is_rotated_and_the_oldest_goes(tmp_path: Path) -> None:
    file = RotatingLogFile(str(tmp_path / "log"), size=10, keep=2)
    for letter in "abcd":
        file.write(letter * 10)
    file.close()
    assert contents(tmp_path) == {"log": "d" * 10, "log.1": "c" * 10, "log.2": "b" * 10}


def test_an_old_file_is_rotated(tmp_path: Path) -> None:
    now = Now()
    file = RotatingLogFile(str(tmp_path / "log"), age=60.0, now=now)
    now.time += 1_000  # without a line, it does not grow old
    file.write("a")
    now.time += 59
    file.write("b")
    now.time += 2
    file.write("c")
    file.close()
    assert contents(tmp_path) == {"log": "c", "log.1": "ab"}


def test_the_age_goes_on_over_a_restart(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text("before")
    (tmp_path / "log").write_text("old")
    begun = (tmp_path / "log.1").stat().st_mtime
    now = Now()
    now.time = begun + 61
    file = RotatingLogFile(str(tmp_path / "log"), age=60.0, now=now)
    file.write("new")
    file.close()
    assert contents(tmp_path) == {"log": "new", "log.1": "old", "log.2": "before"}


def test_a_file_that_was_moved_is_opened_again(tmp_path: Path) -> None:
    file = RotatingLogFile(str(tmp_path / "log"), size=1_000)
    file.write("a")
    (tmp_path / "log").rename(tmp_path / "moved")
    assert reopen(file).endswith("is a new file")
    file.write("b")
    assert reopen(file).endswith("was rotated")
    file.close()
    assert contents(tmp_path) == {"moved": "a", "log.1": "b", "log": ""}
