"""The lattice of a map for computation: distances, the neighborhood function, and initial prototypes.

A Gaussian on a rectangular lattice is the product of one along rows and one along columns, so smoothing over all cells
takes two small matrix products. A hexagonal lattice is every other point of a rectangular one with half the spacing,
and a torus is periodic in each axis; both factorize as well.

A Gaussian on a rectangular lattice is the product of one along the rows and one along the columns, so spreading sums
over all cells takes two small matrix products. A hexagonal lattice is every other point of a rectangular one with half
the spacing, and a torus wraps each axis: the same holds for both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imatlas.lattice.geometry import HEX_ROW, Topology, lattice_positions

TILE = 5
"""Side, in cells, of the tiles whose samples are searched together once prototypes move little per epoch."""

MARGIN = 5
"""Number of cells around a tile that are searched too."""


class Lattice:
    """`rows` x `cols` cells, on one device.

    Attributes
    ----------
    positions : Tensor (n_cells, 2) float64
        x and y of every cell; neighbors are one unit apart.
    """

    def __init__(
        self, rows: int, cols: int, topology: Topology, toroidal: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        self.rows, self.cols, self.topology, self.toroidal, self.device = rows, cols, topology, toroidal, device
        self.positions = torch.as_tensor(lattice_positions(rows, cols, topology), device=device)
        self.size = (float(cols), rows * (HEX_ROW if topology == "hexagonal" else 1.0))
        step, width = (0.5, 2 * cols) if topology == "hexagonal" else (1.0, cols)
        row = torch.arange(rows * cols, device=device) // cols
        self._slot = row * width + (self.positions[:, 0] / step).round().long()
        self._x = torch.arange(width, device=device, dtype=torch.float64) * step
        self._y = torch.arange(rows, device=device, dtype=torch.float64) * (self.size[1] / rows)

    def __len__(self) -> int:
        return self.rows * self.cols

    def touch(self, cells: Tensor, others: Tensor) -> Tensor:
        """Whether pairs of different cells are neighbors (n_pairs,): 8 per square, 6 per hexagon."""
        x, y = self.offsets(cells, others).abs().unbind(-1)
        apart = torch.hypot(x, y) if self.topology == "hexagonal" else torch.maximum(x, y)
        return (apart < 1.01) & (cells != others)

    def offsets(self, cells: Tensor, others: Tensor) -> Tensor:
        """(x, y) from cells to others (…, 2), the shortest ones on a torus."""
        apart = self.positions[others] - self.positions[cells]
        size = apart.new_tensor(self.size)
        return apart - size * (apart / size).round() if self.toroidal else apart

    def coarser(self, factor: int) -> Lattice:
        """The same sheet with 1 / `factor` of the rows and columns."""
        if factor == 1:
            return self
        rows, cols = round(self.rows / factor), round(self.cols / factor)
        if self.toroidal and self.topology == "hexagonal":
            rows += rows % 2
        return Lattice(rows, cols, self.topology, self.toroidal, self.device)

    def spread(self, values: Tensor, sigma: float) -> Tensor:
        """The sums over all cells of `values` (n_cells, n), weighted by the Gaussian neighborhood of radius `sigma`."""
        height, width, n = len(self._y), len(self._x), values.shape[1]
        grid = torch.zeros((height * width, n), dtype=values.dtype, device=values.device)
        grid[self._slot] = values
        grid = (self._gaussian(self._y, 1, sigma, values) @ grid.view(height, -1)).view(height, width, n)
        return (self._gaussian(self._x, 0, sigma, values) @ grid).view(height * width, n)[self._slot]

    def sheet(self, mean: Tensor, axes: Tensor, deviations: Tensor) -> Tensor:
        """Initial prototypes (n_cells, n_features): a sheet in the plane of the two leading axes, or a torus in four.

        Parameters
        ----------
        mean : Tensor (n_features,)
        axes : Tensor (4, n_features)
            Principal axes; zeros if the data have fewer.
        deviations : Tensor (4,)
            Standard deviations along them.
        """
        long = 0 if self.size[0] >= self.size[1] else 1  # longer side along the first axis
        if self.toroidal:  # each side is a circle in two of the axes
            parts = []
            for first, side in ((0, long), (1, 1 - long)):
                angle = self.positions[:, side] * (2 * torch.pi / self.size[side])
                for axis, wave in ((first, angle.cos()), (first + 2, angle.sin())):
                    parts.append(wave.to(mean.dtype)[:, None] * (2**0.5 * deviations[axis] * axes[axis]))
            return mean + torch.stack(parts).sum(0)
        low, high = self.positions.min(0).values, self.positions.max(0).values
        place = (self.positions - (low + high) / 2) / ((high - low) / 2).clamp(min=1e-9)
        place = (place if long == 0 else place.flip(1)).to(mean.dtype)
        return mean + (place * 1.5 * deviations[:2]) @ axes[:2]

    def resampled(self, codebook: Tensor, other: Lattice) -> Tensor:
        """The prototypes of `other`, a lattice of the same sheet, interpolated from those of this one.

        Each is a mean of nearby prototypes, weighted by a Gaussian of half a cell of this lattice.
        """
        squared = torch.zeros((len(other), len(self)), dtype=torch.float64, device=self.positions.device)
        for axis in (0, 1):
            scale = self.size[axis] / other.size[axis]
            here, there = self.positions[:, axis], other.positions[:, axis]
            middles = [(places.min() + places.max()) / 2 for places in (here, there)]
            there = (there - middles[1]) * scale + middles[0]
            squared += self._apart(there[:, None], here, axis).square()
        weights = torch.softmax(-2 * squared, dim=1).to(codebook.dtype)
        return weights @ codebook

    def tiles(self) -> tuple[Tensor, list[Tensor]]:
        """The tile of each cell (n_cells,), and for each tile the cells to search: its own and a margin.

        A sample is missed only if it moves by more than `MARGIN` cells.
        """
        row, col = torch.arange(len(self)) // self.cols, torch.arange(len(self)) % self.cols
        across = -(-self.cols // TILE)
        windows = []
        for top in range(0, self.rows, TILE):
            for left in range(0, self.cols, TILE):
                rows = self._window(top, self.rows)
                cols = self._window(left, self.cols)
                windows.append((rows[:, None] * self.cols + cols).reshape(-1).to(self.device))
        return (row // TILE * across + col // TILE).to(self.device), windows

    def _window(self, start: int, length: int) -> Tensor:
        places = torch.arange(start - MARGIN, start + TILE + MARGIN)
        return (places % length).unique() if self.toroidal else places[(places >= 0) & (places < length)]

    def _apart(self, here: Tensor, there: Tensor, axis: int) -> Tensor:
        apart = (here - there).abs()
        return torch.minimum(apart, self.size[axis] - apart) if self.toroidal else apart

    def _gaussian(self, places: Tensor, axis: int, sigma: float, like: Tensor) -> Tensor:
        return torch.exp(-self._apart(places[:, None], places, axis).square() / (2 * sigma**2)).to(like.dtype)
