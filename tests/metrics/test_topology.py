"""Measures of a map against lattices small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.metrics.topology import (
    are_neighbors,
    hit_entropy,
    lattice_positions,
    neighbor_table,
    quantization_error,
    topographic_error,
    u_heights,
)


@pytest.mark.parametrize(("topology", "most"), [("rectangular", 8), ("hexagonal", 6)])
def test_the_table_and_the_positions_agree_on_who_touches(topology, most):
    table = neighbor_table(5, 6, topology)
    assert table.shape == (30, most)
    cells = np.arange(30)
    touch = are_neighbors(cells[:, None], cells, 5, 6, topology)
    assert np.array_equal(touch, touch.T)
    for cell in cells:
        assert set(table[cell][table[cell] >= 0]) == set(np.flatnonzero(touch[cell]))
    assert touch.sum(1).max() == most
    assert touch[0].sum() == {"rectangular": 3, "hexagonal": 2}[topology]


def test_six_hexagons_are_one_unit_away():
    positions = lattice_positions(3, 3, "hexagonal")
    apart = np.linalg.norm(positions - positions[4], axis=1)
    assert np.isclose(apart, 1).sum() == 6


def test_quantization_error_is_the_mean_distance():
    assert quantization_error(np.array([[0.0, 3.0], [4.0, 0.0]]), np.array([[0.0, 0.0], [9.0, 9.0]])) == 3.5


def test_topographic_error_counts_torn_pairs():
    codebook = np.array([[0.0], [10.0], [1.0], [11.0]])  # a line of four cells, folded
    X = np.array([[0.4], [10.4], [0.6], [5.8]])  # two best units: (0, 2), (1, 3), (2, 0), (1, 2)
    assert topographic_error(X, codebook, 1, 4, "rectangular") == 0.75
    assert topographic_error(X, np.sort(codebook, axis=0), 1, 4, "rectangular") == 0
    assert topographic_error(X, codebook[:1], 1, 1, "hexagonal") == 0


def test_diagonal_cells_touch_on_squares_only():
    codebook = np.array([[0.0], [10.0], [20.0], [1.0]])  # cells 0 and 3 lie on the diagonal of 2 x 2
    X = np.array([[0.4]])
    assert topographic_error(X, codebook, 2, 2, "rectangular") == 0
    assert topographic_error(X, codebook, 2, 2, "hexagonal") == 1


def test_hit_entropy():
    assert hit_entropy(np.array([0, 1, 2, 3]), 4) == pytest.approx(1)
    assert hit_entropy(np.array([2, 2, 2]), 4) == 0
    assert hit_entropy(np.array([0, 0, 1, 1]), 4) == pytest.approx(0.5)


def test_u_heights_are_mean_distances_to_the_cells_around():
    heights = u_heights(np.array([[0.0], [1.0], [5.0]]), 1, 3, "rectangular")
    assert heights.tolist() == [1.0, 2.5, 4.0]
    assert u_heights(np.zeros((1, 3)), 1, 1, "hexagonal").tolist() == [0.0]
