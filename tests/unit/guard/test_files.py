"""Files of an operator: what is read, how much, and that nothing waits for ever."""

from __future__ import annotations

import ast
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from pipes import at_once, put_pipe

import pytest

import lhttp_tx
from lhttp_tx.guard.files import check_file, read_file

PACKAGE = Path(lhttp_tx.__file__).parent

LONG = 600.0
"""Seconds that no test comes near."""

STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (put_pipe, "x is no regular file, but a pipe; nothing waits for it here"),
    "folder": (lambda path: path.mkdir(), "x is no regular file, but a folder"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "x is no regular file, but a device"),
    "large file": (lambda path: path.write_bytes(bytes(101)), "x is larger than 100 bytes"),
}


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    with at_once():
        yield


@pytest.fixture
def ends() -> Iterator[list[int]]:
    """The descriptors of a pipe: the one to read from, and the one to write to."""
    found = list(os.pipe())
    yield found
    for descriptor in found:
        os.close(descriptor)


@pytest.mark.parametrize("read", [check_file, read_file])
@pytest.mark.parametrize("kind", STRANGE)
def test_what_could_stop_the_server_is_refused(kind: str, read: Callable[..., object], tmp_path: Path) -> None:
    make, why = STRANGE[kind]
    make(tmp_path / "x")
    with pytest.raises(ValueError, match=why):
        read(tmp_path / "x", most=100)


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("x")
        with pytest.raises(ValueError, match="x is no regular file, but a socket"):
            check_file("x")
        with pytest.raises(OSError, match="x"):
            read_file("x")


@pytest.mark.parametrize("wait", [0.0, LONG])
def test_a_file_is_read_whole_also_through_links(wait: float, tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "x").write_bytes(bytes(100_000))
    (tmp_path / "x").symlink_to("..data/x")  # as Kubernetes mounts secrets
    check_file(tmp_path / "x")
    assert read_file(tmp_path / "x", wait=wait, most=100_000) == bytes(100_000)


def test_a_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    for read in (check_file, read_file):
        with pytest.raises(FileNotFoundError, match="x"):
            read(tmp_path / "x")  # type: ignore[operator]


def test_texts_say_the_name_that_they_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^the secret is no regular file, but a pipe"):
        read_file(put_pipe(tmp_path / "x"), name="the secret")


def test_a_start_reads_what_a_command_writes() -> None:
    end, other = os.pipe()

    def write() -> None:
        with os.fdopen(other, "wb") as stream:
            stream.write(b"a" * 200_000)  # more than the pipe holds

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert read_file(f"/dev/fd/{end}", wait=LONG) == b"a" * 200_000
    finally:
        os.close(end)
        writer.join()


def test_a_start_waits_for_the_writer_of_a_pipe(tmp_path: Path) -> None:
    path = put_pipe(tmp_path / "x")
    writer = threading.Thread(target=lambda: path.write_bytes(b"sesame"))
    writer.start()
    try:
        assert read_file(path, wait=LONG) == b"sesame"
    finally:
        writer.join()


def test_a_start_waits_only_so_long(ends: list[int], tmp_path: Path) -> None:
    os.write(ends[1], b"half of a sec")
    for path in (put_pipe(tmp_path / "x"), Path(f"/dev/fd/{ends[0]}")):
        with pytest.raises(ValueError, match=r"has not ended within 0\.05 seconds"):
            read_file(path, wait=0.05)


def test_a_start_reads_only_so_much(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="/dev/zero is larger than 70000 bytes"):
        read_file("/dev/zero", wait=LONG, most=70_000)
    os.write(ends[1], bytes(101))
    with pytest.raises(ValueError, match="is larger than 100 bytes"):
        read_file(f"/dev/fd/{ends[0]}", wait=LONG, most=100)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    def count() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    (tmp_path / "y").write_bytes(b"")
    put_pipe(tmp_path / "x")
    before = count()
    for _ in range(3):
        read_file(tmp_path / "y")
        with pytest.raises(ValueError, match="a pipe"):
            read_file(tmp_path / "x")
    assert count() == before


OWN = {
    "guard/files.py": "reads all others",
    "history/sqlite_file.py": "makes its files",
    "observe/log_files.py": "waits for none",
    "twistd/broker.py": "has written the file",
    "twistd/manhole.py": "makes the file",
    "twistd/watchdog.py": "a file of the kernel",
    "web/admin/api.py": "a file of the package",
    "web/admin/grpc/messages.py": "a file of the package",
    "web/admin/proto.py": "a file of the package",
    "web/admin/page.py": "a file of the package",
    "web/assets.py": "a file of the package",
}
"""Modules of the server that open files without :mod:`lhttp_tx.guard.files`, and why."""


def opens_files(source: str) -> bool:
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        match call.func:
            case ast.Name("open") | ast.Attribute(attr="read_bytes" | "read_text" | "fromFile"):
                return True
            case ast.Attribute(value=ast.Name("os" | "io" | "codecs"), attr="open"):
                return True
            case ast.Attribute(attr="open") if any(isinstance(found, ast.Constant) for found in call.args):
                return True
    return False


def test_no_other_module_of_the_server_opens_a_file() -> None:
    paths = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "client"]
    found = {path.relative_to(PACKAGE).as_posix() for path in paths if opens_files(path.read_text("utf-8"))}
    assert found == OWN.keys()
