"""Segments from a few strokes of a user, by random walks on the regions of an image.

Leo Grady, "Random Walks for Image Segmentation", 2006: the probability of a label at a place is that of a random walker
from there meeting a stroke of this label first; it solves a sparse linear system. And Grady, "Multilabel Random Walker
Image Segmentation Using Prior Models", 2005: what a place looks like may count besides. We differ in the graph: a
walker steps between the finest regions of a hierarchy, some hundred or thousand instead of a million pixels, and
crosses a boundary the less likely, the higher the level at which its two sides are joined.

The two numbers below were chosen on training images of BSDS500 (`python -m benchmarks segmentation --only
scribbles`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.ndimage import find_objects, gaussian_filter
from scipy.sparse import diags_array
from scipy.sparse.linalg import splu
from scipy.spatial.distance import cdist

from imatlas.errors import InputError
from imatlas.models.parts.region_graph import RegionGraph, ease_of_crossing, laplacian
from imatlas.models.parts.region_merging import N_STEPS, SMOOTHING

STEEPNESS = 2.5
"""Power of the odds of a level by which a boundary is harder to cross."""
PRIOR = 0.05
"""Weight of the appearance of a region, for each pixel along a side of it."""


@dataclass(frozen=True, eq=False)
class Strokes:
    """Segmentation from strokes."""

    regions: np.ndarray
    """Regions (H, W) int32 from 0: the finest of the hierarchy, and pieces of those that have strokes of several
    labels."""
    classes: np.ndarray
    """The L labels that were drawn, ascending."""
    shares: np.ndarray
    """Probability (n_regions, L) of each label in each region; each row sums to 1."""

    @property
    def labels(self) -> np.ndarray:
        """The most probable label (H, W) of each pixel; that of the stroke where one is drawn."""
        return self.classes[self.shares.argmax(axis=1)][self.regions]

    def probability(self, label: int) -> np.ndarray:
        """Probability (H, W) float32 of a label at each pixel.

        Raises
        ------
        InputError
            If the label was not drawn.
        """
        if label not in self.classes:
            raise InputError(f"The labels that were drawn are {self.classes.tolist()}. Got {label!r}.")
        return self.shares[:, np.searchsorted(self.classes, label)].astype(np.float32)[self.regions]


def segment_by_strokes(graph: RegionGraph, strokes: np.ndarray) -> Strokes:
    """Segments that continue strokes to the whole image.

    Parameters
    ----------
    graph : RegionGraph
        Of the image; the same for all strokes.
    strokes : ndarray (H, W) of int or bool
        Labels, of any value above 0, where the user has drawn; 0 elsewhere.

    Raises
    ------
    InputError
        If the strokes are not integers of the image's size, at least 0, or there is none.
    """
    strokes = _checked(strokes, graph.regions.shape)
    drawn = np.nonzero(strokes)
    classes, index = np.unique(strokes[drawn], return_inverse=True)
    n, n_classes = graph.hierarchy.n_regions, len(classes)
    pixels = np.zeros((n, n_classes))
    np.add.at(pixels, (graph.regions[drawn], index), 1)
    shares = _walked(graph, pixels)
    disputed = np.flatnonzero((pixels > 0).sum(axis=1) > 1)
    if not len(disputed):
        return Strokes(graph.regions, classes, shares)
    regions, places = graph.regions.copy(), find_objects(graph.regions + 1)
    for region in disputed:
        place = places[region]
        mask = graph.regions[place] == region
        pieces = _pieces(mask, strokes[place], _boundaries_in(graph, place))
        regions[place][mask] = n + np.searchsorted(classes, pieces[mask])
    return Strokes(regions, classes, np.concatenate([shares, np.eye(n_classes)]))


def drawn(parts: Iterable[tuple[Any, int]], shape: tuple[int, ...], *, width: int = 1) -> np.ndarray:
    """Strokes (H, W) int32 from points and polylines.

    Parameters
    ----------
    parts : iterable of (points, label)
        Points are one (y, x) or a sequence of them, which are joined by straight lines; labels are above 0. Later
        parts are drawn over earlier ones.
    shape : (H, W)
    width : int
        Of the lines and points, in pixels.

    Raises
    ------
    InputError
        If a point lies outside of the image, or a label is not above 0.
    """
    from skimage.draw import disk, line

    strokes = np.zeros(shape, np.int32)
    for points, label in parts:
        corners = np.rint(np.atleast_2d(np.asarray(points, np.float64))).astype(np.int64)
        if corners.shape[1:] != (2,) or not corners.size or (corners < 0).any() or (corners >= shape).any():
            raise InputError(
                f"The points of a stroke are (y, x) within {shape[0]} x {shape[1]} pixels. Got {points!r}."
            )
        if label < 1:
            raise InputError(f"The label of a stroke is an integer above 0. Got {label!r}.")
        for start, end in pairwise([corners[0], *corners]):
            for y, x in zip(*line(*start, *end), strict=True):
                strokes[disk((y, x), width / 2, shape=shape)] = label
    return strokes


def _checked(strokes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    strokes = np.asarray(strokes)
    if strokes.shape != shape or strokes.dtype.kind not in "iub":
        raise InputError(f"Strokes are integers (H, W) = {shape}, as the image. Got {strokes.dtype} {strokes.shape}.")
    if strokes.dtype.kind == "b":
        strokes = strokes.astype(np.int32)
    if strokes.min() < 0 or strokes.max() == 0:
        raise InputError(
            f"Strokes are labels above 0 where something is drawn, 0 elsewhere. Got {strokes.min()} to {strokes.max()}."
        )
    return strokes


def _walked(graph: RegionGraph, pixels: np.ndarray) -> np.ndarray:
    """Probability (n, L) of each label in each region, from the number of pixels (n, L) that are drawn in it.

    Regions with strokes are fixed; each other one is also tied to one node per label, the more it looks like the
    region with this label that looks most like it.
    """
    known = pixels.sum(axis=1) > 0
    shares = pixels / np.maximum(pixels.sum(axis=1, keepdims=True), 1)
    if known.all():
        return shares
    weights = ease_of_crossing(graph.lengths, graph.levels, STEEPNESS)
    distances = cdist(graph.features[~known], graph.features[known], "sqeuclidean")
    nearest = np.stack([distances[:, found[known]].min(axis=1) for found in (pixels > 0).T], axis=1)
    prior = np.exp(nearest.min(axis=1, keepdims=True) - nearest)
    prior *= (PRIOR * np.sqrt(graph.sizes[~known]) / prior.sum(axis=1))[:, None]
    system = laplacian(len(known), graph.pairs, weights)[~known]
    inner = (system[:, ~known] + diags_array(prior.sum(axis=1))).tocsc()
    found = splu(inner).solve(prior - system[:, known] @ shares[known])
    shares[~known] = found / found.sum(axis=1, keepdims=True)
    return shares


def _pieces(mask: np.ndarray, strokes: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Labels (h, w) of the pixels of a region with several, by a watershed of the boundary probability."""
    from skimage.segmentation import watershed

    heights = np.round(gaussian_filter(probability, SMOOTHING) * N_STEPS).astype(np.int32)
    return watershed(heights, np.where(mask, strokes, 0), mask=mask)


def _boundaries_in(graph: RegionGraph, place: tuple[slice, slice]) -> np.ndarray:
    """Boundary probability (h, w) within a rectangle of the image."""
    if graph.probability.shape == graph.regions.shape:
        return graph.probability[place]
    rows, columns = (
        np.arange(part.start, part.stop) * small // large
        for part, small, large in zip(place, graph.probability.shape, graph.regions.shape, strict=True)
    )
    return graph.probability[np.ix_(rows, columns)]
