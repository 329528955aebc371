"""Metrics of generated images on classifier features, shared by the benchmarks of generators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imatlas.metrics.generation import (
    density_coverage,
    frechet_distance,
    near_copy_chance,
    near_copy_share,
    precision_recall,
)
from imatlas.neighbors import as_tensor, nearest

MAX_IMAGES = 5_000
"""Images per side for precision, recall, density and coverage."""


def subset(rows: np.ndarray, n: int) -> np.ndarray:
    """Up to `n` rows, drawn with a fixed seed, in their order."""
    return rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:n])]


def frechet(test: np.ndarray, generated: np.ndarray) -> float | None:
    """Fréchet distance; None with fewer than two images per feature."""
    enough = min(len(test), len(generated)) >= 2 * test.shape[1]
    return frechet_distance(test, generated) if enough else None


def overlap(test: np.ndarray, generated: np.ndarray) -> Sequence[float]:
    """Precision, recall, density and coverage, with equally many images on both sides."""
    n = min(len(test), len(generated), MAX_IMAGES)
    sides = subset(test, n), subset(generated, n)
    return *precision_recall(*sides), *density_coverage(*sides)


def near_copies(train: np.ndarray, test: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    """Share of near copies of training images, and the share expected of a perfect generator."""
    to_train = [nearest(as_tensor(x), as_tensor(train))[1].numpy() for x in (generated, test)]
    return near_copy_share(*to_train), near_copy_chance(len(test), len(generated))[0]
