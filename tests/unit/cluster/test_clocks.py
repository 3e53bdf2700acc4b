"""What a node knows about the clocks of others."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from lhttp_tx.cluster.clocks import Clocks


@pytest.fixture
def clock() -> Clock:
    made = Clock()
    made.advance(1_000.0)
    return made


@pytest.fixture
def clocks(clock: Clock) -> Clocks:
    return Clocks(clock, lambda: 5_000.0)


def test_the_shared_time_begins_with_the_time_of_day_and_runs_on_whatever_that_does(
    clock: Clock, clocks: Clocks
) -> None:
    assert clocks.shared() == 5_000.0
    clock.advance(10)
    assert clocks.shared() == 5_010.0


def test_a_later_time_is_followed_and_an_earlier_one_is_not(clock: Clock, clocks: Clocks) -> None:
    jumps: list[float] = []
    clocks.on_jump.append(jumps.append)
    clocks.follow(4_000.0)
    assert clocks.shared() == 5_000.0
    clocks.follow(5_000.5)
    assert clocks.shared() == 5_000.5
    assert jumps == []
    clocks.follow(8_600.5)
    assert clocks.shared() == 8_600.5
    assert jumps == [3_600.0]


@pytest.mark.parametrize("told", [None, "7", [], float("nan"), float("inf"), 1e300])
def test_what_is_no_time_is_not_followed(clocks: Clocks, told: Any) -> None:
    clocks.shared()
    clocks.follow(told)
    clocks.heard("a", told)
    clocks.answered("a", told)
    assert clocks.shared() == 5_000.0
    assert not clocks.knows("a")


def test_a_message_is_as_old_as_it_is_whatever_the_clocks_say(clock: Clock, clocks: Clocks) -> None:
    clocks.heard("a", 7.0)
    clocks.answered("a", clock.seconds())
    assert clocks.knows("a")
    clock.advance(20)
    assert 1_000.0 <= clocks.here("a", 7.0) < 1_000.01
    clocks.heard("a", 8.0)  # 19 s late: says nothing
    assert 1_001.0 <= clocks.here("a", 8.0) < 1_001.01


def test_the_quickest_message_counts(clock: Clock, clocks: Clocks) -> None:
    clocks.heard("a", 7.0)
    clock.advance(1.0)
    clocks.heard("a", 8.3)
    clocks.answered("a", clock.seconds())
    assert clocks.here("a", 8.3) == 1_001.0


def test_an_answer_that_came_late_makes_nothing_known(clock: Clock, clocks: Clocks) -> None:
    clocks.heard("a", 7.0)
    clocks.answered("a", clock.seconds() - 3.0)
    assert not clocks.knows("a")


def test_who_waits_for_a_clock_goes_on_when_it_is_known_or_after_a_while(clock: Clock, clocks: Clocks) -> None:
    asked: list[str] = []
    clocks.ask = asked.append
    found: list[str] = []
    for name in ("a", "b"):
        clocks.when_known(name).addCallback(lambda _, name=name: found.append(name))
    assert (asked, found) == (["a", "b"], [])
    clocks.heard("a", 7.0)
    clocks.answered("a", clock.seconds())
    assert found == ["a"]
    clock.advance(2.0)
    assert found == ["a", "b"]
    clocks.when_known("a").addCallback(lambda _: found.append("at once"))
    assert found[-1] == "at once"


def test_the_clocks_that_are_remembered_are_bounded(clocks: Clocks) -> None:
    for number in range(10_000):
        clocks.heard(str(number), 1.0)
    assert len(clocks._distances) == 4_096
