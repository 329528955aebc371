"""The geometry of a map's lattice: positions, distances and neighbors of cells.

On a torus (`toroidal=True`) opposite edges of the lattice touch. A hexagonal torus needs an even number of rows, as odd
rows are shifted and the last row must meet the first one as it meets the row before it.

On a torus (`toroidal=True`) opposite edges of the lattice touch. That asks a hexagonal lattice for an even number of
rows: odd rows are shifted, and the last row must meet the first one as it meets the row before it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from imatlas.errors import ParameterError

Topology = Literal["rectangular", "hexagonal"]
HEX_ROW = 0.75**0.5
"""Distance between the rows of a hexagonal lattice whose cells are one unit apart."""


def lattice_positions(rows: int, cols: int, topology: Topology) -> np.ndarray:
    """The positions of the cells of a lattice, in row-major order.

    On a hexagonal lattice odd rows are shifted right by half a cell and rows are √3/2 apart, so that the six neighbors
    of a cell are one unit away, as are the four nearest ones on a rectangular lattice.

    Returns
    -------
    ndarray (rows * cols, 2) float64
        x (to the right) and y (downwards).
    """
    row, col = np.divmod(np.arange(rows * cols), cols)
    if topology == "hexagonal":
        return np.stack([col + 0.5 * (row % 2), row * HEX_ROW], axis=1)
    return np.stack([col, row], axis=1).astype(np.float64)


def lattice_period(rows: int, cols: int, topology: Topology) -> tuple[float, float]:
    """The horizontal and vertical period of a torus.

    Raises
    ------
    ParameterError
        For a hexagonal lattice with an odd number of rows.
    """
    if topology == "hexagonal" and rows % 2:
        raise ParameterError(
            f"A hexagonal torus needs an even number of rows, so that its first and last row fit together. "
            f"Got {rows}; add one, or use topology='rectangular'."
        )
    return float(cols), rows * (HEX_ROW if topology == "hexagonal" else 1.0)


def lattice_distances(
    cells: np.ndarray, others: np.ndarray, rows: int, cols: int, topology: Topology, toroidal: bool = False
) -> np.ndarray:
    """Euclidean distances of pairs of cells on the lattice; the shortest ones on a torus.

    Parameters
    ----------
    cells, others : ndarray of int
        Flat cell indices, of shapes that broadcast.

    Returns
    -------
    ndarray of float64
    """
    return np.hypot(*_apart(cells, others, rows, cols, topology, toroidal))


def are_neighbors(
    cells: np.ndarray, others: np.ndarray, rows: int, cols: int, topology: Topology, toroidal: bool = False
) -> np.ndarray:
    """Whether pairs of cells are neighbors: 8 per cell on a rectangular lattice, 6 on a hexagonal one.

    Parameters
    ----------
    cells, others : ndarray of int
        Flat cell indices, of shapes that broadcast.
    toroidal : bool
        Whether opposite edges touch.

    Returns
    -------
    ndarray of bool
        A cell is not its own neighbor.

    Raises
    ------
    ParameterError
        For a hexagonal torus with an odd number of rows.
    """
    x, y = _apart(cells, others, rows, cols, topology, toroidal)
    near = np.hypot(x, y) < 1.01 if topology == "hexagonal" else np.maximum(x, y) < 1.01
    return near & (np.asarray(cells) != np.asarray(others))


def _apart(
    cells: np.ndarray, others: np.ndarray, rows: int, cols: int, topology: Topology, toroidal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The absolute distances of cells along x and y."""
    positions = lattice_positions(rows, cols, topology)
    apart = np.abs(positions[cells] - positions[others])
    if toroidal:
        apart = np.minimum(apart, np.array(lattice_period(rows, cols, topology)) - apart)
    return apart[..., 0], apart[..., 1]


def neighbor_table(rows: int, cols: int, topology: Topology, toroidal: bool = False) -> np.ndarray:
    """The neighbors of every cell, each once.

    Returns
    -------
    ndarray (n_cells, 8 or 6) int64
        -1 beyond the edge of the lattice; and, on a torus of fewer than three rows or columns, for the cell itself
        and repeated neighbors.

    Raises
    ------
    ParameterError
        For a hexagonal torus with an odd number of rows.
    """
    offsets = _OFFSETS[topology]
    if toroidal:
        lattice_period(rows, cols, topology)  # raises for an impossible torus
    cell = np.arange(rows * cols)
    row, col = np.divmod(cell, cols)
    table = np.full((rows * cols, len(offsets[0])), -1, dtype=np.int64)
    for parity in (0, 1):
        chosen = row % 2 == parity
        for j, (down, right) in enumerate(offsets[parity]):
            r, c = row[chosen] + down, col[chosen] + right
            if toroidal:
                r, c = r % rows, c % cols
            inside = (r >= 0) & (r < rows) & (c >= 0) & (c < cols)
            table[chosen, j] = np.where(inside, r * cols + c, -1)
    if toroidal and min(rows, cols) < 3:
        for j in range(table.shape[1]):
            known = (table[:, j] == cell) | (table[:, :j] == table[:, j, None]).any(axis=1)
            table[known, j] = -1
    return table


_SQUARE = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
_OFFSETS: dict[str, list[list[tuple[int, int]]]] = {  # (down, right) for even and for odd rows
    "rectangular": [_SQUARE, _SQUARE],
    "hexagonal": [
        [(-1, -1), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 0)],
        [(-1, 0), (-1, 1), (0, -1), (0, 1), (1, 0), (1, 1)],
    ],
}
