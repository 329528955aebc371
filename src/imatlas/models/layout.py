"""A picture of an embedding in the plane that old rows never leave: UMAP of some, a vote of neighbors for the others.

McInnes, L., Healy, J. and Melville, J. (2018), "UMAP: uniform manifold approximation and projection". It starts from
the two leading principal components, which keep the large picture and need no eigensolver (Kobak, D. and Linderman, G.
(2021), "Initialization is critical for preserving global data structure in both t-SNE and UMAP", Nature Biotechnology).

A row that UMAP has not seen is placed where its nearest neighbors lie: of their places, the one to which the others
are nearest (their weighted medoid), averaged with those of the neighbors that lie around it. A plain mean would put a
row that is between two islands into the empty sea. Places are a function of the saved rows alone, so a row has the same
place however many are added.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from imatlas.errors import InputError
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.learned import VECTORS, Array, State, Value
from imatlas.models.parts.rows import checked_rows
from imatlas.models.parts.umap_graph import umap_layout, umap_rows
from imatlas.neighbors import all_alike, as_tensor, k_nearest
from imatlas.system.threads import sharing_cores

MOST_ROWS = 10_000
"""Rows that UMAP lays out, a random sample where there are more: its cost is bounded."""

FEWEST_ROWS = 60
"""Rows below which neighborhoods of 15 say nothing; these are laid out along their two principal components."""

N_VOTES = 10
"""Neighbors that place a row."""


@estimator
class Layout(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Lay the rows of an embedding out in two dimensions so that neighbors stay together.

    One seed gives one layout on one machine. UMAP sees at most 10,000 rows; the others, and new ones, are placed by
    their nearest neighbors among these. Distances within an island mean more than those between islands.

    Attributes
    ----------
    references_ : ndarray (n_references, n_features) float32
        The rows that were laid out.
    positions_ : ndarray (n_references, 2) float32
        Where they lie.
    by_umap_ : bool
        Whether UMAP laid them out, rather than their two principal components.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(40, 5))
    >>> Layout().fit_transform(X).shape
    (40, 2)
    """

    n_neighbors: Annotated[int, Field(ge=2, le=200, description="neighbors that are kept together")] = 15
    min_dist: Annotated[float, Field(ge=0, le=1, description="how close points may lie in the picture")] = 0.1
    random_state: Seed = 0
    _state: ClassVar[State] = {
        **VECTORS,
        "by_umap_": Value(bool),
        "references_": Array("float32", "n_references", "n_features_in_"),
        "positions_": Array("float32", "n_references", 2),
    }

    @sharing_cores()
    def fit(self, X: Any, y: Any = None, *, seconds: float | None = None) -> Layout:
        """Lay rows out.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
            An embedding in which near means alike.
        y : ignored
        seconds : float, optional
            Lay out no more rows than are taken to fit in so much time on one core; two principal components where not
            even few do.

        Raises
        ------
        ParameterError, InputError
            If a parameter is wrong; for NaN and infinite values.
        """
        self._check_parameters()
        X = checked_rows(self, X)
        if len(X) < 2:
            raise InputError(f"A layout needs at least 2 rows. Got n_samples={len(X)}.")
        seed = self._seed()
        most = MOST_ROWS if seconds is None else min(MOST_ROWS, umap_rows(seconds))
        self.by_umap_ = by_umap = min(len(X), most) >= FEWEST_ROWS and not all_alike(X)
        rows = np.sort(np.random.default_rng(seed).permutation(len(X))[: most if by_umap else MOST_ROWS])
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
        """Return the place of each row (n_samples, 2) float32; one that was laid out keeps the place that it got."""
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


def position_by_vote(places: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The place that neighbors vote for.

    Parameters
    ----------
    places : ndarray (n_rows, k, 2)
        Where the neighbors of each row lie.
    distances : ndarray (n_rows, k)
        How far they are in the embedding, ascending. One at distance 0 is the row itself, and decides alone.

    Returns
    -------
    ndarray (n_rows, 2) float32
    """
    nearest, usual = distances[:, :1], distances.mean(axis=1, keepdims=True)
    weights = np.exp(-(distances - nearest) / np.maximum(usual - nearest, 1e-12))
    same = distances == 0
    weights = np.where(same.any(axis=1, keepdims=True), same, weights)
    apart = np.linalg.norm(places[:, :, None] - places[:, None], axis=3)
    medoid = (apart * weights[:, None]).sum(axis=2) + np.where(weights > 0, 0.0, np.inf)
    chosen = medoid.argmin(axis=1)[:, None, None]
    from_chosen = np.take_along_axis(apart, chosen, axis=1)[:, 0]
    around = from_chosen <= np.median(from_chosen, axis=1, keepdims=True)
    kept = weights * around
    return ((places * kept[:, :, None]).sum(axis=1) / kept.sum(axis=1, keepdims=True)).astype(np.float32)


def principal_plane(X: np.ndarray) -> np.ndarray:
    """Rows along their two leading principal components, the first of a deviation of 10 (n_rows, 2) float32."""
    if all_alike(X):  # what tells them apart is rounding
        return np.zeros((len(X), 2), np.float32)
    centered = X - X.mean(axis=0)
    covariance = (centered.T @ centered).astype(np.float64)
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    along = centered @ axes
    if along.shape[1] == 1:
        along = np.c_[along, np.zeros(len(X))]
    return (10 * along / max(float(along[:, 0].std()), 1e-12)).astype(np.float32)
