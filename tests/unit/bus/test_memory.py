"""The in-memory bus: the contract, and what is its own."""

from typing import Any

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.testing import BusContract


class TestMemoryBus(BusContract):
    """Hubs share one object, so it stands for all nodes."""

    def make_buses(self, count: int) -> list[Any]:
        return [MemoryBus()] * count


def test_keeps_nothing_of_a_channel_without_receivers() -> None:
    bus = MemoryBus()
    bus.subscribe("room", print)
    bus.unsubscribe("room", print)
    bus.publish("room", b"payload", False)
    assert bus.channels == frozenset()


def test_a_receiver_that_fails_does_not_keep_it_from_the_others(failures: list[Any]) -> None:
    received: list[Any] = []

    def broken(*publication: Any) -> None:
        raise RuntimeError("broken")

    bus = MemoryBus()
    bus.subscribe("room", broken)
    bus.subscribe("room", lambda *run: received.append(run))
    bus.publish("room", b"payload", False)
    assert received == [("room", [b"payload"], False)]
    assert [type(failure) for failure in failures] == [RuntimeError]
