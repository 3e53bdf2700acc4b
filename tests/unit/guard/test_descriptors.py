"""lhttp_tx.guard.descriptors: the limit on open files, and connections that are refused because of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.tcp import Port

from lhttp_tx.guard.descriptors import AcceptGuard, raise_limit

UNLIMITED = -1
INFINITY = 2**63 - 1


# The limit


def raised(connections: int, limits: tuple[int, int]) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []
    raise_limit(connections, 100, limits=limits, set_limits=calls.append)
    return calls


@pytest.mark.parametrize("hard", [1_100, 4_096, UNLIMITED])
def test_a_low_limit_is_raised_to_what_is_needed(hard: int, lines: list[str]) -> None:
    assert raised(1_000, (256, hard)) == [(1_100, hard)]
    assert lines == ["info: open files: limit raised from 256 to 1100"]


def test_where_that_is_not_allowed_it_is_raised_as_far_as_it_goes(lines: list[str]) -> None:
    assert raised(1_000, (256, 512)) == [(512, 512)]
    assert lines == [
        "info: open files: limit raised from 256 to 512",
        (
            "warn: open files: the limit of 512 is enough for 412 connections, not for 1000; raise the hard limit "
            "(ulimit -Hn, LimitNOFILE of systemd) or lower --max-connections"
        ),
    ]


def test_what_cannot_be_raised_is_a_warning(lines: list[str]) -> None:
    assert raised(1_000, (512, 512)) == []
    told = "warn: open files: the limit of 512 is enough for 412 connections"
    assert [line.partition(",")[0] for line in lines] == [told]


@pytest.mark.parametrize("limits", [(1_100, 1_100), (4_096, 8_192), (UNLIMITED, UNLIMITED)])
def test_a_limit_that_is_high_enough_stays(limits: tuple[int, int], lines: list[str]) -> None:
    assert raised(1_000, limits) == []
    assert lines == []


def test_without_a_limit_on_connections_all_that_is_allowed_is_taken(lines: list[str]) -> None:
    assert raised(0, (256, 4_096)) == [(4_096, 4_096)]
    assert lines == ["info: open files: limit raised from 256 to 4096"]


def test_without_any_limit_there_is_nothing_to_do(lines: list[str]) -> None:
    assert raised(0, (256, UNLIMITED)) == []
    assert lines == []


def test_a_system_that_refuses_is_no_error(lines: list[str]) -> None:
    def refuse(limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    raise_limit(1_000, 100, limits=(256, 4_096), set_limits=refuse)
    assert lines == [
        "warn: open files: cannot raise the limit of 256: not allowed to raise maximum limit",
        (
            "warn: open files: the limit of 256 is enough for 192 connections, not for 1000; raise the hard limit "
            "(ulimit -Hn, LimitNOFILE of systemd) or lower --max-connections"
        ),
    ]


# Connections


class Reactor(Clock):
    """Knows which ports are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reading: set[Any] = set()

    def addReader(self, port: Any) -> None:
        self.reading.add(port)

    def removeReader(self, port: Any) -> None:
        self.reading.discard(port)


class Socket:
    """A socket that listens: what *accept* returns or raises is prepared."""

    def __init__(self) -> None:
        self.accept: Callable[[], Any] = self.nobody
        self.file = os.open(os.devnull, os.O_RDONLY)

    def nobody(self) -> Any:
        raise OSError(errno.EAGAIN, "nobody")

    def fileno(self) -> int:
        return self.file


class Client:
    """A socket that was accepted."""

    closed = False

    def __init__(self, file: int) -> None:
        self.fileno = lambda: file  # some versions of Twisted set a flag on it

    def close(self) -> None:
        self.closed = True


class Asked(Factory):
    """Counts how often it is asked for a protocol, and has none to give."""

    def __init__(self) -> None:
        self.count = 0

    def buildProtocol(self, addr: Any) -> None:
        self.count += 1


class Door:
    """A port whose socket, reactor and limit are of the test's own making."""

    def __init__(self, limit: int, reserve: int = 2) -> None:
        self.limit = limit
        self.reactor = Reactor()
        self.factory = Asked()
        self.socket = Socket()
        self.guard = AcceptGuard(self.reactor, reserve, limits=lambda: (self.limit, INFINITY))
        self.port = Port(0, self.factory, reactor=self.reactor)
        self.port.socket = self.socket
        self.port.fileno = self.socket.fileno
        self.port.connected = True
        self.port.numberAccepts = 1
        self.port.startReading()
        self.guard.watch(self.port)

    def knock(self) -> Client:
        """Let one client come."""
        client = Client(self.socket.file)
        coming = [(client, ("127.0.0.1", 1))]
        self.socket.accept = lambda: coming.pop() if coming else self.socket.nobody()
        self.port.doRead()
        return client

    def fail(self, number: int) -> None:
        """Let accepting fail once."""

        def accept() -> Any:
            raise OSError(number, os.strerror(number))

        self.socket.accept = accept
        self.port.doRead()


@pytest.fixture
def door() -> Iterator[Callable[[int], Door]]:
    """Makes a port where the limit is so many descriptors above those that are in use."""
    doors: list[Door] = []

    def make(room: int) -> Door:
        door = Door(1_000_000)
        doors.append(door)
        lowest = os.dup(door.socket.file)
        os.close(lowest)
        door.limit = lowest + room
        return door

    yield make
    for made in doors:
        os.close(made.socket.file)


def test_a_connection_is_let_in_while_there_is_room(door: Callable[[int], Door], lines: list[str]) -> None:
    opened = door(3)
    opened.knock()
    assert (opened.factory.count, lines) == (1, [])


def test_the_descriptors_are_looked_at_once_for_four_connections_where_there_is_room(
    door: Callable[[int], Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    dup = os.dup
    monkeypatch.setattr(os, "dup", lambda file: looks.append(file) or dup(file))  # type: ignore[func-returns-value]
    opened = door(100)
    del looks[:]
    for _ in range(8):
        opened.knock()
    assert (opened.factory.count, len(looks)) == (8, 2)
    narrow = door(5)
    del looks[:]
    for _ in range(8):
        narrow.knock()
    assert (narrow.factory.count, len(looks)) == (8, 8)


def test_the_reserve_is_kept_from_clients(door: Callable[[int], Door], lines: list[str]) -> None:
    closed = door(2)
    assert closed.knock().closed
    assert closed.factory.count == 0
    assert lines == [
        (
            "error: refusing connections: few file descriptors are left; raise the limit on open files "
            "(ulimit -n, LimitNOFILE)"
        )
    ]


@pytest.mark.parametrize(("room", "idle", "count"), [(2, True, 1), (2, False, 0), (1, True, 0)])
def test_idle_connections_make_room_while_half_of_the_reserve_is_left(
    door: Callable[[int], Door], room: int, idle: bool, count: int
) -> None:
    opened = door(room)
    opened.guard._make_room = lambda: idle
    opened.knock()
    assert opened.factory.count == count


def test_a_table_that_is_full_lets_nobody_in(door: Callable[[int], Door]) -> None:
    closed = door(2)
    closed.port.fileno = lambda: -1  # what cannot be duplicated stands for a table without room
    assert closed.knock().closed
    assert closed.factory.count == 0


def test_a_small_table_keeps_a_quarter_at_most(door: Callable[[int], Door]) -> None:
    opened = door(0)
    opened.guard._reserve = 1_000_000
    opened.limit *= 2
    opened.knock()
    assert opened.factory.count == 1


def test_without_a_limit_everybody_is_let_in(door: Callable[[int], Door]) -> None:
    opened = door(2)
    opened.limit = UNLIMITED
    opened.knock()
    assert opened.factory.count == 1


def test_clients_are_let_in_again_as_soon_as_there_is_room(door: Callable[[int], Door]) -> None:
    opened = door(2)
    opened.knock()
    opened.limit += 1
    opened.knock()
    assert opened.factory.count == 1


def test_the_log_has_one_line_in_an_interval(door: Callable[[int], Door], lines: list[str]) -> None:
    closed = door(2)
    for _ in range(2):
        for _ in range(500):
            closed.knock()
        closed.reactor.advance(10)
    closed.reactor.advance(10)
    assert lines[1:] == [
        "error: refused 499 more connections within 10 s",
        "error: refused 500 more connections within 10 s",
        "info: accepting connections again; none was refused for 10 s",
    ]
    assert closed.reactor.getDelayedCalls() == []


def test_what_twisted_closes_is_counted_and_not_written_one_by_one(
    door: Callable[[int], Door], lines: list[str]
) -> None:
    closed = door(3)
    for _ in range(500):
        closed.port._logger.info("EMFILE encountered; releasing reserved file descriptor.")
        closed.port._logger.info("EMFILE recovery: Closed socket from {address}", address=("127.0.0.1", 1))
    closed.reactor.advance(10)
    assert [line.partition(";")[0] for line in lines] == [
        "error: refusing connections: no file descriptor is left",
        "error: refused 499 more connections within 10 s",
    ]


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_accepting_rests_for_a_second_where_the_system_cannot(
    door: Callable[[int], Door], lines: list[str], number: int
) -> None:
    opened = door(3)
    opened.fail(number)
    assert opened.port not in opened.reactor.reading
    opened.reactor.advance(0.9)
    assert opened.port not in opened.reactor.reading
    opened.reactor.advance(0.1)
    assert opened.port in opened.reactor.reading
    assert [line.partition(";")[0] for line in lines] == [
        f"error: refusing connections: the system cannot accept them ({errno.errorcode[number]})"
    ]


def test_a_client_that_has_gone_already_costs_the_others_no_rest(door: Callable[[int], Door], lines: list[str]) -> None:
    opened = door(3)
    opened.fail(errno.ECONNABORTED)
    assert opened.port in opened.reactor.reading
    assert lines == []


def test_a_port_that_was_closed_meanwhile_is_not_read_again(door: Callable[[int], Door]) -> None:
    opened = door(3)
    opened.fail(errno.ENFILE)
    opened.port.connected = False
    opened.reactor.advance(1)
    assert opened.port not in opened.reactor.reading


def test_nothing_waits_after_stopping(door: Callable[[int], Door]) -> None:
    opened = door(3)
    opened.fail(errno.ENFILE)
    opened.guard.stop()
    assert opened.reactor.getDelayedCalls() == []


def test_what_is_no_port_of_twisted_is_left_alone() -> None:
    other = object()
    AcceptGuard(Clock()).watch(other)
