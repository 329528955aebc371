"""Downscaling by whole factors as a linear map, and images that are consistent with their downscaled versions."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

TOLERANCE, MAX_STEPS = 1e-3, 30
"""Largest error of a consistent image with values from 0 to 1, and steps toward it."""


class Scaling:
    """Antialiased bicubic scaling of images by whole factors, along one axis after the other.

    Pillow's `BICUBIC`, which is MATLAB's `imresize`: the kernel of Keys 1981, "Cubic convolution interpolation for
    digital image processing", with a = -1/2; widened by the factor where an image is made smaller, and normalized at
    the borders.

    Parameters
    ----------
    height, width : int
        Of the small image.
    scale : int
    """

    def __init__(self, height: int, width: int, scale: int) -> None:
        self.rows, self.columns = (_matrices(side, scale) for side in (height, width))

    def up(self, small: Tensor) -> Tensor:
        """Images (..., h, w) enlarged to (..., H, W)."""
        return _apply(self.rows[1], small, self.columns[1])

    def down(self, large: Tensor) -> Tensor:
        """Images (..., H, W) made smaller to (..., h, w)."""
        return _apply(self.rows[0], large, self.columns[0])

    def consistent(self, large: Tensor, small: Tensor, low: float = -np.inf, high: float = np.inf) -> Tensor:
        """The images (..., H, W) nearest to `large`, from `low` to `high`, whose `down` (..., h, w) is `small`.

        `down` counts as clipped to the range, too. Without limits it takes one step, exact; with limits, accelerated
        steps on the dual problem (Beck and Teboulle 2009), until `TOLERANCE` is reached: more than one where the
        images touch the limits.
        """
        q = v = torch.zeros_like(small)
        t = 1.0
        for _ in range(MAX_STEPS):
            nearest = (large + _apply(self.rows[2], v, self.columns[2])).clamp(low, high)
            error = small - self.down(nearest).clamp(low, high)
            if float(error.abs().max()) < TOLERANCE:
                break
            t, before = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
            q, v = v + error, v + error + (before - 1) / t * (v + error - q)
        return nearest


def _apply(rows: Tensor, planes: Tensor, columns: Tensor) -> Tensor:
    return rows.to(planes) @ planes @ columns.to(planes).T


@functools.lru_cache(maxsize=16)
def _matrices(side: int, scale: int) -> tuple[Tensor, Tensor, Tensor]:
    """The maps of one axis: down (n, n * scale), up (n * scale, n), and the pseudo-inverse of the first."""
    down, up = weights(side * scale, side), weights(side, side * scale)
    return tuple(torch.from_numpy(m.astype(np.float32)) for m in (down, up, np.linalg.pinv(down)))  # type: ignore[return-value]


def weights(n_from: int, n_to: int) -> np.ndarray:
    """Weights (n_to, n_from) of the pixels along one axis in each new pixel; rows sum to 1."""
    wide = max(1.0, n_from / n_to)
    centers = (np.arange(n_to) + 0.5) * n_from / n_to
    found = keys_kernel((np.arange(n_from) + 0.5 - centers[:, None]) / wide)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def keys_kernel(x: np.ndarray) -> np.ndarray:
    """The cubic kernel of Keys with a = -1/2, of support [-2, 2]."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
