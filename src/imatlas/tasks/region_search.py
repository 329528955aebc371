"""Search for a part of an image among the parts of all images.

image -> hierarchy of segments with the mean features of the pretrained encoder in each (`RegionTree`)
      -> its parts: the segments that stay whole over the longest range of levels
parts of all images -> features standardized over all of them -> cosine distance to the part that is looked for
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects

from imatlas.images.spec import ImageSpec
from imatlas.models.parts.region_graph import region_graph
from imatlas.models.parts.region_tree import N_FEATURES, RegionTree
from imatlas.models.parts.salient_object import salient_object

N_PARTS = 8
"""Parts of an image, at most; one may lie within another."""
MIN_SHARE = 0.01
"""Share of its image that a part has at least."""
MAX_PIXELS = 160_000
"""A larger image is halved until it has no more pixels: about 1 s an image on one core."""
MIN_INSIDE = 0.5
"""Share of a finest region from which it belongs to what is looked for."""

N_NUMBERS = N_FEATURES + 4
"""Numbers of a part in a table: its features and its box."""

Box = tuple[int, int, int, int]
"""Left, top, width and height, in pixels of the image."""


@dataclass(frozen=True, eq=False)
class Query:
    """A part to look for: mean features (N_FEATURES,) and its box."""

    features: np.ndarray
    box: Box


def parts_of(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """The parts of one image (H, W, C), a table (N_PARTS, N_NUMBERS) float32: features, left, top, width, height.

    Rows beyond the number of parts are NaN. There is at least one part, the whole image if there is no other.
    """
    tree = RegionTree.of(pixels, spec, max_pixels=MAX_PIXELS)
    nodes = _parts(tree)
    height, width = tree.hierarchy.regions.shape
    # At the size of the image; the reduced copy may be of one pixel more than the exact half.
    scale = np.array([pixels.shape[1] / width, pixels.shape[0] / height])
    corners = _corners(tree)[nodes].reshape(-1, 2, 2) * scale
    first, last = np.floor(corners[:, 0]), np.minimum(np.ceil(corners[:, 1]), pixels.shape[1::-1])
    table = np.full((N_PARTS, N_NUMBERS), np.nan, np.float32)
    table[: len(nodes), :N_FEATURES] = tree.node_means(tree.means)[nodes]
    table[: len(nodes), N_FEATURES:] = np.concatenate([first, last - first], axis=1)
    return table


def query_of(
    pixels: np.ndarray, spec: ImageSpec, *, region: Box | None = None, point: tuple[int, int] | None = None
) -> Query:
    """What to look for in one image (H, W, C): a region, the part at a point (x, y), or else its salient object."""
    graph = region_graph(pixels, spec, max_pixels=MAX_PIXELS)
    tree = RegionTree.on(graph)
    if point is not None:
        mask = _part_at(tree, int(graph.regions[point[1], point[0]]))[graph.regions]
    elif region is not None:
        mask = np.zeros(graph.regions.shape, bool)
        mask[region[1] : region[1] + region[3], region[0] : region[0] + region[2]] = True
    else:
        mask = salient_object(graph).mask
        mask = mask if mask.any() else np.ones_like(mask)
    n, regions = len(tree.shares), graph.regions.ravel()
    inside = np.bincount(regions, weights=mask.ravel(), minlength=n) / np.maximum(np.bincount(regions, minlength=n), 1)
    # Regions that lie mostly inside, whose outlines are better than those of a box; if there are none, parts of them.
    weights = tree.shares * (inside > MIN_INSIDE if (inside > MIN_INSIDE).any() else inside)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1
    return Query((weights @ tree.means / weights.sum()).astype(np.float32), box)


def nearest_parts(features: np.ndarray, tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of each image that is nearest to features (N_FEATURES,).

    Parameters
    ----------
    features : ndarray (N_FEATURES,)
    tables : ndarray (n_images, N_PARTS, N_NUMBERS)
        Of `parts_of`; all NaN for an image without parts.

    Returns
    -------
    parts : ndarray (n_images,) int64
        Index of the nearest part of each image.
    distances : ndarray (n_images,) float32
        Cosine distance of standardized features, from 0, the same, to 2; 1 is unrelated. Infinite without parts.
    """
    known = np.isfinite(tables).all(axis=2)
    distances = np.full(known.shape, np.inf, np.float32)
    if known.any():
        rows = tables[known][:, :N_FEATURES]
        mean, deviation = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6)
        distances[known] = 1 - _unit((rows - mean) / deviation) @ _unit((features - mean) / deviation)
    nearest = distances.argmin(axis=1)
    return nearest, np.maximum(np.take_along_axis(distances, nearest[:, None], axis=1)[:, 0], 0)


def _parts(tree: RegionTree) -> np.ndarray:
    """The nodes (n,) that are parts: those that stay whole over the longest range of levels, first the longest."""
    levels, parents = tree.hierarchy.levels, tree.hierarchy.parents
    above = levels[parents]
    above[-1] = 1
    large = np.flatnonzero(tree.sums(tree.shares[:, None])[:, 0] >= MIN_SHARE)
    return large[np.argsort(levels[large] - above[large], kind="stable")[:N_PARTS]]


def _part_at(tree: RegionTree, region: int) -> np.ndarray:
    """Which of the finest regions (n,) are of the smallest part around one of them."""
    parents, parts = tree.hierarchy.parents, set(_parts(tree).tolist())
    node = region
    while node not in parts and parents[node] != node:
        node = int(parents[node])
    if node not in parts:  # the whole image is none
        node = int(tree.largest_within(MIN_SHARE)[region])
    within = np.zeros(len(parents), bool)
    within[node] = True
    for i in range(node - 1, -1, -1):  # parents come later
        within[i] = within[parents[i]]
    return within[: len(tree.shares)]


def _corners(tree: RegionTree) -> np.ndarray:
    """left, top, right, bottom (2 n - 1, 4) of each node in pixels of the reduced copy, the last two exclusive."""
    import higra

    boxes = [place for place in find_objects(tree.hierarchy.regions + 1) if place is not None]
    first = np.array([[x.start, y.start] for y, x in boxes], np.float64)
    last = np.array([[x.stop, y.stop] for y, x in boxes], np.float64)
    nodes = higra.Tree(tree.hierarchy.parents)
    ends = (
        higra.accumulate_sequential(nodes, first, higra.Accumulators.min),
        higra.accumulate_sequential(nodes, last, higra.Accumulators.max),
    )
    return np.concatenate(ends, axis=1)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows (..., D) of length 1; zeros stay."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))
