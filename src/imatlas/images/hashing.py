"""Perceptual hashes of 64 bits, which measure how similar two pictures are."""

from __future__ import annotations

import functools

import numpy as np


@functools.lru_cache(maxsize=512)
def _waves(length: int) -> np.ndarray:
    """The eight lowest cosine waves (8, length) over a side, scaled to give amplitudes."""
    phase = np.pi * (np.arange(length) + 0.5) / length
    return (np.cos(np.arange(8)[:, None] * phase) / length).astype(np.float32)


def amplitudes(gray: np.ndarray) -> np.ndarray:
    """The 8 x 8 lowest cosine amplitudes (..., 64) of gray pictures (..., H, W).

    Non-finite pixels are missing and replaced by the mean of their picture.
    """
    gray = np.asarray(gray, np.float32)
    known = np.isfinite(gray)
    if not known.all():
        axes = (-2, -1)
        total = np.where(known, gray, 0).sum(axis=axes, keepdims=True, dtype=np.float64)
        mean = total / np.maximum(known.sum(axis=axes, keepdims=True), 1)
        gray = np.where(known, gray, mean).astype(np.float32)
    waves = _waves(gray.shape[-2]) @ gray @ _waves(gray.shape[-1]).T
    return waves.reshape(*gray.shape[:-2], 64)


def hash_bits(amplitudes: np.ndarray) -> np.ndarray:
    """Hashes (N,) uint64 of amplitudes (N, 64): one bit for each amplitude above the median.

    The constant term is ignored. Differences within rounding error count as none, so that flat pictures hash to 0 and
    not to noise.
    """
    waves = np.nan_to_num(amplitudes[:, 1:])
    noise = 1e-5 * np.abs(np.nan_to_num(amplitudes)).max(axis=1, keepdims=True)
    bits = np.zeros((len(waves), 64), bool)
    bits[:, 1:] = waves > np.median(waves, axis=1, keepdims=True) + noise
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64)[:, 0]


def perceptual_hash(gray: np.ndarray) -> np.ndarray:
    """The 64-bit perceptual hash (N,) uint64 of gray pictures (N, H, W) of any size and range.

    The DCT hash ("pHash"; Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010), with the
    amplitudes computed from the picture, not from a 32 x 32 copy. A picture and its rescaled, recompressed or slightly
    edited copy differ in a few bits, unrelated pictures in about half.
    """
    return hash_bits(amplitudes(gray))


def hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The number of differing bits; broadcasts like a NumPy function."""
    return np.bitwise_count(np.bitwise_xor(a, b))
