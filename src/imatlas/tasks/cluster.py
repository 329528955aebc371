"""Group images: an `ImageClusterer` on the embedding, and what is to be said about the groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imatlas.models.image_clusterer import N_VOTES, ImageClusterer, Proposal, propose_n_clusters
from imatlas.result import Curve, Result

__all__ = ["UNSURE", "Clusters", "Proposal", "cluster", "propose_n_clusters"]

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


def cluster(embedding: np.ndarray, *, n_clusters: int | None = None, random_state: int = 0) -> Clusters:
    """Group the rows of an embedding.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    n_clusters : int, optional
        By default the number that `propose_n_clusters` finds; at most n_samples.
    random_state : int

    Returns
    -------
    Clusters
        With a result whose metrics are `n_clusters`, `smallest`, `largest`, the mean `confidence` and how many images
        are `unsure`.
    """
    k = None if n_clusters is None else min(n_clusters, len(embedding))
    model = ImageClusterer(n_clusters=k, random_state=random_state).fit(embedding)
    sizes = np.bincount(model.labels_, minlength=model.n_clusters_)
    unsure = int((model.confidence_ < UNSURE).sum())
    sentences = [f"{model.n_clusters_} clusters of {sizes.min():,} to {sizes.max():,} images."]
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
    if model.proposal_:
        tried, found = model.proposal_["candidates"], model.proposal_["modularities"]
        _tell_number(result, Proposal(model.n_clusters_, tried, found))
    return Clusters(model, model.labels_, model.confidence_, model.medoids_, result)


def _tell_number(result: Result, proposal: Proposal) -> None:
    """Add to a result why there are so many clusters."""
    k, (low, high) = proposal.n_clusters, proposal.plausible
    near = "" if low == high else f" From {low} to {high} some would do as well, within 2 %."
    result.sentences.append(
        f"Tried from {proposal.candidates[0]} to {proposal.candidates[-1]}: with {k} clusters the fewest images are "
        f"cut off from their nearest neighbours, against what chance would cut (modularity).{near}"
    )
    result.metrics |= {"modularity": max(proposal.modularities), "plausible from": low, "plausible to": high}
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
