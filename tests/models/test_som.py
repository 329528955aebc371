"""The map: scikit-learn's contract, the batch equation against a slow reference, order, quality on images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import imatlas
from imatlas.metrics.topology import lattice_positions, quantization_error, topographic_error
from imatlas.models.kmeans import KMeans
from imatlas.models.som import LAST_RADII, SOM, _Lattice, cell_sums, lattice_shape, schedule, torn_bound, update
from tests.sklearn_checks import run_checks

pytestmark = pytest.mark.usefixtures("one_thread")
TOPOLOGIES = ["rectangular", "hexagonal"]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_sklearn_contract(topology):
    run_checks(SOM(topology=topology))


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_an_epoch_is_the_batch_equation(rng, topology, sigma):
    X, codebook = rng.normal(size=(300, 5)), rng.normal(size=(4 * 7, 5))
    positions = lattice_positions(4, 7, topology)
    h = np.exp(-((positions[:, None] - positions) ** 2).sum(2) / (2 * sigma**2))
    best = ((X[:, None] - codebook) ** 2).sum(2).argmin(1)
    weights = h[:, best]
    expected = weights @ X / weights.sum(1, keepdims=True)
    lattice = _Lattice(4, 7, topology, torch.device("cpu"))
    first = torch.tensor(codebook).float()
    found = update(cell_sums(torch.tensor(X).float(), first), first, lattice, sigma)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_unit_that_no_row_reaches_keeps_its_place():
    lattice = _Lattice(1, 30, "rectangular", torch.device("cpu"))
    codebook = torch.linspace(0, 29, 30)[:, None]
    found = update(cell_sums(torch.zeros(5, 1), codebook), codebook, lattice, 0.5)
    assert found[0] == 0
    assert torch.equal(found[10:], codebook[10:])


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("init", ["pca", "sample", "random"])
def test_a_square_is_unfolded(rng, topology, init):
    X = rng.random((3000, 2)).astype(np.float32)
    som = SOM(rows=10, cols=10, topology=topology, init=init, n_epochs=30).fit(X)
    assert topographic_error(X, som.codebook_, 10, 10, topology) < 0.09
    assert quantization_error(X, som.codebook_) < 0.05
    # neighbours in the square are neighbours on the map: distances there and here go together
    place = som.project(X)
    i, j = rng.integers(3000, size=(2, 2000))
    there, here = (np.linalg.norm(a[i] - a[j], axis=1) for a in (X, place))
    assert np.corrcoef(there, here)[0, 1] > 0.95


@pytest.mark.parametrize("n", [600, 6000])
def test_close_and_ordered_on_held_out_images(fashion, n):
    X = fashion[0].reshape(-1, 784).astype(np.float32) / 255
    X, _, axes = (lambda c: (c, *np.linalg.svd(c[:2000], full_matrices=False)[1:]))(X - X.mean(0))
    Z = X @ axes[:32].T
    train, held_out = Z[:n], Z[8000:]
    som = SOM().fit(train)
    kmeans = KMeans(n_clusters=len(som.codebook_), max_iter=25).fit(train)
    ratio = quantization_error(held_out, som.codebook_) / quantization_error(held_out, kmeans.cluster_centers_)
    torn = topographic_error(held_out, som.codebook_, som.rows_, som.cols_, "rectangular")
    assert ratio < 1.10
    assert torn < 0.10


def test_verbs_agree(rng):
    X = rng.normal(size=(400, 6)).astype(np.float32)
    som = SOM(rows=5, cols=8, topology="hexagonal").fit(X)
    distances = som.transform(X)
    cells = som.predict(X)
    assert distances.shape == (400, 40)
    assert np.array_equal(distances.argmin(1), cells)
    assert np.array_equal(som.cells_[:, 0] * 8 + som.cells_[:, 1], cells)
    np.testing.assert_allclose(-som.score_samples(X), distances.min(1), rtol=1e-3)
    np.testing.assert_array_equal(som.inverse_transform(cells), som.codebook_[cells])
    with pytest.raises(IndexError):
        som.inverse_transform([40])
    assert len(som.get_feature_names_out()) == 40


def test_project_stays_near_the_best_cell_and_leans_to_the_second(rng):
    X = rng.normal(size=(1000, 3)).astype(np.float32)
    som = SOM(rows=6, cols=6, topology="hexagonal").fit(X)
    place, cells = som.project(X), som.predict(X)
    assert np.linalg.norm(place - som.positions_[cells], axis=1).max() < 0.6
    two = np.argsort(som.transform(X), axis=1)[:, :2]
    lean = ((place - som.positions_[two[:, 0]]) * (som.positions_[two[:, 1]] - som.positions_[two[:, 0]])).sum(1)
    assert (lean > 0).mean() > 0.85
    np.testing.assert_array_equal(som.project(X[:7]), place[:7])


def test_a_row_between_two_prototypes_lies_on_their_border():
    som = SOM(rows=1, cols=2).fit(np.array([[0.0], [1.0], [0.0], [1.0]]))
    som.codebook_ = np.array([[0.0], [1.0]], np.float32)
    x = som.project(np.array([[0.0], [0.5], [1.0]]))[:, 0]
    assert x[0] == pytest.approx(1 - x[2])
    assert 0 <= x[0] < x[1] < x[2] <= 1


def test_one_seed_one_map_and_another_seed_another(rng):
    X = rng.normal(size=(3000, 4)).astype(np.float32)
    make = lambda seed: SOM(rows=5, cols=5, random_state=seed).fit(X).codebook_  # noqa: E731
    assert np.array_equal(make(1), make(1))
    assert not np.array_equal(make(1), make(2))


def test_the_size_follows_the_data():
    even, long = torch.tensor([1.0, 1.0]), torch.tensor([5.0, 1.0])
    assert lattice_shape(10_000, even, "rectangular") == (22, 23)  # 5 √n
    assert lattice_shape(1200, even, "rectangular") == (10, 10)  # 12 rows a cell
    assert lattice_shape(100, even, "rectangular") == (5, 6)  # 30 cells
    assert lattice_shape(18, even, "rectangular") == (3, 3)  # 2 rows a cell
    rows, cols = lattice_shape(10_000, long, "rectangular")
    assert cols / rows == pytest.approx(1.6, abs=0.15)
    rows, cols = lattice_shape(10**7, even, "hexagonal")
    assert rows * cols == pytest.approx(1600, rel=0.02)
    assert cols / (rows * 0.866) == pytest.approx(1, abs=0.05)
    assert lattice_shape(10_000, even, "rectangular", cols=10) == (50, 10)
    assert lattice_shape(1, torch.zeros(2), "hexagonal") >= (1, 1)


def test_the_schedule_falls_rests_and_closes():
    steps = schedule(20, 10.0, 0.6, 50_000, 100)
    radii = [sigma for sigma, _ in steps]
    assert radii == sorted(radii, reverse=True)
    assert steps[0] == (10.0, 1500)
    assert steps[-1] == (0.6, 50_000)
    assert len(steps) == 20
    assert schedule(1, 10.0, 0.6, 50, 100) == [(0.6, 50)]


def test_the_last_radius_follows_the_data(rng):
    noise = rng.normal(size=(600, 40)).astype(np.float32)  # no two dimensions hold it: only a wide radius orders it
    plane = rng.random((600, 2)).astype(np.float32)
    assert SOM(rows=6, cols=6).fit(noise).schedule_[-1][0] == LAST_RADII[0]
    assert SOM(rows=6, cols=6).fit(plane).schedule_[-1][0] < 0.7
    assert SOM(rows=6, cols=6, final_sigma=0.7).fit(plane).schedule_[-1][0] == 0.7


def test_left_out_rows_are_judged_by_a_map_made_without_them(rng):
    X = torch.tensor(rng.normal(size=(100, 6))).float()
    lattice = _Lattice(4, 5, "hexagonal", X.device)
    codebook = torch.tensor(rng.normal(size=(20, 6))).float()
    cells = torch.cdist(X, codebook).argmin(1)
    torn = 0
    for fold in torch.arange(100).tensor_split(5):
        kept = torch.ones(100, dtype=torch.bool)
        kept[fold] = False
        left = update(cell_sums(X[kept], codebook), codebook, lattice, 0.8)
        for row in fold:
            best, second = (X[row] - left).norm(dim=1).argsort()[:2]
            torn += float((lattice.positions[best] - lattice.positions[second]).norm()) > 1.01
    share = torn / 100
    expected = share + (share * (1 - share) / 100) ** 0.5
    found = torn_bound(X, torch.arange(100), cells, cell_sums(X, codebook), codebook, lattice, 0.8)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("X", [np.zeros((20, 3)), np.ones((1, 4)), np.arange(6.0)[:, None], np.eye(5, 2)])
def test_poor_data_gives_a_finite_map(X):
    for topology in TOPOLOGIES:
        som = SOM(topology=topology).fit(X)
        assert np.isfinite(som.codebook_).all()
        assert np.isfinite(som.project(X)).all()


@pytest.mark.parametrize(("bad", "message"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_nan_and_inf_are_refused(bad, message):
    X = np.zeros((10, 2))
    X[3, 1] = bad
    with pytest.raises(ValueError, match=message):
        SOM().fit(X)


def test_wrong_parameters_are_named():
    with pytest.raises(ValueError, match="'topology' parameter of SOM must be one of 'rectangular', 'hexagonal'"):
        SOM(topology="ring").fit(np.zeros((4, 2)))


def test_saved_and_loaded_it_answers_the_same(rng, tmp_path):
    X = rng.normal(size=(200, 3)).astype(np.float32)
    som = SOM(topology="hexagonal").fit(X)
    som.save(tmp_path / "map")
    again = imatlas.artifact.load(tmp_path / "map")
    assert np.array_equal(again.project(X), som.project(X))
    assert (again.rows_, again.cols_, again.schedule_) == (som.rows_, som.cols_, som.schedule_)
