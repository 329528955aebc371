"""Images side by side on a grid, similar ones together, and which of them stand for the others from afar.

A map shows many images in one cell and none in another. On a wall each image has a place of its own, and none is free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EMPTY = -1


@dataclass(frozen=True)
class Wall:
    """Places of images on a square grid.

    Attributes
    ----------
    places : array (n, 2) of int64
        Column and row of each image.
    levels : list of array (side, side) of int32
        The image at each place, `EMPTY` where there is none: the last of the whole grid, the one before of fours of
        places, and so on. Sides are `cells` times a power of two.
    """

    places: np.ndarray
    levels: list[np.ndarray]

    @property
    def side(self) -> int:
        """Places along each side of the grid."""
        return len(self.levels[-1])


def wall(points: np.ndarray, rank: np.ndarray, *, cells: int, shape: tuple[float, float] | None = None) -> Wall:
    """A wall of images: each has a place of its own, near its point.

    The points are halved along the longer side, again and again, as a k-d tree does, and the grid with them.

    Parameters
    ----------
    points : array (n, 2)
        x and y of each image.
    rank : array (n,)
        Of the images that share a place from afar, the one of the least rank is shown.
    cells : int
        Places along each side of the coarsest level.
    shape : (float, float), optional
        Width and height of the wall, in any unit; None: those of the points.
    """
    n = len(points)
    width, height = shape or tuple(np.maximum(np.ptp(points, axis=0), 1e-9))
    columns = int(np.clip(round(np.sqrt(n * width / height)), 1, n))
    rows = -(-n // columns)
    places = _halved(np.asarray(points, np.float64), columns, rows)
    return Wall(places, _levels(places, rank, cells))


def scattered(points: np.ndarray, rank: np.ndarray, *, cells: int, most_hidden: float = 0.2, most: int = 2048) -> Wall:
    """Images at their points, on the coarsest grid on which no more than a share of them is hidden by others."""
    low, extent = points.min(0), max(float(np.ptp(points, axis=0).max()), 1e-9)
    side = cells
    while True:
        places = np.minimum(((points - low) / extent * side).astype(np.int64), side - 1)
        n_shown = len(np.unique(places[:, 1] * side + places[:, 0]))
        if n_shown >= (1 - most_hidden) * len(points) or side >= most:
            return Wall(places, _levels(places, rank, cells, side))
        side *= 2


def _halved(points: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Column and row of each point on a grid that has as many places, or a few more."""
    n = len(points)
    order = np.arange(n)
    ranks = np.argsort(np.argsort(points, axis=0, kind="stable"), axis=0)  # whole numbers are sorted faster
    # the parts of the grid: column, row, width, height, and number of points; their points follow each other in `order`
    parts = np.array([[0, 0, columns, rows, len(points)]])
    while (parts[:, 2:4] > 1).any():
        number = np.repeat(np.arange(len(parts)), parts[:, 4])
        is_wide = parts[:, 2] >= parts[:, 3]
        along = np.where(is_wide[number], ranks[order, 0], ranks[order, 1])
        order = order[np.argsort(number * n + along)]
        parts = _split(parts, is_wide)
    places = np.empty((len(points), 2), np.int64)
    places[order] = np.repeat(parts[:, :2], parts[:, 4], axis=0)
    return places


def _split(parts: np.ndarray, is_wide: np.ndarray) -> np.ndarray:
    """Each part in two, along its longer side; parts of one place stay. The first are full, so that free places are in
    the last corner."""
    axis = np.where(is_wide, 2, 3)
    row = np.arange(len(parts))
    length, across, n = parts[row, axis], parts[row, 5 - axis], parts[:, 4]
    first = length // 2
    n_first = np.minimum(first * across, n)
    both = np.repeat(parts, 2, axis=0)
    both[0::2, 4], both[1::2, 4] = n_first, n - n_first
    both[2 * row, axis], both[2 * row + 1, axis] = first, length - first
    both[2 * row + 1, axis - 2] += first
    return both[(both[:, 2] > 0) & (both[:, 3] > 0)]


def _levels(places: np.ndarray, rank: np.ndarray, cells: int, side: int | None = None) -> list[np.ndarray]:
    """The image at each place, of all levels, the coarsest first."""
    if side is None:
        side = cells
        while side <= places.max(initial=0):
            side *= 2
    grid = np.full((side, side), EMPTY, np.int32)
    by_rank = np.argsort(rank, kind="stable")[::-1]  # of several at one place, the last one written stays
    grid[places[by_rank, 1], places[by_rank, 0]] = by_rank
    levels = [grid]
    order = np.empty(len(places) + 1)
    order[by_rank[::-1]], order[EMPTY] = np.arange(len(places)), np.inf
    while len(levels[0]) > cells:
        fours = levels[0].reshape(len(levels[0]) // 2, 2, -1, 2).swapaxes(1, 2).reshape(len(levels[0]) // 2, -1, 4)
        best = np.argmin(order[fours], axis=2)
        levels.insert(0, np.take_along_axis(fours, best[..., None], 2)[..., 0])
    return levels
