"""Who may take the sockets of a running process, and which endpoint gets which socket."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent, globalLogPublisher

from lhttp_tx.ports.listening import close_now
from lhttp_tx.ports.successor import Successor
from lhttp_tx.ports.taken import Taken
from lhttp_tx.ports.takeover import Takeover, TakeoverFailed


class Listening:
    """A port."""

    connected = True
    _shouldShutdown = True
    reads = True

    def fileno(self) -> int:
        return 99

    def stopReading(self) -> None:
        self.reads = False


class Connection:
    """The transport of a successor."""

    def __init__(self) -> None:
        self.written = b""
        self.descriptors: list[int] = []
        self.open = True

    def sendFileDescriptor(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)

    def write(self, data: bytes) -> None:
        self.written += data

    def loseConnection(self) -> None:
        self.open = False


class Running:
    """A process that runs, with one port."""

    def __init__(self, tmp_path: Path) -> None:
        self.told: list[bool] = []
        self.takeover = Takeover(str(tmp_path / "next"), MemoryReactorClock(), replaced=self.told.append)
        self.takeover.startService()
        self.port: Any = Listening()
        self.takeover._listens("tcp:1", self.port)

    def successor(self, pid: int, *orders: object) -> tuple[Successor, Connection]:
        successor, connection = Successor(self.takeover), Connection()
        successor.pid, successor.transport = pid, connection  # type: ignore[assignment]
        for order in orders:
            successor.lineReceived(json.dumps(order).encode("ascii"))
        return successor, connection


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(tmp_path)


TAKE = {"take": 1}


def test_one_process_at_a_time_takes_over(running: Running) -> None:
    first, taken = running.successor(7, TAKE)
    assert taken.descriptors == [99] and taken.open
    _, other = running.successor(8, TAKE, {"go": "now"})
    assert (json.loads(other.written), other.descriptors, other.open) == ({"busy": 7}, [], False)
    assert running.told == [] and running.port.reads
    first.connectionLost()
    third, taken = running.successor(9, TAKE)
    assert taken.descriptors == [99]
    third.lineReceived(b'{"go": "soon"}')
    assert running.told == [False] and not running.port.reads and not running.port._shouldShutdown
    third.connectionLost()
    _, late = running.successor(10, TAKE)
    assert json.loads(late.written) == {"busy": 9} and not late.descriptors


def test_who_has_not_taken_stops_nobody(running: Running) -> None:
    running.successor(7, {"go": "now"})
    assert running.told == [] and running.port.reads


def test_a_process_that_stops_leaves_its_sockets_to_the_one_that_starts(running: Running) -> None:
    """Otherwise it would shut down the sockets, which the new process has, too."""
    running.successor(7, TAKE)
    running.takeover.stopService()
    assert not running.port._shouldShutdown
    assert running.port.reads, "it accepts until it stops"


def test_a_process_that_stops_gives_nothing_any_more(running: Running) -> None:
    running.takeover.stopService()
    _, late = running.successor(7, TAKE)
    assert (late.descriptors, late.open) == ([], False)
    assert running.port._shouldShutdown


def test_the_new_process_says_who_takes_over_already(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "next"))
        listening.listen()

        def answer() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.recv(100)
                sock.sendall(b'{"busy": 4711}\n')

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(TakeoverFailed, match="process 4711 takes over at"):
            Takeover(str(tmp_path / "next"), None, replaced=print).take()
        thread.join(30)


def test_a_path_that_is_too_long_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(TakeoverFailed, match="too long for a UNIX socket; choose one of at most 95 bytes"):
        Takeover(f"/tmp/{'x' * 91}", None, replaced=print).take()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yields a function that listens on an endpoint in a process that has taken a socket, and closes it afterwards."""
    monkeypatch.chdir(tmp_path)
    reactor = SelectReactor()
    ports: list[Any] = []

    def listen(taken: Taken, description: str) -> Any:
        make = taken.maker(serverFromString)
        outcome: list[Any] = []
        make(reactor, description).listen(Factory()).addBoth(outcome.append)
        if hasattr(outcome[0], "raiseException"):
            outcome[0].raiseException()
        ports.append(outcome[0])
        return outcome[0]

    yield listen
    for port in ports:
        close_now(port)
    for each in reactor._internalReaders.copy():  # type: ignore[attr-defined]
        reactor.removeReader(each)
        each.connectionLost(None)


def test_a_socket_with_the_same_address_and_other_options_is_taken(place: Any) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        number = sock.getsockname()[1]
        inode = os.fstat(sock.fileno()).st_ino
        taken = Taken(lambda: False)
        taken.add(f"tcp:{number}:interface=127.0.0.1", os.dup(sock.fileno()))
        port = place(taken, f"tcp:{number}:interface=127.0.0.1:backlog=9")
    assert os.fstat(port.fileno()).st_ino == inode


def test_a_unix_socket_with_another_mode_is_taken(place: Any) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("http.sock")
        sock.listen()
        inode = os.fstat(sock.fileno()).st_ino
        taken = Taken(lambda: False)
        taken.add("unix:http.sock", os.dup(sock.fileno()))
        port = place(taken, "unix:http.sock:mode=600")
    assert os.fstat(port.fileno()).st_ino == inode
    assert "unix:http.sock:mode=600" in taken.adopted, "the file is removed at the end"


@pytest.mark.parametrize("alone", [False, True])
def test_what_was_taken_is_not_in_the_way_of_a_wider_address(place: Any, alone: bool) -> None:
    taken = Taken(lambda: alone)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        number = sock.getsockname()[1]
        taken.add(f"tcp:{number}:interface=127.0.0.1", os.dup(sock.fileno()))
    if alone:
        assert place(taken, f"tcp:{number}").getHost().host == "0.0.0.0"
        return
    with pytest.raises(CannotListenError):
        place(taken, f"tcp:{number}")
    taken.close_rest()


def test_the_file_of_a_socket_that_nobody_wants_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    taken = Taken(lambda: True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        taken.add(f"unix:{path}", os.dup(sock.fileno()))
    (tmp_path / "http.sock.lock").symlink_to("1")
    taken.close_rest()
    assert list(tmp_path.iterdir()) == []


def test_it_waits_for_the_previous_process_however_long_that_takes(tmp_path: Path) -> None:
    """If it gave up, nobody would serve: the previous process cannot be told to continue."""
    ours, theirs = socket.socketpair()
    takeover = Takeover(str(tmp_path / "next"), None, replaced=print, patience=0.01)
    takeover._running, takeover._running_pid = ours, 4711
    told: list[str] = []
    twice = threading.Event()

    def observe(event: dict[str, Any]) -> None:
        told.append(formatEvent(event))
        if len(told) == 2:
            twice.set()

    def end() -> None:
        twice.wait(30)
        theirs.close()

    globalLogPublisher.addObserver(observe)
    thread = threading.Thread(target=end)
    thread.start()
    try:
        takeover.privilegedStartService()
    finally:
        globalLogPublisher.removeObserver(observe)
        thread.join(30)
    assert all("clients wait until process 4711 ends" in line for line in told[:2]) and len(told) >= 2


def test_where_both_can_serve_the_other_is_not_told_before_the_start(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        takeover = Takeover(str(tmp_path / "next"), None, replaced=print)
        takeover._running = ours
        takeover.privilegedStartService()
        assert not takeover._be_alone()
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        takeover.go()
        assert json.loads(theirs.recv(100)) == {"go": "soon", "pid": os.getpid()}


def test_a_younger_socket_with_the_same_inode_number_stays(tmp_path: Path) -> None:
    reactor = SelectReactor()
    path = tmp_path / "next"
    takeover = Takeover(str(path), reactor, replaced=print)
    takeover.startService()
    takeover.started()
    port: Any = takeover._port
    os.utime(path, ns=(1, 1))  # as if it were made at another time
    takeover.stopService()
    assert path.exists()
    close_now(port)
    for each in reactor._internalReaders.copy():  # type: ignore[attr-defined]
        reactor.removeReader(each)
        each.connectionLost(None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("known", [False, True])
def test_root_takes_from_the_user_that_it_changes_to_and_from_no_other(tmp_path: Path, known: bool) -> None:
    path = tmp_path / "next"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    os.chown(path, 65534, 65534)
    takeover = Takeover(str(path), None, replaced=print, owners=(65534 if known else 65533,))
    if known:
        takeover.take()  # nobody listens there
    else:
        with pytest.raises(TakeoverFailed, match="belongs to another user"):
            takeover.take()
