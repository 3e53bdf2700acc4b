"""
What was measured, and the little statistics that it takes.

Pure values and functions; everything else in the package uses them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["METRICS", "Case", "Curve", "Metric", "Results", "percentile", "ratio", "slope", "spread"]


def percentile(values: Sequence[float], share: float) -> float:
    """
    Return the smallest of *values* that at least *share* of them do not pass (nearest rank).

    :param share: above 0 and at most 1.
    :raises ValueError: if there are no values.
    """
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def spread(values: Sequence[float]) -> float:
    """Return how far apart the largest and the smallest of *values* are, as a share of their median."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def ratio(mine: Sequence[float], other: Sequence[float]) -> float:
    """Return the median of *mine* divided by the median of *other*."""
    divisor = statistics.median(other)
    return statistics.median(mine) / divisor if divisor else math.inf


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return ``(a, b)`` of the straight line ``a + b x`` that fits *points* best (least squares)."""
    if len({x for x, _ in points}) < 2:
        return points[0][1], 0.0
    line = statistics.linear_regression([x for x, _ in points], [y for _, y in points])
    return line.intercept, line.slope


@dataclass(frozen=True, slots=True)
class Metric:
    """
    One kind of figure.

    :ivar label: heads its column.
    :ivar higher_is_better: whether more of it is better.
    """

    label: str
    higher_is_better: bool


METRICS = {
    "rate": Metric("/s", True),
    "cpu": Metric("server CPU us", False),
    "load": Metric("load CPU us", False),
    "p50": Metric("p50 ms", False),
    "p99": Metric("p99 ms", False),
    "memory": Metric("KiB", False),
}
"""Figures by their key: a rate a second, CPU time for each message, latencies, memory."""


@dataclass(slots=True)
class Case:
    """
    One comparison: the same load on several servers, turn by turn.

    :ivar key: such as ``a.10000``: the scenario's letter, then what tells its cases apart.
    :ivar title: for people.
    :ivar unit: what is counted, in the plural.
    :ivar rows: for each server, or kind of processor, each metric's values, one a turn.
    :ivar lost: why a server has no row, or lacks turns.
    """

    key: str
    title: str
    unit: str
    rows: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def add(self, row: str, figures: dict[str, float]) -> None:
        """Add the figures of one turn."""
        values = self.rows.setdefault(row, {})
        for metric, value in figures.items():
            values.setdefault(metric, []).append(value)

    def median(self, row: str, metric: str) -> float | None:
        """Return the median of a row's figure, ``None`` if there is none."""
        values = self.rows.get(row, {}).get(metric)
        return statistics.median(values) if values else None

    def ratio(self, metric: str, mine: str, other: str) -> float | None:
        """Return the ratio of two rows' medians, ``None`` if one of them is missing."""
        first, second = self.rows.get(mine, {}).get(metric), self.rows.get(other, {}).get(metric)
        return ratio(first, second) if first and second else None

    def paired(self, metric: str, mine: str, other: str) -> float | None:
        """
        Return the median of the ratios of two rows' figures turn by turn, ``None`` if one of them is missing.

        What is alike within a turn, such as how busy the machine is, has less weight than in :meth:`ratio`.
        """
        first, second = self.rows.get(mine, {}).get(metric), self.rows.get(other, {}).get(metric)
        if not first or not second:
            return None
        return statistics.median(one / two for one, two in zip(first, second, strict=False))


@dataclass(slots=True)
class Curve:
    """
    How a cost grows.

    :ivar x_label: what is varied, with its unit.
    :ivar y_label: the cost, with its unit.
    :ivar series: points of each server.
    :ivar untouched: whether the messages do not touch what is varied: the costs are times those without it, so that
        the line must be level, at 1.
    :ivar marks: whether the plot shows each point.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    untouched: bool = False
    marks: bool = True


@dataclass(slots=True)
class Results:
    """
    One run.

    :ivar about: machine, versions, command, time.
    :ivar skipped: scenarios and servers that were left out, with the reason.
    """

    about: dict[str, Any] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def case(self, key: str) -> Case | None:
        """Return the case *key*, or ``None``."""
        return next((case for case in self.cases if case.key == key), None)

    def curve(self, key: str) -> Curve | None:
        """Return the curve *key*, or ``None``."""
        return next((curve for curve in self.curves if curve.key == key), None)

    def to_json(self) -> dict[str, Any]:
        """Return everything as values that JSON has."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Results:
        """Return what :meth:`to_json` was called on."""
        curves = [
            Curve(
                **{
                    **curve,
                    "series": {name: [tuple(point) for point in points] for name, points in curve["series"].items()},
                }
            )
            for curve in values["curves"]
        ]
        return cls(values["about"], [Case(**case) for case in values["cases"]], curves, values["skipped"])
