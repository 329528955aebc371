"""Conditions for a generator from a map: cells, clusters and images as the prototypes of their cells."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from imatlas import seeding
from imatlas.arguments import article, check_int, shown
from imatlas.errors import InputError

Cell = int | tuple[int, int]
Start = Literal["vary", "morph"]
"""What a generator may make of images: methods that not all have."""


@dataclass(frozen=True)
class MapConditions:
    """The cells of the images of an atlas, and the condition of each cell.

    Attributes
    ----------
    prototypes : array (n_cells, n_features)
        The condition of each cell: its prototype on the map. Neighboring cells have similar ones, so a cell with few
        images learns from those around it, and no condition identifies a single image.
    shape : (rows, cols)
    cells : array (n_images,) of int
        The cell of each image.
    clusters : array (n_images,) of int
    """

    prototypes: np.ndarray
    shape: tuple[int, int]
    cells: np.ndarray
    clusters: np.ndarray

    def of(self, rows: np.ndarray) -> np.ndarray:
        """The condition (n, n_features) of some images."""
        return self.prototypes[self.cells[rows]]

    @classmethod
    def on(cls, som: Any, cells: np.ndarray, clusters: np.ndarray) -> MapConditions:
        """The conditions of images on a fitted map."""
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
        """The cell of each of n new images, (n,) int64; image i depends only on (`random_state`, i).

        Without `cell`, `cluster` and `near`, cells are drawn in proportion to their images.

        Parameters
        ----------
        n : int
        cell : (row, column), flat index, or several, optional
        cluster : int or several, optional
            Cells of its images, in proportion to these.
        near : sequence of int
            Flat indices of the cells of images that new ones should resemble.
        weights : sequence of float, optional
            Relative frequencies of the requested cells, then clusters, then images. None: all equal.

        Raises
        ------
        InputError
            If a cell or a cluster does not exist, or `weights` do not fit.
        """
        targets = [np.array([self.flat(one)]) for one in _as_list(cell)]
        targets += [self._of_cluster(one) for one in _as_list(cluster)]
        targets += [np.array([one]) for one in near]
        if not targets:
            targets = [self.cells]
        share = np.ones(len(targets)) if weights is None else _as_floats(weights)
        if share.shape != (len(targets),) or (share < 0).any() or not 0 < share.sum() < np.inf:
            raise InputError(
                f"'weights' must be {len(targets)} non-negative numbers, one for each requested cell, cluster and "
                f"image. Got {shown(weights)} instead."
            )
        edges = np.cumsum(share / share.sum())
        found = np.empty(n, np.int64)
        for i in range(n):
            rng = seeding.rng(random_state, "place", i)
            target = targets[min(int(np.searchsorted(edges, rng.random(), side="right")), len(targets) - 1)]
            found[i] = target[rng.integers(len(target))]
        return found

    def flat(self, cell: Cell) -> int:
        """The flat index of a cell."""
        rows, cols = self.shape
        if isinstance(cell, tuple | list):
            if len(cell) != 2:
                raise InputError(f"A cell is (row, column) or a flat index. Got {shown(cell)}.")
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
        """The flat indices of the cells on straight lines from each of `cells` to the next."""
        _, cols = self.shape
        corners = [divmod(self.flat(cell), cols) for cell in cells]
        path = corners[:1]
        for (row, col), (to_row, to_col) in itertools.pairwise(corners):
            n = max(abs(to_row - row), abs(to_col - col))
            shares = [i / n for i in range(1, n + 1)]
            path += [(round(row + (to_row - row) * s), round(col + (to_col - col) * s)) for s in shares]
        return np.array([row * cols + col for row, col in path], np.int64)

    def _of_cluster(self, cluster: int) -> np.ndarray:
        cluster = check_int(cluster, "cluster", "sample")
        found = self.cells[self.clusters == cluster]
        if not len(found):
            known = np.unique(self.clusters)
            raise InputError(f"The clusters are numbered {known[0]} to {known[-1]}. Got {cluster}.")
        return found


def sample_from_map(
    generator: Any,
    conditions: MapConditions,
    n: int,
    *,
    random_state: int = 0,
    options: Mapping[str, Any] | None = None,
    **targets: Any,
) -> Any:
    """New images for places on the map, (n, H, W, C) in the dtype of the training images.

    Parameters
    ----------
    generator : model with `sample`
    conditions : MapConditions
    n : int
    random_state : int
    options : mapping, optional
        Further options of the generator's `sample`; what it returns is returned.
    **targets
        As for `MapConditions.draw`.

    Raises
    ------
    InputError
        If a target is given and the generator was fitted without conditions.
    """
    if not targets and (composes(generator) or not is_conditional(generator)):
        return generator.sample(n, random_state=random_state, **(options or {}))
    require_conditional(generator)
    cells = conditions.draw(n, random_state=random_state, **targets)
    return generator.sample(n, y=conditions.prototypes[cells], random_state=random_state, **(options or {}))


def require_conditional(generator: Any) -> None:
    """Refuse a generator that was fitted without conditions.

    Raises
    ------
    InputError
    """
    if not is_conditional(generator):
        raise InputError(_unplaced(generator))


def require_start(generator: Any, verb: Start) -> None:
    """Refuse a generator that cannot start from images.

    Raises
    ------
    InputError
    """
    reason = why_no_start(generator, verb)
    if reason:
        raise InputError(reason)


def why_no_start(generator: Any, verb: Start | None) -> str:
    """Why a generator cannot vary images, morph, or, for None, make images of a place of the map; "" if it can."""
    if not is_conditional(generator):
        return _unplaced(generator)
    if verb is not None and not hasattr(generator, verb):
        name = article(type(generator).__name__)
        instead = " With strength 1 it makes new images of the same place of the map." if verb == "vary" else ""
        return f"The generator of this atlas, {name}, makes images from noise only: it cannot start from one.{instead}"
    return ""


def _unplaced(generator: Any) -> str:
    return (
        f"The {type(generator).__name__} of this atlas was trained without the map, so it cannot generate images "
        "for cells, clusters or other images; learn the atlas again to make that possible."
    )


def is_conditional(generator: Any) -> bool:
    """Whether a generator was fitted with conditions."""
    return bool(generator.takes_vectors)


def composes(generator: Any) -> bool:
    """Whether a generator composes new images of those of the set, and so draws its own places among them."""
    return hasattr(generator, "panorama")


def _as_floats(weights: Any) -> np.ndarray:
    """Weights as floats; empty where they are not numbers."""
    try:
        return np.asarray(weights, dtype=float)
    except (TypeError, ValueError):
        return np.zeros(0)


def _as_list(value: Any) -> list[Any]:
    """One value or several as a list; a pair of numbers is one cell."""
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list) or (isinstance(value, tuple) and value and isinstance(value[0], tuple | list)):
        return list(value)
    return [value]
