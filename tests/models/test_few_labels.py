"""Few-label classifier: scikit-learn's contract, a slow reference, method selection, calibration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.datasets import make_blobs, make_moons

from imatlas.errors import InputError
from imatlas.models import artifact, few_labels
from imatlas.models.few_labels import ALPHAS, STEPS, FewLabelsClassifier

pytestmark = pytest.mark.usefixtures("one_thread")


def some_of(y: np.ndarray, each: int, seed: int = 0) -> np.ndarray:
    """Labels for `each` rows of every class, -1 for the others."""
    rng, some = np.random.default_rng(seed), np.full(len(y), -1)
    for c in np.unique(y):
        some[rng.choice(np.flatnonzero(y == c), each, replace=False)] = c
    return some


def test_two_moons_and_new_points_follow_the_graph(tmp_path) -> None:
    X, y = make_moons(600, noise=0.06, random_state=0)
    X = X.astype(np.float32)
    few = FewLabelsClassifier().fit(X[:180], some_of(y[:180], 30))  # too few rows per class for a student
    assert few.method_ == "propagation"
    assert few.feature_space_ == "features"
    model = FewLabelsClassifier().fit(X[:500], some_of(y[:500], 30))
    assert model.feature_space_ == "student"
    assert (model.transduction_ == y[:500]).mean() > 0.97
    assert (model.predict(X[500:]) == y[500:]).mean() > 0.97
    assert np.array_equal(model.predict(X[:500]), model.transduction_) or (
        (model.predict(X[:500]) == model.transduction_).mean() > 0.99
    )
    model.save(tmp_path / "model")
    again = artifact.load(tmp_path / "model")
    assert np.array_equal(again.predict_proba(X[500:]), model.predict_proba(X[500:]))
    assert np.array_equal(again.next_to_label(5), model.next_to_label(5))


def test_logistic_regression_is_used_where_neighbors_are_uninformative() -> None:
    """One feature of a hundred separates the classes."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    X = rng.normal(size=(400, 100)).astype(np.float32)
    X[:, 3] = 6 * y - 3 + rng.normal(0, 0.5, 400)
    model = FewLabelsClassifier().fit(X, some_of(y, 60))
    assert model.method_ != "propagation"
    assert (model.transduction_ == y).mean() > 0.95


def test_fields_are_the_series(rng) -> None:
    X, y = make_blobs(60, 3, centers=3, random_state=1)
    X = X.astype(np.float32)
    graph = few_labels._graph(X, 4)
    S = graph.toarray().astype(np.float64)
    d = np.sqrt(((X[:, None].astype(np.float64) - X) ** 2).sum(2))
    order = np.argsort(d + np.diag(np.full(60, np.inf)), axis=1)[:, :4]
    width = d[np.arange(60), order[:, -1]]
    W = np.zeros((60, 60))
    for i in range(60):
        W[i, order[i]] = np.exp(-(d[i, order[i]] ** 2) / (width[i] * width[order[i]]))
    W = np.maximum(W, W.T)
    root = 1 / np.sqrt(W.sum(1))
    np.testing.assert_allclose(S, root[:, None] * W * root, atol=1e-5)
    rows, codes = np.flatnonzero(some_of(y, 2) >= 0), some_of(y, 2)[some_of(y, 2) >= 0]
    fields = few_labels._fields(graph, rows, codes, 3)
    for alpha in ALPHAS:
        Y = np.zeros((60, 3))
        Y[rows, codes] = 1
        F = sum(alpha**t * np.linalg.matrix_power(S, t) @ Y for t in range(STEPS + 1))
        np.testing.assert_allclose(fields[alpha], F, atol=1e-4)


def test_accuracy_and_confidence_hold_on_rows_without_labels() -> None:
    missed, right, sure = [], [], []
    for seed in range(4):
        X, y = make_blobs(900, 6, centers=6, cluster_std=4.0, random_state=seed)
        known = some_of(y, 15, seed)
        model = FewLabelsClassifier(random_state=seed).fit(X.astype(np.float32), known)
        hidden = known < 0
        truth = (model.transduction_ == y)[hidden].mean()
        missed.append((model.accuracy_ - truth) / model.accuracy_error_)
        right.append(truth)
        sure.append(model.label_distributions_.max(1)[hidden].mean())
        assert model.n_labeled_ == 90
    assert np.sqrt(np.mean(np.square(missed))) < 2
    assert abs(np.mean(sure) - np.mean(right)) < 0.06


def test_rows_to_label_next_are_uncertain_and_not_neighbors() -> None:
    X, y = make_blobs([300, 300], centers=[[0, 0], [4, 0]], cluster_std=1.0, random_state=0)
    X = X.astype(np.float32)
    model = FewLabelsClassifier().fit(X, some_of(y, 4))
    asked = model.next_to_label(6)
    assert len(set(asked.tolist())) == 6
    sure = model.label_distributions_.max(1)
    assert sure[asked].mean() < np.quantile(sure, 0.2)
    near, _ = few_labels._nearest(model.references_, model.references_[asked], 15, own=asked)
    assert not any(other in near[i] for i in range(6) for other in asked[i + 1 :])


def test_one_label_per_class_text_labels_and_no_label() -> None:
    X, y = make_blobs(90, 2, centers=3, cluster_std=0.3, random_state=0)
    words = np.full(90, None, dtype=object)
    for c, word in enumerate(("apple", "pear", "plum")):
        words[np.flatnonzero(y == c)[0]] = word
    model = FewLabelsClassifier().fit(X.astype(np.float32), words)
    assert math.isnan(model.accuracy_)
    assert (model.transduction_ == np.array(["apple", "pear", "plum"])[y]).all()
    with pytest.raises(InputError, match="No row has a label"):
        FewLabelsClassifier().fit(X, np.full(90, -1))
    lone = FewLabelsClassifier().fit(X, np.where(np.arange(90) < 2, 7, -1))
    assert (lone.transduction_ == 7).all()
