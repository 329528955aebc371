"""Placement of new images in an existing layout: `python -m benchmarks layout [--seeds 3]`.

UMAP lays out one half of a set; the other half is placed by a vote of neighbors (imatlas), by their weighted mean, or
by UMAP's `transform`. Scored by whether the ten nearest in the plane are of the same class, and near in the embedding.
About a minute per seed and set on one core.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from sklearn.neighbors import NearestNeighbors

from benchmarks._table import mean_std, save_table
from benchmarks._vectors import labeled_embedding
from imatlas.models.layout import N_VOTES, Layout, principal_plane

K = 10


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks layout")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore", module="umap")
    rows = []
    for name, (X, y) in labeled_embedding().items():
        found: dict[str, list[list[float]]] = {}
        for seed in range(options.seeds):
            for way, scores in _compared(X, y, seed).items():
                found.setdefault(way, []).append(scores)
        for way, scores_of_seeds in found.items():
            same_class, near, seconds = zip(*scores_of_seeds, strict=True)
            rows.append([name, way, mean_std(same_class), mean_std(near), f"{np.mean(seconds):.2f}"])
            print(rows[-1], flush=True)
    save_table(
        "layout",
        "New images in an existing layout: half of each set laid out, the other half placed",
        ["set", "placed by", "same class", "near in the embedding", "seconds"],
        rows,
        [
            f"Same class: share of the {K} existing images nearest in the plane with the class of the new image. Near "
            f"in the embedding: share of them among its {5 * K} nearest existing images there. Mean ± standard "
            f"deviation over {options.seeds} seeds.",
            "256 half-whitened principal components of the pretrained encoder's features (see `_vectors.py`). UMAP: 15 "
            "neighbors, min_dist 0.1, PCA start, in all rows. Seconds to place the second half, first call.",
        ],
    )


def _compared(X: np.ndarray, y: np.ndarray, seed: int) -> dict[str, list[float]]:
    """For each way: share of the same class, share near in the embedding, seconds."""
    from umap import UMAP

    order = np.random.default_rng(seed).permutation(len(X))
    old, new = order[: len(X) // 2], order[len(X) // 2 :]
    ours = Layout(random_state=seed).fit(X[old])
    start = principal_plane(X[old])
    theirs = UMAP(n_neighbors=15, min_dist=0.1, init=start, random_state=seed, n_jobs=1).fit(X[old])
    near, far = _nearest(X[old], X[new], N_VOTES)
    weights = np.exp(-(far - far[:, :1]) / np.maximum(far.mean(axis=1, keepdims=True) - far[:, :1], 1e-12))
    ways = {
        "imatlas: vote of neighbors": lambda: (ours.transform(X[new]), ours.positions_),
        "weighted mean of neighbors": lambda: (
            (ours.positions_[near] * weights[:, :, None]).sum(axis=1) / weights.sum(axis=1, keepdims=True),
            ours.positions_,
        ),
        "UMAP.transform": lambda: (theirs.transform(X[new]), theirs.embedding_),
    }
    truly = _nearest(X[old], X[new], 5 * K)[0]
    scores = {}
    for way, place in ways.items():
        began = time.perf_counter()
        placed, places = place()
        seconds = time.perf_counter() - began
        found = _nearest(places, placed, K)[0]
        alike = (y[old][found] == y[new][:, None]).mean()
        kept = np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), truly.tolist(), strict=True)])
        scores[way] = [float(alike), float(kept), seconds]
    return scores


def _nearest(X: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances, rows = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(X).kneighbors(queries)
    return rows, distances
