"""Fit a self-organizing map to an image embedding, and measure it on held-out images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imatlas.arguments import counted
from imatlas.metrics.topology import hit_entropy, quantization_error, topographic_error
from imatlas.models.kmeans import KMeans
from imatlas.models.som import SOM
from imatlas.neighbors import all_alike
from imatlas.result import Result
from imatlas.system.workers import Workers

BASELINE_ITERATIONS = 25
BASELINE_PRODUCTS = 1e12
"""Multiplications that the k-means baseline may take (some seconds); more are avoided by sampling rows."""


@dataclass(frozen=True)
class FittedMap:
    """A map and its quality.

    Attributes
    ----------
    som : SOM
    result : Result
        Metrics on the held-out rows: `quantization_error`, `topographic_error`, `kmeans_ratio` (quantization error
        relative to k-means with as many centers); on the training rows: `hit_entropy`, `filled`.
    """

    som: SOM
    result: Result


def fit_map(
    embedding: np.ndarray,
    *,
    held_out: np.ndarray | None = None,
    random_state: int = 0,
    workers: Workers | None = None,
) -> FittedMap:
    """Fit a map to an embedding, and measure it.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
        The training rows.
    held_out : ndarray (n_held_out, n_features), optional
        Rows to measure on; by default the training rows, and the protocol says so.
    random_state : int
    workers : imatlas.system.workers.Workers, optional
        Workers of a cluster.
    """
    side = 1 if all_alike(embedding) else None
    som = SOM(rows=side, cols=side, random_state=random_state).fit(embedding, workers=workers)
    measured = embedding if held_out is None or not len(held_out) else held_out
    n_cells = len(som.codebook_)
    error = quantization_error(measured, som.codebook_)
    topographic = topographic_error(measured, som.codebook_, som.rows_, som.cols_, som.topology)
    cells = som.predict(embedding)
    metrics = {
        "rows": som.rows_,
        "cols": som.cols_,
        "quantization_error": error,
        "topographic_error": topographic,
        "hit_entropy": hit_entropy(cells, n_cells),
        "filled": len(np.unique(cells)) / n_cells,
    }
    kind = "training" if measured is embedding else "held-out"
    protocol = f"errors on {counted(len(measured), f'{kind} image')}"
    sentences = [_order_in_words(som, topographic, all_alike(embedding))]
    if len(embedding) >= n_cells > 1:
        kmeans_error, n_rows = _kmeans_error(embedding, measured, n_cells, random_state, workers)
        ratio = error / kmeans_error if kmeans_error > 0 else 1.0
        metrics["kmeans_ratio"] = ratio
        protocol += f"; k-means with as many centers: {n_rows:,} images, {BASELINE_ITERATIONS} iterations"
        sentences.append(
            f"{_ratio_in_words(ratio)} that of k-means with as many centers, which are not arranged on a map."
        )
    result = Result("map", "The map", sentences, metrics, protocol=f"{protocol}; seed {random_state}")
    return FittedMap(som, result)


def _ratio_in_words(ratio: float) -> str:
    """How a quantization error compares with another."""
    if abs(ratio - 1) < 0.005:
        return "The quantization error equals"
    if ratio >= 2:
        return f"The quantization error is {ratio:.1f} times"
    return f"The quantization error is {abs(ratio - 1):.0%} {'above' if ratio > 1 else 'below'}"


def _order_in_words(som: SOM, topographic: float, equal: bool) -> str:
    """The size of a map and its topographic error."""
    rows, cols = som.rows_, som.cols_
    if rows * cols == 1:
        return f"The map is one cell: {'all images are equal' if equal else 'there are too few images for more'}."
    size = f"{rows} row{'' if rows == 1 else 's'} of {cols} {som.topology} cell{'' if cols == 1 else 's'}"
    if rows * cols <= 4:  # nearly all cells are adjacent
        return f"The map has {size}."
    if topographic > 0.5:
        return (
            f"The map has {size}; for {topographic:.0%} of the images the two best cells are not adjacent, so "
            "neighbors on the map need not be similar."
        )
    return (
        f"The map has {size}; for {1 - topographic:.0%} of the images the two best cells are adjacent, so neighbors on "
        "the map are similar."
    )


def _kmeans_error(
    embedding: np.ndarray, measured: np.ndarray, n_cells: int, random_state: int, workers: Workers | None
) -> tuple[float, int]:
    """Quantization error of k-means with `n_cells` centers on `measured`, and the number of its training rows."""
    n_max = int(BASELINE_PRODUCTS / (BASELINE_ITERATIONS * n_cells * embedding.shape[1]))
    rows = embedding
    if len(rows) > n_max:
        n = max(n_max, n_cells)
        rows = rows[np.sort(np.random.default_rng(random_state).choice(len(rows), n, replace=False))]
    model = KMeans(n_clusters=n_cells, max_iter=BASELINE_ITERATIONS, random_state=random_state)
    model.fit(rows, workers=workers)
    return quantization_error(measured, model.cluster_centers_), len(rows)
