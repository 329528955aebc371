"""Bjøntegaard's measure."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from imatlas.errors import InputError
from imatlas.metrics.compression import SCALE_WEIGHTS, bd_rate, bits_per_pixel, ms_ssim

CURVE = [(0.1, 27.0), (0.25, 30.0), (0.6, 33.5), (1.3, 37.0), (2.5, 41.0)]


@pytest.mark.parametrize("method", ["pchip", "cubic"])
def test_a_share_of_the_bits_at_equal_quality_is_that_share(method: str) -> None:
    less = [(0.8 * bits, quality) for bits, quality in reversed(CURVE)]
    assert bd_rate(CURVE, less, method=method) == pytest.approx(-20)
    assert bd_rate(less, CURVE, method=method) == pytest.approx(25)


def test_a_gain_in_quality_is_fewer_bits_over_the_common_range() -> None:
    """On a line of 6 dB for each doubling, 1 dB is a factor of 2 ** (-1 / 6)."""
    line = [(2.0**k, 6.0 * k) for k in range(6)]
    better = [(bits, quality + 1) for bits, quality in line]
    assert bd_rate(line, better) == pytest.approx(100 * (2 ** (-1 / 6) - 1), abs=0.01)
    assert bd_rate(line, better, limits=(8, 20)) == pytest.approx(100 * (2 ** (-1 / 6) - 1), abs=0.01)


def test_curves_without_common_quality_are_refused() -> None:
    with pytest.raises(InputError, match="no common range"):
        bd_rate(CURVE, [(bits, quality + 50) for bits, quality in CURVE])
    with pytest.raises(InputError, match="at least 4 points"):
        bd_rate(CURVE[:3], CURVE)
    with pytest.raises(InputError, match="method"):
        bd_rate(CURVE, CURVE, method="linear")


def test_bits_per_pixel() -> None:
    assert bits_per_pixel(100, 10, 8, 2) == 5.0
    assert np.isfinite(bd_rate(CURVE, CURVE))


def test_ms_ssim_is_one_of_equal_images_and_falls_with_damage(rng: np.random.Generator) -> None:
    images = rng.uniform(0, 255, (2, 180, 200, 3))
    images = gaussian_filter(images, (0, 3, 3, 0)) * 8 % 256
    values = [ms_ssim(images, images + rng.normal(0, sigma, images.shape), span=255) for sigma in (0, 2, 10, 40)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)
    assert values[3] < 0.97


def test_brightness_counts_once_and_contrast_at_every_scale(rng: np.random.Generator) -> None:
    """Equation 7: another brightness changes the last factor, half the contrast each of them alike."""
    image = np.full((1, 176, 176, 1), 100.0)
    c1 = (0.01 * 255) ** 2
    brighter = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ms_ssim(image, image + 20, span=255) == pytest.approx(brighter ** SCALE_WEIGHTS[-1])
    checks = np.kron(np.indices((11, 11)).sum(0) % 2, np.ones((16, 16)))[None, ..., None] * 200.0
    assert 0.8 < ms_ssim(checks, 100 + (checks - 100) / 2, span=255) < 0.9


def test_ms_ssim_refuses_small_images() -> None:
    with pytest.raises(InputError, match="176 x 176"):
        ms_ssim(np.zeros((1, 175, 200, 1)), np.zeros((1, 175, 200, 1)), span=255)
