"""A store whose disk is full: what goes to no history does not suffer."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.values import Placing, Retention
from lhttp_tx.interfaces import MaybeDeferred
from lhttp_tx.testing import Client, Server


class UnsureStore(MemoryHistory):
    """A store whose confirmations a test gives, or fails."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.waiting: list[Deferred[None]] = []

    def confirm(self) -> MaybeDeferred:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def fail(self) -> None:
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            one.errback(HistoryUnavailable("the disk is full"))


@pytest.fixture
def store() -> UnsureStore:
    return UnsureStore()


@pytest.fixture
def server(store: UnsureStore) -> Server:
    return Server(history=["kept"], history_store=store)


def test_a_receipt_of_a_channel_without_history_does_not_wait_for_the_store(server: Server, store: UnsureStore) -> None:
    client = server.connect()
    client.send("LHTTP/1.0 x\r\npublish:plain\r\nreceipt:1\r\n\r\n")
    client.send("LHTTP/1.0 x\r\npublish:kept\r\nstore:no\r\nreceipt:2\r\n\r\n")
    assert [message.headers.get("receipt-id") for message in client.take()] == ["1", "2"]
    assert store.waiting == []


def test_of_receipts_that_wait_together_only_those_of_the_store_fail_with_it(
    server: Server, store: UnsureStore
) -> None:
    client = server.connect()
    for number, channel in enumerate(("kept", "plain", "kept plain", "plain")):
        client.send(f"LHTTP/1.0 x\r\npublish:{channel}\r\nreceipt:{number}\r\n\r\n")
    assert client.take() == []
    store.fail()
    assert [(message.command, message.headers.get("receipt-id")) for message in client.take()] == [
        ("error", "0"),
        ("receipt", "1"),
        ("error", "2"),
        ("receipt", "3"),
    ]


def test_code_and_posts_publish_where_there_is_no_history(server: Server, store: UnsureStore) -> None:
    done: list[object] = []
    server.engine.publish("plain", "x").addCallback(done.append)
    assert done == [None]
    waiting = server.engine.publish("kept", "x")
    waiting.addErrback(lambda failure: done.append(failure.value))
    store.fail()
    assert isinstance(done[-1], HistoryUnavailable)


class DecidingStore(UnsureStore):
    """A store that decides later what becomes of a publication, as a test says, as a cluster does."""

    spreads = True

    def __init__(self) -> None:
        super().__init__()
        self.placings: list[Placing | None] = []

    def append(
        self, channel: str, retention: Retention, payloads: list[bytes], binary: bool, placing: Placing | None = None
    ) -> list[bytes]:
        self.placings.append(placing)
        return []

    def decide(self, *failures: str) -> None:
        """Refuse publications, one for each reason that is not empty, and store the others."""
        for number, (placing, why) in enumerate(zip(self.placings, failures, strict=True), 1):
            if placing is not None:
                placing.failure, placing.position = (HistoryUnavailable(why), None) if why else (None, f"e-{number}")
        self.placings = []


@pytest.fixture
def deciding() -> DecidingStore:
    return DecidingStore()


def test_code_learns_that_a_store_has_refused_its_publication(deciding: DecidingStore) -> None:
    server = Server(history=["kept"], history_store=deciding)
    done: list[object] = []
    for _ in range(2):
        server.engine.publish("kept", "x").addCallbacks(done.append, lambda failure: done.append(failure.value))
    deciding.decide("no room", "")
    for one in deciding.waiting:
        one.callback(None)
    assert [str(each) for each in done] == ["no room", "None"]
    assert isinstance(done[0], HistoryUnavailable)


def told(client: Client) -> list[tuple[str | None, ...]]:
    names = ("receipt-id", "position", "reason")
    return [tuple(message.headers.get(name) for name in names) for message in client.take()]


def test_what_a_store_has_decided_does_not_fail_with_the_publication_of_another(deciding: DecidingStore) -> None:
    server = Server(history=["kept"], history_store=deciding)
    client = server.connect()
    done: list[object] = []
    server.engine.publish("kept", "x").addBoth(done.append)
    for number, channel in enumerate(("kept", "kept", "plain", "kept plain", "kept")):
        client.send(f"LHTTP/1.0 x\r\npublish:{channel}\r\nreceipt:{number}\r\n\r\n")
    deciding.decide("", "", "no room", "", "")
    first, deciding.waiting = deciding.waiting, []
    for one in first:
        one.errback(HistoryUnavailable("another was lost"))
    assert done == [None]
    assert told(client) == [("0", "kept=e-2", None)]  # the others were not asked for yet
    deciding.fail()
    assert told(client) == [
        ("1", None, "no room"),
        ("2", None, None),
        ("3", "kept=e-4", None),
        ("4", "kept=e-5", None),
    ]


def test_what_a_store_has_not_decided_fails_with_it(deciding: DecidingStore) -> None:
    server = Server(history=["kept"], history_store=deciding)
    client = server.connect()
    done: list[object] = []
    server.engine.publish("kept", "x").addErrback(lambda failure: done.append(failure.value.reason))
    client.send("LHTTP/1.0 x\r\npublish:kept\r\nreceipt:1\r\n\r\n")
    deciding.fail()
    assert done == ["the disk is full"]
    assert told(client) == [("1", None, "the disk is full")]
