"""Fisher's linear discriminant axes of labeled rows.

Fisher, R. A. (1936), "The use of multiple measurements in taxonomic problems", Annals of Eugenics. The covariance
within classes is shrunk toward a multiple of the identity: Ledoit, O. and Wolf, M. (2004), "A well-conditioned
estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis.
"""

from __future__ import annotations

import numpy as np
import torch

from imatlas.neighbors import group_sums


def means_of(X: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """The mean of the rows of each label (k, n_features) float32; the mean of all rows for a label without rows."""
    rows = torch.from_numpy(np.asarray(X, np.float64))
    sums, counts = group_sums(rows, torch.from_numpy(labels.astype(np.int64)), k)
    means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], rows.mean(0))
    return means.float().numpy()


def discriminant_axes(X: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray | None:
    """Discriminant axes (n_features, n_axes) float32, scaled to unit variance within classes on average.

    None if there is no variance within classes.
    """
    from scipy.linalg import eigh
    from sklearn.covariance import ledoit_wolf_shrinkage

    means = means_of(X, labels, k).astype(np.float64)
    residuals = X - means[labels].astype(np.float32)
    within = (residuals.T @ residuals).astype(np.float64) / len(X)
    mean_variance = np.trace(within) / len(within)
    if mean_variance <= 0:
        return None
    shrinkage = max(ledoit_wolf_shrinkage(residuals, assume_centered=True), 1e-4)
    within = (1 - shrinkage) * within + shrinkage * mean_variance * np.eye(len(within))
    shifts = (means - X.mean(axis=0, dtype=np.float64)) * np.sqrt(np.bincount(labels, minlength=k) / len(X))[:, None]
    n_axes = min(k - 1, X.shape[1])
    top = (X.shape[1] - n_axes, X.shape[1] - 1)
    axes = eigh(shifts.T @ shifts, within, subset_by_index=top)[1][:, ::-1]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(n_axes)])
    return np.ascontiguousarray(axes * signs, dtype=np.float32)
