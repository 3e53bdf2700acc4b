"""lhttp_tx.web.admin.rates: samples of what goes through a node."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from lhttp_tx.observe.counters import Counters
from lhttp_tx.testing import Server
from lhttp_tx.web.admin.incidents import Incidents
from lhttp_tx.web.admin.rates import INTERVAL, MAX_SAMPLES, Rates


class Stage:
    """A server with samples."""

    def __init__(self, counters: Counters | None) -> None:
        self.clock = Clock()
        self.server = Server(clock=self.clock)
        self.incidents = Incidents(self.clock, self.clock.seconds, self.server.control.name_of)
        engine = self.server.engine
        self.rates = Rates(engine, self.incidents, counters, self.clock, lambda: self.clock.seconds() + 1e9)
        self.rates.start()

    def newest(self, since: float = 0, limit: int = 1000) -> list[dict[str, Any]]:
        return self.rates.newest({"since": since, "limit": limit})


def test_a_sample_has_rates_and_mean_times() -> None:
    counters = Counters()
    counters.received_messages = 7
    stage = Stage(counters)
    stage.server.connect()
    counters.received_messages += 10
    counters.processor("a").observe(0.2)
    counters.processor("b").observe(0.4)
    stage.clock.advance(INTERVAL)
    (found,) = stage.newest()
    assert (found["received"], found["connections"], found["lag"]) == (5.0, 1, 0.0)
    assert round(found["processor"], 6) == 0.3
    assert "bus" not in found
    stage.clock.advance(INTERVAL)
    assert "processor" not in stage.newest()[-1]


def test_without_counters_it_has_what_is_known() -> None:
    stage = Stage(None)
    stage.incidents.opened = 4
    stage.clock.advance(INTERVAL)
    (found,) = stage.newest()
    assert found["opened"] == 2.0
    assert "received" not in found


def test_a_late_reactor_shows() -> None:
    stage = Stage(None)
    stage.incidents.opened = 5
    stage.clock.advance(INTERVAL + 0.5)
    (found,) = stage.newest()
    assert (found["lag"], found["opened"]) == (0.5, 2.0)


def test_samples_are_bounded_and_can_be_asked_for_since_a_time() -> None:
    stage = Stage(None)
    for _ in range(MAX_SAMPLES + 10):
        stage.clock.advance(INTERVAL)
    found = stage.newest()
    assert len(found) == MAX_SAMPLES
    assert stage.newest(since=found[-3]["time"]) == found[-2:]
    assert stage.newest(limit=1) == found[-1:]


def test_it_stops() -> None:
    stage = Stage(None)
    stage.rates.stop()
    stage.clock.advance(INTERVAL)
    assert stage.newest() == []
