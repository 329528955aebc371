"""SOM classifier: scikit-learn's contract, a slow reference, cross-validated accuracy, unlabeled rows."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs, make_moons
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier

import imatlas
from imatlas.errors import InputError, ParameterError
from imatlas.lattice.geometry import are_neighbors
from imatlas.models.kmeans import KMeans
from imatlas.models.parts.labels import folds_of
from imatlas.models.som import SOM
from imatlas.models.som_classifier import ADJACENCY, ALPHAS, N_CELLS, SOMClassifier

pytestmark = pytest.mark.usefixtures("one_thread")


def few_labels(y: np.ndarray, each: int, rng: np.random.Generator) -> np.ndarray:
    """Labels for `each` rows of every class, -1 for the others."""
    some = np.full(len(y), -1)
    for c in np.unique(y):
        rows = rng.choice(np.flatnonzero(y == c), each, replace=False)
        some[rows] = c
    return some


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_blobs(600, 8, centers=5, cluster_std=2.0, random_state=0)
    return X.astype(np.float32), y


@pytest.mark.parametrize("alpha", [0.0, 0.9])
def test_probabilities_match_the_equations(rng, alpha):
    X = rng.normal(size=(80, 3)).astype(np.float32)
    y = np.where(np.arange(80) < 30, np.arange(80) % 3, -1)
    som = SOM(rows=4, cols=5, topology="hexagonal").fit(X)
    model = SOMClassifier(som=som, alpha=alpha).fit(X, y)
    Z = np.zeros((80, 20))
    for i, x in enumerate(X):
        squared = ((som.codebook_ - x) ** 2).sum(1)
        near = np.argsort(squared)[:N_CELLS]
        gaps = squared[near] - squared[near[0]]
        Z[i, near] = np.exp(-2 * gaps / gaps[1:].mean())
        Z[i] /= Z[i].sum()
    cells = np.arange(20)
    W = Z.T @ Z + ADJACENCY * are_neighbors(cells[:, None], cells, 4, 5, "hexagonal")
    D = np.diag(W.sum(1) ** -0.5)
    F = np.linalg.inv(np.eye(20) - alpha * D @ W @ D) @ Z[:30].T @ np.eye(3)[y[:30]]
    reached = F.sum(1) > 1e-6
    expected = F[reached] / F[reached].sum(1, keepdims=True)
    np.testing.assert_allclose(model.cell_probabilities_[reached], expected, atol=1e-3)
    inside = reached[np.argsort(-Z, axis=1)[:, :N_CELLS]].all(1)
    np.testing.assert_allclose(model.predict_proba(X[inside]), (Z @ model.cell_probabilities_)[inside], atol=1e-3)
    assert alpha == 0 or reached.all()


def test_few_labels_spread_along_unlabeled_rows():
    X, y = make_moons(1200, noise=0.08, random_state=0)
    som = SOM().fit(X)
    scores = []
    for seed in range(6):
        some = few_labels(y, 2, np.random.default_rng(seed))
        known = some >= 0
        beside = KNeighborsClassifier(1).fit(X[known], y[known])
        spread = [SOMClassifier(som=som, alpha=alpha).fit(X, some) for alpha in (None, 0.999, 0.0)]
        scores.append([model.score(X, y) for model in (beside, *spread)])
    nearest, chosen, far, stays = np.mean(scores, axis=0)
    assert chosen > nearest + 0.08
    assert far > 0.98
    assert stays < nearest


def test_it_beats_supervised_learning_on_fashion_mnist(fashion, rng):
    X = fashion[0].reshape(-1, 784).astype(np.float32) / 255
    X, _, axes = (lambda c: (c, *np.linalg.svd(c[:800], full_matrices=False)[1:]))(X - X.mean(0))
    Z, y = X @ axes[:32].T, fashion[1]
    som = SOM().fit(Z[:8000])
    ours, theirs = [], []
    for _ in range(3):
        some = few_labels(y[:8000], 2, rng)
        known = some >= 0
        ours.append(SOMClassifier(som=som).fit(Z[:8000], some).score(Z[8000:], y[8000:]))
        theirs.append(KNeighborsClassifier(1).fit(Z[:8000][known], some[known]).score(Z[8000:], y[8000:]))
    assert np.mean(ours) > np.mean(theirs) + 0.01
    assert np.mean(ours) > 0.5


def test_the_accuracy_is_that_of_unseen_rows(rng):
    X, y = make_blobs(3000, 6, centers=6, cluster_std=4.0, random_state=2)
    told, true, errors = [], [], []
    for seed in range(6):
        some = few_labels(y[:1500], 20, np.random.default_rng(seed))
        model = SOMClassifier(som=SOM(rows=8, cols=8), random_state=seed).fit(X[:1500], some)
        told.append(model.accuracy_)
        errors.append(model.accuracy_error_)
        true.append(model.score(X[1500:], y[1500:]))
        assert (model.n_folds_, model.n_labeled_) == (5, 120)
    assert 0.5 < np.mean(true) < 0.98
    # folds learn from fewer labels, so it may be too low, but not too high
    assert -0.08 < np.mean(told) - np.mean(true) < 0.04
    assert np.mean(errors) == pytest.approx(math.sqrt(np.mean(true) * (1 - np.mean(true)) / 120), rel=0.3)


def test_random_labels_have_chance_accuracy(rng):
    X = rng.normal(size=(500, 4))
    y = np.where(np.arange(500) < 200, rng.integers(0, 4, 500), -1)
    model = SOMClassifier().fit(X, y)
    assert model.accuracy_ < 0.25 + 3 * model.accuracy_error_


def test_the_accuracy_leaves_a_fold_out_of_everything(blobs):
    """With alpha given, `accuracy_` equals fitting without the labels of each fold."""
    X, y = blobs
    some = few_labels(y, 4, np.random.default_rng(1))
    model = SOMClassifier(alpha=0.9, n_folds=4, random_state=7).fit(X, some)
    rows = np.flatnonzero(some >= 0)
    folds = folds_of(some[rows], 4, 7)
    right = 0
    for f in range(4):
        left = some.copy()
        left[rows[folds == f]] = -1
        again = SOMClassifier(som=model.som_, alpha=0.9).fit(X, left)
        right += (again.predict(X[rows[folds == f]]) == some[rows[folds == f]]).sum()
    assert model.accuracy_ == pytest.approx(right / len(rows))


def test_one_label_per_class_has_no_accuracy(blobs):
    X, y = blobs
    model = SOMClassifier().fit(X, few_labels(y, 1, np.random.default_rng(0)))
    assert math.isnan(model.accuracy_)
    assert math.isnan(model.accuracy_error_)
    assert (model.n_folds_, model.alpha_) == (0, 0.95)
    assert model.score(X, y) > 0.9
    lonely = few_labels(y, 3, np.random.default_rng(0))
    lonely[np.flatnonzero(lonely == 4)[1:]] = -1
    model = SOMClassifier().fit(X, lonely)
    assert model.n_labeled_ == 13
    assert model.accuracy_ * 12 == pytest.approx(round(model.accuracy_ * 12))  # the only row of a class is not counted
    assert 4 in model.predict(X)


@pytest.mark.parametrize(
    ("mark", "names"),
    [
        (-1, [10, 20, 30]), (-1.0, [0.0, 1.0, 2.0]), (np.nan, [0.0, 1.0, 2.0]), (None, ["cat", "dog", "-1"]),
        (np.nan, ["cat", "dog", "emu"]), (-1, ["cat", "dog", "emu"]), (None, [1, 2, 3]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_list", [True, False])
def test_marks_of_unlabeled_rows(rng, mark, names, as_list):
    X = np.repeat(np.eye(3), 20, axis=0) * 9 + rng.normal(size=(60, 3))
    marked = [names[i // 20] if i % 20 < 4 else mark for i in range(60)]
    mixed = mark is None or isinstance(names[0], str)
    y = marked if as_list else np.array(marked, dtype=object if mixed else None)
    model = SOMClassifier().fit(X, y)
    assert model.classes_.tolist() == sorted(names)
    assert model.predict(np.eye(3) * 9).tolist() == names
    assert model.n_labeled_ == 12
    assert model.score(X, y) == 1


def test_score_leaves_unlabeled_rows_out(blobs):
    X, y = blobs
    model = SOMClassifier().fit(X, y)
    some = few_labels(y, 5, np.random.default_rng(0))
    known = some >= 0
    assert model.score(X, some) == pytest.approx((model.predict(X[known]) == y[known]).mean())
    weights = np.arange(len(X), dtype=float)
    expected = np.average(model.predict(X[known]) == y[known], weights=weights[known])
    assert model.score(X, some, weights) == pytest.approx(expected)
    assert math.isnan(model.score(X, np.full(len(X), -1)))


def test_a_fitted_map_is_used_and_an_unfitted_one_copied(blobs):
    X, y = blobs
    fitted, fresh = SOM(rows=6, cols=6).fit(X), SOM(rows=3, cols=4)
    assert SOMClassifier(som=fitted).fit(X[:50], y[:50]).som_ is fitted
    model = SOMClassifier(som=fresh).fit(X, y)
    assert model.som_ is not fresh
    assert model.som_.codebook_.shape == (12, 8)
    assert not hasattr(fresh, "codebook_")
    assert np.array_equal(model.som_.codebook_, SOM(rows=3, cols=4).fit(X).codebook_)  # labels do not affect the map
    assert SOMClassifier(random_state=3).fit(X, y).som_.random_state == 3


def test_a_map_of_other_rows_reaches_every_cell(blobs):
    X, y = blobs
    som = SOM(rows=10, cols=10).fit(X)
    model = SOMClassifier(som=som).fit(X[:20], np.where(np.arange(20) < 12, y[:20], -1))
    np.testing.assert_allclose(model.cell_probabilities_.sum(1), 1)
    assert (model.cell_probabilities_.max(1) > 1.5 / len(model.classes_)).mean() > 0.9


@pytest.mark.parametrize("som", [SOM(rows=1, cols=1), SOM(rows=1, cols=2), SOM(rows=40, cols=3)])
def test_degenerate_maps_and_one_class(rng, som):
    X = rng.normal(size=(30, 2))
    model = SOMClassifier(som=som).fit(X, np.arange(30) % 2)
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)
    one = SOMClassifier(som=som).fit(X, np.where(np.arange(30) < 5, 7, -1))
    assert set(one.predict(X)) == {7}
    assert one.accuracy_ == 1
    assert 0 < one.accuracy_error_ < 0.2


def test_errors_name_the_fix(rng):
    X = rng.normal(size=(20, 2))
    with pytest.raises(InputError, match="No row has a label"):
        SOMClassifier().fit(X, np.full(20, -1))
    with pytest.raises(InputError, match="requires y to be passed"):
        SOMClassifier().fit(X)
    with pytest.raises(ValueError, match="Unknown label type"):
        SOMClassifier().fit(X, rng.random(20))
    with pytest.raises(InputError, match="all text or all numbers"):
        SOMClassifier().fit(X, ["a", 1] * 10)
    with pytest.raises(ParameterError, match="'som' parameter of SOMClassifier must be a SOM"):
        SOMClassifier(som=KMeans()).fit(X, np.arange(20) % 2)
    with pytest.raises(ParameterError, match="'alpha' parameter of SOMClassifier"):
        SOMClassifier(alpha=1.0).fit(X, np.arange(20) % 2)


def test_save_clone_and_grid_search(blobs, tmp_path):
    X, y = blobs
    names = np.array(["ant", "bee", "cow", "doe", "eel"])[y]
    model = SOMClassifier(som=SOM(rows=5, cols=5)).fit(X, names)
    model.save(tmp_path / "model")
    for again in (imatlas.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
        assert np.array_equal(again.predict(X), model.predict(X))
        assert (again.accuracy_, again.alpha_) == (model.accuracy_, model.alpha_)
    assert not hasattr(clone(model), "som_")
    some = few_labels(y, 12, np.random.default_rng(0))
    search = GridSearchCV(SOMClassifier(som=SOM(rows=4, cols=4)), {"alpha": [0.0, 0.95], "som__rows": [1, 4]}, cv=3)
    assert search.fit(X, some).best_params_["som__rows"] == 4
    assert search.best_score_ > 0.8


def test_seed_and_batch_size(blobs):
    X, y = blobs
    some = few_labels(y, 3, np.random.default_rng(0))
    first, again = SOMClassifier().fit(X, some), SOMClassifier().fit(X, some)
    assert np.array_equal(first.cell_probabilities_, again.cell_probabilities_)
    assert first.alpha_ in ALPHAS
    np.testing.assert_allclose(first.predict_proba(X)[:7], first.predict_proba(X[:7]), atol=1e-6)


def test_feature_names_are_accepted(blobs):
    pandas = pytest.importorskip("pandas")
    X, y = blobs
    frame = pandas.DataFrame(X, columns=[f"c{i}" for i in range(8)])
    som = SOM(rows=5, cols=5).fit(frame)
    assert SOMClassifier(som=som).fit(frame, pandas.Series(y)).score(frame, y) > 0.9
