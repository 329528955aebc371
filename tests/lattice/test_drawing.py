"""The geometry of a drawn map: cells tile it, and clusters have borders and a center."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.lattice.drawing import PITCH, DrawnLattice, borders, label_places
from imatlas.lattice.geometry import lattice_positions


@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
def test_drawn_positions_agree_with_lattice_positions(topology) -> None:
    lattice = DrawnLattice(topology, 5, 4)
    centers = np.array([lattice.center(*divmod(k, 4)) for k in range(20)])
    np.testing.assert_allclose((centers - centers[0]) / PITCH, lattice_positions(5, 4, topology), atol=1e-12)


@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
def test_neighbors_lie_beyond_their_side(topology) -> None:
    lattice = DrawnLattice(topology, 6, 6)
    corners = np.array(lattice.corners)
    for row, column in ((2, 3), (3, 3)):
        center = np.array(lattice.center(row, column))
        for side in range(len(corners)):
            there = lattice.neighbor(row, column, side)
            offset = np.array(lattice.center(*there)) - center
            assert np.linalg.norm(offset) == pytest.approx(PITCH)
            middle = (corners[side] + corners[(side + 1) % len(corners)]) / 2
            assert offset == pytest.approx(2 * middle)
            assert (row, column) in [lattice.neighbor(*there, back) for back in range(len(corners))]
    last = np.array(lattice.center(5, 5)) + corners.max(axis=0)
    assert last == pytest.approx(lattice.size)


def test_a_border_has_one_line_per_adjacent_cluster() -> None:
    lattice = DrawnLattice("hexagonal", 3, 3)
    clusters: dict[tuple[int, int], int | None] = {divmod(k, 3): 0 for k in range(9)}
    clusters[1, 1] = 7
    lines = borders(lattice, clusters)
    assert list(lines) == [0, 7]
    assert len(lines[7]) == 6
    center = np.array(lattice.center(1, 1))
    ends = np.array(lines[7]).reshape(-1, 2) - center
    np.testing.assert_allclose(np.hypot(*ends.T), PITCH / 3**0.5)
    shared = {tuple(sorted((round(x, 6), round(y, 6)) for x, y in line)) for line in lines[7]}
    assert shared <= {tuple(sorted((round(x, 6), round(y, 6)) for x, y in line)) for line in lines[0]}
    clusters[1, 1] = None
    assert list(borders(lattice, clusters)) == [0]
    assert borders(lattice, dict.fromkeys(clusters, 3)) == {}


def test_cluster_labels_lie_in_their_largest_component() -> None:
    lattice = DrawnLattice("rectangular", 1, 7)
    clusters = [1, 0, 1, 1, 1, 0, None]
    assert label_places(lattice, {(0, k): cluster for k, cluster in enumerate(clusters)}) == {0: (0, 1), 1: (0, 3)}
