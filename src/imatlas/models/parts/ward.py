"""Ward linkage of weighted points."""

from __future__ import annotations

import numpy as np


def ward_linkage(centers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Ward linkage of clusters with sizes, in the format of `scipy.cluster.hierarchy.linkage`."""
    n = len(centers)
    position, weight = {i: centers[i] for i in range(n)}, {i: float(sizes[i]) for i in range(n)}
    members = dict.fromkeys(range(n), 1)
    merges = np.empty((n - 1, 4))
    for step in range(n - 1):
        alive = sorted(position)
        points, mass = np.stack([position[i] for i in alive]), np.array([weight[i] for i in alive])
        cost = ((points[:, None] - points) ** 2).sum(2) * (mass[:, None] * mass / (mass[:, None] + mass))
        np.fill_diagonal(cost, np.inf)
        a, b = sorted(alive[i] for i in np.unravel_index(cost.argmin(), cost.shape))
        total = weight[a] + weight[b]
        members[n + step] = members[a] + members[b]
        merges[step] = a, b, np.sqrt(2 * cost.min()), members[n + step]
        position[n + step] = (position.pop(a) * weight[a] + position.pop(b) * weight[b]) / total
        weight[n + step] = total
    return merges
