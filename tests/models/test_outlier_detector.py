"""Outlier detector: scikit-learn's contract, distances against slow references, clusters of outliers, error rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import AgglomerativeClustering
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor

from imatlas.errors import InputError, Notice, ParameterError
from imatlas.models import artifact, outlier_detector
from imatlas.models.outlier_detector import MAX_REFERENCES, OutlierDetector

pytestmark = pytest.mark.usefixtures("one_thread")


def test_radius_and_mahalanobis_distance_match_references(rng) -> None:
    X, new = rng.normal(size=(301, 6)).astype(np.float32), rng.normal(size=(40, 6)).astype(np.float32) * 2
    model = OutlierDetector(trim=0.0, mass=0.1).fit(X)
    near, far, small = model._measures(new)
    references = model.references_
    k = round(0.1 * len(references))
    np.testing.assert_allclose(near, np.sort(cdist(new, references), axis=1)[:, k - 1], rtol=1e-3)
    # without trimming the covariance is Ledoit and Wolf's of all rows
    plain = LedoitWolf().fit(references.astype(np.float64))
    np.testing.assert_allclose(far, np.sqrt(plain.mahalanobis(new)), rtol=1e-3)
    expected = np.cbrt(near * far * small / model.medians_.prod())
    np.testing.assert_allclose(-model.score_samples(new), expected, rtol=1e-5)


def test_smallness_is_that_of_the_clusters_of_wards_tree(rng) -> None:
    X, new = rng.normal(size=(201, 4)).astype(np.float32), rng.normal(size=(20, 4)).astype(np.float32)
    model = OutlierDetector(mass=0.25).fit(X)
    directions = model.references_ / np.linalg.norm(model.references_, axis=1, keepdims=True)
    logs = np.zeros(len(directions))
    for n_groups in (3, 4, 5, 6):
        group = AgglomerativeClustering(n_groups, linkage="ward").fit_predict(directions)
        logs += np.log(np.maximum(1, 0.25 * len(directions) / np.bincount(group)[group])) / 4
    np.testing.assert_allclose(np.log(model.smallness_), logs, atol=1e-6)
    apart = cdist(new / np.linalg.norm(new, axis=1, keepdims=True), directions)
    expected = np.exp(logs[np.argsort(apart, axis=1)[:, :5]].mean(axis=1))
    np.testing.assert_allclose(model._smallness(new), expected, rtol=1e-5)


def test_a_small_cluster_among_larger_ones_is_unusual(rng) -> None:
    """As dense and as far out as the others: only its size gives it away."""
    corners = 3 * np.eye(8, dtype=np.float32) - 3 / 8
    kind = np.repeat(np.arange(8), [*([136] * 7), 48])
    X = corners[kind] + rng.normal(size=(1000, 8)).astype(np.float32)
    model = OutlierDetector().fit(X)
    near, far, _ = model._measures(X)
    assert roc_auc_score(kind == 7, model.outlier_scores_) > roc_auc_score(kind == 7, near * far) + 0.1


def test_concentration_steps_end_at_the_rows_nearest_to_their_center(rng) -> None:
    X = np.concatenate([rng.normal(size=(180, 3)), rng.normal(8, 0.3, size=(20, 3))])
    center, precision = outlier_detector._concentrated(X, 0.8, np.linalg.norm(X, axis=1))
    far = outlier_detector._mahalanobis(X, center, precision)
    kept = np.argsort(far, kind="stable")[:160]
    assert kept.max() < 180
    np.testing.assert_allclose(X[kept].mean(axis=0), center)


def test_a_tight_cluster_of_outliers_is_found(rng) -> None:
    """5 %, closer to each other than ordinary rows are, which the local outlier factor misses."""
    X = np.concatenate([rng.normal(size=(950, 16)), rng.normal(2.0, 0.2, size=(50, 16))]).astype(np.float32)
    is_outlier = np.arange(1000) >= 950
    ours = OutlierDetector().fit(X)
    local = LocalOutlierFactor(n_neighbors=10).fit(X)
    assert roc_auc_score(is_outlier, ours.outlier_scores_) > 0.95
    assert (
        roc_auc_score(is_outlier, ours.outlier_scores_)
        > roc_auc_score(is_outlier, -local.negative_outlier_factor_) + 0.2
    )


def test_the_false_positive_rate_is_as_asked_for_on_average(rng) -> None:
    """Ten draws of skewed rows: the mean rate is that of the theorem within its error."""
    rates, bounds = [], []
    for seed in range(10):
        X = rng.gamma(1.0, size=(3000, 4)).astype(np.float32)
        model = OutlierDetector(false_positive_rate=0.05, random_state=seed).fit(X[:1000])
        rates.append((model.predict(X[1000:]) < 0).mean())
        bounds.append(model.false_positive_bound_)
        assert model.n_calibration_ == 500
    assert abs(np.mean(rates) - 25 / 501) < 4 * np.sqrt(0.05 * 0.95 / 500 / 10)
    assert np.mean(np.array(rates) <= bounds) >= 0.8
    assert 0.05 < bounds[0] < 0.08


def test_outliers_in_the_training_set_raise_the_threshold(rng) -> None:
    X = rng.normal(size=(2000, 5)).astype(np.float32)
    clean = OutlierDetector(false_positive_rate=0.02).fit(X[:1000])
    mixed = np.concatenate([X[:950], X[950:1000] + 12])
    found = OutlierDetector(false_positive_rate=0.02).fit(mixed)
    assert found.threshold_ > clean.threshold_
    assert (found.predict(X[1000:]) < 0).mean() <= 0.02
    assert found.p_values_[950:].max() < 0.15


def test_p_values_of_the_training_rows_are_ranks(rng) -> None:
    model = OutlierDetector().fit(rng.normal(size=(200, 3)))
    assert np.allclose(np.sort(model.p_values_)[::2], np.arange(1, 101) / 100, atol=1e-6)
    p = model.p_values(rng.normal(size=(50, 3)) * 1.5)
    is_outlier = model.predict(rng.normal(size=(3, 3)) + 50)
    assert (is_outlier == -1).all()
    assert p.min() >= 1 / 101
    assert p.max() <= 1


def test_too_few_rows_for_the_rate_flag_nothing_and_warn(rng) -> None:
    X = rng.normal(size=(40, 3)).astype(np.float32)
    model = OutlierDetector(false_positive_rate=0.01).fit(X)
    assert np.isinf(model.threshold_)
    with pytest.warns(
        Notice, match=r"an outlier at false_positive_rate=0.01 with 20 calibration rows; fit on at least 200"
    ):
        assert (model.predict(X + 100) == 1).all()
    decided = model.decision_function(np.concatenate([X, X + 100]))
    assert np.isfinite(decided).all()
    assert decided.min() > 0
    assert roc_auc_score(np.repeat([1, 0], 40), decided) == 1.0
    assert (OutlierDetector(false_positive_rate=0.4).fit(np.zeros((10, 5))).predict(np.zeros((3, 5))) == 1).all()
    with pytest.raises(InputError, match="at least 4"):
        OutlierDetector().fit(X[:3])
    with pytest.raises(ParameterError, match="false_positive_rate"):
        OutlierDetector(false_positive_rate=0.0).fit(X)


def test_save_and_load_keep_every_answer(rng, tmp_path) -> None:
    X = rng.normal(size=(300, 4)).astype(np.float32)
    model = OutlierDetector(false_positive_rate=0.1).fit(X)
    model.save(tmp_path / "model")
    again = artifact.load(tmp_path / "model")
    assert np.array_equal(again.score_samples(X), model.score_samples(X))
    assert np.array_equal(again.predict(X), model.predict(X))
    assert np.array_equal(again.p_values(X), model.p_values(X))
    # the batch size changes no answer beyond rounding
    np.testing.assert_allclose(model.score_samples(X[:7]), model.score_samples(X)[:7], rtol=1e-5)


def test_a_row_far_from_all_has_the_highest_score_also_of_more_than_the_references(rng) -> None:
    for n in (300, 2 * MAX_REFERENCES + 500):
        X = rng.normal(size=(n, 5)).astype(np.float32)
        X[17] += 30
        scores = OutlierDetector().fit(X).outlier_scores_
        assert scores.argmax() == 17
        assert scores[17] > 2
        assert scores.min() > 0
        assert np.median(scores) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("n", [4, 19])
def test_few_rows_and_equal_rows_have_finite_scores(rng, n) -> None:
    for X in (rng.normal(size=(n, 4)), np.ones((n, 4))):
        model = OutlierDetector().fit(X)
        assert np.isfinite(model.outlier_scores_).all()
        assert (model.p_values_ > 0).all()
