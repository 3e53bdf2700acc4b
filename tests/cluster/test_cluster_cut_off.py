"""
A node that is cut off for some seconds: each subscriber gets what was accepted, or is told afterwards.

Who asked with ``gaps:tell`` gets ``missed``. With ``--close-after-gap``, the others are closed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from integration._nats import NATSProcess, needs_nats
from integration._server import RawClient, ServerProcess, message, wait_until

from cluster._cluster import PATIENCE, Publisher, Subscriber, join
from cluster._faults import Proxy, two_servers

pytestmark = needs_nats

Serve = Callable[..., ServerProcess]


class Asking(Subscriber):
    """
    A subscriber that asks to be told of gaps.

    :ivar told: when it was.
    """

    def __init__(self, port: int, channel: str) -> None:
        self.told: list[float] = []
        super().__init__(port, channel)
        self.client.send(message("chat", {"subscribe": channel, "gaps": "tell"}))

    def take(self, now: float, payload: bytes) -> None:
        if payload.startswith(b"LHTTP/1.0 missed\r\n"):
            self.told.append(now)
        else:
            super().take(now, payload)

    def unaware(self, accepted: dict[int, float]) -> list[int]:
        """Return what was accepted and has not come, and no word came after it."""
        last = max(self.told, default=0.0)
        received = {number for _, number in tuple(self.received)}
        return [number for number, when in sorted(accepted.items()) if number not in received and when > last]


class Scene:
    """Two nodes. At each, a publisher has a channel of its own, and both channels have readers at both nodes."""

    def __init__(self, stack: ExitStack, nodes: list[ServerProcess], padding: int = 0) -> None:
        for node in nodes:
            node.wait_for_log("has joined")
        self.readers = {
            (channel, at): stack.enter_context(Asking(node.port, channel))
            for channel in ("0", "1")
            for at, node in enumerate(nodes)
        }
        self.publishers = [
            stack.enter_context(Publisher(node.port, str(number), rate=100, padding=padding))
            for number, node in enumerate(nodes)
        ]

    def goes_on(self) -> None:
        """Wait until all readers have got something that was accepted from now on."""
        before = [len(publisher.sent) for publisher in self.publishers]
        for number, publisher in enumerate(self.publishers):
            wait_until(
                lambda p=publisher, n=number: max(p.accepted, default=-1) > before[n], "it is accepted", PATIENCE
            )
            last = max(publisher.accepted)
            for at in range(2):
                reader = self.readers[str(number), at]
                wait_until(
                    lambda r=reader, n=last: r.received and r.received[-1][1] >= n, f"{number} comes to {at}", PATIENCE
                )

    def check(self) -> None:
        """Check that everybody has everything, or was told."""
        self.goes_on()
        time.sleep(3.5)  # within this time, the next heartbeats have come
        for publisher in self.publishers:
            publisher.stop()
        time.sleep(0.5)
        for (channel, at), reader in self.readers.items():
            accepted = dict(self.publishers[int(channel)].accepted)
            numbers = [number for _, number in reader.received]
            assert numbers == sorted(set(numbers)), f"channel {channel} at node {at}"
            assert not reader.unaware(accepted), f"channel {channel} at node {at}"


WAYS: dict[str, Callable[[Proxy], None]] = {
    "held": lambda way: way.hold(True, True),
    "held back": lambda way: way.hold(False, True),
    "discarded": lambda way: way.discard(True, True),
    "discarded forth": lambda way: way.discard(True, False),
    "discarded back": lambda way: way.discard(False, True),
    "cut": Proxy.cut,
}


@pytest.mark.parametrize(("fault", "seconds"), [*((fault, 5.0) for fault in WAYS), ("cut", 15.0)])
def test_a_node_whose_way_to_nats_fails(serve: Serve, nats: NATSProcess, fault: str, seconds: float) -> None:
    with Proxy(nats.port) as way, ExitStack() as stack:
        nodes = [join(serve("--nats", f"nats://127.0.0.1:{way.port}")), join(serve("--nats", nats.url))]
        scene = Scene(stack, nodes)
        scene.goes_on()
        WAYS[fault](way)
        time.sleep(seconds)
        way.heal()
        scene.check()


@pytest.fixture
def cluster() -> Iterator[tuple[NATSProcess, NATSProcess, Proxy]]:
    """Two NATS servers, and the way between them."""
    first, second, route = two_servers(0.0)
    yield first, second, route
    first.stop()
    second.stop()
    route.close()


Cluster = tuple[NATSProcess, NATSProcess, Proxy]


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [("held", 5.0), ("discarded", 5.0), ("discarded back", 5.0), ("cut", 5.0), ("discarded", 15.0)],
)
def test_nodes_between_whose_nats_servers_the_way_fails(
    serve: Serve, cluster: Cluster, fault: str, seconds: float
) -> None:
    first, second, route = cluster
    with ExitStack() as stack:
        scene = Scene(stack, [join(serve("--nats", server.url)) for server in (first, second)])
        scene.goes_on()
        WAYS[fault](route)
        time.sleep(seconds)
        route.heal()
        scene.check()


@pytest.mark.parametrize("seconds", [5.0, 15.0])
def test_a_node_that_nats_drops_because_it_does_not_read(serve: Serve, tmp_path: Path, seconds: float) -> None:
    config = tmp_path / "nats.conf"
    config.write_text('max_pending: 1MB\nwrite_deadline: "1s"\n')
    server = NATSProcess("-c", str(config))
    with ExitStack() as stack:
        stack.callback(server.stop)
        nodes = [join(serve("--nats", server.url)) for _ in range(2)]
        scene = Scene(stack, nodes, padding=40_000)
        scene.goes_on()
        os.kill(nodes[0].pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(nodes[0].pid, signal.SIGCONT)
        scene.check()
        assert "Slow Consumer" in server.log


def test_subscribers_elsewhere_are_told_when_a_nats_server_dies(serve: Serve, cluster: Cluster) -> None:
    """It may have confirmed what it did not pass on."""
    first, second, _ = cluster
    with ExitStack() as stack:
        scene = Scene(stack, [join(serve("--nats", server.url)) for server in (first, second)])
        scene.goes_on()
        first.kill()
        scene.check()
        assert scene.readers["0", 1].told


def test_clients_that_did_not_ask_are_closed_once_their_node_is_back(serve: Serve, nats: NATSProcess) -> None:
    with Proxy(nats.port) as way:
        node = join(serve("--nats", f"nats://127.0.0.1:{way.port}", "--close-after-gap", "0.5"))
        with RawClient(node.port) as unaware, RawClient(node.port) as asking, RawClient(node.port) as idle:
            unaware.subscribe("room")
            asking.send(message("chat", {"subscribe": "room", "gaps": "tell", "receipt": "1"}))
            asking.receive()
            way.cut()
            node.wait_for_log("lost NATS")
            way.heal()
            assert unaware.receive_close() == (4410, "messages may have been missed; retry-after=0")
            join(node, 2)
            assert asking.receive()[1] == b"LHTTP/1.0 missed\r\nchannel:room\r\n\r\n"
            for client in (asking, idle):
                client.send(message("chat", {"receipt": "2"}))
                assert client.receive()[1].startswith(b"LHTTP/1.0 receipt")


def test_what_comes_later_than_the_bound_is_dropped_and_told(serve: Serve, cluster: Cluster) -> None:
    first, second, route = cluster
    with ExitStack() as stack:
        nodes = [join(serve("--nats", server.url, "--nats-max-delay", "1")) for server in (first, second)]
        scene = Scene(stack, nodes)
        scene.goes_on()
        route.hold(True, True)
        time.sleep(7.0)  # after ten seconds, NATS itself would drop what it cannot send
        route.heal()
        scene.check()
        for number, publisher in enumerate(scene.publishers):
            reader = scene.readers[str(number), 1 - number]
            late = max(when - publisher.sent[number] for when, number in reader.received)
            assert late < 5.0, "what was held for longer did not come"
            assert reader.told
