"""Time limits of models: what is skipped is reported, and enough time skips nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imatlas.models import image_clusterer
from imatlas.models.image_clusterer import MIN_STARTS, ImageClusterer, propose_n_clusters
from imatlas.models.layout import MIN_ROWS, Layout, principal_plane
from imatlas.models.parts import umap_graph
from imatlas.tasks.cluster import cluster

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def groups(rng) -> np.ndarray:
    """Six groups of 25 rows."""
    return (np.repeat(rng.normal(size=(6, 12)) * 4, 25, axis=0) + rng.normal(size=(150, 12))).astype(np.float32)


def test_without_time_the_clusterer_tries_few_starts_and_names_the_others(groups, monkeypatch):
    monkeypatch.setattr(image_clusterer, "layout", lambda X, seed: pytest.fail("there was no time for UMAP"))
    hurried = ImageClusterer(n_clusters=6).fit(groups, seconds=0.0)
    n_left = 30 - MIN_STARTS
    assert hurried.skipped_ == f"the start from a UMAP layout and {n_left} of 30 random starts"
    assert hurried.start_ == "random"
    assert len(np.unique(hurried.labels_)) == 6
    sentences = cluster(groups, n_clusters=6, seconds=0.0).result.sentences
    assert f"There was no time for {hurried.skipped_} (--budget gives more)." in sentences


def test_with_enough_time_the_clusterer_skips_nothing(groups, monkeypatch):
    monkeypatch.setattr(image_clusterer, "layout", lambda X, seed: X[:, :2].copy())
    free, limited = ImageClusterer().fit(groups), ImageClusterer().fit(groups, seconds=1e6)
    assert limited.skipped_ == free.skipped_ == ""
    np.testing.assert_array_equal(limited.labels_, free.labels_)


def test_without_time_no_more_than_the_first_numbers_of_clusters_are_tried(groups):
    assert propose_n_clusters(groups, seconds=0.0).candidates == list(range(2, 13))


def test_the_number_of_clusters_is_chosen_on_as_many_rows_as_there_is_time_for(monkeypatch, rng):
    centers = rng.normal(size=(40, 6)).astype(np.float32)
    many = centers[rng.integers(0, 40, 9000)] + rng.normal(0, 0.1, (9000, 6)).astype(np.float32)
    seen = []
    graph = image_clusterer.graph
    monkeypatch.setattr(image_clusterer, "graph", lambda X: seen.append(len(X)) or graph(X))
    monkeypatch.setattr(image_clusterer, "PROPOSAL_ROWS", 1000)
    monkeypatch.setattr(image_clusterer, "MAX_PROPOSAL_ROWS", 4000)
    for seconds, expected in ((None, 4000), (1e6, 4000), (12.0, 4000), (5.0, 2000), (0.1, 1000)):
        ImageClusterer(n_init=1).fit(many, seconds=seconds)
        assert seen[0] == expected
        seen.clear()


def test_without_time_the_layout_is_that_of_principal_components(groups):
    hurried = Layout().fit(groups, seconds=0.0)
    assert not hurried.by_umap_
    np.testing.assert_array_equal(hurried.positions_, principal_plane(groups))
    assert len(hurried.references_) == 150


def test_with_some_time_umap_lays_out_a_sample(groups, monkeypatch):
    monkeypatch.setattr(umap_graph, "_compiled", True)
    monkeypatch.setattr(umap_graph, "slowdown", lambda: 2.0)
    seconds = 2 * umap_graph.SECONDS_PER_ROW * (MIN_ROWS + 20.5)
    assert umap_graph.umap_rows(seconds) == MIN_ROWS + 20
    assert umap_graph.umap_seconds(80) == pytest.approx(160 * umap_graph.SECONDS_PER_ROW)
    model = Layout().fit(groups, seconds=seconds)
    assert model.by_umap_
    assert len(model.references_) == MIN_ROWS + 20
    assert model.transform(groups).shape == (150, 2)


def test_neighbors_given_to_umap_are_exact(groups):
    """UMAP's own search is exact for so few rows, so the graph is the same."""
    from sklearn.neighbors import NearestNeighbors

    rows = torch.from_numpy(groups)
    others, squared = umap_graph.k_nearest(rows, rows, 9, exclude_self=torch.arange(150))
    distances, indices = NearestNeighbors(n_neighbors=10).fit(groups).kneighbors(groups)
    np.testing.assert_array_equal(others.numpy(), indices[:, 1:])
    np.testing.assert_allclose(squared.sqrt().numpy(), distances[:, 1:], rtol=1e-4)
    positions = umap_graph.umap_layout(groups, n_neighbors=10, n_components=2, min_dist=0.0, seed=3)
    again = umap_graph.umap_layout(groups, n_neighbors=10, n_components=2, min_dist=0.0, seed=3)
    np.testing.assert_array_equal(positions, again)
    near = NearestNeighbors(n_neighbors=2).fit(positions).kneighbors(positions)[1][:, 1]
    assert (near // 25 == np.arange(150) // 25).mean() > 0.95
