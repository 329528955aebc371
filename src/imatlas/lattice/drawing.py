"""The geometry of a map as it is drawn: cell shapes and positions, and the borders of clusters.

`lattice.geometry` has the positions used in training; here cells have corners and sides.

A position on the map in learning (`lattice.geometry.lattice_positions`) has no size; a cell here has corners and sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PITCH = 100.0
"""Distance between neighboring cells."""

Place = tuple[int, int]
"""Row and column of a cell."""

Point = tuple[float, float]
"""x (to the right) and y (downwards)."""


@dataclass(frozen=True)
class DrawnLattice:
    """Cells of width `PITCH`; odd rows of a hexagonal lattice are shifted right by half a cell."""

    topology: Literal["rectangular", "hexagonal"]
    rows: int
    columns: int

    @property
    def corners(self) -> list[Point]:
        """The corners of a cell around its center, clockwise from the top (hexagon) or the top left (square)."""
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
        """The center of a cell."""
        if self.topology == "rectangular":
            return (column + 0.5) * PITCH, (row + 0.5) * PITCH
        radius = PITCH / math.sqrt(3.0)
        return (column + 0.5 + 0.5 * (row % 2)) * PITCH, (1 + 1.5 * row) * radius

    def neighbor(self, row: int, column: int, side: int) -> Place:
        """The cell beyond a side, possibly outside the map; side k runs from corner k to corner k + 1."""
        if self.topology == "rectangular":
            down, right = ((-1, 0), (0, 1), (1, 0), (0, -1))[side]
            return row + down, column + right
        odd = row % 2
        down, right = ((-1, odd), (0, 1), (1, odd), (1, odd - 1), (0, -1), (-1, odd - 1))[side]
        return row + down, column + right


def borders(
    lattice: DrawnLattice, clusters: Mapping[Place, int | None], inset: float = 0.0
) -> dict[int, list[tuple[Point, Point]]]:
    """For each cluster the line segments along its borders with other clusters and the edge of the map.

    The lines run `inset` inside the cells, so that those of neighboring clusters do not overlap. Empty if there are
    fewer than two clusters; a cell without a cluster (None) has no lines.
    """
    if len(set(clusters.values())) < 2:
        return {}
    corners = lattice.corners
    n, shrink = len(corners), 1.0 - inset / (PITCH / 2)
    lines: dict[int, list[tuple[Point, Point]]] = {}
    for (row, column), cluster in clusters.items():
        if cluster is None:
            continue
        border = [clusters.get(lattice.neighbor(row, column, side)) != cluster for side in range(n)]
        x, y = lattice.center(row, column)
        for side in (side for side in range(n) if border[side]):
            (ax, ay), (bx, by) = corners[side], corners[(side + 1) % n]
            # A border that continues in the neighboring cell extends to it; else it turns at the corner.
            inward = -inset / (PITCH / 2) * (ax + bx) / 2, -inset / (PITCH / 2) * (ay + by) / 2
            start = (ax * shrink, ay * shrink) if border[side - 1] else (ax + inward[0], ay + inward[1])
            end = (bx * shrink, by * shrink) if border[(side + 1) % n] else (bx + inward[0], by + inward[1])
            line = (x + start[0], y + start[1]), (x + end[0], y + end[1])
            lines.setdefault(cluster, []).append(line)
    return {cluster: lines[cluster] for cluster in sorted(lines)}


def label_places(lattice: DrawnLattice, clusters: Mapping[Place, int | None]) -> dict[int, Place]:
    """For each cluster the cell for its label: the most central one of its largest connected component."""
    largest: dict[int, list[Place]] = {}
    visited: set[Place] = set()
    for place, cluster in clusters.items():
        if cluster is None or place in visited:
            continue
        part, queue = [], [place]
        visited.add(place)
        while queue:
            here = queue.pop()
            part.append(here)
            for side in range(len(lattice.corners)):
                there = lattice.neighbor(*here, side)
                if there not in visited and clusters.get(there) == cluster:
                    visited.add(there)
                    queue.append(there)
        if len(part) > len(largest.get(cluster, [])):
            largest[cluster] = part
    return {cluster: _most_central(lattice, largest[cluster]) for cluster in sorted(largest)}


def _most_central(lattice: DrawnLattice, part: list[Place]) -> Place:
    centers = [lattice.center(*place) for place in part]
    x, y = (sum(values) / len(part) for values in zip(*centers))
    return min(zip(part, centers), key=lambda item: ((item[1][0] - x) ** 2 + (item[1][1] - y) ** 2, item[0]))[0]
