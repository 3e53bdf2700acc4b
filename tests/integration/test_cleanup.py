"""
After connections have ended, nothing of them is left.

The server runs in this process, on a real port and with the real reactor, so that its objects can be counted; the
clients run in a thread.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.web.http import HTTPChannel, Request as HTTPRequest

from integration._ends import ENDS, come_and_go, connect_and_subscribe
from integration._processors import Visits, coroutine
from integration._server import TIME_LIMIT, RawClient, message
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.config import Config
from lhttp_tx.engine.request import Request
from lhttp_tx.engine.sequence import Sequence
from lhttp_tx.engine.session import Session
from lhttp_tx.service import LHTTPService
from lhttp_tx.transports.websocket.protocol import LHTTPServerProtocol

reactor: Any = installed_reactor

COUNTED = (LHTTPServerProtocol, Session, Sequence, Request, HTTPChannel, HTTPRequest, Deferred)
ROUNDS = 1000
FILES = Path("/proc/self/fd")


def count_objects() -> Counter[str]:
    """Return how many objects of each of the counted classes exist."""
    gc.collect()
    return Counter(type(found).__name__ for found in gc.get_objects() if issubclass(type(found), COUNTED))


def open_files() -> int:
    """Return how many file descriptors this process has open."""
    return len(list(FILES.iterdir()))


async def settle(condition: Callable[[], object], what: str) -> None:
    """Return once *condition* is true; fail at the time limit."""
    end = time.monotonic() + TIME_LIMIT
    while not condition():
        assert time.monotonic() < end, f"not within {TIME_LIMIT:g} seconds: {what}"
        await deferLater(reactor, 0.02)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest_twisted.async_yield_fixture
async def service(bus: MemoryBus) -> Any:
    """A server in this process."""
    service = LHTTPService(
        Config(listen=("tcp:0:interface=127.0.0.1",)), reactor=reactor, processors=[Visits(), coroutine], bus=bus
    )
    service.startService()
    await settle(lambda: service.ports, "listening")
    yield service
    await service.stopService()


async def check_nothing_is_left(
    service: LHTTPService, bus: MemoryBus, ends: tuple[Callable[[int, int], None], ...], count: int
) -> None:
    port = service.ports[0].getHost().port
    await deferToThread(come_and_go, port, ends, 2 * len(ends))
    await settle(lambda: not service.engine.sessions, "the end of the first sessions")
    await deferLater(reactor, 0.1)
    channels = bus.channels
    calls, files, objects = len(reactor.getDelayedCalls()), open_files(), count_objects()

    await deferToThread(come_and_go, port, ends, count)

    await settle(lambda: not service.engine.sessions, "the end of all sessions")
    await settle(lambda: service.factory.countConnections == 0, "the end of all connections")
    await settle(lambda: open_files() <= files, "the end of all sockets")
    await settle(lambda: len(reactor.getDelayedCalls()) <= calls, "the end of all timers")
    assert service.engine.hub.channels == {}
    assert bus.channels == channels
    left = count_objects() - objects
    assert not left, left


@pytest.mark.skipif(not FILES.is_dir(), reason="open files are counted in /proc")
@pytest_twisted.ensureDeferred
async def test_thousand_connections_leave_nothing(service: LHTTPService, bus: MemoryBus) -> None:
    await check_nothing_is_left(service, bus, ENDS, ROUNDS)


@pytest.mark.skipif(not FILES.is_dir(), reason="open files are counted in /proc")
@pytest_twisted.ensureDeferred
async def test_connections_at_the_same_time_leave_nothing(service: LHTTPService, bus: MemoryBus) -> None:
    def crowd(port: int, number: int) -> None:
        with ExitStack() as stack:
            for member in range(50):
                stack.callback(connect_and_subscribe(port, member).reset if member % 2 else lambda: None)

    await check_nothing_is_left(service, bus, (crowd,), 4)


@pytest_twisted.ensureDeferred
async def test_every_begin_is_told_its_end(service: LHTTPService) -> None:
    """The processor's ``on_close`` runs once for each connection that it was opened for, however that ended."""
    port = service.ports[0].getHost().port
    count = 0

    def watch() -> list[bytes]:
        with RawClient(port) as watcher:
            watcher.subscribe("visits")
            come_and_go(port, ENDS[:6], 60)
            return [watcher.receive()[1] for _ in range(120)]

    told = Counter(await deferToThread(watch))
    count = told[message("opened", {"publish": "visits"}).encode("ascii")]
    assert count == 60
    assert told[message("closed", {"publish": "visits"}, "1").encode("ascii")] == 60


async def serve_and_stop() -> None:
    """Start a service, stop it while clients are connected, and forget it."""
    service = LHTTPService(Config(listen=("tcp:0:interface=127.0.0.1",)), reactor=reactor, processors=[Visits()])
    service.startService()
    await settle(lambda: service.ports, "listening")
    port = service.ports[0].getHost().port
    clients = await deferToThread(lambda: [connect_and_subscribe(port, number) for number in range(20)])
    await service.stopService()
    closes = await deferToThread(lambda: [client.receive_close()[0] for client in clients])
    for client in clients:
        client.close()
    assert closes == [1001] * 20


@pytest_twisted.ensureDeferred
async def test_stopped_service_leaves_nothing() -> None:
    await deferLater(reactor, 0)
    calls, files, objects = len(reactor.getDelayedCalls()), open_files(), count_objects()
    await serve_and_stop()
    await settle(lambda: len(reactor.getDelayedCalls()) <= calls, "the end of all timers")
    await settle(lambda: open_files() <= files, "the end of all sockets")
    left = count_objects() - objects
    assert not left, left
