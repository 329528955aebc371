"""Measures of compression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

from imatlas.errors import InputError

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales of MS-SSIM, from fine to coarse (Wang, Simoncelli & Bovik 2003, section 3.2)."""
WINDOW, SIGMA = 11, 1.5
LEAST_SIDE = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)
"""Pixels of a side for which the coarsest scale has a window."""


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


def ms_ssim(target: np.ndarray, image: np.ndarray, *, span: float) -> float:
    """Structural similarity at five scales, at most 1, which equal images reach; mean over images and channels.

    Wang, Simoncelli & Bovik 2003, "Multiscale structural similarity for image quality assessment", eq. 7: contrast and
    structure at each scale, brightness at the coarsest; Gaussian windows as in `imatlas.metrics.restoration.ssim`.

    Parameters
    ----------
    target, image : arrays (N, H, W, C)
        Of at least 176 x 176 pixels, none of them missing.
    span : float
        Largest minus smallest possible value.

    Raises
    ------
    InputError
        If the images are too small or of different shapes.
    """
    if target.shape != image.shape or min(target.shape[1:3]) < LEAST_SIDE:
        raise InputError(
            f"MS-SSIM needs two sets of images of one shape, of at least {LEAST_SIDE} x {LEAST_SIDE} pixels. Got "
            f"{target.shape} and {image.shape} instead; compare by 'psnr'."
        )
    a, b = (np.moveaxis(values, 3, 1).astype(np.float64) for values in (target, image))
    product = np.ones(a.shape[:2])
    for scale, weight in enumerate(SCALE_WEIGHTS):
        brightness, structure = _similarities(a, b, span)
        is_last = scale == len(SCALE_WEIGHTS) - 1
        similarity = structure * brightness if is_last else structure
        product *= np.maximum(similarity.mean((2, 3)), 0) ** weight
        a, b = _halved(a), _halved(b)
    return float(product.mean())


def _similarities(a: np.ndarray, b: np.ndarray, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Brightness, and contrast and structure, of every window inside images (N, C, H, W)."""
    inside = (..., *[slice(WINDOW // 2, -(WINDOW // 2))] * 2)

    def mean(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, SIGMA, axes=(2, 3), radius=WINDOW // 2)[inside]

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    brightness = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return brightness, (2 * (mean(a * b) - mean_a * mean_b) + c2) / (variances + c2)


def _halved(x: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels of images (N, C, H, W)."""
    height, width = (side // 2 * 2 for side in x.shape[2:])
    x = x[..., :height, :width]
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
