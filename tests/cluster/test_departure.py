"""
Nodes that are restarted one after another behind a balancer, under clients that get everything all the same.

``ROLLING_CLIENTS=1000 pytest -s tests/cluster/test_departure.py -k rolling`` prints the figures for more clients.
``ROLLING_NODES=3`` is for more nodes, and ``PYTHONPATH=. ROLLING_SVG=FILE`` draws how many clients were connected.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from integration._nats import needs_nats
from integration._server import (
    CLOSE,
    TIME_LIMIT,
    RawClient,
    ServerProcess,
    http_request,
    message,
    on_one_of_these_clocks,
    wait_until,
)

from cluster._balancer import Balancer
from cluster._cluster import pause, until
from cluster._jetstream import jetstream
from cluster.test_workers import workers
from lhttp_tx.client import Client, State

pytestmark = needs_nats

ROOM = "room.a"
CLIENTS = int(os.environ.get("ROLLING_CLIENTS", "100"))
NODES = int(os.environ.get("ROLLING_NODES", "2"))
PLOT = os.environ.get("ROLLING_SVG")
DRAIN = ("--drain-delay", "2", "--drain-time", "4", "--close-timeout", "20")
SLOW = ("--drain-delay", "600", "--drain-time", "600", "--close-timeout", "60")


class Listener:
    """A client that keeps what it gets, and how long it was away."""

    def __init__(self, reactor: Any, url: str) -> None:
        self.numbers: list[int] = []
        self.lost: list[float] = []
        self.back: list[float] = []
        self.reasons: list[str] = []
        self.missed = 0
        self.client = Client(url, reactor=reactor, on_state=self._state, on_missed=self._missed)
        self.client.subscribe(ROOM, lambda message: self.numbers.append(int(message.text)))

    def _state(self, state: State, reason: str) -> None:
        if state is State.WAITING and len(self.lost) == len(self.back):
            self.lost.append(time.monotonic())
            self.reasons.append(reason)
        elif state is State.CONNECTED and len(self.lost) > len(self.back):
            self.back.append(time.monotonic())

    def _missed(self, channel: str, position: str | None) -> None:
        self.missed += 1


def start_node(serve: Callable[..., ServerProcess], nats: str, port: int | str = 0) -> ServerProcess:
    node = serve(
        *("--nats", nats, "--history", ROOM, "--history-messages", "10000", "--max-connections", "0", *DRAIN),
        listen=("--port", f"tcp:{port}:interface=127.0.0.1:backlog=1024"),
    )
    wait_until(lambda: http_request(node.port, "GET", "/ready")[0] == 200, "it is ready")
    return node


def end(node: ServerProcess) -> None:
    assert node.stop() == -signal.SIGTERM


def draw(path: Path, began: float, took: float, lost: list[float], back: list[float]) -> None:
    """Draw how many clients were connected during the restarts."""
    from benchmarks.figures import Curve
    from benchmarks.svg import lines

    count, points = CLIENTS, [(0.0, float(CLIENTS))]
    for when, change in sorted([*((each, -1) for each in lost), *((each, 1) for each in back)]):
        points.append((when - began, float(count)))
        count += change
        points.append((when - began, float(count)))
    curve = Curve(
        "rolling",
        f"{NODES} nodes restarted one after another, {CLIENTS} clients",
        "seconds",
        "connected clients",
        {"lhttp": [*points, (took, float(count))]},
        marks=False,
    )
    path.write_text(lines(curve), encoding="utf-8")


@pytest_twisted.ensureDeferred
async def test_a_rolling_restart_loses_nothing_and_spreads_the_return(
    serve: Callable[..., ServerProcess], request: pytest.FixtureRequest
) -> None:
    from twisted.internet import reactor
    from twisted.internet.threads import deferToThread

    nats = jetstream()
    request.addfinalizer(nats.stop)
    nodes = [start_node(serve, nats.url) for _ in range(NODES)]
    balancer = Balancer(reactor, [node.port for node in nodes])
    await balancer.start()
    await until(lambda: len(balancer.ready) == NODES)
    url = f"ws://127.0.0.1:{balancer.port}/"
    listeners = [Listener(reactor, url) for _ in range(CLIENTS)]
    publisher = Client(url, reactor=reactor, queue_length=10_000)
    for client in (publisher, *(listener.client for listener in listeners)):
        client.connect().addErrback(lambda failure: None)
    await until(lambda: all(listener.client.state is State.CONNECTED for listener in listeners))

    sent: list[Any] = []
    running = True

    async def publish() -> None:
        while running:
            sent.append(publisher.publish(ROOM, "count", body=str(len(sent))))
            await pause(0.03)

    from twisted.internet.defer import ensureDeferred

    publishing = ensureDeferred(publish())
    began = time.monotonic()
    for number in range(NODES):
        node = nodes[number]
        await deferToThread(end, node)
        nodes[number] = await deferToThread(start_node, serve, nats.url, node.port)
        await until(lambda: len(balancer.ready) == NODES)
    await until(lambda: all(listener.client.state is State.CONNECTED for listener in listeners))
    took = time.monotonic() - began
    running = False
    await publishing
    for published in sent:
        await published
    wanted = list(range(len(sent)))
    await until(lambda: all(len(listener.numbers) >= len(wanted) for listener in listeners))
    assert all(listener.numbers == wanted and not listener.missed for listener in listeners)

    lost = sorted(when for listener in listeners for when in listener.lost)
    away = sorted(b - a for listener in listeners for a, b in zip(listener.lost, listener.back, strict=True))
    seconds = Counter(int(when - lost[0]) for listener in listeners for when in listener.back)
    print(
        f"{NODES} nodes, {CLIENTS} clients, {len(sent)} publications: {len(away)} closes, "
        f"away {away[len(away) // 2]:.3f} s in the median, "
        f"{away[-1]:.3f} s at most; returns a second: {dict(sorted(seconds.items()))}"
    )
    if PLOT:
        draw(Path(PLOT), began, took, lost, [when for listener in listeners for when in listener.back])
    reasons = {reason for listener in listeners for reason in listener.reasons}
    assert reasons == {"the server closed the connection (1001): server is going away; retry-after=0.2"}
    assert lost[-1] - lost[0] > 4.0
    for client in (publisher, *(listener.client for listener in listeners)):
        await client.close()
    await balancer.stop()
    await pause(0.1)


def test_workers_go_on_for_the_delay_and_then_close_their_clients_in_turn(
    serve: Callable[..., ServerProcess], request: pytest.FixtureRequest
) -> None:
    nats = jetstream()
    request.addfinalizer(nats.stop)

    def attempt(seconds: int) -> None:
        delay = ("--drain-delay", str(seconds), "--drain-time", "2", "--close-timeout", "60")
        server = serve("--workers", "2", "--nats", nats.url, *delay, endpoints=2)
        server.wait_for_log("connected to NATS", count=2)
        with ExitStack() as stack:
            clients = [stack.enter_context(RawClient(server.port)) for _ in range(20)]
            for client in clients:
                client.subscribe("room")
            server.process.send_signal(signal.SIGTERM)
            server.wait_for_log(f"serving for {seconds} s more", count=2)
            status, _, body = http_request(server.port, "GET", "/ready")
            assert (status, body) == (503, b'{"status": "unready", "reasons": ["stopping"]}\n')
            assert http_request(server.port, "GET", "/live")[0] == 200
            late = stack.enter_context(RawClient(server.port))
            late.subscribe("room")
            clients[0].send(message("say", {"publish": "room"}, "still here"))
            assert b"still here" in late.receive()[1]
            for client in (late, *clients):
                while (frame := client.receive())[0] != CLOSE:
                    assert b"still here" in frame[1]
                assert frame[1][2:] == b"server is going away; retry-after=0.2"
                client.send((1001).to_bytes(2, "big"), CLOSE)
            assert server.process.wait(TIME_LIMIT) == -signal.SIGTERM

    on_one_of_these_clocks(attempt)


def test_a_second_sigterm_ends_the_workers_at_once_and_one_to_a_worker_does_not(
    serve: Callable[..., ServerProcess], request: pytest.FixtureRequest
) -> None:
    nats = jetstream()
    request.addfinalizer(nats.stop)
    server = serve("--workers", "2", "--nats", nats.url, *SLOW, endpoints=2)
    server.wait_for_log("connected to NATS", count=2)
    with RawClient(server.port) as client:
        client.subscribe("room")
        pids = workers(server)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("serving for 600 s more", count=2)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        server.wait_for_log("already stopping", count=2)
        assert http_request(server.port, "GET", "/live")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        code, reason = client.receive_close()
        assert (code, reason) == (1001, "server is going away; retry-after=600")
        client.send((1001).to_bytes(2, "big"), CLOSE)
        assert server.process.wait(TIME_LIMIT) == -signal.SIGTERM
