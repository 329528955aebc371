"""SVG geometry of line charts and scatter plots: ticks, paths and points. Colors and fonts are in the style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imatlas.report.text import plain
from imatlas.result import Curve, Scatter

WIDTH, HEIGHT = 560.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 66.0, 12.0, 12.0, 46.0
MAX_POINTS = 500
"""Lines are thinned to this many points."""
MAX_DOTS = 20_000
MAX_THUMBNAILS = 140


@dataclass(frozen=True)
class Axis:
    """A range of values, linear or logarithmic, with its ticks."""

    low: float
    high: float
    step: float
    """Distance between ticks of a linear axis."""
    log: bool = False

    def place(self, value: float) -> float:
        """The position of a value along the axis, 0 to 1."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return (value - low) / (high - low)

    def widened(self) -> Axis:
        """The axis extended to round values at both ends; a logarithmic one is unchanged."""
        if self.log:
            return self
        first, last = math.floor(self.low / self.step + 1e-9), math.ceil(self.high / self.step - 1e-9)
        return Axis(first * self.step, last * self.step, self.step)

    def ticks(self) -> list[float]:
        """About five round values within the range."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if len(decades) <= 3 else (1,)
            return [s * 10.0**d for d in decades for s in steps if self.low <= s * 10.0**d <= self.high]
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        return [k * self.step for k in range(first, last + 1)]


def axis(values: np.ndarray, log: bool = False) -> Axis:
    """An axis that covers all values, with a margin where all are equal."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (1.0, 10.0)
    if high <= low:
        margin = abs(low) * 0.1 or 1.0
        low, high = (low / 1.5, high * 1.5) if log else (low - margin, high + margin)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((s * power for s in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))
    return Axis(low, high, step, log)


def curve_view(panel: Curve) -> dict[str, Any]:
    """The lines of a `Curve` as paths in `WIDTH` x `HEIGHT`, with ticks and a legend."""
    lines = {name: _points(x, y, panel.log_y) for name, (x, y) in panel.series.items()}
    everything = np.concatenate([np.empty((0, 2)), *lines.values()])
    across, up = axis(everything[:, 0]), axis(everything[:, 1], panel.log_y).widened()

    def x_at(value: float) -> float:
        return LEFT + across.place(value) * (WIDTH - LEFT - RIGHT)

    def y_at(value: float) -> float:
        return HEIGHT - BOTTOM - up.place(value) * (HEIGHT - TOP - BOTTOM)

    legend = []
    for name, points in lines.items():
        path = "".join(
            f"{'L' if k else 'M'}{x_at(x):.1f} {y_at(y):.1f}" for k, (x, y) in enumerate(_thin(points).tolist())
        )
        end = points[-1] if len(points) else None
        legend.append(
            {
                "name": name,
                "path": path,
                "last": plain(float(end[1])) if end is not None else "–",
                "end": (x_at(end[0]), y_at(end[1])) if end is not None else None,
            }
        )
    return {
        "lines": legend,
        "x_ticks": [(x_at(v), _tick(v)) for v in across.ticks()],
        "y_ticks": [(y_at(v), _tick(v)) for v in up.ticks()],
        "alt": panel.alt or _in_words(panel, lines),
    }


def scatter_view(panel: Scatter) -> dict[str, Any]:
    """The points of a `Scatter`: one path of dots per group, labels at group medians, and non-overlapping pictures."""
    x, y = np.asarray(panel.x, dtype=float), np.asarray(panel.y, dtype=float)
    groups = np.asarray(panel.groups) if panel.groups is not None else np.zeros(len(x), dtype=int)
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    shown = finite[:: max(1, math.ceil(len(finite) / MAX_DOTS))]
    places, height = _isotropic(x[finite], y[finite], x[shown], y[shown])
    found, colors = [], {}
    for index, group in enumerate(sorted(set(groups[shown].tolist()), key=lambda g: (isinstance(g, str), g))):
        members = places[groups[shown] == group]
        dots = "".join(f"M{a:.0f} {b:.0f}h0" for a, b in members.tolist())
        middle = np.median(members, axis=0)
        colors[group] = group if isinstance(group, int) else index
        found.append(
            {
                "name": str(group),
                "given": panel.names.get(group, ""),
                "color": colors[group],
                "dots": dots,
                "label": middle.tolist(),
                "n": len(members),
            }
        )
    taken: list[int] = []
    if len(panel.images) == len(x):
        taken = _with_room(places, distance=46.0)
    return {
        "width": 1000,
        "height": height,
        "groups": found if panel.groups is not None else [found[0] | {"name": "", "given": ""}] if found else [],
        "labeled": panel.groups is not None and len(found) > 1,
        "thumbnails": [(int(shown[k]), *places[k].tolist(), colors[groups[shown[k]].item()]) for k in taken],
        "dropped": len(x) - len(shown),
    }


def _points(x: Sequence[float], y: Sequence[float], log_y: bool) -> np.ndarray:
    """The finite points (n, 2) of one line; on a logarithmic axis only the positive ones."""
    points = np.stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)], axis=1)
    keep = np.isfinite(points).all(axis=1)
    if log_y:
        keep &= points[:, 1] > 0
    return points[keep]


def _thin(points: np.ndarray) -> np.ndarray:
    """At most `MAX_POINTS` points: the lowest and the highest of each interval, so no spike is lost."""
    if len(points) <= MAX_POINTS:
        return points
    keep = {0, len(points) - 1}
    for stretch in np.array_split(np.arange(len(points)), MAX_POINTS // 2 - 1):
        keep |= {int(stretch[points[stretch, 1].argmin()]), int(stretch[points[stretch, 1].argmax()])}
    return points[sorted(keep)]


def _in_words(panel: Curve, lines: dict[str, np.ndarray]) -> str:
    lines_in_words = [
        f"{name} goes from {plain(float(p[0, 1]))} to {plain(float(p[-1, 1]))}" if len(p) else f"{name} has no values"
        for name, p in lines.items()
    ]
    what = " over ".join(label for label in (panel.y_label, panel.x_label) if label)
    return f"Line chart{' of ' + what if what else ''}: {'; '.join(lines_in_words)}."


def _tick(value: float) -> str:
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.6g}" if abs(value) < 1000 else f"{value:,.0f}"


def _isotropic(x: np.ndarray, y: np.ndarray, x_shown: np.ndarray, y_shown: np.ndarray) -> tuple[np.ndarray, float]:
    """Positions in a drawing 1000 wide, and its height; both axes share a scale unless one is much longer."""
    if not len(x):
        return np.empty((0, 2)), 400.0
    pad = 30.0
    wide, tall = max(float(np.ptp(x)), 1e-12), max(float(np.ptp(y)), 1e-12)
    height = min(max(1000.0 * tall / wide, 420.0), 820.0)
    scale = np.array([(1000.0 - 2 * pad) / wide, (height - 2 * pad) / tall])
    if 0.3 < tall / wide < 3:
        scale = np.full(2, scale.min())
    center = np.array([(x.min() + x.max()) / 2, (y.min() + y.max()) / 2])
    offsets = (np.stack([x_shown, y_shown], axis=1) - center) * scale
    return np.array([500.0, height / 2]) + offsets * np.array([1.0, -1.0]), height


def _with_room(places: np.ndarray, distance: float) -> list[int]:
    """Points, in order, at least `distance` from all those chosen before."""
    taken: list[int] = []
    for k, place in enumerate(places):
        if not taken or (np.abs(places[taken] - place).max(axis=1) >= distance).all():
            taken.append(k)
            if len(taken) == MAX_THUMBNAILS:
                break
    return taken
