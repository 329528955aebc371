"""Whitening of vectors: z = mean + p · axes, for points p with mean 0 and covariance 1."""

from __future__ import annotations

import numpy as np


def whitening_axes(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and principal axes (D, D) of vectors (N, D), each axis as long as its standard deviation.

    Standard deviations are at least a thousandth of the largest, so that rounding errors are not amplified.
    """
    mean = z.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(z.T.astype(np.float64), bias=True).reshape(z.shape[1], z.shape[1]))
    deviations = np.sqrt(np.clip(values, 0, None))
    deviations = np.maximum(deviations, 1e-3 * deviations.max() + 1e-12)
    return mean.astype(np.float32), (deviations[:, None] * vectors.T).astype(np.float32)


def whiten(z: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Points p (N, D) float32 of vectors z (N, D)."""
    return np.linalg.solve(axes.T, (z - mean).T).T.astype(np.float32)
