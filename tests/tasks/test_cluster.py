"""Map, clusters, outlier scores and search on embeddings with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from imatlas.errors import InputError
from imatlas.tasks.cluster import cluster, propose_n_clusters
from imatlas.tasks.map import fit_map
from imatlas.tasks.search import search

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("n_clusters", [3, 7, 12])
def test_the_number_of_blobs_is_found(n_clusters):
    X, y = make_blobs(1500, 32, centers=n_clusters, cluster_std=2.5, random_state=1)
    found = cluster(X.astype(np.float32))
    assert found.result.metrics["n_clusters"] == n_clusters
    assert adjusted_rand_score(y, found.labels) > 0.99


def test_a_sample_of_a_large_set_gives_the_same_number():
    X, _ = make_blobs(20_000, 16, centers=9, random_state=1)
    proposal = propose_n_clusters(X.astype(np.float32))
    assert proposal.n_clusters == 9
    assert proposal.candidates[np.argmax(proposal.modularities)] == 9


def test_a_given_number_of_clusters_with_confidence_and_medoids(rng):
    X = rng.normal(size=(200, 5)).astype(np.float32)
    found = cluster(X, n_clusters=4)
    assert set(found.labels) == {0, 1, 2, 3}
    assert found.confidence.min() >= 0
    assert found.confidence.max() <= 1
    assert found.labels[found.medoids].tolist() == [0, 1, 2, 3]
    for k, medoid in enumerate(found.medoids):
        members = np.flatnonzero(found.labels == k)
        far = ((X[members] - found.model.cluster_centers_[k]) @ found.model.axes_) ** 2
        assert medoid == members[far.sum(1).argmin()]
    assert found.result.panels == []


@pytest.mark.parametrize("n", [1, 2, 19, 25])
def test_few_images(rng, n):
    X = rng.normal(size=(n, 4)).astype(np.float32)
    assert len(cluster(X).labels) == n
    assert cluster(X, n_clusters=50).model.n_clusters == n
    fitted = fit_map(X)
    assert f"{n:,} training image" in fitted.result.protocol
    assert len(search(X, X[:1], k=9).indices[0]) == min(n, 9)


def test_all_images_equal():
    X = np.ones((40, 3), np.float32)
    assert len(cluster(X).labels) == 40
    assert fit_map(X, held_out=X[:3]).result.metrics["quantization_error"] == 0


def test_search_ranks_by_distance(rng):
    X = rng.normal(size=(500, 8)).astype(np.float32)
    found = search(X, X[[3, 9]] + 1e-3, k=5)
    assert found.indices[:, 0].tolist() == [3, 9]
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert (found.closer_than[:, 0] == 1).all()
    far = search(X, np.full((1, 8), 50, np.float32), k=2)
    assert (far.closer_than == 0).all()


def test_search_errors_name_the_fix(rng):
    X = rng.normal(size=(5, 2)).astype(np.float32)
    with pytest.raises(InputError, match="'k' must be at least 1"):
        search(X, X, k=0)
    with pytest.raises(InputError, match="same encoder for both"):
        search(X, np.zeros((1, 3), np.float32))
    with pytest.raises(InputError, match="no image to search"):
        search(X[:0], X)


def test_the_map_is_measured_on_held_out_rows_and_compared_with_kmeans(rng):
    X = rng.normal(size=(1000, 5)).astype(np.float32)
    fitted = fit_map(X[:900], held_out=X[900:])
    metrics = fitted.result.metrics
    assert fitted.som.topology == "rectangular"
    assert 0.8 < metrics["kmeans_ratio"] < 1.2
    assert 0 < metrics["hit_entropy"] <= 1
    assert "100 held-out images" in fitted.result.protocol
