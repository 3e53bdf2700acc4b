"""The supervisor of workers: when it starts one again, what it writes to the log, and how it stops."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from twisted.internet.error import CannotListenError, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from lhttp_tx.twistd.supervisor import FIRST_DESCRIPTOR, Supervisor
from lhttp_tx.twistd.watchdog import TRACEBACK_SIGNAL


class Process:
    """A process that does nothing but die when it is told."""

    def __init__(self, protocol: Any, arguments: list[str], descriptors: dict[int, Any]) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.descriptors = descriptors
        self.signals: list[int] = []
        self.pid = 2**31 - 1

    def signalProcess(self, number: int) -> None:
        self.signals.append(number)

    def die(self) -> None:
        self.protocol.processEnded(Failure(ProcessTerminated(1)))


class Reactor(Clock):
    """Starts no process, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], childFDs: Any, **options: Any) -> Process:
        self.processes.append(Process(protocol, args, childFDs))
        return self.processes[-1]


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def supervisor(reactor: Reactor) -> Supervisor:
    service = Supervisor(["--nats", "nats://a"], reactor=reactor, listen=(), count=2, directory=".", exit_timeout=4.0)
    service.startService()
    return service


@pytest.fixture
def events() -> Any:
    found: list[Any] = []
    globalLogPublisher.addObserver(found.append)
    yield found
    globalLogPublisher.removeObserver(found.append)


def test_workers_get_the_command_line(reactor: Reactor, supervisor: Supervisor) -> None:
    assert [process.arguments[1:] for process in reactor.processes] == [
        ["-m", "lhttp_tx.twistd.worker", "--nats", "nats://a"]
    ] * 2
    assert reactor.processes[0].descriptors == {0: "w", 1: "r", 2: "r", 3: "r"}
    assert FIRST_DESCRIPTOR == 4


def test_a_worker_that_dies_early_is_started_again_later_each_time(reactor: Reactor, supervisor: Supervisor) -> None:
    for wait in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        count = len(reactor.processes)
        reactor.processes[-1].die()
        reactor.advance(wait - 0.01)
        assert len(reactor.processes) == count
        reactor.advance(0.02)
        assert len(reactor.processes) == count + 1


def test_a_worker_that_had_run_for_long_is_started_again_at_once(reactor: Reactor, supervisor: Supervisor) -> None:
    reactor.processes[0].die()
    reactor.advance(0.5)
    reactor.advance(10.0)
    reactor.processes[-1].die()
    reactor.advance(0.0)
    assert len(reactor.processes) == 4


def test_stopping_waits_for_every_worker(reactor: Reactor, supervisor: Supervisor) -> None:
    stopped: list[Any] = []
    supervisor.stopService().addCallback(stopped.append)
    assert [process.signals for process in reactor.processes] == [[15], [15]]
    reactor.processes[0].die()
    assert stopped == []
    reactor.processes[1].die()
    assert stopped == [None]
    assert reactor.getDelayedCalls() == []


def test_a_worker_that_does_not_exit_is_killed(reactor: Reactor, supervisor: Supervisor) -> None:
    supervisor.stopService()
    reactor.advance(6.1)
    assert reactor.processes[0].signals == [15, 9]


def test_stopping_while_a_worker_waits_for_its_next_start_starts_none(reactor: Reactor, supervisor: Supervisor) -> None:
    reactor.processes[0].die()
    supervisor.stopService()
    reactor.advance(60.0)
    assert len(reactor.processes) == 2


@pytest.fixture
def watching(reactor: Reactor) -> Supervisor:
    service = Supervisor([], reactor=reactor, listen=(), count=2, directory=".", exit_timeout=4.0, hang_timeout=30.0)
    service.startService()
    return service


def test_a_worker_that_hangs_says_what_it_does_and_is_killed_and_replaced(
    reactor: Reactor, watching: Supervisor, events: Any
) -> None:
    first, second = reactor.processes
    for _ in range(31):
        second.protocol.childDataReceived(3, b".")
        if not reactor.seconds():
            first.protocol.childDataReceived(3, b".")
        reactor.pump([0.5, 0.5])
    assert first.signals == [TRACEBACK_SIGNAL, signal.SIGKILL]
    assert not second.signals
    (told,) = [formatEvent(event) for event in events if event["log_level"] is LogLevel.error]
    assert told.startswith("worker 1 hangs: no heartbeat for 30 s. Its process 2147483647 is unknown and used an un")
    first.die()
    reactor.advance(0)
    assert len(reactor.processes) == 3


def test_a_worker_that_ends_before_it_is_killed_takes_its_successor_along_no_more(
    reactor: Reactor, watching: Supervisor
) -> None:
    for process in reactor.processes:
        process.protocol.childDataReceived(3, b".")
    reactor.pump([0.5] * 60)
    for process in reactor.processes[:2]:
        process.die()
    reactor.pump([0.5] * 4)
    assert [process.signals for process in reactor.processes] == [[TRACEBACK_SIGNAL]] * 2 + [[]] * 2


def test_a_worker_that_is_told_to_stop_is_watched_no_more(reactor: Reactor, watching: Supervisor, events: Any) -> None:
    watching.stopService()
    reactor.pump([0.5] * 1_000)
    assert [process.signals for process in reactor.processes] == [[signal.SIGTERM, signal.SIGKILL]] * 2


def test_a_signal_reaches_every_worker(reactor: Reactor, supervisor: Supervisor) -> None:
    supervisor.send_signal("HUP")
    assert [process.signals for process in reactor.processes] == [[1], [1]]


def test_what_a_worker_logs_is_logged_with_its_number(reactor: Reactor, supervisor: Supervisor, events: Any) -> None:
    line = json.dumps(
        {"text": "it is {not} a format", "level": "warn", "namespace": "its.module", "time": 7.5}
    ).encode()
    for piece in (line[:20], line[20:], b"\n"):
        reactor.processes[1].protocol.childDataReceived(1, piece)
    assert [(e["log_system"], e["text"], e["log_time"]) for e in events if "text" in e] == [
        ("worker 2, its.module#warn", "it is {not} a format", 7.5)
    ]


@pytest.mark.parametrize("line", [b"Fatal Python error", b"\xff\xfe", b"7", b"[]", b'{"level": "x"}', b'{"level": 1}'])
def test_other_lines_of_a_worker_are_logged_as_they_are(
    reactor: Reactor, supervisor: Supervisor, events: Any, line: bytes
) -> None:
    reactor.processes[0].protocol.childDataReceived(2, line)
    reactor.processes[0].die()
    assert line.decode("utf-8", "backslashreplace") in [event.get("line") for event in events]


def test_a_line_without_an_end_is_cut(reactor: Reactor, supervisor: Supervisor, events: Any) -> None:
    for _ in range(40):
        reactor.processes[0].protocol.childDataReceived(1, b"x" * 65_536)
    reactor.processes[0].protocol.childDataReceived(1, b"\n")
    assert max(len(event["line"]) for event in events if "line" in event) == 1_048_576


def test_start_while_stopping_starts_the_workers_when_all_have_exited(reactor: Reactor, supervisor: Supervisor) -> None:
    stopped: list[Any] = []
    supervisor.stopService().addCallback(stopped.append)
    supervisor.startService()
    reactor.processes[0].die()
    assert (len(reactor.processes), stopped) == (2, [])
    reactor.processes[1].die()
    assert (len(reactor.processes), stopped) == (4, [None])
    supervisor.stopService().addCallback(stopped.append)
    supervisor.startService()
    supervisor.stopService().addCallback(stopped.append)
    for process in reactor.processes[2:]:
        process.die()
    assert (len(reactor.processes), stopped) == (4, [None] * 3)


class Reserving(Reactor):
    """Says of one port that it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[int] = []

    def listenTCP(self, port: int, factory: Any, **options: Any) -> Any:
        if port == 3:
            raise CannotListenError("", port, OSError("in use"))
        self.open.append(port)
        return ReservedPort(self, port)


class ReservedPort:
    def __init__(self, reactor: Reserving, number: int) -> None:
        self._reactor = reactor
        self._number = number

    def stopReading(self) -> None:
        """Accept nothing."""

    def stopListening(self) -> None:
        self._reactor.open.remove(self._number)


def test_start_that_fails_closes_the_ports_that_it_has_opened() -> None:
    reactor = Reserving()
    ports = ("tcp:1", "tcp:2", "tcp:3")
    service = Supervisor([], reactor=reactor, listen=ports, count=2, directory=".", exit_timeout=4.0)
    for start in (service.privilegedStartService, service.startService):
        with pytest.raises(CannotListenError):
            start()
    assert (reactor.open, reactor.processes, service.running) == ([], [], False)
