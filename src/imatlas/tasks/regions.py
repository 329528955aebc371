"""Regions of a map: connected groups of cells with similar images, found by merging cells.

Ward, J. (1963), "Hierarchical grouping to optimize an objective function", JASA 58(301): each step merges the two
groups whose union adds least to the squared distances of all images to the mean of their group. Here only groups that
are adjacent on the lattice may merge, and a cell is weighted by its number of images. scikit-learn's `ward_tree` takes
a connectivity as well, but no weights.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from imatlas.lattice.geometry import neighbor_table
from imatlas.metrics.clustering import modularity
from imatlas.models.image_clusterer import MAX_CLUSTERS, MAX_PROPOSAL_ROWS, graph
from imatlas.models.som import SOM
from imatlas.neighbors import as_tensor, group_sums
from imatlas.result import Curve, DataTable, Result

DRAWS = 10
"""Bootstrap samples behind the confidence."""


@dataclass(frozen=True)
class Regions:
    """The regions of a map and their summary.

    Attributes
    ----------
    labels : ndarray (n_cells,) int64
        The region of each cell, numbered by their first cell; each is connected on the lattice.
        `labels[som.predict(X)]` is the region of each row.
    n_regions : int
    confidence : float
        In [0, 1]: mean adjusted Rand index between the regions and those of 10 bootstrap samples of the images on
        the same map. 1 for one region.
    medoids : ndarray (n_regions,) int64
        The row nearest to the mean of each region's rows.
    result : Result
    """

    labels: np.ndarray
    n_regions: int
    confidence: float
    medoids: np.ndarray
    result: Result


def regions(
    som: SOM,
    embedding: np.ndarray,
    *,
    n_regions: int | None = None,
    keys: Sequence[str] | np.ndarray = (),
    random_state: int = 0,
) -> Regions:
    """Divide a map into regions of cells with similar images.

    An empty cell joins its most similar neighbor first, so every region holds images.

    Parameters
    ----------
    som : SOM
        A fitted map.
    embedding : ndarray (n_samples, n_features)
        The images on it, usually its training images.
    n_regions : int, optional
        At most the number of cells that hold images. By default the number with the highest modularity of the
        neighbor graph of at most 4,000 images, as in `tasks.cluster`.
    keys : sequence of str (n_samples,), optional
        Names of the images, by which the result lists the medoids.
    random_state : int
        Seed of the samples.

    Returns
    -------
    Regions
        The metrics of the result are `n_regions`, `confidence`, `smallest` and `largest`.
    """
    cells = som.predict(embedding)
    n_cells = len(som.codebook_)
    hits = np.bincount(cells, minlength=n_cells)
    table = neighbor_table(som.rows_, som.cols_, som.topology, som.toroidal)
    merges = ward_merges(som.codebook_, hits, table)
    candidates = _candidates(int((hits > 0).sum()), len(embedding)) if n_regions is None else []
    modularities = _modularities(merges, cells, embedding, candidates, random_state) if candidates else []
    chosen = (
        candidates[int(np.argmax(modularities))] if candidates else min(max(1, n_regions or 1), int((hits > 0).sum()))
    )
    labels = cut(merges, n_cells, chosen)
    confidence = _agreement(som.codebook_, hits, table, labels, random_state) if chosen > 1 else 1.0
    of_rows = labels[cells]
    sizes = np.bincount(of_rows, minlength=chosen)
    result = Result(
        "regions",
        "Regions of the map",
        [
            f"The map has {chosen} connected regions of {sizes.min():,} to {sizes.max():,} images.",
        ],
        {"n_regions": chosen, "confidence": confidence, "smallest": int(sizes.min()), "largest": int(sizes.max())},
        protocol=f"cells merged by Ward's criterion, weighted by {len(cells):,} images; confidence: mean adjusted Rand "
        f"index over {DRAWS} bootstrap samples; seed {random_state}",
    )
    if chosen > 1:
        result.sentences.append(
            f"Bootstrap samples of the images agree with these regions by {confidence:.0%}: "
            + ("their borders are sharp." if confidence > 0.9 else "take their borders as a proposal.")
        )
    if len(candidates) > 1:
        result.sentences.append(
            f"Of {candidates[0]} to {candidates[-1]} regions, {chosen} divide the neighbor graph best (highest "
            "modularity)."
        )
        result.panels.append(_curve(candidates, modularities, chosen))
    medoids = _medoids(embedding, of_rows, chosen)
    if len(keys):
        named = [[region, int(sizes[region]), keys[row]] for region, row in enumerate(medoids)]
        result.panels.append(DataTable(title="Regions", columns=["region", "images", "most typical"], rows=named))
    return Regions(labels, chosen, confidence, medoids, result)


def ward_merges(codebook: np.ndarray, hits: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """The order in which cells merge by Ward's criterion among adjacent groups.

    Cells without hits merge first, with the nearest adjacent group; they move no mean.

    Parameters
    ----------
    codebook : ndarray (n_cells, n_features)
    hits : ndarray (n_cells,)
        Weight of each cell, at least 0.
    neighbors : ndarray (n_cells, n) of int
        The cells adjacent to each cell, -1 for none; the lattice is connected.

    Returns
    -------
    ndarray (n_cells - 1, 2) int64
        The two groups of each merge; merge i makes group n_cells + i.
    """
    n = len(codebook)
    means = [*np.asarray(codebook, dtype=np.float64)]
    weights = [*np.asarray(hits, dtype=np.float64).tolist()]
    adjacent = [set(row[row >= 0].tolist()) for row in neighbors]
    alive = [True] * n

    def cost(a: int, b: int) -> tuple[bool, float, int, int]:
        difference = means[a] - means[b]
        squared, both = float(difference @ difference), weights[a] + weights[b]
        occupied = weights[a] > 0 and weights[b] > 0
        return occupied, weights[a] * weights[b] / both * squared if occupied else squared, a, b

    queue = [cost(a, b) for a in range(n) for b in adjacent[a] if a < b]
    heapq.heapify(queue)
    merges: list[tuple[int, int]] = []
    while queue:
        _, _, a, b = heapq.heappop(queue)
        if not (alive[a] and alive[b]):
            continue
        new, both = len(means), weights[a] + weights[b]
        share = weights[a] / both if both else 0.5
        means.append(share * means[a] + (1 - share) * means[b])
        weights.append(both)
        alive[a] = alive[b] = False
        alive.append(True)
        adjacent.append({other for other in adjacent[a] | adjacent[b] if alive[other]})
        for other in adjacent[new]:
            adjacent[other].add(new)
            heapq.heappush(queue, cost(other, new))
        merges.append((a, b))
    return np.array(merges, dtype=np.int64).reshape(-1, 2)


def cut(merges: np.ndarray, n_cells: int, n_groups: int) -> np.ndarray:
    """The group of each cell (n_cells,) after all but the last `n_groups` - 1 merges, numbered by their first cell."""
    parent = np.arange(2 * n_cells - 1)
    for i, (a, b) in enumerate(merges[: n_cells - n_groups]):
        parent[a] = parent[b] = n_cells + i
    for group in range(len(parent) - 1, -1, -1):
        parent[group] = parent[parent[group]]
    _, first, labels = np.unique(parent[:n_cells], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels]


def _candidates(n_occupied: int, n_rows: int) -> list[int]:
    """All numbers up to 12, then steps of 1/8; only 1 for fewer than 20 rows or 4 cells with rows."""
    highest = min(MAX_CLUSTERS, n_occupied // 2, n_rows // 10)
    numbers, k = [], 2
    while k <= highest:
        numbers.append(k)
        k += max(1, k // 8)
    return numbers or [1]


def _modularities(
    merges: np.ndarray, cells: np.ndarray, embedding: np.ndarray, numbers: list[int], random_state: int
) -> list[float]:
    """The modularity of each number of regions, on the neighbor graph of at most 4,000 rows."""
    if numbers == [1]:
        return [0.0]
    if len(embedding) > MAX_PROPOSAL_ROWS:
        rows = np.sort(np.random.default_rng(random_state).choice(len(embedding), MAX_PROPOSAL_ROWS, replace=False))
        embedding, cells = embedding[rows], cells[rows]
    neighbors, n_cells = graph(embedding), len(merges) + 1
    return [modularity(neighbors, cut(merges, n_cells, k)[cells]) for k in numbers]


def _agreement(
    codebook: np.ndarray, hits: np.ndarray, table: np.ndarray, labels: np.ndarray, random_state: int
) -> float:
    """Mean adjusted Rand index, at least 0, between the rows' regions and those of bootstrap samples."""
    rng = np.random.default_rng(random_state)
    n, n_regions = int(hits.sum()), int(labels.max()) + 1
    rows = np.repeat(np.arange(len(hits)), hits)
    scores = []
    for _ in range(DRAWS):
        drawn = rng.multinomial(n, hits / n)
        again = cut(ward_merges(codebook, drawn, table), len(hits), min(n_regions, int((drawn > 0).sum())))
        scores.append(adjusted_rand_score(labels[rows], again[rows]))
    return max(0.0, float(np.mean(scores)))


def _medoids(embedding: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """The row nearest to the mean of each group (n_groups,)."""
    data, member = as_tensor(embedding), torch.from_numpy(groups)
    sums, totals = group_sums(data, member, n_groups)
    means = sums / totals[:, None]
    squared = torch.cat([(rows - means[of]).square().sum(1) for rows, of in zip(data.split(8192), member.split(8192))])
    order = np.lexsort((squared.numpy(), groups))
    return order[np.searchsorted(groups[order], np.arange(n_groups))]


def _curve(numbers: list[int], modularities: list[float], chosen: int) -> Curve:
    return Curve(
        title="Number of regions",
        series={"modularity": (numbers, modularities)},
        x_label="number of regions",
        y_label="modularity",
        alt=f"Modularity over the number of regions; the maximum is at {chosen}.",
    )
