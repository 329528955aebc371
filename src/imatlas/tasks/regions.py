"""Regions of a map: neighboring cells that hold one kind of image, found by merging cells.

Ward, J. (1963), "Hierarchical grouping to optimize an objective function", JASA 58(301): each step merges the two
groups whose union adds least to the squared distances of all images to the mean of their group. Here only groups that
touch on the lattice may merge, and a cell weighs as many images as fell on it, so that the cost is that of the images,
as far as their prototypes tell. scikit-learn's `ward_tree` keeps to a lattice as well, but knows no weights.

Measured as the agreement of images with labels never seen (NMI, seed 0), number of groups in brackets, beside the
k-means of `tasks.cluster`: clothes 0.615 (12) beside 0.597 (13), satellite pictures 0.636 (9) beside 0.601 (11), emoji
0.318 (9) beside 0.341 (15), shop photographs 0.606 (12) beside 0.660 (20; 43 folders, on a map of 77 cells). On the
three small maps regions that need not hang together were the same to 0.001: the order of the map costs them nothing.
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
from imatlas.models.image_clusterer import MOST_CLUSTERS, MOST_ROWS
from imatlas.models.som import SOM
from imatlas.neighbors import as_tensor, group_sums, k_nearest
from imatlas.result import Curve, DataTable, Result

DRAWS = 10
"""Times that the images are drawn anew for the confidence."""


@dataclass(frozen=True)
class Regions:
    """The regions of a map and what is to be said about them.

    Attributes
    ----------
    labels : ndarray (n_cells,) int64
        The region of each cell, numbered in the order in which the map is read; each is connected on the lattice.
        `labels[som.predict(X)]` is the region of each row.
    n_regions : int
    confidence : float
        In [0, 1]: how far the regions come back when the images are drawn anew with repetition (mean adjusted Rand
        index of the images' regions over 10 draws; the map itself stays). 1 for one region.
    medoids : ndarray (n_regions,) int64
        The row nearest to the mean of each region's rows: a picture, and a key, to name it by.
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
    """Divide a map into regions of cells that hold one kind of image.

    An empty cell first joins the neighbor that it is most like, so every region holds images.

    Parameters
    ----------
    som : SOM
        A fitted map.
    embedding : ndarray (n_samples, n_features)
        The images on it, usually those that it learned from.
    n_regions : int, optional
        At most the number of cells that hold images. By default the number at which the fewest images are cut off from
        their nearest neighbors against what chance would cut: the highest modularity of the neighbor graph of at
        most 4,000 images, as in `tasks.cluster`. It took numbers nearer to those of the labels than the modularity of
        the graph of best and second best cells; agreement between draws rises with the number and tells none.
    keys : sequence of str (n_samples,), optional
        Names of the images: the result then lists the regions, each by the name of its medoid.
    random_state : int
        Seed of the sample and of the draws.

    Returns
    -------
    Regions
        With a result whose metrics are `n_regions`, `confidence`, `smallest` and `largest`.
    """
    cells = som.predict(embedding)
    n_cells = len(som.codebook_)
    hits = np.bincount(cells, minlength=n_cells)
    table = neighbor_table(som.rows_, som.cols_, som.topology, getattr(som, "toroidal", False))
    merges = ward_merges(som.codebook_, hits, table)
    tried = _numbers_to_try(int((hits > 0).sum()), len(embedding)) if n_regions is None else []
    found = _modularities(merges, cells, embedding, tried, random_state) if tried else []
    chosen = tried[int(np.argmax(found))] if tried else min(max(1, n_regions or 1), int((hits > 0).sum()))
    labels = cut(merges, n_cells, chosen)
    confidence = _agreement(som.codebook_, hits, table, labels, random_state) if chosen > 1 else 1.0
    of_rows = labels[cells]
    sizes = np.bincount(of_rows, minlength=chosen)
    result = Result(
        "regions",
        "Regions of the map",
        [
            f"The map has {chosen} regions of {sizes.min():,} to {sizes.max():,} images, each of cells that touch.",
        ],
        {"n_regions": chosen, "confidence": confidence, "smallest": int(sizes.min()), "largest": int(sizes.max())},
        protocol=f"cells merged by Ward's rule, weighted by {len(cells):,} images; confidence: mean adjusted Rand "
        f"index over {DRAWS} draws of the images with repetition; seed {random_state}",
    )
    if chosen > 1:
        result.sentences.append(
            f"Drawn anew, the images give the same regions back to {confidence:.0%}: "
            + ("their borders are sharp." if confidence > 0.9 else "take their borders as a proposal.")
        )
    if len(tried) > 1:
        result.sentences.append(
            f"Tried from {tried[0]} to {tried[-1]}: with {chosen} regions the fewest images are cut off from their "
            "nearest neighbors, against what chance would cut (modularity)."
        )
        result.panels.append(_curve(tried, found, chosen))
    medoids = _medoids(embedding, of_rows, chosen)
    if len(keys):
        named = [[region, int(sizes[region]), keys[row]] for region, row in enumerate(medoids)]
        result.panels.append(DataTable(title="Regions", columns=["region", "images", "most typical"], rows=named))
    return Regions(labels, chosen, confidence, medoids, result)


def ward_merges(codebook: np.ndarray, hits: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """The order in which cells merge under Ward's rule among groups that touch.

    Cells without hits merge first, with whatever touches them and is nearest; they move no mean.

    Parameters
    ----------
    codebook : ndarray (n_cells, n_features)
    hits : ndarray (n_cells,)
        Weight of each cell, at least 0.
    neighbors : ndarray (n_cells, n) of int
        The cells that touch each cell, -1 for none; the lattice hangs together.

    Returns
    -------
    ndarray (n_cells - 1, 2) int64
        The two groups of each merge; merge i makes group n_cells + i.
    """
    n = len(codebook)
    means = [*np.asarray(codebook, dtype=np.float64)]
    weights = [*np.asarray(hits, dtype=np.float64).tolist()]
    touching = [set(row[row >= 0].tolist()) for row in neighbors]
    alive = [True] * n

    def cost(a: int, b: int) -> tuple[bool, float, int, int]:
        apart = means[a] - means[b]
        squared, both = float(apart @ apart), weights[a] + weights[b]
        occupied = weights[a] > 0 and weights[b] > 0
        return occupied, weights[a] * weights[b] / both * squared if occupied else squared, a, b

    queue = [cost(a, b) for a in range(n) for b in touching[a] if a < b]
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
        touching.append({other for other in touching[a] | touching[b] if alive[other]})
        for other in touching[new]:
            touching[other].add(new)
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


def _numbers_to_try(n_occupied: int, n_rows: int) -> list[int]:
    """All numbers to 12, then steps of 1/8; only 1 where there are fewer than 20 rows or 4 cells with rows."""
    most = min(MOST_CLUSTERS, n_occupied // 2, n_rows // 10)
    numbers, k = [], 2
    while k <= most:
        numbers.append(k)
        k += max(1, k // 8)
    return numbers or [1]


def _modularities(
    merges: np.ndarray, cells: np.ndarray, embedding: np.ndarray, numbers: list[int], random_state: int
) -> list[float]:
    """The modularity of each number of regions, on the neighbor graph of at most 4,000 rows."""
    if numbers == [1]:
        return [0.0]
    if len(embedding) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(random_state).choice(len(embedding), MOST_ROWS, replace=False))
        embedding, cells = embedding[rows], cells[rows]
    data, n = as_tensor(embedding), len(embedding)
    n_neighbors = int(np.clip(n // 200, 5, 20))
    neighbors = k_nearest(data, data, n_neighbors, exclude_self=torch.arange(n))[0].numpy()
    n_cells = len(merges) + 1
    return [modularity(neighbors, cut(merges, n_cells, k)[cells]) for k in numbers]


def _agreement(
    codebook: np.ndarray, hits: np.ndarray, table: np.ndarray, labels: np.ndarray, random_state: int
) -> float:
    """Mean adjusted Rand index, at least 0, of the rows' regions with those of rows drawn anew with repetition."""
    rng = np.random.default_rng(random_state)
    n, n_regions = int(hits.sum()), int(labels.max()) + 1
    rows = np.repeat(np.arange(len(hits)), hits)
    found = []
    for _ in range(DRAWS):
        drawn = rng.multinomial(n, hits / n)
        again = cut(ward_merges(codebook, drawn, table), len(hits), min(n_regions, int((drawn > 0).sum())))
        found.append(adjusted_rand_score(labels[rows], again[rows]))
    return max(0.0, float(np.mean(found)))


def _medoids(embedding: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """The row of each group that is nearest to its mean (n_groups,)."""
    data, member = as_tensor(embedding), torch.from_numpy(groups)
    sums, totals = group_sums(data, member, n_groups)
    means = sums / totals[:, None]
    apart = torch.cat([(rows - means[of]).square().sum(1) for rows, of in zip(data.split(8192), member.split(8192))])
    order = np.lexsort((apart.numpy(), groups))
    return order[np.searchsorted(groups[order], np.arange(n_groups))]


def _curve(numbers: list[int], found: list[float], chosen: int) -> Curve:
    return Curve(
        title="How many regions",
        series={"modularity": (numbers, found)},
        x_label="number of regions",
        y_label="modularity",
        alt=f"Modularity over the number of regions; the highest is at {chosen}.",
    )
