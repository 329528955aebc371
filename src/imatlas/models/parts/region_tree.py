"""Tree of the regions of one image with their features, and the best labels of its regions given what each label costs.

Deep features describe texture and material, but are coarse; the hierarchy knows the outlines. A label is given to whole
nodes of the tree: the cut and the labels of least total cost are found exactly, from the finest regions up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imatlas.images.spec import ImageSpec
from imatlas.models.parts.boundary_cues import doubled, network_input, padded, texture_network
from imatlas.models.parts.hierarchy import MAX_PIXELS, Hierarchy, merged, pyramid_of
from imatlas.models.parts.region_graph import RegionGraph
from imatlas.nn.backbones import EfficientNetLite0

BLOCKS = {4: 40, 10: 112, 14: 192}
"""Blocks of EfficientNet-Lite0 whose outputs are the features of a region, and their channels."""
N_FEATURES = sum(BLOCKS.values())
CERTAIN = 1e-3
"""Levels of the hierarchy are kept this far from 0 and 1."""


@dataclass(frozen=True, eq=False)
class RegionTree:
    """Hierarchy of one image and the mean features of its n finest regions."""

    hierarchy: Hierarchy
    """Of the image, or of its reduced copy."""
    means: np.ndarray
    """(n, N_FEATURES) float32."""
    shares: np.ndarray
    """Share (n,) of the image in each region; the sum is 1."""

    @classmethod
    def of(cls, pixels: np.ndarray, spec: ImageSpec, *, max_pixels: int = MAX_PIXELS) -> RegionTree:
        """The tree of an image (H, W, C), as `hierarchy_of` takes it; outlines are not brought to its full size."""
        hierarchy, rgb, _, _ = merged(pyramid_of(pixels, spec, max_pixels)[-1])
        return cls._with_features(hierarchy, rgb)

    @classmethod
    def on(cls, graph: RegionGraph) -> RegionTree:
        """The tree of the image of a graph, with the same regions."""
        return cls._with_features(replace(graph.hierarchy, regions=graph.reduced), graph.rgb)

    @classmethod
    def _with_features(cls, hierarchy: Hierarchy, rgb: np.ndarray) -> RegionTree:
        shares = np.bincount(hierarchy.regions.ravel()) / hierarchy.regions.size
        return cls(hierarchy, region_means(hierarchy.regions, dense_features(rgb)), shares)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums (2 n - 1, D) over the finest regions in each node, of values (n, D)."""
        import higra

        tree = higra.Tree(self.hierarchy.parents)
        return np.asarray(higra.accumulate_sequential(tree, np.ascontiguousarray(values), higra.Accumulators.sum))

    def node_means(self, values: np.ndarray) -> np.ndarray:
        """Means (2 n - 1, D) over each node, of values (n, D) of the finest regions, weighted by their shares."""
        weights = self.shares[:, None]
        return self.sums(values * weights) / self.sums(weights)

    def largest_within(self, share: float) -> np.ndarray:
        """Node (n,) of each finest region: the smallest around it with at least this share of the image."""
        parents = self.hierarchy.parents
        enough = self.sums(self.shares[:, None])[:, 0] >= share * (1 - 1e-9)
        node = np.arange(len(parents))
        for i in range(len(parents) - 2, -1, -1):  # parents come later
            if not enough[i]:
                node[i] = node[parents[i]]
        return node[: self.hierarchy.n_regions]

    def cut(self, n: int) -> np.ndarray:
        """Node (n_regions,) of each finest region where the image is cut into n segments."""
        parents, n_regions = self.hierarchy.parents, self.hierarchy.n_regions
        last = n_regions + max(0, n_regions - n) - 1
        return self._nodes_from(np.arange(len(parents)) <= last)

    def labeled(self, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels of least cost: -log likelihood of the labels, and of the boundaries between and within segments.

        Parameters
        ----------
        costs : ndarray (n, K)
            Of each label in each finest region.

        Returns
        -------
        labels : ndarray (n,) of int
        nodes : ndarray (n,) of int
            The node of the tree that each finest region was labeled with.
        """
        parents, n = self.hierarchy.parents, self.hierarchy.n_regions
        separate = np.clip(self.hierarchy.levels, CERTAIN, 1 - CERTAIN)
        split, joined = -np.log(separate), -np.log(1 - separate)
        split[:n] = joined[:n] = 0
        uniform = self.sums(costs)
        as_one = uniform.min(axis=1)
        below = np.zeros(len(parents))
        least = np.zeros(len(parents))
        whole = np.ones(len(parents), bool)
        for i, parent in enumerate(parents.tolist()):
            joined[i] += below[i]
            apart = least[i] + split[i] if i >= n else np.inf
            together = as_one[i] + joined[i]
            whole[i] = together <= apart
            if parent != i:
                below[parent] += joined[i]
                least[parent] += min(together, apart)
        nodes = self._nodes_from(whole)
        return uniform.argmin(axis=1)[nodes], nodes

    def _nodes_from(self, whole: np.ndarray) -> np.ndarray:
        """Node of each finest region: the highest above it for which `whole` (2 n - 1,) is True."""
        parents = self.hierarchy.parents.tolist()
        nodes = [-1] * len(parents)
        for i in range(len(parents) - 1, -1, -1):
            above = nodes[parents[i]]
            nodes[i] = above if above >= 0 else (i if whole[i] else -1)
        return np.array(nodes[: self.hierarchy.n_regions])


@torch.inference_mode()
def dense_features(rgb: np.ndarray) -> np.ndarray:
    """Features (N_FEATURES, ceil(H / 4), ceil(W / 4)) float32 of an image (H, W, 3) in [0, 1]."""
    return dense_maps(texture_network(), network_input(rgb))[0].numpy()


def dense_maps(network: EfficientNetLite0, x: Tensor) -> Tensor:
    """Features (N, N_FEATURES, ceil(H / 4), ceil(W / 4)) of images (N, 3, H, W) in [-1, 1]; bilinear in between."""
    height, width = x.shape[2:]
    x = padded(doubled(x))
    size = (x.shape[2] // 8, x.shape[3] // 8)
    maps = network.maps(x, tuple(BLOCKS))
    out = torch.cat([F.interpolate(block, size=size, mode="bilinear", align_corners=False) for block in maps], 1)
    return out[:, :, : -(-height // 4), : -(-width // 4)]


def region_means(regions: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Means (n, C) float32 over regions (H, W) of maps (C, ceil(H / 4), ceil(W / 4)).

    A region too small to hold a sampled pixel gets the features at its first pixel.
    """
    from scipy.sparse import csr_array

    n = int(regions.max()) + 1
    sampled = regions[::4, ::4].ravel()
    first = np.unique(regions, return_index=True)[1]
    y, x = np.unravel_index(first, regions.shape)
    missed = np.flatnonzero(np.bincount(sampled, minlength=n) == 0)
    rows = np.concatenate([sampled, missed])
    places = np.concatenate([np.arange(sampled.size), (y[missed] // 4) * maps.shape[2] + x[missed] // 4])
    weights = 1 / np.bincount(rows, minlength=n)[rows]
    mean = csr_array((weights, (rows, places)), shape=(n, sampled.size))
    return np.asarray(mean @ maps.reshape(len(maps), -1).T, np.float32)
