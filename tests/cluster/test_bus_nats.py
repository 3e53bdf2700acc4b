"""The NATS bus against a real nats-server: the contract of every bus, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from integration._nats import NATSProcess, needs_nats
from twisted.internet.task import deferLater

from lhttp_tx.testing import BusContract

pytestmark = [needs_nats, pytest.mark.asyncio_reactor]


@pytest.fixture(scope="module", autouse=True)
def nats() -> Iterator[NATSProcess]:
    process = NATSProcess()
    TestNATSBus.url = process.url
    yield process
    process.stop()


class TestNATSBus(BusContract):
    """Each bus is a node of its own."""

    url = ""

    def make_buses(self, count: int) -> list[Any]:
        from twisted.internet import reactor

        from lhttp_tx.bus.nats.bus import NATSBus
        from lhttp_tx.bus.nats.servers import NATSServers

        return [NATSBus(NATSServers((self.url,)), clock=reactor) for _ in range(count)]

    async def connected(self, bus: Any) -> None:
        from twisted.internet import reactor

        while not bus.available:
            await deferLater(reactor, 0.01)

    async def settle(self, buses: list[Any]) -> None:
        from twisted.internet import reactor

        await deferLater(reactor, 0.1)
