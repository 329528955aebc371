"""Refinement of the segments of one image by moves of single pixels, which keep each segment connected.

The energy is that of k-means with the Potts prior: squared distances of pixels to the mean of their segment, and a cost
for each pair of adjacent pixels in different segments. As in Yao et al. 2015, "Real-Time Coarse-to-fine Topologically
Preserving Segmentation", a pixel moves to the segment of a neighbor only if that cuts no segment in two. Pixels that do
not touch move together: those of every other row and column.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from imatlas.models.parts.outline_refinement import RING, keeps_connected

OUTSIDE = -1


def moved(labels: np.ndarray, features: np.ndarray, pair_cost: float, n_rounds: int) -> np.ndarray:
    """Labels after up to `n_rounds` moves of each boundary pixel to where the energy is least; no segment vanishes.

    Parameters
    ----------
    labels : ndarray (H, W) of int
        Connected segments from 0.
    features : ndarray (H W, C)
    pair_cost : float
        Of each of the 8 neighbors of a pixel in another segment.
    n_rounds : int
        After each, the means are computed anew.

    Returns
    -------
    ndarray (H, W) of int32
    """
    padded = np.pad(labels.astype(np.int32), 1, constant_values=OUTSIDE)
    inner = padded[1:-1, 1:-1]
    for _ in range(n_rounds):
        means = segment_means(inner.ravel(), features)
        n_moved = 0
        for top, left in product((0, 1), (0, 1)):
            rows, columns = np.nonzero(_beside_others(padded)[top::2, left::2])
            n_moved += _move(2 * rows + top, 2 * columns + left, padded, features, means, pair_cost)
        if not n_moved:
            break
    return inner.copy()


def segment_means(labels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Mean features (n_segments, C) of pixels with labels (N,) and features (N, C)."""
    sums = np.stack([np.bincount(labels, weights=column) for column in features.T], axis=1)
    return sums / np.bincount(labels)[:, None]


def _beside_others(padded: np.ndarray) -> np.ndarray:
    """Whether each pixel (H, W) shares a side with one of another label; the padding counts."""
    down, right = padded[1:] != padded[:-1], padded[:, 1:] != padded[:, :-1]
    return down[:-1, 1:-1] | down[1:, 1:-1] | right[1:-1, :-1] | right[1:-1, 1:]


def _move(
    rows: np.ndarray,
    columns: np.ndarray,
    padded: np.ndarray,
    features: np.ndarray,
    means: np.ndarray,
    pair_cost: float,
) -> int:
    """Move some pixels, of which no two touch; the number that moved. `padded` (H + 2, W + 2) is changed."""
    width = padded.shape[1]
    labels = padded.ravel()  # a view
    places = (rows + 1) * width + columns + 1
    steps = np.array([dy * width + dx for dy, dx in RING])
    own, ring = labels[places], labels[places[:, None] + steps]
    free = keeps_connected()[(ring == own[:, None]) @ (1 << np.arange(8))]
    places, own, ring = places[free], own[free], ring[free]
    values = features[(rows * (width - 2) + columns)[free]]

    def energy(label: np.ndarray) -> np.ndarray:
        differs = (ring != label[:, None]) & (ring != OUTSIDE)
        return ((values - means[label]) ** 2).sum(axis=1) + pair_cost * differs.sum(axis=1)

    best, least = own, energy(own)
    for beside in ring.T[::2]:
        label = np.where(beside == OUTSIDE, own, beside)
        cost = energy(label)
        best, least = np.where(cost < least, label, best), np.minimum(cost, least)
    labels[places] = best
    return int((best != own).sum())
