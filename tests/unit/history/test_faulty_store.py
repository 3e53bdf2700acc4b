"""A history store of somebody else that does what no store may do: who made it is told, and the server goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from lhttp_tx import Message
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.errors import StartFailed
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.values import DEFAULT_RETENTION, Page
from lhttp_tx.testing import Server


def boom(*arguments: Any, **options: Any) -> Any:
    raise ZeroDivisionError("boom")


def faulty(**methods: Callable[..., Any]) -> MemoryHistory:
    """Return a store with other methods."""
    return type("Faulty", (MemoryHistory,), methods)(Clock())  # type: ignore[no-any-return]


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The warnings in the log."""
    found: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event["log_level"] is LogLevel.warn:
            found.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def recover(server: Server) -> Any:
    """Return a client that has asked for everything since the beginning."""
    client = server.connect()
    epoch = server.assembly.histories.store.epoch_of(DEFAULT_RETENTION)
    client.send(Message("join", {"subscribe": "room", "since": f"{epoch}-0", "receipt": "1"}))
    return client


@pytest.mark.parametrize("answer", [None, "page", Page, (None,), ([],)])
@pytest.mark.parametrize("question", ["since", "last", "history"])
def test_an_answer_that_is_no_page_is_an_error_for_everybody_who_asks(
    answer: Any, question: str, failures: list[Any]
) -> None:
    def answers(*arguments: Any, **options: Any) -> Any:
        return succeed(answer[0]) if isinstance(answer, tuple) else answer

    server = Server(history=["room"], history_store=faulty(read=answers, newest=answers))
    for _ in range(2):
        client = server.connect()
        if question == "since":
            client = recover(server)
        elif question == "last":
            client.send(Message("join", {"subscribe": "room", "last": "3", "receipt": "1"}))
        else:
            client.send(Message("history", {"channel": "room", "receipt": "1"}))
        assert [(message.command, message.headers.get("status")) for message in client.take()] == [("error", "500")]
    assert len(failures) == 2
    assert "which is no lhttp_tx.history.values.Page" in str(failures[0])


def test_a_store_that_never_answers_is_asked_again_by_those_who_come_later() -> None:
    store = faulty()
    server = Server(history=["room"], history_store=store)
    server.engine.publish("room", "chat", body="hello")
    read, asked = store.read, list[Deferred[Page]]()

    def lose(*arguments: Any, **options: Any) -> Any:
        asked.append(Deferred())
        return asked[-1]

    store.read = lose  # type: ignore[method-assign]
    early = [recover(server), recover(server)]
    assert len(asked) == 1
    store.read = read  # type: ignore[method-assign]
    server.clock.advance(6.0)
    assert [message.text for message in recover(server).take()] == ["hello", ""]
    server.clock.advance(30.0)
    assert [client.take()[0].headers.get("status") for client in early] == ["500", "500"]


def test_an_answer_that_comes_late_goes_to_those_who_still_wait() -> None:
    store = faulty()
    server = Server(history=["room"], history_store=store)
    server.engine.publish("room", "chat", body="hello")
    read, late = store.read, list[Callable[[], None]]()

    def wait(*arguments: Any, **options: Any) -> Deferred[Page]:
        answer: Deferred[Page] = Deferred()
        late.append(lambda: answer.callback(read(*arguments, **options)))
        return answer

    store.read = wait  # type: ignore[method-assign, assignment]
    gone, patient = recover(server), recover(server)
    gone.disconnect()
    for answer in late:
        answer()
    assert [message.text for message in patient.take()] == ["hello", ""]


@pytest.mark.parametrize("returned", [None, "none", (b"LHTTP/1.0 x\r\n\r\n",)])
def test_what_append_returns_is_a_list(returned: Any, failures: list[Any]) -> None:
    server = Server(history=["room"], history_store=faulty(append=lambda *a, **k: returned))
    client = server.connect()
    for receipt in ({}, {"receipt": "1"}):
        client.send(Message("chat", {"publish": "room", **receipt}))
        assert [message.headers.get("status") for message in client.take()] == ["500"]
    assert "which is no list of bytes" in str(failures[0])


@pytest.mark.parametrize("method", ["append", "confirm"])
def test_code_that_publishes_gets_a_failed_deferred(method: str) -> None:
    server = Server(history=["room"], history_store=faulty(**{method: boom}))
    failed: list[Any] = []
    server.server.publish("room", "chat").addErrback(failed.append)
    assert failed[0].check(ZeroDivisionError)


def test_code_that_publishes_over_a_faulty_bus_gets_a_failed_deferred() -> None:
    bus = MemoryBus()
    server = Server(bus=bus)
    bus.publish = boom  # type: ignore[method-assign]
    failed: list[Any] = []
    server.server.publish("room", "chat").addErrback(failed.append)
    assert failed[0].check(ZeroDivisionError)


@pytest.mark.parametrize("start", [boom, lambda store: fail(ZeroDivisionError("boom"))])
def test_a_store_that_does_not_start_is_named(start: Any, failures: list[Any]) -> None:
    failed: list[Any] = []
    Server(history=["room"], history_store=faulty(start=start)).when_started().addErrback(failed.append)
    assert failed[0].check(StartFailed) and str(failed[0].value) == "the history store did not start: boom"
    assert len(failures) == 1


@pytest.mark.parametrize("stop", [boom, lambda store: fail(ZeroDivisionError("boom")), lambda store: None])
def test_the_bus_stops_whatever_becomes_of_the_store(stop: Any, failures: list[Any]) -> None:
    stopped: list[str] = []
    bus = MemoryBus()
    bus.stop = lambda: stopped.append("bus")  # type: ignore[method-assign, assignment, return-value, func-returns-value]
    server = Server(history=["room"], history_store=faulty(stop=stop), bus=bus)
    server.stop().addCallback(lambda _: stopped.append("server"))
    assert stopped == ["bus", "server"]
    assert [str(failure) for failure in failures] in ([], ["boom"])


def test_the_log_tells_what_a_stop_waits_for(told: list[str]) -> None:
    stopping: Deferred[None] = Deferred()
    server = Server(history=["room"], history_store=faulty(stop=lambda store: stopping))
    stopped: list[None] = []
    server.stop().addCallback(stopped.append)
    server.clock.advance(60.0)
    assert (stopped, told) == ([], ["the server still waits until the history store has stopped"])
    stopping.callback(None)
    assert stopped == [None]
