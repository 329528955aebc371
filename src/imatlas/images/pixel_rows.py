"""Some rows of a large array of images, read when they are needed."""

from __future__ import annotations

from typing import Any

import numpy as np


class PixelRows:
    """Some images (N, H, W, C) of an array, copied when they are indexed.

    Of a pixel cache that is larger than the memory, no more than a batch at a time is then in memory.

    Parameters
    ----------
    pixels : ndarray (n, H, W, C)
    rows : ndarray (N,) of int
    """

    def __init__(self, pixels: np.ndarray, rows: np.ndarray) -> None:
        self._pixels, self._rows = pixels, rows
        self.shape, self.dtype = (len(rows), *pixels.shape[1:]), pixels.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """`array[rows]`, as of an ndarray; rows are an int, a slice or an array."""
        return np.asarray(self._pixels[self._rows[rows]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)
