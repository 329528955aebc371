"""Outlines of the regions of a reduced image, brought to full resolution.

regions at half the size -> each pixel becomes 2 x 2 -> pixels on an outline move to an adjacent region

As in Yao et al. 2015, "Real-Time Coarse-to-Fine Topologically Preserving Segmentation", pixels move one by one where
that lowers an energy and no region is torn: their colors against the mean colors of both regions, and the length of the
outline. Only pixels of an outline are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from imatlas.models.parts.channels import Channels

SMOOTHNESS = 0.5
"""Energy of an edge of the outline between a pixel and one of its 8 neighbors (less for diagonal ones)."""
N_SWEEPS = 2
"""Times that each pixel of an outline may move, per doubling of the size."""
MIN_DEVIATION = 0.01
"""Least standard deviation of the colors within a region, in [0, 1]: a step of about two in 8 bits."""
CHUNK = 1 << 18
"""Pixels that are processed together, which bounds the memory."""

RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""The 8 neighbors of a pixel, (row, column), clockwise; the even ones share a side with it."""


def enlarged(regions: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Regions (h, w) at the size (H, W), where h = ceil(H / 2) and w = ceil(W / 2): each pixel becomes 2 x 2."""
    return np.repeat(np.repeat(regions, 2, axis=0)[: size[0]], 2, axis=1)[:, : size[1]]


def refined(regions: np.ndarray, image: Channels, n_sweeps: int = N_SWEEPS) -> np.ndarray:
    """Regions (H, W) int32 whose outlines follow the colors of an image; the regions stay connected, and none is lost.

    Parameters
    ----------
    regions : ndarray (H, W) int32
        Connected regions from 0.
    image : Channels (H, W, C)
    n_sweeps : int
        Pixels by which an outline moves at most.
    """
    width = regions.shape[1]
    padded = np.pad(regions, 1, constant_values=-1)
    means, variances = region_statistics(regions, image)
    flat = padded.ravel()
    for _ in range(n_sweeps):
        rows, columns = np.nonzero(on_outline(padded))
        moved = 0
        for parity in range(4):  # No two of these pixels are neighbors, so they move independently.
            chosen = np.flatnonzero((rows % 2 == parity // 2) & (columns % 2 == parity % 2))
            for start in range(0, len(chosen), CHUNK):
                part = chosen[start : start + CHUNK]
                y, x = rows[part], columns[part]
                at = (y + 1) * (width + 2) + x + 1
                moved += _move(flat, at, width + 2, image.at(y, x), means, variances)
        if not moved:
            break
    return np.ascontiguousarray(padded[1:-1, 1:-1])


def on_outline(padded: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool next to another region, of regions (H + 2, W + 2) that are surrounded by -1."""
    inner = padded[1:-1, 1:-1]
    found = np.zeros(inner.shape, bool)
    down, right = inner[:-1] != inner[1:], inner[:, :-1] != inner[:, 1:]
    found[:-1] |= down
    found[1:] |= down
    found[:, :-1] |= right
    found[:, 1:] |= right
    return found


def region_statistics(regions: np.ndarray, image: Channels) -> tuple[np.ndarray, np.ndarray]:
    """Mean color (n, C) float32 of each region, and the variance (n,) float32 within it, summed over channels."""
    n, channels = int(regions.max()) + 1, image.shape[2]
    sums, squares, counts = np.zeros((n, channels)), np.zeros(n), np.zeros(n)
    for rows, values in image.bands():
        labels = regions[rows].ravel()
        flat = values.reshape(-1, channels).astype(np.float64)
        counts += np.bincount(labels, minlength=n)
        squares += np.bincount(labels, weights=np.square(flat).sum(axis=1), minlength=n)
        for channel in range(channels):
            sums[:, channel] += np.bincount(labels, weights=flat[:, channel], minlength=n)
    means = sums / counts[:, None]
    variances = squares / counts - np.square(means).sum(axis=1)
    return means.astype(np.float32), np.maximum(variances, channels * MIN_DEVIATION**2).astype(np.float32)


def _move(
    labels: np.ndarray, at: np.ndarray, stride: int, colors: np.ndarray, means: np.ndarray, variances: np.ndarray
) -> int:
    """Move pixels to the adjacent region of the least energy, in place; returns how many moved.

    Parameters
    ----------
    labels : ndarray
        Flattened regions, surrounded by -1; rows are `stride` long.
    at : ndarray (P,)
        Indices of the pixels, none of which are neighbors.
    colors : ndarray (P, C)
    """
    own = labels[at]
    ring = np.stack([labels[at + dy * stride + dx] for dy, dx in RING])
    weights = np.array([SMOOTHNESS, SMOOTHNESS / 2**0.5] * 4, np.float32)[:, None]
    here = ring == own
    alike = (here * weights).sum(axis=0)
    codes = (here << np.arange(8)[:, None]).sum(axis=0)
    distance = np.square(colors - means[own]).sum(axis=1)
    best, chosen = np.zeros(len(at), np.float32), own.copy()
    for other in ring[::2]:
        gain = np.square(colors - means[other]).sum(axis=1) - distance
        gain = gain / (variances[own] + variances[other])
        gain += alike - ((ring == other) * weights).sum(axis=0)
        better = (gain < best) & (other >= 0) & (other != own)
        best[better], chosen[better] = gain[better], other[better]
    moves = (chosen != own) & _keeps_connected()[codes]
    labels[at[moves]] = chosen[moves]
    return int(moves.sum())


@cache
def _keeps_connected() -> np.ndarray:
    """Whether a region stays connected without a pixel, (256,) by the bits of its neighbors in it, as in `RING`.

    They do if those that share a side with the pixel are connected to each other along the ring.
    """
    found = np.zeros(256, bool)
    for code in range(256):
        inside = [bool(code >> i & 1) for i in range(8)]
        sides = sum(inside[::2])
        joined = sum(all(inside[(i + k) % 8] for k in range(3)) for i in range(0, 8, 2))
        found[code] = sides - joined == 1 or sides == joined == 4
    return found
