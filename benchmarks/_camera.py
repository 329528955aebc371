"""Noise as a camera makes it: a stand-in for pairs of noisy and clean photographs of one scene.

The pixels of a photograph are taken for the scene, and go back through a camera: linear light, no white balance, one
color per pixel. There noise is added whose variance rises with the light. Then everything is done again: interpolating
the colors (so that neighbors share noise), white balance (which amplifies that of red and blue), gamma, sharpening,
JPEG with colors of half the size. As in published pairs (Xu et al. 2018, "Real-world Noisy Image Denoising: A New
Benchmark"), the reference is the mean of many shots.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter

BALANCE = np.array([2.0, 1.0, 1.6])
"""Gains of white balance."""
GAMMA = 2.2
DARK = 0.01
"""Light at which the noise has the variance that darkness itself has."""
SHARPENING, RADIUS = 0.4, 1.0
SHOTS = 40
"""Of which a reference is the mean."""
CROSS, SQUARE = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4, np.outer((1, 2, 1), (1, 2, 1)) / 4
"""Bilinear interpolation from every second pixel, and from every fourth."""


def shot(pixels: np.ndarray, noise: float, quality: int, rng: np.random.Generator) -> np.ndarray:
    """A photograph (H, W, 3) uint8 of a scene (H, W, 3), 0 to 255.

    `noise` is the variance of light that has the value 1 at a green pixel, `quality` that of JPEG.
    """
    light = (pixels / 255.0) ** GAMMA / BALANCE
    rows, columns = np.indices(pixels.shape[:2])
    color = np.where(rows % 2 == columns % 2, 1, np.where(rows % 2 == 0, 0, 2))
    raw = np.take_along_axis(light, color[..., None], 2)[..., 0]
    raw = raw + rng.normal(size=raw.shape) * np.sqrt(noise * (raw + DARK))
    out = 255 * np.clip(_interpolated(raw, color) * BALANCE, 0, 1) ** (1 / GAMMA)
    out = np.clip(out + SHARPENING * (out - gaussian_filter(out, (RADIUS, RADIUS, 0))), 0, 255)
    file = io.BytesIO()
    Image.fromarray(np.rint(out).astype(np.uint8)).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file).convert("RGB"))


def reference(pixels: np.ndarray, noise: float, quality: int, rng: np.random.Generator) -> np.ndarray:
    """Mean (H, W, 3) float64 of `SHOTS` shots."""
    return np.mean([shot(pixels, noise, quality, rng) for _ in range(SHOTS)], axis=0)


def _interpolated(raw: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Three colors (H, W, 3) from one per pixel: green, and the difference of the others to it."""
    green = convolve(np.where(color == 1, raw, 0), CROSS, mode="mirror")
    others = [green + convolve(np.where(color == c, raw - green, 0), SQUARE, mode="mirror") for c in (0, 2)]
    return np.stack([others[0], green, others[1]], axis=2)
