"""k-means clustering.

Lloyd, S. (1982), "Least squares quantization in PCM", IEEE Transactions on Information Theory 28(2).
Arthur, D. and Vassilvitskii, S. (2007), "k-means++: the advantages of careful seeding", SODA.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils.validation import _check_sample_weight

from imatlas.errors import InputError
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.learned_attributes import COUNT, VECTORS, Array, State, Value
from imatlas.models.parts.lloyd import first_centers, lloyd, moved_centers
from imatlas.models.parts.rows import N_PROJECTED, Rows, checked_rows, is_worth_projecting, principal_axes
from imatlas.neighbors import (
    all_distances,
    as_tensor,
    nearest,
    nearest_index,
    paired_distances,
)
from imatlas.system.threads import sharing_cores
from imatlas.system.workers import Workers
from imatlas.training.devices import pick_device

N_COMPONENTS = 64
"""Leading principal components that rows of many features are clustered in before the last iterations."""

N_FULL = 2
"""Last iterations, in all features."""


@estimator
class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Estimator):
    """k-means clustering with Lloyd's algorithm.

    One iteration costs one float32 matrix product, O(n_samples · n_clusters · n_features); memory besides the input
    stays below about 64 MB. Rows of 192 features or more are first clustered in their 64 leading principal components
    (97 more numbers per row); at least the last 2 iterations of `max_iter` and the labels use all features. The same
    seed gives the same result bit for bit on one machine and thread count.

    Attributes
    ----------
    cluster_centers_ : ndarray (n_clusters, n_features) float32
    labels_ : ndarray (n_samples,) int64
        The cluster of each row given to `fit`, exact for the final centers.
    inertia_ : float
        Weighted sum of squared distances to the nearest center.
    n_iter_ : int
        Iterations of the best run.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 0], [0, 1], [9, 9], [9, 8]])
    >>> KMeans(n_clusters=2).fit(X).labels_.tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    True
    """

    n_clusters: Annotated[int, Field(ge=1, description="number of clusters")] = 8
    init: Annotated[Literal["k-means++", "random"], Field(description="initialization of the centers")] = "k-means++"
    n_init: Annotated[int, Field(ge=1, description="runs with different initial centers; the best is kept")] = 1
    max_iter: Annotated[int, Field(ge=1, description="maximum number of iterations of one run")] = 300
    tol: Annotated[
        float,
        Field(
            ge=0, description="stop when the squared shift of the centers is at most this share of the mean variance"
        ),
    ] = 1e-4
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
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, workers: Workers | None = None) -> KMeans:
        """Compute the centers.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
        y : ignored
        sample_weight : array-like (n_samples,), optional
        workers : imatlas.system.workers.Workers, optional
            Workers of a cluster, each of which searches and adds up a part of the rows.

        Raises
        ------
        ParameterError, InputError
            If a parameter is invalid, there are fewer rows than clusters, or values are not finite.
        """
        self._check_parameters()
        X = checked_rows(self, X)
        if len(X) < self.n_clusters:
            raise InputError(f"n_samples={len(X)} should be at least n_clusters={self.n_clusters}; ask for fewer.")
        weight = _check_sample_weight(sample_weight, X, dtype=np.float32, ensure_non_negative=True)
        weights = as_tensor(weight, self._device())
        rows = Rows(as_tensor(X, self._device()), weights=weights)
        generator = torch.Generator().manual_seed(self._seed())
        sample = rows.values[:: max(1, len(rows) // 16384)]
        tolerance = self.tol * float(sample.var(dim=0, correction=0).mean()) if self.tol > 0 else 0.0
        components = None
        if is_worth_projecting(rows.values):
            rows = rows.along(principal_axes(rows, N_PROJECTED, generator, self._seed()))
            components = rows.leading(N_COMPONENTS).spread(workers)
        rows = rows.spread(workers)
        best: tuple[float, torch.Tensor, torch.Tensor, int] | None = None
        for _ in range(self.n_init):
            centers, n_iter = self._learn(rows, components, tolerance, generator)
            labels = rows.cells(centers)
            squared = paired_distances(rows.values, centers, labels)
            inertia = float((squared.double() * weights).sum())
            if best is None or inertia < best[0]:
                best = (inertia, centers, labels, n_iter)
        assert best is not None
        self.inertia_, self.n_iter_ = best[0], best[3]
        self.cluster_centers_, self.labels_ = best[1].cpu().numpy(), best[2].cpu().numpy()
        return self

    def _learn(
        self, rows: Rows, components: Rows | None, tolerance: float, generator: torch.Generator
    ) -> tuple[torch.Tensor, int]:
        """Centers and number of iterations of one run; if there are leading components of the rows, first in these."""
        first = rows if components is None else components
        assert first.weights is not None
        centers = first_centers(first.values, first.weights, self.n_clusters, self.init, generator)
        n_projected = 0
        if components is not None:
            assert rows.axes is not None
            centers, n_projected = lloyd(components, centers, max(0, self.max_iter - N_FULL), tolerance)
            centers = moved_centers(rows, components.cells(centers), rows.axes.reconstruct(centers))
        centers, n_iter = lloyd(rows, centers, self.max_iter - n_projected, tolerance)
        return centers, n_projected + n_iter

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Compute the centers and return the cluster of each row (n_samples,)."""
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
