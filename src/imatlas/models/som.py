"""Self-organizing map: a lattice of prototypes on which neighbors are similar, learned by the batch algorithm.

Kohonen, T. (2001), "Self-Organizing Maps", 3rd edition, Springer, §3.6. The prototypes m_i of all cells i form the
codebook. One epoch assigns every row x to its best matching unit b(x), the cell with the nearest prototype, and moves
each prototype to the mean of all rows, weighted by the neighborhood h between its cell and theirs (§3.6.1)::

    m_i = Σ_x h(i, b(x)) x / Σ_x h(i, b(x)),    h(i, j) = exp(-|r_i - r_j|² / (2 sigma²))

with r_i the position of cell i on the lattice. Sums are taken per cell first and then spread by h, so an epoch costs
the search for best matching units, O(rows · cells · features). Sigma shrinks from a part of the map to less than a
cell: a wide neighborhood unfolds the map, a narrow one fits the data. `SOM.fit` does this in three phases:

1. Sigma shrinks geometrically (`shrink`), on a coarse lattice and few rows while it is large.
2. Refinement (`refine`): epochs at a fixed small sigma on a part of the rows.
3. One last epoch at the final sigma over all rows.

With many features, phases 1 and 2 run on the leading principal components. Missing values (NaN) count in no distance
and in no mean (Samad & Harp 1992, "Self-organization with partial data"). With `metric="cosine"` rows and prototypes
lie on the unit sphere.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import _check_sample_weight
from torch import Tensor

from imatlas.errors import InputError, ParameterError
from imatlas.lattice.geometry import lattice_positions, neighbor_table
from imatlas.lattice.lattice import Lattice
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.learned_attributes import COUNT, FINITE, SIDE, VECTORS, Array, State, Value
from imatlas.models.parts.batch_som import (
    FINAL_SIGMAS,
    N_SHEET_AXES,
    REFINEMENT_ROWS_PER_CELL,
    ROWS_PER_CELL,
    SHRINKING,
    batch_update,
    initial_codebook,
    lattice_shape,
    refine,
    refine_while_ordered,
    schedule,
    shrink,
    widened,
)
from imatlas.models.parts.rows import (
    N_PROJECTED,
    PrincipalAxes,
    Rows,
    checked_rows,
    is_worth_projecting,
    principal_axes,
    scale_of,
)
from imatlas.neighbors import all_distances, as_tensor, nearest, paired_distances
from imatlas.system.threads import sharing_cores
from imatlas.system.workers import Workers
from imatlas.training.devices import pick_device

N_COMPONENTS = 48
"""Leading principal components that rows of many features are searched in until the last epoch."""

ONLINE_ROWS_PER_CELL = 150
"""Rows per cell after which sigma of `partial_fit` has shrunk."""


@estimator
class SOM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Self-organizing map: a lattice of prototypes on which neighboring cells hold similar rows.

    A cell has the flat index row · cols + column. On a hexagonal lattice odd rows are shifted right by half a cell; on
    a torus opposite edges are adjacent. NaN is a missing value; infinite values are refused. A row without any value is
    not learned from, lies in cell -1 and has the distance NaN to every cell. The same seed gives the same map bit for
    bit on one machine and thread count.

    Attributes
    ----------
    codebook_ : ndarray (n_cells, n_features) float32
        The prototypes, in row-major order of the lattice.
    rows_, cols_ : int
        The sides of the lattice, as given or chosen.
    cells_ : ndarray (n_samples, 2) int64
        (row, column) of the best matching unit of each row given to `fit`; (-1, -1) for rows without any value.
    schedule_ : list of tuple
        (sigma, number of rows) of each epoch.
    sums_ : ndarray (n_cells, n_features + 1 or 2 n_features) float32
        The sum of the rows of each cell, followed by their weight (per feature once values are missing), from which
        `partial_fit` continues.
    n_seen_ : int
        Rows learned from by `fit` and `partial_fit`.

    Notes
    -----
    Where `rows` or `cols` is None the size follows the data: about 5 √n_samples cells (Vesanto & Alhoniemi 2000), with
    at least 12 rows per cell unless that leaves fewer than 30 cells, and at most 1,600 cells; the ratio of the sides is
    that of the standard deviations along the two leading principal axes, at most 1.6 : 1.

    Where `final_sigma` is None it is the smallest of `FINAL_SIGMAS` at which the cross-validated topographic error
    (five folds of at most 4,000 rows) plus one standard error stays below 0.08.

    Memory besides the input: about 64 MB, and 97 numbers per row with 192 features or more. Rows with missing values
    and the cosine metric are searched in all features.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).random((200, 3))
    >>> som = SOM(rows=5, cols=6).fit(X)
    >>> som.codebook_.shape, som.predict(X).shape
    ((30, 3), (200,))
    """

    rows: Annotated[int | None, Field(ge=1, description="rows of the lattice; None: chosen from the data")] = None
    cols: Annotated[int | None, Field(ge=1, description="columns of the lattice; None: chosen from the data")] = None
    topology: Annotated[Literal["rectangular", "hexagonal"], Field(description="8 or 6 neighbors per cell")] = (
        "rectangular"
    )
    toroidal: Annotated[bool, Field(description="opposite edges of the map are adjacent")] = False
    metric: Annotated[
        Literal["euclidean", "cosine"], Field(description="distance; 'cosine' compares directions only")
    ] = "euclidean"
    init: Annotated[
        Literal["pca", "sample", "random"],
        Field(description="initial codebook: a sheet along two principal axes, rows of the data, or Gaussian noise"),
    ] = "pca"
    n_epochs: Annotated[int, Field(ge=1, description="number of epochs, most of them over a part of the rows")] = 24
    sigma: Annotated[
        float | None, Field(gt=0, description="first sigma; None: the longer side, a fifth of it with init='pca'")
    ] = None
    final_sigma: Annotated[
        float | None,
        Field(gt=0, description="last sigma: smaller fits closer, larger orders better; None: chosen from the data"),
    ] = None
    device: Annotated[str, Field(description="where to compute: 'cpu', 'cuda' …, or 'auto'")] = "cpu"
    random_state: Seed = 0
    _state: ClassVar[State] = {
        **VECTORS,
        "rows_": Value(SIDE),
        "cols_": Value(SIDE),
        "n_seen_": Value(COUNT),
        "schedule_": Value(list[tuple[FINITE, COUNT]]),
        "codebook_": Array("float32", "rows_*cols_", "n_features_in_"),
        "sums_": Array("float32", "rows_*cols_", "n_features_in_+1|2*n_features_in_"),
        "cells_": Array("int64", "n_samples", 2, low=-1, optional=True),
    }

    @sharing_cores()
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, workers: Workers | None = None) -> SOM:
        """Learn the map.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
            NaN is a missing value.
        y : ignored
        sample_weight : array-like (n_samples,), optional
            Weight of each row in the means; rows of weight 0 are not learned from.
        workers : imatlas.system.workers.Workers, optional
            Workers of a cluster, each of which searches and adds up a part of the rows where all of them are used.

        Raises
        ------
        ParameterError, ValueError
            If a parameter is invalid, or `X` holds infinite values.
        InputError
            If there is no row to learn from.
        """
        self._check_parameters()
        all_rows = self._checked(X, reset=True)
        rows = self._training_rows(all_rows, sample_weight)
        generator = torch.Generator().manual_seed(self._seed())
        lattice, axes = self._lattice_for(rows, generator)
        order = torch.randperm(len(rows), generator=generator).to(rows.values.device)
        is_projected = len(axes.axes) > N_SHEET_AXES
        if is_projected:
            all_rows = all_rows.along(axes)
            rows = self._training_rows(all_rows, sample_weight)
            components = rows.leading(N_COMPONENTS)
            axes_of_components = axes.of_coordinates(N_COMPONENTS)
            codebook, sigma = self._learn(components, lattice, axes_of_components, order, generator)
            cells, codebook = components.spread(workers).cells(codebook), axes.reconstruct(codebook)
        else:
            codebook, sigma = self._learn(rows, lattice, axes, order, generator)
        # The last epoch, over all rows and features.
        is_all, rows = rows is all_rows, rows.spread(workers)
        if not is_projected:
            cells = rows.cells(codebook)
        sums = rows.sums(cells, len(lattice))
        self._store(lattice, batch_update(sums, codebook, lattice, sigma, self._is_spherical), sums, len(rows))
        cells = (rows if is_all else all_rows).cells(self._codebook())
        self.cells_ = np.stack(np.divmod(cells.cpu().numpy(), lattice.cols), axis=1)
        self.cells_[self.cells_[:, 0] < 0] = -1
        return self

    def _learn(
        self, rows: Rows, lattice: Lattice, axes: PrincipalAxes, order: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, float]:
        """All epochs but the last: the codebook (n_cells, n_features) from which it starts, and its sigma."""
        n_shrinking = round(SHRINKING * self.n_epochs)
        final = self.final_sigma or FINAL_SIGMAS[0]
        self.schedule_: list[tuple[float, int]] = schedule(
            self.n_epochs, self._first_sigma(lattice), final, len(rows), len(lattice)
        )
        shrinking, refining = self.schedule_[:n_shrinking], self.schedule_[n_shrinking:-1]
        initial = initial_codebook(self.init, rows, axes, generator)
        codebook = shrink(rows, lattice, initial, shrinking, order, self._is_spherical)
        part = rows.take(order[: REFINEMENT_ROWS_PER_CELL * len(lattice)].sort().values)
        if self.final_sigma is None:
            codebook, sigmas = refine_while_ordered(part, codebook, lattice, self._is_spherical)
            refining = [(sigma, len(part)) for sigma in sigmas[:-1]]
            self.schedule_ = [*shrinking, *refining, (sigmas[-1], len(rows))]
            return codebook, sigmas[-1]
        codebook = refine(part, codebook, lattice, [sigma for sigma, _ in refining], self._is_spherical)
        return codebook, final

    @sharing_cores()
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SOM:
        """Continue learning from more rows, a chunk at a time.

        Without a preceding `fit` the first rows initialize the map, and sigma shrinks geometrically over the first 150
        rows per cell. After `fit` the final sigma is kept. Sums of earlier rows decay, so that a prototype is the mean
        of about the last half of all rows, but of at least 15 per cell.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
        y : ignored
        sample_weight : array-like (n_samples,), optional

        Raises
        ------
        ParameterError, ValueError, InputError
            As `fit`; also if the number of features differs from earlier rows.
        """
        self._check_parameters()
        is_first = not hasattr(self, "codebook_")
        rows = self._training_rows(self._checked(X, reset=is_first), sample_weight)
        if is_first:
            self._initialize(rows)
        lattice, n_seen = self._lattice(), self.n_seen_
        codebook, sums = self._codebook(), as_tensor(self.sums_, self._device())
        n_features = codebook.shape[1]
        sums = torch.cat([sums[:, :n_features] / self._scale, sums[:, n_features:]], dim=1)
        chunk = max(256, len(lattice))
        for index in torch.arange(len(rows), device=codebook.device).split(chunk):
            part = rows.take(index)
            n_seen += len(part)
            new = part.sums(part.cells(codebook), len(lattice))
            width = max(sums.shape[1], new.shape[1])
            window = max(ROWS_PER_CELL * len(lattice), n_seen / 2)
            sums = widened(sums, width) * math.exp(-len(part) / window) + widened(new, width)
            codebook = batch_update(sums, codebook, lattice, self._online_sigma(lattice, n_seen), self._is_spherical)
        self._store(lattice, codebook, sums, n_seen)
        return self

    def _initialize(self, rows: Rows) -> None:
        """Set up the map for `partial_fit` from the first rows."""
        generator = torch.Generator().manual_seed(self._seed())
        lattice, axes = self._lattice_for(rows, generator)
        codebook = initial_codebook(self.init, rows, axes, generator)(lattice)
        # Noise, since equal rows would leave all prototypes equal.
        noise = torch.randn(codebook.shape, generator=generator).to(codebook.device)
        codebook = codebook + noise * (1e-3 * rows.values.nan_to_num().std(correction=0) + 1e-6)
        self.schedule_ = []
        self._store(lattice, codebook, codebook.new_zeros((len(lattice), codebook.shape[1] + 1)), 0)

    def _lattice_for(self, rows: Rows, generator: torch.Generator) -> tuple[Lattice, PrincipalAxes]:
        """The lattice, and the principal axes: 96 if rows are searched by projection, else 4."""
        is_projected = is_worth_projecting(rows.values) and not rows.missing and not self._is_spherical
        axes = principal_axes(rows, N_PROJECTED if is_projected else N_SHEET_AXES, generator, self._seed())
        shape = lattice_shape(len(rows), axes.deviations[:2], self.topology, self.rows, self.cols, self.toroidal)
        if self.toroidal and self.topology == "hexagonal" and shape[0] % 2:
            raise ParameterError(f"A hexagonal torus needs an even number of rows. Got rows={shape[0]} instead.")
        return Lattice(*shape, self.topology, self.toroidal, rows.values.device), axes

    def _first_sigma(self, lattice: Lattice) -> float:
        return self.sigma or max(lattice.rows, lattice.cols) / (5 if self.init == "pca" else 1)

    def _online_sigma(self, lattice: Lattice, n_seen: int) -> float:
        """Sigma of `partial_fit` after `n_seen` rows."""
        final = self.schedule_[-1][0] if self.schedule_ else self.final_sigma or FINAL_SIGMAS[0]
        remaining = 0.0 if self.schedule_ else max(0.0, 1 - n_seen / (ONLINE_ROWS_PER_CELL * len(lattice)))
        return final * max(1.0, self._first_sigma(lattice) / final) ** remaining

    def predict(self, X: Any) -> np.ndarray:
        """Return the best matching unit of each row: flat cell indices (n_samples,) int64; -1 for a row of NaN."""
        return self._rows(X).cells(self._codebook()).cpu().numpy()

    def transform(self, X: Any) -> np.ndarray:
        """Return the distance of each row to each prototype (n_samples, n_cells) float32.

        Euclidean over the known values, scaled up for the missing ones as by scikit-learn's `nan_euclidean_distances`;
        or 1 - cosine.
        """
        rows = self._rows(X)
        distances = all_distances(rows.values, self._codebook(), missing=rows.missing)
        return self._in_metric(distances.square_() if self._is_spherical else distances).cpu().numpy()

    def inverse_transform(self, cells: Any) -> np.ndarray:
        """Return the prototypes (n_samples, n_features) of cells.

        Parameters
        ----------
        cells : array-like (n_samples,) of int, or (n_samples, n_cells) of float
            Flat cell indices as from `predict` (-1 becomes a row of NaN), or weights of all cells as from
            `soft_cells`, which give weighted means of prototypes.

        Raises
        ------
        IndexError
            If a cell is not on the map.
        """
        self._check_fitted()
        cells = np.asarray(cells)
        if cells.ndim == 2:
            return (cells @ self.codebook_ / np.maximum(cells.sum(axis=1, keepdims=True), 1e-30)).astype(np.float32)
        cells = cells.astype(np.int64)
        if cells.size and cells.min() < -1:
            raise IndexError(f"A cell must be -1 or in the range 0 to {len(self.codebook_) - 1}. Got {cells.min()}.")
        prototypes = self.codebook_[cells]
        prototypes[cells == -1] = np.nan
        return prototypes

    def score_samples(self, X: Any) -> np.ndarray:
        """Return minus the distance of each row to its best matching unit (n_samples,): higher is more typical."""
        rows = self._rows(X)
        _, squared = nearest(rows.values, self._codebook(), missing=rows.missing)
        return -self._in_metric(squared if self._is_spherical else squared.sqrt_()).cpu().numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the quantization error, the mean distance of a row to its best matching unit.

        Higher is better, so `GridSearchCV` can compare maps of one size. Rows without any value are left out.
        """
        scores = self.score_samples(X).astype(np.float64)
        known = scores[~np.isnan(scores)]
        return float(known.mean()) if len(known) else math.nan

    def project(self, X: Any) -> np.ndarray:
        """Position of each row on the map, between its best matching unit and the adjacent cells.

        The position is the weighted mean of the positions of the best matching unit (weight 1) and the adjacent cells
        (weight exp(-2 gap / mean gap), where the gap is the difference of their squared distances from that of the best
        matching unit). On a torus a position may lie up to half a cell outside the sheet, toward the opposite edge.

        Returns
        -------
        ndarray (n_samples, 2) float64
            (x, y) in the units of `positions_`; NaN for a row of NaN.
        """
        rows, lattice = self._rows(X), self._lattice()
        best, adjacent, weights = self._adjacent_weights(rows)
        weights = weights.double()
        offsets = lattice.offsets(best[:, None], adjacent.clamp(min=0))
        shift = (weights[..., None] * offsets).sum(1) / (1 + weights.sum(1, keepdim=True))
        positions = lattice.positions[best] + shift
        positions[best < 0] = torch.nan
        return positions.cpu().numpy()

    def soft_cells(self, X: Any) -> np.ndarray:
        """Return the membership of each row in each cell (n_samples, n_cells) float32; rows add up to 1.

        Only the best matching unit and the adjacent cells have a share, with the weights of `project`.
        """
        best, adjacent, weights = self._adjacent_weights(self._rows(X))
        shares = torch.zeros((len(best), len(self.codebook_)), device=weights.device)
        shares.scatter_add_(1, adjacent.clamp(min=0), weights)
        shares[torch.arange(len(best)), best] += 1
        shares /= shares.sum(1, keepdim=True)
        shares[best < 0] = 0
        return shares.cpu().numpy()

    @property
    def positions_(self) -> np.ndarray:
        """Positions of the cells (n_cells, 2), x and y, one unit apart; rows of hexagons are √3/2 apart."""
        self._check_fitted()
        return lattice_positions(self.rows_, self.cols_, self.topology)

    def _adjacent_weights(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """The best matching unit of each row (n,), the adjacent cells (n, 8 or 6), -1 beyond an edge, their weights."""
        codebook = self._codebook()
        best, squared = nearest(rows.values, codebook, missing=rows.missing)
        table = neighbor_table(self.rows_, self.cols_, self.topology, self.toroidal)
        adjacent = torch.as_tensor(table, device=best.device)[best]
        gaps = torch.full(adjacent.shape, torch.inf, device=best.device)
        for j in range(adjacent.shape[1]):
            present = (adjacent[:, j] >= 0) & (best >= 0)
            others = paired_distances(rows.values[present], codebook, adjacent[present, j], missing=rows.missing)
            gaps[present, j] = (others - squared[present]).clamp_(min=0)
        finite = torch.isfinite(gaps)
        mean_gap = torch.where(finite, gaps, 0).sum(1) / finite.sum(1).clamp(min=1)
        return best, adjacent, torch.exp(-2 * gaps / mean_gap.clamp(min=1e-30)[:, None])

    def _checked(self, X: Any, *, reset: bool) -> Rows:
        """Rows in the units of the search: divided by `_scale`, or on the unit sphere.

        Raises
        ------
        ValueError
            If `X` is not a matrix of finite numbers and NaN, or has another number of features than before.
        """
        X = checked_rows(self, X, reset=reset, missing=True, any_scale=True)
        values = as_tensor(X, self._device())
        if reset:
            self._cached_scale = 1.0 if self._is_spherical else scale_of(values)
        scale = scale_of(values) if self._is_spherical else self._scale
        values = values if scale == 1 else values / scale
        rows = Rows(values, missing=any(bool(part.sum().isnan()) for part in values.split(8192)))
        return rows.on_the_sphere() if self._is_spherical else rows

    def _rows(self, X: Any) -> Rows:
        self._check_fitted()
        return self._checked(X, reset=False)

    def _training_rows(self, rows: Rows, sample_weight: Any) -> Rows:
        """The rows with at least one value and a weight above 0.

        Raises
        ------
        InputError
            If there is none.
        """
        keep = None
        if rows.missing:
            keep = rows.values.isnan().all(1).logical_not_()
        if sample_weight is not None:
            like = np.zeros((len(rows), 1), np.float32)
            weights = _check_sample_weight(sample_weight, like, dtype=np.float32, ensure_non_negative=True)
            weights = as_tensor(weights, rows.values.device)
            rows = replace(rows, weights=weights)
            keep = weights > 0 if keep is None else keep & (weights > 0)
        if keep is None or bool(keep.all()):
            return rows
        if not bool(keep.any()):
            raise InputError("There is no row to learn from: each is all NaN or has weight 0. Give at least one.")
        return rows.take(keep.nonzero()[:, 0])

    def _store(self, lattice: Lattice, codebook: Tensor, sums: Tensor, n_seen: int) -> None:
        self.rows_, self.cols_, self.n_seen_ = lattice.rows, lattice.cols, n_seen
        self.codebook_ = self._in_given_units(codebook).cpu().numpy()
        n_features = codebook.shape[1]
        self.sums_ = torch.cat([self._in_given_units(sums[:, :n_features]), sums[:, n_features:]], 1).cpu().numpy()

    @property
    def _scale(self) -> float:
        """What values are divided by in the search; see `scale_of`."""
        if "_cached_scale" not in vars(self):
            self._cached_scale = 1.0 if self._is_spherical else scale_of(as_tensor(self.codebook_))
        return self._cached_scale

    def _in_given_units(self, values: Tensor) -> Tensor:
        """Values in the units of the user's data, clipped to the range of float32."""
        top = torch.finfo(torch.float32).max
        return values if self._scale == 1 else (values.double() * self._scale).clamp_(-top, top).float()

    def _in_metric(self, distances: Tensor) -> Tensor:
        """1 - cosine from squared distances on the sphere; or Euclidean distances in the units of the user's data."""
        return distances / 2 if self._is_spherical else self._in_given_units(distances)

    @property
    def _is_spherical(self) -> bool:
        return self.metric == "cosine"

    def _codebook(self) -> Tensor:
        """The codebook in the units of the search."""
        codebook = as_tensor(self.codebook_, self._device())
        return codebook if self._scale == 1 else codebook / self._scale

    def _lattice(self) -> Lattice:
        return Lattice(self.rows_, self.cols_, self.topology, self.toroidal, self._device())

    def _device(self) -> torch.device:
        return pick_device(self.device)

    @property
    def _n_features_out(self) -> int:
        return len(self.codebook_)

    def _contradiction(self) -> str:
        if self.toroidal and self.topology == "hexagonal" and self.rows_ % 2:
            return f"'rows_' is {self.rows_}; a hexagonal torus has an even number"
        beyond = "cells_" in vars(self) and (self.cells_ >= (self.rows_, self.cols_)).any()
        return "'cells_' names cells that are not on the map" if beyond else ""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.allow_nan = True
        return tags
