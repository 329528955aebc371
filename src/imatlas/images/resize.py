"""Resizing of pictures of every dtype."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from imatlas.images import limits
from imatlas.images.formats.row_bands import array_of, block_means


def as_array(stored: Image.Image | np.ndarray) -> np.ndarray:
    return array_of(stored) if isinstance(stored, Image.Image) else stored


def reduced_by_blocks(array: np.ndarray, side: int) -> np.ndarray:
    """The means (h, w, C) of square blocks, as large as leaves `side` of them along each axis, at most `LONG`."""
    step = max(1, min(array.shape[:2]) // side)
    down, across = (max(step, -(-length // limits.LONG)) for length in array.shape[:2])
    if down == across == 1:
        return array
    height, width = array.shape[0] // down, array.shape[1] // across
    blocks = array[: height * down, : width * across].reshape(height, down, width, across, -1)
    return blocks.mean((1, 3), dtype=np.float32)


_TALL = 2**25


def resized(stored: Image.Image | np.ndarray, size: tuple[int, int], box: tuple[float, ...]) -> np.ndarray:
    """The part of a picture inside `box` (left, top, right, bottom) at `size` (width, height), as an array (h, w, C).

    8-bit pictures are reduced by Lanczos and enlarged by bicubic interpolation; deeper ones are resized by filters
    without negative lobes, so that values stay within the range of their neighbors.
    """
    width, height = stored.size if isinstance(stored, Image.Image) else stored.shape[1::-1]
    box = (max(0.0, box[0]), max(0.0, box[1]), min(float(width), box[2]), min(float(height), box[3]))
    whole = tuple(round(edge) for edge in box)
    if (whole[2] - whole[0], whole[3] - whole[1]) == size:  # nothing to resample: exact
        if isinstance(stored, Image.Image):
            return as_array(stored if whole == (0, 0, width, height) else stored.crop(box))
        return stored[whole[1] : whole[3], whole[0] : whole[2]]
    shrinks = box[2] - box[0] >= size[0] or box[3] - box[1] >= size[1]
    # Pillow resizes to (new width, old height) first, so very tall pictures are reduced before.
    gap = 3.0 if size[0] * (box[3] - box[1]) > _TALL else None
    if isinstance(stored, Image.Image):
        kernel = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
        return as_array(stored.resize(size, kernel, box=box, reducing_gap=gap))
    step = int(min((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]) / 3)
    if step > 1 and stored.size * 4 > limits.LARGE:  # no float copy of a large one
        stored = block_means(stored, step)
        right, low = stored.shape[1::-1]
        box = (box[0] / step, box[1] / step, min(right, box[2] / step), min(low, box[3] / step))
    kernel = Image.Resampling.HAMMING if shrinks else Image.Resampling.BILINEAR

    def plane(values: np.ndarray) -> np.ndarray:
        floats = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
        return np.asarray(floats.resize(size, kernel, box=box, reducing_gap=gap))

    out = np.empty((size[1], size[0], stored.shape[2]), np.float32)
    for channel in range(stored.shape[2]):
        values = stored[..., channel]
        missing = ~np.isfinite(values) if values.dtype == np.float32 else None
        if missing is None or not missing.any():
            out[..., channel] = plane(values)
        else:  # mean of the valid pixels if they are at least half
            weight = plane(~missing)
            mean = plane(np.where(missing, 0, values)) / np.maximum(weight, 1e-6)
            out[..., channel] = np.where(weight >= 0.5, mean, np.nan)
    return out if stored.dtype == np.float32 else np.rint(out).astype(stored.dtype)


def quickly_resized(stored: Image.Image | np.ndarray, size: tuple[int, int], box: tuple[float, ...]) -> np.ndarray:
    """`resized` through PyTorch, for 8-bit RGB and a box of whole pixels; faster, and equal within rounding."""
    whole = all(edge == int(edge) for edge in box)
    if not isinstance(stored, Image.Image) or stored.mode != "RGB" or not whole or not _torch_shrinks():
        return resized(stored, size, box)
    import torch

    left, top, right, bottom = (max(0, int(edge)) for edge in box)
    pixels = np.array(stored)[top:bottom, left:right]
    shrinks = pixels.shape[1] >= size[0] or pixels.shape[0] >= size[1]
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    kernel = "lanczos" if shrinks else "bicubic"
    small = torch.nn.functional.interpolate(planes, size[::-1], mode=kernel, antialias=True)
    return small[0].permute(1, 2, 0).numpy()


@functools.cache
def _torch_shrinks() -> bool:
    """Whether the installed PyTorch resizes uint8 by Lanczos."""
    import torch

    try:
        torch.nn.functional.interpolate(
            torch.zeros(1, 3, 4, 4, dtype=torch.uint8), (2, 2), mode="lanczos", antialias=True
        )
    except (NotImplementedError, ValueError, RuntimeError):
        return False
    return True
