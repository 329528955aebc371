"""Group images: an `ImageClusterer` on the embedding, and what is to be said about the groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imatlas.models.image_clusterer import (
    FEWEST_TO_GROUP,
    N_VOTES,
    ImageClusterer,
    Proposal,
    propose_n_clusters,
)
from imatlas.neighbors import all_alike, as_tensor, nearest_index
from imatlas.result import Curve, DataTable, Result

__all__ = ["UNSURE", "Clusters", "Proposal", "cluster", "describe", "propose_n_clusters"]

UNSURE = 0.5
"""Confidence below which an image is called unsure: most images near it are in other clusters."""


@dataclass(frozen=True)
class Clusters:
    """A grouping and what is to be said about it.

    Attributes
    ----------
    model : ImageClusterer
        Its `predict` gives the cluster of any row, its `confidence` how sure that is.
    labels : ndarray (n_samples,) int64
        0 is the largest cluster.
    confidence : ndarray (n_samples,) float32
        The share of the nearest images that are in the same cluster.
    medoids : ndarray (n_clusters,) int64
        The row that is most typical of each cluster.
    result : Result
    """

    model: ImageClusterer
    labels: np.ndarray
    confidence: np.ndarray
    medoids: np.ndarray
    result: Result


def cluster(
    embedding: np.ndarray, *, n_clusters: int | None = None, random_state: int = 0, seconds: float | None = None
) -> Clusters:
    """Group the rows of an embedding.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    n_clusters : int, optional
        By default the number that `propose_n_clusters` finds; at most n_samples.
    random_state : int
    seconds : float, optional
        Leave out of the search what does not fit in so much time, and say what.

    Returns
    -------
    Clusters
        With a result whose metrics are `n_clusters`, `smallest`, `largest`, the mean `confidence` and how many images
        are `unsure`.
    """
    k = None if n_clusters is None else min(n_clusters, len(embedding))
    model = ImageClusterer(n_clusters=k, random_state=random_state).fit(embedding, seconds=seconds)
    sizes = np.bincount(model.labels_, minlength=model.n_clusters_)
    unsure = int((model.confidence_ < UNSURE).sum())
    sentences = [f"{counted(model.n_clusters_, sizes)}."]
    if unsure:
        sentences.append(
            f"{unsure:,} images ({unsure / len(embedding):.0%}) are unsure: most of the {N_VOTES} images nearest to "
            "them are in other clusters."
        )
    result = Result(
        "clusters",
        "Clusters",
        sentences,
        {
            "n_clusters": model.n_clusters_,
            "smallest": int(sizes.min()),
            "largest": int(sizes.max()),
            "confidence": float(model.confidence_.mean()),
            "unsure": unsure,
        },
        protocol=f"{len(embedding):,} images, seed {random_state}; confidence is the share of an image's {N_VOTES} "
        "nearest ones that are in its cluster",
    )
    if model.left_out_:
        result.sentences.append(f"There was no time for {model.left_out_} (--budget gives more).")
    if model.n_clusters_ < (n_clusters or 2):
        result.sentences.append(_why_fewer(embedding, n_clusters))
    if model.proposal_:
        tried, found = model.proposal_["candidates"], model.proposal_["modularities"]
        _tell_number(result, Proposal(model.n_clusters_, tried, found))
    return Clusters(model, model.labels_, model.confidence_, model.medoids_, result)


def describe(
    model: ImageClusterer, embedding: np.ndarray, keys: Sequence[str], *, n_groups: int | None = None
) -> Clusters:
    """Which cluster each row of an embedding is in, and what is in each cluster.

    Parameters
    ----------
    model : ImageClusterer
        Fitted to these rows, or to others of the same embedding.
    embedding : ndarray (n_samples, n_features)
    keys : sequence of str
        The name of each row.
    n_groups : int, optional
        Tell, too, which of so many groups of clusters each is in; see `ImageClusterer.coarse`.

    Returns
    -------
    Clusters
        With a table of one row a cluster, the largest first, in its result.
    """
    labels, sure = model.predict(embedding), model.confidence(embedding)
    k = model.n_clusters_
    along, centers = model.transform(embedding), model.transform(model.cluster_centers_)
    medoids = nearest_index(as_tensor(centers), as_tensor(along)).numpy()
    sizes = np.bincount(labels, minlength=k)
    mean_sure = np.bincount(labels, weights=sure, minlength=k) / np.maximum(sizes, 1)
    coarse = model.coarse(n_groups) if n_groups else None
    rows = [
        (i, *([int(coarse[i])] if coarse is not None else []), int(sizes[i]), float(mean_sure[i]), keys[medoids[i]])
        for i in np.argsort(-sizes, kind="stable").tolist()
    ]
    unsure = int((sure < UNSURE).sum())
    result = Result(
        "clusters",
        "Clusters",
        [
            f"{len(labels):,} images: {counted(k, sizes, '')}.",
            f"{unsure or 'None'} are unsure: most of the {N_VOTES} images nearest to them are in other clusters."
            if k > 1
            else "All are together, so none is unsure.",
        ],
        {"n_clusters": k, "confidence": float(sure.mean()), "unsure": unsure},
        [
            DataTable(
                title="Clusters",
                columns=("cluster", *(["group"] if coarse is not None else []), "images", "confidence", "most typical"),
                rows=rows,
            )
        ],
        data={"clusters": [list(row) for row in rows]},
        protocol=f"confidence: share of an image's {N_VOTES} nearest ones that are in its cluster",
    )
    return Clusters(model, labels, sure, medoids, result)


def counted(k: int, sizes: np.ndarray, what: str = " images") -> str:
    """How many clusters there are, and how large."""
    low, high = int(sizes.min()), int(sizes.max())
    if k == 1:
        return f"1 cluster of {high:,}{what.removesuffix('s') if high == 1 else what}"
    if low == high:
        return f"{k} clusters of {low:,}{what.removesuffix('s') if low == 1 else what} each"
    return f"{k} clusters of {low:,} to {high:,}{what}"


_LIMITS = ("There was no time", "All images are alike", "There are no more than", "Fewer than")


def limits(sentences: Sequence[str]) -> list[str]:
    """Those of the sentences on a grouping that say why it is not what was asked for."""
    return [sentence for sentence in sentences if sentence.startswith(_LIMITS)]


def _why_fewer(embedding: np.ndarray, asked: int | None) -> str:
    """Why there are fewer clusters than were asked for, or one only."""
    n_distinct = len(np.unique(embedding, axis=0))
    if n_distinct == 1 or all_alike(embedding):
        return "All images are alike, so they are one cluster."
    if asked is not None:
        return f"There are no more than {n_distinct:,} different images, so there are no {asked:,} clusters."
    return f"Fewer than {FEWEST_TO_GROUP} images are not divided unless a number of clusters is asked for."


def _tell_number(result: Result, proposal: Proposal) -> None:
    """Add to a result why there are so many clusters."""
    k, (low, high) = proposal.n_clusters, proposal.plausible
    if len(proposal.candidates) < 2:
        return
    near = "" if low == high else f" From {low} to {high} some would do as well, within 2 %."
    result.sentences.append(
        f"Tried from {proposal.candidates[0]} to {proposal.candidates[-1]}: with {k} clusters the fewest images are "
        f"cut off from their nearest neighbors, against what chance would cut (modularity).{near}"
    )
    result.metrics |= {"modularity": max(proposal.modularities), "plausible from": low, "plausible to": high}
    result.panels.append(
        Curve(
            title="How many clusters",
            series={"modularity": (proposal.candidates, proposal.modularities)},
            x_label="number of clusters",
            y_label="modularity",
            alt=f"Modularity over the number of clusters; the highest is at {k}.",
        )
    )
