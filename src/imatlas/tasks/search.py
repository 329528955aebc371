"""Find the nearest images to a query, with distances told in the set's own measures of near and far."""

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
"""Images up to which each search looks at all of them; above, an index proposes those that are looked at."""

PAIRS, SINGLES = 4096, 512
"""Random pairs, and random images with their nearest ones, from which the set's own measures are taken."""

AWAY = 0.25
"""How much the distance to the counter-examples counts against that to the examples."""

TILE, FRAME = 128, 4
"""Side of a picture on a sheet, and width of the frame around what was asked for, in pixels."""

DEEP = 200
"""Images near each example, at least, among which counter-examples choose; ten times as many as are asked for."""


class Vectors(Protocol):
    """An embedding that can be searched: in memory, or in a table on the disk with an index."""

    def __len__(self) -> int: ...

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n_queries, k) int64, nearest first, and Euclidean distances (n_queries, k) of these rows, exact."""

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Some rows of the embedding (n, n_features) float32."""


@dataclass(frozen=True)
class InMemory:
    """An embedding (n_samples, n_features) in memory, searched exactly: O(n_queries · n_samples · n_features)."""

    embedding: np.ndarray

    def __len__(self) -> int:
        return len(self.embedding)

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest of all rows."""
        indices, squared = k_nearest(as_tensor(self.embedding), as_tensor(queries), min(k, len(self)))
        return indices.numpy(), squared.sqrt_().numpy()

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Some rows of the embedding."""
        return self.embedding[rows]


@dataclass(frozen=True)
class Spread:
    """How far apart the images of a set lie.

    Attributes
    ----------
    pairs : ndarray (n_pairs,)
        Distances of random pairs of different images, ascending: the set's own measure of far.
    neighbors : ndarray (n_singles,)
        Distances of random images to the image nearest to each, ascending: its own measure of near.
    """

    pairs: np.ndarray
    neighbors: np.ndarray

    def closer_than_pairs(self, distances: np.ndarray) -> np.ndarray:
        """The share, 0 to 1, of random pairs that lie at least as far apart as each distance says."""
        return _share_beyond(self.pairs, distances)

    def closer_than_neighbors(self, distances: np.ndarray) -> np.ndarray:
        """The share, 0 to 1, of images whose own nearest image is at least as far away as each distance says."""
        return _share_beyond(self.neighbors, distances)


@dataclass(frozen=True)
class Found:
    """The nearest images of each query.

    Attributes
    ----------
    indices : ndarray (n_queries, k) int64
        Rows of the embedding, best first.
    distances : ndarray (n_queries, k) float32
        Euclidean; to several examples, the harmonic mean.
    closer_than : ndarray (n_queries, k) float32
        Share of random pairs of the set that lie farther apart than this image and the query, 0..1. 1: closer than
        any pair drawn; 0.5: no more alike than two images drawn at random.
    closer_than_neighbors : ndarray (n_queries, k) float32
        Share of the images whose own nearest image is farther away than that, 0..1. 0.5: as near as neighbors usually
        are here; 0: no image is so far from its nearest one, so this one is not really like the query.
    """

    indices: np.ndarray
    distances: np.ndarray
    closer_than: np.ndarray
    closer_than_neighbors: np.ndarray


def spread(vectors: Vectors, *, random_state: int = 0) -> Spread:
    """Measure how far apart the images of a set lie, from 4,096 random pairs and 512 random images."""
    rng = np.random.default_rng(random_state)
    n = len(vectors)
    if n < 2:
        return Spread(np.zeros(0, np.float32), np.zeros(0, np.float32))
    first = rng.integers(n, size=PAIRS)
    second = (first + rng.integers(1, n, size=PAIRS)) % n
    rows, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    ends = vectors.at(rows)
    apart = np.linalg.norm(ends[place[:PAIRS]] - ends[place[PAIRS:]], axis=1)
    some = np.sort(rng.permutation(n)[:SINGLES])
    indices, distances = vectors.nearest(vectors.at(some), 2)
    others = np.where(indices == some[:, None], np.inf, distances)  # an equal image may come before the image itself
    return Spread(np.sort(apart), np.sort(others.min(axis=1)))


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
        What to search among; an array is searched exactly, in bounded memory.
    queries : ndarray (n_queries, n_features)
    k : int
        How many to find; all where there are fewer.
    measures : Spread, optional
        Of the set, where it is known already.
    random_state : int
        Seed of the random pairs and images behind `measures`.

    Raises
    ------
    InputError
        If there is nothing to search, `k` is below 1, or the features differ in number.
    """
    vectors = _checked(vectors, queries, k)
    return _told(*vectors.nearest(queries, min(k, len(vectors))), vectors, measures, random_state)


def search_like(
    vectors: Vectors | np.ndarray,
    examples: np.ndarray,
    counter_examples: np.ndarray,
    *,
    k: int = 10,
    measures: Spread | None = None,
    random_state: int = 0,
) -> Found:
    """The `k` images that are most like several examples, and less like the counter-examples.

    Images are ordered by the harmonic mean of their distances to the examples, less a quarter of that to the
    counter-examples: near to one example counts for much, near to more of them for more. Ordered are those that are
    among the 10 k (at least 200) nearest to any example. `python -m benchmarks search_several` compares this with the
    mean of the distances, with the nearest example, and with one query moved as Rocchio has it (1971, "Relevance
    feedback in information retrieval").

    Parameters
    ----------
    vectors, k, measures, random_state
        As in `search`.
    examples, counter_examples : ndarray (n_examples, n_features), (n_counter_examples, n_features)
        At least one example; none of the counter-examples is needed.

    Returns
    -------
    Found
        Of one query.
    """
    if len(examples) == 1 and not len(counter_examples):
        return search(vectors, examples, k=k, measures=measures, random_state=random_state)
    vectors = _checked(vectors, examples, k)
    near, _ = vectors.nearest(examples, min(max(DEEP, 10 * k), len(vectors)))
    rows = np.unique(near)
    found = vectors.at(rows)
    distances = _to_several(found, examples)
    score = distances - AWAY * _to_several(found, counter_examples) if len(counter_examples) else distances
    best = np.argsort(score, kind="stable")[:k]
    return _told(rows[best][None], distances[best][None], vectors, measures, random_state)


def _to_several(rows: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """The harmonic mean of the distances of each row to the examples (n_rows,) float32."""
    apart = np.stack([np.linalg.norm(rows - example, axis=1) for example in examples])
    return (len(examples) / (1 / np.maximum(apart, 1e-12)).sum(axis=0)).astype(np.float32)


def write_sheet(asked: Sequence[bytes], found: Sequence[bytes], output: str | Path) -> Path:
    """Draw what was asked for, within frames, and what was found, in its order, as one .png file.

    Parameters
    ----------
    asked, found : sequence of bytes
        Small pictures, as the bytes of image files.
    output : path

    Returns
    -------
    Path
        The file.
    """
    tiles = []
    for number, content in enumerate([*asked, *found]):
        tile = read_picture(content).fitted(TILE, TILE, "pad", (255, 255, 255))
        tile = composited_visibly(tile[None], (255, 255, 255))[0] if tile.shape[2] in (2, 4) else tile
        tile = np.repeat(tile, 3, axis=2) if tile.shape[2] == 1 else tile
        if number < len(asked):
            framed = np.zeros_like(tile)
            framed[FRAME:-FRAME, FRAME:-FRAME] = tile[FRAME:-FRAME, FRAME:-FRAME]
            tile = framed
        tiles.append(tile)
    return write_picture(output, contact_sheet(np.stack(tiles)))


def index_centers(embedding: np.ndarray, *, random_state: int = 0) -> np.ndarray:
    """Centers by which an index files an embedding: the square root of its rows many, so that both halves cost alike.

    k-means on at most 64 rows a center (faiss takes from 39 to 256): a center's exact place matters little.

    Returns
    -------
    ndarray (n_centers, n_features) float32
    """
    n_centers = max(1, round(len(embedding) ** 0.5))
    rows = np.sort(np.random.default_rng(random_state).permutation(len(embedding))[: 64 * n_centers])
    model = KMeans(n_clusters=n_centers, init="random", max_iter=10, random_state=random_state)
    return model.fit(embedding[rows]).cluster_centers_


def without_self(indices: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbors of rows 0, 1, … with each row itself left out, or the farthest where equal rows took its place.

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


def _told(
    indices: np.ndarray, distances: np.ndarray, vectors: Vectors, measures: Spread | None, random_state: int
) -> Found:
    """What was found, with its distances in the set's own measures."""
    measures = measures or spread(vectors, random_state=random_state)
    return Found(indices, distances, measures.closer_than_pairs(distances), measures.closer_than_neighbors(distances))


def _checked(vectors: Vectors | np.ndarray, queries: np.ndarray, k: int) -> Vectors:
    found: Vectors = InMemory(vectors) if isinstance(vectors, np.ndarray) else vectors
    if not len(found):
        raise InputError("There is no image to search among; learn the atlas from at least one.")
    if check_int(k, "k", "search") < 1:
        raise InputError(f"'k' must be at least 1. Got {k}.")
    n_features = found.at(np.zeros(1, np.int64)).shape[1]
    if queries.shape[1] != n_features:
        raise InputError(
            f"The query has {queries.shape[1]} features and the images have {n_features}; embed both alike."
        )
    return found


def _share_beyond(usual: np.ndarray, distances: np.ndarray) -> np.ndarray:
    return (1.0 - np.searchsorted(usual, distances, side="left") / max(1, len(usual))).astype(np.float32)
