"""When a worker counts as hanging."""

from __future__ import annotations

import os

from twisted.internet.task import Clock

from lhttp_tx.twistd.watchdog import Watchdog, process_state


class World:
    def __init__(self, limit: float = 30.0) -> None:
        self.clock = Clock()
        self.cpu: float | None = 1.0
        self.found: list[float | None] = []
        self.watchdog = Watchdog(self.clock, limit, self.found.append, cpu=lambda: self.cpu)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.5] * int(seconds * 2))


def test_a_worker_that_is_silent_for_the_limit_hangs_once() -> None:
    world = World()
    world.watchdog.alive()
    world.pass_time(29.5)
    assert not world.found
    world.cpu = 24.0
    world.pass_time(60)
    assert world.found == [23.0]


def test_a_worker_that_gives_signs_of_life_does_not_hang() -> None:
    world = World()
    for _ in range(20):
        world.watchdog.alive()
        world.pass_time(20)
    assert not world.found


def test_a_start_may_take_ten_times_as_long() -> None:
    world = World()
    world.pass_time(299)
    assert not world.found
    world.pass_time(2)
    assert world.found == [0.0]


def test_time_in_which_the_supervisor_stood_still_does_not_count() -> None:
    world = World()
    world.watchdog.alive()
    for _ in range(10):
        world.clock.advance(3_600)
    assert not world.found


def test_a_worker_that_is_watched_no_more_does_not_hang() -> None:
    world = World()
    world.watchdog.stop()
    world.pass_time(1_000)
    assert not world.found


def test_where_nobody_knows_the_time_it_is_none() -> None:
    world = World()
    world.cpu = None
    world.watchdog.alive()
    world.pass_time(30)
    assert world.found == [None]


def test_the_system_knows_the_state_of_a_process() -> None:
    state, cpu = process_state(os.getpid())
    assert state == "running"
    assert cpu is not None
    assert process_state(2**31 - 1) == ("unknown", None)
