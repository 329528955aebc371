"""Candidate pairs of duplicates, proposed by nearest-neighbor searches over features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from imatlas.models.kmeans import KMeans
from imatlas.neighbors import as_tensor, k_nearest
from imatlas.tasks.duplicates.features import (
    N_ORIENTATIONS,
    STRIPS,
    WINDOWS,
    Features,
    as_float,
    lowest_frequencies,
    normalized,
    reorient_features,
)

N_PROPOSED, N_COMPARED = 4, 4
"""Images that each search proposes for one image, and how many of all proposals are compared with it."""

MAX_TANGENT_DISTANCE = 0.6
"""Largest tangent distance of pairs that are compared."""

EXHAUSTIVE_LIMIT = 20_000
"""Images up to which the search is exhaustive; above, it covers those in the nearest k-means cells."""

N_PROBES = 8
"""Cells searched for each query."""

BATCH = 16_384
"""Queries searched together: bounds memory."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of images, A = `first` and B = `second` (n,): B shows a window of A in an orientation.

    `distance` is the tangent distance between their features.
    """

    first: np.ndarray
    second: np.ndarray
    window: np.ndarray
    orientation: np.ndarray
    distance: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: np.ndarray) -> Pairs:
        return Pairs(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @classmethod
    def concatenate(cls, parts: list[Pairs]) -> Pairs:
        """The pairs of several lists."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))

    @property
    def by_image(self) -> tuple[np.ndarray, np.ndarray]:
        """(image, pair), each (2n,): every pair once for each of its two images."""
        return np.concatenate([self.first, self.second]), np.tile(np.arange(len(self)), 2)


def propose(
    features: Features, rows: np.ndarray, queries: np.ndarray, *, rotated: bool = False
) -> tuple[Pairs, np.ndarray]:
    """The most similar pairs of images `rows` for each of the images `queries` among them.

    Returns
    -------
    pairs : Pairs
        A few per image; each two images once, in the window and orientation of the smallest distance.
    runner_up : ndarray (n_images,)
        The distance of the best pair of each image that was left out; infinite where there was none.
    """
    found = []
    for index, searches in _searches(features, rows, queries, range(N_ORIENTATIONS if rotated else 1)):
        neighbors = _NeighborSearch(index)
        for window, orientation, query in searches:
            near = neighbors.nearest(query, N_PROPOSED + 1)
            first = np.repeat(queries, near.shape[1])
            second = rows[near.ravel()]
            keep = (first != second) & (near.ravel() >= 0)
            n = int(keep.sum())
            by = np.full(n, window, np.int8), np.full(n, orientation, np.int8)
            found.append(Pairs(first[keep], second[keep], *by, np.zeros(n, np.float32)))
    return _best(_within_distance(features, Pairs.concatenate(found)), len(features.windows))


def _searches(
    features: Features, rows: np.ndarray, queries: np.ndarray, orientations: range
) -> Iterator[tuple[torch.Tensor, list[tuple[int, int, torch.Tensor]]]]:
    """Each index to search, with its (window, orientation, query features)."""
    wholes = as_float(features.windows[rows, 0])
    by_window = []
    for window in range(len(WINDOWS)):
        feats = normalized(as_float(features.windows[queries, window]))
        by_window += [(window, orientation, reorient_features(feats, orientation)) for orientation in orientations]
    yield normalized(wholes), by_window
    for strip in range(len(STRIPS)):
        own, others = (normalized(as_float(features.strips[some, strip])) for some in (queries, rows))
        yield others, [(0, 0, own)]
    own = as_float(features.windows[queries, 0])
    yield (
        lowest_frequencies(wholes),
        [(0, orientation, lowest_frequencies(reorient_features(own, orientation))) for orientation in orientations],
    )


def _within_distance(features: Features, pairs: Pairs) -> Pairs:
    """The pairs with their distances, without those beyond `MAX_TANGENT_DISTANCE`."""
    distance = np.empty(len(pairs), np.float32)
    for orientation in np.unique(pairs.orientation):
        chosen = np.flatnonzero(pairs.orientation == orientation)
        for start in range(0, len(chosen), 4096):
            some = chosen[start : start + 4096]
            part = pairs[some]
            distance[some] = features.distance(part.first, part.second, part.window, int(orientation))
    return replace(pairs, distance=distance)[distance <= MAX_TANGENT_DISTANCE]


def _best(pairs: Pairs, n: int) -> tuple[Pairs, np.ndarray]:
    """Each two images once, of these the best `N_COMPARED` of each image; and the distance of its next."""
    # Keep the nearest pair of each two images.
    low, high = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    order = np.lexsort((pairs.distance, high, low))
    pairs, low, high = pairs[order], low[order], high[order]
    new = np.ones(len(pairs), bool)
    new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    pairs, low, high = pairs[new], low[new], high[new]
    # Keep the nearest pairs of each image.
    image, pair = np.concatenate([low, high]), np.tile(np.arange(len(pairs)), 2)
    order = np.lexsort((pairs.distance[pair], image))
    image, pair = image[order], pair[order]
    kept = np.unique(pair[_position_in_run(image) < N_COMPARED])
    dropped = ~np.isin(pair, kept)
    runner_up = np.full(n, np.inf, np.float32)
    np.minimum.at(runner_up, image[dropped], pairs.distance[pair[dropped]])
    return pairs[kept], runner_up


def _position_in_run(values: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each run of equal values (n,)."""
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


class _NeighborSearch:
    """Nearest rows of an index: exhaustive, or within the nearest k-means cells of a large one."""

    def __init__(self, index: torch.Tensor) -> None:
        self.index = index
        self.cells: list[torch.Tensor] = []
        if len(index) > EXHAUSTIVE_LIMIT:
            n_cells = int(np.sqrt(len(index)))
            sample = index[:: max(1, len(index) // (64 * n_cells))]
            model = KMeans(n_clusters=n_cells, max_iter=8, n_init=1, random_state=0).fit(sample.numpy())
            self.centers = as_tensor(model.cluster_centers_)
            cell = k_nearest(self.centers, index, 1)[0][:, 0]
            order = torch.argsort(cell, stable=True)
            self.cells = list(order.split(torch.bincount(cell, minlength=n_cells).tolist()))

    def nearest(self, query: torch.Tensor, k: int) -> np.ndarray:
        """The rows (n, k) int64 nearest to each of `query` (n, n_features); -1 where there are fewer."""
        if not self.cells:
            return k_nearest(self.index, query, min(k, len(self.index)))[0].numpy()
        return np.concatenate([self._nearest_in_cells(part, k) for part in query.split(BATCH)])

    def _nearest_in_cells(self, query: torch.Tensor, k: int) -> np.ndarray:
        n_probes = min(N_PROBES, len(self.cells))
        probed = k_nearest(self.centers, query, n_probes)[0]
        rows = torch.full((len(query), n_probes, k), -1)
        distances = torch.full((len(query), n_probes, k), torch.inf)
        order = torch.argsort(probed.flatten(), stable=True)
        counts = torch.bincount(probed.flatten(), minlength=len(self.cells)).tolist()
        for members, probes in zip(self.cells, order.split(counts), strict=True):
            if not len(members) or not len(probes):
                continue
            which, slot = probes // n_probes, probes % n_probes
            n = min(k, len(members))
            near = torch.cdist(query[which], self.index[members]).topk(n, dim=1, largest=False)
            rows[which, slot, :n], distances[which, slot, :n] = members[near.indices], near.values
        best = distances.flatten(1).topk(k, dim=1, largest=False).indices
        return rows.flatten(1).gather(1, best).numpy()
