"""From places on the map to what a generator is told: cells, clusters and images as conditions for new ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imatlas import seeding
from imatlas.arguments import check_int, shown
from imatlas.errors import InputError

Cell = int | tuple[int, int]


@dataclass(frozen=True)
class Places:
    """Where the images of an atlas lie, and what a generator is told of each cell.

    Attributes
    ----------
    prototypes : array (n_cells, n_features)
        The condition of each cell: its prototype on the map. Neighboring cells have alike ones, so that a cell of few
        images learns from those around it, and no condition names a single image.
    shape : (rows, cols)
    cells : array (n_images,) of int
        The cell of each image.
    clusters : array (n_images,) of int
    """

    prototypes: np.ndarray
    shape: tuple[int, int]
    cells: np.ndarray
    clusters: np.ndarray

    @classmethod
    def on(cls, som: Any, cells: np.ndarray, clusters: np.ndarray) -> Places:
        """The places of images on a fitted map."""
        return cls(som.codebook_, (som.rows_, som.cols_), cells, clusters)

    def draw(
        self,
        n: int,
        *,
        cell: Cell | Sequence[Cell] | None = None,
        cluster: int | Sequence[int] | None = None,
        near: Sequence[int] = (),
        weights: Sequence[float] | None = None,
        random_state: int = 0,
    ) -> np.ndarray:
        """The cell of each of n new images, (n,) int64; image i depends on (`random_state`, i) alone.

        Parameters
        ----------
        n : int
        cell : (row, column), flat index, or several, optional
        cluster : int or several, optional
            Then the cells of its images, as often as these lie in them.
        near : sequence of int
            Flat indices of the cells of images that new ones are to be like.
        weights : sequence of float, optional
            How often each of what is asked for comes up: cells first, then clusters, then images. None: equally often.

        Raises
        ------
        InputError
            If a cell or a cluster is not there, or `weights` do not fit.
        """
        asked = [np.array([self.flat(one)]) for one in _several(cell)]
        asked += [self._of_cluster(one) for one in _several(cluster)]
        asked += [np.array([one]) for one in near]
        if not asked:
            asked = [self.cells]
        share = np.ones(len(asked)) if weights is None else _numbers(weights)
        if share.shape != (len(asked),) or (share < 0).any() or not 0 < share.sum() < np.inf:
            raise InputError(
                f"'weights' must be {len(asked)} numbers of 0 and more, one for each cell, cluster and image that was "
                f"asked for. Got {shown(weights)} instead."
            )
        edges = np.cumsum(share / share.sum())
        found = np.empty(n, np.int64)
        for i in range(n):
            rng = seeding.rng(random_state, "place", i)
            among = asked[min(int(np.searchsorted(edges, rng.random(), side="right")), len(asked) - 1)]
            found[i] = among[rng.integers(len(among))]
        return found

    def flat(self, cell: Cell) -> int:
        """The flat index of a cell."""
        rows, cols = self.shape
        if isinstance(cell, tuple | list):
            if len(cell) != 2:
                raise InputError(f"A cell is a row and a column, or a flat index. Got {shown(cell)}.")
            row, col = (check_int(part, "cell", "the map") for part in cell)
            if not (0 <= row < rows and 0 <= col < cols):
                raise InputError(
                    f"The map has {rows} rows and {cols} columns, from (0, 0) to ({rows - 1}, {cols - 1}). "
                    f"Got the cell ({row}, {col})."
                )
            return row * cols + col
        cell = check_int(cell, "cell", "the map")
        if not 0 <= cell < rows * cols:
            raise InputError(f"The map has {rows * cols} cells, from 0 to {rows * cols - 1}. Got the cell {cell}.")
        return cell

    def path(self, cells: Sequence[Cell]) -> np.ndarray:
        """The flat indices of the cells on the way from each of `cells` to the next, straight over the map."""
        _, cols = self.shape
        corners = [divmod(self.flat(cell), cols) for cell in cells]
        way = corners[:1]
        for (row, col), (to_row, to_col) in itertools.pairwise(corners):
            n = max(abs(to_row - row), abs(to_col - col))
            shares = [i / n for i in range(1, n + 1)]
            way += [(round(row + (to_row - row) * s), round(col + (to_col - col) * s)) for s in shares]
        return np.array([row * cols + col for row, col in way], np.int64)

    def _of_cluster(self, cluster: int) -> np.ndarray:
        cluster = check_int(cluster, "cluster", "sample")
        found = self.cells[self.clusters == cluster]
        if not len(found):
            known = np.unique(self.clusters)
            raise InputError(f"There are clusters {known[0]} to {known[-1]}. Got the cluster {cluster}.")
        return found


def sample_places(generator: Any, places: Places, n: int, *, random_state: int = 0, **asked: Any) -> np.ndarray:
    """New images from places on the map, (n, H, W, C) of the dtype that was fitted.

    Where nothing is asked for, the places are drawn as the images lie on the map.

    Parameters
    ----------
    generator : model with `sample`
    places : Places
    n : int
    random_state : int
    **asked
        As `Places.draw` takes it.

    Raises
    ------
    InputError
        If a place is asked for and the generator was learned without them.
    """
    if not asked and not _steered(generator):
        return generator.sample(n, random_state=random_state)
    need_steered(generator)
    cells = places.draw(n, random_state=random_state, **asked)
    return generator.sample(n, y=places.prototypes[cells], random_state=random_state)


def need_steered(generator: Any) -> None:
    """Refuse a generator that is not told places.

    Raises
    ------
    InputError
    """
    if not _steered(generator):
        raise InputError(
            f"This atlas has a {type(generator).__name__}, which was learned without the map, so it cannot make "
            "images of one place; learn the atlas again to ask for cells, clusters, images or morphs."
        )


def _steered(generator: Any) -> bool:
    return getattr(generator, "condition_range_", None) is not None


def _numbers(weights: Any) -> np.ndarray:
    """Weights as floats; nothing where they are no numbers."""
    try:
        return np.asarray(weights, dtype=float)
    except (TypeError, ValueError):
        return np.zeros(0)


def _several(asked: Any) -> list[Any]:
    """What was asked for as a list; a pair of numbers is one cell."""
    if asked is None:
        return []
    if isinstance(asked, np.ndarray):
        asked = asked.tolist()
    if isinstance(asked, list) or (isinstance(asked, tuple) and asked and isinstance(asked[0], tuple | list)):
        return list(asked)
    return [asked]
