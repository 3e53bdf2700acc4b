"""
Plots as plain SVG: bars for ratios, lines for growth. No dependencies, no scripts, no fonts of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from benchmarks.figures import Curve, Results
from benchmarks.servers import LABELS

__all__ = ["bars", "lines", "ticks", "write_plots"]

_COLOURS = {
    "lhttp": "#0b6e4f",
    "before": "#7fb8a4",
    "autobahn": "#c8553d",
    "nats": "#2f6fb0",
    "ws": "#8a6d00",
    "socketio": "#7a4fa3",
    "bare": "#666666",
}
_INK, _GRID = "#222222", "#d8d8d8"
_STYLE = "font-family='sans-serif' font-size='12'"


def ticks(top: float) -> list[float]:
    """Return round numbers from 0 to at least *top*, four to eight of them."""
    if top <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(top))
    step = next(share * power for share in (0.2, 0.25, 0.5, 1, 2) if top / (share * power) <= 6)
    return [step * index for index in range(math.ceil(top / step - 1e-9) + 1)]


def _svg(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}'",
            f"{_STYLE} role='img' aria-label='{escape(title, quote=True)}'>",
            f"<rect width='{width}' height='{height}' fill='#ffffff'/>",
            _text(12, 22, title, size=15, weight="bold"),
            *parts,
            "</svg>\n",
        ]
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, weight: str = "normal", turn: bool = False
) -> str:
    turned = f" transform='rotate(-90 {x:.1f} {y:.1f})'" if turn else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size}' font-weight='{weight}' "
        f"fill='{_INK}'{turned}>{escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}' stroke-width='{width:g}'/>"


def _shown(value: float) -> str:
    if value >= 10_000 and value % 1000 == 0:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _legend(keys: Sequence[str], y: float) -> list[str]:
    parts, x = [], 14.0
    for key in keys:
        label = LABELS.get(key, key)
        parts.append(f"<rect x='{x:.1f}' y='{y - 10:.1f}' width='12' height='12' fill='{_COLOURS.get(key, _INK)}'/>")
        parts.append(_text(x + 17, y, label))
        x += 34 + 7 * len(label)
    return parts


def bars(title: str, x_label: str, groups: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """
    Return horizontal bars of ratios on a logarithmic axis, with 1 marked.

    :param x_label: what a ratio is.
    :param groups: for each group its label, and the server and ratio of each bar.
    """
    values = [value for _, group in groups for _, value in group]
    low = min(-1, math.floor(math.log2(min(values))))
    high = max(1, math.ceil(math.log2(max(values))))
    left, right, top, bar = 250, 60, 62, 16
    width = 760
    height = top + sum(len(group) * bar + 14 for _, group in groups) + 48
    bottom = height - 46

    def place(value: float) -> float:
        return left + (math.log2(value) - low) / (high - low) * (width - left - right)

    keys = list(dict.fromkeys(key for _, group in groups for key, _ in group))
    parts = _legend(keys, 46)
    for power in range(low, high + 1):
        x = place(2.0**power)
        parts.append(_line(x, top, x, bottom, _INK if power == 0 else _GRID, 1.5 if power == 0 else 1))
        parts.append(_text(x, bottom + 16, f"{2.0**power:g}", anchor="middle"))
    y = float(top + 7)
    for label, group in groups:
        parts.append(_text(left - 10, y + len(group) * bar / 2 + 4, label, anchor="end"))
        for key, value in group:
            start, end = sorted((place(1.0), place(value)))
            parts.append(
                f"<rect x='{start:.1f}' y='{y + 1:.1f}' width='{max(end - start, 1):.1f}' height='{bar - 3}' "
                f"fill='{_COLOURS.get(key, _INK)}'/>"
            )
            parts.append(_text(place(max(value, 1.0)) + 5, y + bar - 4, f"{value:.3g}x", size=11))
            y += bar
        y += 14
    parts.append(_text((left + width - right) / 2, height - 10, x_label, anchor="middle"))
    return _svg(width, height, title, parts)


def lines(curve: Curve) -> str:
    """Return a plot of *curve*, both axes from zero, so that a straight line looks straight."""
    width, height, left, right, top, bottom = 760, 400, 84, 24, 62, 346
    xs = ticks(max(x for points in curve.series.values() for x, _ in points))
    ys = ticks(max(y for points in curve.series.values() for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x / xs[-1] * (width - left - right), bottom - y / ys[-1] * (bottom - top)

    parts = _legend(list(curve.series), 46)
    for x in xs:
        at, _ = place(x, 0)
        parts += [_line(at, top, at, bottom, _GRID), _text(at, bottom + 16, _shown(x), anchor="middle")]
    for y in ys:
        _, at = place(0, y)
        parts += [_line(left, at, width - right, at, _GRID), _text(left - 8, at + 4, _shown(y), anchor="end")]
    parts += [_line(left, top, left, bottom, _INK, 1.5), _line(left, bottom, width - right, bottom, _INK, 1.5)]
    for key, points in curve.series.items():
        colour = _COLOURS.get(key, _INK)
        placed = [place(x, y) for x, y in points]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f"<polyline points='{joined}' fill='none' stroke='{colour}' stroke-width='2'/>")
        if curve.marks:
            parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{colour}'/>" for x, y in placed]
    parts.append(_text((left + width - right) / 2, height - 12, curve.x_label, anchor="middle"))
    parts.append(_text(20, (top + bottom) / 2, curve.y_label, anchor="middle", turn=True))
    return _svg(width, height, curve.title, parts)


_BAR_PLOTS = [
    ("throughput", "Throughput: lhttp_tx beside its peers", "rate of lhttp_tx / rate of the peer", "rate", "abd"),
    ("cpu", "CPU time: lhttp_tx beside its peers", "CPU time of the peer / CPU time of lhttp_tx", "cpu", "abcd"),
    ("large", "Large bodies, 1 to 10", "rate of lhttp_tx / rate of the peer", "rate", "f"),
]


def write_plots(results: Results, directory: Path) -> list[Path]:
    """Write what *results* have into *directory*; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    plots = {}
    for name, title, x_label, metric, letters in _BAR_PLOTS:
        groups = []
        for case in results.cases:
            if case.key[0] not in letters:
                continue
            ways = ("lhttp", None) if metric == "rate" else (None, "lhttp")
            found = [(row, case.ratio(metric, ways[0] or row, ways[1] or row)) for row in case.rows if row != "lhttp"]
            group = [(row, value) for row, value in found if value]
            if group:
                groups.append((_short(case.title), group))
        if groups:
            plots[f"{name}.svg"] = bars(title, x_label, groups)
    plots |= {f"{curve.key.partition('.')[2]}.svg": lines(curve) for curve in results.curves if curve.series}
    paths = []
    for name, text in plots.items():
        path = directory / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def _short(title: str) -> str:
    """Return a title that fits beside bars."""
    for words, fewer in ((" of 32 bytes", ""), (" publishes", ""), ("messages at a time", "at a time")):
        title = title.replace(words, fewer)
    return (
        title.replace("message at a time", "at a time")
        .replace(" connections", " conn.")
        .replace(" connection", " conn.")
    )
