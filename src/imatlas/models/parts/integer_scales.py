"""Values of images as integers, and back, without loss."""

from __future__ import annotations

import numpy as np

from imatlas.models.parts.coded_image import IntegerScale

ONES = (1, 255, 65_535)
"""Numbers of steps from 0 to 1 that are tried for float32."""
MOST_WHOLE = 2**24
"""Of integers that float32 holds."""
NOISE_BITS = 3
"""Bits of the differences of neighbors that are predicted; those below are noise, and are written as they are."""
MOST_BITS = 20
"""Bits of integers that are predicted."""


def scale_of(pixels: np.ndarray) -> IntegerScale:
    """The scale by which the integers of images (…, H, W, C) are smallest."""
    ones = next((n for n in ONES if _is_exact(pixels, n)), 0) if pixels.dtype == np.float32 else 0
    integers = _whole(pixels, ones)
    low = int(integers.min())
    spacing = int(np.gcd.reduce(integers - low, axis=None)) or 1
    integers = (integers - low) // spacing
    noise = float(np.median(np.abs(np.diff(integers, axis=-2)))) if integers.shape[-2] > 1 else 0.0
    unpredictable = int(noise + 1).bit_length() - 1 - NOISE_BITS if pixels.dtype != np.uint8 else 0
    too_many = int(integers.max()).bit_length() - MOST_BITS
    return IntegerScale(low, spacing, ones, max(0, unpredictable, too_many))


def to_integers(pixels: np.ndarray, scale: IntegerScale) -> np.ndarray:
    """Integers (int64) for values."""
    return (_whole(pixels, scale.ones) - scale.low) // scale.spacing


def from_integers(integers: np.ndarray, scale: IntegerScale, dtype: str) -> np.ndarray:
    """The inverse of `to_integers`; of integers that no values have, others."""
    whole = integers * scale.spacing + scale.low
    if dtype != "float32":
        return (whole & (255 if dtype == "uint8" else 65_535)).astype(dtype)
    if scale.ones:
        return whole.astype(np.float32) / np.float32(scale.ones)
    ordered = (whole & (2**32 - 1)) - 2**31
    return np.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).astype(np.int32).view(np.float32)


def _whole(pixels: np.ndarray, ones: int) -> np.ndarray:
    """Values as integers (int64): of float32 multiples of a part of 1, or their bits, in ascending order."""
    if pixels.dtype != np.float32:
        return pixels.astype(np.int64)
    if ones:
        return np.rint(pixels * np.float32(ones)).astype(np.int64)
    bits = np.ascontiguousarray(pixels).view(np.int32).astype(np.int64)
    return np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) + 2**31


def _is_exact(pixels: np.ndarray, ones: int) -> bool:
    """Whether all values are multiples of a part of 1."""
    if not np.abs(pixels).max() * ones < MOST_WHOLE:  # nor is NaN
        return False
    again = np.rint(pixels * np.float32(ones)).astype(np.float32) / np.float32(ones)
    return bool(np.array_equal(again.view(np.int32), np.ascontiguousarray(pixels).view(np.int32)))
