"""Regions of a map: Ward's merges against scikit-learn, their number, tori, empty cells, degenerate data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from sklearn.cluster import ward_tree
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from imatlas.lattice.geometry import neighbor_table
from imatlas.models.som import SOM
from imatlas.tasks.regions import cut, regions, ward_merges

pytestmark = pytest.mark.usefixtures("one_thread")


def is_connected(cells: np.ndarray, table: np.ndarray) -> bool:
    reached, front = set(), {int(cells[0])}
    while front:
        reached |= front
        front = {int(c) for cell in front for c in table[cell] if c in cells} - reached
    return len(reached) == len(cells)


@pytest.mark.parametrize(("topology", "toroidal"), [("rectangular", False), ("hexagonal", False), ("hexagonal", True)])
def test_with_equal_hits_the_merges_are_those_of_scikit_learn(rng, topology, toroidal):
    codebook = rng.normal(size=(6 * 7, 4))
    table = neighbor_table(6, 7, topology, toroidal)
    cells, others = np.repeat(np.arange(42), table.shape[1]), table.ravel()
    adjacency = coo_matrix((np.ones((others >= 0).sum()), (cells[others >= 0], others[others >= 0])), shape=(42, 42))
    expected = np.sort(ward_tree(codebook, connectivity=adjacency.tocsr())[0], axis=1)
    assert np.array_equal(np.sort(ward_merges(codebook, np.full(42, 3), table), axis=1), expected)


def test_every_merge_adds_least_to_the_squared_distances(rng):
    codebook, hits = rng.normal(size=(12, 3)), rng.integers(1, 30, 12)
    table = neighbor_table(3, 4, "rectangular")

    def squared(groups):
        """Sum over all rows to the mean of their group, each row at the prototype of its cell."""
        rows = np.repeat(codebook, hits, axis=0)
        of = np.repeat(groups, hits)
        return sum(((rows[of == g] - rows[of == g].mean(0)) ** 2).sum() for g in set(of))

    merges = ward_merges(codebook, hits, table)
    for n in range(12, 1, -1):
        groups, merged = cut(merges, 12, n), cut(merges, 12, n - 1)
        options = []
        for a in range(n):
            for b in range(a + 1, n):
                union = np.flatnonzero((groups == a) | (groups == b))
                if is_connected(union, table):
                    options.append(squared(np.where(groups == b, a, groups)))
        assert squared(merged) == pytest.approx(min(options))


def test_an_empty_cell_joins_the_nearest_neighbor_and_moves_nothing():
    codebook = np.array([[0.0], [4.0], [5.0], [9.0]])
    table = neighbor_table(1, 4, "rectangular")
    assert cut(ward_merges(codebook, np.array([9, 0, 1, 9]), table), 4, 3).tolist() == [0, 1, 1, 2]
    with_empties = ward_merges(np.array([[0.0], [90.0], [1.0], [7.0]]), np.array([5, 0, 5, 5]), table)
    assert cut(with_empties, 4, 2).tolist() == [0, 0, 0, 1]


def test_on_a_torus_a_region_may_reach_over_the_edge():
    codebook = np.array([[0.0], [5.0], [5.1], [0.1]])
    hits = np.ones(4, int)
    assert cut(ward_merges(codebook, hits, neighbor_table(1, 4, "rectangular", True)), 4, 2).tolist() == [0, 1, 1, 0]
    assert cut(ward_merges(codebook, hits, neighbor_table(1, 4, "rectangular")), 4, 2).tolist() != [0, 1, 1, 0]


@pytest.mark.parametrize("n_groups", [3, 7])
def test_the_number_of_blobs_is_found_and_regions_are_connected(n_groups):
    X, y = make_blobs(1500, 16, centers=n_groups, cluster_std=2.5, random_state=1)
    X = X.astype(np.float32)
    som = SOM().fit(X)
    found = regions(som, X)
    of_rows = found.labels[som.predict(X)]
    assert found.n_regions == found.result.metrics["n_regions"] == n_groups
    assert adjusted_rand_score(y, of_rows) > 0.98
    assert found.confidence > 0.97
    table = neighbor_table(som.rows_, som.cols_, som.topology)
    assert all(is_connected(np.flatnonzero(found.labels == k), table) for k in range(n_groups))
    assert found.labels[0] == 0  # numbered by the first cell
    for k, medoid in enumerate(found.medoids):
        members = np.flatnonzero(of_rows == k)
        assert medoid == members[((X[members] - X[members].mean(0)) ** 2).sum(1).argmin()]
    assert found.result.panels[0].alt.endswith(f"at {n_groups}.")


def test_confidence_is_low_where_there_is_nothing_to_find(rng):
    noise = rng.normal(size=(400, 8)).astype(np.float32)
    blobs = make_blobs(400, 8, centers=4, random_state=0)[0].astype(np.float32)
    lost = regions(SOM().fit(noise), noise, n_regions=4)
    sure = regions(SOM().fit(blobs), blobs, n_regions=4)
    assert lost.confidence < 0.7 < 0.97 < sure.confidence
    assert "proposal" in lost.result.sentences[1]
    assert "sharp" in sure.result.sentences[1]


def test_regions_of_fashion_mnist_agree_with_its_labels(fashion):
    X = fashion[0][:4000].reshape(-1, 784).astype(np.float32) / 255
    X, _, axes = (lambda c: (c, *np.linalg.svd(c[:800], full_matrices=False)[1:]))(X - X.mean(0))
    som = SOM().fit(X @ axes[:32].T)
    found = regions(som, X @ axes[:32].T)
    assert 5 <= found.n_regions <= 20
    assert normalized_mutual_info_score(fashion[1][:4000], found.labels[som.predict(X @ axes[:32].T)]) > 0.45


def test_the_seed_decides_the_confidence(rng):
    X = rng.normal(size=(300, 4)).astype(np.float32)
    som = SOM().fit(X)
    first, again, other = (regions(som, X, n_regions=5, random_state=seed) for seed in (3, 3, 4))
    assert first.confidence == again.confidence != other.confidence
    assert np.array_equal(first.labels, other.labels)


@pytest.mark.parametrize("X", [np.zeros((20, 3)), np.ones((1, 4)), np.arange(6.0)[:, None], np.eye(50, 5)])
def test_degenerate_data(X):
    X = X.astype(np.float32)
    som = SOM().fit(X)
    for wanted in (None, 1, 100):
        found = regions(som, X, n_regions=wanted)
        assert found.labels.max() + 1 == found.n_regions <= len(X)
        assert 0 <= found.confidence <= 1
        assert found.labels[som.predict(X)][found.medoids].tolist() == list(range(found.n_regions))
