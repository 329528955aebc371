"""Bjøntegaard's measure."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.errors import InputError
from imatlas.metrics.compression import bd_rate, bits_per_pixel

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
