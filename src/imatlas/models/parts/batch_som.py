"""Self-organizing map: a lattice of prototypes on which neighbors are alike.

Kohonen, T. (2001), "Self-Organizing Maps", 3rd edition, Springer: the batch map of §3.6. One epoch gives every row to
its best matching unit b(x) and sets each prototype to the mean of all rows, weighted by the neighborhood h between
its cell and theirs (the equation of §3.6.1)::

    m_i = Σ_x h(i, b(x)) x / Σ_x h(i, b(x)),    h(i, j) = exp(-|r_i - r_j|² / (2 sigma²))

with r_i the position of cell i on the lattice. Sums are first taken for each cell, then spread by h (`lattice.py`): the
cost of an epoch is the search, O(rows · cells · features). Four things keep that small, and none changes the equation:

- While the neighborhood is wide there are few degrees of freedom: early epochs learn a coarser lattice, from few rows.
- Rows of many features are searched in their leading principal components; the last sums are of the rows themselves.
- The radius rests on a part of the rows before the last epoch, which alone sees all of them.
- Once prototypes move little, a row is looked for around its last cell only (on large maps).

Values that are not known (NaN) count in no distance and in no mean (Samad & Harp 1992, "Self-organization with partial
data"). With `metric="cosine"` rows and prototypes are put on the unit sphere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from imatlas.lattice.lattice import Lattice
from imatlas.models.parts.rows import Rows

ROWS_PER_CELL = 10
"""Rows that an early epoch sees for each cell: while the neighborhood is wide, few degrees of freedom are fitted."""

RESTING_ROWS_PER_CELL = 30
"""Rows that an epoch at rest sees for each cell."""

COARSE = 1.0
"""Early epochs use every second cell, fourth, … of the lattice, while the radius is at least so many of its cells."""

FALLING = 0.75
"""Share of the epochs in which the radius falls."""

RESTING = 1.5
"""Radius of the epochs before the last one, over the last radius. One closing epoch at a smaller radius takes most of
the gain in quantization error and, unlike several, leaves the order of the cells nearly as it was."""

LAST_RADII = (0.85, 0.77, 0.7, 0.66, 0.62, 0.59, 0.56, 0.53, 0.5)
"""What the last radius is chosen from."""

RESTS = 3
"""Epochs spent at `RESTING` times each of them."""

TORN = 0.08
"""The last radius narrows while the topographic error of rows left out, plus one standard error, is under this."""

FOLD = 4000
"""Rows left out at a time, at most."""

Start = Callable[[Lattice], Tensor]
"""What gives the first prototypes (n_cells, n_features) of a lattice."""


def schedule(n_epochs: int, first: float, last: float, n_samples: int, n_cells: int) -> list[tuple[float, int]]:
    """(sigma, rows seen) of each epoch.

    The radius falls geometrically from `first` to `RESTING` · `last` over three quarters of the epochs and rests there;
    the very last epoch alone uses `last` and sees all rows.
    """
    resting = RESTING * last
    first = max(first, resting)
    falling = round(FALLING * n_epochs)
    at_rest = min(n_samples, RESTING_ROWS_PER_CELL * n_cells)
    steps = []
    for epoch in range(falling):
        sigma = first * (resting / first) ** (epoch / falling)
        steps.append((sigma, min(n_samples, max(1000, ROWS_PER_CELL * n_cells // coarseness(sigma) ** 2))))
    steps += [(resting, at_rest)] * (n_epochs - falling - 1)
    return [*steps[: n_epochs - 1], (last, n_samples)]


def coarseness(sigma: float) -> int:
    """1, 2, 4, …: an epoch of this radius learns every so manyth row and column of the lattice."""
    return 2 ** max(0, math.floor(math.log2(sigma / COARSE)))


def fall(
    rows: Rows, lattice: Lattice, start: Start, steps: list[tuple[float, int]], order: Tensor, unit: bool
) -> Tensor:
    """The epochs in which the radius falls, on a lattice that grows as it does. Returns (n_cells, n_features)."""
    coarse, codebook, at = lattice, None, 0
    for sigma, n_rows in steps:
        factor = min(coarseness(sigma), max(1, min(lattice.rows, lattice.cols) // 4))
        here = lattice.coarser(factor)
        if codebook is None:
            codebook = start(here)
        elif len(here) != len(coarse):
            codebook = coarse.resampled(codebook, here)
        coarse = here
        seen = rows
        if n_rows < len(rows):  # the next rows of the shuffled order, from its start again at its end
            seen = rows.take(torch.cat([order, order])[at : at + n_rows].sort().values)
            at = (at + n_rows) % len(rows)
        sums = seen.sums(seen.cells(codebook), len(here))
        codebook = update(sums, codebook, here, sigma * here.rows / lattice.rows, unit)
    if codebook is None:
        return start(lattice)
    return coarse.resampled(codebook, lattice) if len(coarse) != len(lattice) else codebook


def rest(rows: Rows, codebook: Tensor, lattice: Lattice, radii: list[float], unit: bool) -> Tensor:
    """Epochs over the same rows, each after the first one searching around the last cells on large maps."""
    cells: Tensor | None = None
    for sigma in radii:
        cells = search_near(rows, codebook, cells, lattice)
        codebook = update(rows.sums(cells, len(lattice)), codebook, lattice, sigma, unit)
    return codebook


def close(rows: Rows, codebook: Tensor, lattice: Lattice, unit: bool) -> tuple[Tensor, list[float]]:
    """Narrow the radius step by step, down to the last one that keeps rows left out in order.

    Returns
    -------
    codebook : Tensor (n_cells, n_features)
        From which an epoch with the last radius ends the map.
    radii : list of float
        Of the epochs that led to it, and of the one to come.
    """
    best = codebook
    levels: list[float] = []
    cells: Tensor | None = None
    for last in LAST_RADII:
        for _ in range(RESTS):
            rested = codebook
            cells = search_near(rows, rested, cells, lattice)
            sums = rows.sums(cells, len(lattice))
            codebook = update(sums, rested, lattice, RESTING * last, unit)
        assert cells is not None
        if levels and torn_bound(rows, cells, sums, rested, lattice, last, unit) > TORN:
            break
        best = rested
        levels.append(last)
    return best, [*[RESTING * last for last in levels for _ in range(RESTS)][:-1], levels[-1]]


def search_near(rows: Rows, codebook: Tensor, cells: Tensor | None, lattice: Lattice) -> Tensor:
    """The best matching unit of each row (n_rows,), looked for around `cells`, the ones of the epoch before.

    On a map whose tiles and margins cover more than a quarter of it, or where `cells` is None, among all cells.
    """
    tile_of, windows = lattice.tiles()
    if cells is None or max(map(len, windows)) > len(lattice) / 4:
        return rows.cells(codebook)
    tile = tile_of[cells]
    order = torch.argsort(tile, stable=True)
    found = torch.empty_like(cells)
    at = 0
    for window, n in zip(windows, torch.bincount(tile, minlength=len(windows)).tolist(), strict=True):
        index = order[at : at + n]
        if n:
            found[index] = window[rows.take(index).cells(codebook[window])]
        at += n
    return found


def update(sums: Tensor, codebook: Tensor, lattice: Lattice, sigma: float, unit: bool = False) -> Tensor:
    """The new prototypes of the batch map, on the unit sphere if asked. One that no row reaches stays where it was."""
    n_features = codebook.shape[1]
    spread = lattice.spread(sums, sigma)
    weight = spread[:, n_features:]
    updated = torch.where(weight > 1e-6, spread[:, :n_features] / weight.clamp(min=1e-6), codebook)
    return updated / updated.norm(dim=1, keepdim=True).clamp(min=1e-30) if unit else updated


def torn_bound(
    rows: Rows, cells: Tensor, sums: Tensor, codebook: Tensor, lattice: Lattice, sigma: float, unit: bool = False
) -> float:
    """Topographic error of rows under the map that a closing epoch without them makes, plus one standard error.

    Sums over rows subtract, so leaving a fold out costs no search over the others.
    """
    if len(codebook) < 2:
        return 0.0
    torn, n = 0.0, 0
    n_folds = max(5, -(-len(rows) // FOLD))
    for fold in range(min(5, len(rows))):
        index = torch.arange(fold, len(rows), n_folds, device=codebook.device)
        out = rows.take(index)
        left = update(sums - out.sums(cells[index], len(codebook)), codebook, lattice, sigma, unit)
        two = out.two_cells(left)
        torn += float((~lattice.touch(two[:, 0], two[:, 1])).sum())
        n += len(index)
    share = torn / n
    return share + math.sqrt(share * (1 - share) / n)
