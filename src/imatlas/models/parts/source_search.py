"""The search for the images that a new one is composed of: the nearest ones of a place, a label, or other images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor, ones
from torch.nn.functional import adaptive_avg_pool2d

from imatlas.images.spec import ImageSpec
from imatlas.models.parts.source_images import SHIFT, SMALL, Composition, small_features


@dataclass(frozen=True)
class SourceSearch:
    """The images of a set, to be searched.

    Attributes
    ----------
    images : array (N, H, W, C)
    spec : ImageSpec
    vectors : array (N, n_components) float32
        The images in the space of neighbors.
    labels : array (N,) of int64, or None
        The index of the label of each image.
    mirrored : bool
        Whether mirrored copies take part.
    n_neighbors : int
        Images of one composition, at most.
    """

    images: np.ndarray
    spec: ImageSpec
    vectors: np.ndarray
    labels: np.ndarray | None
    mirrored: bool
    n_neighbors: int

    def of_label(self, label: int, prior: np.ndarray) -> np.ndarray:
        """Log-weights (N,) without the images of other labels."""
        return np.where(self.labels == label, prior, -np.inf)

    def near(self, point: np.ndarray | None, prior: np.ndarray, rng: np.random.Generator) -> Composition:
        """The sources nearest to a point among `vectors`; None: to an image drawn by the log-weights `prior` (N,)."""
        if point is None:
            chance = np.cumsum(np.exp(prior))
            drawn = min(int(np.searchsorted(chance, rng.random() * chance[-1], side="right")), len(prior) - 1)
            point = self.vectors[drawn]
        return self._nearest(np.square(self.vectors - point).sum(1), prior, rng)

    def alike(self, values: list[Tensor], known: Tensor | None, rng: np.random.Generator) -> Composition:
        """The sources that are most like any of some images (C, H, W), at the pixels (H, W) that are known."""
        distances = np.full(len(self.images), np.inf)
        for one in values:
            weight = ones(1, *one.shape[1:]) if known is None else known[None].float()
            share = adaptive_avg_pool2d(weight, SMALL)
            query = (adaptive_avg_pool2d(one * weight, SMALL) / share.clamp(min=1e-6)).flatten().numpy()
            counts = share.expand(len(one), -1, -1).flatten().numpy()
            distances = np.minimum(distances, (np.square(self._small - query) * counts).sum(1))
        return self._nearest(distances, np.zeros(len(distances)), rng)

    @cached_property
    def _small(self) -> np.ndarray:
        return small_features(self.images, self.spec)

    def _nearest(self, distances: np.ndarray, prior: np.ndarray, rng: np.random.Generator) -> Composition:
        """The sources with the smallest distances (N,), among those with a weight."""
        distances = np.where(np.isfinite(prior), distances, np.inf)
        n = min(self.n_neighbors, int(np.isfinite(prior).sum()))
        rows = np.argpartition(distances, n - 1)[:n]
        rows = rows[np.argsort(distances[rows], kind="stable")]
        reach = round(SHIFT * max(self.spec.height, self.spec.width))
        small = small_features(self.images[rows], self.spec)
        return Composition.of(rows, prior[rows], small, self.mirrored, reach, rng)
