"""Segmenter: the contract, shared classes over images, and the least cost of a labeled tree."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

import imatlas as ia
from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.metrics.segmentation import mean_iou
from imatlas.models.parts.hierarchy import Hierarchy
from imatlas.models.parts.region_graph import region_graph
from imatlas.models.parts.region_tree import RegionTree, dense_features
from imatlas.models.segmenter import Segmenter
from imatlas.testing import check_image_estimator
from imatlas.training.batches import make_batch


def mosaics(n: int, seed: int = 0, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, size, size, 3) whose left and right parts are two of three textures, and the texture of each pixel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    textures = [
        128 + 60 * np.sin(x / 1.5),  # stripes
        128 + 60 * np.sign(np.sin(x / 2.5) * np.sin(y / 2.5)),  # checks
        128 + 10 * rng.standard_normal((size, size)),  # faint noise
    ]
    images, truths = [], []
    for i in range(n):
        left, right = [(0, 1), (1, 2), (2, 0)][i % 3]
        border = rng.integers(size // 3, 2 * size // 3)
        truth = np.where(x < border, left, right)
        gray = np.choose(truth, textures) + rng.normal(0, 5, (size, size))
        images.append(np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, axis=-1))
        truths.append(truth)
    return np.stack(images), np.stack(truths)


@pytest.mark.parametrize("options", [{"method": "superpixels"}])
def test_methods_keep_the_contract(options: dict) -> None:
    check_image_estimator(Segmenter(**options))


def test_segments_of_each_image() -> None:
    images, truths = mosaics(3)
    parts = Segmenter(method="hierarchy", n_segments=2).fit(images).predict(images)
    for found, truth in zip(parts, truths, strict=True):
        assert mean_iou(found, truth) > 0.85
    assert (Segmenter(method="hierarchy", level=1).fit(images).predict(images) == 0).all()
    small = Segmenter(method="superpixels", n_segments=20).fit(images).predict(images)
    assert [len(np.unique(labels)) for labels in small] == [20] * 3
    np.testing.assert_array_equal(Segmenter(method="hierarchy", n_segments=2).fit_predict(images), parts)


def test_a_class_is_the_same_stuff_in_all_images_also_new_ones() -> None:
    images, truths = mosaics(12)
    model = Segmenter(n_classes=3).fit(images[:9])
    found = model.predict(images)
    assert found.shape == truths.shape
    assert found.dtype == np.int32
    for part in (slice(9), slice(9, None)):
        assert mean_iou(np.concatenate(list(found[part])), np.concatenate(list(truths[part]))) > 0.9
    assert model.class_shares_.sum() == pytest.approx(1)
    assert (np.diff(model.class_shares_) <= 0).all()


def test_images_of_other_sizes_and_files(tmp_path: Path) -> None:
    images, _ = mosaics(6)
    model = Segmenter(n_classes=3).fit(images)
    wide = np.concatenate([images[0], images[1]], axis=1)
    labels = model.predict(wide[None])[0]
    assert labels.shape == wide.shape[:2]
    tree = RegionTree.of(wide, ImageSpec(*wide.shape))
    assert np.array_equal(model.label_tree(tree)[tree.hierarchy.regions], labels)
    loaded = ia.load(model.save(tmp_path / "model"))
    assert np.array_equal(loaded.predict(wide[None])[0], labels)


def test_large_images_are_labeled_at_full_size() -> None:
    images, truths = mosaics(6)
    model = Segmenter(n_classes=3).fit(images)
    spec = ImageSpec(*images[0].shape)
    graph = region_graph(images[0], spec, max_pixels=48 * 48)
    assert graph.reduced.shape == (48, 48)
    labels = model.label(images[0], spec, graph)
    assert labels.shape == truths[0].shape


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 3), (40, 1, 1), (2, 2, 7)])
def test_tiny_images(shape: tuple[int, int, int]) -> None:
    trees = [RegionTree.of(np.full(shape, value, np.uint8), ImageSpec(*shape)) for value in (0, 200)]
    model = Segmenter().fit_trees(trees, ImageSpec(*shape))
    assert model.n_classes_ == 1
    assert (model.label_tree(trees[0]) == 0).all()


def test_no_more_classes_than_different_segments() -> None:
    black = np.zeros((3, 32, 32, 3), np.uint8)
    model = Segmenter(n_classes=4).fit(black)
    assert model.n_classes_ == 1
    assert (model.predict(black) == 0).all()


def test_16_bit_images_and_many_channels() -> None:
    images, truths = mosaics(6)
    deep = images.astype(np.uint16)[..., [0, 1, 2, 0, 1, 2, 0]] * 200
    found = Segmenter(n_classes=3).fit(deep).predict(deep)
    assert mean_iou(np.concatenate(list(found)), np.concatenate(list(truths))) > 0.8


def test_no_image_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one image"):
        Segmenter().fit_trees([], ImageSpec(8, 8, 3))


def small_tree() -> RegionTree:
    """Regions 0 to 3, of which 0 and 1 form node 4, 2 and 3 node 5, and all node 6."""
    parents, levels = np.array([4, 4, 5, 5, 6, 6, 6]), np.array([0, 0, 0, 0, 0.3, 0.6, 0.8])
    hierarchy = Hierarchy(np.array([[0, 1], [2, 3]], np.int32), parents, levels)
    return RegionTree(hierarchy, np.zeros((4, 344), np.float32), np.full(4, 0.25))


def test_labels_are_those_of_least_cost() -> None:
    tree, rng = small_tree(), np.random.default_rng(0)
    levels = tree.hierarchy.levels
    for _ in range(50):
        costs = rng.exponential(1.0, (4, 3))

        def total(cut: tuple[bool, bool, bool], labels: tuple[int, ...], costs: np.ndarray = costs) -> float:
            """Cost of joining nodes 4, 5, 6 where `cut` is False, with one label for each finest region."""
            prior = sum(-np.log(levels[4 + i] if apart else 1 - levels[4 + i]) for i, apart in enumerate(cut))
            return float(prior + costs[np.arange(4), labels].sum())

        def fits(cut: tuple[bool, bool, bool], labels: tuple[int, ...]) -> bool:
            left, right, top = cut
            return (
                (left or labels[0] == labels[1])
                and (right or labels[2] == labels[3])
                and (top or (len(set(labels)) == 1 and not left and not right))
            )

        best = min(
            total(cut, labels)
            for cut in product([False, True], repeat=3)
            for labels in product(range(3), repeat=4)
            if fits(cut, labels)
        )
        labels, nodes = tree.labeled(costs)
        cut = (bool(nodes[0] < 4), bool(nodes[2] < 4), bool(nodes[0] != 6))
        assert total(cut, tuple(labels)) == pytest.approx(best)


def test_nodes_with_a_share_of_the_image() -> None:
    tree = small_tree()
    assert tree.largest_within(0.25).tolist() == [0, 1, 2, 3]
    assert tree.largest_within(0.5).tolist() == [4, 4, 5, 5]
    assert tree.largest_within(0.6).tolist() == [6, 6, 6, 6]
    assert tree.cut(3).tolist() == [4, 4, 2, 3]
    assert tree.node_means(np.arange(4.0)[:, None])[:, 0].tolist() == [0, 1, 2, 3, 0.5, 2.5, 1.5]


def test_the_network_for_onnx_gives_the_distances_of_places() -> None:
    images, _ = mosaics(6)
    model = Segmenter(n_classes=3).fit(images)
    [network] = model._networks().values()
    with torch.inference_mode():
        distances = network(make_batch(images, model.spec_).x)
    assert distances.shape == (6, 3, 24, 24)
    nearest = distances.argmin(1).numpy()
    assert (nearest == model.predict(images)[:, ::4, ::4]).mean() > 0.6  # places are noisy, segments are not
    places = (dense_features(images[0] / np.float32(255)).transpose(1, 2, 0) - model.mean_) @ model.axes_
    expected = ((places[:, :, None] - model.cluster_centers_) ** 2).sum(-1)
    np.testing.assert_allclose(distances[0].permute(1, 2, 0).numpy(), expected, rtol=1e-3, atol=1e-2)
    with pytest.raises(InputError, match="Only a Segmenter of a collection"):
        Segmenter(method="hierarchy").fit(images)._networks()
