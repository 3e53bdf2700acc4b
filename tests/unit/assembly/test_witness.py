"""What the log says of connections and of slow processors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from lhttp_tx import Processor, Request
from lhttp_tx.assembly import witness
from lhttp_tx.config import Config
from lhttp_tx.observe.lines import fields_of
from lhttp_tx.testing import Server


class Slow(Processor):
    """Takes as long as its message says."""

    command = "slow"

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_message(self, request: Request) -> Any:
        waiting: Deferred[None] = Deferred()
        self.clock.callLater(float(request.text), waiting.callback, None)
        return waiting


class Blocking(Slow):
    command = "blocking"

    def on_message(self, request: Request) -> None:
        self.clock.advance(float(request.text))


class Coroutine(Slow):
    command = "coroutine"

    async def on_message(self, request: Request) -> None:
        await super().on_message(request)


@pytest.fixture
def events() -> Iterator[list[Any]]:
    found: list[Any] = []
    globalLogPublisher.addObserver(found.append)
    yield found
    globalLogPublisher.removeObserver(found.append)


def told(events: list[Any], beginning: str) -> list[tuple[str, dict[str, Any]]]:
    return [(event["event"], fields_of(event)) for event in events if str(event.get("event")).startswith(beginning)]


def test_a_connection_is_told_of_when_it_opens_and_when_it_ends(events: list[Any]) -> None:
    clock = Clock()
    server = Server(config=Config(log_connections="debug"), clock=clock)
    client = server.connect(user="jack")
    clock.advance(12.5)
    client.disconnect()
    clock.advance(0)
    (opened, opened_with), (closed, closed_with) = told(events, "connection.")
    assert (opened, closed) == ("connection.opened", "connection.closed")
    assert opened_with["user"] == closed_with["user"] == "jack"
    assert closed_with["seconds"] == 12.5
    assert {event["log_level"].name for event in events if "connection." in str(event.get("event"))} == {"debug"}


def test_nobody_is_told_without_the_option(events: list[Any]) -> None:
    server = Server()
    server.connect().disconnect()
    assert not told(events, "connection.")
    assert not server.engine.step_watchers


def test_lines_about_connections_have_a_bound(events: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "MAX_LINES", 3)
    clock = Clock()
    server = Server(config=Config(log_connections="info", max_connections=0), clock=clock)
    for _ in range(5):
        server.connect()
    assert len(told(events, "connection.")) == 3
    clock.advance(10)
    server.connect()
    assert len(told(events, "connection.")) == 4
    assert told(events, "log.left_out") == [("log.left_out", {"count": 2})]


@pytest.mark.parametrize("kind", [Slow, Blocking, Coroutine])
def test_a_processor_that_takes_long_is_named_once_it_is_done(kind: type[Slow], events: list[Any]) -> None:
    clock = Clock()
    server = Server(config=Config(log_slow=1.0), clock=clock, processors=[kind(clock)])
    client = server.connect()
    for seconds in ("0.5", "2"):
        client.send(f"LHTTP/1.0 {kind.command}\r\n\r\n{seconds}")
        clock.advance(float(seconds))
    ((name, fields),) = told(events, "processor.")
    assert (name, fields["command"], fields["seconds"]) == ("processor.slow", kind.command, pytest.approx(2.0))
