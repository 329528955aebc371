"""Graph of the finest regions of one image: what strokes and salient objects are found on.

Nodes are the finest regions of the hierarchy; an edge joins two regions that touch, and knows how long their common
boundary is and at which level of the hierarchy they become one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array, diags_array

from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.models.parts.boundary_cues import boundary_probability, image_features, rgb_of
from imatlas.models.parts.hierarchy import Hierarchy, ordered
from imatlas.models.parts.region_merging import RegionMerging, adjacency, region_means, watershed_regions


@dataclass(frozen=True, eq=False)
class RegionGraph:
    """The n finest regions of an image, their E pairs of neighbors, and what both look like."""

    rgb: np.ndarray
    """The image (H, W, 3) float32 in [0, 1]."""
    probability: np.ndarray
    """Of a boundary at each pixel, (H, W) float32."""
    hierarchy: Hierarchy
    pairs: np.ndarray
    """Numbers (E, 2) of the regions that touch."""
    lengths: np.ndarray
    """Length (E,) of their boundary, in edges between pixels."""
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
        """Pixels (n,) of each region."""
        return np.bincount(self.regions.ravel(), minlength=self.hierarchy.n_regions)


def region_graph(pixels: np.ndarray, spec: ImageSpec) -> RegionGraph:
    """Graph of the regions of one image, as slow as `hierarchy_of`; all that follows is quick.

    Parameters
    ----------
    pixels : ndarray (H, W, C)
        Of any size and number of channels, as `rgb_of` takes them.
    spec : ImageSpec
        Its dtype, range and alpha count; the size is that of the pixels.

    Raises
    ------
    InputError
        If there is no pixel.
    """
    if pixels.ndim != 3 or not pixels.size:
        raise InputError(f"An image to segment has shape (H, W, C) and at least one pixel. Got {pixels.shape}.")
    rgb = rgb_of(pixels, spec)
    if np.ptp(rgb.reshape(-1, 3), axis=0).max() == 0:  # One color.
        one = Hierarchy(np.zeros(rgb.shape[:2], np.int32), np.zeros(1, np.int64), np.zeros(1))
        none = np.zeros(0)
        return RegionGraph(
            rgb, np.zeros(rgb.shape[:2], np.float32), one, np.zeros((0, 2), np.int64), none, none, np.zeros((1, 1))
        )
    features = image_features(rgb)
    probability = boundary_probability(features)
    regions = watershed_regions(probability)
    merging = RegionMerging(regions, probability, features).run()
    hierarchy = ordered(regions, merging.parents, merging.separation)
    pairs, _, lengths = adjacency(regions, probability)
    means, bounds = region_means(regions, features)
    means[:, : bounds[-1]] = np.sqrt(means[:, : bounds[-1]])
    return RegionGraph(rgb, probability, hierarchy, pairs, lengths, hierarchy.joined(*pairs.T), means)


def laplacian(n: int, pairs: np.ndarray, weights: np.ndarray) -> csr_array:
    """Laplacian (n, n) of a graph: degrees on the diagonal, minus the weights (E,) of its pairs (E, 2)."""
    a, b = np.concatenate([pairs, pairs[:, ::-1]]).T
    near = coo_array((np.concatenate([weights, weights]), (a, b)), shape=(n, n)).tocsr()
    return (diags_array(near.sum(axis=1)) - near).tocsr()
