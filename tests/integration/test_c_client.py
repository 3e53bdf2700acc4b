"""
clients/c/lhttp.h: compiled with every warning and sanitizers, over all vectors, against real and false servers, and
under valgrind.
"""

from __future__ import annotations

import queue
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from integration._device import TCP, framed, tcp_port
from integration._docs import free_port
from integration._server import TIME_LIMIT, ServerProcess, http_request, message, wait_until
from integration._vectors import octets, read
from lhttp_tx.codec.limits import UNLIMITED
from lhttp_tx.codec.message import parse
from lhttp_tx.errors import LHTTPError

CC = shutil.which("cc")
VALGRIND = shutil.which("valgrind")

pytestmark = [pytest.mark.skipif(CC is None, reason="a C compiler is missing (cc)")]

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "clients" / "c"
PROGRAMS = ROOT / "tests" / "c"
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wshadow", "-Wconversion", "-Wstrict-prototypes")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")

VALGRIND_COMMAND = ("valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full", "--track-fds=yes")
PATIENCE = 4 * TIME_LIMIT
"""Under valgrind a program takes many times as long."""

Serve = Callable[..., ServerProcess]


def compile_c(source: Path, target: Path, *flags: str) -> Path:
    assert CC is not None
    command = [CC, "-g", "-O1", *WARNINGS, *flags, f"-I{CLIENT}", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return target


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs, with sanitizers; ``plain`` is without, for valgrind."""
    directory = tmp_path_factory.mktemp("c")
    for name in ("parse", "driver"):
        compile_c(PROGRAMS / f"{name}.c", directory / name, "-std=c99", *SANITIZERS)
    compile_c(PROGRAMS / "driver.c", directory / "plain", "-std=c99")
    return directory


# The header


@pytest.mark.parametrize("standard", ["c99", "c11", "gnu17"])
@pytest.mark.parametrize("options", [(), ("-DLHTTP_NO_POSIX",)])
def test_it_compiles_without_a_warning(standard: str, options: tuple[str, ...], tmp_path: Path) -> None:
    source = tmp_path / "one.c"
    source.write_text('#define LHTTP_IMPLEMENTATION\n#include "lhttp.h"\nint main(void) { return 0; }\n', "ascii")
    compile_c(source, tmp_path / "one", f"-std={standard}", *options)
    header = tmp_path / "two.c"
    header.write_text('#include "lhttp.h"\n#include "lhttp.h"\nint main(void) { return 0; }\n', "ascii")
    compile_c(header, tmp_path / "two", f"-std={standard}", *options)


def test_it_is_readable_for_a_cpp_compiler(tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("a C++ compiler is missing (c++)")
    source = tmp_path / "one.cpp"
    source.write_text('#define LHTTP_IMPLEMENTATION\n#include "lhttp.h"\nint main() { return 0; }\n', "ascii")
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{CLIENT}", str(source)]
    subprocess.run(command, check=True, timeout=PATIENCE)


def test_it_allocates_nothing(tmp_path: Path) -> None:
    names = shutil.which("nm")
    if names is None:
        pytest.skip("nm is missing (binutils)")
    source = tmp_path / "one.c"
    source.write_text('#define LHTTP_IMPLEMENTATION\n#include "lhttp.h"\n', "ascii")
    compile_c(source, tmp_path / "one.o", "-std=c99", "-c")
    listed = subprocess.run([names, "-u", str(tmp_path / "one.o")], capture_output=True, text=True, check=True).stdout
    wanted = set(re.findall(r"\bU (\w+)", listed))
    assert "send" in wanted
    assert wanted.isdisjoint({"malloc", "calloc", "realloc", "free", "strdup", "alloca", "printf", "strcpy", "sprintf"})


def test_the_example_is_built_as_the_manual_says(tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is missing")
    shutil.copytree(CLIENT, tmp_path / "c")
    for target in ("example", "check", "clean"):
        subprocess.run([make, "-C", str(tmp_path / "c"), target], check=True, capture_output=True, timeout=PATIENCE)


# Messages


def parsed(program: Path, messages: list[bytes]) -> list[tuple[Any, ...] | None]:
    """Return what the C program reads: command, headers, body, and the message composed again; ``None``: malformed."""
    done = subprocess.run([program], input=framed(*messages), capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    found: list[tuple[Any, ...] | None] = []
    for line in done.stdout.decode("ascii").split("\n")[:-1]:
        if line == "malformed":
            found.append(None)
            continue
        command, *headers, body, again = line.split(" ")
        pairs = [tuple(bytes.fromhex(part) for part in header.split("=")) for header in headers]
        found.append((bytes.fromhex(command), pairs, bytes.fromhex(body), bytes.fromhex(again)))
    assert len(found) == len(messages)
    return found


def expected(raw: bytes) -> tuple[Any, ...] | None:
    """Return the same from the codec of the server."""
    try:
        found = parse(raw, binary=True, limits=UNLIMITED)
    except LHTTPError:
        return None
    pairs = [(name.encode("ascii"), value.encode("utf-8")) for name, value in found.headers]
    lines = [b"LHTTP/1.0 " + found.command.encode("ascii"), *(name + b":" + value for name, value in pairs)]
    return found.command.encode("ascii"), pairs, found.body, b"\r\n".join([*lines, b"", found.body])


def vectors() -> list[bytes]:
    found = []
    for name in ("messages", "malformed", "publish", "views"):
        found += [octets(entry, "raw") for entry in read(name)]
    for exchange in read("exchanges"):
        for step in exchange["steps"]:
            found += [octets(entry, "raw") for entry in ([step["send"]] if "send" in step else [])]
            found += [octets(entry, "raw") for entries in step["receive"].values() for entry in entries]
    return found


def test_all_vectors_are_read_and_written_as_the_server_does(built: Path) -> None:
    raws = vectors()
    assert len(raws) > 200
    assert parsed(built / "parse", raws) == [expected(raw) for raw in raws]
    for entry in read("messages"):
        (found,) = parsed(built / "parse", [octets(entry, "raw")])
        assert found is not None
        assert found[0].decode() == entry["command"]
        assert [[name.decode(), value.decode()] for name, value in found[1]] == entry["headers"]


def test_of_any_bytes_it_thinks_what_the_server_thinks(built: Path) -> None:
    chance = random.Random(8)
    raws = [raw for raw in vectors() if len(raw) < 2_000]
    changed = []
    for _ in range(20_000):
        raw = bytearray(chance.choice(raws))
        for _ in range(chance.randint(1, 3)):
            place = chance.randint(0, len(raw))
            if chance.random() < 0.5:
                raw[place : place + chance.randint(0, 3)] = b""
            raw[place:place] = chance.choice((b"\r", b"\n", b"\r\n", b":", b" ", b"\0", b"\xed\xa0\x80", b"\xc3", b"x"))
        changed.append(bytes(raw))
    for raw, found in zip(changed, parsed(built / "parse", changed), strict=True):
        assert found == expected(raw), raw


@settings(max_examples=20, deadline=None)
@given(raws=st.lists(st.binary(max_size=60), min_size=1, max_size=50))
def test_no_bytes_are_too_strange(built: Path, raws: list[bytes]) -> None:
    raws += [b"LHTTP/1.0 x\r\n" + raw for raw in raws]
    assert parsed(built / "parse", raws) == [expected(raw) for raw in raws]


# A client


class Driver:
    """
    A C client in a process; it does what it is told, and says what happens.

    :ivar seen: all lines so far.
    """

    def __init__(self, command: list[str], port: int, *options: str) -> None:
        self.seen: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            [*command, "127.0.0.1", str(port), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._err, daemon=True),
        ]
        self.errors = ""
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _err(self) -> None:
        assert self._process.stderr is not None
        self.errors = self._process.stderr.read()

    def tell(self, line: str) -> None:
        """Let it do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def wait_for(self, pattern: str) -> str:
        """Return the next line that matches; what comes before it is in :attr:`seen`."""
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                pytest.fail(f"no {pattern!r} after {self.seen}")
            assert line is not None, f"it has ended: {self.seen} {self.errors}"
            self.seen.append(line)
            if re.fullmatch(pattern, line):
                return line

    def stop(self) -> None:
        """End it; fail if a sanitizer or valgrind has found something."""
        try:
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            code = self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            for thread in self._threads:
                thread.join(TIME_LIMIT)
            for stream in (self._process.stdout, self._process.stderr):
                assert stream is not None
                stream.close()
        assert (code, self.errors) == (0, "")


Drive = Callable[..., Driver]


@pytest.fixture
def drive(built: Path) -> Iterator[Drive]:
    """Start clients, which have to end well."""
    started: list[Driver] = []

    def start(port: int, *options: str, valgrind: bool = False) -> Driver:
        command = [*VALGRIND_COMMAND, str(built / "plain")] if valgrind else [str(built / "driver")]
        started.append(Driver(command, port, *options))
        return started[-1]

    yield start
    for driver in started:
        driver.stop()


def serving(serve: Serve, *arguments: str) -> tuple[ServerProcess, int]:
    server = serve(*TCP, *arguments, endpoints=2)
    return server, tcp_port(server)


@pytest.mark.parametrize("valgrind", [False, True])
def test_it_subscribes_publishes_and_pings(serve: Serve, drive: Drive, valgrind: bool) -> None:
    if valgrind and VALGRIND is None:
        pytest.skip("valgrind is missing")
    server, port = serving(serve)
    one, other = (drive(port, valgrind=valgrind) for _ in range(2))
    for driver in (one, other):
        driver.wait_for("state ready 0 ")
    one.tell("subscribe room.a")
    one.wait_for("subscribed room.a 0 ")
    one.tell("ping")
    one.wait_for("answer 1 200 ")
    other.tell("publish room.a hello device")
    other.wait_for("answer 1 200 ")
    one.wait_for("message publish 12 hello device")
    assert (
        http_request(server.port, "POST", "/publish", message("chat", {"publish": "room.a"}, "from a page"))[0] == 200
    )
    one.wait_for("message chat 11 from a page")
    other.tell("publish a..b x")
    other.wait_for("answer 2 400 .*empty token.*")
    other.tell("subscribe a..b")
    other.wait_for(r"refused a\.\.b 400 .*")
    one.tell("unsubscribe room.a")
    one.wait_for("result unsubscribe 0 ")
    one.tell("publish room.a to nobody")
    one.wait_for("answer 2 200 ")
    one.tell("say hello")
    one.wait_for("result say 0 ")
    one.tell("subscribe room.b")
    one.wait_for("subscribed room.b 0 ")
    assert not [line for line in one.seen if "nobody" in line]


@pytest.mark.parametrize("valgrind", [False, True])
def test_over_a_restart_it_misses_nothing(drive: Drive, tmp_path: Path, valgrind: bool) -> None:
    if valgrind and VALGRIND is None:
        pytest.skip("valgrind is missing")
    port, devices = free_port(), free_port()

    def start() -> ServerProcess:
        return ServerProcess(
            *("--tcp", f"tcp:{devices}:interface=127.0.0.1", "--history", "room.*"),
            *("--history-store", "sqlite:history.db"),
            cwd=tmp_path,
            listen=["--port", f"tcp:{port}:interface=127.0.0.1"],
            endpoints=2,
        )

    server = start()
    try:
        driver = drive(devices, valgrind=valgrind)
        driver.tell("subscribe room.a")
        driver.tell("subscribe plain")
        driver.wait_for("subscribed room.a .*")
        for number in range(3):
            http_request(port, "POST", "/publish", message("chat", {"publish": "room.a"}, f"{number}"))
        driver.wait_for("message chat 1 2")
        assert server.stop() == -signal.SIGTERM
        server.check()
        driver.wait_for("state waiting 1001 server is going away")
        driver.tell("publish room.a x")
        driver.wait_for("result publish -3 ")
        time.sleep(0.5)  # for some attempts that fail
        server = start()
        driver.wait_for("state ready 0 ")
        for number in range(3, 40):
            http_request(port, "POST", "/publish", message("chat", {"publish": "room.a"}, f"{number}"))
        driver.wait_for("message chat 2 39")
        bodies = [line.split()[-1] for line in driver.seen if line.startswith("message")]
        assert bodies == [f"{number}" for number in range(40)]
        assert "subscribed room.a 1 " in driver.seen
        assert not [line for line in driver.seen if line.startswith("missed")]
    finally:
        server.check()


def test_what_is_lost_for_good_is_told(drive: Drive, tmp_path: Path) -> None:
    port, devices = free_port(), free_port()

    def start() -> ServerProcess:
        return ServerProcess(
            *("--tcp", f"tcp:{devices}:interface=127.0.0.1", "--history", "room.*"),
            cwd=tmp_path,
            listen=["--port", f"tcp:{port}:interface=127.0.0.1"],
            endpoints=2,
        )

    server = start()
    try:
        driver = drive(devices)
        driver.tell("subscribe room.a")
        driver.wait_for("subscribed room.a 0 ")
        http_request(port, "POST", "/publish", message("chat", {"publish": "room.a"}, "before"))
        driver.wait_for("message chat 6 before")
        server.stop()
        server.check()
        server = start()
        driver.wait_for("missed room.a 0 ")
        http_request(port, "POST", "/publish", message("chat", {"publish": "room.a"}, "after"))
        driver.wait_for("message chat 5 after")
    finally:
        server.check()


def test_it_logs_in(serve: Serve, drive: Drive, tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("alice:wonderland\n", encoding="ascii")
    _, port = serving(serve, "--auth", "file:passwords", "--presence", "room")
    driver = drive(port, "user=alice", "password=wonderland")
    driver.tell("subscribe room")
    driver.wait_for("state login 0 ")
    driver.wait_for("state ready 0 ")
    driver.wait_for("subscribed room .*")
    wrong = drive(port, "user=alice", "password=x", "last=5000")
    wrong.wait_for("error - 401 .*")
    wrong.wait_for("state waiting 1008 .*")
    stranger = drive(port)
    stranger.tell("publish room x")
    stranger.wait_for("answer 1 401 log in first|result publish -3 ")


def test_heartbeats_keep_it_connected(serve: Serve, drive: Drive) -> None:
    server, port = serving(serve, "--ping-interval", "1", "--ping-timeout", "4")
    driver = drive(port)
    driver.tell("subscribe room")
    driver.wait_for("subscribed room 0 ")
    time.sleep(6.5)
    driver.tell("ping")
    driver.wait_for("answer 1 200 ")
    assert "does not answer" not in server.log
    assert not [line for line in driver.seen if line.startswith("state waiting")]


# False servers


@contextmanager
def false_server(*scripts: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server of which each connection does one thing, the last again and again; yields its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()
    current: list[socket.socket] = []

    def work() -> None:
        number = 0
        while not ended.is_set():
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            with sock, suppress(OSError):
                sock.settimeout(PATIENCE)
                current[:] = [sock]
                scripts[min(number, len(scripts) - 1)](sock)
            number += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        ended.set()
        for sock in (listening, *current):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(TIME_LIMIT)


def sends(data: bytes, *, pieces: int | None = None) -> Callable[[socket.socket], object]:
    """Return a script that sends bytes, at once or in pieces, and then answers subscriptions until the client goes."""

    def script(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin in range(0, len(data), pieces or len(data) or 1):
            sock.sendall(data[begin : begin + (pieces or len(data))])
        answer(sock)

    return script


def answer(sock: socket.socket) -> None:
    """Answer what asks for a receipt."""
    seen = b""
    while data := sock.recv(4096):
        seen += data
        for token in re.findall(rb"receipt:(\S+)\r\n", seen):
            sock.sendall(framed(b"LHTTP/1.0 receipt\r\nreceipt-id:" + token + b"\r\n\r\n"))
        seen = b"" if seen.endswith(b"\n\r\n") else seen


CHAT = b"LHTTP/1.0 chat\r\npublish:room\r\n\r\n"

MALFORMED = [
    *(b"007\n", b"+5\nhello", b"-1\n", b" 1\nx", b"\n", b"x\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"12345678901\n"),
    *(
        b"99999999999999999999999\n",
        b"5\nhello",
        b"13\nLHTTP/1.0 x\n\n",
        b"15\nLHTTP/1.0 \xff\r\n\r\n",
        b"12\nLHTTP/1.1 x\r",
    ),
    *(framed(b"LHTTP/1.0 x\r\nno colon\r\n\r\n"), framed(b"LHTTP/1.0 x\r\na:\xc3\r\n\r\n"), framed(b"\0" * 300)),
    framed(b"LHTTP/1.0 " + b"c" * 65 + b"\r\n\r\n"),
]
STRANGE = [
    framed(b"LHTTP/1.0 close\r\n\r\n"),
    framed(b"LHTTP/1.0 close\r\ncode:99999999999\r\nreason:" + b"x" * 500 + b"; retry-after=99999999\r\n\r\n"),
    framed(b"LHTTP/1.0 close\r\ncode:1001\r\nreason:; retry-after=0.0015\r\n\r\n"),
    framed(b"LHTTP/1.0 close\r\ncode:1001\r\nreason:; retry-after=\r\n\r\n"),
    framed(b"LHTTP/1.0 close\r\ncode:1001\r\nreason:; retry-after=0.05\r\n\r\n"),
]
HARMLESS = [
    framed(b"LHTTP/1.0 receipt\r\nreceipt-id:s99.1\r\n\r\n", b"LHTTP/1.0 receipt\r\nreceipt-id:s0\r\n\r\n"),
    framed(b"LHTTP/1.0 receipt\r\nreceipt-id:\r\n\r\n", b"LHTTP/1.0 receipt\r\n\r\n"),
    framed(b"LHTTP/1.0 receipt\r\nreceipt-id:p4294967297\r\n\r\n", b"LHTTP/1.0 receipt\r\nreceipt-id:p1\r\n\r\n"),
    framed(b"LHTTP/1.0 receipt\r\nreceipt-id:s0.1\r\nposition:room=" + b"x" * 900 + b"\r\n\r\n"),
    framed(b"LHTTP/1.0 receipt\r\nreceipt-id:s0.1\r\nposition:=== room= =room room=e-1\r\nmissed:room\r\n\r\n"),
    framed(b"LHTTP/1.0 error\r\n\r\n", b"LHTTP/1.0 error\r\nstatus:-1\r\nreceipt-id:s0.1\r\nreason:\xc3\xa4\r\n\r\n"),
    framed(b"LHTTP/1.0 error\r\nstatus:403\r\nunsubscribed:" + b"x" * 700 + b"\r\n\r\n"),
    framed(b"LHTTP/1.0 missed\r\nchannel:room\r\nposition:" + b"9" * 55 + b"\r\n\r\n"),
    framed(b"LHTTP/1.0 missed\r\nchannel:nowhere\r\n\r\n", b"LHTTP/1.0 missed\r\n\r\n", b"LHTTP/1.0 login\r\n\r\n"),
    framed(b"LHTTP/1.0 chat\r\noffset:99999999999999999999\r\nafter:x\r\npublish:room\r\n\r\n"),
    framed(b"LHTTP/1.0 chat\r\noffset:7\r\nafter:0\r\noffset-of:other\r\npublish:room\r\n\r\n"),
    framed(b"LHTTP/1.0 chat\r\noffset:7\r\nafter:0\r\npublish:\r\n\r\n", b"LHTTP/1.0 chat\r\n\r\n"),
    b"0\n" * 3000,
    framed(CHAT + b"x" * 5_000),
    b"4294967\n" + b"x" * 4_294_967,
]


@pytest.mark.parametrize("valgrind", [False, True])
def test_a_false_server_does_it_no_harm(drive: Drive, valgrind: bool) -> None:
    if valgrind and VALGRIND is None:
        pytest.skip("valgrind is missing")
    attacks = [*MALFORMED, *STRANGE]
    with false_server(*map(sends, attacks), sends(framed(CHAT + b"all is well"))) as port:
        driver = drive(port, "last=60", valgrind=valgrind)
        driver.tell("subscribe room")
        driver.wait_for("message chat 11 all is well")
        ends = [line for line in driver.seen if line.startswith("state waiting")]
        assert len(ends) == len(attacks)
        assert all(" 1002 " in line for line in ends[: len(MALFORMED)])


@pytest.mark.parametrize("data", HARMLESS)
def test_what_is_only_strange_is_left_alone(drive: Drive, data: bytes) -> None:
    for pieces in (None, 1) if len(data) < 10_000 else (None,):
        with false_server(sends(data + framed(CHAT + b"still here"), pieces=pieces)) as port:
            driver = drive(port)
            driver.tell("subscribe room")
            driver.wait_for("message chat 10 still here")
            assert not [line for line in driver.seen if line.startswith("state waiting")]


def test_a_message_that_is_too_large_is_told_and_left_out(drive: Drive) -> None:
    with false_server(sends(framed(CHAT + b"x" * 5_000, CHAT + b"small"))) as port:
        driver = drive(port)
        driver.wait_for("error - 413 .*")
        driver.wait_for("message chat 5 small")


def test_the_largest_message_that_fits_comes(drive: Drive) -> None:
    body = b"x" * (1024 - 11 - len(CHAT))
    with false_server(sends(framed(CHAT + body) * 5 + framed(CHAT + b"end"))) as port:
        driver = drive(port)
        driver.wait_for("message chat 3 end")
        assert len([line for line in driver.seen if line.startswith(f"message chat {len(body)} ")]) == 5


def test_any_bytes_at_all_do_it_no_harm(drive: Drive) -> None:
    chance = random.Random(14)
    streams = []
    for _ in range(150):
        stream = bytearray(b"".join(chance.choice([*HARMLESS[:12], *STRANGE, framed(CHAT)]) for _ in range(3)))
        for _ in range(chance.randint(0, 4)):
            stream[chance.randrange(len(stream))] = chance.choice(b"0123456789\r\n:=- \xff")
        streams.append(bytes(stream))

    def script(data: bytes) -> Callable[[socket.socket], object]:
        def send(sock: socket.socket) -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answer(sock)

        return send

    with false_server(*map(script, streams), sends(framed(CHAT + b"all is well"))) as port:
        driver = drive(port, "last=51")
        driver.tell("subscribe room")
        driver.wait_for("message chat 11 all is well")


def test_a_silent_server_is_asked_and_then_left(drive: Drive) -> None:
    got: list[bytes] = []

    def silent(sock: socket.socket) -> None:
        while data := sock.recv(4096):
            got.append(data)

    with false_server(silent) as port:
        driver = drive(port, "silence=200", "patience=200")
        driver.wait_for("state waiting 1006 the server does not answer")
        driver.wait_for("state ready 0 ")
        assert b"LHTTP/1.0 ping\r\n" in b"".join(got)


def test_a_login_that_is_not_answered_ends(drive: Drive) -> None:
    with false_server(lambda sock: [*iter(lambda: sock.recv(4096), b"")]) as port:
        driver = drive(port, "token=x", "patience=200")
        driver.wait_for("state login 0 ")
        driver.wait_for("state waiting 1006 the server does not answer")


def test_what_waits_for_an_answer_is_told_of_the_end(drive: Drive) -> None:
    def hang_up(sock: socket.socket) -> None:
        seen = b""
        while b"publish" not in seen and (data := sock.recv(4096)):
            seen += data

    with false_server(hang_up, answer) as port:
        driver = drive(port)
        driver.wait_for("state ready 0 ")
        driver.tell("publish room x")
        driver.wait_for("answer 1 0 the connection was lost")
        driver.wait_for("state ready 0 ")
        driver.tell("publish room x")
        driver.wait_for("answer 2 200 ")


def test_buffers_and_tables_that_are_full_say_so(drive: Drive) -> None:
    with false_server(lambda sock: [time.sleep(0.01) for _ in iter(lambda: sock.recv(1), b"")]) as port:
        driver = drive(port)
        driver.wait_for("state ready 0 ")
        driver.tell("publish room " + "x" * 1_500)
        driver.wait_for("result publish -2 ")
        driver.tell("subscribe " + "x" * 64)
        driver.wait_for("result subscribe -1 ")
        for number, result in enumerate((0, 0, 0, -2)):
            driver.tell(f"subscribe room.{number}")
            driver.wait_for(f"result subscribe {result} ")
        for result in (2, 3, 4, 5, -2):  # 1 was for the one that did not fit
            driver.tell("publish room x")
            driver.wait_for(f"result publish {result} ")
        driver.tell("say two words")
        driver.wait_for("result say 0 ")


def test_where_nobody_listens_it_tries_less_and_less_often(drive: Drive) -> None:
    port = free_port()
    driver = drive(port, "last=200")
    driver.tell("subscribe room")
    driver.tell("ping")
    driver.wait_for("result ping -3 ")
    time.sleep(1.0)
    with socket.create_server(("127.0.0.1", port)) as listening:
        listening.settimeout(PATIENCE)
        sock, _ = listening.accept()
        with sock:
            sock.settimeout(PATIENCE)
            driver.wait_for("state ready 0 ")
            seen = b""
            while b"subscribe:room\r\n" not in seen:
                data = sock.recv(4096)
                assert data, (seen, driver.seen)
                seen += data


def test_the_example_works(serve: Serve, tmp_path: Path) -> None:
    server, port = serving(serve)
    program = compile_c(CLIENT / "example.c", tmp_path / "example", "-std=c99", *SANITIZERS)
    process = subprocess.Popen(
        [program, "127.0.0.1", str(port), "room"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("hello\n")
        wait_until(lambda: http_request(server.port, "GET", "/health")[0] == 200, "the server")
        assert process.stdout.readline() == "line: hello\n"
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
