"""lhttp_tx.web.admin.sampler: how late the reactor is, and how long the bus takes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx.errors import BusUnavailable
from lhttp_tx.observe.counters import Counters
from lhttp_tx.web.admin.sampler import INTERVAL, Sampler


class Bus:
    """A bus that confirms when the test says so."""

    available = True

    def __init__(self) -> None:
        self.asked: list[Deferred[None]] = []

    def confirm(self) -> Deferred[None]:
        self.asked.append(Deferred())
        return self.asked[-1]


class Stage:
    """A sampler that runs."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.bus: Any = Bus()
        self.counters = Counters()
        self.sampler = Sampler(self.counters, self.bus, self.clock)
        self.sampler.start()


def test_a_late_reactor_is_measured() -> None:
    stage = Stage()
    stage.clock.advance(INTERVAL)
    stage.clock.advance(INTERVAL + 0.5)
    assert (stage.counters.lag.count, stage.counters.lag.total) == (2, 0.5)


def test_a_round_trip_is_measured() -> None:
    stage = Stage()
    stage.clock.advance(INTERVAL)
    stage.clock.advance(0.25)
    stage.bus.asked[0].callback(None)
    assert (stage.counters.round_trips.count, stage.counters.round_trips.total) == (1, 0.25)


def test_one_question_is_under_way_at_a_time_and_a_failure_is_no_round_trip() -> None:
    stage = Stage()
    stage.clock.pump([INTERVAL] * 3)
    assert len(stage.bus.asked) == 1
    stage.bus.asked[0].errback(BusUnavailable("away"))
    stage.bus.available = False
    stage.clock.advance(INTERVAL)
    assert len(stage.bus.asked) == 1
    stage.bus.available = True
    stage.clock.advance(INTERVAL)
    assert len(stage.bus.asked) == 2
    assert stage.counters.round_trips.count == 0


def test_it_stops() -> None:
    stage = Stage()
    stage.sampler.stop()
    assert not stage.clock.getDelayedCalls()
