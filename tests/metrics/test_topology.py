"""Metrics of a map on lattices small enough to count by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from imatlas.errors import InputError, ParameterError
from imatlas.lattice.geometry import (
    HEX_ROW,
    are_neighbors,
    lattice_distances,
    lattice_period,
    lattice_positions,
    neighbor_table,
)
from imatlas.metrics.topology import (
    cell_purities,
    cell_purity,
    hit_entropy,
    neighborhood_preservation,
    quantization_error,
    topographic_error,
    topographic_product,
    trustworthiness,
    u_heights,
)

TORI = [
    ("rectangular", 5, 6), ("rectangular", 3, 3), ("rectangular", 2, 5), ("rectangular", 1, 4), ("rectangular", 2, 2),
    ("rectangular", 1, 1), ("hexagonal", 4, 5), ("hexagonal", 2, 6), ("hexagonal", 6, 1), ("hexagonal", 2, 2),
    ("hexagonal", 2, 1),
]  # fmt: skip


@pytest.mark.parametrize(("topology", "most"), [("rectangular", 8), ("hexagonal", 6)])
def test_the_table_and_the_positions_agree_on_adjacent_cells(topology, most):
    table = neighbor_table(5, 6, topology)
    assert table.shape == (30, most)
    cells = np.arange(30)
    adjacent = are_neighbors(cells[:, None], cells, 5, 6, topology)
    assert np.array_equal(adjacent, adjacent.T)
    for cell in cells:
        assert set(table[cell][table[cell] >= 0]) == set(np.flatnonzero(adjacent[cell]))
    assert adjacent.sum(1).max() == most
    assert adjacent[0].sum() == {"rectangular": 3, "hexagonal": 2}[topology]


def test_six_hexagons_are_one_unit_away():
    positions = lattice_positions(3, 3, "hexagonal")
    apart = np.linalg.norm(positions - positions[4], axis=1)
    assert np.isclose(apart, 1).sum() == 6


def around(cell: int, rows: int, cols: int, topology: str) -> np.ndarray:
    """Distances (n_cells,) on a torus, as the shortest to the nine copies of the lattice around it."""
    positions = lattice_positions(rows, cols, topology)
    height = rows * (HEX_ROW if topology == "hexagonal" else 1)
    copies = [positions + np.array([i * cols, j * height]) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return np.min([np.linalg.norm(copy - positions[cell], axis=1) for copy in copies], axis=0)


@pytest.mark.parametrize(("topology", "rows", "cols"), TORI)
def test_on_a_torus_opposite_edges_are_adjacent(topology, rows, cols):
    cells = np.arange(rows * cols)
    reach = {"rectangular": 2**0.5, "hexagonal": 1}[topology] + 1e-6
    table = neighbor_table(rows, cols, topology, toroidal=True)
    adjacent = are_neighbors(cells[:, None], cells, rows, cols, topology, toroidal=True)
    for cell in cells:
        expected = set(np.flatnonzero(around(cell, rows, cols, topology) < reach)) - {cell}
        listed = table[cell][table[cell] >= 0]
        assert set(np.flatnonzero(adjacent[cell])) == expected
        assert set(listed) == expected
        assert len(listed) == len(expected), "a neighbor is listed twice"
        distances = lattice_distances(cell, cells, rows, cols, topology, toroidal=True)
        np.testing.assert_allclose(distances, around(cell, rows, cols, topology), atol=1e-12)
    if min(rows, cols) >= 3:
        assert (table >= 0).all()


def test_the_torus_is_a_choice():
    assert not are_neighbors(0, 5, 1, 6, "rectangular")
    assert are_neighbors(0, 5, 1, 6, "rectangular", toroidal=True)
    assert lattice_distances(0, 5, 1, 6, "rectangular") == 5
    assert lattice_period(4, 6, "hexagonal") == (6.0, 4 * HEX_ROW)


def test_a_hexagonal_torus_needs_an_even_number_of_rows():
    for call in (
        lambda: neighbor_table(3, 4, "hexagonal", toroidal=True),
        lambda: are_neighbors(0, 1, 3, 4, "hexagonal", toroidal=True),
        lambda: u_heights(np.zeros((12, 2)), 3, 4, "hexagonal", toroidal=True),
        lambda: topographic_error(np.eye(4), np.eye(12, 4), 3, 4, "hexagonal", toroidal=True),
    ):
        with pytest.raises(ParameterError, match=r"even number of rows.* Got 3"):
            call()
    assert neighbor_table(3, 4, "rectangular", toroidal=True).min() >= 0


def test_quantization_error_is_the_mean_distance():
    assert quantization_error(np.array([[0.0, 3.0], [4.0, 0.0]]), np.array([[0.0, 0.0], [9.0, 9.0]])) == 3.5


def test_topographic_error_counts_pairs_that_are_not_adjacent():
    codebook = np.array([[0.0], [10.0], [1.0], [11.0]])  # a line of four cells, folded
    X = np.array([[0.4], [10.4], [0.6], [5.8]])  # two best units: (0, 2), (1, 3), (2, 0), (1, 2)
    assert topographic_error(X, codebook, 1, 4, "rectangular") == 0.75
    assert topographic_error(X, np.sort(codebook, axis=0), 1, 4, "rectangular") == 0
    assert topographic_error(X, codebook[:1], 1, 1, "hexagonal") == 0


def test_diagonal_cells_are_adjacent_on_squares_only():
    codebook = np.array([[0.0], [10.0], [20.0], [1.0]])  # cells 0 and 3 lie on the diagonal of 2 x 2
    X = np.array([[0.4]])
    assert topographic_error(X, codebook, 2, 2, "rectangular") == 0
    assert topographic_error(X, codebook, 2, 2, "hexagonal") == 1


def test_on_a_ring_the_ends_are_adjacent():
    codebook, X = np.array([[0.0], [10.0], [20.0], [1.0]]), np.array([[0.4]])
    assert topographic_error(X, codebook, 1, 4, "rectangular") == 1
    assert topographic_error(X, codebook, 1, 4, "rectangular", toroidal=True) == 0


def slow_product(codebook, positions):
    """The topographic product by its definition."""
    n, total = len(codebook), 0.0
    for j in range(n):
        there = np.linalg.norm(codebook - codebook[j], axis=1)
        here = np.linalg.norm(positions - positions[j], axis=1).round(9)
        others = [i for i in range(n) if i != j]
        on_lattice, by_prototype = sorted(others, key=lambda i: here[i]), sorted(others, key=lambda i: there[i])
        product = 1.0
        for k, (a, v) in enumerate(zip(on_lattice, by_prototype, strict=True), 1):
            product *= there[a] / there[v] * here[a] / here[v]
            total += np.log(product ** (1 / (2 * k)))
    return total / (n * (n - 1))


@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
def test_topographic_product_is_its_definition(rng, topology):
    codebook = rng.normal(size=(30, 3)).astype(np.float32)
    expected = slow_product(codebook.astype(float), lattice_positions(5, 6, topology))
    assert topographic_product(codebook, 5, 6, topology) == pytest.approx(expected, abs=1e-6)


def test_topographic_product_tells_the_dimension_but_not_chaos(rng):
    grid = lattice_positions(12, 12, "rectangular")
    assert topographic_product(grid, 12, 12, "rectangular") == pytest.approx(0, abs=1e-6)
    # a line laid through the plane in loops has too few dimensions, a plane squeezed to a line too many
    snake = np.array([[row, col if row % 2 else 11 - col] for row in range(12) for col in range(12)], float)
    assert topographic_product(snake, 1, 144, "rectangular") < -0.02
    assert topographic_product(grid * [1, 0.05], 12, 12, "rectangular") > 0.005
    ring = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], axis=1)
    assert topographic_product(ring, 1, 24, "rectangular", toroidal=True) == pytest.approx(0, abs=1e-6)
    assert abs(topographic_product(ring, 1, 24, "rectangular")) > 0.015
    # randomly ordered cells: both ratios change alike, so the product does not detect it
    shuffled = grid[rng.permutation(144)]
    assert abs(topographic_product(shuffled, 12, 12, "rectangular")) < 0.01


@pytest.mark.parametrize("codebook", [np.zeros((4, 2)), np.ones((1, 3)), np.eye(2)])
def test_topographic_product_of_next_to_nothing_is_0(codebook):
    assert topographic_product(codebook, 1, len(codebook), "rectangular") == 0
    doubled = np.array([[0.0], [0.0], [1.0], [2.0]])
    assert np.isfinite(topographic_product(doubled, 1, 4, "rectangular"))


def test_topographic_product_goes_chunk_by_chunk(rng):
    codebook = rng.normal(size=(1600, 4)).astype(np.float32)
    tracemalloc.start()
    topographic_product(codebook, 40, 40, "rectangular")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6


def slow_trust(space, shown, k):
    """1 - 2 / (n k (2n - 3k - 1)) · Σ_i Σ_j (r(i, j) - k) over the k nearest that are shown but not among those in
    the space, r their rank there."""
    n, cost = len(space), 0
    for i in range(n):
        near = np.argsort(np.linalg.norm(shown - shown[i], axis=1))
        real = np.argsort(np.linalg.norm(space - space[i], axis=1))
        rank = {j: r for r, j in enumerate(j for j in real if j != i)}
        cost += sum(max(0, rank[j] + 1 - k) for j in [j for j in near if j != i][:k])
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * cost


def test_trustworthiness_and_preservation_are_their_definitions(rng):
    X, places = rng.normal(size=(60, 5)), rng.normal(size=(60, 2))
    assert trustworthiness(X, places, n_neighbors=7) == pytest.approx(slow_trust(X, places, 7))
    assert neighborhood_preservation(X, places, n_neighbors=7) == pytest.approx(slow_trust(places, X, 7))


def test_lost_order_is_detected(rng):
    X = rng.random((400, 2))
    assert trustworthiness(X, X) == neighborhood_preservation(X, X) == 1
    lost = rng.permutation(X)
    assert trustworthiness(X, lost) < 0.6
    assert neighborhood_preservation(X, lost) < 0.6
    squeezed = X * [1, 0]  # false neighbors appear, true ones remain
    assert trustworthiness(X, squeezed) < neighborhood_preservation(X, squeezed) - 0.05


def test_a_torus_is_judged_as_a_torus(rng):
    angle = rng.random(300) * 2 * np.pi
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    places = np.stack([angle * 12 / (2 * np.pi), np.zeros(300)], axis=1)
    period = lattice_period(1, 12, "rectangular")
    assert neighborhood_preservation(ring, places, period=period) == 1
    assert neighborhood_preservation(ring, places) < 0.999


def test_many_rows_are_judged_by_a_sample_and_few_by_fewer_neighbors(rng):
    X = rng.random((500, 3))
    some = np.sort(np.random.default_rng(5).choice(500, 100, replace=False))
    sampled = trustworthiness(X, X[:, :2], max_rows=100, random_state=5)
    assert sampled == trustworthiness(X[some], X[some, :2])
    assert sampled != trustworthiness(X, X[:, :2], max_rows=100, random_state=6)
    assert trustworthiness(X[:9], X[:9, :2]) == pytest.approx(slow_trust(X[:9], X[:9, :2], 4))
    assert trustworthiness(X[:2], X[:2, :2]) == 1
    with pytest.raises(InputError, match=r"one position\. Got 500 rows and 9 positions"):
        trustworthiness(X, X[:9, :2])


def test_cell_purity():
    cells, labels = np.array([0, 0, 0, 2, 2, 3]), np.array(["a", "a", "b", "c", "a", "b"])
    assert cell_purity(cells, labels, 5) == pytest.approx(4 / 6)
    np.testing.assert_allclose(cell_purities(cells, labels, 5), [2 / 3, np.nan, 0.5, 1, np.nan])
    assert cell_purity(cells, np.zeros(6), 5) == 1
    assert cell_purity(cells[:0], labels[:0], 5) == 0


def test_hit_entropy():
    assert hit_entropy(np.array([0, 1, 2, 3]), 4) == pytest.approx(1)
    assert hit_entropy(np.array([2, 2, 2]), 4) == 0
    assert hit_entropy(np.array([0, 0, 1, 1]), 4) == pytest.approx(0.5)


def test_u_heights_are_mean_distances_to_the_cells_around():
    heights = u_heights(np.array([[0.0], [1.0], [5.0]]), 1, 3, "rectangular")
    assert heights.tolist() == [1.0, 2.5, 4.0]
    assert u_heights(np.zeros((1, 3)), 1, 1, "hexagonal").tolist() == [0.0]
    around_the_ring = u_heights(np.array([[0.0], [1.0], [5.0]]), 1, 3, "rectangular", toroidal=True)
    assert around_the_ring.tolist() == [3.0, 2.5, 4.5]
