"""Metrics of generated images against closed forms and slow references; planted faults are detected."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu, norm

from imatlas.errors import InputError
from imatlas.metrics import generation
from imatlas.metrics.generation import (
    copying_score,
    density_coverage,
    frechet_distance,
    kernel_distance,
    kernel_distance_spread,
    near_copy_chance,
    near_copy_share,
    precision_recall,
)
from imatlas.metrics.restoration import mean_squared_error, psnr


def test_frechet_of_two_gaussians_is_the_closed_form(rng):
    mean, scale = np.array([1.0, -2.0, 0.5]), np.array([2.0, 0.5, 1.0])
    real = rng.standard_normal((200_000, 3))
    generated = rng.standard_normal((200_000, 3)) * scale + mean
    expected = (mean**2).sum() + ((1 - scale) ** 2).sum()  # diagonal covariances commute
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=0.02)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


def test_frechet_is_refused_where_the_covariance_would_be_noise(rng):
    with pytest.raises(InputError, match=r"at least 128 images on each side. Got 100"):
        frechet_distance(rng.random((100, 64)), rng.random((5000, 64)))


def test_kernel_distance_is_unbiased_and_detects_a_shift(rng):
    same = [kernel_distance(*rng.standard_normal((2, 80, 6))) for _ in range(200)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(200)
    shifted = kernel_distance(rng.standard_normal((80, 6)), rng.standard_normal((80, 6)) + 1)
    assert shifted > max(same)


def test_kernel_distance_is_the_sum_over_pairs_whatever_the_memory(rng, monkeypatch):
    x, y = rng.standard_normal((30, 4)), rng.standard_normal((20, 4)) + 0.3
    a, b = ((v - x.mean(0)) / x.std() for v in (x, y))
    pairs = [((u @ v.T / 4 + 1) ** 3) for u, v in ((a, a), (b, b), (a, b))]
    inside = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in pairs[:2]]
    expected = 1000 * (sum(inside) - 2 * pairs[2].mean())
    assert kernel_distance(x, y) == pytest.approx(expected)
    monkeypatch.setattr(generation, "MEMORY", 8 * 20 * 3)  # three rows at a time
    assert kernel_distance(x, y) == pytest.approx(expected)


def test_the_spread_of_the_kernel_distance_is_that_of_fresh_draws(rng):
    real, generated = rng.standard_normal((2000, 4)), rng.standard_normal((2000, 4)) + 0.5
    mean, deviation = kernel_distance_spread(real, generated, size=200)
    fresh = [kernel_distance(rng.standard_normal((200, 4)), rng.standard_normal((200, 4)) + 0.5) for _ in range(100)]
    assert mean == pytest.approx(np.mean(fresh), rel=0.15)
    assert 0.6 < deviation / np.std(fresh) < 1.6
    assert kernel_distance_spread(real, generated, size=200) == (mean, deviation)
    with pytest.raises(InputError, match=r"at least 4 images on each side. Got 3 and 2000"):
        kernel_distance_spread(real[:3], generated)


def slow_overlap(real, generated, k):
    """Precision, recall, density and coverage from whole matrices of distances, by the definitions."""
    real_radius, made_radius = (np.sort(cdist(a, a), axis=1)[:, k] for a in (real, generated))
    distance = cdist(generated, real)
    precision = (distance <= real_radius).any(1).mean()
    recall = (distance <= made_radius[:, None]).any(0).mean()
    density = (distance <= real_radius).sum() / (k * len(generated))
    return precision, recall, density, (distance.min(0) <= real_radius).mean()


def test_overlap_is_that_of_whole_matrices_whatever_the_memory(rng, monkeypatch):
    real, generated = rng.standard_normal((300, 5)), 0.7 * rng.standard_normal((250, 5)) + 0.4
    for memory in (2**25, 8 * 300 * 7):
        monkeypatch.setattr(generation, "MEMORY", memory)
        for k in (1, 4):
            expected = slow_overlap(real, generated, k)
            assert (*precision_recall(real, generated, k=k), *density_coverage(real, generated, k=k)) == pytest.approx(
                expected
            )


def test_overlap_by_hand():
    real = np.array([[0.0], [1.0], [2.0], [10.0]])  # distances to the nearest other: 1, 1, 1, 8
    generated = np.array([[0.5], [2.5], [30.0], [31.0]])  # 2, 2, 1, 1
    assert precision_recall(real, generated, k=1) == (0.5, 0.75)  # balls of 0.5 and 2.5 reach 0, 1 and 2, not 10
    # 0.5 is in the balls of 0 and 1; 2.5 in those of 2 and 10; the two far ones in none
    assert density_coverage(real, generated, k=1) == (1.0, 1.0)


def test_two_draws_of_one_distribution_score_what_theory_expects(rng):
    real, generated = rng.standard_normal((1500, 6)), rng.standard_normal((1500, 6))
    density, coverage = density_coverage(real, generated, k=5)
    falling = np.prod([(1500 - i) / (3000 - i) for i in range(1, 6)])
    assert coverage == pytest.approx(1 - falling, abs=0.02)
    assert density == pytest.approx(1, abs=0.06)
    precision, recall = precision_recall(real, generated)
    assert min(precision, recall) > 0.75


def test_a_collapsed_generator_has_low_recall_and_coverage(rng):
    real, others = rng.standard_normal((600, 6)), rng.standard_normal((5, 6))
    collapsed = np.repeat(others, 120, axis=0) + 1e-3 * rng.standard_normal((600, 6))
    precision, recall = precision_recall(real, collapsed)
    _, coverage = density_coverage(real, collapsed)
    assert precision > 0.5
    assert recall < 0.05
    assert coverage < 0.2


def test_overlap_asks_for_more_images_than_neighbors(rng):
    with pytest.raises(InputError, match=r"k = 3 needs at least 4 images on each side. Got 3 and 9"):
        precision_recall(rng.random((3, 2)), rng.random((9, 2)))
    with pytest.raises(InputError, match=r"at least 6 real images and 1 generated image. Got 9 and 0"):
        density_coverage(rng.random((9, 2)), rng.random((0, 2)))


def test_the_z_score_is_that_of_mann_and_whitney(rng):
    x, y = rng.integers(0, 30, 80).astype(float), rng.integers(5, 40, 60).astype(float)  # many ties
    reference = mannwhitneyu(x, y, use_continuity=False, method="asymptotic", alternative="less")
    assert norm.cdf(generation._mann_whitney_z(x, y)) == pytest.approx(reference.pvalue)
    assert generation._mann_whitney_z(np.ones(9), np.ones(5)) == 0


def test_copies_are_detected_and_fair_samples_are_not(rng):
    centers = 4 * rng.standard_normal((8, 10))

    def draw(n):
        return centers[rng.integers(8, size=n)] + rng.standard_normal((n, 10))

    train, held_out = draw(2000), draw(800)
    copies = train[:800] + 0.02 * rng.standard_normal((800, 10))
    some_copies = np.concatenate([copies[:400], draw(400)])
    assert copying_score(train, held_out, copies) < -7
    assert copying_score(train, held_out, some_copies) < -3
    assert all(abs(copying_score(train, held_out, draw(800))) < 2 for _ in range(5))
    assert abs(copying_score(train, held_out[::2], held_out[1::2])) < 2
    assert copying_score(train, held_out, draw(800) + 2) > 3


def test_copying_within_one_cell_is_detected(rng):
    """Over all images at once, far samples of one cluster would hide the copies of the other."""
    groups = np.repeat([[-30.0], [30.0]], 500, axis=0) * np.ones(4)
    train, held_out = (groups + rng.standard_normal((1000, 4)) for _ in range(2))
    generated = np.concatenate([train[:500] + 0.01 * rng.standard_normal((500, 4)), held_out[500:] + 4])
    assert copying_score(train, held_out, generated[:500], n_cells=2) < -20  # the cell of the copies alone counts
    whole = copying_score(train, held_out, generated, n_cells=1)
    assert abs(whole) < 3
    halves = [
        copying_score(train[part], held_out[part], generated[part], n_cells=1)
        for part in (slice(500), slice(500, 1000))
    ]
    assert halves[0] < -20
    assert halves[1] > 10
    assert copying_score(train, held_out, generated, n_cells=2) == pytest.approx(np.mean(halves))


def test_the_copying_test_asks_for_enough_images(rng):
    with pytest.raises(InputError, match=r"20 held-out and 20 generated images. Got 19 and 500 in 1 cells"):
        copying_score(rng.random((100, 3)), rng.random((19, 3)), rng.random((500, 3)))


def test_the_near_copy_share_of_copies_and_fair_samples(rng):
    train, held_out, fair = (rng.standard_normal((n, 5)) for n in (1000, 400, 4000))
    copies = train[:200] + 0.01 * rng.standard_normal((200, 5))
    reference = cdist(held_out, train).min(1)
    assert near_copy_share(cdist(copies, train).min(1), reference) > 0.9
    expected, deviation = near_copy_chance(400, 4000)
    assert abs(near_copy_share(cdist(fair, train).min(1), reference) - expected) < 4 * deviation


@pytest.mark.parametrize("n_held_out", [10, 100, 2000])
def test_the_chance_of_near_copies_is_that_of_many_draws(n_held_out, rng):
    shares = [near_copy_share(rng.random(300), rng.random(n_held_out)) for _ in range(4000)]
    expected, deviation = near_copy_chance(n_held_out, 300)
    assert np.mean(shares) == pytest.approx(expected, abs=4 * deviation / np.sqrt(4000))
    assert np.std(shares) == pytest.approx(deviation, rel=0.2)


def test_restoration_errors_ignore_missing_pixels():
    target = np.array([[0.0, np.nan], [1.0, 2.0]]).reshape(1, 2, 2, 1)
    image = np.array([[0.5, 99.0], [1.0, 2.0]]).reshape(1, 2, 2, 1)
    assert mean_squared_error(target, image, span=1.0) == pytest.approx(0.25 / 3)
    assert psnr(target, target, span=1.0) == float("inf")
    assert psnr(target, image, span=10.0) == pytest.approx(-10 * np.log10(0.25 / 3 / 100))
