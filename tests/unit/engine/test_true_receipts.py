"""Receipts on buses and stores that fail in unusual ways: each publication gets one answer, which is true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.errors import BusUnavailable, ChannelsRefused, HistoryUnavailable
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.values import Placing, Retention
from lhttp_tx.interfaces import MaybeDeferred
from lhttp_tx.testing import Client, Server


class Far:
    """
    Answers questions when a test says so.

    :ivar broken: what a question raises or returns instead.
    """

    def __init__(self) -> None:
        self.questions: list[Deferred[None]] = []
        self.broken: object = None

    def confirm(self) -> Any:
        if isinstance(self.broken, Exception):
            raise self.broken
        if self.broken is not None:
            return self.broken
        self.questions.append(Deferred())
        return self.questions[-1]

    def answer(self, error: Exception | None = None) -> None:
        questions, self.questions = self.questions, []
        for question in questions:
            question.callback(None) if error is None else question.errback(error)


class FarBus(MemoryBus):
    """A bus that has what was published when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.far = Far()

    def confirm(self) -> Any:
        return self.far.confirm()


class SlowBus(MemoryBus):
    """A bus that takes its time for each publication."""

    def __init__(self) -> None:
        super().__init__()
        self.taking: list[Deferred[None]] = []

    def publish(self, channel: str, payload: bytes, binary: bool) -> MaybeDeferred:
        self.taking.append(Deferred())
        return self.taking[-1]


class LateStore(MemoryHistory):
    """A store of a cluster, which decides later; it answers questions as :class:`Far` does."""

    spreads = True

    def __init__(self, *, over_bus: bool = False) -> None:
        super().__init__(Clock())
        self.far = Far()
        self.over_bus = over_bus
        self.placings: list[Placing] = []

    def append(
        self, channel: str, retention: Retention, payloads: list[bytes], binary: bool, placing: Placing | None = None
    ) -> list[bytes]:
        assert placing is not None
        self.placings.append(placing)
        return payloads if self.over_bus else []

    def confirm(self) -> MaybeDeferred:
        undecided = any(placing.position is None and placing.failure is None for placing in self.placings)
        found: MaybeDeferred = self.far.confirm() if undecided else None
        return found

    def store_all(self) -> None:
        for number, placing in enumerate(self.placings, 1):
            placing.position = f"e-{number}"
        self.far.answer()


def publish(client: Client, channels: str, number: int, more: str = "") -> None:
    client.send(f"LHTTP/1.0 x\r\npublish:{channels}\r\nreceipt:{number}\r\n{more}\r\n")


def told(client: Client) -> list[tuple[str | None, str]]:
    return [(message.headers.get("receipt-id"), message.command) for message in client.take()]


# Message ids


def test_a_channel_that_had_the_message_before_remembers_its_id() -> None:
    bus = FarBus()
    server = Server(bus=bus)
    publisher, subscriber = server.connect(), server.connect()
    subscriber.send("LHTTP/1.0 x\r\nsubscribe:a b\r\n\r\n")
    publish(publisher, "a", 1, "message-id:m\r\n")
    bus.far.answer()
    publish(publisher, "a b", 2, "message-id:m\r\n")
    bus.far.answer(BusUnavailable("gone"))
    publish(publisher, "a b", 3, "message-id:m\r\n")
    bus.far.answer()
    assert told(publisher) == [("1", "receipt"), ("2", "error"), ("3", "receipt")]
    assert len(subscriber.take()) == 3  # once in a, twice in b


def test_only_the_channels_that_the_bus_has_refused_forget_the_id() -> None:
    bus = FarBus()
    server = Server(bus=bus)
    publisher, subscriber = server.connect(), server.connect()
    subscriber.send("LHTTP/1.0 x\r\nsubscribe:a\r\n\r\n")
    for number in range(3):
        publish(publisher, "a b", number, "message-id:m\r\n")
        bus.far.answer(ChannelsRefused(frozenset({"b"})))
    assert told(publisher) == [("0", "error"), ("1", "error"), ("2", "error")]
    assert len(subscriber.take()) == 1


# Questions that cannot be asked


@pytest.mark.parametrize("broken", [RuntimeError("broken"), "nonsense"])
@pytest.mark.parametrize("channels", ["a", "a b"])
@pytest.mark.parametrize("waits", [False, True])
def test_a_bus_that_cannot_be_asked_fails_the_receipts(
    broken: object, channels: str, waits: bool, failures: list[BaseException]
) -> None:
    bus = FarBus()
    client = Server(bus=bus).connect()
    if waits:
        publish(client, channels, 1)
        publish(client, channels, 2)
    bus.far.broken = broken
    if not waits:
        publish(client, channels, 1)
        publish(client, channels, 2)
    bus.far.answer()
    assert told(client) == [("1", "receipt" if waits else "error"), ("2", "error")]
    bus.far.broken = None
    publish(client, channels, 3)
    bus.far.answer()
    assert told(client) == [("3", "receipt")]
    assert {type(failure) for failure in failures} <= {RuntimeError, TypeError}
    failures.clear()


def test_a_bus_may_answer_with_a_coroutine() -> None:
    async def answer() -> None:
        """Have everything."""

    bus = FarBus()
    client = Server(bus=bus).connect()
    bus.far.broken = answer()
    publish(client, "a", 1)
    assert told(client) == [("1", "receipt")]


# A bus that answers sooner than the store


@pytest.mark.parametrize(
    ("error", "lost"), [(ChannelsRefused(frozenset({"b"})), ["3", "5"]), (BusUnavailable("gone"), ["2", "3", "4", "5"])]
)
def test_what_the_bus_loses_while_others_wait_for_the_store_is_not_confirmed(error: Exception, lost: list[str]) -> None:
    bus, store = FarBus(), LateStore()
    client = Server(bus=bus, history=["kept"], history_store=store).connect()
    publish(client, "kept", 1)
    bus.far.answer()
    for number, channels in enumerate(("a", "b", "kept a", "kept b", "kept"), 2):
        publish(client, channels, number)
    bus.far.answer(error)
    bus.far.answer()
    assert told(client) == []
    publish(client, "a", 7)
    for _ in range(3):
        store.store_all()
        bus.far.answer()
    answers = told(client)
    assert [number for number, _ in answers] == list("1234567")
    assert [number for number, command in answers if command == "error"] == lost


def test_what_a_store_has_decided_is_told_though_the_bus_has_failed() -> None:
    bus, store = FarBus(), LateStore()
    server = Server(bus=bus, history=["kept"], history_store=store)
    client = server.connect()
    done: list[object] = []
    server.engine.publish("kept", "x").addBoth(done.append)
    for number, channels in enumerate(("kept", "plain", "kept plain", "kept"), 1):
        publish(client, channels, number)
    for _ in range(2):
        store.store_all()
        bus.far.answer(BusUnavailable("gone"))
    assert told(client) == [("1", "receipt"), ("2", "error"), ("3", "error"), ("4", "receipt")]
    assert done == [None]


@pytest.mark.parametrize("is_cut", [False, True])
def test_what_a_store_has_not_decided_is_in_doubt_if_the_bus_fails(is_cut: bool) -> None:
    bus, store = FarBus(), LateStore()
    client = Server(bus=bus, history=["kept"], history_store=store).connect()
    publish(client, "kept", 1)
    publish(client, "kept", 2)
    store.placings[0].position = "e-1"
    if is_cut:
        client.session.cut()
    else:
        bus.far.answer(BusUnavailable("gone"))
        store.far.answer()
    assert told(client) == [("1", "receipt"), ("2", "error")]


# Outcomes that are decided while the bus takes its time


def test_a_receipt_tells_what_the_store_has_decided_before_the_bus_has_the_message() -> None:
    bus, store = SlowBus(), LateStore(over_bus=True)
    client = Server(bus=bus, history=["kept"], history_store=store).connect()
    publish(client, "kept", 1)
    store.placings[0].failure = HistoryUnavailable("no room")
    bus.taking[0].callback(None)
    assert told(client) == [("1", "error")]


@pytest.mark.parametrize("waits", [False, True])
def test_a_receipt_tells_a_position_once(waits: bool) -> None:
    bus, store = SlowBus(), LateStore(over_bus=True)
    client = Server(bus=bus, history=["kept"], history_store=store).connect()
    publish(client, "kept", 1)
    store.placings[0].position = "e-1"
    if waits:
        store.placings.append(Placing("kept"))
    bus.taking[0].callback(None)
    store.far.answer()
    [receipt] = client.take()
    assert receipt.headers.get_all("position") == ("kept=e-1",)


class StumblingBus(MemoryBus):
    """A bus that refuses the third publication."""

    count = 0

    def publish_run(self, channel: str, payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        for payload in payloads:
            self.count += 1
            if self.count == 3:
                raise BusUnavailable("not now")
            self.publish(channel, payload, binary)
        return None


def test_a_run_that_the_bus_refuses_halfway_is_not_confirmed() -> None:
    server = Server(bus=StumblingBus(), history=["kept"])
    client = server.connect()
    read = [f"LHTTP/1.0 x\r\npublish:kept\r\nreceipt:{number}\r\n\r\n".encode() for number in range(4)]
    first = 0
    while first < len(read):
        first = client.session.receive_run(read, first, False)
    assert told(client)[:3] == [("0", "receipt"), ("1", "receipt"), ("2", "error")]
    assert len(told(client)) == 0
