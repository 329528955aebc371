"""Self-organizing map: a lattice of prototypes on which neighbours are alike.

Kohonen, T. (2001), "Self-Organizing Maps", 3rd edition, Springer: the batch map of §3.6. One epoch gives every row to
its best matching unit b(x) and sets each prototype to the mean of all rows, weighted by the neighborhood h between
its cell and theirs (the equation of §3.6.1)::

    m_i = Σ_x h(i, b(x)) x / Σ_x h(i, b(x)),    h(i, j) = exp(-|r_i - r_j|² / (2 sigma²))

with r_i the position of cell i on the lattice. Sums are first taken for each cell, then spread by h: the cost of an
epoch is the search. A Gaussian on a rectangular lattice is the product of one along the rows and one along the
columns; a hexagonal lattice is every other point of a rectangular one with half the spacing, so the same holds.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.extmath import randomized_svd
from sklearn.utils.validation import validate_data

from imatlas.devices import pick_device
from imatlas.metrics.topology import HEX_ROW, Topology, lattice_positions, neighbor_table
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.nearest import all_distances, as_tensor, group_sums, k_nearest, nearest, nearest_index

ROWS_PER_CELL = 15
"""Rows that an early epoch sees for each cell: while the neighborhood is wide, few degrees of freedom are fitted."""

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


@estimator
class SOM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Learn a lattice of prototypes on which neighbouring cells hold similar rows (batch map).

    A cell is addressed by its flat index, row · cols + column. On a hexagonal lattice odd rows are shifted right by
    half a cell. Euclidean distance; NaN and infinite values are refused. The same seed gives the same map bit for
    bit on one machine and thread count.

    Attributes
    ----------
    codebook_ : ndarray (n_cells, n_features) float32
        The prototypes, in row-major order of the lattice.
    rows_, cols_ : int
        The sides of the lattice, as given or chosen.
    cells_ : ndarray (n_samples, 2) int64
        (row, column) of each row given to `fit`.
    schedule_ : list of tuple
        (sigma, rows seen) of each epoch.

    Notes
    -----
    Where `rows` or `cols` is None the size follows the data: about 5 √n_samples cells (Vesanto & Alhoniemi 2000), but
    at least 12 rows a cell unless that leaves fewer than 30 cells, and at most 1,600 cells; the sides of the sheet in
    the ratio of the deviations along the two leading principal axes, at most 1.6 : 1.

    Where `final_sigma` is None it is the narrowest of `LAST_RADII` at which the topographic error of rows left out
    of the closing epoch (five folds of at most 4,000 rows), plus one standard error, stays under 0.08: data of few
    dimensions bear a closer fit than data of many, and many rows a closer one than few.

    Complexity O(n_epochs · n_samples · n_cells · n_features). Memory besides the input: some 64 MB, and the 15 rows a
    cell that an early epoch sees.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).random((200, 3))
    >>> som = SOM(rows=5, cols=6).fit(X)
    >>> som.codebook_.shape, som.predict(X).shape
    ((30, 3), (200,))
    """

    rows: Annotated[int | None, Field(ge=1, description="rows of the lattice; None follows the data")] = None
    cols: Annotated[int | None, Field(ge=1, description="columns of the lattice; None follows the data")] = None
    topology: Annotated[Literal["rectangular", "hexagonal"], Field(description="8 or 6 neighbours for a cell")] = (
        "rectangular"
    )
    init: Annotated[
        Literal["pca", "sample", "random"],
        Field(description="first prototypes: a sheet along two principal axes, rows of the data, or Gaussian noise"),
    ] = "pca"
    n_epochs: Annotated[int, Field(ge=1, description="passes over the data, early ones over a part of it")] = 40
    sigma: Annotated[
        float | None, Field(gt=0, description="first radius; None: the longer side, a fifth of it from init='pca'")
    ] = None
    final_sigma: Annotated[
        float | None,
        Field(gt=0, description="last radius: smaller fits closer, larger orders better; None: by the data"),
    ] = None
    device: Annotated[str, Field(description="where to compute: 'cpu', 'cuda' …, or 'auto'")] = "cpu"
    random_state: Seed = 0

    def fit(self, X: Any, y: Any = None) -> SOM:
        """Learn the map.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
        y : ignored

        Raises
        ------
        ParameterError, ValueError
            If a parameter is wrong, or `X` holds NaN or infinite values.
        """
        self._check_parameters()
        X = validate_data(self, X, dtype=np.float32, order="C")
        data = as_tensor(X, self._device())
        generator = torch.Generator().manual_seed(self._seed())
        order = torch.randperm(len(data), generator=generator).to(data.device)
        mean, axes, deviations = _principal_plane(data[order[:8192].sort().values], self._seed())
        rows, cols = lattice_shape(len(data), deviations, self.topology, self.rows, self.cols)
        lattice = _Lattice(rows, cols, self.topology, data.device)
        if self.init == "pca":
            codebook = lattice.sheet(mean, axes, deviations)
        elif self.init == "sample":
            codebook = data[order.repeat(-(-rows * cols // len(order)))[: rows * cols]].clone()
        else:
            noise = torch.randn((rows * cols, data.shape[1]), generator=generator).to(data.device)
            codebook = mean + noise * data.std(0, correction=0)
        first = self.sigma or max(rows, cols) / (5 if self.init == "pca" else 1)
        last = self.final_sigma or LAST_RADII[0]
        self.schedule_ = schedule(self.n_epochs, first, last, len(data), rows * cols)
        if self.final_sigma is None:
            del self.schedule_[round(FALLING * self.n_epochs) :]
        for epoch, (sigma, n_rows) in enumerate(self.schedule_):
            seen = data
            if n_rows < len(data):  # the next rows of the shuffled order, from its start again at its end
                at = epoch * n_rows % len(data)
                seen = data[torch.cat([order, order])[at : at + n_rows].sort().values]
            codebook = update(cell_sums(seen, codebook), codebook, lattice, sigma)
        if self.final_sigma is None:
            codebook, radii = close(data, order, codebook, lattice)
            self.schedule_ += [(radius, len(data)) for radius in radii]
        self.rows_, self.cols_ = rows, cols
        self.codebook_ = codebook.cpu().numpy()
        self.cells_ = np.stack(np.divmod(nearest_index(data, codebook).cpu().numpy(), cols), axis=1)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the best matching unit of each row: flat cell indices (n_samples,) int64."""
        return nearest_index(self._rows(X), self._codes()).cpu().numpy()

    def transform(self, X: Any) -> np.ndarray:
        """Return the Euclidean distance of each row to each prototype (n_samples, n_cells) float32."""
        return all_distances(self._rows(X), self._codes()).cpu().numpy()

    def inverse_transform(self, cells: Any) -> np.ndarray:
        """Return the prototypes (n_samples, n_features) of flat cell indices (n_samples,), as `predict` gives them.

        Raises
        ------
        IndexError
            If a cell is not on the map.
        """
        self._check_fitted()
        return self.codebook_[np.asarray(cells, dtype=np.int64)]

    def score_samples(self, X: Any) -> np.ndarray:
        """Return minus the distance of each row to its best matching unit (n_samples,): higher is more usual."""
        _, squared = nearest(self._rows(X), self._codes())
        return -squared.sqrt_().cpu().numpy()

    def project(self, X: Any) -> np.ndarray:
        """Place each row on the map between its best matching unit and the cells around it.

        The place is the mean of the positions of the best matching unit and its neighbours, with weights that fall
        with how much farther than the best one each prototype is: exp(-2 gap / mean gap). A row at its
        prototype lies near the middle of its cell, one between two prototypes near their border.

        Returns
        -------
        ndarray (n_samples, 2) float64
            (x, y) in the units of `positions_`.
        """
        rows, codes = self._rows(X), self._codes()
        best, squared = nearest(rows, codes)
        table = torch.as_tensor(neighbor_table(self.rows_, self.cols_, self.topology), device=rows.device)[best]
        gaps = torch.full(table.shape, torch.inf, device=rows.device)
        for j in range(table.shape[1]):
            present = table[:, j] >= 0
            there = (codes[table[present, j]] - rows[present]).square_().sum(1)
            gaps[present, j] = (there - squared[present]).clamp_(min=0)
        finite = torch.isfinite(gaps)
        scale = torch.where(finite, gaps, 0).sum(1) / finite.sum(1).clamp(min=1)
        weights = torch.exp(-2 * gaps / scale.clamp(min=1e-30)[:, None]).double()
        positions = torch.as_tensor(self.positions_, device=rows.device)
        offsets = positions[table.clamp(min=0)] - positions[best][:, None]
        moved = (weights[..., None] * offsets).sum(1) / (1 + weights.sum(1, keepdim=True))
        return (positions[best] + moved).cpu().numpy()

    @property
    def positions_(self) -> np.ndarray:
        """Where the cells lie: (n_cells, 2) x and y, one unit apart; rows of hexagons are √3/2 apart."""
        self._check_fitted()
        return lattice_positions(self.rows_, self.cols_, self.topology)

    def _rows(self, X: Any) -> torch.Tensor:
        self._check_fitted()
        return as_tensor(validate_data(self, X, dtype=np.float32, order="C", reset=False), self._device())

    def _codes(self) -> torch.Tensor:
        return as_tensor(self.codebook_, self._device())

    def _device(self) -> torch.device:
        return pick_device(self.device)

    @property
    def _n_features_out(self) -> int:
        return len(self.codebook_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def lattice_shape(
    n_samples: int, deviations: torch.Tensor, topology: Topology, rows: int | None = None, cols: int | None = None
) -> tuple[int, int]:
    """The sides of the map, (rows, cols), where they are not given: see the notes of `SOM`."""
    if rows is not None and cols is not None:
        return rows, cols
    n_cells = min(5 * math.sqrt(n_samples), max(n_samples / 12, min(30, n_samples / 2)), 1600.0)
    if rows is not None:
        return rows, max(1, round(n_cells / rows))
    if cols is not None:
        return max(1, round(n_cells / cols)), cols
    first, second = deviations.tolist()
    ratio = min(1.6, first / second) if second > 0 else 1.6 if first > 0 else 1.0
    short = max(1, round(math.sqrt(n_cells / (ratio * (HEX_ROW if topology == "hexagonal" else 1)))))
    return short, max(1, round(n_cells / short))


def schedule(n_epochs: int, first: float, last: float, n_samples: int, n_cells: int) -> list[tuple[float, int]]:
    """(sigma, rows seen) of each epoch.

    The radius falls geometrically from `first` to `RESTING` · `last` over three quarters of the epochs and rests there;
    the very last epoch alone uses `last`. Epochs before the last quarter see `ROWS_PER_CELL` rows a cell.
    """
    resting = RESTING * last
    first = max(first, resting)
    falling = round(FALLING * n_epochs)
    some = min(n_samples, max(1000, ROWS_PER_CELL * n_cells))
    steps = [(first * (resting / first) ** (epoch / falling), some) for epoch in range(falling)]
    steps += [(resting, n_samples)] * (n_epochs - falling - 1)
    return [*steps[: n_epochs - 1], (last, n_samples)]


def cell_sums(data: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """The sum of the rows of each best matching unit, and their number in one more column (n_cells, n_features + 1)."""
    return _sums_of(data, nearest_index(data, codebook), len(codebook))


def _sums_of(data: torch.Tensor, cells: torch.Tensor, n_cells: int) -> torch.Tensor:
    sums, hits = group_sums(data, cells, n_cells)
    return torch.cat([sums, hits[:, None]], dim=1)


def update(sums: torch.Tensor, codebook: torch.Tensor, lattice: _Lattice, sigma: float) -> torch.Tensor:
    """The new prototypes of the batch map. A prototype that no row reaches stays where it was."""
    spread = lattice.spread(sums, sigma)
    weight = spread[:, -1:]
    return torch.where(weight > 1e-6, spread[:, :-1] / weight.clamp(min=1e-6), codebook)


def close(
    data: torch.Tensor, order: torch.Tensor, codebook: torch.Tensor, lattice: _Lattice
) -> tuple[torch.Tensor, list[float]]:
    """Narrow the radius step by step, and end at the last one that keeps rows left out in order.

    Returns
    -------
    codebook : Tensor (n_cells, n_features)
    radii : list of float
        Of the epochs that led to it.
    """
    closed = codebook
    levels: list[float] = []
    for last in LAST_RADII:
        for _ in range(RESTS):
            rested, cells = codebook, nearest_index(data, codebook)
            sums = _sums_of(data, cells, len(codebook))
            codebook = update(sums, rested, lattice, RESTING * last)
        if levels and torn_bound(data, order, cells, sums, rested, lattice, last) > TORN:
            break
        closed = update(sums, rested, lattice, last)
        levels.append(last)
    return closed, [*[RESTING * last for last in levels for _ in range(RESTS)][:-1], levels[-1]]


def torn_bound(
    data: torch.Tensor,
    order: torch.Tensor,
    cells: torch.Tensor,
    sums: torch.Tensor,
    codebook: torch.Tensor,
    lattice: _Lattice,
    sigma: float,
) -> float:
    """Topographic error of rows under the map that a closing epoch without them makes, plus one standard error.

    Sums over rows subtract, so leaving a fold out costs no search over the others.
    """
    if len(codebook) < 2:
        return 0.0
    torn, n = 0.0, 0
    for fold in order[: 5 * FOLD].tensor_split(5):
        if not len(fold):
            continue
        rows = data[fold]
        left = update(sums - _sums_of(rows, cells[fold], len(codebook)), codebook, lattice, sigma)
        two, _ = k_nearest(left, rows, 2)
        torn += float((~lattice.touch(two[:, 0], two[:, 1])).sum())
        n += len(fold)
    share = torn / n
    return share + math.sqrt(share * (1 - share) / n)


class _Lattice:
    """The cells as points of a rectangular grid, on which a Gaussian is one product along each axis."""

    def __init__(self, rows: int, cols: int, topology: Topology, device: torch.device):
        self.squares = topology == "rectangular"
        self.positions = torch.as_tensor(lattice_positions(rows, cols, topology), device=device)
        step, width = (0.5, 2 * cols) if topology == "hexagonal" else (1.0, cols)
        row = torch.arange(rows * cols, device=device) // cols
        self.slot = row * width + (self.positions[:, 0] / step).round().long()
        self.x = torch.arange(width, device=device, dtype=torch.float64) * step
        self.y = torch.arange(rows, device=device, dtype=torch.float64) * (HEX_ROW if topology == "hexagonal" else 1)

    def touch(self, cells: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Whether pairs of different cells are neighbours (n_pairs,)."""
        apart = (self.positions[cells] - self.positions[others]).abs()
        return (apart.max(1).values if self.squares else apart.norm(dim=1)) < 1.01

    def spread(self, values: torch.Tensor, sigma: float) -> torch.Tensor:
        """The sums over all cells of `values` (n_cells, n), weighted by the neighborhood of radius `sigma`."""
        height, width, n = len(self.y), len(self.x), values.shape[1]
        grid = torch.zeros((height * width, n), dtype=values.dtype, device=values.device)
        grid[self.slot] = values
        grid = (_gaussian(self.y, sigma).to(values.dtype) @ grid.view(height, -1)).view(height, width, n)
        return (_gaussian(self.x, sigma).to(values.dtype) @ grid).view(height * width, n)[self.slot]

    def sheet(self, mean: torch.Tensor, axes: torch.Tensor, deviations: torch.Tensor) -> torch.Tensor:
        """Prototypes on the plane of two axes (2, n_features), the longer side of the lattice along the first."""
        low, high = self.positions.min(0).values, self.positions.max(0).values
        place = (self.positions - (low + high) / 2) / ((high - low) / 2).clamp(min=1e-9)
        place = (place if high[0] - low[0] >= high[1] - low[1] else place.flip(1)).to(mean.dtype)
        return mean + (place * 1.5 * deviations) @ axes


def _gaussian(places: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.exp(-(places[:, None] - places).square() / (2 * sigma**2))


def _principal_plane(sample: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean (n_features,), two leading axes (2, n_features) and the deviations along them (2,); zeros where missing."""
    mean = sample.mean(0)
    axes = torch.zeros((2, sample.shape[1]), device=sample.device)
    deviations = torch.zeros(2, device=sample.device)
    n = min(2, *sample.shape)
    if len(sample) > 1:
        centred = (sample - mean).cpu().numpy()
        _, values, vectors = randomized_svd(centred, n_components=n, random_state=seed)
        axes[:n] = torch.from_numpy(np.ascontiguousarray(vectors)).to(sample.device)
        deviations[:n] = torch.from_numpy(values / math.sqrt(len(sample))).to(sample.device)
    return mean, axes, deviations
