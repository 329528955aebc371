"""Lay an embedding out on a lattice, and measure how well it lies there beside k-means with as many centres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imatlas.metrics.topology import hit_entropy, quantization_error, topographic_error
from imatlas.models.kmeans import KMeans
from imatlas.models.som import SOM
from imatlas.result import Result

BASELINE_ITERATIONS = 25
"""Lloyd iterations of the k-means that the map is measured against."""


@dataclass(frozen=True)
class Map:
    """A lattice, and what there is to say about it."""

    som: SOM
    result: Result


def fit_map(embedding: np.ndarray, *, held_out: np.ndarray, som: SOM | None = None, random_state: int = 0) -> Map:
    """Learn a map of an embedding, or measure one that was learnt before.

    Parameters
    ----------
    embedding : array (n_images, n_features)
        What the map and k-means learn from.
    held_out : array (n_held_out, n_features)
        What both are measured on.
    som : SOM, optional
        A fitted map to keep. Without it, a hexagonal one is learnt whose size follows the data (see `SOM`).
    random_state : int

    Returns
    -------
    Map
        The metrics are `topographic_error` (share of images whose two best cells do not touch),
        `quantization_error` (mean distance to the best prototype), `qe_ratio_to_kmeans` (the same over that of k-means
        with as many centres, all on `held_out`) and `hit_entropy` (1: the images fill all cells evenly).
    """
    if som is None:
        som = SOM(topology="hexagonal", random_state=random_state).fit(embedding)
    n_cells = len(som.codebook_)
    n_centers = min(n_cells, len(embedding))
    kmeans = KMeans(n_clusters=n_centers, max_iter=BASELINE_ITERATIONS, random_state=random_state).fit(embedding)
    error = quantization_error(held_out, som.codebook_)
    baseline = quantization_error(held_out, kmeans.cluster_centers_)
    broken = topographic_error(held_out, som.codebook_, som.rows_, som.cols_, som.topology)
    metrics = {
        "topographic_error": broken,
        "quantization_error": error,
        "qe_ratio_to_kmeans": error / baseline if baseline else float("nan"),
        "hit_entropy": hit_entropy(som.predict(embedding), n_cells),
    }
    sentence = (
        f"{som.rows_} x {som.cols_} {som.topology} cells; {1 - broken:.0%} of unseen images have their two best cells "
        f"side by side, and cells are {metrics['qe_ratio_to_kmeans']:.2f} times as far from them as k-means centres"
    )
    protocol = (
        f"measured on {len(held_out):,} held-out images; {n_centers} k-means centres ({BASELINE_ITERATIONS} "
        f"iterations) and the map learnt from the same {len(embedding):,}; seed {random_state}"
    )
    return Map(som, Result("map", "The map", [sentence], metrics, protocol=protocol))
