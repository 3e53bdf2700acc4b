"""The nats-server of the workers: its configuration, and when it is started again."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from lhttp_tx.twistd.broker import Broker, BrokerSettings

READY = b"[7] 2026/11/28 22:00:00.000000 [INF] Server is ready\n"


class Process:
    """A process that does nothing but die when it is told."""

    pid = 2**31 - 1

    def __init__(self, protocol: Any, arguments: list[str]) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.signals: list[int] = []

    def signalProcess(self, number: int) -> None:
        self.signals.append(number)

    def die(self) -> None:
        self.protocol.processEnded(Failure(ProcessTerminated(1)))


class Connector:
    def disconnect(self) -> None:
        """Nobody is there."""


class Reactor(Clock):
    """Starts no process, and remembers it. Its connections get no answer, or one at once."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.answers = True

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], **options: Any) -> Process:
        self.processes.append(Process(protocol, args))
        return self.processes[-1]

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float) -> Connector:
        assert host == "127.0.0.1"
        if self.answers:
            factory.buildProtocol(None).dataReceived(b"INFO {}\r\n")
        return Connector()


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


def make(reactor: Reactor, **settings: Any) -> Broker:
    return Broker(BrokerSettings("/bin/nats-server", **settings), reactor=reactor, hang_timeout=30.0)


def configuration(process: Process) -> str:
    return Path(process.arguments[-1]).read_text("utf-8")


def begin(broker: Broker, reactor: Reactor) -> list[None]:
    found: list[None] = []
    broker.start().addCallback(found.append)
    assert found == []
    reactor.processes[-1].protocol.childDataReceived(2, READY[:20])
    reactor.processes[-1].protocol.childDataReceived(2, READY[20:])
    return found


def end(broker: Broker, reactor: Reactor) -> None:
    broker.stop()
    reactor.processes[-1].die()


def test_workers_start_when_it_is_ready_and_learn_where_it_is(reactor: Reactor) -> None:
    broker = make(reactor)
    assert begin(broker, reactor) == [None]
    environment, told = broker.environment, configuration(reactor.processes[0])
    password = Path(environment["LHTTP_NATS_PASSWORD_FILE"])
    assert f'password: "{password.read_text("ascii")}"' in told
    assert f'listen: "{environment["LHTTP_NATS"].removeprefix("nats://")}"' in told
    assert "jetstream" not in told
    end(broker, reactor)
    assert not password.parent.exists()


@pytest.mark.parametrize("directory", ["/var/lib/lhttp", '/a "b" \\ c'])
def test_history_goes_to_the_directory(reactor: Reactor, directory: str) -> None:
    broker = make(reactor, directory=directory)
    begin(broker, reactor)
    assert f"jetstream {{ store_dir: {json.dumps(directory)} }}" in configuration(reactor.processes[0])
    end(broker, reactor)


def test_messages_fit_however_large_they_may_be(reactor: Reactor) -> None:
    broker = make(reactor, message_size=5_000_000, in_memory=True)
    begin(broker, reactor)
    assert "max_payload: 10004096" in configuration(reactor.processes[0])
    assert "jetstream" in configuration(reactor.processes[0])
    end(broker, reactor)


def test_one_that_dies_comes_back_at_the_same_port_and_later_each_time(reactor: Reactor) -> None:
    broker = make(reactor)
    begin(broker, reactor)
    port = broker.environment["LHTTP_NATS"]
    for wait in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0):
        count = len(reactor.processes)
        reactor.processes[-1].die()
        reactor.advance(wait - 0.01)
        assert len(reactor.processes) == count
        reactor.advance(0.02)
        assert len(reactor.processes) == count + 1
    reactor.processes[-1].protocol.childDataReceived(2, READY)
    assert broker.environment["LHTTP_NATS"] == port
    end(broker, reactor)


def test_one_that_answers_nobody_is_killed(reactor: Reactor) -> None:
    broker = make(reactor)
    begin(broker, reactor)
    reactor.pump([0.5] * 200)
    assert reactor.processes[0].signals == []
    reactor.answers = False
    reactor.pump([0.5] * 65)
    assert reactor.processes[0].signals == [signal.SIGKILL]
    reactor.processes[0].die()
    reactor.advance(0.2)
    assert len(reactor.processes) == 2
    end(broker, reactor)


def test_one_that_does_not_stop_is_killed(reactor: Reactor) -> None:
    broker = make(reactor)
    begin(broker, reactor)
    stopped: list[None] = []
    broker.stop().addCallback(stopped.append)
    assert reactor.processes[0].signals == [signal.SIGTERM, signal.SIGCONT]
    reactor.advance(10.0)
    assert reactor.processes[0].signals[-1] == signal.SIGKILL
    assert stopped == []
    reactor.processes[0].die()
    assert stopped == [None]
    assert not reactor.getDelayedCalls()


def test_stopping_while_it_is_away_starts_none(reactor: Reactor) -> None:
    broker = make(reactor)
    begin(broker, reactor)
    reactor.processes[0].die()
    stopped: list[None] = []
    broker.stop().addCallback(stopped.append)
    assert stopped == [None]
    reactor.advance(60.0)
    assert len(reactor.processes) == 1
