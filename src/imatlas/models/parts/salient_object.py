"""The salient part of one image, without labels: what differs from regions that belong to the background.

After Zhu, Liang, Wei and Sun 2014, "Saliency Optimization from Robust Background Detection": a region is background if
what it is connected to touches the border of the image along much of its outline; the contrast to such regions makes
the foreground; a least-squares problem joins both. We differ in what connects: not colors, but the hierarchy. A path
from region to region goes the further, the more likely the regions along it are separate. The soft edge is a guided
filter (He, Sun and Tang 2013, "Guided Image Filtering").
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, label, uniform_filter
from scipy.sparse import coo_array, diags_array
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import spsolve
from scipy.spatial.distance import cdist

from imatlas.models.parts.region_graph import FAR, RegionGraph, ease_of_crossing, laplacian
from imatlas.models.parts.region_merging import adjacency

MAX_REGIONS = 400
"""A finer image is looked at in so many segments of its hierarchy."""
REACH = 0.25
"""Standard deviation of the distance at which contrast counts, a share of the longer side."""
STEEPNESS = 1.5
"""Power of the odds of a level by which saliency may change across a boundary."""
THRESHOLD = 0.5
"""Saliency above which a pixel belongs to the object."""
MINOR = 0.5
"""Separate parts are kept that have this share of the summed saliency of the largest."""

RADIUS, SMOOTHNESS, EDGE = 4, 1e-4, 3
"""Guided filter: half its window in pixels, its regularization, and how far from the outline pixels may be soft."""
TILE = 128
"""Side of the squares that are filtered one by one, those on the outline only."""


@dataclass(frozen=True, eq=False)
class SalientObject:
    """The most salient part of an image."""

    saliency: np.ndarray
    """In [0, 1], (H, W) float32."""
    mask: np.ndarray
    """The object (H, W) bool; empty if nothing stands out, as in an image of one region."""

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """top, left, bottom, right of the object in pixels, the last two exclusive; None if it is empty."""
        rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return None
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def salient_object(graph: RegionGraph) -> SalientObject:
    """The object of an image; deterministic, quick beside `region_graph`."""
    coarse = _coarse(graph)
    saliency = _saliency(graph, coarse)[coarse].astype(np.float32)[graph.regions]
    parts, n = label(saliency > THRESHOLD)
    sums = np.bincount(parts.ravel(), weights=saliency.ravel(), minlength=n + 1)
    sums[0] = 0
    kept = (sums > 0) & (sums >= MINOR * sums.max())
    return SalientObject(saliency, kept[parts])


def soft_alpha(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Alpha (H, W) float32 in [0, 1] of a mask, soft within a few pixels of its outline, as the colors change there.

    Parameters
    ----------
    picture : ndarray (H, W, 3) uint8
    mask : ndarray (H, W) bool
    """
    alpha = mask.astype(np.float32)
    ball = np.ones((2 * EDGE + 1,) * 2, bool)
    margin = 2 * RADIUS + EDGE
    for top, left in np.ndindex(*(-(-side // TILE) for side in mask.shape)):
        tile = slice(top * TILE, (top + 1) * TILE), slice(left * TILE, (left + 1) * TILE)
        around = tuple(slice(max(0, side.start - margin), side.stop + margin) for side in tile)
        part = mask[around]
        if part.all() or not part.any():
            continue
        near = binary_dilation(part, ball) & ~binary_erosion(part, ball, border_value=1)
        filtered = _guided(picture[around] / 255, part.astype(np.float64), near)
        inner = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(tile, around, strict=True))
        alpha[tile] = np.where(near, np.clip(filtered, 0, 1), part)[inner]
    return alpha


def _guided(image: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values (H, W), filtered to be locally linear in the colors of an image (H, W, 3); valid where wanted."""

    def mean(maps: np.ndarray) -> np.ndarray:
        return uniform_filter(maps, (2 * RADIUS + 1,) * 2, mode="nearest", axes=(0, 1))

    colors, level = mean(image), mean(values)
    covariance = mean(image * values[..., None]) - colors * level[..., None]
    spread = mean(image[..., :, None] * image[..., None, :]) - colors[..., :, None] * colors[..., None, :]
    slope = np.zeros_like(image)
    used = binary_dilation(wanted, np.ones((2 * RADIUS + 1,) * 2, bool))
    slope[used] = np.linalg.solve(spread[used] + SMOOTHNESS * np.eye(3), covariance[used][..., None])[..., 0]
    offset = level - (slope * colors).sum(axis=-1)
    return (mean(slope) * image).sum(axis=-1) + mean(offset)


def _coarse(graph: RegionGraph) -> np.ndarray:
    """Segment (n,) of each finest region, at most `MAX_REGIONS` different."""
    each = replace(graph.hierarchy, regions=np.arange(graph.hierarchy.n_regions, dtype=np.int32)[None])
    return each.segments(MAX_REGIONS)[0]


def _saliency(graph: RegionGraph, coarse: np.ndarray) -> np.ndarray:
    """Saliency (n,) in [0, 1] of each segment."""
    from skimage.color import rgb2lab
    from skimage.filters import threshold_otsu

    segments = coarse[graph.reduced]
    sizes = np.bincount(segments.ravel())
    if len(sizes) == 1:
        return np.zeros(1)
    pairs, _, lengths = adjacency(segments, graph.probability)
    first = np.unique(coarse, return_index=True)[1]
    levels = np.clip(graph.hierarchy.joined(*first[pairs].T), FAR, 1 - FAR)
    background = _background(segments, sizes, pairs, levels)
    # Contrast to the background, near ones first.
    height, width = segments.shape
    y, x = np.mgrid[:height, :width] / max(height, width)
    means = np.stack(
        [
            np.bincount(segments.ravel(), weights=channel.ravel()) / sizes
            for channel in (*np.moveaxis(rgb2lab(graph.rgb), 2, 0), y, x)
        ],
        axis=1,
    )
    near = np.exp(-cdist(means[:, 3:], means[:, 3:], "sqeuclidean") / (2 * REACH**2))
    contrast = _stretched((cdist(means[:, :3], means[:, :3]) * near) @ background)
    foreground = np.where(contrast > threshold_otsu(contrast), contrast * (1 - background), 0)
    # Least squares: s near 0 in the background and near 1 in the foreground, and alike where no boundary is.
    sides = np.sqrt(sizes)
    smoothness = laplacian(len(sizes), pairs, ease_of_crossing(lengths, levels, STEEPNESS))
    weights = sides * (background + foreground) + 1e-9
    return _stretched(spsolve((smoothness + diags_array(weights)).tocsc(), sides * foreground))


def _background(segments: np.ndarray, sizes: np.ndarray, pairs: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Probability (n,) in [0, 1) of being background, from the boundary connectivity of each segment."""
    n = len(sizes)
    steps = coo_array((-np.log(1 - levels), tuple(pairs.T)), shape=(n, n))
    reached = np.exp(-(dijkstra(steps.tocsr(), directed=False) ** 2) / 2)
    border = np.ones(segments.shape, bool)
    border[1:-1, 1:-1] = False
    at_border = np.bincount(segments[border], minlength=n)
    connectivity = reached @ at_border / np.sqrt(reached @ sizes)
    return 1 - np.exp(-(connectivity**2) / 2)


def _stretched(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1; all 0 if they are equal."""
    values = values - values.min()
    return values / max(float(values.max()), 1e-9)
