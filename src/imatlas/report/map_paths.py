"""SVG paths for the map of a report: cells, cluster outlines, and the gaps between cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from imatlas.lattice.drawing import DrawnLattice, Place, Point, borders
from imatlas.result import MapPanel


def rounded(corners: Sequence[Point], scale: float, radius: float) -> str:
    """A closed SVG path through the scaled corners, rounded."""
    points = [(x * scale, y * scale) for x, y in corners]
    parts = []
    for k, here in enumerate(points):
        before, after = points[k - 1], points[(k + 1) % len(points)]
        start, end = _towards(here, before, radius), _towards(here, after, radius)
        parts.append(f"{'L' if k else 'M'}{_pair(start)}Q{_pair(here)} {_pair(end)}")
    return "".join(parts) + "Z"


def outlines(lattice: DrawnLattice, clusters: Mapping[Place, int | None], inset: float) -> dict[int, str]:
    """One SVG path along the borders of each cluster; see `imatlas.lattice.drawing.borders`."""
    lines = borders(lattice, clusters, inset)
    return {
        cluster: "".join(f"M{_pair(start)}L{_pair(end)}" for start, end in sides) for cluster, sides in lines.items()
    }


def gaps(panel: MapPanel) -> list[float]:
    """How much each cell is shrunk, 0 to 1, by its U-height; all 0 where the heights are equal."""
    heights = [cell.u_height if math.isfinite(cell.u_height) else 0.0 for cell in panel.cells]
    low, high = (min(heights), max(heights)) if heights else (0.0, 0.0)
    return [(height - low) / (high - low) if high > low else 0.0 for height in heights]


def _towards(here: Point, there: Point, distance: float) -> Point:
    share = min(0.5, distance / (math.dist(here, there) or 1.0))
    return here[0] + share * (there[0] - here[0]), here[1] + share * (there[1] - here[1])


def _pair(point: Point) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"
