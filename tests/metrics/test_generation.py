"""Distances between sets of images, against closed forms; the planted copier is caught."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.errors import InputError
from imatlas.metrics.generation import frechet_distance, kernel_distance, near_copy_share
from imatlas.metrics.restoration import mean_squared_error, psnr


def test_frechet_of_two_gaussians_is_the_closed_form(rng):
    mean, scale = np.array([1.0, -2.0, 0.5]), np.array([2.0, 0.5, 1.0])
    real = rng.standard_normal((200_000, 3))
    made = rng.standard_normal((200_000, 3)) * scale + mean
    expected = (mean**2).sum() + ((1 - scale) ** 2).sum()  # diagonal covariances commute
    assert frechet_distance(real, made) == pytest.approx(expected, rel=0.02)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


def test_frechet_is_refused_where_the_covariance_would_be_noise(rng):
    with pytest.raises(InputError, match=r"at least 128 images on each side. Got 100"):
        frechet_distance(rng.random((100, 64)), rng.random((5000, 64)))


def test_kernel_distance_is_unbiased_and_sees_a_shift(rng):
    same = [kernel_distance(*rng.standard_normal((2, 80, 6))) for _ in range(200)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(200)
    shifted = kernel_distance(rng.standard_normal((80, 6)), rng.standard_normal((80, 6)) + 1)
    assert shifted > max(same)


def test_a_copier_is_caught_and_a_fair_sampler_is_not(rng):
    def nearest(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(2)).min(1)

    train, held_out, fair = (rng.standard_normal((400, 5)) for _ in range(3))
    copies = train[:200] + 0.01 * rng.standard_normal((200, 5))
    reference = nearest(held_out, train)
    assert near_copy_share(nearest(copies, train), reference) > 0.9
    assert near_copy_share(nearest(fair, train), reference) < 0.05


def test_restoration_errors_leave_missing_pixels_out():
    target = np.array([[0.0, np.nan], [1.0, 2.0]]).reshape(1, 2, 2, 1)
    image = np.array([[0.5, 99.0], [1.0, 2.0]]).reshape(1, 2, 2, 1)
    assert mean_squared_error(target, image, span=1.0) == pytest.approx(0.25 / 3)
    assert psnr(target, target, span=1.0) == float("inf")
    assert psnr(target, image, span=10.0) == pytest.approx(-10 * np.log10(0.25 / 3 / 100))
