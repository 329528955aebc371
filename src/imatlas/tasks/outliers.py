"""How odd each image is: its distance to its neighbours, in units of what is usual in this set."""

from __future__ import annotations

import numpy as np

from imatlas.nearest import as_tensor, k_nearest

MOST_REFERENCE = 20_000
"""Images that neighbours are looked for among: bounds the time to n times this."""


def outlier_scores(embedding: np.ndarray, *, k: int = 10, random_state: int = 0) -> np.ndarray:
    """Mean distance of each image to its `k` nearest others, divided by the median of that over the set.

    1 is an ordinary image, 2 lies twice as far from its neighbours as is usual. (Ramaswamy, Rastogi, Shim 2000 rank by
    the distance to the k-th neighbour; the mean over k is steadier.) In sets of more than 20,000 images, neighbours
    are looked for among that many, drawn by the seed. Memory is bounded; time is O(n · min(n, 20,000) · n_features).

    Parameters
    ----------
    embedding : array (n_images, n_features)
    k : int
        Neighbours; fewer in sets of `k` images or less.
    random_state : int

    Returns
    -------
    array (n_images,) float32
    """
    n = len(embedding)
    rows = np.arange(n)
    if n > MOST_REFERENCE:
        rows = np.sort(np.random.default_rng(random_state).choice(n, MOST_REFERENCE, replace=False))
    own = np.full(n, -1)
    own[rows] = np.arange(len(rows))
    k = min(k, len(rows) - 1)
    if k < 1:
        return np.ones(n, np.float32)
    every = as_tensor(np.ascontiguousarray(embedding, dtype=np.float32))
    some = every if len(rows) == n else as_tensor(np.ascontiguousarray(embedding[rows], dtype=np.float32))
    squared = k_nearest(some, every, k, exclude_self=as_tensor(own))[1].numpy()
    distance = np.sqrt(squared).mean(axis=1)
    usual = float(np.median(distance))
    return (distance / usual if usual > 0 else np.ones(n)).astype(np.float32)
