"""Lloyd's algorithm on tensors: initialization and iterations. Papers: `imatlas.models.kmeans`."""

from __future__ import annotations

import math

import torch

from imatlas.models.parts.rows import Rows
from imatlas.neighbors import paired_distances


def first_centers(
    X: torch.Tensor, weights: torch.Tensor, n_clusters: int, init: str, generator: torch.Generator
) -> torch.Tensor:
    """Initial centers (n_clusters, n_features), chosen among the rows with a weight above 0.

    "k-means++" draws each next center with a probability proportional to the squared distance to the nearest chosen
    one, keeping the best of 2 + log(n_clusters) draws; from a random sample of max(8192, 16 · n_clusters) rows.
    """
    usable = torch.nonzero(weights > 0)[:, 0]
    usable = usable if len(usable) >= n_clusters else torch.arange(len(X), device=X.device)
    order = usable[torch.randperm(len(usable), generator=generator).to(X.device)]
    if init == "random":
        return X[order[:n_clusters]].clone()
    sample = order[: max(8192, 16 * n_clusters)]
    pool, mass = X[sample], weights[sample].double()
    pool = pool - pool.mean(0)
    norms = pool.square().sum(1)

    def squared_to(chosen: torch.Tensor) -> torch.Tensor:
        products = torch.addmm(norms, pool[chosen], pool.T, alpha=-2)
        return products.add_(norms[chosen][:, None]).clamp_(min=0)

    trials = 2 + int(math.log(n_clusters))
    chosen = torch.zeros(n_clusters, dtype=torch.int64, device=X.device)
    chosen[:1] = _draw(mass, 1, generator)
    closest = squared_to(chosen[:1])[0]
    for i in range(1, n_clusters):
        drawn = _draw(closest * mass, trials, generator)
        squared = torch.minimum(closest, squared_to(drawn))
        best = int(torch.argmin(squared.double() @ mass))
        chosen[i], closest = drawn[best], squared[best]
        closest[drawn[best]] = 0  # rounding would leave a residue that could be drawn again
    return X[sample[chosen]]


def _draw(mass: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
    """Draw `n` indices with probabilities proportional to `mass`; any index where all of it is 0."""
    total = torch.cumsum(mass.double(), dim=0)
    if not float(total[-1]) > 0:
        return torch.randint(len(mass), (n,), generator=generator).to(mass.device)
    points = torch.rand(n, generator=generator, dtype=torch.float64).to(mass.device) * total[-1]
    return torch.searchsorted(total, points, right=True).clamp_(max=len(mass) - 1)


def lloyd(rows: Rows, centers: torch.Tensor, max_iter: int, tolerance: float) -> tuple[torch.Tensor, int]:
    """Move centers to the mean of their rows until convergence. Returns the centers and the number of iterations."""
    labels = torch.full((len(rows),), -1, dtype=torch.int64, device=centers.device)
    for n_iter in range(1, max_iter + 1):
        previous, labels = labels, rows.cells(centers)
        if torch.equal(previous, labels):
            return centers, n_iter
        moved = moved_centers(rows, labels, centers)
        shift = float((moved - centers).square().sum())
        centers = moved
        if shift <= tolerance and len(labels.unique()) == len(centers):
            return centers, n_iter
    return centers, max_iter


def moved_centers(rows: Rows, labels: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """The mean of the rows of each label (n_clusters, n_features); empty ones move to the rows farthest from theirs."""
    sums = rows.sums(labels, len(centers))
    sums, totals = sums[:, :-1], sums[:, -1]
    moved = torch.where(totals[:, None] > 0, sums / totals.clamp(min=1e-30)[:, None], centers)
    empty = torch.nonzero(totals <= 0)[:, 0]
    if len(empty):
        distances = paired_distances(rows.values, centers, labels)
        if rows.weights is not None:
            distances = distances * (rows.weights > 0)
        moved[empty] = rows.values[torch.topk(distances, len(empty)).indices]
    return moved
