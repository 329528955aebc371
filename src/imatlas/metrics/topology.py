"""How well a self-organizing map fits its data: errors measured on any rows."""

from __future__ import annotations

import numpy as np
import torch

from imatlas.errors import InputError
from imatlas.lattice.geometry import Topology, are_neighbors, lattice_distances, neighbor_table
from imatlas.neighbors import as_tensor, k_nearest, nearest


def quantization_error(X: np.ndarray, codebook: np.ndarray) -> float:
    """Mean Euclidean distance of rows (n_samples, n_features) to their best matching unit (Kohonen 2001, §2.9)."""
    _, squared = nearest(as_tensor(X), as_tensor(codebook))
    return float(squared.double().sqrt().mean())


def topographic_error(
    X: np.ndarray, codebook: np.ndarray, rows: int, cols: int, topology: Topology, toroidal: bool = False
) -> float:
    """Share of rows whose two best matching units do not touch (Kiviluoto 1996), in [0, 1].

    8 cells touch a cell of a rectangular lattice and 6 one of a hexagonal lattice. 0 where there are fewer than two
    cells.

    Raises
    ------
    ParameterError
        For a hexagonal torus with an odd number of rows.
    """
    if rows * cols < 2:
        return 0.0
    two, _ = k_nearest(as_tensor(codebook), as_tensor(X), 2)
    best, second = two.cpu().numpy().T
    return float(1.0 - are_neighbors(best, second, rows, cols, topology, toroidal).mean())


def topographic_product(
    codebook: np.ndarray, rows: int, cols: int, topology: Topology, toroidal: bool = False
) -> float:
    """Whether the lattice has the dimension of what it stands for (Bauer & Pawelzik 1992), from the prototypes alone.

    With n_k(j) the k-th nearest cell of cell j, on the lattice (A) or by the distance of prototypes (V), they define ::

        Q1(j, k) = d_V(w_j, w_nA_k(j)) / d_V(w_j, w_nV_k(j)),    Q2(j, k) = d_A(j, nA_k(j)) / d_A(j, nV_k(j))
        P3(j, k) = (Π_l≤k Q1(j, l) Q2(j, l))^(1 / 2k),           P = Σ_j Σ_k log P3(j, k) / (N (N - 1))

    Of cells equally near the one of the lower index comes first. Distances under a millionth of the spread of the
    prototypes count as that much, so that equal prototypes leave the product finite.

    Parameters
    ----------
    codebook : ndarray (n_cells, n_features)
        Row-major.

    Returns
    -------
    float
        About 0 where the dimensions agree; below 0 where the lattice is folded to fill more than it has, above 0 where
        it has more than the data. It is 0 as well where cells lie in no order at all, since then both ratios suffer
        alike: read it beside the topographic error. 0 for fewer than three cells. Complexity
        O(n_cells² · n_features); memory some 150 MB, however many cells.
    """
    codes = as_tensor(codebook)
    n = len(codes)
    floor = 1e-6 * float((codes - codes.mean(0)).square().sum(1).mean().sqrt())
    if n < 3 or floor <= 0:
        return 0.0
    steps = np.arange(1, n)
    total = 0.0
    chunk = max(1, 2**20 // n)
    for start in range(0, n, chunk):
        cells = np.arange(start, min(start + chunk, n))
        away = torch.cdist(codes[cells], codes, compute_mode="donot_use_mm_for_euclid_dist").double().clamp_(min=floor)
        there = away.log_().numpy()
        distances = lattice_distances(cells[:, None], np.arange(n), rows, cols, topology, toroidal).round(9)
        there[np.arange(len(cells)), cells] = distances[np.arange(len(cells)), cells] = -np.inf  # itself comes first
        by_lattice = np.argsort(distances, axis=1, kind="stable")[:, 1:]
        by_prototype = np.argsort(there, axis=1, kind="stable")[:, 1:]
        here = np.log(np.maximum(distances, 1e-9))
        ratios = np.take_along_axis(there, by_lattice, 1) - np.take_along_axis(there, by_prototype, 1)
        ratios += np.take_along_axis(here, by_lattice, 1) - np.take_along_axis(here, by_prototype, 1)
        total += float((np.cumsum(ratios, axis=1) / (2 * steps)).sum())
    return total / (n * (n - 1))


def trustworthiness(
    X: np.ndarray,
    places: np.ndarray,
    *,
    n_neighbors: int = 10,
    max_rows: int = 2000,
    period: tuple[float, float] | None = None,
    random_state: int = 0,
) -> float:
    """How far neighbors on the map can be believed to be neighbors in kind (Venna & Kaski 2001).

    Rows among the `n_neighbors` nearest on the map but not among those by their features cost as much as they rank
    farther there.

    Parameters
    ----------
    X : ndarray (n_samples, n_features)
    places : ndarray (n_samples, 2)
        Where the rows lie on the map, as `SOM.project` gives them. Rows at one place are equally near: their order
        is arbitrary, so cell positions alone say less.
    n_neighbors : int
        Fewer where there are not more than twice as many rows.
    max_rows : int
        Above it a random sample of so many rows is measured, and neighbors are neighbors in the sample: memory and
        time go with the square.
    period : (float, float), optional
        Where the map is a torus, its `lattice_period`.
    random_state : int
        Seed of the sample.

    Returns
    -------
    float
        In [0, 1]; 1 where no stranger comes near, some 0.5 where places are drawn by chance.

    Raises
    ------
    InputError
        If `X` and `places` differ in length.
    """
    X, places = _sample(X, places, max_rows, period, random_state)
    return _trustworthiness(X, places, n_neighbors)


def neighborhood_preservation(
    X: np.ndarray,
    places: np.ndarray,
    *,
    n_neighbors: int = 10,
    max_rows: int = 2000,
    period: tuple[float, float] | None = None,
    random_state: int = 0,
) -> float:
    """How far neighbors in kind stay neighbors on the map (Venna & Kaski 2001; also called continuity).

    The mirror of `trustworthiness`: rows among the nearest by their features that the map puts far away cost as much
    as they rank farther there. Parameters, range and errors are the same.
    """
    X, places = _sample(X, places, max_rows, period, random_state)
    return _trustworthiness(places, X, n_neighbors)


def _sample(
    X: np.ndarray, places: np.ndarray, max_rows: int, period: tuple[float, float] | None, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features and places of the rows to measure; those on a torus on two circles, where near ones stay as near."""
    X, places = np.asarray(X), np.asarray(places, dtype=np.float64)
    if len(X) != len(places):
        raise InputError(f"Every row needs one place. Got {len(X):,} rows and {len(places):,} places.")
    if len(X) > max_rows:
        rows = np.sort(np.random.default_rng(random_state).choice(len(X), max_rows, replace=False))
        X, places = X[rows], places[rows]
    if period is not None:
        radius = np.array(period) / (2 * np.pi)
        places = np.hstack([radius * np.cos(places / radius), radius * np.sin(places / radius)])
    return X, places


def _trustworthiness(space: np.ndarray, neighbors_in: np.ndarray, n_neighbors: int) -> float:
    from sklearn.manifold import trustworthiness

    k = min(n_neighbors, (len(space) - 1) // 2)
    return float(trustworthiness(space, neighbors_in, n_neighbors=k)) if k else 1.0


def hit_entropy(cells: np.ndarray, n_cells: int) -> float:
    """How evenly rows spread over the cells: entropy of the hit counts over its maximum, in [0, 1].

    Parameters
    ----------
    cells : ndarray (n_samples,) of int
        Flat cell index of each row.
    n_cells : int
    """
    if n_cells < 2 or len(cells) == 0:
        return 0.0
    share = np.bincount(cells, minlength=n_cells) / len(cells)
    share = share[share > 0]
    return float(max(0.0, -(share * np.log(share)).sum() / np.log(n_cells)))


def cell_purities(cells: np.ndarray, labels: np.ndarray, n_cells: int) -> np.ndarray:
    """Share of the rows of each cell that carry its most frequent label.

    Parameters
    ----------
    cells : ndarray (n_samples,) of int
        Flat cell index of each row.
    labels : ndarray (n_samples,)
    n_cells : int

    Returns
    -------
    ndarray (n_cells,) float64
        NaN where no row fell.
    """
    counts = _label_counts(cells, labels, n_cells)
    hits = counts.sum(axis=1)
    return np.where(hits > 0, counts.max(axis=1) / np.maximum(hits, 1), np.nan)


def cell_purity(cells: np.ndarray, labels: np.ndarray, n_cells: int) -> float:
    """Share of all rows that carry the most frequent label of their cell, in (0, 1]; 0 without rows.

    It grows by itself with the number of cells: where every cell holds one row it is 1.
    """
    return float(_label_counts(cells, labels, n_cells).max(axis=1).sum() / max(1, len(cells)))


def _label_counts(cells: np.ndarray, labels: np.ndarray, n_cells: int) -> np.ndarray:
    """How many rows of each cell carry each label (n_cells, n_labels)."""
    known, codes = np.unique(np.asarray(labels), return_inverse=True)
    n = max(1, len(known))
    return np.bincount(np.asarray(cells) * n + codes.ravel(), minlength=n_cells * n).reshape(n_cells, n)


def u_heights(codebook: np.ndarray, rows: int, cols: int, topology: Topology, toroidal: bool = False) -> np.ndarray:
    """Mean distance of each prototype to those of the cells around it (Ultsch & Siemon 1990). Returns (n_cells,).

    Raises
    ------
    ParameterError
        For a hexagonal torus with an odd number of rows.
    """
    table = neighbor_table(rows, cols, topology, toroidal)
    codes = torch.as_tensor(codebook, dtype=torch.float32)
    heights = np.zeros(len(table))
    present = table >= 0
    for j in range(table.shape[1]):
        here = np.flatnonzero(present[:, j])
        heights[here] += (codes[here] - codes[table[here, j]]).norm(dim=1).numpy()
    return heights / np.maximum(present.sum(axis=1), 1)
