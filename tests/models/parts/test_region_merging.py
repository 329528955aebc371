"""Watershed regions, their adjacency, and merging in the order of separation."""

import numpy as np
import pytest

from imatlas.models.parts.boundary_cues import boundary_probability, image_features
from imatlas.models.parts.region_merging import (
    N_TEXTONS,
    PAIR_FEATURES,
    RegionMerging,
    adjacency,
    region_means,
    watershed_regions,
)


def patches(rng, height=48, width=64):
    """Left half red, right half in two textures of one mean: noise above, stripes below."""
    image = np.full((height, width, 3), 0.5, np.float32)
    image[:, : width // 2] = (0.8, 0.2, 0.2)
    image[: height // 2, width // 2 :] += rng.normal(0, 0.02, (height // 2, width // 2, 1))
    image[height // 2 :, width // 2 :: 4] += 0.3
    return np.clip(image, 0, 1).astype(np.float32)


def test_watershed_splits_at_a_ridge():
    probability = np.zeros((12, 20), np.float32)
    probability[:, 9] = 0.9
    regions = watershed_regions(probability)
    assert set(np.unique(regions)) == {0, 1}
    assert len(np.unique(regions[:, :8])) == len(np.unique(regions[:, 12:])) == 1


@pytest.mark.parametrize("shape", [(1, 30), (30, 1)])
def test_watershed_of_a_line(shape):
    probability = np.zeros(30, np.float32)
    probability[[9, 20]] = 0.9
    regions = watershed_regions(probability.reshape(shape))
    assert regions.shape == shape
    assert len(np.unique(regions)) == 3


def test_adjacency_counts_edges_and_sums_the_larger_probability():
    regions = np.array([[0, 0, 1], [0, 2, 1]])
    probability = np.array([[0.1, 0.2, 0.5], [0.3, 0.4, 0.0]])
    pairs, sums, lengths = adjacency(regions, probability)
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert lengths.tolist() == [1, 2, 1]
    np.testing.assert_allclose(sums, [0.5, 0.4 + 0.4, 0.4])


def test_region_means_are_histograms_of_their_pixels(rng):
    features = image_features(patches(rng))
    regions = (np.arange(48)[:, None] // 24 * 2 + np.arange(64) // 32).astype(np.int32)
    means, bounds = region_means(regions, features)
    assert means.shape == (4, bounds[-1] + len(features.last_block))
    np.testing.assert_allclose(np.add.reduceat(means[:, : bounds[-1]], bounds[:-1], axis=1), 1, atol=0.01)
    counts = np.bincount(features.coarse_textons[:6, :8].ravel(), minlength=N_TEXTONS)
    np.testing.assert_allclose(means[0, bounds[4] : bounds[5]], counts / 48)


def test_a_region_between_the_samples_has_the_value_of_the_nearest(rng):
    features = image_features(patches(rng))
    regions = np.zeros((48, 64), np.int32)
    regions[17, 33] = 1  # odd row and column: no sample at stride 2
    means, bounds = region_means(regions, features)
    np.testing.assert_allclose(means[1, : bounds[1]], features.colors[: bounds[1], 8, 16])


def test_merged_regions_are_as_if_made_anew(rng):
    image = patches(rng)
    features = image_features(image)
    probability = boundary_probability(features)
    regions = watershed_regions(probability)
    merging = RegionMerging(regions, probability, features).run()
    n = merging.n
    assert n > 3
    assert merging.parents[-1] == 2 * n - 2
    assert (merging.parents[:-1] > np.arange(2 * n - 2)).all()
    assert np.bincount(merging.parents[:-1], minlength=2 * n - 1)[n:].tolist() == [2] * (n - 1)
    # Undo the last merge: sizes and means of both parts from their pixels.
    parts = np.flatnonzero(merging.parents[:-1] == 2 * n - 2)
    member = np.arange(2 * n - 1)
    for region in range(2 * n - 3, -1, -1):
        if merging.parents[region] != 2 * n - 2:
            member[region] = member[merging.parents[region]]
    coarse = member[:n][regions]
    assert merging.sizes[parts].tolist() == [(coarse == part).sum() for part in parts]
    assert set(np.unique(coarse)) == set(parts)


def test_a_stronger_boundary_separates_more(rng):
    features = image_features(patches(rng))
    regions = (np.arange(64) // 32 * np.ones((48, 1))).astype(np.int32)
    weak, strong = (RegionMerging(regions, np.full((48, 64), p), features).run() for p in (0.1, 0.6))
    assert 0 < weak.separation[-1] < strong.separation[-1] < 1


def test_features_of_a_pair_against_the_formula(rng):
    features = image_features(patches(rng))
    regions = (np.arange(64) // 16 * np.ones((48, 1))).astype(np.int32)
    merging = RegionMerging(regions, np.full((48, 64), 0.5), features).run()
    pair = merging.pair_features(np.array([0]), np.array([3]), np.array([0.5]), np.array([48.0]))[0]
    assert len(pair) == len(PAIR_FEATURES)
    means, bounds = region_means(regions, features)
    a, b = means[0, bounds[3] : bounds[4]], means[3, bounds[3] : bounds[4]]
    assert pair[0] == pytest.approx(0, abs=1e-6)
    assert pair[3] ** 2 == pytest.approx(0.5 * ((a - b) ** 2 / (a + b + 1e-9)).sum())
    assert pair[6] == pair[7] == pytest.approx(np.log(0.25))
