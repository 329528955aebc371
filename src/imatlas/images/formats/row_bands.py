"""Assembling a picture from bands of rows, at full size or reduced by an integer factor, without a second copy."""

from __future__ import annotations

import numpy as np
from PIL import Image

_CHUNK = 2**20


class Sink:
    """Collects the parts of a picture in any order; at full size (step 1) or as means of step x step blocks.

    Parameters
    ----------
    height, width, channels : int
        Size of the whole picture.
    dtype : dtype
    step : int
        Reduction factor.
    alpha : bool
        Whether the last channel is alpha, which then weights the means.
    """

    def __init__(self, height: int, width: int, channels: int, dtype: np.dtype, step: int, alpha: bool = False) -> None:
        self.step, self.alpha, self.dtype = step, alpha, np.dtype(dtype)
        self._size = (height, width)
        self._counts: np.ndarray | None = None
        if step == 1:
            self._out = np.zeros((height, width, channels), dtype)
        else:
            self._out = np.zeros((-(-height // step), -(-width // step), channels), np.float32)
            if self.dtype.kind == "f":
                self._counts = np.zeros(self._out.shape, np.float32)

    @staticmethod
    def n_bytes(height: int, width: int, channels: int, dtype: np.dtype, step: int) -> int:
        """The memory of a sink."""
        if step == 1:
            return height * width * channels * np.dtype(dtype).itemsize
        return -(-height // step) * -(-width // step) * channels * 12 + 16 * _CHUNK

    def put(self, top: int, left: int, part: np.ndarray, channel: int = 0) -> None:
        """Add a part (h, w, C); what lies outside the picture is cropped."""
        height, width = self._size
        part = part[: max(0, height - top), : max(0, width - left)]
        if part.size == 0:
            return
        last = channel + part.shape[2]
        if self.step == 1:
            self._out[top : top + part.shape[0], left : left + part.shape[1], channel:last] = part
            return
        rows = max(1, _CHUNK // max(1, part[0].size))
        for start in range(0, len(part), rows):
            self._add(top + start, left, part[start : start + rows], channel)

    def _add(self, top: int, left: int, part: np.ndarray, channel: int) -> None:
        values = part.astype(np.float32)
        if self.alpha:
            values[..., :-1] *= values[..., -1:]
        there = (
            slice(top // self.step, -(-(top + len(part)) // self.step)),
            slice(left // self.step, -(-(left + part.shape[1]) // self.step)),
            slice(channel, channel + part.shape[2]),
        )
        if self._counts is not None:
            finite = np.isfinite(values)
            self._counts[there] += self._blocks(finite.astype(np.float32), top, left)
            values[~finite] = 0
        self._out[there] += self._blocks(values, top, left)

    def _blocks(self, values: np.ndarray, top: int, left: int) -> np.ndarray:
        """Sums over the blocks of a part."""
        for axis, start in ((0, top), (1, left)):
            first = -start % self.step
            cuts = np.arange(first, values.shape[axis], self.step)
            cuts = cuts if first == 0 else np.concatenate([[0], cuts])
            values = np.add.reduceat(values, cuts, axis=axis)
        return values

    def result(self) -> np.ndarray:
        """The picture (h, w, C) in its own dtype."""
        if self.step == 1:
            return self._out
        area = self._areas()
        out = self._out
        if self._counts is not None:  # mean of the valid pixels if they are at least half
            out = np.where(self._counts * 2 >= area, out / np.maximum(self._counts, 1), np.nan)
            return out.astype(self.dtype)
        if self.alpha:
            opacity = out[..., -1:].copy()
            out[..., :-1] /= np.maximum(opacity, 1e-6)
            out[..., -1:] = opacity / area
        else:
            out /= area
        return np.rint(out).astype(self.dtype)

    def _areas(self) -> np.ndarray:
        """The number of pixels of each block (h, w, 1)."""
        sides = []
        for side, blocks in zip(self._size, self._out.shape, strict=False):
            lengths = np.full(blocks, self.step, np.float32)
            lengths[-1] = side - self.step * (blocks - 1)
            sides.append(lengths)
        return sides[0][:, None, None] * sides[1][None, :, None]


def array_of(image: Image.Image) -> np.ndarray:
    """The pixels (H, W, C) of a Pillow image; a large one is copied in bands to avoid a second copy."""
    width, height = image.size
    if width * height <= _CHUNK:
        array = np.asarray(image)
        return array[..., None] if array.ndim == 2 else array
    rows = max(1, _CHUNK // width)
    out: np.ndarray | None = None
    for top in range(0, height, rows):
        band = np.asarray(image.crop((0, top, width, min(height, top + rows))))
        band = band[..., None] if band.ndim == 2 else band
        if out is None:
            out = np.empty((height, width, band.shape[2]), band.dtype)
        out[top : top + len(band)] = band
    assert out is not None
    return out


def block_means(array: np.ndarray, step: int, alpha: bool = False) -> np.ndarray:
    """A picture (H, W, C) reduced by an integer factor, in its own dtype."""
    height, width, channels = array.shape
    sink = Sink(height, width, channels, array.dtype, step, alpha)
    sink.put(0, 0, array)
    return sink.result()
