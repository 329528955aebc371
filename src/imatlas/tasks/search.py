"""Nearest images to a query, with distances put in relation to those within the set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from imatlas.arguments import check_int
from imatlas.errors import InputError
from imatlas.images.decode import read_picture
from imatlas.images.encode import write_picture
from imatlas.images.pixels import composited_visibly
from imatlas.models.kmeans import KMeans
from imatlas.neighbors import as_tensor, k_nearest
from imatlas.tasks.sample import contact_sheet

EXACT = 50_000
"""Number of images up to which a search is exhaustive; above, an index proposes candidates."""

PAIRS, SINGLES = 4096, 512
"""Random pairs, and random images with their nearest neighbors, that distances are compared with."""

COUNTER_WEIGHT = 0.25
"""Weight of the distance to the counter-examples."""

TILE, FRAME = 128, 4
"""Size of an image on a contact sheet, and width of the frame around a query, in pixels."""

MIN_CANDIDATES = 200
"""Fewest candidates per example that are ranked by several examples."""


class Vectors(Protocol):
    """A searchable embedding: in memory, or in a table with an index on the disk."""

    def __len__(self) -> int: ...

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n_queries, k) int64, nearest first, and their exact Euclidean distances (n_queries, k)."""

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Some rows of the embedding (n, n_features) float32."""


@dataclass(frozen=True)
class InMemory:
    """An embedding (n_samples, n_features) in memory, searched exactly: O(n_queries · n_samples · n_features)."""

    embedding: np.ndarray

    def __len__(self) -> int:
        return len(self.embedding)

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest rows and their distances."""
        indices, squared = k_nearest(as_tensor(self.embedding), as_tensor(queries), min(k, len(self)))
        return indices.numpy(), squared.sqrt_().numpy()

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Some rows of the embedding."""
        return self.embedding[rows]


@dataclass(frozen=True)
class Spread:
    """Distribution of the distances within a set of images.

    Attributes
    ----------
    pairs : ndarray (n_pairs,)
        Distances of random pairs of different images, ascending.
    neighbors : ndarray (n_singles,)
        Distances of random images to their nearest neighbors, ascending.
    """

    pairs: np.ndarray
    neighbors: np.ndarray

    def closer_than_pairs(self, distances: np.ndarray) -> np.ndarray:
        """Share, 0 to 1, of random pairs that are at least as far apart as each distance."""
        return _share_beyond(self.pairs, distances)

    def closer_than_neighbors(self, distances: np.ndarray) -> np.ndarray:
        """Share, 0 to 1, of images whose nearest neighbor is at least as far away as each distance."""
        return _share_beyond(self.neighbors, distances)


@dataclass(frozen=True)
class Found:
    """The nearest images of each query.

    Attributes
    ----------
    indices : ndarray (n_queries, k) int64
        Rows of the embedding, best first.
    distances : ndarray (n_queries, k) float32
        Euclidean; for several examples their harmonic mean.
    closer_than : ndarray (n_queries, k) float32
        Share of random pairs of the set that are farther apart than the image and the query, 0..1: 1 is closer than
        all pairs, 0.5 no more similar than two random images.
    closer_than_neighbors : ndarray (n_queries, k) float32
        Share of the images whose nearest neighbor is farther away than that, 0..1: 0.5 is a typical neighbor, 0 is
        farther than any image from its nearest neighbor, so not similar to the query.
    """

    indices: np.ndarray
    distances: np.ndarray
    closer_than: np.ndarray
    closer_than_neighbors: np.ndarray


def spread(vectors: Vectors, *, random_state: int = 0) -> Spread:
    """Distances within a set: of 4,096 random pairs, and of 512 random images to their nearest neighbors."""
    rng = np.random.default_rng(random_state)
    n = len(vectors)
    if n < 2:
        return Spread(np.zeros(0, np.float32), np.zeros(0, np.float32))
    first = rng.integers(n, size=PAIRS)
    second = (first + rng.integers(1, n, size=PAIRS)) % n
    rows, inverse = np.unique(np.concatenate([first, second]), return_inverse=True)
    values = vectors.at(rows)
    pairs = np.linalg.norm(values[inverse[:PAIRS]] - values[inverse[PAIRS:]], axis=1)
    singles = np.sort(rng.permutation(n)[:SINGLES])
    indices, distances = vectors.nearest(vectors.at(singles), 2)
    others = np.where(indices == singles[:, None], np.inf, distances)  # a duplicate may come before the image itself
    return Spread(np.sort(pairs), np.sort(others.min(axis=1)))


def search(
    vectors: Vectors | np.ndarray,
    queries: np.ndarray,
    *,
    k: int = 10,
    measures: Spread | None = None,
    random_state: int = 0,
) -> Found:
    """The `k` nearest images of each query.

    Parameters
    ----------
    vectors : Vectors, or ndarray (n_samples, n_features)
        The embedding to search; an array is searched exactly, in bounded memory.
    queries : ndarray (n_queries, n_features)
    k : int
        Number of images to find; all if there are fewer.
    measures : Spread, optional
        The `spread` of the set, if it is known.
    random_state : int
        Seed of `spread`.

    Raises
    ------
    InputError
        If there is nothing to search, `k` is below 1, or the numbers of features differ.
    """
    vectors = _checked(vectors, queries, k)
    return _found(*vectors.nearest(queries, min(k, len(vectors))), vectors, measures, random_state)


def search_like(
    vectors: Vectors | np.ndarray,
    examples: np.ndarray,
    counter_examples: np.ndarray,
    *,
    k: int = 10,
    measures: Spread | None = None,
    random_state: int = 0,
) -> Found:
    """The `k` images most similar to several examples and dissimilar to the counter-examples.

    Images are ranked by the harmonic mean of their distances to the examples, minus a quarter of that to the
    counter-examples, among the 10 k (at least 200) nearest to any example.

    Parameters
    ----------
    vectors, k, measures, random_state
        As in `search`.
    examples, counter_examples : ndarray (n_examples, n_features), (n_counter_examples, n_features)
        At least one example; counter-examples may be empty.

    Returns
    -------
    Found
        As for one query.
    """
    if len(examples) == 1 and not len(counter_examples):
        return search(vectors, examples, k=k, measures=measures, random_state=random_state)
    vectors = _checked(vectors, examples, k)
    candidates, _ = vectors.nearest(examples, min(max(MIN_CANDIDATES, 10 * k), len(vectors)))
    rows = np.unique(candidates)
    values = vectors.at(rows)
    distances = _mean_distance(values, examples)
    score = (
        distances - COUNTER_WEIGHT * _mean_distance(values, counter_examples) if len(counter_examples) else distances
    )
    best = np.argsort(score, kind="stable")[:k]
    return _found(rows[best][None], distances[best][None], vectors, measures, random_state)


def _mean_distance(rows: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """The harmonic mean of the distances of each row to the examples (n_rows,) float32."""
    distances = np.stack([np.linalg.norm(rows - example, axis=1) for example in examples])
    return (len(examples) / (1 / np.maximum(distances, 1e-12)).sum(axis=0)).astype(np.float32)


def write_sheet(queries: Sequence[bytes], found: Sequence[bytes], output: str | Path) -> Path:
    """Write a contact sheet of the queries, framed, followed by the images found, as one .png file.

    Parameters
    ----------
    queries, found : sequence of bytes
        Thumbnails, as the bytes of image files.
    output : path

    Returns
    -------
    Path
        The file.
    """
    tiles = []
    for number, content in enumerate([*queries, *found]):
        tile = read_picture(content).fitted(TILE, TILE, "pad", (255, 255, 255))
        tile = composited_visibly(tile[None], (255, 255, 255))[0] if tile.shape[2] in (2, 4) else tile
        tile = np.repeat(tile, 3, axis=2) if tile.shape[2] == 1 else tile
        if number < len(queries):
            framed = np.zeros_like(tile)
            framed[FRAME:-FRAME, FRAME:-FRAME] = tile[FRAME:-FRAME, FRAME:-FRAME]
            tile = framed
        tiles.append(tile)
    return write_picture(output, contact_sheet(np.stack(tiles)))


def index_centers(embedding: np.ndarray, *, random_state: int = 0) -> np.ndarray:
    """Centers of an inverted-file index, √n_samples of them, from k-means on at most 64 rows per center.

    Returns
    -------
    ndarray (n_centers, n_features) float32
    """
    n_centers = max(1, round(len(embedding) ** 0.5))
    rows = np.sort(np.random.default_rng(random_state).permutation(len(embedding))[: 64 * n_centers])
    model = KMeans(n_clusters=n_centers, init="random", max_iter=10, random_state=random_state)
    return model.fit(embedding[rows]).cluster_centers_


def without_self(indices: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbors of rows 0, 1, … without each row itself, or without the farthest if duplicates took its place.

    Parameters
    ----------
    indices, distances : ndarray (n_rows, k + 1)

    Returns
    -------
    indices, distances : ndarray (n_rows, k)
    """
    itself = indices == np.arange(len(indices))[:, None]
    itself[:, -1] |= ~itself.any(axis=1)
    shape = (len(indices), indices.shape[1] - 1)
    return indices[~itself].reshape(shape), distances[~itself].reshape(shape)


def _found(
    indices: np.ndarray, distances: np.ndarray, vectors: Vectors, measures: Spread | None, random_state: int
) -> Found:
    """The result, with its distances compared with those of the set."""
    measures = measures or spread(vectors, random_state=random_state)
    return Found(indices, distances, measures.closer_than_pairs(distances), measures.closer_than_neighbors(distances))


def _checked(vectors: Vectors | np.ndarray, queries: np.ndarray, k: int) -> Vectors:
    vectors = InMemory(vectors) if isinstance(vectors, np.ndarray) else vectors
    if not len(vectors):
        raise InputError("There is no image to search. Learn the atlas from at least one.")
    if check_int(k, "k", "search") < 1:
        raise InputError(f"'k' must be at least 1. Got {k}.")
    n_features = vectors.at(np.zeros(1, np.int64)).shape[1]
    if queries.shape[1] != n_features:
        raise InputError(
            f"The query has {queries.shape[1]} features, the images have {n_features}; use the same encoder for both."
        )
    return vectors


def _share_beyond(known: np.ndarray, distances: np.ndarray) -> np.ndarray:
    return (1.0 - np.searchsorted(known, distances, side="left") / max(1, len(known))).astype(np.float32)
