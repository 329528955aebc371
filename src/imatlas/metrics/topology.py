"""Quality metrics of self-organizing maps, measured on any rows."""

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
    """Share of rows whose two best matching units are not adjacent (Kiviluoto 1996), in [0, 1].

    A cell has 8 adjacent cells on a rectangular and 6 on a hexagonal lattice. 0 for fewer than two cells.

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
    """Topographic product (Bauer & Pawelzik 1992): whether the lattice has the dimension of the data.

    With n_k(j) the k-th nearest cell of cell j, on the lattice (A) or by the distance of prototypes (V) ::

        Q1(j, k) = d_V(w_j, w_nA_k(j)) / d_V(w_j, w_nV_k(j)),    Q2(j, k) = d_A(j, nA_k(j)) / d_A(j, nV_k(j))
        P3(j, k) = (Π_l≤k Q1(j, l) Q2(j, l))^(1 / 2k),           P = Σ_j Σ_k log P3(j, k) / (N (N - 1))

    Ties are broken by the lower index. Distances are at least a millionth of the spread of the prototypes, so that
    equal prototypes leave the product finite.

    Parameters
    ----------
    codebook : ndarray (n_cells, n_features)
        Row-major.

    Returns
    -------
    float
        About 0 if the dimensions agree, below 0 if the lattice has fewer and is folded, above 0 if it has more. It is
        also about 0 for randomly ordered cells, so consider the topographic error too. 0 for fewer than three cells.
        Complexity O(n_cells² · n_features); memory about 150 MB for any number of cells.
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
        apart = torch.cdist(codes[cells], codes, compute_mode="donot_use_mm_for_euclid_dist").double().clamp_(min=floor)
        log_v = apart.log_().numpy()
        distances = lattice_distances(cells[:, None], np.arange(n), rows, cols, topology, toroidal).round(9)
        log_v[np.arange(len(cells)), cells] = distances[
            np.arange(len(cells)), cells
        ] = -np.inf  # the cell itself comes first
        by_lattice = np.argsort(distances, axis=1, kind="stable")[:, 1:]
        by_prototype = np.argsort(log_v, axis=1, kind="stable")[:, 1:]
        log_a = np.log(np.maximum(distances, 1e-9))
        ratios = np.take_along_axis(log_v, by_lattice, 1) - np.take_along_axis(log_v, by_prototype, 1)
        ratios += np.take_along_axis(log_a, by_lattice, 1) - np.take_along_axis(log_a, by_prototype, 1)
        total += float((np.cumsum(ratios, axis=1) / (2 * steps)).sum())
    return total / (n * (n - 1))


def trustworthiness(
    X: np.ndarray,
    positions: np.ndarray,
    *,
    n_neighbors: int = 10,
    max_rows: int = 2000,
    period: tuple[float, float] | None = None,
    random_state: int = 0,
) -> float:
    """Trustworthiness (Venna & Kaski 2001): whether neighbors on the map are neighbors in feature space.

    Rows among the `n_neighbors` nearest on the map but not in feature space are penalized by their rank there.

    Parameters
    ----------
    X : ndarray (n_samples, n_features)
    positions : ndarray (n_samples, 2)
        Positions of the rows on the map, as from `SOM.project`. Cell positions are less informative, since rows at the
        same position have an arbitrary order.
    n_neighbors : int
        At most about half of the number of rows.
    max_rows : int
        Maximum size of the random sample that is measured: memory and time are quadratic in it.
    period : (float, float), optional
        For a torus, its `lattice_period`.
    random_state : int
        Seed of the sample.

    Returns
    -------
    float
        In [0, 1]; 1 is best, about 0.5 is expected for random positions.

    Raises
    ------
    InputError
        If `X` and `positions` differ in length.
    """
    X, positions = _sample(X, positions, max_rows, period, random_state)
    return _trustworthiness(X, positions, n_neighbors)


def neighborhood_preservation(
    X: np.ndarray,
    positions: np.ndarray,
    *,
    n_neighbors: int = 10,
    max_rows: int = 2000,
    period: tuple[float, float] | None = None,
    random_state: int = 0,
) -> float:
    """Continuity (Venna & Kaski 2001): whether neighbors in feature space are neighbors on the map.

    The converse of `trustworthiness`, with the same parameters, range and errors.
    """
    X, positions = _sample(X, positions, max_rows, period, random_state)
    return _trustworthiness(positions, X, n_neighbors)


def _sample(
    X: np.ndarray, positions: np.ndarray, max_rows: int, period: tuple[float, float] | None, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features and positions of the rows to measure; positions on a torus are mapped onto two circles."""
    X, positions = np.asarray(X), np.asarray(positions, dtype=np.float64)
    if len(X) != len(positions):
        raise InputError(f"Every row needs one position. Got {len(X):,} rows and {len(positions):,} positions.")
    if len(X) > max_rows:
        rows = np.sort(np.random.default_rng(random_state).choice(len(X), max_rows, replace=False))
        X, positions = X[rows], positions[rows]
    if period is not None:
        radius = np.array(period) / (2 * np.pi)
        positions = np.hstack([radius * np.cos(positions / radius), radius * np.sin(positions / radius)])
    return X, positions


def _trustworthiness(space: np.ndarray, neighbors_in: np.ndarray, n_neighbors: int) -> float:
    from sklearn.manifold import trustworthiness

    k = min(n_neighbors, (len(space) - 1) // 2)
    return float(trustworthiness(space, neighbors_in, n_neighbors=k)) if k else 1.0


def hit_entropy(cells: np.ndarray, n_cells: int) -> float:
    """Entropy of the hit counts of cells, divided by its maximum, in [0, 1].

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
        NaN for empty cells.
    """
    counts = _label_counts(cells, labels, n_cells)
    hits = counts.sum(axis=1)
    return np.where(hits > 0, counts.max(axis=1) / np.maximum(hits, 1), np.nan)


def cell_purity(cells: np.ndarray, labels: np.ndarray, n_cells: int) -> float:
    """Share of all rows that carry the most frequent label of their cell, in (0, 1]; 0 without rows.

    It increases with the number of cells: it is 1 if every cell holds one row.
    """
    return float(_label_counts(cells, labels, n_cells).max(axis=1).sum() / max(1, len(cells)))


def _label_counts(cells: np.ndarray, labels: np.ndarray, n_cells: int) -> np.ndarray:
    """Number of rows of each cell with each label (n_cells, n_labels)."""
    known, codes = np.unique(np.asarray(labels), return_inverse=True)
    n = max(1, len(known))
    return np.bincount(np.asarray(cells) * n + codes.ravel(), minlength=n_cells * n).reshape(n_cells, n)


def u_heights(codebook: np.ndarray, rows: int, cols: int, topology: Topology, toroidal: bool = False) -> np.ndarray:
    """U-matrix heights (n_cells,): mean distance of each prototype to the adjacent ones (Ultsch & Siemon 1990).

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
