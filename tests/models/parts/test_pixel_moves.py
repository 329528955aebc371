"""Moves of boundary pixels: which are allowed, and that they lower the energy."""

import numpy as np
from scipy.ndimage import label

from imatlas.models.parts.outline_refinement import RING
from imatlas.models.parts.pixel_moves import moved, segment_means


def energy(labels, features, pair_cost):
    """Squared distances to means, and twice the pairs of 8-neighbors in different segments."""
    means = segment_means(labels.ravel(), features)
    padded = np.pad(labels, 1, constant_values=-1)
    height, width = labels.shape
    around = [padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in RING]
    pairs = sum(int(((other != labels) & (other >= 0)).sum()) for other in around)
    return ((features - means[labels.ravel()]) ** 2).sum() + pair_cost * pairs / 2


def test_segments_stay_connected_and_the_energy_falls(rng):
    """Thin stripes, a segment of one pixel, and noise."""
    labels = np.indices((40, 50))[1] // 2
    labels[10, 25], labels[38:, 10:14] = 25, 26
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    n = labels.max() + 1
    features = rng.normal(size=(2000, 3))
    before, found = labels, labels
    for _ in range(6):
        found = moved(before, features, 0.05, 1)
        assert found.dtype == np.int32
        assert all(label(found == i)[1] == 1 for i in range(n))
        assert energy(found, features, 0.05) < energy(before, features, 0.05)
        before = found
    assert (found != labels).mean() > 0.2


def test_boundaries_go_to_where_the_color_changes(rng):
    truth = (np.indices((30, 40))[1] >= 20).astype(int)
    start = (np.indices((30, 40))[1] >= 15 + rng.integers(0, 3, (30, 1))).astype(int)
    features = truth.reshape(-1, 1) + rng.normal(0, 0.1, (1200, 1))
    assert np.array_equal(moved(start, features, 0.03, 20), truth)


def test_without_a_color_boundaries_become_straight(rng):
    start = (np.indices((30, 40))[1] >= 18 + rng.integers(0, 4, (30, 1))).astype(int)
    found = moved(start, np.zeros((1200, 1)), 0.03, 20)
    assert np.abs(np.diff(found.argmax(axis=1))).mean() < np.abs(np.diff(start.argmax(axis=1))).mean() / 3


def test_a_segment_of_one_pixel_stays():
    labels = np.zeros((5, 6), int)
    labels[2, 3] = 1
    assert np.array_equal(moved(labels, np.zeros((30, 2)), 1.0, 5), labels)
    assert np.array_equal(moved(np.zeros((1, 1), int), np.zeros((1, 2)), 1.0, 5), [[0]])
