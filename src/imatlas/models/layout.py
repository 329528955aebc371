"""Two-dimensional layout of an embedding with stable positions: UMAP of a sample, a vote of neighbors for other rows.

McInnes, L., Healy, J. and Melville, J. (2018), "UMAP: uniform manifold approximation and projection". It starts from
the two leading principal components (Kobak, D. and Linderman, G. (2021), "Initialization is critical for preserving
global data structure in both t-SNE and UMAP", Nature Biotechnology).

A row that UMAP did not lay out is placed by its nearest neighbors: at the weighted medoid of their positions, averaged
with those of the neighbors around it. A plain mean would put a row between two islands into empty space. Positions are
a function of the stored rows only, so adding rows moves none.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from imatlas.errors import InputError
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.learned_attributes import VECTORS, Array, State, Value
from imatlas.models.parts.rows import checked_rows
from imatlas.models.parts.umap_graph import umap_layout, umap_rows
from imatlas.neighbors import all_alike, as_tensor, k_nearest
from imatlas.system.threads import sharing_cores

MAX_ROWS = 10_000
"""Maximum number of rows that UMAP lays out, which bounds its cost."""

MIN_ROWS = 60
"""Fewest rows for UMAP; fewer are laid out along their two principal components."""

N_VOTES = 10
"""Neighbors that decide the position of a row."""


@estimator
class Layout(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Two-dimensional layout of an embedding in which neighbors stay together.

    UMAP lays out at most 10,000 rows; the others, and new ones, are placed by their nearest neighbors among these. The
    same seed gives the same layout on one machine. Distances within an island mean more than those between islands.

    Attributes
    ----------
    references_ : ndarray (n_references, n_features) float32
        The rows that were laid out.
    positions_ : ndarray (n_references, 2) float32
        Their positions.
    by_umap_ : bool
        Whether UMAP laid them out, rather than principal components.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(40, 5))
    >>> Layout().fit_transform(X).shape
    (40, 2)
    """

    n_neighbors: Annotated[int, Field(ge=2, le=200, description="neighbors of each row in the UMAP graph")] = 15
    min_dist: Annotated[float, Field(ge=0, le=1, description="minimum distance between points of the layout")] = 0.1
    random_state: Seed = 0
    _state: ClassVar[State] = {
        **VECTORS,
        "by_umap_": Value(bool),
        "references_": Array("float32", "n_references", "n_features_in_"),
        "positions_": Array("float32", "n_references", 2),
    }

    @sharing_cores()
    def fit(self, X: Any, y: Any = None, *, seconds: float | None = None) -> Layout:
        """Lay out the rows.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
            An embedding in which similar items lie close together.
        y : ignored
        seconds : float, optional
            Time limit on one core: fewer rows are laid out by UMAP, or none.

        Raises
        ------
        ParameterError, InputError
            If a parameter is invalid, or values are not finite.
        """
        self._check_parameters()
        X = checked_rows(self, X)
        if len(X) < 2:
            raise InputError(f"A layout needs at least 2 rows. Got n_samples={len(X)}; add more.")
        seed = self._seed()
        n_max = MAX_ROWS if seconds is None else min(MAX_ROWS, umap_rows(seconds))
        self.by_umap_ = by_umap = min(len(X), n_max) >= MIN_ROWS and not all_alike(X)
        rows = np.sort(np.random.default_rng(seed).permutation(len(X))[: n_max if by_umap else MAX_ROWS])
        self.references_ = X[rows]
        self.positions_ = principal_plane(self.references_)
        if by_umap:
            self.positions_ = umap_layout(
                self.references_,
                n_neighbors=min(self.n_neighbors, len(rows) - 1),
                n_components=2,
                min_dist=self.min_dist,
                seed=seed,
                init=self.positions_,
            )
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the position of each row (n_samples, 2) float32; rows that were laid out keep theirs."""
        self._check_fitted()
        X = checked_rows(self, X, reset=False)
        k = min(N_VOTES, len(self.references_))
        near, squared = k_nearest(as_tensor(self.references_), as_tensor(X), k)
        return position_by_vote(self.positions_[near.numpy()], squared.sqrt().numpy())

    @property
    def _n_features_out(self) -> int:
        return 2

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def position_by_vote(positions: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The position that neighbors vote for.

    Parameters
    ----------
    positions : ndarray (n_rows, k, 2)
        Positions of the neighbors of each row.
    distances : ndarray (n_rows, k)
        Their distances in the embedding, ascending. A neighbor at distance 0 is the row itself, and decides alone.

    Returns
    -------
    ndarray (n_rows, 2) float32
    """
    nearest, mean = distances[:, :1], distances.mean(axis=1, keepdims=True)
    weights = np.exp(-(distances - nearest) / np.maximum(mean - nearest, 1e-12))
    same = distances == 0
    weights = np.where(same.any(axis=1, keepdims=True), same, weights)
    between = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=3)
    cost = (between * weights[:, None]).sum(axis=2) + np.where(weights > 0, 0.0, np.inf)
    medoid = cost.argmin(axis=1)[:, None, None]
    from_medoid = np.take_along_axis(between, medoid, axis=1)[:, 0]
    weights = weights * (from_medoid <= np.median(from_medoid, axis=1, keepdims=True))
    return ((positions * weights[:, :, None]).sum(axis=1) / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def principal_plane(X: np.ndarray) -> np.ndarray:
    """Coordinates (n_rows, 2) float32 on the two leading principal axes, scaled to standard deviation 10 on the first.

    Rows that are equal up to rounding all lie at 0.
    """
    if all_alike(X):
        return np.zeros((len(X), 2), np.float32)
    centered = X - X.mean(axis=0)
    covariance = (centered.T @ centered).astype(np.float64)
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    along = centered @ axes
    if along.shape[1] == 1:
        along = np.c_[along, np.zeros(len(X))]
    return (10 * along / max(float(along[:, 0].std()), 1e-12)).astype(np.float32)
