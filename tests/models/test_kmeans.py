"""k-means: scikit-learn's contract, exactness, quality compared with scikit-learn's, hard inputs."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.cluster
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

import imatlas as ia
from imatlas.models.kmeans import KMeans

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_blobs(600, 8, centers=6, random_state=0)
    return X.astype(np.float32), y


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_finds_the_blobs(blobs, init):
    X, y = blobs
    model = KMeans(n_clusters=6, init=init, n_init=10).fit(X)
    assert adjusted_rand_score(y, model.labels_) == 1.0
    for center, members in zip(model.cluster_centers_, range(6), strict=True):
        np.testing.assert_allclose(center, X[model.labels_ == members].mean(0), atol=1e-4)


def test_the_final_assignment_is_exact(blobs):
    X, _ = blobs
    model = KMeans(n_clusters=17, max_iter=3).fit(X)
    distances = ((X[:, None] - model.cluster_centers_) ** 2).sum(2)
    assert np.array_equal(model.labels_, distances.argmin(1))
    assert np.array_equal(model.predict(X), model.labels_)
    assert model.inertia_ == pytest.approx(distances.min(1).sum(), rel=1e-5)
    assert model.score(X) == pytest.approx(-model.inertia_, rel=1e-6)
    np.testing.assert_allclose(model.transform(X), np.sqrt(distances), rtol=1e-3)


def test_as_good_as_scikit_learn_on_images(fashion):
    X = fashion[0][:2000].reshape(-1, 784).astype(np.float32)
    ours = KMeans(n_clusters=20, n_init=3).fit(X).inertia_
    theirs = sklearn.cluster.KMeans(20, n_init=3, random_state=0).fit(X).inertia_
    assert ours <= 1.01 * theirs


def test_weights_count_as_repetitions(blobs):
    X, _ = blobs
    weight = np.r_[np.full(300, 3.0), np.zeros(300)]
    model = KMeans(n_clusters=4).fit(X, sample_weight=weight)
    for k in range(4):
        members = (model.labels_ == k) & (weight > 0)
        np.testing.assert_allclose(model.cluster_centers_[k], X[members].mean(0), atol=1e-4)


def test_the_seed_decides_the_result(blobs):
    X, _ = blobs
    first, again = (KMeans(n_clusters=30, random_state=3).fit(X) for _ in range(2))
    assert np.array_equal(first.cluster_centers_, again.cluster_centers_)
    assert not np.array_equal(first.cluster_centers_, KMeans(n_clusters=30, random_state=4).fit(X).cluster_centers_)


def test_fewer_distinct_rows_than_clusters_converges():
    X = np.repeat(np.array([[0.0, 0], [1, 1], [5, 5]], np.float32), 10, axis=0)
    model = KMeans(n_clusters=6, random_state=0).fit(X)
    assert model.inertia_ == 0
    assert np.isfinite(model.cluster_centers_).all()


def test_an_empty_cluster_moves_to_a_far_row(blobs):
    import torch

    from imatlas.models.parts.lloyd import lloyd
    from imatlas.models.parts.rows import Rows

    X = torch.from_numpy(blobs[0])
    start = torch.cat([X[:5], torch.full((1, 8), 1e4)])  # nothing is near the last center
    centers, _ = lloyd(Rows(X), start, 100, 0.0)
    assert float(centers.abs().max()) < 100


def test_errors_name_the_fix():
    with pytest.raises(ValueError, match="at least n_clusters=8; ask for fewer"):
        KMeans().fit(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="'n_clusters' parameter of KMeans must be an int in the range"):
        KMeans(n_clusters=0).fit(np.zeros((3, 2)))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            KMeans(n_clusters=1).fit(np.full((3, 2), bad))


def test_save_and_load_keep_every_answer(blobs, tmp_path):
    X, _ = blobs
    model = KMeans(n_clusters=5).fit(X)
    model.save(tmp_path / "k")
    again = ia.load(tmp_path / "k")
    assert np.array_equal(again.predict(X), model.predict(X))
    assert again.get_params() == model.get_params()


def test_many_features_are_clustered_by_projection_first(fashion):
    X = fashion[0].reshape(-1, 784).astype(np.float32) / 255
    ours = KMeans(n_clusters=20, max_iter=25).fit(X)
    theirs = sklearn.cluster.KMeans(20, max_iter=25, n_init=1, random_state=0).fit(X)
    assert ours.inertia_ < 1.01 * theirs.inertia_
    assert np.array_equal(ours.labels_, ours.predict(X))
    exact = ((X - ours.cluster_centers_[ours.labels_]).astype(np.float64) ** 2).sum()
    assert ours.inertia_ == pytest.approx(exact, rel=1e-5)
