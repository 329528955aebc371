"""Measures of label maps against values found by hand and by brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from imatlas.errors import InputError
from imatlas.metrics.segmentation import (
    achievable_accuracy,
    boundary_recall,
    compactness,
    contingency_table,
    covering,
    mean_iou,
    rand_index,
    region_contrast,
    seg_measure,
    stability,
    undersegmentation_error,
    variation_of_information,
)

HALVES = np.repeat([[0, 0, 1, 1]], 2, axis=0)
QUARTERS = np.repeat([[0, 1, 2, 3]], 2, axis=0)
ONE = np.zeros((2, 4), int)


def test_equal_partitions_are_perfect_whatever_their_numbers(rng):
    labels = rng.integers(0, 5, (9, 11))
    renumbered = (labels * 7 + 3).astype(np.uint8)
    for perfect in (covering, rand_index, mean_iou, stability, achievable_accuracy):
        assert perfect(renumbered, labels) == pytest.approx(1)
    assert variation_of_information(renumbered, labels) == pytest.approx(0, abs=1e-12)
    assert undersegmentation_error(renumbered, labels) == 0


def test_known_values():
    assert covering(QUARTERS, HALVES) == pytest.approx(0.5)  # each half by one of its two quarters
    assert covering(ONE, HALVES) == pytest.approx(0.5)
    assert covering(HALVES, np.array([[0, 0, 0, 1]] * 2)) == pytest.approx(0.75 * 2 / 3 + 0.25 * 1 / 2)
    assert variation_of_information(QUARTERS, HALVES) == pytest.approx(1)  # one bit more
    assert variation_of_information(ONE, QUARTERS) == pytest.approx(2)
    assert rand_index(ONE, HALVES) == pytest.approx(12 / 28)
    assert mean_iou(QUARTERS, HALVES) == pytest.approx(0.5)
    assert mean_iou(ONE, HALVES) == pytest.approx(0.25)  # one half has the only label, the other has none


def test_rand_index_is_a_share_of_pairs(rng):
    for _ in range(5):
        a, b = rng.integers(0, 4, (2, 4, 5))
        agree = [(a.flat[i] == a.flat[j]) == (b.flat[i] == b.flat[j]) for i, j in combinations(range(20), 2)]
        assert rand_index(a, b) == pytest.approx(np.mean(agree))
    assert rand_index(np.zeros((1, 1), int), np.zeros((1, 1), int)) == 1


def test_covering_is_the_mean_best_overlap(rng):
    a, b = rng.integers(0, 4, (2, 6, 7))
    best = [max(((a == s) & (b == g)).sum() / ((a == s) | (b == g)).sum() for s in range(4)) for g in range(4)]
    assert covering(a, b) == pytest.approx(sum((b == g).mean() * best[g] for g in range(4)))


def test_symmetric_measures(rng):
    a, b = rng.integers(0, 4, (2, 6, 7))
    c = rng.integers(0, 3, (6, 7))
    for measure in (rand_index, variation_of_information, stability):
        assert measure(a, b) == pytest.approx(measure(b, a))
    assert variation_of_information(a, b) <= variation_of_information(a, c) + variation_of_information(c, b)


def test_labels_are_checked():
    for wrong in (HALVES - 1, HALVES.astype(float)):
        with pytest.raises(InputError, match="integers from 0"):
            contingency_table(wrong, HALVES)
    for wrong in (HALVES.T, np.zeros((0, 4), int)):
        with pytest.raises(InputError, match="one shape"):
            contingency_table(wrong, HALVES)
    assert contingency_table(HALVES.astype(bool), HALVES.astype(np.uint8)).toarray().tolist() == [[4, 0], [0, 4]]


def test_superpixel_errors_by_hand():
    thirds = np.array([[0, 0, 1, 1, 2, 2]])
    truth = np.array([[0, 0, 0, 1, 1, 1]])
    assert undersegmentation_error(thirds, truth) == pytest.approx(2 / 6)  # segment 1 leaks one pixel on either side
    assert achievable_accuracy(thirds, truth) == pytest.approx(5 / 6)
    uneven = np.array([[0, 0, 0, 0, 1, 1]])
    assert undersegmentation_error(uneven, truth) == pytest.approx((1 + 1) / 6)


def test_boundary_recall_has_a_tolerance():
    truth, found = np.zeros((40, 30), int), np.zeros((40, 30), int)
    truth[:, 10:] = 1
    found[:, 12:] = 1  # 2 pixels away; diagonal: 50
    assert boundary_recall(found, truth, tolerance=2 / 50) == 1
    assert boundary_recall(found, truth, tolerance=1 / 50) == 0
    found[20:, 10:] = 1
    assert boundary_recall(found, truth, tolerance=0) == pytest.approx(20 / 40, abs=2 / 40)
    assert boundary_recall(found, np.zeros_like(truth)) == 1


def test_compactness_of_shapes():
    y, x = np.mgrid[-60:61, -60:61]
    disc = (np.hypot(y, x) <= 50).astype(int)
    inside = disc.sum() / disc.size
    outside = compactness(np.zeros((121, 121), int))
    assert outside == pytest.approx(0.87, abs=0.02)
    square = np.zeros((100, 200), int)
    square[:, 100:] = 5
    assert compactness(square) == pytest.approx(outside, abs=0.02)
    stripes = np.repeat(np.arange(25), 4)[:, None] + np.zeros((1, 100), int)
    assert compactness(stripes) < 0.2
    assert compactness(disc) >= inside * 0.97  # the disc itself has about 1


def test_contrast_prefers_the_right_boundary():
    image = np.zeros((10, 20, 3))
    image[:, 10:] = 1
    right, wrong = np.zeros((10, 20), int), np.zeros((10, 20), int)
    right[:, 10:], wrong[5:] = 1, 1
    assert region_contrast(image, right) == pytest.approx(1)
    assert region_contrast(image, wrong) == 0
    assert region_contrast(image, np.zeros((10, 20), int)) == 0
    shifted = np.zeros((10, 20), int)
    shifted[:, 8:] = 1
    # Means 0 and 5/6: across² = 3 (5/6)²; within² = 3 (120/200) (1/6) (5/6).
    across, within = np.sqrt(25 / 36), np.sqrt(0.6 * 5 / 36)
    assert region_contrast(image, shifted) == pytest.approx(across / (across + within))
    with pytest.raises(InputError, match="one label"):
        region_contrast(image, right.T)


def test_stability_by_hand():
    assert stability(QUARTERS, HALVES) == pytest.approx(0.5)
    assert stability(HALVES, np.array([[0, 0, 0, 1]] * 2)) == pytest.approx(
        ((0.75 * 2 / 3 + 0.25 / 2) + (0.5 * 2 / 3 + 0.5 / 2 * 1)) / 2
    )


def test_seg_needs_more_than_half_of_an_object():
    truth = np.array([[1, 1, 1, 1, 0, 7, 7, 0, 3, 3]] * 2)
    labels = np.array([[5, 5, 5, 0, 0, 2, 0, 0, 9, 9]] * 2)
    # Of 1, three quarters are covered; exactly half of 7 is not enough; 3 is found.
    assert seg_measure(labels, truth) == pytest.approx((3 / 4 + 0 + 1) / 3)
    assert seg_measure(np.where(labels == 9, 5, labels), truth) == pytest.approx((6 / 12 + 0 + 4 / 10) / 3)  # joined
    assert seg_measure(truth, truth) == 1
    assert seg_measure(np.zeros_like(truth), truth) == 0  # background matches nothing
    with pytest.raises(InputError, match="true objects"):
        seg_measure(labels, np.zeros_like(truth))
