"""The geometry of a map: where cells lie, how they are shaped, and where one cluster ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from imatlas.result import Cell, MapPanel

PITCH = 100.0
"""Distance of two neighbouring cells."""

Place = tuple[int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Lattice:
    """Cells of width `PITCH`; on a hexagonal lattice odd rows are shifted right by half a cell."""

    topology: Literal["rectangular", "hexagonal"]
    rows: int
    columns: int

    @property
    def corners(self) -> list[Point]:
        """The corners of a cell around its centre, clockwise from the top (hexagon) or the top left (square)."""
        if self.topology == "rectangular":
            half = PITCH / 2
            return [(-half, -half), (half, -half), (half, half), (-half, half)]
        radius = PITCH / math.sqrt(3.0)
        angles = (math.radians(60 * k - 90) for k in range(6))
        return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]

    @property
    def size(self) -> Point:
        """Width and height of the whole lattice."""
        if self.topology == "rectangular":
            return self.columns * PITCH, self.rows * PITCH
        shift = PITCH / 2 if self.rows > 1 else 0.0
        return self.columns * PITCH + shift, ((self.rows - 1) * 1.5 + 2) * PITCH / math.sqrt(3.0)

    def center(self, row: int, column: int) -> Point:
        """The centre of a cell."""
        if self.topology == "rectangular":
            return (column + 0.5) * PITCH, (row + 0.5) * PITCH
        radius = PITCH / math.sqrt(3.0)
        return (column + 0.5 + 0.5 * (row % 2)) * PITCH, (1 + 1.5 * row) * radius

    def neighbor(self, row: int, column: int, side: int) -> Place:
        """The place beyond a side, which need not be on the map; side k runs from corner k to corner k + 1."""
        if self.topology == "rectangular":
            down, right = ((-1, 0), (0, 1), (1, 0), (0, -1))[side]
            return row + down, column + right
        odd = row % 2
        down, right = ((-1, odd), (0, 1), (1, odd), (1, odd - 1), (0, -1), (-1, odd - 1))[side]
        return row + down, column + right


def rounded(corners: Sequence[Point], scale: float, radius: float) -> str:
    """A closed SVG path through the scaled corners, each rounded off."""
    points = [(x * scale, y * scale) for x, y in corners]
    parts = []
    for k, here in enumerate(points):
        before, after = points[k - 1], points[(k + 1) % len(points)]
        start, end = _towards(here, before, radius), _towards(here, after, radius)
        parts.append(f"{'L' if k else 'M'}{_pair(start)}Q{_pair(here)} {_pair(end)}")
    return "".join(parts) + "Z"


def outlines(lattice: Lattice, cells: Sequence[Cell], inset: float) -> dict[int, str]:
    """For each cluster one SVG path along every side where it meets another cluster or the edge of the map.

    The path runs `inset` inside the cells, so that two neighbouring clusters lie side by side and both are seen.
    Empty where there are fewer than two clusters.
    """
    clusters = {(cell.row, cell.column): cell.cluster for cell in cells}
    corners = lattice.corners
    n, shrink = len(corners), 1.0 - inset / (PITCH / 2)
    paths: dict[int, list[str]] = {}
    for (row, column), cluster in clusters.items():
        if cluster is None:
            continue
        border = [clusters.get(lattice.neighbor(row, column, side)) != cluster for side in range(n)]
        x, y = lattice.center(row, column)
        for side in (side for side in range(n) if border[side]):
            (ax, ay), (bx, by) = corners[side], corners[(side + 1) % n]
            # Where the line goes on in the neighbouring cell it must reach that cell, else it turns with this one.
            inward = -inset / (PITCH / 2) * (ax + bx) / 2, -inset / (PITCH / 2) * (ay + by) / 2
            start = (ax * shrink, ay * shrink) if border[side - 1] else (ax + inward[0], ay + inward[1])
            end = (bx * shrink, by * shrink) if border[(side + 1) % n] else (bx + inward[0], by + inward[1])
            line = f"M{_pair((x + start[0], y + start[1]))}L{_pair((x + end[0], y + end[1]))}"
            paths.setdefault(cluster, []).append(line)
    return {cluster: "".join(paths[cluster]) for cluster in sorted(paths)} if len(set(clusters.values())) > 1 else {}


def label_places(lattice: Lattice, cells: Sequence[Cell]) -> dict[int, Place]:
    """For each cluster the cell to write its number on: the most central one of its largest connected part."""
    clusters = {(cell.row, cell.column): cell.cluster for cell in cells}
    largest: dict[int, list[Place]] = {}
    seen: set[Place] = set()
    for place, cluster in clusters.items():
        if cluster is None or place in seen:
            continue
        part, queue = [], [place]
        seen.add(place)
        while queue:
            here = queue.pop()
            part.append(here)
            for side in range(len(lattice.corners)):
                there = lattice.neighbor(*here, side)
                if there not in seen and clusters.get(there) == cluster:
                    seen.add(there)
                    queue.append(there)
        if len(part) > len(largest.get(cluster, [])):
            largest[cluster] = part
    return {cluster: _most_central(lattice, largest[cluster]) for cluster in sorted(largest)}


def gaps(panel: MapPanel) -> list[float]:
    """How far each cell draws back from its neighbours, 0 to 1, by its U-height; all 0 where the heights are equal."""
    heights = [cell.u_height if math.isfinite(cell.u_height) else 0.0 for cell in panel.cells]
    low, high = (min(heights), max(heights)) if heights else (0.0, 0.0)
    return [(height - low) / (high - low) if high > low else 0.0 for height in heights]


def _most_central(lattice: Lattice, part: list[Place]) -> Place:
    centers = [lattice.center(*place) for place in part]
    x, y = (sum(values) / len(part) for values in zip(*centers))
    return min(zip(part, centers), key=lambda item: ((item[1][0] - x) ** 2 + (item[1][1] - y) ** 2, item[0]))[0]


def _towards(here: Point, there: Point, distance: float) -> Point:
    share = min(0.5, distance / (math.dist(here, there) or 1.0))
    return here[0] + share * (there[0] - here[0]), here[1] + share * (there[1] - here[1])


def _pair(point: Point) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"
