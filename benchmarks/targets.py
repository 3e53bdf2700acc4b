"""
What the project has set itself to reach, held against the results of one run.

Used by :mod:`benchmarks.report`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.figures import Case, Curve, Results
from benchmarks.watched import PLAIN, WATCHED

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    One target.

    :ivar wanted: the bound, at least or at most.
    :ivar measured: what was measured.
    """

    name: str
    at_least: bool
    wanted: float
    measured: float
    unit: str = "x"

    @property
    def reached(self) -> bool:
        """Whether the target is reached."""
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted


def _against(metric: str, peer: str) -> Callable[[Case], float | None]:
    return lambda case: case.ratio(metric, "lhttp", peer)


def _form(row: str) -> Callable[[Case], float | None]:
    return lambda case: case.paired("rate", row, "text")


_CASES: list[tuple[str, str, bool, float, str, Callable[[Case], float | None]]] = [
    ("a.10000", "burst of 10,000, rate / plain Autobahn", True, 4.0, "x", _against("rate", "autobahn")),
    ("a.10000", "burst of 10,000, rate / nats-server", True, 0.5, "x", _against("rate", "nats")),
    ("b.100", "1 to 100, rate / nats-server", True, 1.5, "x", _against("rate", "nats")),
    ("b.100", "1 to 100, rate / plain Autobahn", True, 8.0, "x", _against("rate", "autobahn")),
    ("b.1000", "1 to 1,000, rate / nats-server", True, 2.0, "x", _against("rate", "nats")),
    ("c.1000", "1 to 1,000 at 100/s, CPU / bare send()", False, 2.2, "x", _against("cpu", "bare")),
    ("d.10x100", "echo, 10 connections, rate / plain Autobahn", True, 5.0, "x", _against("rate", "autobahn")),
    ("d.100x100", "echo, 100 connections, rate / plain Autobahn", True, 5.0, "x", _against("rate", "autobahn")),
    ("g.memory", "memory of an idle connection", False, 12.0, " KiB", lambda case: case.median("lhttp", "memory")),
    ("p", "1 to 1,000 as JSON, rate / text", True, 0.9, "x", _form("JSON")),
    ("p", "1 to 1,000 as Protocol Buffers, rate / text", True, 0.9, "x", _form("Protocol Buffers")),
    ("p", "1 to 1,000 as server-sent events, rate / text", True, 0.8, "x", _form("server-sent events")),
    ("g.accept", "connections opened, rate / plain Autobahn", True, 1.5, "x", _against("rate", "autobahn")),
]

_WATCHED: list[tuple[str, str]] = [
    ("r.burst", "burst, with metrics and the dashboard open"),
    ("r.fan-out", "1 to 100, with metrics and the dashboard open"),
    ("r.paced", "1 to 1,000 at 100/s, with metrics and the dashboard open"),
]

_WATCHED_SHARE = 0.98
"""How much work a server that is watched does, at least, for the CPU time that another one takes for 1."""

LEVEL = 1.25
"""By how much a line that must be level may rise: the noise of two measurements of servers that are alike."""


def judge(results: Results) -> list[Verdict]:
    """Return a verdict on each target that *results* say something about."""
    verdicts = []
    for key, name, at_least, wanted, unit, measure in _CASES:
        case = results.case(key)
        measured = measure(case) if case is not None else None
        if measured is not None:
            verdicts.append(Verdict(name, at_least, wanted, measured, unit))
    for key, name in _WATCHED:
        case = results.case(key)
        measured = None if case is None else case.paired("cpu", PLAIN, WATCHED)
        if measured is not None:
            verdicts.append(Verdict(f"{name}, work for CPU time / without", True, _WATCHED_SHARE, measured))
    return verdicts + [verdict for curve in results.curves if (verdict := _level(curve))]


def _level(curve: Curve) -> Verdict | None:
    points = curve.series.get("lhttp")
    if not (curve.untouched and points):
        return None
    last, rise = points[-1]
    return Verdict(f"cost with {last:,} {curve.x_label} / with none", False, LEVEL, rise)
