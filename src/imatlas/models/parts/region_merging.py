"""Greedy merging of the regions of one image, by boundary, color, texture and size of whole regions.

    boundary probability -> watershed -> region adjacency graph -> merge the least separate pair, compare the merged
    region with its neighbors anew, and so on until one region is left

As in Ren and Shakhnarovich 2013, "Image Segmentation by Cascaded Region Agglomeration", and Liu et al. 2016, "Image
Segmentation Using Hierarchical Merge Tree", the probability that two regions are separate is a function of features of
the pair; ours is one logistic function of nine features. Its weights were fitted to training images of BSDS500.
"""

from __future__ import annotations

import heapq

import numpy as np
from scipy.ndimage import gaussian_filter, label
from torch import Tensor

from imatlas.models.parts.boundary_cues import BLOCKS, N_TEXTONS, ImageFeatures, one_hot

PAIR_FEATURES = {
    "boundary logit": (0.761, 0.764),
    "lightness": (-0.034, 0.854),
    "color": (0.953, 0.0),
    "fine textons": (0.953, 0.849),
    "coarse textons": (1.381, 1.384),
    "last block": (0.5, 0.483),
    "log size of the smaller": (0.35, 0.338),
    "log size of the larger": (0.239, 0.279),
    "shared boundary": (-1.487, -1.591),
}
"""Weights of each feature of a pair in the logit of being separate: in images with color, and in those without."""
INTERCEPTS = (0.867, 1.295)

SMOOTHING = 0.7
"""Standard deviation in pixels by which the boundary probability is smoothed before its watershed."""
N_STEPS = 400
"""Steps to which the boundary probability is rounded, so that noise makes no minima."""
LEAST_PROBABILITY = 1e-3


def watershed_regions(probability: np.ndarray) -> np.ndarray:
    """Regions (H, W) int32 from 0, one for each local minimum of a boundary probability (H, W); each is connected."""
    from skimage.morphology import local_minima
    from skimage.segmentation import watershed

    heights = np.round(gaussian_filter(probability, SMOOTHING) * N_STEPS).astype(np.int32)
    walled = np.pad(heights, 1, constant_values=heights.max() + 1)  # a constant image has a minimum, too
    minima = local_minima(walled)[1:-1, 1:-1]
    return (watershed(heights, label(minima)[0]) - 1).astype(np.int32)


def adjacency(regions: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (E, 2) of adjacent regions, the sum of the boundary probability between them, and the boundary length.

    A boundary goes between pixels; it has the larger of the probabilities of both sides.
    """
    n = int(regions.max()) + 1
    codes, values = [], []
    for first, second in (
        ((slice(None), slice(-1)), (slice(None), slice(1, None))),
        ((slice(-1),), (slice(1, None),)),
    ):
        a, b = regions[first].astype(np.int64), regions[second].astype(np.int64)
        apart = a != b
        codes.append((np.minimum(a, b) * n + np.maximum(a, b))[apart])
        values.append(np.maximum(probability[first], probability[second])[apart])
    pairs, index = np.unique(np.concatenate(codes), return_inverse=True)
    lengths = np.bincount(index, minlength=len(pairs)).astype(np.float64)
    sums = np.bincount(index, weights=np.concatenate(values), minlength=len(pairs))
    return np.stack([pairs // n, pairs % n], axis=1), sums, lengths


class RegionMerging:
    """State of the merging of n regions into one; the merged ones get the numbers n, n + 1, … 2 n - 2.

    About 0.06 s for 470 regions.

    Parameters
    ----------
    regions : ndarray (H, W) of int
        Connected regions from 0.
    probability : ndarray (H, W)
        Of a boundary at each pixel.
    features : ImageFeatures

    Attributes
    ----------
    parents : ndarray (2 n - 1,) of int
        The merged region of each region; the last is its own.
    separation : ndarray (2 n - 1,)
        Probability, in (0, 1), that the two parts of a merged region are separate; 0 for the first n.
    """

    def __init__(self, regions: np.ndarray, probability: np.ndarray, features: ImageFeatures) -> None:
        n = self.n = int(regions.max()) + 1
        self.sizes = np.zeros(2 * n - 1)
        self.sizes[:n] = np.bincount(regions.ravel())
        means, self._bounds = region_means(regions, features)
        self._means = np.zeros((2 * n - 1, means.shape[1]))
        self._means[:n] = means
        self._perimeters = np.zeros(2 * n - 1)
        self._neighbors: list[dict[int, tuple[float, float]]] = [{} for _ in range(2 * n - 1)]
        self.parents = np.arange(2 * n - 1)
        self.separation = np.zeros(2 * n - 1)
        self._first = adjacency(regions, probability)
        self._weights = np.array(list(PAIR_FEATURES.values()))[:, int(features.is_gray)]
        self._intercept = INTERCEPTS[features.is_gray]

    def run(self) -> RegionMerging:
        """Merge all regions."""
        pairs, sums, lengths = self._first
        for (a, b), of_boundary in zip(pairs.tolist(), zip(sums.tolist(), lengths.tolist(), strict=True), strict=True):
            self._neighbors[a][b] = self._neighbors[b][a] = of_boundary
        self._perimeters[: self.n] = sum(np.bincount(side, weights=lengths, minlength=self.n) for side in pairs.T)
        scores = self.scores(pairs[:, 0], pairs[:, 1], sums / lengths, lengths)
        queue = [(score, a, b) for score, (a, b) in zip(scores.tolist(), pairs.tolist(), strict=True)]
        heapq.heapify(queue)
        merged = self.n
        while merged < len(self.parents):
            score, a, b = heapq.heappop(queue)
            if self.parents[a] != a or self.parents[b] != b:
                continue
            self.separation[merged] = score
            self._merge(a, b, merged)
            for other, other_score in self._scored_neighbors(merged):
                heapq.heappush(queue, (other_score, merged, other))
            merged += 1
        return self

    def scores(self, a: np.ndarray, b: np.ndarray, strength: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Probability that the regions of each pair are separate."""
        logits = self.pair_features(a, b, strength, lengths) @ self._weights + self._intercept
        return 1 / (1 + np.exp(-logits))

    def pair_features(self, a: np.ndarray, b: np.ndarray, strength: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Features (P, len(PAIR_FEATURES)) of pairs of adjacent regions.

        Parameters
        ----------
        a, b : ndarray (P,) of int
        strength : ndarray (P,)
            Mean boundary probability between them.
        lengths : ndarray (P,)
            Of the boundary between them.
        """
        first, second = self._means[a], self._means[b]
        histograms, block = slice(self._bounds[-1]), slice(self._bounds[-1], None)
        squares = (first - second) ** 2
        parts = squares[:, histograms] / (first[:, histograms] + second[:, histograms] + 1e-9)
        lightness, color_a, color_b, fine, coarse = np.add.reduceat(parts, self._bounds[:-1], axis=1).T / 2
        strength = np.clip(strength, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        total = self.sizes[: self.n].sum()
        return np.stack(
            [
                np.log(strength / (1 - strength)),
                np.sqrt(lightness),
                np.sqrt(color_a + color_b),
                np.sqrt(fine),
                np.sqrt(coarse),
                np.sqrt(squares[:, block].sum(axis=1)),
                np.log(np.minimum(self.sizes[a], self.sizes[b]) / total),
                np.log(np.maximum(self.sizes[a], self.sizes[b]) / total),
                lengths / np.minimum(self._perimeters[a], self._perimeters[b]),
            ],
            axis=1,
        )

    def _merge(self, a: int, b: int, merged: int) -> None:
        """Replace regions a and b by one."""
        sizes, neighbors = self.sizes, self._neighbors
        self.parents[[a, b]] = merged
        sizes[merged] = sizes[a] + sizes[b]
        self._means[merged] = (self._means[a] * sizes[a] + self._means[b] * sizes[b]) / sizes[merged]
        self._perimeters[merged] = self._perimeters[a] + self._perimeters[b] - 2 * neighbors[a][b][1]
        around = neighbors[merged]
        for part in (a, b):
            for other, (strength, length) in neighbors[part].items():
                if other in (a, b):
                    continue
                del neighbors[other][part]
                known = around.get(other, (0.0, 0.0))
                around[other] = (known[0] + strength, known[1] + length)
            neighbors[part] = {}
        for other, of_boundary in around.items():
            neighbors[other][merged] = of_boundary

    def _scored_neighbors(self, region: int) -> list[tuple[int, float]]:
        """Each neighbor of a region and the probability that they are separate."""
        around = self._neighbors[region]
        if not around:
            return []
        others, (sums, lengths) = np.array(list(around)), np.array(list(around.values())).T
        scores = self.scores(np.full(len(others), region), others, sums / lengths, lengths)
        return list(zip(others.tolist(), scores.tolist(), strict=True))


def region_means(regions: np.ndarray, features: ImageFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Five histograms and the mean of the last block of each region.

    Returns
    -------
    means : ndarray (n_regions, n_features)
        Histograms of L, a, b and of fine and coarse textons, each of sum 1 (or a
        little less, without rare bins); means of the last block.
    bounds : ndarray (6,) of int
        Where each histogram starts, and where the last one ends.
    """
    n_bins = np.cumsum([0, *features.n_bins, N_TEXTONS, N_TEXTONS])
    maps = (
        (features.colors, 2),
        (one_hot(features.fine_textons), 2),
        (one_hot(features.coarse_textons), 4),
        (features.last_block, max(BLOCKS.values())),
    )
    return np.concatenate([_means_over(regions, values, stride) for values, stride in maps], axis=1), n_bins


def _means_over(regions: np.ndarray, maps: Tensor, stride: int) -> np.ndarray:
    """Means (n_regions, C) of maps (C, ...) with a value for each `stride`-th pixel.

    A region without such a pixel gets the value nearest to its first pixel.
    """
    n = int(regions.max()) + 1
    sampled = regions[::stride, ::stride].ravel()
    values = maps.flatten(1).numpy()
    counts = np.bincount(sampled, minlength=n)
    sums = np.stack([np.bincount(sampled, weights=channel, minlength=n) for channel in values], axis=1)
    missed = np.flatnonzero(counts == 0)
    if len(missed):
        y, x = np.unravel_index(np.unique(regions, return_index=True)[1][missed], regions.shape)
        sums[missed], counts[missed] = values[:, (y // stride) * maps.shape[2] + x // stride].T, 1
    return sums / counts[:, None]
