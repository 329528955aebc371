"""Find the nearest images to a query, with distances told in the set's own measure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imatlas.errors import InputError
from imatlas.nearest import as_tensor, k_nearest

PAIRS = 4096
"""Random pairs from which the set's own spread of distances is taken."""


@dataclass(frozen=True)
class Found:
    """The nearest images of each query.

    Attributes
    ----------
    indices : ndarray (n_queries, k) int64
        Rows of the embedding, nearest first.
    distances : ndarray (n_queries, k) float32
        Euclidean.
    closer_than : ndarray (n_queries, k) float32
        Share of random pairs of the set that lie farther apart than this image and the query, 0..1. 1: closer than
        any pair drawn; 0.5: no more alike than two images drawn at random.
    """

    indices: np.ndarray
    distances: np.ndarray
    closer_than: np.ndarray


def search(embedding: np.ndarray, queries: np.ndarray, *, k: int = 10, random_state: int = 0) -> Found:
    """Exact search, O(n_queries · n_samples · n_features), in bounded memory.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    queries : ndarray (n_queries, n_features)
    k : int
        How many to find; all where there are fewer.
    random_state : int
        Seed of the random pairs behind `closer_than`.

    Raises
    ------
    InputError
        If there is nothing to search, `k` is below 1, or the features differ in number.
    """
    if not len(embedding):
        raise InputError("There is no image to search among; learn the atlas from at least one.")
    if k < 1:
        raise InputError(f"'k' must be at least 1. Got {k}.")
    if queries.shape[1] != embedding.shape[1]:
        raise InputError(
            f"The query has {queries.shape[1]} features and the images have {embedding.shape[1]}; embed both alike."
        )
    indices, squared = k_nearest(as_tensor(embedding), as_tensor(queries), min(k, len(embedding)))
    distances = squared.sqrt_().numpy()
    usual = pair_distances(embedding, random_state=random_state)
    closer = 1.0 - np.searchsorted(usual, distances, side="left") / max(1, len(usual))
    return Found(indices.numpy(), distances, closer.astype(np.float32))


def pair_distances(embedding: np.ndarray, *, random_state: int = 0) -> np.ndarray:
    """Distances of random pairs of different images, ascending: the set's own measure of near and far."""
    rng = np.random.default_rng(random_state)
    n = len(embedding)
    if n < 2:
        return np.zeros(0)
    first = rng.integers(n, size=PAIRS)
    second = (first + rng.integers(1, n, size=PAIRS)) % n
    return np.sort(np.linalg.norm(embedding[first] - embedding[second], axis=1))
