"""Find the images nearest to others in the learnt space, with distances that mean something for this set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imatlas.nearest import as_tensor, k_nearest

N_PAIRS = 20_000
"""Random pairs of images that say what a usual distance is."""


@dataclass(frozen=True)
class Found:
    """Neighbours of each query, nearest first: all arrays are (n_queries, k).

    `closer_than` is the share of random pairs of the set that lie farther apart; 0.99 is very near.
    """

    indices: np.ndarray
    distances: np.ndarray
    closer_than: np.ndarray


def search(embedding: np.ndarray, queries: np.ndarray, *, k: int = 10, random_state: int = 0) -> Found:
    """The `k` nearest images to each query, by exact search.

    Parameters
    ----------
    embedding : array (n_images, n_features)
    queries : array (n_queries, n_features)
    k : int
        At most n_images are found.
    random_state : int
        Seed of the random pairs.
    """
    k = min(k, len(embedding))
    data, points = (as_tensor(np.ascontiguousarray(a, dtype=np.float32)) for a in (embedding, queries))
    indices, squared = (t.numpy() for t in k_nearest(data, points, k))
    distances = np.sqrt(squared)
    pairs = np.random.default_rng(random_state).integers(0, len(embedding), (N_PAIRS, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    usual = np.sort(np.linalg.norm(embedding[pairs[:, 0]] - embedding[pairs[:, 1]], axis=1))
    closer_than = 1 - np.searchsorted(usual, distances.ravel(), side="right").reshape(distances.shape) / max(
        1, len(usual)
    )
    return Found(indices, distances, closer_than)
