"""Layout: scikit-learn's contract, preserved neighbors, and stable positions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from imatlas.errors import InputError, ParameterError
from imatlas.models import artifact, layout
from imatlas.models.layout import MIN_ROWS, Layout, position_by_vote

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_blobs([120, 90, 60], 12, cluster_std=1.0, random_state=5)
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def laid_out(blobs) -> Layout:
    return Layout().fit(blobs[0][::2])


def test_clusters_become_islands_and_the_seed_decides(blobs, laid_out) -> None:
    X, y = blobs[0][::2], blobs[1][::2]
    positions = laid_out.transform(X)
    np.testing.assert_array_equal(positions, laid_out.positions_)
    np.testing.assert_array_equal(Layout().fit(X).positions_, laid_out.positions_)
    assert _same_label_share(positions, y, positions, y) > 0.99


def test_new_rows_join_their_cluster_and_old_ones_stay(blobs, laid_out, tmp_path) -> None:
    X, y = blobs
    alone = laid_out.transform(X[1::2])
    np.testing.assert_array_equal(laid_out.transform(X)[1::2], alone)
    np.testing.assert_array_equal(np.concatenate([laid_out.transform(row[None]) for row in X[1::2]]), alone)
    assert _same_label_share(alone, y[1::2], laid_out.positions_, y[::2]) > 0.99
    laid_out.save(tmp_path / "layout")
    np.testing.assert_array_equal(artifact.load(tmp_path / "layout").transform(X), laid_out.transform(X))


def test_only_a_sample_of_many_rows_is_laid_out(blobs, monkeypatch) -> None:
    monkeypatch.setattr(layout, "MAX_ROWS", 100)
    X, y = blobs
    model = Layout().fit(X)
    assert len(model.references_) == 100
    assert _same_label_share(model.transform(X), y, model.transform(X), y) > 0.99


def test_few_rows_are_laid_out_by_principal_components() -> None:
    X = np.random.default_rng(0).normal(size=(MIN_ROWS - 1, 4)).astype(np.float32) * [9, 3, 1, 1]
    centered = X - X.mean(axis=0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    expected = u[:, :2] * s[:2] * 10 / (u[:, 0] * s[0]).std()
    found = Layout().fit_transform(X)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)
    assert Layout().fit_transform(X[:3]).shape == (3, 2)
    assert np.isfinite(Layout().fit_transform(np.ones((5, 3), np.float32))).all()


def test_a_row_between_two_islands_joins_the_stronger() -> None:
    positions = np.array([[[0, 0], [1, 0], [0, 1], [100, 100]]], np.float32)
    distances = np.array([[1.0, 1.0, 1.0, 1.0]], np.float32)
    assert np.linalg.norm(position_by_vote(positions, distances)) < 1.5
    distances[0, 0] = 0  # the row itself
    np.testing.assert_array_equal(position_by_vote(positions[:, ::-1], distances), [[100, 100]])


def test_errors_name_the_fix(blobs) -> None:
    with pytest.raises(InputError, match="at least 2 rows"):
        Layout().fit(blobs[0][:1])
    with pytest.raises(ParameterError, match="'n_neighbors' parameter of Layout"):
        Layout(n_neighbors=1).fit(blobs[0])


def _same_label_share(positions: np.ndarray, y: np.ndarray, others: np.ndarray, y_others: np.ndarray) -> float:
    """Share of the five nearest rows in the plane with the same label."""
    apart = np.linalg.norm(positions[:, None] - others[None], axis=2)
    apart[apart == 0] = np.inf
    return float((y_others[np.argsort(apart, axis=1)[:, :5]] == y[:, None]).mean())
