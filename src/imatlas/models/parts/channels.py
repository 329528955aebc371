"""Channels of one image in [0, 1], and its colors, computed in bands so that a large image is never held as floats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from imatlas.images.pixels import RGB, composited, visible_background
from imatlas.images.spec import ImageSpec

WHITE: RGB = (255, 255, 255)
BAND = 1 << 18
"""Pixels that are converted together."""
N_FITTED = 1 << 20
"""Pixels at most from which the principal axes of the channels are computed."""


@dataclass(frozen=True, eq=False)
class Channels:
    """Channels (H, W, C) of an image of any dtype, without alpha.

    `low` and `high` of its spec become 0 and 1, values outside are clipped, missing ones become 0.5. Pixels with alpha
    are composited on a background on which the image is visible.
    """

    pixels: np.ndarray
    """(H, W, C), or C + 1 with alpha."""
    spec: ImageSpec
    background: RGB

    @classmethod
    def of(cls, pixels: np.ndarray, spec: ImageSpec) -> Channels:
        return cls(pixels, spec, visible_background(pixels, WHITE) if spec.has_alpha else WHITE)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.pixels.shape
        return height, width, channels - self.spec.has_alpha

    def values(self, pixels: np.ndarray) -> np.ndarray:
        """Some of the pixels (..., C) as float32 in [0, 1]."""
        if self.spec.has_alpha:
            pixels = composited(pixels, self.background)
        values = pixels.astype(np.float32)
        values -= self.spec.low
        values *= 1 / (self.spec.high - self.spec.low)
        if pixels.dtype == np.float32:
            values[~np.isfinite(values)] = 0.5
        return np.clip(values, 0, 1, out=values)

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Pixels (..., C) float32 at places (...)."""
        return self.values(self.pixels[rows, columns])

    def bands(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows from top to bottom, each time an even number but for the last, and their values (h, W, C)."""
        n = max(2, BAND // self.shape[1] // 2 * 2)
        for top in range(0, self.shape[0], n):
            rows = slice(top, min(top + n, self.shape[0]))
            yield rows, self.values(self.pixels[rows])

    def halved(self) -> Channels:
        """The image at half the size (ceil(H / 2), ceil(W / 2)), by means of 2 x 2 pixels."""
        height, width, channels = self.shape
        size = (-(-height // 2), -(-width // 2), channels)
        out = np.empty(size, np.float32)
        for rows, values in self.bands():
            padded = np.pad(values, ((0, len(values) % 2), (0, width % 2), (0, 0)), mode="edge")
            top = rows.start // 2
            pairs = padded[::2] + padded[1::2]  # much faster than a mean over two axes
            out[top : top + len(pairs)] = (pairs[:, ::2] + pairs[:, 1::2]) / 4
        return Channels(out, ImageSpec(*size, dtype="float32", low=0.0, high=1.0), WHITE)


def rgb_of(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Pixels (H, W, C) of any kind as RGB (H, W, 3) float32 in [0, 1].

    As `Channels`; gray is repeated. Other channels than gray and RGB are projected on their first three principal axes
    in this image; the first becomes lightness, the others color.
    """
    return _colored(Channels.of(pixels, spec), np.dtype(np.float32))


def rgb_view(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Pixels (H, W, C) of any kind as RGB (H, W, 3) uint8, in the colors of `rgb_of`."""
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3 and (spec.low, spec.high) == (0, 255):
        return pixels
    return _colored(Channels.of(pixels, spec), np.dtype(np.uint8))


def _colored(image: Channels, dtype: np.dtype) -> np.ndarray:
    height, width, channels = image.shape
    out = np.empty((height, width, 3), dtype)
    mapping = None if channels in (1, 3) else _PrincipalColors.of(image)
    for rows, values in image.bands():
        rgb = values if mapping is None else mapping(values)
        out[rows] = np.rint(255 * rgb) if dtype == np.uint8 else rgb  # gray is broadcast
    return out


@dataclass(frozen=True, eq=False)
class _PrincipalColors:
    """Maps channels (..., C) to RGB (..., 3) in [0, 1] by their first three principal axes."""

    mean: np.ndarray
    axes: np.ndarray
    scale: float

    @classmethod
    def of(cls, image: Channels) -> _PrincipalColors:
        """The mapping for an image; of a large one, by every n-th row and column."""
        height, width, channels = image.shape
        step = max(1, int((height * width / N_FITTED) ** 0.5))
        some = image.values(np.ascontiguousarray(image.pixels[::step, ::step]))
        flat = some.reshape(-1, channels).astype(np.float64)
        mean = flat.mean(axis=0)
        flat -= mean
        axes = np.linalg.eigh(flat.T @ flat / len(flat))[1][:, ::-1][:, :3]
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        return cls(mean, axes, 2 * max(float(np.abs(flat @ axes[:, 0]).max()), 1e-6))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        mixing = np.array([[1, 1, 1], [1, -1, 0], [0.5, 0.5, -1]])[: self.axes.shape[1]]
        return np.clip(0.5 + (values - self.mean) @ (self.axes / self.scale) @ mixing, 0, 1)
