"""Values on the map: the U-matrix, the number of rows per cell, and component planes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from imatlas.arguments import strict_yes
from imatlas.errors import InputError, ParameterError
from imatlas.lattice.drawing import PITCH, DrawnLattice
from imatlas.lattice.geometry import lattice_positions
from imatlas.metrics.topology import u_heights
from imatlas.plots.canvas import (
    INK,
    LETTERS,
    PAPER,
    SHADES,
    SHRUNK,
    Canvas,
    blank,
    cells_of,
    checked_clusters,
    lattice_of,
    on_axes,
    paper_size,
    shaded,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PLANES = 16
"""Component planes drawn by default."""

PLANE_LETTERS = 0.052
"""Font size below a component plane over its width."""

SMALLEST = 5.0
"""Smallest legible font size in points for the number in a cell."""


@strict_yes
def u_matrix(som: Any, *, between: bool = False, clusters: Any = None, width: float = 8.0) -> Figure:
    """Draw the U-matrix, the distances between neighboring prototypes: dark ridges separate light valleys.

    Ultsch & Siemon (1990), "Kohonen's self organizing feature maps for exploratory data analysis".

    Parameters
    ----------
    som : SOM
        A fitted map.
    between : bool
        False: each cell shows the mean distance of its prototype to those of its neighbors. True: the lattice has half
        the spacing, and each small cell between two cells shows the distance of their prototypes; where four cells of a
        rectangular lattice meet, the mean of the two diagonals, each over √2.
    clusters : array-like (n_cells,) of int, optional
        The cluster of each cell, to be outlined and numbered; negative for none.
    width : float
        Width of the figure in inches; everything scales with it.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError, ParameterError, MissingExtraError

    Examples
    --------
    >>> som = SOM(rows=5, cols=6).fit(X)                      # doctest: +SKIP
    >>> save(u_matrix(som, between=True), "u-matrix.svg")     # doctest: +SKIP
    """
    corner = np.abs(lattice_of(som).corners).max(axis=0) / 2 if between else np.zeros(2)
    canvas = blank(som, width, scale=True, trim=(float(corner[0]), float(corner[1])))
    marked = checked_clusters(clusters, canvas.n_cells)
    heights = u_heights(som.codebook_, som.rows_, som.cols_, som.topology)
    polygons, label = canvas.polygons(), "mean distance to neighboring cells"
    if between:
        positions, gaps = gaps_between(som)
        centers = np.concatenate([canvas.centers, canvas.centers[0] + positions * PITCH])
        heights, label = np.concatenate([heights, gaps]), "distance between neighboring cells"
        polygons = centers[:, None] + np.array(canvas.lattice.corners) / 2
    canvas.fill(polygons, shaded(heights))
    canvas.mark_clusters(marked, inside=not between)
    canvas.scale(label, float(heights.min()), float(heights.max()))
    return canvas.figure


def gaps_between(som: Any) -> tuple[np.ndarray, np.ndarray]:
    """The small cells between cells: positions (n, 2) in units of `som.positions_`, and prototype distances (n,)."""
    positions, codes = lattice_positions(som.rows_, som.cols_, som.topology), np.asarray(som.codebook_, np.float64)
    cells = np.arange(len(codes)).reshape(som.rows_, som.cols_)

    def gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.linalg.norm(codes[a] - codes[b], axis=-1)

    pairs = [(cells[:, :-1], cells[:, 1:])]
    if som.topology == "rectangular":
        pairs.append((cells[:-1], cells[1:]))
    else:  # odd rows are shifted right by half a cell: their neighbors above and below begin at the same column
        for row in range(som.rows_ - 1):
            here, below = cells[row], cells[row + 1]
            pairs.append((here, below))
            pairs.append((here[:-1], below[1:]) if row % 2 else (here[1:], below[:-1]))
    first, second = (np.concatenate([np.ravel(pair[side]) for pair in pairs]) for side in (0, 1))
    places, gaps = (positions[first] + positions[second]) / 2, gap(first, second)
    if som.topology == "rectangular":
        a, b, c, d = cells[:-1, :-1].ravel(), cells[:-1, 1:].ravel(), cells[1:, :-1].ravel(), cells[1:, 1:].ravel()
        places = np.concatenate([places, (positions[a] + positions[d]) / 2])
        gaps = np.concatenate([gaps, (gap(a, d) + gap(b, c)) / (2 * math.sqrt(2))])
    return places, gaps


def hit_map(
    som: Any, X: Any, *, by: Literal["color", "size"] = "color", clusters: Any = None, width: float = 8.0
) -> Figure:
    """Draw the number of rows in each cell; empty cells are only outlined.

    Parameters
    ----------
    som : SOM
        A fitted map.
    X : array-like (n_samples, n_features), or (n_samples,) of int
        Rows, or their cells from `som.predict`.
    by : {'color', 'size'}
        Show the number as the color of a cell, or as the area of a smaller cell inside it.
    clusters, width
        As in `u_matrix`.

    Returns
    -------
    matplotlib.figure.Figure
        With the numbers written in the cells where they are legible.

    Raises
    ------
    InputError, ParameterError, MissingExtraError
    """
    if by not in ("color", "size"):
        raise ParameterError(f"The 'by' parameter must be 'color' or 'size'. Got {by!r} instead.")
    canvas = blank(som, width, scale=True)
    marked = checked_clusters(clusters, canvas.n_cells)
    written = False
    counts = np.bincount(cells_of(som, X), minlength=canvas.n_cells)
    filled, most = np.flatnonzero(counts), max(1, int(counts.max()))
    empty = np.flatnonzero(counts == 0) if by == "color" else np.arange(canvas.n_cells)
    canvas.outline(canvas.polygons(SHRUNK, empty))
    if by == "size":
        shares = np.sqrt(counts[filled] / most)
        canvas.fill(canvas.polygons(0.9 * shares, filled), SHADES[4])
        canvas.caption(f"{most:,} images in the largest cell")
    else:
        colors = shaded(np.concatenate([[0], counts[filled], [most]]))[1:-1]
        canvas.fill(canvas.polygons(SHRUNK, filled), colors)
        canvas.scale("images per cell", 0, most)
        written = _write_counts(canvas, counts, filled, colors)
    canvas.mark_clusters(marked, raised=written)
    return canvas.figure


def _write_counts(canvas: Canvas, counts: np.ndarray, filled: np.ndarray, colors: np.ndarray) -> bool:
    """Write the number of each cell into it if the font would be large enough; return whether it was."""
    letters = min(0.3, 1.1 / max(2, len(str(counts.max())))) * PITCH
    if letters * canvas.points < SMALLEST:
        return False
    for cell, color in zip(filled, colors, strict=True):
        dark = color[:3] @ (0.2126, 0.7152, 0.0722) < 0.5
        x, y = canvas.centers[cell]
        canvas.write(x, y, str(counts[cell]), letters, color=PAPER if dark else INK)
    return True


def component_planes(
    som: Any,
    features: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    *,
    clusters: Any = None,
    width: float = 8.0,
) -> Figure:
    """Draw one small map per feature: the value of each prototype, light for low and dark for high.

    Features with similar planes are correlated over the map.

    Parameters
    ----------
    som : SOM
        A fitted map.
    features : sequence of int, optional
        The features to draw; by default all, or the 16 of the largest standard deviation over the prototypes, in their
        own order.
    names : sequence of str (n_features,), optional
        The names of all features; by default those that the map was fitted with, or numbers.
    clusters, width
        As in `u_matrix`.

    Returns
    -------
    matplotlib.figure.Figure
        One axes per plane, each with its own color bar.

    Raises
    ------
    InputError, ParameterError, MissingExtraError
    """
    lattice = lattice_of(som)
    chosen = _features(som, features)
    names = _names(som, names)
    marked = checked_clusters(clusters, len(som.codebook_))
    across = planes_across(len(chosen), lattice)
    down, letters = math.ceil(len(chosen) / across), min(PLANE_LETTERS, max(LETTERS, 0.017 * across))
    wide, high = paper_size(lattice, letters)
    page = blank(som, width).figure
    page.clear()
    page.set_size_inches(width, width * (1.03 * high * down) / (1.04 * wide * across))
    for k, feature in enumerate(chosen):
        row, column = divmod(k, across)
        place = ((column + 0.02) / across, 1 - (row + 0.985) / down, 1 / 1.04 / across, 1 / 1.03 / down)
        canvas = on_axes(page, place, lattice, letters)
        values = som.codebook_[:, feature]
        canvas.fill(canvas.polygons(), shaded(values))
        canvas.mark_clusters(marked, inside=False)
        canvas.scale(names[feature], values.min(), values.max())
    return page


def planes_across(n: int, lattice: DrawnLattice) -> int:
    """The number of columns for `n` planes: a page somewhat wider than high, with few gaps."""
    wide, high = paper_size(lattice, PLANE_LETTERS)

    def cost(across: int) -> float:
        down = math.ceil(n / across)
        return abs(math.log(across * wide / (down * high) / 1.4)) + (across * down - n) / n

    return min(range(1, n + 1), key=cost)


def _features(som: Any, features: Sequence[int] | None) -> list[int]:
    n_features = som.codebook_.shape[1]
    if features is None:
        spread = som.codebook_.std(axis=0)
        return sorted(np.argsort(-spread, kind="stable")[:MOST_PLANES].tolist())
    chosen = np.asarray(features)
    if chosen.ndim != 1 or not len(chosen) or chosen.dtype.kind not in "iu" or chosen.min() < 0:
        raise InputError(f"'features' must be a non-empty list of feature numbers. Got {features!r}.")
    if chosen.max() >= n_features:
        raise InputError(f"The map has features 0 to {n_features - 1}. Got {int(chosen.max())} in 'features'.")
    return chosen.tolist()


def _names(som: Any, names: Sequence[str] | None) -> list[str]:
    n_features = som.codebook_.shape[1]
    if names is None:
        names = getattr(som, "feature_names_in_", [f"feature {k}" for k in range(n_features)])
    if len(names) != n_features:
        raise InputError(f"'names' must name all {n_features} features. Got {len(names)} names.")
    return [str(name) for name in names]
