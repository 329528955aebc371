"""Batch learning of a self-organizing map: schedule, initial codebook, epochs, choice of the final sigma.

The equation is at the top of `imatlas.models.som`; `batch_update` is its code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from imatlas.lattice.geometry import HEX_ROW, Topology
from imatlas.lattice.lattice import Lattice
from imatlas.models.parts.rows import PrincipalAxes, Rows

ROWS_PER_CELL = 10
"""Rows per cell in an early epoch: a wide neighborhood leaves few degrees of freedom to fit."""

REFINEMENT_ROWS_PER_CELL = 30
"""Rows per cell in a refinement epoch."""

MIN_ROWS = 1000
"""Fewest rows of an early epoch."""

COARSE = 1.0
"""Early epochs use every 2nd, 4th, … row and column of the lattice while sigma is at least this many coarse cells."""

SHRINKING = 0.75
"""Share of the epochs in which sigma shrinks."""

REFINEMENT = 1.5
"""Sigma of the refinement epochs as a multiple of the final sigma. The single last epoch at the final sigma gains most
of the quantization error and, unlike several, hardly changes the order of the cells."""

FINAL_SIGMAS = (0.85, 0.77, 0.7, 0.66, 0.62, 0.59, 0.56, 0.53, 0.5)
"""Candidates for the final sigma."""

EPOCHS_PER_SIGMA = 3
"""Refinement epochs per candidate."""

MAX_TOPOGRAPHIC_ERROR = 0.08
"""Sigma shrinks while the held-out topographic error plus one standard error is below this."""

MAX_FOLD = 4000
"""Maximum number of rows in a fold."""

N_SHEET_AXES = 4
"""Principal axes along which the codebook is initialized: two for a sheet, four for a torus."""

InitialCodebook = Callable[[Lattice], Tensor]
"""Lattice -> its initial codebook (n_cells, n_features)."""


def lattice_shape(
    n_samples: int,
    deviations: Tensor,
    topology: Topology,
    rows: int | None = None,
    cols: int | None = None,
    toroidal: bool = False,
) -> tuple[int, int]:
    """The sides of the map, (rows, cols), where they are not given; see the notes of `SOM`.

    `deviations` (2,) are the standard deviations along the two leading principal axes.
    """
    if rows is not None and cols is not None:
        return rows, cols
    n_cells = min(5 * math.sqrt(n_samples), max(n_samples / 12, min(30, n_samples / 2)), 1600.0)
    if rows is not None:
        return rows, max(1, round(n_cells / rows))
    first, second = deviations.tolist()
    ratio = min(1.6, first / second) if second > 0 else 1.6 if first > 0 else 1.0
    if cols is not None:
        short = max(1, round(n_cells / cols))
    else:
        short = max(1, round(math.sqrt(n_cells / (ratio * (HEX_ROW if topology == "hexagonal" else 1)))))
    if toroidal and topology == "hexagonal":
        short += short % 2  # a hexagonal torus needs an even number of rows
    return short, cols or max(1, round(n_cells / short))


def initial_codebook(init: str, rows: Rows, axes: PrincipalAxes, generator: torch.Generator) -> InitialCodebook:
    """What gives the initial codebook of a lattice: "pca", "sample" or "random", see `SOM.init`."""
    values = torch.where(rows.values.isnan(), axes.mean, rows.values) if rows.missing else rows.values

    def codebook(lattice: Lattice) -> Tensor:
        if init == "pca":
            return lattice.sheet(axes.mean, axes.axes[:N_SHEET_AXES], axes.deviations[:N_SHEET_AXES])
        if init == "sample":
            order = torch.randperm(len(values), generator=generator).to(values.device)
            return values[order.repeat(-(-len(lattice) // len(order)))[: len(lattice)]]
        noise = torch.randn((len(lattice), values.shape[1]), generator=generator).to(values.device)
        return axes.mean + noise * values.std(0, correction=0)

    return codebook


def schedule(n_epochs: int, first: float, final: float, n_samples: int, n_cells: int) -> list[tuple[float, int]]:
    """(sigma, number of rows) of each epoch.

    Sigma shrinks geometrically from `first` to `REFINEMENT` · `final` over three quarters of the epochs and stays
    there; only the last epoch uses `final` and all rows.
    """
    refined = REFINEMENT * final
    first = max(first, refined)
    n_shrinking = round(SHRINKING * n_epochs)
    steps = []
    for epoch in range(n_shrinking):
        sigma = first * (refined / first) ** (epoch / n_shrinking)
        steps.append((sigma, min(n_samples, max(MIN_ROWS, ROWS_PER_CELL * n_cells // coarseness(sigma) ** 2))))
    steps += [(refined, min(n_samples, REFINEMENT_ROWS_PER_CELL * n_cells))] * (n_epochs - n_shrinking - 1)
    return [*steps[: n_epochs - 1], (final, n_samples)]


def coarseness(sigma: float) -> int:
    """1, 2, 4, …: an epoch with this sigma learns every n-th row and column of the lattice."""
    return 2 ** max(0, math.floor(math.log2(sigma / COARSE)))


def batch_update(sums: Tensor, codebook: Tensor, lattice: Lattice, sigma: float, spherical: bool = False) -> Tensor:
    """The new codebook m_i = Σ_j h(i, j) S_j / Σ_j h(i, j) n_j, on the unit sphere if asked.

    `sums` (n_cells, n_features + 1 or 2 n_features) holds the sum S_j and the weight n_j of the rows of each cell. A
    prototype that no row reaches stays where it was.
    """
    n_features = codebook.shape[1]
    spread = lattice.spread(sums, sigma)
    weight = spread[:, n_features:]
    updated = torch.where(weight > 1e-6, spread[:, :n_features] / weight.clamp(min=1e-6), codebook)
    return updated / updated.norm(dim=1, keepdim=True).clamp(min=1e-30) if spherical else updated


def shrink(
    rows: Rows,
    lattice: Lattice,
    initial: InitialCodebook,
    steps: list[tuple[float, int]],
    order: Tensor,
    spherical: bool,
) -> Tensor:
    """Epochs with a shrinking sigma, on a lattice that gets finer as sigma shrinks.

    Parameters
    ----------
    steps : list of (sigma, number of rows)
    order : Tensor (n_rows,)
        Shuffled row indices, of which each epoch takes the next.

    Returns
    -------
    codebook : Tensor (n_cells, n_features)
    """
    coarse, codebook, start = lattice, None, 0
    for sigma, n_rows in steps:
        factor = min(coarseness(sigma), max(1, min(lattice.rows, lattice.cols) // 4))
        current = lattice.coarser(factor)
        if codebook is None:
            codebook = initial(current)
        elif len(current) != len(coarse):
            codebook = coarse.resampled(codebook, current)
        coarse = current
        batch = rows
        if n_rows < len(rows):
            batch = rows.take(torch.cat([order, order])[start : start + n_rows].sort().values)
            start = (start + n_rows) % len(rows)
        sums = batch.sums(batch.cells(codebook), len(current))
        codebook = batch_update(sums, codebook, current, sigma * current.rows / lattice.rows, spherical)
    if codebook is None:
        return initial(lattice)
    return coarse.resampled(codebook, lattice) if len(coarse) != len(lattice) else codebook


def refine(rows: Rows, codebook: Tensor, lattice: Lattice, sigmas: list[float], spherical: bool) -> Tensor:
    """One epoch over the same rows for each sigma."""
    cells: Tensor | None = None
    for sigma in sigmas:
        cells = search_near(rows, codebook, cells, lattice)
        codebook = batch_update(rows.sums(cells, len(lattice)), codebook, lattice, sigma, spherical)
    return codebook


def refine_while_ordered(rows: Rows, codebook: Tensor, lattice: Lattice, spherical: bool) -> tuple[Tensor, list[float]]:
    """Refine with ever smaller sigmas, as long as the held-out topographic error stays low.

    Returns
    -------
    codebook : Tensor (n_cells, n_features)
        From which the last epoch starts.
    sigmas : list of float
        One for each epoch so far, then the final sigma.
    """
    best = codebook
    accepted: list[float] = []
    cells: Tensor | None = None
    for final in FINAL_SIGMAS:
        for _ in range(EPOCHS_PER_SIGMA):
            refined = codebook
            cells = search_near(rows, refined, cells, lattice)
            sums = rows.sums(cells, len(lattice))
            codebook = batch_update(sums, refined, lattice, REFINEMENT * final, spherical)
        assert cells is not None
        if accepted:  # the widest candidate is always accepted
            bound = topographic_error_bound(rows, cells, sums, refined, lattice, final, spherical)
            if bound > MAX_TOPOGRAPHIC_ERROR:
                break
        best = refined
        accepted.append(final)
    refinements = [REFINEMENT * final for final in accepted for _ in range(EPOCHS_PER_SIGMA)]
    return best, [*refinements[:-1], accepted[-1]]


def topographic_error_bound(
    rows: Rows, cells: Tensor, sums: Tensor, codebook: Tensor, lattice: Lattice, sigma: float, spherical: bool = False
) -> float:
    """Cross-validated topographic error of a last epoch with this sigma, plus one standard error.

    `cells` (n_rows,) are the best matching units and `sums` their sums over all rows: a fold is left out by
    subtracting its sums, without a new search.
    """
    if len(codebook) < 2:
        return 0.0
    n_errors, n = 0.0, 0
    n_folds = max(5, -(-len(rows) // MAX_FOLD))
    for fold in range(min(5, len(rows))):
        index = torch.arange(fold, len(rows), n_folds, device=codebook.device)
        held_out = rows.take(index)
        others = sums - held_out.sums(cells[index], len(codebook))
        two = held_out.two_cells(batch_update(others, codebook, lattice, sigma, spherical))
        n_errors += float((~lattice.touch(two[:, 0], two[:, 1])).sum())
        n += len(index)
    error = n_errors / n
    return error + math.sqrt(error * (1 - error) / n)


def search_near(rows: Rows, codebook: Tensor, cells: Tensor | None, lattice: Lattice) -> Tensor:
    """The best matching unit of each row (n_rows,), searched around its previous one, `cells`.

    If `cells` is None, or a tile with its margin covers more than a quarter of the map, all cells are searched.
    """
    tile_of, windows = lattice.tiles()
    if cells is None or max(map(len, windows)) > len(lattice) / 4:
        return rows.cells(codebook)
    tile = tile_of[cells]
    order = torch.argsort(tile, stable=True)
    found = torch.empty_like(cells)
    start = 0
    for window, n in zip(windows, torch.bincount(tile, minlength=len(windows)).tolist(), strict=True):
        index = order[start : start + n]
        if n:
            found[index] = window[rows.take(index).cells(codebook[window])]
        start += n
    return found


def widened(sums: Tensor, width: int) -> Tensor:
    """Sums of cells with one weight per feature, repeated from their single weight, if `width` asks for it."""
    n_features = width // 2
    return sums if sums.shape[1] == width else torch.cat([sums[:, :-1], sums[:, -1:].expand(-1, n_features)], dim=1)
