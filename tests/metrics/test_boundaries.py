"""Boundary maps and their matching against hand counts and a dense assignment."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from imatlas.errors import InputError
from imatlas.metrics.boundaries import OUTLIER_COST, boundary_map, f_measure, match_boundaries


def vertical_line(column: int) -> np.ndarray:
    boundary = np.zeros((30, 40), bool)  # diagonal: 50
    boundary[:, column] = True
    return boundary


def test_a_boundary_is_left_of_and_above_a_change():
    labels = np.zeros((4, 6), int)
    labels[2:, 3:] = 1
    expected = np.zeros((4, 6), bool)
    expected[1, 2:] = True
    expected[1:, 2] = True
    assert (boundary_map(labels, thinned=False) == expected).all()
    assert not boundary_map(np.ones((4, 6))).any()


def test_thinning_leaves_a_diagonal_of_one_pixel_per_row():
    labels = np.tri(20, dtype=int)
    assert boundary_map(labels, thinned=False).sum() == 2 * 19
    assert boundary_map(labels).sum() in (19, 20)


def test_a_label_map_has_two_axes():
    with pytest.raises(InputError, match="one label per pixel"):
        boundary_map(np.zeros((2, 3, 4)))


@pytest.mark.parametrize(("shift", "matched"), [(0, 30), (2, 30), (3, 0)])
def test_a_shifted_boundary_matches_within_the_tolerance(shift, matched):
    found, true = match_boundaries(vertical_line(10), vertical_line(10 + shift), tolerance=2.5 / 50)
    assert found.sum() == true.sum() == matched
    assert not (found & ~vertical_line(10)).any()


def test_a_true_pixel_is_matched_once():
    double = vertical_line(10) | vertical_line(11)
    found, true = match_boundaries(double, vertical_line(10), tolerance=0.05)
    assert found.sum() == true.sum() == 30
    assert (found == vertical_line(10)).all()  # the nearer of the two lines


def test_no_boundary_matches_nothing():
    empty = np.zeros((30, 40), bool)
    for pair in ((empty, vertical_line(3)), (vertical_line(3), empty), (empty, empty)):
        assert not any(side.any() for side in match_boundaries(*pair))
    with pytest.raises(InputError, match="one shape"):
        match_boundaries(empty, empty.T)


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("distance", [0.5, 1, 2.3])
def test_matching_equals_a_dense_assignment(rng, density, distance):
    for _ in range(20):
        shape = tuple(rng.integers(2, 12, 2))
        found, true = rng.random(shape) < density, rng.random(shape) < rng.choice([density, 0.3])
        sides = match_boundaries(found, true, distance * (1 + 1e-9) / np.hypot(*shape))
        assert sides[0].sum() == sides[1].sum() == dense_matches(found, true, distance)
        assert not (sides[0] & ~found).any()
        assert not (sides[1] & ~true).any()


def dense_matches(found: np.ndarray, true: np.ndarray, distance: float) -> int:
    """Number of pairs by a dense assignment in which every pixel has a partner or pays the outlier cost."""
    a, b = np.argwhere(found), np.argwhere(true)
    apart = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) if len(a) and len(b) else np.empty((len(a), len(b)))
    allowed = apart <= distance + 1e-9
    cost = np.hstack([np.where(allowed, apart, 1e9), np.full((len(a), len(a)), OUTLIER_COST * max(distance, 1))])
    return int((linear_sum_assignment(cost)[1] < len(b)).sum())


def test_f_measure():
    assert f_measure(0.5, 1.0) == pytest.approx(2 / 3)
    assert f_measure(0.0, 0.0) == 0
