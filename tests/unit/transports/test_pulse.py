"""lhttp_tx.transports.pulse: each stream gets a heartbeat in each interval, and not all at once."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from lhttp_tx.transports.pulse import Pulse


class Stream:
    part = -1
    beats = 0

    def beat(self) -> None:
        self.beats += 1


def test_each_stream_gets_one_heartbeat_in_an_interval() -> None:
    clock = Clock()
    pulse = Pulse(clock, 32.0)
    streams = [Stream() for _ in range(40)]
    for stream in streams:
        pulse.add(stream)
        clock.advance(1.0)
    beats = [stream.beats for stream in streams]
    for _ in range(64):
        clock.advance(1.0)
    assert [stream.beats - before for stream, before in zip(streams, beats, strict=True)] == [2] * 40


def test_nothing_is_called_while_there_is_no_stream() -> None:
    clock = Clock()
    pulse = Pulse(clock, 30.0)
    stream = Stream()
    pulse.discard(stream)
    pulse.add(stream)
    pulse.discard(stream)
    pulse.discard(stream)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("interval", [0.0])
def test_without_an_interval_there_are_none(interval: float) -> None:
    clock = Clock()
    pulse = Pulse(clock, interval)
    stream = Stream()
    pulse.add(stream)
    assert clock.getDelayedCalls() == []
    pulse.discard(stream)


def test_a_stream_that_ends_in_its_heartbeat_harms_no_other() -> None:
    clock = Clock()
    pulse = Pulse(clock, 32.0)

    class Ending(Stream):
        def beat(self) -> None:
            super().beat()
            pulse.discard(self)

    ending, other = Ending(), Stream()
    pulse.add(ending)
    pulse.add(other)
    for _ in range(64):
        clock.advance(1.0)
    assert (ending.beats, other.beats) == (1, 2)
