"""A process that takes the place of a running one, on the same sockets: ``--upgrade``."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration._server import TIME_LIMIT, RawClient, ServerProcess, http_request, message, script, wait_until

Serve = Callable[..., ServerProcess]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def callers(*addresses: int | str) -> Iterator[list[str]]:
    """Within the context, each address is asked again and again; yields what each answer was."""
    seen: list[str] = []
    stopped = threading.Event()

    def ask(address: int | str) -> None:
        while not stopped.is_set():
            sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
            with sock:
                sock.settimeout(TIME_LIMIT)
                try:
                    sock.connect(address if isinstance(address, str) else ("127.0.0.1", address))
                    sock.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    seen.append(sock.recv(12).decode("ascii"))
                except OSError as error:
                    seen.append(repr(error))

    threads = [threading.Thread(target=ask, args=(address,)) for address in addresses]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        for thread in threads:
            thread.join(TIME_LIMIT)


def test_one_process_after_another_takes_the_sockets_and_nobody_is_refused(serve: Serve, tmp_path: Path) -> None:
    port, path = free_port(), str(tmp_path / "http.sock")
    listen = ("--listen", f"tcp:{port}:interface=127.0.0.1", "--listen", f"unix:{path}")
    options = ("--tcp", f"tcp:{free_port()}:interface=127.0.0.1", "--upgrade", "next.sock")
    server = serve(*options, listen=listen, endpoints=3)
    wait_until((tmp_path / "next.sock").exists, "the socket for the next process")
    assert stat.S_IMODE((tmp_path / "next.sock").stat().st_mode) == 0o600
    inode = Path(path).stat().st_ino
    with callers(port, path) as seen:
        for _ in range(2):
            with RawClient(port) as client:
                client.subscribe("room")
                before, server = server, serve(*options, listen=listen, endpoints=3)
                assert before.process.wait(TIME_LIMIT) == 0
                assert client.receive_close()[0] == 1001
            assert f"process {server.pid} has taken over: stopping" in before.log
            count = len(seen)
            wait_until(lambda count=count: len(seen) > count + 20, "more answers")
    assert set(seen) == {"HTTP/1.1 200"}
    assert Path(path).stat().st_ino == inode
    with RawClient(port) as client, RawClient(port) as other:
        other.subscribe("room")
        client.send(message("chat", {"publish": "room"}, "hello"))
        assert other.receive()[1].endswith(b"hello")
    server.stop()
    assert sorted(each.name for each in tmp_path.iterdir() if "sock" in each.name) == []


def test_what_one_process_has_stored_is_there_in_the_next(serve: Serve, tmp_path: Path) -> None:
    """The file belongs to one process: the running one ends first, and clients wait in the queue of the socket."""
    listen = ("--listen", f"tcp:{free_port()}:interface=127.0.0.1")
    options = ("--history", "room", "--history-store", "sqlite:history.db", "--upgrade", "next.sock")
    server = serve(*options, listen=listen)
    wait_until((tmp_path / "next.sock").exists, "the socket for the next process")
    for number in range(3):
        assert (
            http_request(server.port, "POST", "/publish", message("chat", {"publish": "room"}, f"{number}"))[0] == 200
        )
        before, server = server, serve(*options, listen=listen)
        assert before.process.wait(TIME_LIMIT) == 0
        wait_until(lambda server=server: http_request(server.port, "GET", "/ready")[0] == 200, "it is ready")
    with RawClient(server.port) as client:
        client.send(message("chat", {"subscribe": "room", "last": "10"}))
        assert [client.receive()[1][-1:] for _ in range(3)] == [b"0", b"1", b"2"]


def run(tmp_path: Path, *options: str) -> str:
    """Return what a server says that cannot start."""
    command = [script("twistd"), "-n", "--pidfile=", "lhttp", "--port", "tcp:0:interface=127.0.0.1", *options]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIME_LIMIT)
    assert result.returncode == 1, result
    return result.stderr.strip().splitlines()[-1]


def test_what_is_no_server_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="ascii")
    assert run(tmp_path, "--upgrade", "file").endswith("file is not a socket; name another path, or remove it")
    assert (tmp_path / "file").read_text("ascii") == "mine"
    assert run(tmp_path, "--upgrade", "nowhere/socket").endswith("may not make files in nowhere, or it is not there")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "it hung up"),
        (b"nonsense\n", "Expecting value"),
        (b'{"sockets": ["tcp:1"], "pid": 1}\n', "1 sockets were announced, 0 came"),
        (b"[" * 200_000, "it sent too much"),
    ],
)
def test_a_server_that_hands_over_nothing_is_told(tmp_path: Path, answer: bytes, words: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "next.sock"))
        listening.listen()

        def speak() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.recv(100)
                sock.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        said = run(tmp_path, "--upgrade", "next.sock")
        thread.join(TIME_LIMIT)
    assert "does not hand over its sockets" in said and words in said


def test_the_socket_of_a_server_that_is_gone_does_not_matter(serve: Serve, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "next.sock"))
    server = serve("--upgrade", "next.sock")
    assert http_request(server.port, "GET", "/live")[0] == 200


def test_a_stranger_at_the_socket_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    listen = ("--listen", f"tcp:{free_port()}:interface=127.0.0.1")
    server = serve("--upgrade", "next.sock", listen=listen)
    wait_until((tmp_path / "next.sock").exists, "the socket for the next process")
    for order in (b"nonsense\n", b"[]\n", b'{"go": "later"}\n', b'{"take": 2}\n', b"x" * 100_000):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TIME_LIMIT)
            sock.connect(str(tmp_path / "next.sock"))
            try:
                sock.sendall(order)
                assert sock.recv(1) == b""
            except (BrokenPipeError, ConnectionResetError):
                pass
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIME_LIMIT)
        sock.connect(str(tmp_path / "next.sock"))
        sock.sendall(b'{"take": 1}\n')
        _, descriptors, _, _ = socket.recv_fds(sock, 1, 1)
    for descriptor in descriptors:  # whoever takes the sockets and hangs up has changed nothing
        os.close(descriptor)
    assert http_request(server.port, "GET", "/live")[0] == 200


SLOW = """
import os
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from lhttp_tx import processor

@processor("slow")
def slow(request):
    waiting = Deferred()

    def look():
        if os.path.exists("go on"):
            waiting.callback(None)
        else:
            reactor.callLater(0.02, look)

    look()
    return waiting.addCallback(lambda _: request.reply("done"))
"""


@pytest.mark.parametrize("runner", [("twistd", "-n", "--pidfile="), ("twist", "--log-format=text")])
@pytest.mark.parametrize("option", ["--listen", "--tcp", "--admin"])
def test_a_port_in_use_leaves_the_running_server_as_it_is(
    serve: Serve, tmp_path: Path, runner: tuple[str, ...], option: str
) -> None:
    """Without NATS, too: the new process opens its ports before it tells the running one to stop."""
    listen = ("--listen", f"tcp:{free_port()}:interface=127.0.0.1", "--listen", f"unix:{tmp_path / 'http.sock'}")
    server = serve("--upgrade", "next.sock", listen=listen, endpoints=2)
    wait_until((tmp_path / "next.sock").exists, "the socket for the next process")
    with socket.socket() as busy, RawClient(server.port) as client:
        client.subscribe("room")
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        clash = f"tcp:{busy.getsockname()[1]}:interface=127.0.0.1"
        command = [script(runner[0]), *runner[1:], "lhttp", *listen, "--upgrade", "next.sock", option, clash]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIME_LIMIT)
        assert result.returncode == 1 and "Address already in use" in result.stdout + result.stderr
        client.send(message("chat", {"publish": "room"}, "hello"))
        assert client.receive()[1].endswith(b"hello")
    assert "has taken over" not in server.log
    assert http_request(server.port, "GET", "/ready")[0] == 200
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "http.sock"))


def test_sighup_while_it_waits_makes_the_new_process_read_the_files_again(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="ascii")
    (tmp_path / "token").write_text("0123456789abcdef-old", encoding="ascii")
    port = free_port()
    listen = ("--listen", f"tcp:{port}:interface=127.0.0.1")
    options = ("--processor", "slow.py:slow", "--publish-token-file", "token", "--upgrade", "next.sock")
    first = serve(*options, listen=listen)
    wait_until((tmp_path / "next.sock").exists, "the socket for the next process")
    with RawClient(port) as client:
        client.send(message("slow"))
        command = [script("twistd"), "-n", "--pidfile=", "lhttp", *listen, *options]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as second:
            try:
                first.wait_for_log("has taken over: stopping")
                (tmp_path / "token").write_text("0123456789abcdef-new", encoding="ascii")
                second.send_signal(signal.SIGHUP)
                (tmp_path / "go on").touch()
                assert client.receive()[1].endswith(b"done")
                assert first.process.wait(TIME_LIMIT) == 0
                assert second.stdout is not None
                for line in second.stdout:
                    if "SIGHUP: renewed: publish token" in line:
                        break
                headers = {"Authorization": "Bearer 0123456789abcdef-new"}
                body = message("chat", {"publish": "room"}, "hello")
                assert http_request(port, "POST", "/publish", body, headers)[0] == 200
            finally:
                second.kill()


def test_a_taken_unix_socket_gets_the_lock_and_the_mode_of_the_new_process(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    listen = ("--listen", f"unix:{path}")

    def follow(before: ServerProcess | None, *options: str, mode: str = "") -> ServerProcess:
        after = serve("--upgrade", "next.sock", *options, listen=(listen[0], listen[1] + mode))
        if before is not None:
            assert before.process.wait(TIME_LIMIT) == 0
        wait_until((tmp_path / "next.sock").exists, "the socket for the next process")
        assert (tmp_path / "http.sock.lock").readlink() == Path(str(after.pid))
        return after

    first = follow(None)
    path.chmod(0o640)  # by the operator
    second = follow(first)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    third = follow(second, "--unix-mode", "600")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    follow(third, "--unix-group", str(os.getegid()), mode=":mode=620")
    assert stat.S_IMODE(path.stat().st_mode) == 0o620
    command = [script("twistd"), "-n", "--pidfile=", "lhttp", *listen]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIME_LIMIT)
    assert result.returncode == 1 and "another process listens there" in result.stdout + result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
def test_root_may_replace_the_server_of_the_user_that_it_changes_to(serve: Serve) -> None:
    import tempfile

    listen = ("--listen", f"tcp:{free_port()}:interface=127.0.0.1")
    runner = ("twistd", "-n", "--pidfile=", "--uid=65534", "--gid=65534")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chown(name, 65534, 65534)
        path = Path(name, "next.sock")
        first = serve("--upgrade", str(path), listen=listen, runner=runner, fork=False)
        wait_until(path.exists, "the socket for the next process")
        second = serve("--upgrade", str(path), listen=listen, runner=runner, fork=False)
        assert first.process.wait(TIME_LIMIT) == 0
        second.stop()
