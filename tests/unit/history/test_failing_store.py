"""A store whose disk is full: what goes to no history does not suffer."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.interfaces import MaybeDeferred
from lhttp_tx.testing import Server


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
