"""Self-organizing map: a lattice of prototypes on which neighbors are alike, as a scikit-learn estimator.

Kohonen, T. (2001), "Self-Organizing Maps", 3rd edition, Springer. The algorithm, equations and schedule are in
`batch_map.py`, the lattice in `lattice.py`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import _check_sample_weight
from torch import Tensor

from imatlas.errors import InputError, ParameterError
from imatlas.lattice.geometry import HEX_ROW, Topology, lattice_positions, neighbor_table
from imatlas.lattice.lattice import Lattice
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.learned import COUNT, FINITE, SIDE, VECTORS, Array, State, Value
from imatlas.models.parts.batch_som import (
    FALLING,
    LAST_RADII,
    RESTING_ROWS_PER_CELL,
    ROWS_PER_CELL,
    Start,
    close,
    fall,
    rest,
    schedule,
    update,
)
from imatlas.models.parts.rows import Plane, Rows, checked_rows, principal_axes, scale_of
from imatlas.neighbors import all_distances, as_tensor, nearest, nearest_index_by_projection, paired_distances
from imatlas.system.threads import sharing_cores
from imatlas.training.devices import pick_device

N_COMPONENTS = 48
"""Principal components in which rows of many features are searched while the map learns. On Fashion-MNIST (784 pixels,
20 x 20 cells) 32 gave the errors 4.27 / .066, 64 4.26 / .069 and all pixels 4.25 / .070."""

N_PROJECTED = 96
"""Principal components in which the last, exact search looks first; rows of twice as many features have many."""

SAMPLE = 4096
"""Rows from which principal axes are taken; fewer are not searched in them."""

AXES = 4
"""Principal axes that the first prototypes are laid along: two by a sheet, four by a torus."""

ONLINE_ROWS_PER_CELL = 150
"""Rows a cell after which the radius of `partial_fit` has fallen."""


@estimator
class SOM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Learn a lattice of prototypes on which neighboring cells hold similar rows (batch map).

    A cell is addressed by its flat index, row · cols + column. On a hexagonal lattice odd rows are shifted right by
    half a cell; on a torus opposite edges touch. NaN is a value that is not known; infinite values are refused. A row
    of nothing but NaN is learned from by no cell, lies in cell -1 and has the distance NaN to every cell. The same
    seed gives the same map bit for bit on one machine and thread count.

    Attributes
    ----------
    codebook_ : ndarray (n_cells, n_features) float32
        The prototypes, in row-major order of the lattice.
    rows_, cols_ : int
        The sides of the lattice, as given or chosen.
    cells_ : ndarray (n_samples, 2) int64
        (row, column) of each row given to `fit`, as `predict` finds it; (-1, -1) where nothing is known.
    schedule_ : list of tuple
        (sigma, rows seen) of each epoch.
    sums_ : ndarray (n_cells, n_features + 1 or 2 n_features) float32
        The sum of the rows of each cell and beside it their weight (for each feature once values are missing): what
        `partial_fit` goes on from.
    n_seen_ : int
        Rows learned from by `partial_fit`, and before it by `fit`.

    Notes
    -----
    Where `rows` or `cols` is None the size follows the data: about 5 √n_samples cells (Vesanto & Alhoniemi 2000), but
    at least 12 rows a cell unless that leaves fewer than 30 cells, and at most 1,600 cells; the sides of the sheet in
    the ratio of the deviations along the two leading principal axes, at most 1.6 : 1.

    Where `final_sigma` is None it is the narrowest of `LAST_RADII` at which the topographic error of rows left out
    of the closing epoch (five folds of at most 4,000 rows), plus one standard error, stays under 0.08: data of few
    dimensions bear a closer fit than data of many, and many rows a closer one than few.

    Memory besides the input: some 64 MB, and 97 numbers a row where there are 192 features or more. NaN and the
    cosine are searched in all features, at the cost of as many.

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
    topology: Annotated[Literal["rectangular", "hexagonal"], Field(description="8 or 6 neighbors for a cell")] = (
        "rectangular"
    )
    toroidal: Annotated[bool, Field(description="opposite edges of the map touch")] = False
    metric: Annotated[
        Literal["euclidean", "cosine"], Field(description="distance; 'cosine' looks at directions alone")
    ] = "euclidean"
    init: Annotated[
        Literal["pca", "sample", "random"],
        Field(description="first prototypes: a sheet along two principal axes, rows of the data, or Gaussian noise"),
    ] = "pca"
    n_epochs: Annotated[int, Field(ge=1, description="passes over the data, most of them over a part of it")] = 24
    sigma: Annotated[
        float | None, Field(gt=0, description="first radius; None: the longer side, a fifth of it from init='pca'")
    ] = None
    final_sigma: Annotated[
        float | None,
        Field(gt=0, description="last radius: smaller fits closer, larger orders better; None: by the data"),
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
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SOM:
        """Learn the map.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
            NaN is a value that is not known.
        y : ignored
        sample_weight : array-like (n_samples,), optional
            How much each row counts in the means; rows of weight 0 are not learned from.

        Raises
        ------
        ParameterError, ValueError
            If a parameter is wrong, or `X` holds infinite values.
        InputError
            If there is no row to learn from.
        """
        self._check_parameters()
        whole = self._checked(X, reset=True)
        rows = self._to_learn_from(whole, sample_weight)
        generator = torch.Generator().manual_seed(self._seed())
        lattice, plane = self._lattice_for(rows, generator)
        order = torch.randperm(len(rows), generator=generator).to(rows.values.device)
        if len(plane.axes) > AXES:
            projections = plane.projections(whole.values)
            thrown = self._to_learn_from(Rows(projections[:, :N_COMPONENTS]), sample_weight)
            codebook, last = self._learn(thrown, lattice, plane.of_itself(N_COMPONENTS), order, generator)
            cells, codebook = thrown.cells(codebook), plane.lift(codebook)
        else:
            codebook, last = self._learn(rows, lattice, plane, order, generator)
            cells = rows.cells(codebook)
        sums = rows.sums(cells, len(lattice))
        self._keep(lattice, update(sums, codebook, lattice, last, self._unit), sums, len(rows))
        codes = self._codes()
        if len(plane.axes) > AXES:
            cells = nearest_index_by_projection(whole.values, codes, projections, plane.projections(codes))
        else:
            cells = whole.cells(codes)
        self.cells_ = np.stack(np.divmod(cells.cpu().numpy(), lattice.cols), axis=1)
        self.cells_[self.cells_[:, 0] < 0] = -1
        return self

    @sharing_cores()
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SOM:
        """Learn from more rows, a chunk at a time; nothing is learned anew.

        Before any `fit` the first rows lay out the map, and the radius falls geometrically while the first 150 rows a
        cell come in. After `fit` it goes on at the last radius. Sums of earlier rows fade so that a prototype is the
        mean of about the last half of all rows, but at least of 15 a cell.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
        y : ignored
        sample_weight : array-like (n_samples,), optional

        Raises
        ------
        ParameterError, ValueError, InputError
            As `fit`; also where the number of features differs from earlier rows.
        """
        self._check_parameters()
        begun = hasattr(self, "codebook_")
        rows = self._to_learn_from(self._checked(X, reset=not begun), sample_weight)
        if not begun:
            self._begin(rows)
        lattice, n_seen = self._lattice(), self.n_seen_
        codebook, sums = self._codes(), as_tensor(self.sums_, self._device())
        n_features = codebook.shape[1]
        sums = torch.cat([sums[:, :n_features] / self._scale, sums[:, n_features:]], dim=1)
        step = max(256, len(lattice))
        for index in torch.arange(len(rows), device=codebook.device).split(step):
            part = rows.take(index)
            n_seen += len(part)
            new = part.sums(part.cells(codebook), len(lattice))
            width = max(sums.shape[1], new.shape[1])
            window = max(ROWS_PER_CELL * len(lattice), n_seen / 2)
            sums = _widened(sums, width) * math.exp(-len(part) / window) + _widened(new, width)
            codebook = update(sums, codebook, lattice, self._online_sigma(lattice, n_seen), self._unit)
        self._keep(lattice, codebook, sums, n_seen)
        return self

    def _begin(self, rows: Rows) -> None:
        """Lay out a map for `partial_fit` from the first rows."""
        generator = torch.Generator().manual_seed(self._seed())
        lattice, plane = self._lattice_for(rows, generator)
        first = self._start(rows, plane, generator)(lattice)
        # rows that are all alike would leave every prototype at one place for ever
        noise = torch.randn(first.shape, generator=generator).to(first.device)
        first = first + noise * (1e-3 * rows.values.nan_to_num().std(correction=0) + 1e-6)
        self.schedule_: list[tuple[float, int]] = []
        self._keep(lattice, first, first.new_zeros((len(lattice), first.shape[1] + 1)), 0)

    def predict(self, X: Any) -> np.ndarray:
        """Return the best matching unit of each row: flat cell indices (n_samples,) int64; -1 for a row of NaN."""
        return self._rows(X).cells(self._codes()).cpu().numpy()

    def transform(self, X: Any) -> np.ndarray:
        """Return the distance of each row to each prototype (n_samples, n_cells) float32.

        Euclidean over the known values, scaled up for the missing ones as by scikit-learn's `nan_euclidean_distances`;
        or 1 - cosine.
        """
        rows = self._rows(X)
        distances = all_distances(rows.values, self._codes(), missing=rows.missing)
        return self._told(distances.square_() if self._unit else distances).cpu().numpy()

    def inverse_transform(self, cells: Any) -> np.ndarray:
        """Return the prototypes (n_samples, n_features) of cells.

        Parameters
        ----------
        cells : array-like (n_samples,) of int, or (n_samples, n_cells) of float
            Flat cell indices, as `predict` gives them (-1 becomes a row of NaN), or weights of all cells, as
            `soft_cells` gives them: then the weighted means of prototypes.

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
        """Return minus the distance of each row to its best matching unit (n_samples,): higher is more usual."""
        rows = self._rows(X)
        _, squared = nearest(rows.values, self._codes(), missing=rows.missing)
        return -self._told(squared if self._unit else squared.sqrt_()).cpu().numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the quantization error: the mean distance of a row to its best matching unit, below 0.

        Higher is better, so `GridSearchCV` can choose by it among maps of one size; more cells lie closer in any case.
        Rows of nothing but NaN are left out.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
        y : ignored
        """
        found = self.score_samples(X).astype(np.float64)
        known = found[~np.isnan(found)]
        return float(known.mean()) if len(known) else math.nan

    def project(self, X: Any) -> np.ndarray:
        """Place each row on the map between its best matching unit and the cells around it.

        The place is the mean of the positions of the best matching unit and its neighbors, with weights that fall
        with how much farther than the best one each prototype is: exp(-2 gap / mean gap). A row at its
        prototype lies near the middle of its cell, one between two prototypes near their border. On a torus a place
        may lie up to half a cell outside the sheet, towards the opposite edge.

        Returns
        -------
        ndarray (n_samples, 2) float64
            (x, y) in the units of `positions_`; NaN for a row of NaN.
        """
        rows, lattice = self._rows(X), self._lattice()
        best, table, weights = self._leanings(rows)
        weights = weights.double()
        offsets = lattice.offsets(best[:, None], table.clamp(min=0))
        moved = (weights[..., None] * offsets).sum(1) / (1 + weights.sum(1, keepdim=True))
        places = lattice.positions[best] + moved
        places[best < 0] = torch.nan
        return places.cpu().numpy()

    def soft_cells(self, X: Any) -> np.ndarray:
        """Return how much of each row lies in each cell (n_samples, n_cells) float32, rows adding up to 1.

        Only the best matching unit and the cells around it share a row, with the weights of `project`.
        """
        best, table, weights = self._leanings(self._rows(X))
        shares = torch.zeros((len(best), len(self.codebook_)), device=weights.device)
        shares.scatter_add_(1, table.clamp(min=0), weights)
        shares[torch.arange(len(best)), best] += 1
        shares /= shares.sum(1, keepdim=True)
        shares[best < 0] = 0
        return shares.cpu().numpy()

    @property
    def positions_(self) -> np.ndarray:
        """Where the cells lie: (n_cells, 2) x and y, one unit apart; rows of hexagons are √3/2 apart."""
        self._check_fitted()
        return lattice_positions(self.rows_, self.cols_, self.topology)

    # -- how it learns -------------------------------------------------------------------------------------------

    def _lattice_for(self, rows: Rows, generator: torch.Generator) -> tuple[Lattice, Plane]:
        """The lattice, and the principal axes: 96 where the rows are searched in them, else 4."""
        many = rows.values.shape[1] >= 2 * N_PROJECTED and len(rows) >= SAMPLE
        reduces = many and not rows.missing and not self._unit
        plane = principal_axes(rows, N_PROJECTED if reduces else AXES, SAMPLE, generator, self._seed())
        shape = lattice_shape(len(rows), plane.deviations[:2], self.topology, self.rows, self.cols, self.toroidal)
        if self.toroidal and self.topology == "hexagonal" and shape[0] % 2:
            raise ParameterError(f"A hexagonal torus needs an even number of rows. Got rows={shape[0]} instead.")
        return Lattice(*shape, self.topology, self.toroidal, rows.values.device), plane

    def _start(self, rows: Rows, plane: Plane, generator: torch.Generator) -> Start:
        """What gives the first prototypes of a lattice."""
        values = torch.where(rows.values.isnan(), plane.mean, rows.values) if rows.missing else rows.values

        def start(lattice: Lattice) -> Tensor:
            if self.init == "pca":
                return lattice.sheet(plane.mean, plane.axes[:AXES], plane.deviations[:AXES])
            if self.init == "sample":
                order = torch.randperm(len(values), generator=generator).to(values.device)
                return values[order.repeat(-(-len(lattice) // len(order)))[: len(lattice)]]
            noise = torch.randn((len(lattice), values.shape[1]), generator=generator).to(values.device)
            return plane.mean + noise * values.std(0, correction=0)

        return start

    def _learn(
        self, rows: Rows, lattice: Lattice, plane: Plane, order: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, float]:
        """All epochs but the last one: the prototypes (n_cells, n_features) it starts from, and its radius."""
        n_falling = round(FALLING * self.n_epochs)
        last = self.final_sigma or LAST_RADII[0]
        self.schedule_ = schedule(self.n_epochs, self._first_sigma(lattice), last, len(rows), len(lattice))
        falling, resting = self.schedule_[:n_falling], self.schedule_[n_falling:-1]
        codebook = fall(rows, lattice, self._start(rows, plane, generator), falling, order, self._unit)
        part = rows.take(order[: RESTING_ROWS_PER_CELL * len(lattice)].sort().values)
        if self.final_sigma is None:
            codebook, radii = close(part, codebook, lattice, self._unit)
            self.schedule_ = [*falling, *[(radius, len(part)) for radius in radii[:-1]], (radii[-1], len(rows))]
            return codebook, radii[-1]
        codebook = rest(part, codebook, lattice, [sigma for sigma, _ in resting], self._unit)
        return codebook, last

    def _first_sigma(self, lattice: Lattice) -> float:
        return self.sigma or max(lattice.rows, lattice.cols) / (5 if self.init == "pca" else 1)

    def _online_sigma(self, lattice: Lattice, n_seen: int) -> float:
        """The radius of `partial_fit` after `n_seen` rows."""
        last = self.schedule_[-1][0] if self.schedule_ else self.final_sigma or LAST_RADII[0]
        to_fall = 0.0 if self.schedule_ else max(0.0, 1 - n_seen / (ONLINE_ROWS_PER_CELL * len(lattice)))
        return last * max(1.0, self._first_sigma(lattice) / last) ** to_fall

    # -- what it is given and keeps ------------------------------------------------------------------------------

    def _checked(self, X: Any, *, reset: bool) -> Rows:
        """Rows as the metric sees them.

        Raises
        ------
        ValueError
            If `X` is not a matrix of finite numbers and NaN, or has another number of features than before.
        """
        X = checked_rows(self, X, reset=reset, missing=True, any_scale=True)
        values = as_tensor(X, self._device())
        if reset:
            self._units = 1.0 if self._unit else scale_of(values)
        scale = scale_of(values) if self._unit else self._scale
        values = values if scale == 1 else values / scale
        rows = Rows(values, missing=any(bool(part.sum().isnan()) for part in values.split(8192)))
        return rows.on_the_sphere() if self._unit else rows

    def _rows(self, X: Any) -> Rows:
        self._check_fitted()
        return self._checked(X, reset=False)

    def _to_learn_from(self, rows: Rows, sample_weight: Any) -> Rows:
        """The rows of which something is known and whose weight is above 0.

        Raises
        ------
        InputError
            If there is none.
        """
        keep = None
        if rows.missing:
            keep = rows.values.isnan().all(1).logical_not_()
        if sample_weight is not None:
            shape_alone = np.zeros((len(rows), 1), np.float32)
            weights = _check_sample_weight(sample_weight, shape_alone, dtype=np.float32, ensure_non_negative=True)
            weights = as_tensor(weights, rows.values.device)
            rows = Rows(rows.values, rows.missing, weights)
            keep = weights > 0 if keep is None else keep & (weights > 0)
        if keep is None or bool(keep.all()):
            return rows
        if not bool(keep.any()):
            raise InputError("There is no row to learn from: each is all NaN or has the weight 0; give at least one.")
        return rows.take(keep.nonzero()[:, 0])

    def _keep(self, lattice: Lattice, codebook: Tensor, sums: Tensor, n_seen: int) -> None:
        self.rows_, self.cols_, self.n_seen_ = lattice.rows, lattice.cols, n_seen
        self.codebook_ = self._enlarged(codebook).cpu().numpy()
        n_features = codebook.shape[1]
        self.sums_ = torch.cat([self._enlarged(sums[:, :n_features]), sums[:, n_features:]], 1).cpu().numpy()

    @property
    def _scale(self) -> float:
        """What values are divided by while they are compared; see `scale_of`."""
        if "_units" not in vars(self):
            self._units = 1.0 if self._unit else scale_of(as_tensor(self.codebook_))
        return self._units

    def _enlarged(self, values: Tensor) -> Tensor:
        """Values in the units that were given, within what float32 holds."""
        top = torch.finfo(torch.float32).max
        return values if self._scale == 1 else (values.double() * self._scale).clamp_(-top, top).float()

    def _leanings(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """The best cell of each row (n,), the cells around it (n, 8 or 6), -1 beyond an edge, and their weights."""
        codes = self._codes()
        best, squared = nearest(rows.values, codes, missing=rows.missing)
        around = neighbor_table(self.rows_, self.cols_, self.topology, self.toroidal)
        table = torch.as_tensor(around, device=best.device)[best]
        gaps = torch.full(table.shape, torch.inf, device=best.device)
        for j in range(table.shape[1]):
            present = (table[:, j] >= 0) & (best >= 0)
            there = paired_distances(rows.values[present], codes, table[present, j], missing=rows.missing)
            gaps[present, j] = (there - squared[present]).clamp_(min=0)
        finite = torch.isfinite(gaps)
        scale = torch.where(finite, gaps, 0).sum(1) / finite.sum(1).clamp(min=1)
        return best, table, torch.exp(-2 * gaps / scale.clamp(min=1e-30)[:, None])

    def _lattice(self) -> Lattice:
        return Lattice(self.rows_, self.cols_, self.topology, self.toroidal, self._device())

    def _told(self, distances: Tensor) -> Tensor:
        """1 - cosine from squared distances on the sphere; Euclidean distances in the units that were given."""
        return distances / 2 if self._unit else self._enlarged(distances)

    @property
    def _unit(self) -> bool:
        return self.metric == "cosine"

    def _codes(self) -> Tensor:
        codes = as_tensor(self.codebook_, self._device())
        return codes if self._scale == 1 else codes / self._scale

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


def lattice_shape(
    n_samples: int,
    deviations: Tensor,
    topology: Topology,
    rows: int | None = None,
    cols: int | None = None,
    toroidal: bool = False,
) -> tuple[int, int]:
    """The sides of the map, (rows, cols), where they are not given: see the notes of `SOM`."""
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
        short += short % 2  # a hexagonal torus closes only over an even number of rows
    return short, cols or max(1, round(n_cells / short))


def _widened(sums: Tensor, width: int) -> Tensor:
    """Sums of cells with a weight for each feature where `width` asks for it: the one weight of all, repeated."""
    n_features = width // 2
    return sums if sums.shape[1] == width else torch.cat([sums[:, :-1], sums[:, -1:].expand(-1, n_features)], dim=1)
