"""SOM: scikit-learn's contract, the batch equation against a slow reference, order, quality on images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_distances, nan_euclidean_distances
from sklearn.model_selection import GridSearchCV

import imatlas
from imatlas.errors import InputError
from imatlas.lattice.geometry import lattice_distances, lattice_positions
from imatlas.lattice.lattice import Lattice
from imatlas.metrics.topology import quantization_error, topographic_error
from imatlas.models.kmeans import KMeans
from imatlas.models.parts.batch_som import (
    FINAL_SIGMAS,
    batch_update,
    coarseness,
    lattice_shape,
    schedule,
    search_near,
    topographic_error_bound,
)
from imatlas.models.parts.rows import Rows
from imatlas.models.som import SOM
from tests.sklearn_checks import run_checks

pytestmark = pytest.mark.usefixtures("one_thread")
TOPOLOGIES = ["rectangular", "hexagonal"]
WEIGHTS = "the size of the map follows the number of rows, and a repeated row counts twice"


def cell_sums(X, codebook):
    rows = Rows(X)
    return rows.sums(rows.cells(codebook), len(codebook))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_sklearn_contract(topology):
    run_checks(SOM(topology=topology), {"check_sample_weight_equivalence_on_dense_data": WEIGHTS})


def test_sklearn_contract_on_the_sphere():
    run_checks(SOM(metric="cosine", toroidal=True), {"check_sample_weight_equivalence_on_dense_data": WEIGHTS})


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_an_epoch_is_the_batch_equation(rng, topology, sigma):
    X, codebook = rng.normal(size=(300, 5)), rng.normal(size=(4 * 7, 5))
    positions = lattice_positions(4, 7, topology)
    h = np.exp(-((positions[:, None] - positions) ** 2).sum(2) / (2 * sigma**2))
    best = ((X[:, None] - codebook) ** 2).sum(2).argmin(1)
    weights = h[:, best]
    expected = weights @ X / weights.sum(1, keepdims=True)
    lattice = Lattice(4, 7, topology)
    first = torch.tensor(codebook).float()
    found = batch_update(cell_sums(torch.tensor(X).float(), first), first, lattice, sigma)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_prototype_that_no_row_reaches_stays():
    lattice = Lattice(1, 30, "rectangular")
    codebook = torch.linspace(0, 29, 30)[:, None]
    found = batch_update(cell_sums(torch.zeros(5, 1), codebook), codebook, lattice, 0.5)
    assert found[0] == 0
    assert torch.equal(found[10:], codebook[10:])


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("init", ["pca", "sample", "random"])
def test_a_square_is_unfolded(rng, topology, init):
    X = rng.random((3000, 2)).astype(np.float32)
    som = SOM(rows=10, cols=10, topology=topology, init=init, n_epochs=30).fit(X)
    assert topographic_error(X, som.codebook_, 10, 10, topology) < 0.09
    assert quantization_error(X, som.codebook_) < 0.05
    # distances in the square and on the map correlate
    place = som.project(X)
    i, j = rng.integers(3000, size=(2, 2000))
    there, here = (np.linalg.norm(a[i] - a[j], axis=1) for a in (X, place))
    assert np.corrcoef(there, here)[0, 1] > 0.95


@pytest.mark.parametrize("n", [600, 6000])
def test_quantization_and_topographic_error_of_held_out_images(fashion, n):
    X = fashion[0].reshape(-1, 784).astype(np.float32) / 255
    X, _, axes = (lambda c: (c, *np.linalg.svd(c[:2000], full_matrices=False)[1:]))(X - X.mean(0))
    Z = X @ axes[:32].T
    train, held_out = Z[:n], Z[8000:]
    som = SOM().fit(train)
    kmeans = KMeans(n_clusters=len(som.codebook_), max_iter=25).fit(train)
    ratio = quantization_error(held_out, som.codebook_) / quantization_error(held_out, kmeans.cluster_centers_)
    error = topographic_error(held_out, som.codebook_, som.rows_, som.cols_, "rectangular")
    assert ratio < 1.10
    assert error < 0.10


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


def test_project_lies_between_the_two_best_cells(rng):
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


def test_the_seed_decides_the_map(rng):
    X = rng.normal(size=(3000, 4)).astype(np.float32)
    make = lambda seed: SOM(rows=5, cols=5, random_state=seed).fit(X).codebook_  # noqa: E731
    assert np.array_equal(make(1), make(1))
    assert not np.array_equal(make(1), make(2))


def test_the_size_follows_the_data():
    even, long = torch.tensor([1.0, 1.0]), torch.tensor([5.0, 1.0])
    assert lattice_shape(10_000, even, "rectangular") == (22, 23)  # 5 √n
    assert lattice_shape(1200, even, "rectangular") == (10, 10)  # 12 rows per cell
    assert lattice_shape(100, even, "rectangular") == (5, 6)  # 30 cells
    assert lattice_shape(18, even, "rectangular") == (3, 3)  # 2 rows per cell
    rows, cols = lattice_shape(10_000, long, "rectangular")
    assert cols / rows == pytest.approx(1.6, abs=0.15)
    rows, cols = lattice_shape(10**7, even, "hexagonal")
    assert rows * cols == pytest.approx(1600, rel=0.02)
    assert cols / (rows * 0.866) == pytest.approx(1, abs=0.05)
    assert lattice_shape(10_000, even, "rectangular", cols=10) == (50, 10)
    assert lattice_shape(1, torch.zeros(2), "hexagonal") >= (1, 1)


def test_the_schedule_shrinks_refines_and_ends():
    steps = schedule(20, 10.0, 0.6, 50_000, 100)
    sigmas = [sigma for sigma, _ in steps]
    assert sigmas == sorted(sigmas, reverse=True)
    assert steps[0] == (10.0, 1000)  # of a lattice of 13 cells
    assert steps[-1] == (0.6, 50_000)
    assert len(steps) == 20
    assert schedule(1, 10.0, 0.6, 50, 100) == [(0.6, 50)]


def test_the_final_sigma_follows_the_data(rng):
    noise = rng.normal(size=(600, 40)).astype(np.float32)  # not two-dimensional: only a large sigma orders it
    plane = rng.random((600, 2)).astype(np.float32)
    assert SOM(rows=6, cols=6).fit(noise).schedule_[-1][0] == FINAL_SIGMAS[0]
    assert SOM(rows=6, cols=6).fit(plane).schedule_[-1][0] < 0.7
    assert SOM(rows=6, cols=6, final_sigma=0.7).fit(plane).schedule_[-1][0] == 0.7


def test_the_topographic_error_bound_is_cross_validated(rng):
    X = torch.tensor(rng.normal(size=(100, 6))).float()
    lattice = Lattice(4, 5, "hexagonal")
    codebook = torch.tensor(rng.normal(size=(20, 6))).float()
    cells = torch.cdist(X, codebook).argmin(1)
    n_errors = 0
    for first in range(5):
        fold = torch.arange(first, 100, 5)
        kept = torch.ones(100, dtype=torch.bool)
        kept[fold] = False
        left = batch_update(cell_sums(X[kept], codebook), codebook, lattice, 0.8)
        for row in fold:
            best, second = (X[row] - left).norm(dim=1).argsort()[:2]
            n_errors += float((lattice.positions[best] - lattice.positions[second]).norm()) > 1.01
    error = n_errors / 100
    expected = error + (error * (1 - error) / 100) ** 0.5
    found = topographic_error_bound(Rows(X), cells, cell_sums(X, codebook), codebook, lattice, 0.8)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("X", [np.zeros((20, 3)), np.ones((1, 4)), np.arange(6.0)[:, None], np.eye(5, 2)])
def test_degenerate_data_gives_a_finite_map(X):
    for topology in TOPOLOGIES:
        som = SOM(topology=topology).fit(X)
        assert np.isfinite(som.codebook_).all()
        assert np.isfinite(som.project(X)).all()


def test_inf_is_refused():
    X = np.zeros((10, 2))
    X[3, 1] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        SOM().fit(X)


def test_wrong_parameters_are_named():
    with pytest.raises(ValueError, match="'topology' parameter of SOM must be one of 'rectangular', 'hexagonal'"):
        SOM(topology="ring").fit(np.zeros((4, 2)))


def test_save_and_load_keep_every_answer(rng, tmp_path):
    X = rng.normal(size=(200, 3)).astype(np.float32)
    som = SOM(topology="hexagonal").fit(X)
    som.save(tmp_path / "map")
    again = imatlas.load(tmp_path / "map")
    assert np.array_equal(again.project(X), som.project(X))
    assert (again.rows_, again.cols_, again.schedule_) == (som.rows_, som.cols_, som.schedule_)


def with_gaps(rng, X, share=0.3):
    X = X.copy()
    X[rng.random(X.shape) < share] = np.nan
    return X


def test_distances_with_gaps_are_those_over_the_known_values(rng):
    X = with_gaps(rng, rng.normal(size=(300, 6)).astype(np.float32))
    X[7] = np.nan
    som = SOM(rows=4, cols=5).fit(X)
    expected = nan_euclidean_distances(X, som.codebook_)
    np.testing.assert_allclose(som.transform(X), expected, atol=1e-4)
    known = np.arange(300) != 7
    assert np.array_equal(som.predict(X)[known], expected[known].argmin(1))
    np.testing.assert_allclose(-som.score_samples(X)[known], expected[known].min(1), atol=1e-4)
    assert som.predict(X)[7] == -1
    assert som.cells_[7].tolist() == [-1, -1]
    assert np.isnan(som.inverse_transform(som.predict(X))[7]).all()
    assert np.isnan(som.project(X)[7]).all()
    assert np.isfinite(som.codebook_).all()


def test_an_epoch_with_gaps_is_the_batch_equation_over_known_values(rng):
    X, codebook = with_gaps(rng, rng.normal(size=(300, 5))), rng.normal(size=(12, 5))
    best = nan_euclidean_distances(X, codebook).argmin(1)
    positions = lattice_positions(3, 4, "rectangular")
    h = np.exp(-((positions[:, None] - positions) ** 2).sum(2) / 2)[:, best]
    expected = h @ np.nan_to_num(X) / (h @ ~np.isnan(X))
    rows, first = Rows(torch.tensor(X).float(), missing=True), torch.tensor(codebook).float()
    found = batch_update(rows.sums(rows.cells(first), 12), first, Lattice(3, 4, "rectangular"), 1.0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_code_for_missing_values_gives_the_same_map(rng):
    X = rng.normal(size=(500, 4)).astype(np.float32)
    one_gap = np.vstack([X, np.full((1, 4), np.nan, np.float32)])
    np.testing.assert_allclose(
        SOM(rows=5, cols=5).fit(one_gap).codebook_, SOM(rows=5, cols=5).fit(X).codebook_, atol=1e-4
    )


def test_a_third_of_the_values_missing_costs_little(fashion):
    X = fashion[0].reshape(-1, 784)[:, ::4].astype(np.float32) / 255
    train, held_out = X[:6000], X[6000:]
    gaps = with_gaps(np.random.default_rng(0), train)
    with_all, without = (SOM(rows=8, cols=8, final_sigma=0.7).fit(x) for x in (train, gaps))
    ratio = quantization_error(held_out, without.codebook_) / quantization_error(held_out, with_all.codebook_)
    assert ratio < 1.05


def test_no_row_to_learn_from_is_an_error():
    with pytest.raises(ValueError, match="There is no row to learn from"):
        SOM().fit(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="at least one non-zero"):
        SOM().fit(np.ones((4, 3)), sample_weight=np.zeros(4))


def test_a_weight_counts_as_repetitions(rng):
    X = rng.normal(size=(200, 3)).astype(np.float32)
    weights = rng.integers(0, 4, 200)
    make = lambda: SOM(rows=4, cols=4, final_sigma=0.7)  # noqa: E731
    weighted = make().fit(X, sample_weight=weights)
    repeated = make().fit(np.repeat(X, weights, axis=0))
    np.testing.assert_allclose(weighted.codebook_, repeated.codebook_, atol=1e-3)
    assert not np.allclose(weighted.codebook_, make().fit(X).codebook_, atol=1e-3)


def test_cosine_compares_directions_only(rng):
    X = rng.normal(size=(400, 5)).astype(np.float32)
    som = SOM(rows=4, cols=4, metric="cosine").fit(X)
    longer = X * rng.uniform(0.1, 10, size=(400, 1)).astype(np.float32)
    assert np.array_equal(som.predict(longer), som.predict(X))
    np.testing.assert_allclose(som.transform(X), cosine_distances(X, som.codebook_), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(som.codebook_, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(-som.score_samples(X), cosine_distances(X, som.codebook_).min(1), atol=1e-5)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_torus_closes(rng, topology):
    angle = rng.uniform(0, 2 * np.pi, size=(4000, 2))
    X = np.concatenate([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    errors = {}
    for toroidal in (False, True):
        som = SOM(rows=12, cols=12, topology=topology, toroidal=toroidal, final_sigma=0.7).fit(X)
        errors[toroidal] = topographic_error(X, som.codebook_, 12, 12, topology, toroidal)
    assert errors[True] < 0.05
    assert errors[False] > errors[True]
    places = som.project(X)
    assert np.isfinite(places).all()


def test_the_neighborhood_on_a_torus_wraps(rng):
    for topology in TOPOLOGIES:
        lattice = Lattice(6, 8, topology, toroidal=True)
        cells = np.arange(48)
        h = np.exp(-(lattice_distances(cells[:, None], cells, 6, 8, topology, True) ** 2) / (2 * 0.8**2))
        values = rng.normal(size=(48, 3)).astype(np.float32)
        np.testing.assert_allclose(lattice.spread(torch.tensor(values), 0.8).numpy(), h @ values, atol=1e-5)
    with pytest.raises(ValueError, match="needs an even number of rows"):
        SOM(rows=5, cols=4, topology="hexagonal", toroidal=True).fit(rng.normal(size=(50, 3)))


def test_searching_near_the_last_cells_finds_what_a_full_search_finds(rng):
    X = rng.random((4000, 2)).astype(np.float32)
    som = SOM(rows=32, cols=32, final_sigma=0.7).fit(X)
    for toroidal in (False, True):
        lattice = Lattice(32, 32, "rectangular", toroidal)
        rows, codebook = Rows(torch.tensor(X)), torch.tensor(som.codebook_)
        before = rows.cells(codebook)
        moved = codebook + 0.002 * torch.randn(codebook.shape, generator=torch.Generator().manual_seed(0))
        near = search_near(rows, moved, before, lattice)
        assert (near == rows.cells(moved)).float().mean() > 0.999  # rows between two cells may fall either way
        assert not torch.equal(near, before)
    tile_of, windows = lattice.tiles()
    assert all(cell in windows[tile] for cell, tile in enumerate(tile_of.tolist()))


def test_a_coarse_codebook_is_resampled_to_a_fine_lattice(rng):
    for topology in TOPOLOGIES:
        coarse, fine = Lattice(6, 6, topology), Lattice(12, 12, topology)
        codebook = coarse.sheet(torch.zeros(2), torch.eye(4, 2), torch.ones(4))
        grown = coarse.resampled(codebook, fine)
        np.testing.assert_allclose(grown.mean(0).numpy(), 0, atol=0.02)
        assert np.corrcoef(grown[:, 0], fine.positions[:, 0])[0, 1] > 0.99
        assert np.corrcoef(grown[:, 1], fine.positions[:, 1])[0, 1] > 0.99
    assert [coarseness(s) for s in (0.5, 1.9, 2, 3.9, 4, 9)] == [1, 1, 2, 2, 4, 8]


def test_partial_fit_continues(rng):
    X = rng.random((6000, 2)).astype(np.float32)
    som = SOM(rows=8, cols=8, final_sigma=0.6)
    errors = []
    for part in np.array_split(np.vstack([X, X]), 60):
        som.partial_fit(part)
        errors.append(quantization_error(X, som.codebook_))
    assert som.n_seen_ == 12_000
    assert errors[-1] < 0.9 * errors[0]
    assert errors[-1] < 1.1 * quantization_error(X, SOM(rows=8, cols=8, final_sigma=0.6).fit(X).codebook_)
    assert topographic_error(X, som.codebook_, 8, 8, "rectangular") < 0.1
    fitted = SOM(rows=8, cols=8).fit(X)
    before = fitted.codebook_.copy()
    fitted.partial_fit(X[:50])
    assert fitted.n_seen_ == 6050
    assert 0 < np.abs(fitted.codebook_ - before).max() < 0.1  # it moves, but does not start again


def test_partial_fit_of_single_rows_with_missing_values(rng):
    X = with_gaps(rng, rng.normal(size=(500, 3)).astype(np.float32), 0.1)
    som = SOM(rows=3, cols=3)
    for row in X:
        if not np.isnan(row).all():
            som.partial_fit(row[None])
    assert np.isfinite(som.codebook_).all()
    assert len(np.unique(som.predict(X))) >= 8


def test_learning_in_principal_components_keeps_the_error(fashion):
    X = fashion[0].reshape(-1, 784).astype(np.float32) / 255
    train, held_out = X[:8000], X[8000:]
    reduced = SOM(rows=10, cols=10, final_sigma=0.7).fit(train)
    whole = SOM(rows=10, cols=10, final_sigma=0.7).fit(np.vstack([train, np.full((1, 784), np.nan)]))
    errors = [quantization_error(held_out, som.codebook_) for som in (reduced, whole)]
    assert errors[0] < 1.01 * errors[1]
    assert np.array_equal(reduced.cells_[:, 0] * 10 + reduced.cells_[:, 1], reduced.predict(train))


def test_soft_cells_share_a_row_among_adjacent_cells(rng):
    X = rng.random((300, 2)).astype(np.float32)
    som = SOM(rows=5, cols=5).fit(X)
    shares = som.soft_cells(X)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert np.array_equal(shares.argmax(1), som.predict(X))
    assert (shares > 0).sum(1).max() <= 9
    soft, hard = som.inverse_transform(shares), som.inverse_transform(som.predict(X))
    assert np.linalg.norm(X - soft, axis=1).mean() < np.linalg.norm(X - hard, axis=1).mean()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("power", [-100, 60, 100])
def test_the_scale_of_the_rows_does_not_matter(power, metric, rng, tmp_path):
    X = rng.normal(size=(120, 4)).astype(np.float32)
    scale = np.float32(2.0**power)
    plain, scaled = (SOM(rows=4, cols=4, metric=metric).fit(some) for some in (X, X * scale))
    np.testing.assert_allclose(scaled.codebook_, plain.codebook_ * (scale if metric == "euclidean" else 1), rtol=1e-4)
    np.testing.assert_array_equal(scaled.predict(X * scale), plain.predict(X))
    unit = scale if metric == "euclidean" else 1
    np.testing.assert_allclose(scaled.transform(X * scale), plain.transform(X) * unit, rtol=1e-3, atol=1e-4 * unit)
    np.testing.assert_allclose(scaled.project(X * scale), plain.project(X), atol=1e-3)
    scaled.save(tmp_path / "som")
    loaded = imatlas.load(tmp_path / "som")
    np.testing.assert_array_equal(loaded.predict(X * scale), plain.predict(X))
    for som, some in ((plain, X), (loaded, X * scale)):
        som.partial_fit(some)
    np.testing.assert_allclose(loaded.codebook_, plain.codebook_ * unit, rtol=1e-3)


@pytest.mark.parametrize("value", [1e19, 1e30, 3e38, -3e38, 1e-30])
@pytest.mark.parametrize("init", ["pca", "sample", "random"])
def test_equal_rows_of_any_size_are_learned(value, init):
    X = np.full((30, 5), value)
    som = SOM(rows=3, cols=3, init=init).fit(X)
    np.testing.assert_allclose(som.codebook_, value, rtol=1e-3)
    assert np.isfinite(som.transform(X)).all()
    assert np.isfinite(SOM(rows=3, cols=3).partial_fit(X).codebook_).all()


def test_the_score_is_minus_the_quantization_error(rng):
    X = rng.random((150, 3))
    som = SOM(rows=4, cols=4).fit(X)
    assert som.score(X) == pytest.approx(-som.transform(X).min(axis=1).mean(), rel=1e-4)
    gaps = np.where(np.arange(150)[:, None] == 3, np.nan, X)
    assert np.isfinite(som.score(gaps))
    search = GridSearchCV(SOM(), {"rows": [2, 6], "cols": [2, 6]}, cv=3).fit(X)
    assert search.best_params_ == {"rows": 6, "cols": 6}
    assert search.best_score_ < 0


@pytest.mark.parametrize("name", ["KMeans", "ImageClusterer", "OutlierDetector", "Layout"])
def test_other_models_refuse_values_that_are_too_large(name, rng):
    with pytest.raises(InputError, match="too large for squared distances"):
        getattr(imatlas, name)().fit(1e30 * rng.random((40, 3)))
    with pytest.raises(InputError, match="too large"):
        getattr(imatlas, name)().fit(np.full((40, 3), -1e30))
