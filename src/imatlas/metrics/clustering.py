"""Clustering metrics: agreement with labels, and modularity."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix


def clustering_scores(labels_true: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All scores of a clustering (n_samples,) against true labels (n_samples,), each at most 1.

    Returns
    -------
    dict
        `nmi` (normalized mutual information, arithmetic mean), `ari` (adjusted Rand index), `accuracy`, `purity`.
    """
    return {
        "nmi": float(normalized_mutual_info_score(labels_true, labels)),
        "ari": float(adjusted_rand_score(labels_true, labels)),
        "accuracy": accuracy(labels_true, labels),
        "purity": purity(labels_true, labels),
    }


def accuracy(labels_true: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy under the best one-to-one match of clusters to classes (Hungarian algorithm)."""
    table = contingency_matrix(labels_true, labels)
    classes, clusters = linear_sum_assignment(table, maximize=True)
    return float(table[classes, clusters].sum() / table.sum())


def purity(labels_true: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows in the largest class of their cluster; it increases with the number of clusters."""
    table = contingency_matrix(labels_true, labels)
    return float(table.max(axis=0).sum() / table.sum())


def modularity(neighbors: np.ndarray, labels: np.ndarray) -> float:
    """Share of links within clusters, minus that of a random graph of the same degrees (Newman & Girvan 2004).

    Parameters
    ----------
    neighbors : ndarray (n_samples, n_neighbors) of int
        The nearest neighbors of each row: the undirected links of the graph.
    labels : ndarray (n_samples,) of int

    Returns
    -------
    float
        In [-0.5, 1); 0 for one cluster.
    """
    n, k = neighbors.shape
    inside = (labels[neighbors] == labels[:, None]).mean()
    degrees = k + np.bincount(neighbors.ravel(), minlength=n)
    volumes = np.bincount(labels, weights=degrees) / degrees.sum()
    return float(inside - (volumes**2).sum())
