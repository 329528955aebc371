"""Cluster images: an `ImageClusterer` on the embedding, and a summary of the clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from imatlas.models.image_clusterer import (
    MIN_ROWS,
    N_VOTES,
    ImageClusterer,
    Proposal,
    propose_n_clusters,
)
from imatlas.neighbors import all_alike, as_tensor, nearest_index
from imatlas.result import Curve, DataTable, Result
from imatlas.system.workers import Workers
from imatlas.tasks.words import LEARNED_WITH, in_words

__all__ = ["UNSURE", "Clusters", "Proposal", "cluster", "describe", "propose_n_clusters"]

UNSURE = 0.5
"""Confidence below which an image is unsure: most of its neighbors are in other clusters."""

PROTOCOL = f"confidence: share of an image's {N_VOTES} nearest images that are in its cluster"


@dataclass(frozen=True)
class Clusters:
    """A clustering and its summary.

    Attributes
    ----------
    model : ImageClusterer
    labels : ndarray (n_samples,) int64
        0 is the largest cluster.
    confidence : ndarray (n_samples,) float32
        Share of the nearest images that are in the same cluster.
    medoids : ndarray (n_clusters,) int64
        The most typical row of each cluster of the model.
    result : Result
    names : dict {cluster: name}
        Names that were given.
    """

    model: ImageClusterer
    labels: np.ndarray
    confidence: np.ndarray
    medoids: np.ndarray
    result: Result
    names: dict[int, str] = field(default_factory=dict)


def cluster(
    embedding: np.ndarray,
    *,
    n_clusters: int | None = None,
    random_state: int = 0,
    seconds: float | None = None,
    workers: Workers | None = None,
) -> Clusters:
    """Cluster the rows of an embedding.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    n_clusters : int, optional
        By default chosen by `propose_n_clusters`; at most n_samples.
    random_state : int
    seconds : float, optional
        Time limit; the result says what was skipped.
    workers : imatlas.system.workers.Workers, optional
        Workers of a cluster.

    Returns
    -------
    Clusters
        The metrics of the result are `n_clusters`, `smallest`, `largest`, the mean `confidence` and the number of
        `unsure` images.
    """
    k = None if n_clusters is None else min(n_clusters, len(embedding))
    model = ImageClusterer(n_clusters=k, random_state=random_state).fit(embedding, seconds=seconds, workers=workers)
    sizes = np.bincount(model.labels_, minlength=model.n_clusters_)
    unsure = int((model.confidence_ < UNSURE).sum())
    sentences = [f"{sizes_in_words(model.n_clusters_, sizes)}."]
    if unsure:
        sentences.append(
            f"{unsure:,} images ({unsure / len(embedding):.0%}) are unsure: most of their {N_VOTES} nearest images are "
            "in other clusters."
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
        protocol=f"{len(embedding):,} images, seed {random_state}; {PROTOCOL}",
    )
    if model.skipped_:
        result.sentences.append(f"There was no time for {model.skipped_} (--budget gives more).")
    if model.n_clusters_ < (n_clusters or 2):
        result.sentences.append(_why_fewer(embedding, n_clusters))
    if model.proposal_:
        candidates, modularities = model.proposal_["candidates"], model.proposal_["modularities"]
        _explain_number(result, Proposal(model.n_clusters_, candidates, modularities))
    return Clusters(model, model.labels_, model.confidence_, model.medoids_, result)


def describe(
    model: ImageClusterer,
    embedding: np.ndarray,
    keys: Sequence[str],
    *,
    n_groups: int | None = None,
    merged: np.ndarray | None = None,
    names: Mapping[int, str] | None = None,
) -> Clusters:
    """Assign the rows of an embedding to fitted clusters, and summarize each cluster.

    Parameters
    ----------
    model : ImageClusterer
        Fitted to these rows, or to others of the same embedding.
    embedding : ndarray (n_samples, n_features)
    keys : sequence of str
        The name of each row.
    n_groups : int, optional
        Also merge the clusters into this many groups; see `ImageClusterer.coarse`.
    merged : ndarray (n_clusters,) int64, optional
        The cluster that each counts as. None: itself.
    names : mapping {cluster: name}, optional
        Names of clusters.

    Returns
    -------
    Clusters
        The result has a table with one row per cluster, the largest first. The group of merged clusters is that of the
        one that they count as.
    """
    k = model.n_clusters_
    merged, names = np.arange(k) if merged is None else merged, dict(names or {})
    labels, confidence = merged[model.predict(embedding)], model.confidence(embedding, groups=merged)
    projected, centers = model.transform(embedding), model.transform(model.cluster_centers_)
    medoids = nearest_index(as_tensor(centers), as_tensor(projected)).numpy()
    sizes = np.bincount(labels, minlength=k)
    mean_confidence = np.bincount(labels, weights=confidence, minlength=k) / np.maximum(sizes, 1)
    coarse = model.coarse(n_groups) if n_groups else None
    rows = [
        (
            i,
            *([names.get(i, "")] if names else []),
            *([int(coarse[i])] if coarse is not None else []),
            int(sizes[i]),
            float(mean_confidence[i]),
            keys[medoids[i]],
        )
        for i in np.argsort(-sizes, kind="stable").tolist()
        if merged[i] == i
    ]
    unsure, n_left = int((confidence < UNSURE).sum()), len(rows)
    result = Result(
        "clusters",
        "Clusters",
        [
            f"{len(labels):,} images: {sizes_in_words(n_left, sizes[merged == np.arange(k)], '')}.",
            f"{unsure or 'None'} are unsure: most of their {N_VOTES} nearest images are in other clusters."
            if n_left > 1
            else "With a single cluster no image is unsure.",
        ],
        {"n_clusters": n_left, "confidence": float(confidence.mean()), "unsure": unsure},
        [
            DataTable(
                title="Clusters",
                columns=(
                    "cluster",
                    *(["name"] if names else []),
                    *(["group"] if coarse is not None else []),
                    *("images", "confidence", "most typical"),
                ),
                rows=rows,
            )
        ],
        data={"clusters": [list(row) for row in rows]},
        protocol=PROTOCOL,
    )
    return Clusters(model, labels, confidence, medoids, result, names)


def with_words(found: Clusters, words: Sequence[Sequence[tuple[str, float]]], n_images: int) -> Clusters:
    """Clusters with a column of the words that stand out in each.

    Parameters
    ----------
    found : Clusters
        As `describe` returns it.
    words : sequence of sequences of (word, probability)
        Of each cluster of the model, the best first.
    n_images : int
        Number of images that they come from.
    """
    (table,) = (panel for panel in found.result.panels if isinstance(panel, DataTable))
    rows = [(*row, in_words(words[row[0]]) or "-") for row in table.rows]
    result = replace(
        found.result,
        sentences=[*found.result.sentences, f"Words are proposed {LEARNED_WITH}, from {n_images:,} images."],
        panels=[replace(table, columns=(*table.columns, "words"), rows=rows)],
        data=found.result.data | {"clusters": [list(row) for row in rows]},
    )
    return replace(found, result=result)


def sizes_in_words(k: int, sizes: np.ndarray, what: str = " images") -> str:
    """The number of clusters and their sizes."""
    low, high = int(sizes.min()), int(sizes.max())
    if k == 1:
        return f"1 cluster of {high:,}{what.removesuffix('s') if high == 1 else what}"
    if low == high:
        return f"{k} clusters of {low:,}{what.removesuffix('s') if low == 1 else what} each"
    return f"{k} clusters of {low:,} to {high:,}{what}"


_LIMITS = ("There was no time", "All images are equal", "There are only", "Fewer than")


def limits(sentences: Sequence[str]) -> list[str]:
    """Those of the sentences on a clustering that say why it is not what was asked for."""
    return [sentence for sentence in sentences if sentence.startswith(_LIMITS)]


def _why_fewer(embedding: np.ndarray, asked: int | None) -> str:
    """Why there are fewer clusters than asked for, or a single one."""
    n_distinct = len(np.unique(embedding, axis=0))
    if n_distinct == 1 or all_alike(embedding):
        return "All images are equal, so they form one cluster."
    if asked is not None:
        return f"There are only {n_distinct:,} distinct images, so there cannot be {asked:,} clusters."
    return f"Fewer than {MIN_ROWS} images form one cluster unless a number of clusters is given."


def _explain_number(result: Result, proposal: Proposal) -> None:
    """Add the reason for the number of clusters to a result."""
    k, (low, high) = proposal.n_clusters, proposal.plausible
    if len(proposal.candidates) < 2:
        return
    near = "" if low == high else f" Numbers between {low} and {high} come within 2 %."
    result.sentences.append(
        f"Of {proposal.candidates[0]} to {proposal.candidates[-1]} clusters, {k} divide the neighbor graph best "
        f"(highest modularity).{near}"
    )
    result.metrics |= {"modularity": max(proposal.modularities), "plausible_from": low, "plausible_to": high}
    result.panels.append(
        Curve(
            title="Number of clusters",
            series={"modularity": (proposal.candidates, proposal.modularities)},
            x_label="number of clusters",
            y_label="modularity",
            alt=f"Modularity over the number of clusters; the maximum is at {k}.",
        )
    )
