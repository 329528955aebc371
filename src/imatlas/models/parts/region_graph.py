"""Graph of the finest regions of one image: what strokes and salient objects are found on.

Nodes are the finest regions of the hierarchy; an edge joins two regions that touch, and knows how long their common
boundary is and at which level of the hierarchy they become one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array, csr_array, diags_array

from imatlas.images.spec import ImageSpec
from imatlas.models.parts.hierarchy import MAX_PIXELS, Hierarchy, full_size_regions, merged, pyramid_of
from imatlas.models.parts.region_merging import adjacency, region_means

FAR = 1e-4
"""Levels are kept this far from 0 and 1, so that every region is reached."""


@dataclass(frozen=True, eq=False)
class RegionGraph:
    """The n finest regions of an image, their E pairs of neighbors, and what both look like.

    Of an image of more than `MAX_PIXELS` pixels, all but the outlines of the regions comes from a reduced copy.
    """

    hierarchy: Hierarchy
    reduced: np.ndarray
    """The regions (h, w) int32 of the reduced copy; of the image itself, if it is small enough."""
    rgb: np.ndarray
    """The reduced copy (h, w, 3) float32 in [0, 1]."""
    probability: np.ndarray
    """Of a boundary at each pixel of the reduced copy, (h, w) float32."""
    pairs: np.ndarray
    """Numbers (E, 2) of the regions that touch."""
    lengths: np.ndarray
    """Length (E,) of their boundary, in edges between pixels of the reduced copy."""
    levels: np.ndarray
    """Level (E,) in [0, 1] at which they are joined: the saliency of their boundary."""
    features: np.ndarray
    """Appearance (n, D): square roots of the histograms of color and textons, and means of features of the network. The
    squared distance of two regions is a sum of squared Hellinger distances and one of features."""

    @property
    def regions(self) -> np.ndarray:
        """The regions (H, W) int32, from 0."""
        return self.hierarchy.regions

    @property
    def sizes(self) -> np.ndarray:
        """Pixels (n,) of each region of the reduced copy."""
        return np.bincount(self.reduced.ravel(), minlength=self.hierarchy.n_regions)


def region_graph(pixels: np.ndarray, spec: ImageSpec, *, max_pixels: int = MAX_PIXELS) -> RegionGraph:
    """Graph of the regions of one image, as slow as `hierarchy_of`; all that follows is quick.

    Parameters
    ----------
    pixels : ndarray (H, W, C)
        Of any size and number of channels, as `rgb_of` takes them.
    spec : ImageSpec
        Its dtype, range and alpha count; the size is that of the pixels.
    max_pixels : int
        Of the reduced copy.

    Raises
    ------
    InputError
        If there is no pixel.
    """
    pyramid = pyramid_of(pixels, spec, max_pixels)
    hierarchy, rgb, probability, features = merged(pyramid[-1])
    reduced = hierarchy.regions
    means, bounds = region_means(reduced, features)
    means[:, : bounds[-1]] = np.sqrt(means[:, : bounds[-1]])
    pairs, _, lengths = adjacency(reduced, probability)
    return RegionGraph(
        hierarchy=replace(hierarchy, regions=full_size_regions(reduced, pyramid)),
        reduced=reduced,
        rgb=rgb,
        probability=probability,
        pairs=pairs,
        lengths=lengths,
        levels=hierarchy.joined(*pairs.T),
        features=means,
    )


def ease_of_crossing(lengths: np.ndarray, levels: np.ndarray, steepness: float) -> np.ndarray:
    """Weights (E,) of boundaries: their lengths (E,), times the odds of being no boundary to the power `steepness`."""
    levels = np.clip(levels, FAR, 1 - FAR)
    return lengths * ((1 - levels) / levels) ** steepness


def laplacian(n: int, pairs: np.ndarray, weights: np.ndarray) -> csr_array:
    """Laplacian (n, n) of a graph: degrees on the diagonal, minus the weights (E,) of its pairs (E, 2)."""
    a, b = np.concatenate([pairs, pairs[:, ::-1]]).T
    near = coo_array((np.concatenate([weights, weights]), (a, b)), shape=(n, n)).tocsr()
    return (diags_array(near.sum(axis=1)) - near).tocsr()
