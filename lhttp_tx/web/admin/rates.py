"""
Samples of the load of this node in the last ten minutes, for plots.

A timer takes one sample every two seconds. With ``Config(metrics=True)``, a sample also has the messages and times of
:class:`~lhttp_tx.observe.counters.Counters`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lhttp_tx.engine.engine import Engine
from lhttp_tx.observe.counters import Counters
from lhttp_tx.web.admin.incidents import Incidents

__all__ = ["INTERVAL", "MAX_SAMPLES", "Rates"]

INTERVAL: Final = 2.0
"""Seconds between two samples."""

MAX_SAMPLES: Final = 300
"""The most samples that are kept: ten minutes of them."""

_TIMES: Final = {
    "handshake": "handshakes",
    "upstream": "upstream_times",
    "bus": "bus_times",
    "history": "history_times",
    "round_trip": "round_trips",
}
"""The times in a sample, with the names of their histograms."""


class Rates:
    """Takes samples while it runs, and keeps the newest."""

    def __init__(
        self,
        engine: Engine,
        incidents: Incidents,
        counters: Counters | None,
        clock: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        """
        :param engine: has the connections.
        :param incidents: counts what opens, ends and fails.
        :param counters: counts messages; ``None``: they are not counted.
        :param clock: the reactor.
        :param now: returns the time in seconds since 1970.
        """
        self._engine = engine
        self._incidents = incidents
        self._counters = counters
        self._clock = clock
        self._now = now
        self._samples: deque[dict[str, Any]] = deque(maxlen=MAX_SAMPLES)
        self._timer: IDelayedCall | None = None
        self._last = 0.0
        self._totals: dict[str, float] = {}
        self._times: dict[str, tuple[int, float]] = {}

    def start(self) -> None:
        """Begin to take samples. Does nothing if this has begun."""
        if self._timer is None:
            self._totals, self._times = self._count(), self._time()
            self._wait()

    def stop(self) -> None:
        """Take no more samples."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def newest(self, order: dict[str, Any]) -> list[dict[str, Any]]:
        """
        Return samples, the oldest first.

        :param order: ``since``, a time in seconds since 1970: return only later samples; ``limit``: return at most this
            many, the newest.
        """
        found = [sample for sample in self._samples if sample["time"] > order["since"]]
        return found[-order["limit"] :]

    def _wait(self) -> None:
        self._last = self._clock.seconds()
        self._timer = self._clock.callLater(INTERVAL, self._look)

    def _look(self) -> None:
        passed = max(self._clock.seconds() - self._last, 0.001)
        totals, times = self._count(), self._time()
        sample: dict[str, Any] = {"time": round(self._now(), 3), "connections": len(self._engine.sessions)}
        sample["lag"] = round(max(0.0, passed - INTERVAL), 6)
        for name, total in totals.items():
            sample[name] = round((total - self._totals[name]) / passed, 3)
        for name, (count, total) in times.items():
            before, earlier = self._times.get(name, (0, 0.0))
            if count > before:
                sample[name] = round((total - earlier) / (count - before), 6)
        self._samples.append(sample)
        self._totals, self._times = totals, times
        self._wait()

    def _count(self) -> dict[str, float]:
        """Return the totals of all counters. They only rise."""
        incidents, counters = self._incidents, self._counters
        found: dict[str, float] = {
            "opened": incidents.opened,
            "closed": incidents.closed,
            "errors": incidents.failed,
        }
        if counters is not None:
            found |= {
                "received": counters.received_messages,
                "received_bytes": counters.received_bytes,
                "published": counters.publications,
                "delivered": counters.deliveries,
                "delivered_bytes": counters.delivered_bytes,
            }
        return found

    def _time(self) -> dict[str, tuple[int, float]]:
        """Return, for each time, the number of measurements and their sum in seconds."""
        counters = self._counters
        if counters is None:
            return {}
        found: dict[str, tuple[int, float]] = {}
        for name, attribute in _TIMES.items():
            histogram = getattr(counters, attribute)
            found[name] = histogram.count, histogram.total
        processors = counters.processors.values()
        found["processor"] = sum(each.count for each in processors), sum(each.total for each in processors)
        return found
