"""Measures of compression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

from imatlas.errors import InputError


def bits_per_pixel(n_bytes: int, height: int, width: int, n_images: int = 1) -> float:
    """Bits of a file, everything counted, for each pixel."""
    return 8 * n_bytes / (height * width * n_images)


def bd_rate(
    anchor: Sequence[tuple[float, float]],
    other: Sequence[tuple[float, float]],
    *,
    method: str = "pchip",
    limits: tuple[float, float] | None = None,
) -> float:
    """Mean difference of bits at equal quality, in percent: -20 is a fifth less than the anchor (Bjøntegaard 2001).

    Parameters
    ----------
    anchor, other : sequences of (bits, quality)
        At least four points each, in any order.
    method : {"pchip", "cubic"}
        Interpolation of the logarithm of the bits over the quality: piecewise, as in later versions of the measure, or
        one polynomial of degree three.
    limits : (float, float), optional
        Range of quality; by default, and at most, that which both have.

    Raises
    ------
    InputError
        If there are fewer points, or no common range.
    """
    if method not in ("pchip", "cubic"):
        raise InputError(f"method is 'pchip' or 'cubic'. Got {method!r}.")
    curves = [np.array(sorted(points, key=lambda point: point[1]), np.float64) for points in (anchor, other)]
    if any(len(curve) < 4 for curve in curves):
        raise InputError(f"A curve needs at least 4 points. Got {[len(curve) for curve in curves]}.")
    low, high = max(curve[0, 1] for curve in curves), min(curve[-1, 1] for curve in curves)
    if limits is not None:
        low, high = max(low, limits[0]), min(high, limits[1])
    if low >= high:
        raise InputError("The curves have no common range of quality.")
    quality = np.linspace(low, high, 1000)
    logs = []
    for curve in curves:
        if method == "pchip":
            logs.append(PchipInterpolator(curve[:, 1], np.log(curve[:, 0]))(quality))
        else:
            logs.append(np.polynomial.Polynomial.fit(curve[:, 1], np.log(curve[:, 0]), 3)(quality))
    return float(100 * (np.exp(np.trapezoid(logs[1] - logs[0], quality) / (high - low)) - 1))
