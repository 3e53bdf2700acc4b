"""History in NATS JetStream: the contract of every store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from integration._nats import NATSProcess, needs_nats
from twisted.internet.defer import Deferred, ensureDeferred

from cluster._cluster import pause, until
from cluster._jetstream import jetstream, prefix
from lhttp_tx.testing import HistoryContract
from lhttp_tx.testing.history import RETENTIONS

pytestmark = [needs_nats, pytest.mark.asyncio_reactor]


@pytest.fixture(scope="module", autouse=True)
def nats() -> Iterator[NATSProcess]:
    process = jetstream()
    TestJetStreamHistory.url = process.url
    yield process
    process.stop()


class TestJetStreamHistory(HistoryContract):
    """Each store has a bus of its own, and starts and stops it."""

    url = ""
    outlives = True
    bounds_bytes = False
    knows_gone = False
    examples = 6
    prefix = ""

    def make_store(self) -> Any:
        self.prefix = prefix()
        return self.open()

    def open(self) -> Any:
        from twisted.internet import reactor

        from lhttp_tx.bus.nats.bus import NATSBus
        from lhttp_tx.bus.nats.jetstream.settings import StreamSettings
        from lhttp_tx.bus.nats.jetstream.store import JetStreamHistory
        from lhttp_tx.bus.nats.servers import NATSServers

        bus = NATSBus(NATSServers((self.url,), prefix=self.prefix), clock=reactor)

        class Store(JetStreamHistory):  # type: ignore[misc]
            def start(self) -> Deferred[None]:
                return ensureDeferred(self._start_both())

            async def _start_both(self) -> None:
                await bus.start()
                await super().start()
                await until(lambda: self.available)

            def stop(self) -> Deferred[None]:
                return super().stop().addCallback(lambda _: bus.stop())

        return Store(
            bus,
            retention_of=lambda channel: RETENTIONS[0],
            classes=[retention for retention in RETENTIONS if not retention.size],
            settings=StreamSettings(window=self.window),
            clock=reactor,
        )

    async def restart(self, store: Any) -> Any:
        await store.stop()
        store = self.open()
        await store.start()
        return store

    async def pass_time(self, seconds: float) -> None:
        await pause(seconds)
