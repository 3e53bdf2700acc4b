"""
Measures once a second the delay of the reactor, and the round trip time to the bus.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lhttp_tx.interfaces import IBus
from lhttp_tx.observe.counters import Counters

__all__ = ["INTERVAL", "Sampler"]

INTERVAL = 1.0
"""Seconds between samples."""


class Sampler:
    """Takes samples while it runs."""

    def __init__(self, counters: Counters, bus: IBus, clock: IReactorTime) -> None:
        """
        :param counters: get the samples.
        :param bus: confirms, which takes a round trip.
        :param clock: the reactor.
        """
        self._counters = counters
        self._bus = bus
        self._clock = clock
        self._timer: IDelayedCall | None = None
        self._due = 0.0
        self._is_asking = False

    def start(self) -> None:
        """Begin to take samples. Does nothing if this has begun."""
        if self._timer is None:
            self._wait()

    def stop(self) -> None:
        """Take no more samples."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _wait(self) -> None:
        self._due = self._clock.seconds() + INTERVAL
        self._timer = self._clock.callLater(INTERVAL, self._look)

    def _look(self) -> None:
        self._counters.lag.observe(max(0.0, self._clock.seconds() - self._due))
        self._wait()
        if self._is_asking or not self._bus.available:
            return
        begun = self._clock.seconds()
        try:
            waiting: Any = self._bus.confirm()
        except Exception:  # the state of the bus is a metric of its own
            return
        if isinstance(waiting, Deferred):
            self._is_asking = True
            waiting.addCallbacks(lambda _: self._counters.round_trips.observe(self._clock.seconds() - begun), _ignored)
            waiting.addBoth(self._answered)

    def _answered(self, _: object) -> None:
        self._is_asking = False


def _ignored(_: object) -> None:
    """Ignore a failed round trip, because other metrics show it."""
