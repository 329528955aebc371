"""Scores of hierarchies: perfect and empty ones, aggregation by hand, saliency, and human agreement on BSDS500."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.errors import InputError
from imatlas.metrics.hierarchies import (
    HierarchyCounts,
    average_precision,
    best_f_measure,
    cut_saliency,
    score_hierarchy,
    summarize,
)
from tests.conftest import need_data


def grid(rows: int, cols: int, size: int = 40) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return (y * rows // size) * cols + x * cols // size


def test_a_hierarchy_that_contains_the_truth_is_perfect():
    truth = grid(2, 2)
    scores = summarize([score_hierarchy([grid(1, 1), grid(2, 2), grid(4, 4)], [truth])])
    for name in ("boundary_ods", "boundary_ois", "covering_ods", "covering_ois", "covering_best", "pri_ods", "pri_ois"):
        assert scores[name] == pytest.approx(1), name
    assert scores["voi_ods"] == scores["voi_ois"] == pytest.approx(0, abs=1e-9)


def test_one_region_has_no_boundary():
    scores = summarize([score_hierarchy([grid(1, 1)], [grid(1, 2)])])
    assert scores["boundary_ods"] == scores["boundary_ois"] == scores["boundary_ap"] == 0
    assert scores["covering_ods"] == pytest.approx(0.5)
    assert scores["voi_ods"] == pytest.approx(1)
    same = summarize([score_hierarchy([grid(1, 1)], [grid(1, 1)])])
    assert same["covering_ods"] == same["pri_ods"] == 1


def test_the_scale_of_the_set_against_that_of_each_image():
    """Two images, two scales, each right for one image only."""
    images = [score_hierarchy([grid(1, 2), grid(1, 4)], [truth]) for truth in (grid(1, 2), grid(1, 4))]
    scores = summarize(images)
    assert scores["covering_ois"] == pytest.approx(1)
    assert scores["covering_ods"] == pytest.approx((1 + 0.5) / 2)
    assert scores["voi_ods"] == pytest.approx(0.5)
    assert scores["voi_ois"] == pytest.approx(0, abs=1e-9)
    assert scores["boundary_ois"] == pytest.approx(1)
    assert scores["boundary_ods"] < 1


def test_an_image_counts_by_its_human_segmentations():
    once = score_hierarchy([grid(1, 2)], [grid(1, 2)])
    thrice = score_hierarchy([grid(1, 1)], [grid(1, 2)] * 3)
    assert summarize([once, thrice])["covering_ods"] == pytest.approx((1 + 3 * 0.5) / 4)
    assert summarize([once, thrice])["voi_ods"] == pytest.approx(0.5)


def test_a_pixel_is_right_if_any_human_drew_it():
    counts = score_hierarchy([grid(1, 4)], [grid(1, 2), grid(1, 4)])
    assert counts.found_matched[0] == counts.found_total[0] == 3 * 40
    assert counts.true_matched[0] == counts.true_total == 40 + 3 * 40
    disjoint = score_hierarchy([grid(1, 4)], [grid(1, 2), grid(2, 1)])
    assert disjoint.found_matched[0] < 2 * 40
    assert disjoint.true_matched[0] == pytest.approx(40 + 9, abs=9)  # the crossing boundary near the three lines


def test_the_best_region_may_come_from_any_scale():
    truth = np.zeros((40, 40), int)
    truth[:, 20:] = 1
    truth[:20, 20:] = 2
    counts = score_hierarchy([grid(1, 2), grid(2, 2)], [truth])
    assert counts.best_covered == counts.covered_total == 1600
    assert (counts.covered < 1600).all()


def test_equal_levels_count_alike(rng):
    truth = rng.integers(0, 3, (12, 12))
    counts = score_hierarchy([grid(2, 2, 12), grid(2, 2, 12), grid(3, 3, 12)], [truth])
    assert counts.rand[0] == counts.rand[1] != counts.rand[2]
    assert len(counts.covered) == 3


def test_curves_by_hand():
    precision, recall = np.array([1.0, 0.5]), np.array([0.0, 1.0])
    assert average_precision(precision, recall) == pytest.approx(0.75 * 1.01)
    assert average_precision(precision[::-1], recall[::-1]) == pytest.approx(0.75 * 1.01)
    assert average_precision(np.array([0.9, 0.8]), np.array([0.5, 0.5])) == 0
    assert average_precision(np.array([1.0, 1.0]), np.array([0.2, 0.6])) == pytest.approx(0.41)
    # On precision = 1 - recall / 2, F is largest where recall² + 4 recall = 4.
    assert best_f_measure(precision, recall) == pytest.approx(12 - 8 * np.sqrt(2), abs=1e-4)
    assert best_f_measure(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(0.5, abs=1e-3)


def test_wrong_inputs():
    with pytest.raises(InputError, match="human segmentation"):
        score_hierarchy([grid(1, 2)], [])
    with pytest.raises(InputError, match="label map"):
        score_hierarchy([], [grid(1, 2)])
    with pytest.raises(InputError, match="one shape"):
        score_hierarchy([grid(1, 2, 10)], [grid(1, 2)])
    with pytest.raises(InputError, match="number of scales"):
        summarize([])


def test_saliency_cuts_into_nested_levels():
    right, down = np.zeros((4, 5)), np.zeros((3, 6))
    right[:, 2], down[1, :3] = 0.8, 0.3
    coarse, middle, fine = cut_saliency(right, down, (0.8, 0.5, 0.1))
    assert [len(np.unique(level)) for level in (coarse, middle, fine)] == [1, 2, 3]
    assert len(np.unique(fine[:2, :3])) == len(np.unique(fine[:, 3:])) == 1
    with pytest.raises(InputError, match="Edges"):
        cut_saliency(down, right, [0.5])


def test_humans_agree_on_bsds500_as_published():
    """Each human segmentation against the others: covering about 0.72 and F about 0.79 (Arbelaez et al. 2011)."""
    with np.load(need_data("bsds500/groundtruth_train_val.npz")) as file:
        truths = [file[name] for name in file.files if name.startswith("val/")][:30]
    images: list[HierarchyCounts] = []
    for truth in truths:
        images.append(score_hierarchy([truth[0]], truth[1:]))
    scores = summarize(images)
    assert 0.6 < scores["covering_ods"] < 0.8
    assert 0.7 < scores["boundary_ods"] < 0.9
    assert 0.8 < scores["pri_ods"] < 0.95
    assert 0.9 < scores["voi_ods"] < 1.5
