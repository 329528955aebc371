"""Vectors in their principal axes: z = mean + p · axes, for points p with mean 0 and mean variance 1."""

from __future__ import annotations

import numpy as np

MIN_DEVIATION = 0.1
"""Smallest standard deviation of points: axes that vary less are shortened, so that they are not lost in noise."""


def principal_axes(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (D,), principal axes (D, D) and standard deviations (D,) of the points of vectors z (N, D).

    Points are vectors, rotated and divided by one number: each axis keeps its share of the variance.
    """
    mean = z.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(z.T.astype(np.float64), bias=True).reshape(z.shape[1], z.shape[1]))
    lengths = np.sqrt(np.clip(values, 0, None))
    lengths = np.maximum(lengths, 1e-3 * lengths.max() + 1e-12)  # rounding errors are not amplified
    deviations = np.maximum(lengths / np.sqrt((lengths**2).mean()), MIN_DEVIATION)
    axes = (lengths / deviations)[:, None] * vectors.T
    return mean.astype(np.float32), axes.astype(np.float32), deviations.astype(np.float32)


def to_points(z: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Points p (N, D) float32 of vectors z (N, D)."""
    return np.linalg.solve(axes.T, (z - mean).T).T.astype(np.float32)
