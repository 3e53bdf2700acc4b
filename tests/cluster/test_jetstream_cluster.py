"""History on three NATS servers, each message on all of them, while servers die, stop and come back."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from integration._nats import needs_nats

from cluster._cluster import pause, until
from cluster._jetstream import ROOM, JetStreamProcess, Node, jetstream, prefix, publication
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.values import Placing

pytestmark = [needs_nats, pytest.mark.asyncio_reactor, pytest.mark.slow]

LONG = 60.0
"""Seconds in which servers agree on who leads."""


@pytest.fixture
def servers() -> Iterator[list[JetStreamProcess]]:
    made = [jetstream("-n", f"server{number}", cluster=[], start=False) for number in range(3)]
    for server in made:
        server._arguments[server._arguments.index("--routes") + 1] = ",".join(
            f"nats://127.0.0.1:{other.route}" for other in made if other is not server
        )
    for server in made:
        server.start()
    yield made
    for server in made:
        server.stop()


class Publisher:
    """Publishes numbers one after another, each until it is known to be stored, as clients with message ids do."""

    def __init__(self, node: Node, first: int) -> None:
        self.node = node
        self.number = first
        self.first = first
        self.running = True

    async def run(self) -> None:
        while self.running:
            placing = Placing("room", f"m{self.number}")
            try:
                self.node.history.append("room", ROOM, [publication(self.number)], False, placing)
                await self.node.confirm()
            except HistoryUnavailable as error:
                placing.failure = error
            if placing.failure is None:
                self.number += 1
            await pause(0.002)

    @property
    def numbers(self) -> list[int]:
        """What is known to be stored."""
        return list(range(self.first, self.number))


async def available(nodes: list[Node]) -> None:
    await until(lambda: all(node.bus.available and node.history.available for node in nodes), LONG)


@pytest_twisted.ensureDeferred
async def test_what_is_confirmed_arrives_once_and_in_order_whatever_happens_to_servers(
    servers: list[JetStreamProcess], failures: list[Any]
) -> None:
    from twisted.internet.defer import ensureDeferred

    subjects = prefix()
    nodes = [Node([servers[number].url, servers[(number + 1) % 3].url], subjects, replicas=3) for number in range(3)]
    for node in nodes:
        await node.bus.start()
        await node.history.start()
    await available(nodes)
    received = [await node.subscribe("room") for node in nodes]
    publishers = [Publisher(nodes[0], 0), Publisher(nodes[1], 1_000_000)]
    running = [ensureDeferred(publisher.run()) for publisher in publishers]
    order = random.Random(1)
    for harm in ("kill", "leave", "kill"):
        await pause(0.5)
        victim = order.choice(servers)
        if harm == "kill":
            victim.kill()
            await pause(1.0)
        else:
            victim.send_signal(signal.SIGUSR2)
            await pause(1.0)
            victim.kill()
        victim.start()
        await available(nodes)
        before = [publisher.number for publisher in publishers]
        await until(lambda before=before: all(p.number > n + 5 for p, n in zip(publishers, before, strict=True)), LONG)
    for publisher in publishers:
        publisher.running = False
    for each in running:
        await each
    stored = {number for publisher in publishers for number in publisher.numbers}
    for node, each in zip(nodes, received, strict=True):
        if not node.missed:
            await until(lambda each=each: stored <= set(each.numbers), LONG)
            assert each.is_chain
            for publisher in publishers:
                mine = [number for number in each.numbers if number in publisher.numbers]
                assert mine == publisher.numbers
    assert [node.missed for node in nodes] == [[], [], []]
    assert received[0].marks == received[1].marks == received[2].marks
    for node in nodes:
        await node.stop()


@pytest_twisted.ensureDeferred
async def test_moving_to_another_server_leaves_nothing_open_that_was_appended(servers: list[JetStreamProcess]) -> None:
    subjects = prefix()
    first = Node([server.url for server in servers], subjects)
    await first.bus.start()
    await first.history.start()
    await available([first])
    leader = int(first.history._classes.stream(ROOM).state.leader[-1])
    await first.stop()
    others = [server for server in servers if server is not servers[leader]]
    nodes = [Node([server.url], subjects) for server in (others[0], servers[leader])]
    for node in nodes:
        await node.bus.start()
        await node.history.start()
    await available(nodes)
    received = [await node.subscribe("room") for node in nodes]
    placings: list[Placing] = []

    async def publish(count: int) -> None:
        for _ in range(count):
            placings.append(Placing("room"))
            nodes[0].history.append("room", ROOM, [publication(len(placings))], False, placings[-1])
            if len(placings) % 5 == 0:
                await pause(0.005)

    await publish(100)
    old = nodes[0].bus._keeper.link
    others[0].send_signal(signal.SIGUSR2)
    while nodes[0].bus._keeper.link is old:
        await publish(10)
    await publish(500)
    await nodes[0].confirm()
    assert [placing for placing in placings if placing.failure is not None] == []
    for each in received:
        await each.wait(len(placings))
        assert each.numbers == list(range(1, len(placings) + 1)) and each.is_chain
    assert [(node.missed, node.gaps) for node in nodes] == [([], 0)] * 2
    for node in nodes:
        await node.stop()


@pytest_twisted.ensureDeferred
async def test_a_stream_that_has_lost_what_it_held_begins_anew(servers: list[JetStreamProcess]) -> None:
    subjects = prefix()
    nodes = [Node([server.url for server in servers], subjects, storage="memory") for _ in range(2)]
    for node in nodes:
        await node.bus.start()
        await node.history.start()
    await available(nodes)
    received = [await node.subscribe("room") for node in nodes]
    nodes[0].append("room", *range(10))
    for each in received:
        await each.wait(10)
    epoch = nodes[0].history.epoch_of(ROOM)
    leader = nodes[0].history._classes.stream(ROOM).state.leader
    servers[int(leader[-1])].kill()
    servers[int(leader[-1])].start()
    await until(lambda: all(node.missed for node in nodes), LONG)
    await available(nodes)
    assert nodes[0].history.epoch_of(ROOM) == nodes[1].history.epoch_of(ROOM) != epoch
    nodes[1].append("room", 10)
    for each in received:
        await each.wait(11)
        assert each.numbers == list(range(11))
    for node in nodes:
        await node.stop()
