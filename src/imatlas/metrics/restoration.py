"""Errors of restored or reconstructed images."""

from __future__ import annotations

import numpy as np


def mean_squared_error(target: np.ndarray, image: np.ndarray, *, span: float) -> float:
    """Mean squared error over all observed pixels, with pixel values divided by `span` (255 for 8-bit images).

    Parameters
    ----------
    target, image : arrays (N, H, W, C)
        NaN and infinity in `target` are missing pixels, which are ignored.
    """
    known = np.where(np.isfinite(target), target, np.nan) if target.dtype.kind == "f" else target
    difference = (known.astype(np.float64) - image.astype(np.float64)) / span
    return float(np.nanmean(difference**2))


def psnr(target: np.ndarray, image: np.ndarray, *, span: float) -> float:
    """Peak signal-to-noise ratio in decibels: -10 log10 of the squared error at unit span; inf for equal images."""
    error = mean_squared_error(target, image, span=span)
    return float("inf") if error == 0 else float(-10 * np.log10(error))
