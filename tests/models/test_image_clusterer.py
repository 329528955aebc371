"""ImageClusterer: scikit-learn's contract, known clusters, selection of starts, confidence."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import adjusted_rand_score

from imatlas.errors import InputError
from imatlas.models import artifact, image_clusterer
from imatlas.models.image_clusterer import MIN_LAYOUT_ROWS, ImageClusterer, propose_n_clusters
from imatlas.models.kmeans import KMeans
from imatlas.models.parts import discriminant_axes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_blobs([150, 130, 110, 90], 8, cluster_std=1.5, random_state=3)
    return X.astype(np.float32), y


def test_finds_clusters_and_their_number_ordered_by_size(blobs) -> None:
    X, y = blobs
    model = ImageClusterer().fit(X)
    assert model.n_clusters_ == 4
    assert adjusted_rand_score(y, model.labels_) > 0.98
    assert (np.diff(np.bincount(model.labels_)) <= 0).all()
    assert model.proposal_["candidates"][int(np.argmax(model.proposal_["modularities"]))] == 4
    for k, medoid in enumerate(model.medoids_):
        assert model.labels_[medoid] == k
        np.testing.assert_allclose(model.cluster_centers_[k], X[model.labels_ == k].mean(0), atol=1e-4)


def test_new_rows_are_assigned_to_existing_clusters(blobs, tmp_path) -> None:
    X, _ = blobs
    model = ImageClusterer(n_clusters=4).fit(X[::2])
    assert np.array_equal(model.predict(X[::2]), model.labels_)
    assert adjusted_rand_score(ImageClusterer(n_clusters=4).fit(X).labels_[1::2], model.predict(X[1::2])) > 0.97
    model.save(tmp_path / "groups")
    again = artifact.load(tmp_path / "groups")
    assert np.array_equal(again.predict(X), model.predict(X))
    assert np.array_equal(again.confidence(X), model.confidence(X))
    assert np.array_equal(again.coarse(2), model.coarse(2))


def test_clusters_along_an_axis_of_little_variance_are_found() -> None:
    """k-means splits the long axis; discriminant axes lead to the short one."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 200)
    X = np.c_[rng.normal(0, 3.0, (600, 1)), rng.normal(0, 0.5, (600, 2)) + np.array([[-3, 0], [3, 0], [0, 3]])[y]]
    X = X.astype(np.float32)
    plain = adjusted_rand_score(y, ImageClusterer(n_clusters=3, refine=False).fit(X).labels_)
    refined = adjusted_rand_score(y, ImageClusterer(n_clusters=3).fit(X).labels_)
    assert refined > 0.97 > plain


def test_the_axes_are_those_of_fisher(blobs) -> None:
    X, y = blobs
    mine = X @ discriminant_axes.discriminant_axes(X, y, 4)
    theirs = LinearDiscriminantAnalysis(solver="eigen", shrinkage=1e-4).fit(X, y).transform(X)
    for a, b in zip(mine.T, theirs.T, strict=True):
        assert abs(np.corrcoef(a, b)[0, 1]) > 0.99
    within = mine - np.stack([mine[y == k].mean(0) for k in range(4)])[y]
    np.testing.assert_allclose((within**2).mean(0), 1, rtol=0.1)


def test_modularity_decides_then_inertia(monkeypatch) -> None:
    """Two long chains side by side: split across, the inertia is lower and the modularity hardly so."""
    t = np.linspace(0, 10, 150)
    X = np.concatenate([np.c_[t, np.zeros(150)], np.c_[t, np.full(150, 2.0)]]).astype(np.float32)
    y = np.repeat([0, 1], 150)
    monkeypatch.setattr(image_clusterer, "layout", lambda X, seed: np.c_[3 * X[:, 1], 0.1 * X[:, 0]].astype(np.float32))
    assert adjusted_rand_score(y, KMeans(n_clusters=2, n_init=10).fit(X).labels_) < 0.1
    across = ImageClusterer(n_clusters=2).fit(X)
    assert across.start_ == "random"
    assert adjusted_rand_score(y, across.labels_) < 0.1
    monkeypatch.setattr(image_clusterer, "TOLERANCE", 0.0)
    along = ImageClusterer(n_clusters=2).fit(X)
    assert along.start_ == "layout"
    assert adjusted_rand_score(y, along.labels_) == 1


def test_confidence_is_the_share_of_neighbors_in_the_same_cluster() -> None:
    X, _ = make_blobs([100, 100], centers=[[0, 0], [3, 0]], cluster_std=1.0, random_state=0)
    X = X.astype(np.float32)
    model = ImageClusterer(n_clusters=2).fit(X)
    for i in (0, 50, 199):
        others = np.argsort(((X - X[i]) ** 2).sum(1), kind="stable")[1:16]
        assert model.confidence_[i] == pytest.approx((model.labels_[others] == model.labels_[i]).mean())
    assert np.array_equal(model.confidence(X), model.confidence_)  # no row counts itself
    between = model.cluster_centers_.mean(0, keepdims=True)
    far = np.array([[-3.0, 0.0], [6.0, 0.0]], np.float32)
    assert model.confidence(between)[0] < 0.8
    assert model.confidence(far).min() == 1


def test_clusters_merge_into_groups_of_groups() -> None:
    centers = np.array([[0, 0], [1, 0], [10, 0], [11, 0], [30, 0]])
    X = (np.repeat(centers, 40, axis=0) + np.random.default_rng(0).normal(0, 0.05, (200, 2))).astype(np.float32)
    model = ImageClusterer(n_clusters=5).fit(X)
    of_center = model.coarse(3)[model.labels_].reshape(5, 40)
    assert (of_center == of_center[:, :1]).all()
    groups = of_center[:, 0]
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert len(set(groups.tolist())) == 3
    for n in range(1, 6):  # nested: each group is a union of groups of the next level
        assert len(np.unique(model.coarse(n))) == n
        assert len(np.unique(np.stack([model.coarse(n), model.coarse(5)]), axis=1).T) == 5
    with pytest.raises(InputError, match=r"There are 5 clusters to merge\. Got n_groups=6"):
        model.coarse(6)


def test_the_seed_decides_the_result(blobs) -> None:
    X, _ = blobs
    assert len(X) >= MIN_LAYOUT_ROWS
    first, again = (ImageClusterer(n_clusters=7, random_state=5).fit(X) for _ in range(2))
    assert np.array_equal(first.labels_, again.labels_)
    assert np.array_equal(first.axes_, again.axes_)


def test_starts_from_a_sample_cluster_all_rows(blobs, monkeypatch) -> None:
    X, y = blobs
    monkeypatch.setattr(image_clusterer, "MAX_ROWS", 150)
    assert adjusted_rand_score(y, ImageClusterer(n_clusters=4).fit(X).labels_) > 0.97


def test_numbers_within_two_percent_are_plausible(blobs) -> None:
    found = propose_n_clusters(blobs[0])
    low, high = found.plausible
    assert low <= found.n_clusters <= high
    best = max(found.modularities)
    assert all((low <= k <= high) or m < 0.98 * best for k, m in zip(found.candidates, found.modularities, strict=True))


def test_equal_rows_and_few_rows() -> None:
    assert ImageClusterer().fit(np.ones((40, 3), np.float32)).labels_.shape == (40,)
    assert ImageClusterer(n_clusters=2).fit(np.eye(2, dtype=np.float32)).n_clusters_ == 2
    with pytest.raises(InputError, match="n_samples=2 should be at least n_clusters=3"):
        ImageClusterer(n_clusters=3).fit(np.eye(2, dtype=np.float32))
