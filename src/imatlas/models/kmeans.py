"""k-means on the shared nearest-neighbor search.

Lloyd, S. (1982), "Least squares quantization in PCM", IEEE Transactions on Information Theory 28(2).
Arthur, D. and Vassilvitskii, S. (2007), "k-means++: the advantages of careful seeding", SODA.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils.validation import _check_sample_weight

from imatlas.errors import InputError
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.learned import COUNT, VECTORS, Array, State, Value
from imatlas.models.parts.lloyd import Search, first_centers, lloyd, moved_centers
from imatlas.models.parts.rows import Rows, checked_rows, principal_axes
from imatlas.neighbors import (
    all_distances,
    as_tensor,
    nearest,
    nearest_index,
    nearest_index_by_projection,
    paired_distances,
)
from imatlas.system.threads import sharing_cores
from imatlas.training.devices import pick_device

N_COMPONENTS = 64
"""Principal components in which rows of many features are grouped before the last iterations."""

N_PROJECTED = 96
"""Principal components in which the exact search looks first; rows of twice as many features have many."""

SAMPLE = 4096
"""Rows from which principal axes are taken; fewer are grouped as they are."""

WHOLE = 2
"""Iterations at the end that look at all features."""


@estimator
class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Estimator):
    """Group rows around `n_clusters` centers so that the squared distances to them are small (Lloyd's iterations).

    One iteration costs one float32 matrix product, O(n_samples · n_clusters · n_features); memory besides the input
    stays under some 64 MB. Rows of 192 features or more are first grouped in their 64 leading principal components (97
    more numbers a row); the last iterations, at least 2 of `max_iter`, and the labels are exact in all. The same seed
    gives the same result bit for bit on one machine and thread count.

    Attributes
    ----------
    cluster_centers_ : ndarray (n_clusters, n_features) float32
    labels_ : ndarray (n_samples,) int64
        The cluster of each row given to `fit`, exact for the final centers.
    inertia_ : float
        Sum of squared distances to the nearest center, times the weights.
    n_iter_ : int
        Iterations of the run that was kept.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 0], [0, 1], [9, 9], [9, 8]])
    >>> KMeans(n_clusters=2).fit(X).labels_.tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    True
    """

    n_clusters: Annotated[int, Field(ge=1, description="number of clusters")] = 8
    init: Annotated[Literal["k-means++", "random"], Field(description="how the first centers are chosen")] = "k-means++"
    n_init: Annotated[int, Field(ge=1, description="runs from different starts; the best is kept")] = 1
    max_iter: Annotated[int, Field(ge=1, description="iterations of one run at most")] = 300
    tol: Annotated[float, Field(ge=0, description="stop when centers move less than this, in mean variances")] = 1e-4
    device: Annotated[str, Field(description="where to compute: 'cpu', 'cuda' …, or 'auto'")] = "cpu"
    _state: ClassVar[State] = {
        **VECTORS,
        "cluster_centers_": Array("float32", "n_centers", "n_features_in_"),
        "labels_": Array("int64", "n_samples", low=0, below="n_centers"),
        "inertia_": Value(float),
        "n_iter_": Value(COUNT),
    }
    random_state: Seed = 0

    @sharing_cores()
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KMeans:
        """Find the centers.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
        y : ignored
        sample_weight : array-like (n_samples,), optional

        Raises
        ------
        ParameterError, InputError
            If a parameter is wrong, or there are fewer rows than clusters; also for NaN and infinite values.
        """
        self._check_parameters()
        X = checked_rows(self, X)
        if len(X) < self.n_clusters:
            raise InputError(f"n_samples={len(X)} should be at least n_clusters={self.n_clusters}; ask for fewer.")
        weight = _check_sample_weight(sample_weight, X, dtype=np.float32, ensure_non_negative=True)
        rows, weights = as_tensor(X, self._device()), as_tensor(weight, self._device())
        generator = torch.Generator().manual_seed(self._seed())
        some = rows[:: max(1, len(rows) // 16384)]
        tolerance = self.tol * float(some.var(dim=0, correction=0).mean()) if self.tol > 0 else 0.0
        search: Search = functools.partial(nearest_index, rows)
        few = rows
        if rows.shape[1] >= 2 * N_PROJECTED and len(rows) >= SAMPLE:
            plane = principal_axes(Rows(rows, weights=weights), N_PROJECTED, SAMPLE, generator, self._seed())
            projections = plane.projections(rows)
            few = projections[:, :N_COMPONENTS]
            search = lambda centers: nearest_index_by_projection(rows, centers, projections, plane.projections(centers))  # noqa: E731
        best: tuple[float, torch.Tensor, torch.Tensor, int] | None = None
        for _ in range(self.n_init):
            start = first_centers(few, weights, self.n_clusters, self.init, generator)
            n_few = 0
            if few is not rows:
                rounds = max(0, self.max_iter - WHOLE)
                start, n_few = lloyd(few, weights, start, rounds, tolerance, functools.partial(nearest_index, few))
                start = moved_centers(rows, weights, nearest_index(few, start), plane.lift(start))
            centers, n_iter = lloyd(rows, weights, start, self.max_iter - n_few, tolerance, search)
            labels = search(centers)
            squared = paired_distances(rows, centers, labels)
            inertia = float((squared.double() * weights).sum())
            if best is None or inertia < best[0]:
                best = (inertia, centers, labels, n_few + n_iter)
        assert best is not None
        self.inertia_, self.n_iter_ = best[0], best[3]
        self.cluster_centers_, self.labels_ = best[1].cpu().numpy(), best[2].cpu().numpy()
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Find the centers and return the cluster of each row (n_samples,)."""
        return self.fit(X, y, sample_weight=sample_weight).labels_

    def predict(self, X: Any) -> np.ndarray:
        """Return the cluster of each row (n_samples,) int64."""
        return nearest_index(self._rows(X), self._centers()).cpu().numpy()

    def transform(self, X: Any) -> np.ndarray:
        """Return the Euclidean distance of each row to each center (n_samples, n_clusters) float32."""
        return all_distances(self._rows(X), self._centers()).cpu().numpy()

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return minus the inertia of `X`: higher is better."""
        rows = self._rows(X)
        weight = _check_sample_weight(sample_weight, rows.cpu().numpy(), dtype=np.float64)
        _, squared = nearest(rows, self._centers())
        return -float(squared.double().cpu().numpy() @ weight)

    def _rows(self, X: Any) -> torch.Tensor:
        self._check_fitted()
        return as_tensor(checked_rows(self, X, reset=False), self._device())

    def _centers(self) -> torch.Tensor:
        return as_tensor(self.cluster_centers_, self._device())

    def _device(self) -> torch.device:
        return pick_device(self.device)

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
