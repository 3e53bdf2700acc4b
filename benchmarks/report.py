"""
What is shown on the terminal: progress while it runs, a table for each result, the targets at the end.
"""

from __future__ import annotations

import statistics
import sys
from typing import TextIO

from benchmarks.figures import METRICS, Case, Curve, Results, slope, spread
from benchmarks.servers import LABELS
from benchmarks.targets import judge

__all__ = ["Terminal", "case_table", "curve_table", "number", "targets_table"]


def number(value: float) -> str:
    """Return *value* with three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _table(rows: list[list[str]]) -> str:
    """Return *rows* in columns, the first one flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def case_table(case: Case) -> str:
    """
    Return the table of a comparison.

    The last column says how many times better the first row is: by rate if there is one, else by memory.
    """
    metrics = [metric for metric in METRICS if any(metric in figures for figures in case.rows.values())]
    rows = [["", *_headings(case, metrics)]]
    first = next(iter(case.rows), None)
    for name, figures in case.rows.items():
        cells = [LABELS.get(name, name)]
        for metric in metrics:
            values = figures.get(metric)
            cells.append(number(statistics.median(values)) if values else "-")
            if metric == "rate":
                cells.append(f"{spread(values) / 2:.0%}" if values else "-")
        if len(case.rows) > 1:
            cells += [
                _compared(case, metric, str(first), name) for metric in ("rate", "cpu", "memory") if metric in metrics
            ]
        rows.append(cells)
    lines = [f"{case.key}  {case.title}"]
    if case.rows:
        lines.append(_table(rows))
    lines += [f"  {LABELS.get(name, name)}: {reason}" for name, reason in case.lost.items()]
    return "\n".join(lines)


def _headings(case: Case, metrics: list[str]) -> list[str]:
    headings = []
    for metric in metrics:
        headings.append(f"{case.unit}/s" if metric == "rate" else METRICS[metric].label)
        if metric == "rate":
            headings.append("+-")
    if len(case.rows) > 1:
        headings += [
            {"rate": "rate ratio", "cpu": "CPU ratio", "memory": "ratio"}[metric]
            for metric in ("rate", "cpu", "memory")
            if metric in metrics
        ]
    return headings


def _compared(case: Case, metric: str, first: str, name: str) -> str:
    higher = METRICS[metric].higher_is_better
    found = case.ratio(metric, first, name) if higher else case.ratio(metric, name, first)
    return "-" if found is None else f"{number(found)}x"


def curve_table(curve: Curve) -> str:
    """Return the table of a curve, with the straight line that fits each column best."""
    columns = list(curve.series)
    xs = sorted({x for points in curve.series.values() for x, _ in points})
    rows = [[curve.x_label, *(LABELS[name] for name in columns)]]
    for x in xs:
        values = [dict(curve.series[name]).get(x) for name in columns]
        rows.append([f"{x:,}", *("-" if value is None else number(value) for value in values)])
    fits = [slope(curve.series[name]) for name in columns]
    rows.append(["best line", *(f"{start:.3g} + {rise:.3g} x" for start, rise in fits)])
    return f"{curve.key}  {curve.title}: {curve.y_label}\n{_table(rows)}"


def targets_table(results: Results) -> str:
    """Return the targets with what was measured; empty if the run says nothing about any."""
    verdicts = judge(results)
    if not verdicts:
        return ""
    rows = [["target", "wanted", "measured", ""]]
    rows += [
        [
            verdict.name,
            f"{'>=' if verdict.at_least else '<='} {verdict.wanted:g}{verdict.unit}",
            f"{number(verdict.measured)}{verdict.unit}",
            "reached" if verdict.reached else "MISSED",
        ]
        for verdict in verdicts
    ]
    return _table(rows)


class Terminal:
    """Shows progress on one line of standard error where that is a terminal, and results on standard output."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        self._live = self._err.isatty()

    def step(self, text: str) -> None:
        """Show what is done now."""
        if self._live:
            self._err.write(f"\r\x1b[K{text[:110]}")
            self._err.flush()

    def finished(self, found: Case | Curve) -> None:
        """Show a result."""
        self.say(case_table(found) if isinstance(found, Case) else curve_table(found))

    def say(self, text: str) -> None:
        """Show *text* and an empty line."""
        self.step("")
        self._out.write(text + "\n\n")
        self._out.flush()
