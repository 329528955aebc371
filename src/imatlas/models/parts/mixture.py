"""Mixture of many local Gaussians over latent vectors, from which new images are sampled.

k-means partitions the vectors; each cell gets a Gaussian whose covariance is shrunk towards the pooled one, the more
the fewer images it has (Friedman 1989, "Regularized discriminant analysis", eq. 16). With conditions, no Gaussian spans
two of them, and the mixture can be sampled by condition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imatlas import seeding

IMAGES_PER_GAUSSIAN = 60
"""On average."""

MAX_NUMBERS = 4_000_000
"""Most numbers in all covariances together, which are saved with the model: 16 MB."""


@dataclass(frozen=True)
class Mixture:
    """Mixture of K Gaussians over vectors of length D.

    Attributes
    ----------
    weights : array (K,)
        Sum to 1.
    means : array (K, D)
    factors : array (K, D, D)
        Cholesky factors L of the covariances L L'.
    cond : array (K,) of int or (K, n_features), or None
        Label, or mean condition vector, of the images of each Gaussian.
    spread : float
        Mean squared distance of an image's condition from the mean of its Gaussian.
    """

    weights: np.ndarray
    means: np.ndarray
    factors: np.ndarray
    cond: np.ndarray | None = None
    spread: float = 0.0

    def draw(self, noise: np.ndarray, level: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        """Vectors (n, D) from standard normal noise (n, D) and uniform levels (n,), which select the Gaussians."""
        edges = np.cumsum(self.shares(cond, len(noise)), axis=1)
        edges[:, -1] = np.inf  # against rounding
        chosen = (level[:, None] < edges).argmax(1)
        return np.stack([self.means[k] + self.factors[k] @ e for k, e in zip(chosen, noise, strict=True)])

    def vary(self, z: np.ndarray, strength: float, noise: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        """Vectors (n, D) moved within the nearest Gaussian that fits their condition: 0 keeps them, 1 redraws them.

        z' = m + sqrt(1 - s²) (z - m) + s L e leaves the Gaussian invariant (Neal 1998, "Regression and classification
        using Gaussian process priors", section 5).
        """
        shares = self.shares(cond, len(z))
        distance = ((z[:, None] - self.means) ** 2).sum(2)
        nearest = np.where(shares > 1e-3 * shares.max(1, keepdims=True), distance, np.inf).argmin(1)
        kept = np.sqrt(1 - strength**2) * (z - self.means[nearest])
        drawn = np.stack([self.factors[k] @ e for k, e in zip(nearest, noise, strict=True)])
        return self.means[nearest] + kept + strength * drawn

    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (D,) and principal axes (D, D), longest first, each as long as its standard deviation."""
        mean = self.weights @ self.means
        centered = self.means - mean
        inner = np.einsum("k,kij,klj->il", self.weights, self.factors, self.factors)
        values, vectors = np.linalg.eigh((centered.T * self.weights) @ centered + inner)
        return mean, (np.sqrt(np.clip(values, 0, None)) * vectors).T[::-1]

    def shares(self, cond: np.ndarray | None, n: int) -> np.ndarray:
        """Probability of each Gaussian, (n, K): its weight, times how well it matches the condition."""
        if cond is None or self.cond is None:
            return np.broadcast_to(self.weights, (n, len(self.weights))).copy()
        if self.cond.ndim == 1:
            match = (np.asarray(cond)[:, None] == self.cond).astype(float)
        else:
            squared = ((cond[:, None] - self.cond) ** 2).sum(2)
            match = np.exp(-(squared - squared.min(1, keepdims=True)) / (2 * self.spread))
        shares = match * self.weights
        return shares / shares.sum(1, keepdims=True)


def fit_mixture(z: np.ndarray, cond: np.ndarray | None, seed: int, *, n_components: int | None = None) -> Mixture:
    """Fit a mixture to vectors z (N, D).

    Parameters
    ----------
    z : array (N, D)
    cond : array (N,) of int or (N, n_features), optional
        Conditions. Labels, and vectors that repeat, partition the vectors before k-means does.
    seed : int
    n_components : int, optional
        None: one per 60 images, as far as 4 M numbers in their covariances go. There is at least one for each of
        distinct condition.
    """
    z = z.astype(np.float64)
    n, width = z.shape
    if n_components is None:
        n_components = int(np.clip(n // IMAGES_PER_GAUSSIAN, 1, max(1, MAX_NUMBERS // width**2)))
    cell = _cells(z, _groups(cond, n), n_components, seed)
    count = np.bincount(cell).astype(float)
    means = _means(z, cell)
    within = z - means[cell]
    pooled = within.T @ within / n
    pooled += (1e-4 * np.trace(pooled) / width + 1e-6 * z.var(0).mean() + 1e-12) * np.eye(width)
    order = np.argsort(cell, kind="stable")
    factors = np.empty((len(count), width, width), np.float32)
    for k, rows in enumerate(np.split(order, np.cumsum(count[:-1]).astype(int))):
        covariance = (within[rows].T @ within[rows] + width * pooled) / (len(rows) + width)
        factors[k] = np.linalg.cholesky(covariance)
    center, spread = None, 0.0
    if cond is not None and cond.ndim == 1:
        center = cond[order[np.concatenate([[0], np.cumsum(count[:-1]).astype(int)])]]
    elif cond is not None:
        center = _means(cond.astype(np.float64), cell)
        spread = float(max(((cond - center[cell]) ** 2).sum(1).mean(), 1e-6 * cond.var(0).sum() + 1e-12))
        center = center.astype(np.float32)
    return Mixture((count / n).astype(np.float32), means.astype(np.float32), factors, center, spread)


def _groups(cond: np.ndarray | None, n: int) -> np.ndarray:
    """Group of each image, (n,): its condition if conditions repeat, otherwise one group for all."""
    if cond is not None:
        groups = np.unique(cond, axis=0, return_inverse=True)[1].reshape(-1)
        if cond.ndim == 1 or groups.max() < n // 4:
            return groups
    return np.zeros(n, int)


def _cells(z: np.ndarray, groups: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Cell of each vector, (N,), numbered from 0 without gaps: k-means within each group."""
    from imatlas import models

    cell, n_cells = np.empty(len(z), int), 0
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(groups)[:-1])):
        k = min(max(1, round(n_components * len(rows) / len(z))), len(rows))
        if k > 1:
            kmeans = models.model_class("kmeans")(n_clusters=k, random_state=seeding.seed_of(seed, "mixture") % 2**31)
            own = np.unique(kmeans.fit(z[rows].astype(np.float32)).labels_, return_inverse=True)[1]
        else:
            own = np.zeros(len(rows), int)
        cell[rows] = n_cells + own
        n_cells += own.max() + 1
    return cell


def _means(rows: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Mean of the rows (N, D) of each cell, (K, D)."""
    sums = np.zeros((cell.max() + 1, rows.shape[1]))
    np.add.at(sums, cell, rows)
    return sums / np.bincount(cell)[:, None]
