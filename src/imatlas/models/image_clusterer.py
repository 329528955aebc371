"""Clustering of an image embedding: k-means along discriminant axes, selected by modularity of the neighbor graph.

    1. k-means from many random starts, and from one that a UMAP layout proposes.
    2. Each is refined: discriminant axes of its clusters, k-means along them, and again until labels converge.
    3. Of the starts whose refinement has nearly the highest modularity, the one with the lowest inertia is kept.

McInnes, L., Healy, J. and Melville, J. (2018), "UMAP: uniform manifold approximation and projection". UMAP separates
clusters, but distorts distances, so its clusters are only a proposal.
Newman, M. and Girvan, M. (2004), "Finding and evaluating community structure in networks": modularity.
Ding, C. and Li, T. (2007), "Adaptive dimension reduction using discriminant analysis and k-means clustering", ICML: the
axes w maximize (w' B w) / (w' W w) with the covariances B between and W within the current clusters (equations 3 and
7), W shrunk as in Ledoit and Wolf (2004).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin

from imatlas import models
from imatlas.arguments import check_int
from imatlas.errors import InputError
from imatlas.metrics.clustering import modularity
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.learned_attributes import FINITE, SIDE, TEXT, VECTORS, Array, State, Value
from imatlas.models.parts.discriminant_axes import discriminant_axes, means_of
from imatlas.models.parts.lloyd import lloyd, moved_centers
from imatlas.models.parts.rows import Rows, checked_rows
from imatlas.models.parts.umap_graph import umap_layout, umap_seconds
from imatlas.models.parts.ward import ward_linkage
from imatlas.neighbors import all_alike, as_tensor, k_nearest, nearest_index
from imatlas.system.threads import sharing_cores
from imatlas.system.workers import Workers

PROPOSAL_ROWS = 4000
"""Number of rows that the number of clusters is chosen on by default, if there are as many."""

MAX_PROPOSAL_ROWS = 32_000
"""The same for a clustering with enough time. Of few rows the modularity is nearly as high for half as many clusters or
twice as many, so the number depends on the sample: 6 to 10 of 4,000, 12 to 16 of 32,000 of the same million images."""

PROPOSAL_ROWS_A_SECOND = 800
"""Rows on which the number can be chosen in a second. Measured: 1,000 on two cores."""

MAX_CLUSTERS = 100

TOLERANCE = 0.03
"""Relative difference from the highest modularity up to which clusterings count as equally good."""

MAX_ROWS = 5000
"""Maximum number of rows on which starts are computed and compared."""

LAYOUT_NEIGHBORS, LAYOUT_COMPONENTS = 10, 10
"""Neighbors and dimensions of the UMAP layout."""

MIN_LAYOUT_ROWS = 100
"""Fewest rows for a start from a UMAP layout."""

MIN_CLUSTER_SIZE = 5
"""Mean cluster size below which discriminant axes are not estimated."""

PROPOSAL_SHARE = 0.5
"""Share of the time limit for choosing the number of clusters."""

MIN_STARTS = 5
"""Random starts that are tried even without time left."""

MIN_ROWS = 20
"""Rows below which a single cluster is proposed."""

ROUNDS = 10
"""Maximum number of refinement rounds."""

N_REFERENCES = 8192
"""Maximum number of rows that are stored for confidences."""

N_VOTES = 15
"""Nearest rows that give the confidence of a label."""


@dataclass(frozen=True)
class Proposal:
    """A number of clusters, and the modularity of the clustering with each candidate number."""

    n_clusters: int
    candidates: list[int]
    modularities: list[float]

    @property
    def plausible(self) -> tuple[int, int]:
        """The lowest and highest number whose modularity is within 2 % of the highest."""
        near = [k for k, m in zip(self.candidates, self.modularities) if m >= 0.98 * max(self.modularities)]
        return min(near), max(near)


@estimator
class ImageClusterer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Estimator):
    """Clustering of the rows of an image embedding, with a given or chosen number of clusters.

    Clusters are numbered by size: cluster 0 is the largest. Time grows linearly with the number of rows. The same seed
    gives the same result on one machine and thread count.

    Attributes
    ----------
    labels_ : ndarray (n_samples,) int64
    confidence_ : ndarray (n_samples,) float32
        Share of the 15 nearest rows that are in the same cluster; see `confidence`.
    n_clusters_ : int
        The given or chosen number, or the number of distinct rows if that is smaller.
    cluster_centers_ : ndarray (n_clusters, n_features) float32
        The mean of the rows of each cluster.
    medoids_ : ndarray (n_clusters,) int64
        The most typical row of each cluster: the nearest to its center along `axes_`.
    axes_ : ndarray (n_features, n_axes) float32
        Discriminant axes, along which the clusters are separated.
    proposal_ : dict of lists, or None
        `candidates` and their `modularities`, if the number of clusters was chosen.
    start_ : {'random', 'layout'}
        The kind of start that led to the result.
    skipped_ : str
        Starts that there was no time for, in words.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.concatenate([np.zeros((30, 2)), np.ones((20, 2))]) + np.random.default_rng(0).normal(0, 0.1, (50, 2))
    >>> model = ImageClusterer().fit(X)
    >>> model.n_clusters_, np.bincount(model.labels_).tolist()
    (2, [30, 20])
    """

    n_clusters: Annotated[int | None, Field(ge=1, description="number of clusters; None: chosen by modularity")] = None
    n_init: Annotated[int, Field(ge=1, description="random starts of k-means")] = 30
    refine: Annotated[bool, Field(description="refine clusters along their discriminant axes")] = True
    random_state: Seed = 0
    _state: ClassVar[State] = {
        **VECTORS,
        "n_clusters_": Value(SIDE),
        "cluster_centers_": Array("float32", "n_clusters_", "n_features_in_"),
        "axes_": Array("float32", "n_features_in_", "n_axes"),
        "labels_": Array("int64", "n_samples", low=0, below="n_clusters_"),
        "confidence_": Array("float32", "n_samples", low=0, high=1),
        "medoids_": Array("int64", "n_clusters_", low=0, below="n_samples"),
        "references_": Array("float32", "n_references", "n_features_in_"),
        "reference_labels_": Array("int64", "n_references", low=0, below="n_clusters_"),
        "start_": Value(TEXT),
        "skipped_": Value(TEXT),
        "proposal_": Value(dict[TEXT, list[FINITE]], optional=True),
    }

    @sharing_cores()
    def fit(
        self, X: Any, y: Any = None, *, seconds: float | None = None, workers: Workers | None = None
    ) -> ImageClusterer:
        """Compute the clusters.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
            An embedding in which similar items lie close together.
        y : ignored
        seconds : float, optional
            Time limit: starts that do not fit are skipped, see `skipped_`. The result then depends on the clock.
        workers : imatlas.system.workers.Workers, optional
            Workers of a cluster, each of which searches and adds up a part of the rows where all of them are used.

        Raises
        ------
        ParameterError, InputError
            If a parameter is invalid, there are fewer rows than clusters, or values are not finite.
        """
        began = time.perf_counter()
        self._check_parameters()
        X = checked_rows(self, X)
        seed = self._seed()
        limit = None if seconds is None else PROPOSAL_SHARE * seconds
        proposal = None
        if self.n_clusters is None:
            proposal = propose_n_clusters(X, random_state=seed, seconds=limit, max_rows=_proposal_rows(limit))
        k = int(proposal.n_clusters if proposal else self.n_clusters or 1)
        if len(X) < k:
            raise InputError(f"n_samples={len(X)} should be at least n_clusters={k}; ask for fewer.")
        self.proposal_: dict[str, list[Any]] | None = None
        if proposal:
            self.proposal_ = {"candidates": proposal.candidates, "modularities": proposal.modularities}
        self.skipped_ = ""
        left = None if seconds is None else seconds - (time.perf_counter() - began)
        if all_alike(X):
            labels, self.axes_, self.start_ = np.zeros(len(X), np.int64), np.eye(X.shape[1], dtype=np.float32), "random"
        else:
            labels, self.axes_, self.start_ = self._best_clusters(X, k, seed, left, workers)
        distinct, labels = np.unique(labels, return_inverse=True)
        k = len(distinct)  # smaller than asked for if fewer rows are distinct
        labels = np.argsort(np.argsort(-np.bincount(labels, minlength=k), kind="stable"))[labels]
        self.labels_, self.n_clusters_ = labels, k
        self.cluster_centers_ = means_of(X, labels, k)
        self.medoids_ = nearest_index(self._along_axes(self.cluster_centers_), self._along_axes(X)).numpy()
        rows = np.sort(np.random.default_rng(seed).permutation(len(X))[:N_REFERENCES])
        self.references_, self.reference_labels_ = X[rows], labels[rows]
        self.confidence_ = self._agreement(X, labels)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the cluster of each row (n_samples,) int64: that of the nearest center along `axes_`."""
        return nearest_index(self._along_axes(self._rows(X)), self._along_axes(self.cluster_centers_)).numpy()

    def transform(self, X: Any) -> np.ndarray:
        """Return the embedding along the discriminant axes (n_samples, n_axes) float32."""
        return self._along_axes(self._rows(X)).numpy()

    def confidence(self, X: Any, *, groups: np.ndarray | None = None) -> np.ndarray:
        """Confidence in the cluster of each row: the share of the 15 nearest training rows that are in it.

        At most 8,192 training rows are stored for this. A training row does not count itself.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
        groups : ndarray (n_clusters,) of int, optional
            The group of each cluster, such as `coarse` returns; confidence in the group instead of the cluster.

        Returns
        -------
        ndarray (n_samples,) float32
            1 inside a cluster, about 0.5 on the border of two.
        """
        rows = self._rows(X)
        return self._agreement(rows, self.predict(rows), groups)

    def coarse(self, n_groups: int) -> np.ndarray:
        """Merge clusters into fewer groups (Ward 1963, weighted by size).

        Parameters
        ----------
        n_groups : int
            From 1 to the number of clusters. Groups are nested: those for a smaller number are unions of others.

        Returns
        -------
        ndarray (n_clusters,) int64
            The group of each cluster.
        """
        from scipy.cluster.hierarchy import fcluster

        self._check_fitted()
        n_groups = check_int(n_groups, "n_groups", type(self).__name__)
        if not 1 <= n_groups <= self.n_clusters_:
            raise InputError(f"There are {self.n_clusters_} clusters to merge. Got n_groups={n_groups}; ask for fewer.")
        if self.n_clusters_ == 1:
            return np.zeros(1, np.int64)
        merges = ward_linkage(
            self._along_axes(self.cluster_centers_).double().numpy(),
            np.bincount(self.labels_, minlength=self.n_clusters_),
        )
        groups = fcluster(merges, n_groups, "maxclust")
        return np.unique(groups, return_inverse=True)[1].astype(np.int64)

    def _best_clusters(
        self, X: np.ndarray, k: int, seed: int, seconds: float | None = None, workers: Workers | None = None
    ) -> tuple[np.ndarray, np.ndarray, str]:
        """Labels (n_samples,), their discriminant axes, and the kind of start that led there."""
        kmeans = partial(models.model_class("kmeans"), n_clusters=k)
        if not self.refine or k == 1 or len(X) < MIN_CLUSTER_SIZE * k:
            model = kmeans(n_init=self.n_init, random_state=seed).fit(X)
            return model.labels_, np.eye(X.shape[1], dtype=np.float32), "random"
        sample = X[np.random.default_rng(seed).permutation(len(X))[:MAX_ROWS]]
        starts, modularities = self._starts(sample, k, seed, seconds)
        good = np.flatnonzero(modularities >= modularities.max() - TOLERANCE * abs(modularities.max()))
        labels, kind = starts[min(good, key=lambda i: _inertia(sample, starts[i][0], k))]
        return *_refined(X, _lloyd_labels(X, means_of(sample, labels, k), workers), k, workers), kind

    def _starts(
        self, X: np.ndarray, k: int, seed: int, seconds: float | None
    ) -> tuple[list[tuple[np.ndarray, str]], np.ndarray]:
        """(labels, kind) of each start, and the modularity of each after refinement."""
        began = time.perf_counter()
        kmeans = partial(models.model_class("kmeans"), n_clusters=k)
        starts: list[tuple[np.ndarray, str]] = []
        modularities: list[float] = []
        neighbors = graph(X)
        skipped = []
        if len(X) >= MIN_LAYOUT_ROWS:
            if seconds is None or umap_seconds(len(X)) <= seconds:
                labels = kmeans(n_init=self.n_init, random_state=seed).fit(layout(X, seed)).labels_
                starts.append((_lloyd_labels(X, means_of(X, labels, k)), "layout"))
                modularities.append(modularity(neighbors, _refined(X, starts[0][0], k)[0]))
            else:
                skipped.append("the start from a UMAP layout")
        for i in range(self.n_init):
            if seconds is not None and i >= MIN_STARTS and time.perf_counter() - began > seconds:
                skipped.append(f"{self.n_init - i} of {self.n_init} random starts")
                break
            starts.append((kmeans(random_state=seed + i).fit(X).labels_, "random"))
            modularities.append(modularity(neighbors, _refined(X, starts[-1][0], k)[0]))
        self.skipped_ = " and ".join(skipped)
        return starts, np.array(modularities)

    def _agreement(self, X: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
        """Share (n_samples,) of the nearest references with the label, or its group, of each row, itself excluded."""
        k = min(N_VOTES, len(self.references_) - 1)
        if k < 1:
            return np.ones(len(X), np.float32)
        near, squared = k_nearest(as_tensor(self.references_), as_tensor(X), k + 1)
        own = (squared[:, 0] == 0).numpy()
        groups = np.arange(self.n_clusters_) if groups is None else groups
        agree = groups[self.reference_labels_[near.numpy()]] == groups[labels][:, None]
        return np.where(own, agree[:, 1:].mean(axis=1), agree[:, :-1].mean(axis=1)).astype(np.float32)

    def _rows(self, X: Any) -> np.ndarray:
        self._check_fitted()
        return checked_rows(self, X, reset=False)

    @property
    def _n_features_out(self) -> int:
        return self.axes_.shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _along_axes(self, X: np.ndarray) -> torch.Tensor:
        return as_tensor(X) @ as_tensor(self.axes_)


@sharing_cores()
def propose_n_clusters(
    embedding: np.ndarray, *, random_state: int = 0, seconds: float | None = None, max_rows: int = PROPOSAL_ROWS
) -> Proposal:
    """Choose the number of clusters at which k-means reaches the highest modularity of the neighbor graph.

    Candidates are all numbers up to 12, then steps of 1/8, up to n / 10 and at most 100; the search stops early if the
    modularity is 5 % below its maximum at twice the best number. One cluster is proposed only for fewer than 20 rows,
    or if all are equal.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    random_state : int
        Seed of the sample and of k-means.
    seconds : float, optional
        Time limit, respected from the candidate 12 on.
    max_rows : int
        Of more rows, as many as this are drawn at random and used.
    """
    began = time.perf_counter()
    n = len(embedding)
    if n < MIN_ROWS or all_alike(embedding):
        return Proposal(1, [1], [0.0])
    if n > max_rows:
        rows = np.sort(np.random.default_rng(random_state).choice(n, max_rows, replace=False))
        embedding, n = embedding[rows], max_rows
    neighbors = graph(embedding)
    kmeans = models.model_class("kmeans")
    candidates: list[int] = []
    modularities: list[float] = []
    k = 2
    while k <= min(MAX_CLUSTERS, n // 10):
        model = kmeans(n_clusters=k, n_init=5, max_iter=50, tol=1e-3, random_state=random_state).fit(embedding)
        candidates.append(k)
        modularities.append(modularity(neighbors, model.labels_))
        best = int(np.argmax(modularities))
        if k > 12 and k > 2 * candidates[best] and modularities[-1] < 0.95 * modularities[best]:
            break
        if seconds is not None and k >= 12 and time.perf_counter() - began > seconds:
            break
        k += max(1, k // 8)
    return Proposal(candidates[int(np.argmax(modularities))], candidates, modularities)


def _proposal_rows(seconds: float | None) -> int:
    """Number of rows on which the number of clusters can be chosen in some seconds; it doubles, so that it seldom
    depends on the clock."""
    rows = MAX_PROPOSAL_ROWS
    while seconds is not None and rows > PROPOSAL_ROWS and rows > PROPOSAL_ROWS_A_SECOND * seconds:
        rows //= 2
    return rows


def graph(X: np.ndarray) -> np.ndarray:
    """Neighbor graph (n_samples, n_neighbors): the n / 200 nearest other rows of each, at least 5 and at most 20."""
    data = as_tensor(X)
    n_neighbors = min(int(np.clip(len(X) // 200, 5, 20)), len(X) - 1)
    return k_nearest(data, data, n_neighbors, exclude_self=torch.arange(len(X)))[0].numpy()


def layout(X: np.ndarray, seed: int) -> np.ndarray:
    """UMAP layout of rows (n_samples, n_components) float32, for clustering."""
    return umap_layout(X, n_neighbors=LAYOUT_NEIGHBORS, n_components=LAYOUT_COMPONENTS, min_dist=0.0, seed=seed)


def _lloyd_labels(X: np.ndarray, centers: np.ndarray, workers: Workers | None = None) -> np.ndarray:
    """Labels of rows after Lloyd's algorithm from these centers."""
    rows = Rows(as_tensor(X)).spread(workers)
    converged, _ = lloyd(rows, as_tensor(centers), 300, 0.0)
    labels = rows.cells(converged)
    if len(labels.unique()) < len(converged):  # the last step emptied a cluster
        labels = rows.cells(moved_centers(rows, labels, converged))
    return labels.numpy()


def _inertia(X: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Sum of squared distances of rows to the mean of their cluster."""
    return float(((X - means_of(X, labels, k)[labels]).astype(np.float64) ** 2).sum())


def _refined(
    X: np.ndarray, labels: np.ndarray, k: int, workers: Workers | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels that k-means along their own discriminant axes keeps, and those axes (n_features, n_axes)."""
    axes = np.eye(X.shape[1], dtype=np.float32)
    for _ in range(ROUNDS):
        new_axes = discriminant_axes(X, labels, k)
        if new_axes is None:
            break
        projected = X @ new_axes
        new_labels = _lloyd_labels(projected, means_of(projected, labels, k), workers)
        if len(np.unique(new_labels)) < k:
            break
        axes, converged, labels = new_axes, np.array_equal(new_labels, labels), new_labels
        if converged:
            break
    return labels, axes
