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

SMOOTHNESS = 0.125
"""Energy of the outline between a pixel and one of its 8 neighbors (less for diagonal ones)."""
N_SWEEPS = 2
"""Times that each pixel of an outline may move, per doubling of the size."""
RADII = (3, 5, 7)
"""Distances in pixels, in 8 directions, at which the colors of the regions around a pixel are sampled. Odd, so that
pixels which move at the same time do not sample each other."""
MIN_DEVIATION = 0.01
"""Least standard deviation of the colors within a region, in [0, 1]: two steps of 8 bits."""
CHUNK = 1 << 15
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
    outlines = _Outlines(regions, image)
    for _ in range(n_sweeps):
        rows, columns = np.nonzero(outlines.pixels())
        for parity in range(4):  # No two of these pixels are neighbors, so they move independently.
            chosen = np.flatnonzero((rows % 2 == parity // 2) & (columns % 2 == parity % 2))
            for start in range(0, len(chosen), CHUNK):
                part = chosen[start : start + CHUNK]
                outlines.move(rows[part], columns[part])
    return np.ascontiguousarray(outlines.regions[1:-1, 1:-1])


class _Outlines:
    """Regions (H + 2, W + 2), surrounded by -1, whose pixels can move to another region."""

    def __init__(self, regions: np.ndarray, image: Channels) -> None:
        self.regions = np.pad(regions, 1, constant_values=-1)
        self._image = image
        self._means, self._variances = region_statistics(regions, image)

    def pixels(self) -> np.ndarray:
        """Pixels (H, W) bool that share a side with another region."""
        inner = self.regions[1:-1, 1:-1]
        found = np.zeros(inner.shape, bool)
        down, right = inner[:-1] != inner[1:], inner[:, :-1] != inner[:, 1:]
        found[:-1] |= down
        found[1:] |= down
        found[:, :-1] |= right
        found[:, 1:] |= right
        return found

    def move(self, rows: np.ndarray, columns: np.ndarray) -> None:
        """Move each of these pixels (P,), none of which are neighbors, to the adjacent region of the least energy."""
        ring = self._around(rows, columns, (1,))
        own = self.regions[rows + 1, columns + 1]
        movable = keeps_connected()[((ring == own) << np.arange(8)[:, None]).sum(axis=0)]
        rows, columns, ring, own = rows[movable], columns[movable], ring[:, movable], own[movable]
        samples = self._around(rows, columns, RADII), self._colors_around(rows, columns, RADII)
        colors = self._image.at(rows, columns)
        at_home = self._squared(colors, own, *samples)
        alike = _shared_outline(ring, own)
        best, chosen = np.zeros(len(rows), np.float32), own.copy()
        for i in range(0, 8, 2):
            other = ring[i]
            p = np.flatnonzero((other != own) & (other >= 0) & (ring[:i:2] != other).all(axis=0))
            squared = self._squared(colors[p], other[p], samples[0][:, p], samples[1][:, p])
            energy = (squared - at_home[p]) / (self._variances[own[p]] + self._variances[other[p]])
            energy += alike[p] - _shared_outline(ring[:, p], other[p])
            better = energy < best[p]
            best[p[better]], chosen[p[better]] = energy[better], other[p[better]]
        self.regions[rows + 1, columns + 1] = chosen

    def _squared(self, colors: np.ndarray, of: np.ndarray, regions: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Squared distance (P,) of colors (P, C) from the mean of regions `of` (P,) among samples (S, P, C) around.

        The mean color of the whole region counts as one more sample.
        """
        inside = (regions == of).astype(np.float32)
        sums = np.einsum("spc,sp->pc", samples, inside) + self._means[of]
        difference = colors - sums / (inside.sum(axis=0) + 1)[:, None]
        return np.einsum("pc,pc->p", difference, difference)

    def _around(self, rows: np.ndarray, columns: np.ndarray, radii: Sequence[int]) -> np.ndarray:
        """Regions (8 len(radii), P) of the pixels at some distances; -1 outside of the image."""
        height, width = self.regions.shape
        places = _places(rows + 1, columns + 1, radii)
        return self.regions[np.clip(places[0], 0, height - 1), np.clip(places[1], 0, width - 1)]

    def _colors_around(self, rows: np.ndarray, columns: np.ndarray, radii: Sequence[int]) -> np.ndarray:
        """Colors (8 len(radii), P, C) at some distances; those outside of the image have no meaning."""
        height, width, _ = self._image.shape
        places = _places(rows, columns, radii)
        return self._image.at(np.clip(places[0], 0, height - 1), np.clip(places[1], 0, width - 1))


def _places(rows: np.ndarray, columns: np.ndarray, radii: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (8 len(radii), P) around pixels (P,)."""
    steps = np.concatenate([np.array(RING) * radius for radius in radii])[..., None]
    return rows + steps[:, 0], columns + steps[:, 1]


def _shared_outline(ring: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Energy (P,) of the outline that pixels do not have with their neighbors (8, P) of the same region."""
    weights = np.array([SMOOTHNESS, SMOOTHNESS / 2**0.5] * 4, np.float32)
    return weights @ (ring == of)


def region_statistics(regions: np.ndarray, image: Channels) -> tuple[np.ndarray, np.ndarray]:
    """Mean color (n, C) float32 of each region, and the variance (n,) float32 within it, summed over channels."""
    n, channels = int(regions.max()) + 1, image.shape[2]
    sums, squares, counts = np.zeros((n, channels)), np.zeros(n), np.zeros(n)
    for rows, values in image.bands():
        labels = regions[rows].ravel()
        flat = values.reshape(-1, channels)
        counts += np.bincount(labels, minlength=n)
        squares += np.bincount(labels, weights=np.einsum("pc,pc->p", flat, flat), minlength=n)
        for channel in range(channels):
            sums[:, channel] += np.bincount(labels, weights=flat[:, channel], minlength=n)
    means = sums / counts[:, None]
    variances = squares / counts - np.square(means).sum(axis=1)
    return means.astype(np.float32), np.maximum(variances, channels * MIN_DEVIATION**2).astype(np.float32)


@cache
def keeps_connected() -> np.ndarray:
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
