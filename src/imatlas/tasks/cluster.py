"""Group images: k-means on the embedding, the number of clusters by modularity of the neighbour graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from imatlas.metrics.clustering import modularity
from imatlas.models.kmeans import KMeans
from imatlas.nearest import as_tensor, k_nearest, nearest_index
from imatlas.result import Curve, Result

MOST_ROWS = 4000
"""Images that the number of clusters is read from, a random sample where the set is larger."""

MOST_CLUSTERS = 100
STARTS = 5


@dataclass(frozen=True)
class Proposal:
    """A number of clusters, and the evidence: `modularities[i]` is that of the grouping into `candidates[i]`."""

    n_clusters: int
    candidates: list[int]
    modularities: list[float]


@dataclass(frozen=True)
class Clusters:
    """A grouping and what is to be said about it.

    Attributes
    ----------
    model : KMeans
        Its `predict` gives the cluster of any row.
    labels : ndarray (n_samples,) int64
    confidence : ndarray (n_samples,) float32
        1 - distance to the own center / distance to the next one: 0 on the border, 1 at the center.
    medoids : ndarray (n_clusters,) int64
        The row nearest to each center.
    result : Result
    """

    model: KMeans
    labels: np.ndarray
    confidence: np.ndarray
    medoids: np.ndarray
    result: Result


def propose_n_clusters(embedding: np.ndarray, *, random_state: int = 0) -> Proposal:
    """Choose the number for which k-means divides the graph of nearest neighbours best (highest modularity).

    The graph links each of at most 4,000 images to its n / 200 nearest others (at least 5, at most 20): few links in a
    small set let small groups be seen. Candidates are all numbers to 12, then steps of 1/8, up to n / 10 and at most
    100; the search ends early once the modularity is 5 % below its best at twice the best number. Some structure is
    always assumed: 1 is proposed for fewer than 20 images only.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    random_state : int
        Seed of the sample and of k-means.
    """
    n = len(embedding)
    if n < 20:
        return Proposal(1, [1], [0.0])
    if n > MOST_ROWS:
        rows = np.sort(np.random.default_rng(random_state).choice(n, MOST_ROWS, replace=False))
        embedding, n = embedding[rows], MOST_ROWS
    data = as_tensor(embedding)
    n_neighbors = int(np.clip(n // 200, 5, 20))
    neighbors = k_nearest(data, data, n_neighbors, exclude_self=torch.arange(n))[0].numpy()
    tried: list[int] = []
    found: list[float] = []
    k = 2
    while k <= min(MOST_CLUSTERS, n // 10):
        model = KMeans(n_clusters=k, n_init=2, max_iter=50, tol=1e-3, random_state=random_state).fit(embedding)
        tried.append(k)
        found.append(modularity(neighbors, model.labels_))
        best = int(np.argmax(found))
        if k > 12 and k > 2 * tried[best] and found[-1] < 0.95 * found[best]:
            break
        k += max(1, k // 8)
    return Proposal(tried[int(np.argmax(found))], tried, found)


def cluster(embedding: np.ndarray, *, n_clusters: int | None = None, random_state: int = 0) -> Clusters:
    """Group the rows of an embedding with k-means, the best of 5 starts.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    n_clusters : int, optional
        By default the number that `propose_n_clusters` finds; at most n_samples.
    random_state : int

    Returns
    -------
    Clusters
        With a result whose metrics are `n_clusters`, `smallest`, `largest` and the mean `confidence`.
    """
    proposal = propose_n_clusters(embedding, random_state=random_state) if n_clusters is None else None
    k = min(proposal.n_clusters if proposal else int(n_clusters or 1), len(embedding))
    model = KMeans(n_clusters=k, n_init=STARTS, random_state=random_state).fit(embedding)
    labels = model.labels_
    two = np.sort(model.transform(embedding), axis=1)[:, :2]
    confidence = np.ones(len(labels), np.float32) if k == 1 else 1 - two[:, 0] / np.maximum(two[:, 1], 1e-12)
    medoids = nearest_index(as_tensor(model.cluster_centers_), as_tensor(embedding)).numpy()
    sizes = np.bincount(labels, minlength=k)
    result = Result(
        "clusters",
        "Clusters",
        [f"{k} clusters of {sizes.min():,} to {sizes.max():,} images."],
        {
            "n_clusters": k,
            "smallest": int(sizes.min()),
            "largest": int(sizes.max()),
            "confidence": float(confidence.mean()),
        },
        protocol=f"k-means on {len(labels):,} images, {STARTS} starts, seed {random_state}",
    )
    if proposal:
        result.sentences.append(
            f"Tried from {proposal.candidates[0]} to {proposal.candidates[-1]}: with {k} clusters the fewest images "
            "are cut off from their nearest neighbours, against what chance would cut (modularity)."
        )
        result.metrics["modularity"] = max(proposal.modularities)
        if len(proposal.candidates) > 1:
            result.panels.append(
                Curve(
                    title="How many clusters",
                    series={"modularity": (proposal.candidates, proposal.modularities)},
                    x_label="number of clusters",
                    y_label="modularity",
                    alt=f"Modularity over the number of clusters; the highest is at {k}.",
                )
            )
    return Clusters(model, labels, confidence.astype(np.float32), medoids, result)
