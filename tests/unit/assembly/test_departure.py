"""How a server leaves: the delay, the pace at which clients are closed, and what ends both sooner."""

from __future__ import annotations

import re
from typing import Any

import pytest
from twisted.internet.task import Clock

from lhttp_tx.assembly.departure import RETURN_WITHIN, Departure

REASON = re.compile(r"server is going away; retry-after=([\d.]+)")


class Session:
    """A session that remembers when it was closed, and why."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def finish(self, code: int, reason: str) -> None:
        found = REASON.fullmatch(reason)
        assert found is not None and code == 1001
        self.stage.closed.append((self.stage.clock.seconds(), float(found[1])))


class Stage:
    """A departure on a clock, with connections that end when they are told."""

    def __init__(self, count: int = 100, *, delay: float = 0.0, time: float = 0.0) -> None:
        self.clock = Clock()
        self.closed: list[tuple[float, float]] = []
        self.sessions = {Session(self) for _ in range(count)}
        engine: Any = self
        self.departure = Departure(engine, self.clock, delay=delay, time=time)
        self.departure.begin()
        self.done: list[None] = []

    def spread(self) -> None:
        self.departure.spread().addCallback(self.done.append)

    def wait(self) -> None:
        self.departure.wait().addCallback(self.done.append)


def test_without_settings_nothing_is_waited_for() -> None:
    stage = Stage()
    stage.wait()
    stage.spread()
    assert stage.done == [None, None] and not stage.closed
    assert not stage.departure.hurry()


def test_the_delay_lasts_as_long_as_it_is() -> None:
    stage = Stage(delay=5.0, time=10.0)
    stage.wait()
    stage.clock.advance(4.99)
    assert not stage.done
    stage.clock.advance(0.02)
    assert stage.done == [None]


def test_clients_are_closed_at_the_same_pace_through_all_the_time() -> None:
    stage = Stage(100, time=10.0)
    stage.spread()
    stage.clock.pump([0.01] * 1_010)
    assert len(stage.closed) == 100 and stage.done == [None]
    for second in range(10):
        assert 8 <= sum(second < when <= second + 1 for when, _ in stage.closed) <= 12
    assert {retry for _, retry in stage.closed} == {RETURN_WITHIN}
    assert not stage.clock.getDelayedCalls()


def test_a_clock_that_stood_still_is_caught_up_with() -> None:
    stage = Stage(10, time=10.0)
    stage.spread()
    stage.clock.advance(0)
    stage.clock.advance(60.0)
    assert len(stage.closed) == 10 and stage.done == [None]


def test_whoever_is_in_a_hurry_ends_the_spread_and_spreads_the_return() -> None:
    stage = Stage(10, time=10.0)
    stage.spread()
    stage.clock.pump([0.01] * 400)
    before = len(stage.closed)
    assert 3 <= before <= 5
    assert stage.departure.hurry()
    stage.clock.advance(0)
    assert len(stage.closed) == 10 and stage.done == [None]
    assert all(retry == pytest.approx(6.0, abs=0.1) for _, retry in stage.closed[before:])
    assert not stage.departure.hurry()


def test_whoever_is_in_a_hurry_ends_the_delay_and_closes_all() -> None:
    stage = Stage(10, delay=100.0, time=10.0)
    stage.wait()
    assert stage.departure.hurry()
    stage.clock.advance(0)
    assert stage.done == [None]
    stage.spread()
    assert stage.closed == [(0.0, 10.0)] * 10
    assert stage.done == [None, None]


def test_a_server_without_clients_waits_for_nobody() -> None:
    stage = Stage(0, time=600.0)
    stage.spread()
    assert stage.done == [None]
