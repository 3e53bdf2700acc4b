"""Every way from one state of a conversation to another: those of the table, and no other."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from lhttp_tx import HeaderFilter, Processor, Request
from lhttp_tx.engine.session import Session
from lhttp_tx.engine.state import State
from lhttp_tx.testing import Client, Server
from unit.engine.test_receipts import FarBus

Way = tuple[State, State]


def table() -> set[Way]:
    """The ways that the table allows."""
    ways: set[Way] = set()
    for origin, target in re.findall(r"^ *(all of these|[A-Z]+) +([A-Z]+) ", State.__doc__ or "", re.MULTILINE):
        origins = [origin] if origin in State.__members__ else [name for name in State.__members__ if name < "~"][:6]
        ways.update((State[name], State[target]) for name in origins)
    return ways


class Held(Processor):
    """Holds messages, and openings too, until the test lets them go."""

    command = "hold"

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    def on_message(self, request: Request) -> Deferred[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1]


class HeldOpening(HeaderFilter):
    def __init__(self) -> None:
        self.waiting: Deferred[None] = Deferred()

    def on_connect(self, session: Session) -> Deferred[None]:
        return self.waiting


class World:
    """One server, one client, and what its session went through."""

    def __init__(self, ways: list[Way]) -> None:
        self.held, self.bus, self.ways = Held(), FarBus(), ways
        self.server = Server(bus=self.bus, processors=[self.held])
        self.client: Client = self.server.connect()
        self.session: Any = self.client.session

    def hold(self) -> None:
        self.client.send("LHTTP/1.0 hold\r\n\r\n")

    def release(self) -> None:
        self.held.waiting.pop().callback(None)

    def finish(self) -> None:
        self.session.finish(1001, "going away")

    def close(self) -> None:
        """Close, though the peer does not answer yet."""
        self.client._is_entering = True
        self.session.close()

    def lose(self) -> None:
        self.client.transport.connected = False
        self.session.connection_lost()

    def receipt(self) -> None:
        self.client._is_entering = True
        self.client.send("LHTTP/1.0 x\r\npublish:room\r\nreceipt:1\r\n\r\n")

    def confirm(self) -> None:
        self.bus.take()


SCENARIOS = {
    "a message": "hold release",
    "a close": "close lose",
    "a close in hand": "hold close release lose",
    "a loss": "lose",
    "a loss in hand": "hold lose release",
    "a loss while closing": "hold close lose release",
    "an end": "receipt confirm finish lose",
    "an end in hand": "hold finish release lose",
    "an end in hand, closed": "hold finish close release lose",
    "an end in hand, lost": "hold finish lose release",
    "an end behind receipts": "receipt finish confirm lose",
    "an end behind receipts, closed": "receipt finish close lose",
    "an end behind receipts, lost": "receipt finish lose confirm",
}


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[Way]:
    found: list[Way] = []
    slot: Any = Session.__dict__["stage"]

    def change(session: Session, state: State) -> None:
        if hasattr(session, "_fresh"):  # it is more than begun
            found.append((slot.__get__(session), state))
        slot.__set__(session, state)

    monkeypatch.setattr(Session, "stage", property(slot.__get__, change))
    return found


@pytest.mark.parametrize("steps", SCENARIOS.values(), ids=SCENARIOS)
def test_no_scenario_leaves_the_table(steps: str, ways: list[Way]) -> None:
    world = World(ways)
    for step in steps.split():
        getattr(world, step)()
    assert set(ways) <= table()
    if "lose" in steps:
        assert world.session.stage is State.GONE
        assert world.server.engine.sessions == set()


def test_every_way_of_the_table_is_gone(ways: list[Way]) -> None:
    for steps in SCENARIOS.values():
        world = World(ways)
        for step in steps.split():
            getattr(world, step)()
    assert set(ways) == table()


@pytest.mark.parametrize("let_go", [lambda waiting: waiting.callback(None), lambda waiting: waiting.cancel()])
def test_an_opening_is_in_hand(let_go: Callable[[Deferred[None]], None]) -> None:
    opening = HeldOpening()
    client: Any = Server(filters=[opening]).connect()
    assert [client.session.stage] == [State.BUSY]
    client.disconnect()
    assert [client.session.stage] == [State.LOST]
    let_go(opening.waiting)
    assert client.session.stage is State.GONE


@pytest.mark.parametrize("steps", ["finish", "receipt finish", "hold finish", "hold close", "lose"])
def test_a_message_that_comes_too_late_is_dropped(steps: str) -> None:
    world = World([])
    for step in steps.split():
        getattr(world, step)()
    before = len(world.held.waiting)
    world.session.receive(b"LHTTP/1.0 hold\r\n\r\n", False)
    world.session.receive_run([b"LHTTP/1.0 hold\r\n\r\n"] * 2, 0, False)
    assert (len(world.held.waiting), world.session._queue) == (before, None)
