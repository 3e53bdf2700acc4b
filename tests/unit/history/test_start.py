"""The start and the end of a store, as its server sees to them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx.errors import StartFailed
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.testing import Server


class SlowStore(MemoryHistory):
    """A store that a test lets start."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.starting: Deferred[None] = Deferred()
        self.calls: list[str] = []

    def start(self) -> Deferred[None]:
        self.calls.append("start")
        super().start()
        return self.starting

    def stop(self) -> Deferred[None]:
        self.calls.append("stop")
        return super().stop()


def test_a_store_that_starts_while_its_server_stops_is_stopped_and_not_cancelled() -> None:
    store, cancelled = SlowStore(), []
    store.starting = Deferred(cancelled.append)
    server = Server(history=["room"], history_store=store)
    done: list[object] = []
    server.when_started().addErrback(lambda _: None)
    server.stop().addCallback(done.append)
    assert (store.calls, cancelled, done) == (["start", "stop"], [], [None])
    store.starting.callback(None)


def test_a_store_that_fails_behind_the_end_of_its_server_is_logged(failures: list[Any]) -> None:
    store = SlowStore()
    server = Server(history=["room"], history_store=store)
    server.when_started().addErrback(lambda _: None)
    server.stop()
    store.starting.errback(StartFailed("no"))
    assert [str(failure) for failure in failures] == ["no"]


def test_a_store_is_stopped_once_and_behind_everything_else() -> None:
    store = SlowStore()
    store.starting.callback(None)
    server = Server(history=["room"], history_store=store)
    client = server.connect()
    client.send("LHTTP/1.0 x\r\npublish:room\r\nreceipt:1\r\n\r\n")
    server.stop()
    server.stop()
    assert store.calls == ["start", "stop"]
