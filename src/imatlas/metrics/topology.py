"""How well a self-organizing map fits its data: the lattice's geometry, and errors measured on any rows."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from imatlas.nearest import as_tensor, k_nearest, nearest

Topology = Literal["rectangular", "hexagonal"]
HEX_ROW = 0.75**0.5
"""Distance between two rows of a hexagonal lattice whose cells are one unit apart."""


def lattice_positions(rows: int, cols: int, topology: Topology) -> np.ndarray:
    """Where the cells of a lattice lie, in row-major order.

    On a hexagonal lattice odd rows are shifted right by half a cell and rows lie √3/2 apart, so that the six
    neighbours of a cell are one unit away, as the four next ones are on a rectangular lattice.

    Returns
    -------
    ndarray (rows * cols, 2) float64
        x (to the right) and y (downwards).
    """
    row, col = np.divmod(np.arange(rows * cols), cols)
    if topology == "hexagonal":
        return np.stack([col + 0.5 * (row % 2), row * HEX_ROW], axis=1)
    return np.stack([col, row], axis=1).astype(np.float64)


def are_neighbors(cells: np.ndarray, others: np.ndarray, rows: int, cols: int, topology: Topology) -> np.ndarray:
    """Whether cells touch, pair by pair: 8 neighbours on a rectangular lattice, 6 on a hexagonal one.

    Parameters
    ----------
    cells, others : ndarray of int
        Flat cell indices, of shapes that broadcast.

    Returns
    -------
    ndarray of bool
        A cell is not its own neighbour.
    """
    positions = lattice_positions(rows, cols, topology)
    apart = np.abs(positions[cells] - positions[others])
    if topology == "hexagonal":
        near = np.hypot(apart[..., 0], apart[..., 1]) < 1.01
    else:
        near = apart.max(axis=-1) < 1.01
    return near & (np.asarray(cells) != np.asarray(others))


def neighbor_table(rows: int, cols: int, topology: Topology) -> np.ndarray:
    """The neighbours of every cell. Returns (n_cells, 8 or 6) int64, -1 where the lattice ends."""
    offsets = _OFFSETS[topology]
    row, col = np.divmod(np.arange(rows * cols), cols)
    table = np.full((rows * cols, len(offsets[0])), -1, dtype=np.int64)
    for parity in (0, 1):
        chosen = row % 2 == parity
        for j, (down, right) in enumerate(offsets[parity]):
            r, c = row[chosen] + down, col[chosen] + right
            inside = (r >= 0) & (r < rows) & (c >= 0) & (c < cols)
            table[chosen, j] = np.where(inside, r * cols + c, -1)
    return table


_SQUARE = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
_OFFSETS: dict[str, list[list[tuple[int, int]]]] = {  # (down, right) for even and for odd rows
    "rectangular": [_SQUARE, _SQUARE],
    "hexagonal": [
        [(-1, -1), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 0)],
        [(-1, 0), (-1, 1), (0, -1), (0, 1), (1, 0), (1, 1)],
    ],
}


def quantization_error(X: np.ndarray, codebook: np.ndarray) -> float:
    """Mean Euclidean distance of rows (n_samples, n_features) to their best matching unit (Kohonen 2001, §2.9)."""
    _, squared = nearest(as_tensor(X), as_tensor(codebook))
    return float(squared.double().sqrt().mean())


def topographic_error(X: np.ndarray, codebook: np.ndarray, rows: int, cols: int, topology: Topology) -> float:
    """Share of rows whose two best matching units do not touch (Kiviluoto 1996), in [0, 1].

    8 cells touch a cell of a rectangular lattice and 6 one of a hexagonal lattice. 0 where there are fewer than two
    cells.
    """
    if rows * cols < 2:
        return 0.0
    two, _ = k_nearest(as_tensor(codebook), as_tensor(X), 2)
    best, second = two.cpu().numpy().T
    return float(1.0 - are_neighbors(best, second, rows, cols, topology).mean())


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


def u_heights(codebook: np.ndarray, rows: int, cols: int, topology: Topology) -> np.ndarray:
    """Mean distance of each prototype to those of the cells around it (Ultsch & Siemon 1990). Returns (n_cells,)."""
    table = neighbor_table(rows, cols, topology)
    codes = torch.as_tensor(codebook, dtype=torch.float32)
    heights = np.zeros(len(table))
    present = table >= 0
    for j in range(table.shape[1]):
        here = np.flatnonzero(present[:, j])
        heights[here] += (codes[here] - codes[table[here, j]]).norm(dim=1).numpy()
    return heights / np.maximum(present.sum(axis=1), 1)
