"""Strokes and points as a user would draw them, simulated from a human segmentation."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, label
from skimage.graph import route_through_array

KINDS = ("strokes", "points")
SMALLEST = 0.01
"""Share of the image from which a segment gets a stroke."""
LONGEST = 40
"""Pixels along a stroke."""
DEPTH = 0.6
"""A stroke starts, and aims, where the distance to the border of its segment is at least this share of the largest."""


def simulated(truth: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """One stroke, 3 pixels wide, or one point near the medial axis of each connected segment of at least 1 %.

    Parameters
    ----------
    truth : ndarray (H, W) of int
    kind : "strokes" or "points"
    rng : Generator

    Returns
    -------
    ndarray (H, W) int32
        0 where nothing is drawn, otherwise the number of the segment plus 1.
    """
    drawn = np.zeros(truth.shape, np.int32)
    for number in np.unique(truth):
        parts, n = label(truth == number)
        for part in (parts == i for i in range(1, n + 1)):
            if part.mean() >= SMALLEST:
                drawn[_stroke(part, rng) if kind == "strokes" else _points(part, 1, rng)[1]] = number + 1
    return drawn


def _points(part: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Distance (H, W) to the border of a segment, and the (y, x) of n random places where it is large."""
    depth = distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
    deep = np.argwhere(depth >= DEPTH * depth.max())
    return depth, tuple(deep[rng.choice(len(deep), n)].T)


def _stroke(part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mask (H, W) of a stroke from one such place towards another, along the middle of the segment."""
    depth, (y, x) = _points(part, 2, rng)
    costs = np.where(part, 1 / np.maximum(depth, 1), -1.0)  # negative: no way through
    path = route_through_array(costs, (y[0], x[0]), (y[1], x[1]), fully_connected=True)[0][:LONGEST]
    line = np.zeros(part.shape, bool)
    line[tuple(np.array(path).T)] = True
    return binary_dilation(line) & part
