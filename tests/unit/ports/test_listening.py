"""
lhttp_tx.ports.listening and the starts of a service: all ports or none, whatever starts and stops follow each other.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_nats import FakeNATS
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.test.requesthelper import DummyRequest

from lhttp_tx import Processor, running
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.config import Config
from lhttp_tx.ports.listening import ACCEPT_TURN, ACCEPTS, BACKLOG, Listeners, limit_accepts, listen_now, widen
from lhttp_tx.service import LHTTPService


class FakePort:
    def __init__(self, stage: Stage, name: str) -> None:
        self.name = name
        self.accepts = True
        self._stage = stage
        stage.open.append(name)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 1)

    def stopReading(self) -> None:
        self.accepts = False

    def startReading(self) -> None:
        self.accepts = True

    def stopListening(self) -> Deferred[None] | None:
        self._stage.open.remove(self.name)
        return self._stage.closing


class FakeEndpoint:
    """Listens at once, later or not at all, as its name begins."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._stage = stage
        self._name = name

    def listen(self, factory: object) -> Deferred[Any]:
        if self._name.startswith("taken"):
            return fail(CannotListenError("127.0.0.1", 1, OSError("in use")))
        if self._name.startswith("later"):
            self._stage.later[self._name] = Deferred()
            return self._stage.later[self._name]
        return succeed(FakePort(self._stage, self._name))


class Stage:
    """A server on endpoints that a test decides about."""

    def __init__(self, *listen: str, bus: Any = None, processors: Any = ()) -> None:
        self.open: list[str] = []
        self.later: dict[str, Deferred[Any]] = {}
        self.closing: Deferred[None] | None = None
        self.clock: Any = Clock()
        self.service = LHTTPService(
            Config(listen=listen),
            reactor=self.clock,
            make_endpoint=lambda _, name: FakeEndpoint(self, name),
            bus=bus,
            processors=processors,
        )
        self.service._parts.upstream.close = lambda: succeed(None)  # type: ignore[method-assign]

    def starts(self) -> list[str]:
        """Wait for the start; return a list that says how it ended, when it has."""
        outcome: list[str] = []
        self.service.when_started().addCallbacks(
            lambda _: outcome.append("started"), lambda failure: outcome.append(failure.type.__name__)
        )
        return outcome

    def arrive(self, name: str) -> None:
        """Let an endpoint listen that took its time."""
        self.later[name].callback(FakePort(self, name))

    def health(self) -> tuple[int, str]:
        request = DummyRequest([b"health"])
        request.method = b"GET"
        request.path, request.prepath, request.postpath = b"/health", [b"health"], []  # type: ignore[attr-defined]
        body = self.service.resource.children[b"health"].render(request)
        return request.responseCode or 200, body.decode().split('"')[3]


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """What is logged as an error, which is taken from the log."""
    lines: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event["log_level"].name in ("error", "critical"):
            lines.append(str(event.get("description", event["log_format"])))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def test_start_that_fails_leaves_no_port_open_and_does_not_run(errors: list[str]) -> None:
    stage = Stage("a", "later b", "taken")
    outcome = stage.starts()
    for start in (stage.service.privilegedStartService, stage.service.startService):
        with pytest.raises(CannotListenError):
            start()
    assert (stage.open, stage.service.running, outcome) == ([], False, ["CannotListenError"])
    assert errors == ["taken", "taken"]
    assert not running._servers
    stage.arrive("later b")
    assert stage.open == []


def test_start_can_be_tried_again_after_it_has_failed(errors: list[str]) -> None:
    stage = Stage("a", "taken")
    with pytest.raises(CannotListenError):
        stage.service.startService()
    stage.service.config = Config(listen=("a", "b"))
    stage.service.startService()
    assert (stage.open, stage.starts()) == (["a", "b"], ["started"])
    stage.service.stopService()
    assert stage.open == []


def test_start_has_succeeded_when_all_listen() -> None:
    stage = Stage("a", "later b", "later c")
    before = stage.starts()
    stage.service.startService()
    outcome = stage.starts()
    stage.arrive("later c")
    assert (outcome, stage.health()) == ([], (200, "degraded"))
    stage.arrive("later b")
    assert before == outcome == stage.starts() == ["started"]
    assert stage.health() == (200, "ok")
    stage.service.stopService()


def test_those_who_connect_wait_until_processors_have_started() -> None:
    starting: Deferred[None] = Deferred()
    slow = Processor()
    slow.command = "slow"
    slow.on_start = lambda server: starting  # type: ignore[method-assign]
    stage = Stage("a", "later b", processors=[slow])
    stage.service.startService()
    stage.arrive("later b")
    ports: list[Any] = stage.service.ports
    assert [port.accepts for port in ports] == [False, False]
    starting.callback(None)
    assert [port.accepts for port in ports] == [True, True]
    stage.service.stopService()


def test_endpoint_that_fails_later_fails_the_start_and_shows_in_health(errors: list[str]) -> None:
    stage = Stage("a", "later b")
    outcome = stage.starts()
    stage.service.startService()
    stage.later["later b"].errback(CannotListenError("127.0.0.1", 1, OSError("in use")))
    assert outcome == stage.starts() == ["CannotListenError"]
    assert (stage.open, stage.health(), errors) == (["a"], (200, "degraded"), ["later b"])
    stage.service.stopService()


@pytest.mark.parametrize("privileged", [True, False])
def test_stop_while_starting_leaves_no_port_that_opens_later(privileged: bool) -> None:
    stage = Stage("a", "later")
    outcome = stage.starts()
    stage.service.privilegedStartService()
    if not privileged:
        stage.service.startService()
    stopped: list[object] = []
    stage.service.stopService().addBoth(stopped.append)
    stage.arrive("later")
    assert (stage.open, stopped, outcome) == ([], [None], ["CancelledError"])
    assert not stage.clock.getDelayedCalls()


def test_start_while_stopping_starts_when_it_has_stopped() -> None:
    stage = Stage("a")
    stage.service.startService()
    closing = stage.closing = Deferred()
    stopped: list[object] = []
    stage.service.stopService().addBoth(stopped.append)
    stage.service.privilegedStartService()
    stage.service.startService()
    outcome = stage.starts()
    assert (stage.open, stopped, outcome, stage.health()) == ([], [], [], (503, "stopping"))
    stage.closing = None
    closing.callback(None)
    assert (stage.open, stopped, outcome, stage.health()) == (["a"], [None], ["started"], (200, "ok"))
    assert running._servers == [stage.service._parts]
    stage.service.stopService()
    assert (stage.open, running._servers) == ([], [])


def test_start_and_stop_while_stopping_end_with_a_server_that_is_stopped() -> None:
    stage = Stage("a")
    stage.service.startService()
    closing = stage.closing = Deferred()
    stopped: list[object] = []
    stage.service.stopService().addBoth(stopped.append)
    stage.service.startService()
    outcome = stage.starts()
    stage.service.stopService().addBoth(stopped.append)
    assert outcome == ["CancelledError"]
    stage.closing = None
    closing.callback(None)
    assert (stage.open, stopped, stage.service.running) == ([], [None, None], 0)


def test_start_while_stopping_that_fails_is_logged_and_told(errors: list[str]) -> None:
    stage = Stage("a")
    stage.service.startService()
    closing = stage.closing = Deferred()
    stage.service.stopService()
    stage.service.startService()
    outcome = stage.starts()
    stage.service.config = Config(listen=("taken",))
    closing.callback(None)
    assert (outcome, errors, stage.service.running) == (["CannotListenError"], ["taken"], 0)


def test_bus_that_does_not_start_fails_the_start(errors: list[str], failures: list[Any]) -> None:
    class Bus(MemoryBus):
        def start(self) -> Deferred[None]:
            raise RuntimeError("no bus")

    stage = Stage("a", bus=Bus())
    outcome = stage.starts()
    stage.service.startService()
    assert (outcome, len(failures)) == (["RuntimeError"], 1)
    assert errors == ["the bus did not start"]
    stage.service.stopService()


def test_service_that_did_not_start_leaves_a_bus_alone_that_others_use(errors: list[str]) -> None:
    bus = MemoryBus()
    other, failing = Stage("a", bus=bus), Stage("taken", bus=bus)
    other.service.startService()
    with pytest.raises(CannotListenError):
        failing.service.startService()
    failing.service.stopService()
    bus.publish("room", b"x", False)
    other.service.stopService()


def test_step_of_the_stop_that_fails_does_not_keep_the_others_from_being_taken(
    errors: list[str], failures: list[Any]
) -> None:
    stage = Stage("a")
    stage.service.startService()
    stage.service.engine.drain = lambda _: fail(ValueError("x"))  # type: ignore[method-assign]
    stopped: list[object] = []
    stage.service.stopService().addBoth(stopped.append)
    assert (stopped, errors, len(failures)) == ([None], ["stopping failed"], 1)
    with pytest.raises(Exception, match="the bus has stopped"):
        stage.service._parts.bus.publish("room", b"x", False)


def test_start_while_stopping_on_nats_connects_anew() -> None:
    nats = FakeNATS()
    stage = Stage("a", bus=nats.bus)
    stage.service.startService()
    nats.clock.advance(0)
    link = nats.accept()
    nats.clock.advance(1)
    closing = stage.closing = Deferred()
    stage.service.stopService()
    stage.service.startService()
    stage.closing = None
    closing.callback(None)
    assert link.closed is True
    nats.clock.advance(0)
    assert len(nats.attempts) == 2
    nats.accept()
    for _ in range(50):  # a node that starts calls the others first
        nats.clock.advance(0.1)
        stage.clock.advance(0.1)
    assert (stage.open, stage.health()) == (["a"], (200, "ok"))
    stage.service.stopService()


def test_stop_while_nats_is_looked_for_gives_it_up() -> None:
    nats = FakeNATS()
    stage = Stage("a", bus=nats.bus)
    stage.service.startService()
    nats.clock.advance(0)
    assert stage.starts() == ["started"]
    stage.service.stopService()
    nats.clock.advance(10)
    assert (stage.open, len(nats.attempts), nats.pending) == ([], 1, 0)


# Real ports


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def backlog_of(port: Any) -> int:
    """Return how many connections may wait at a TCP port: what Linux tells in the place of another figure."""
    info = port.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[28:32], "little")


def listen(reactor: Any, description: str) -> Any:
    from twisted.internet.endpoints import serverFromString

    return listen_now(serverFromString(reactor, description), Factory.forProtocol(Protocol), description)


MOST = min(BACKLOG, int(Path("/proc/sys/net/core/somaxconn").read_text("ascii")))


@pytest.mark.parametrize(
    ("description", "backlog"),
    [
        ("tcp:0:interface=127.0.0.1", MOST),
        ("tcp:port=0:interface=127.0.0.1", MOST),
        ("tcp:0:interface=127.0.0.1:backlog=50", 50),
        ("tcp:0:backlog=7:interface=127.0.0.1", 7),
        ("tcp:0:127.0.0.1:9", 9),
        ("haproxy:tcp:0:interface=127.0.0.1", MOST),
        ("haproxy:tcp:0:interface=127.0.0.1:backlog=8", 8),
    ],
)
def test_backlog_is_large_unless_the_description_says_otherwise(reactor: Any, description: str, backlog: int) -> None:
    port = listen(reactor, description)
    assert backlog_of(port) == backlog
    port.stopListening()


def test_backlog_of_a_socket_that_another_process_has_made_is_large(reactor: Any) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(5)
        port = reactor.adoptStreamPort(sock.fileno(), socket.AF_INET, Factory())
    widen(port, "systemd:domain=INET:index=0")
    assert backlog_of(port) == MOST
    port.stopListening()


def test_many_may_wait_at_a_unix_socket(reactor: Any, tmp_path: Path) -> None:
    port = listen(reactor, f"unix:{tmp_path}/s")
    clients = []
    for _ in range(300):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        clients.append(client)
        client.connect(f"{tmp_path}/s")
    for client in clients:
        client.close()
    port.stopListening()


def test_endpoint_that_does_not_say_at_once_whether_it_listens_does_not_listen_later() -> None:
    stage = Stage()
    with pytest.raises(ValueError, match="it does not say at once"):
        listen_now(FakeEndpoint(stage, "later"), Factory(), "later")  # type: ignore[arg-type]
    stage.arrive("later")
    assert stage.open == []


def test_start_that_fails_closes_real_ports_at_once(reactor: Any, tmp_path: Path, errors: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = socket.create_server(("127.0.0.1", 0))
        number = free.getsockname()[1]
        free.close()
        ports = (number, taken.getsockname()[1])
        tcp = [f"tcp:{port}:interface=127.0.0.1" for port in ports]
        service = LHTTPService(Config(listen=(f"unix:{tmp_path}/s", *tcp)), reactor=reactor)
        with pytest.raises(CannotListenError):
            service.startService()
        assert (list(tmp_path.iterdir()), len(errors)) == ([], 1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", number), 30)


@pytest.fixture
def real(reactor: Any, tmp_path: Path) -> Iterator[LHTTPService]:
    service = LHTTPService(Config(listen=("tcp:0:interface=127.0.0.1", f"unix:{tmp_path}/s")), reactor=reactor)
    service.startService()
    yield service
    service.stopService()


def health(service: LHTTPService) -> str:
    found: str = service.resource.children[b"health"].status
    return found


def test_port_that_breaks_shows_in_health(real: LHTTPService, reactor: Any) -> None:
    assert health(real) == "ok"
    port: Any = real.ports[0]
    reactor.removeReader(port)
    port.connectionLost(Failure(OSError("broken")))
    assert health(real) == "degraded"


def test_unix_socket_that_is_removed_shows_in_health(real: LHTTPService, tmp_path: Path) -> None:
    (tmp_path / "s").rename(tmp_path / "t")
    assert health(real) == "degraded"
    (tmp_path / "t").rename(tmp_path / "s")
    assert health(real) == "ok"


def test_health_is_full_while_no_connection_is_free(real: LHTTPService) -> None:
    real.factory.countConnections = real.factory.maxConnections
    assert health(real) == "full"
    real.factory.countConnections -= 1
    assert health(real) == "ok"
    real._guard._refuse("no file descriptor is left")
    assert health(real) == "full"


DESCRIPTOR = os.open(os.devnull, os.O_RDONLY)


class Crowd:
    """A socket on which more and more clients connect. To accept one takes *seconds*."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.count = 0
        self.waiting = 100_000
        self._clock, self._seconds = clock, seconds

    def accept(self) -> tuple[Any, tuple[str, int]]:
        if not self.waiting:
            raise BlockingIOError(errno.EWOULDBLOCK, "nobody")
        self.waiting -= 1
        self._clock.advance(self._seconds)
        return self, ("192.0.2.1", 1)

    def fileno(self) -> int:
        return DESCRIPTOR  # older versions of Twisted set a flag of it

    def listen(self, backlog: int) -> None:
        pass

    def setblocking(self, blocking: bool) -> None:
        pass

    def close(self) -> None:
        self.count += 1


class Ready:
    """An endpoint whose port is made already."""

    def __init__(self, port: Port) -> None:
        self._port = port

    def listen(self, factory: Any) -> Deferred[Any]:
        return succeed(self._port)


class Nothing(Factory):
    """Takes no connection."""

    def buildProtocol(self, addr: Any) -> None:
        return None


@pytest.mark.parametrize(("seconds", "each_turn"), [(ACCEPT_TURN / 8, 2 * ACCEPTS), (ACCEPT_TURN, ACCEPTS)])
def test_a_crowd_of_new_clients_comes_in_a_few_in_each_turn(seconds: float, each_turn: int) -> None:
    clock = Clock()
    port, crowd = Port(0, Nothing(), reactor=clock), Crowd(clock, seconds)  # type: ignore[arg-type]
    port.numberAccepts, port.socket, port.connected = 100, crowd, True  # type: ignore[assignment] # as Twisted begins
    opened: list[Any] = []
    listeners = Listeners(
        None, Nothing(), make_endpoint=lambda *_: Ready(port), opened=lambda found, *_: opened.append(found)
    )
    listeners.open(["tcp:0"])
    assert opened == [port]
    for turn in range(1, 50):
        port.doRead()  # type: ignore[no-untyped-call]
        assert crowd.count == turn * each_turn
    before, crowd.waiting = crowd.count, 2
    port.doRead()  # type: ignore[no-untyped-call]
    assert crowd.count == before + 2
    crowd.waiting = 100
    while crowd.waiting:
        before = crowd.count
        port.doRead()  # type: ignore[no-untyped-call]
        assert 0 < crowd.count - before <= each_turn


def test_a_port_that_is_closed_by_a_connection_accepts_no_more() -> None:
    clock = Clock()
    port, crowd = Port(0, Nothing(), reactor=clock), Crowd(clock, 0.0)  # type: ignore[arg-type]
    port.socket, port.connected = crowd, True  # type: ignore[assignment]
    limit_accepts(port)
    port.factory.buildProtocol = lambda _: setattr(port, "disconnecting", True)  # type: ignore[method-assign,union-attr]
    port.doRead()  # type: ignore[no-untyped-call]
    assert crowd.count == ACCEPTS
