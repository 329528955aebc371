"""An image as the smallest file of other formats, at a given quality or without loss."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, features

from imatlas.images.decode import read_frames
from imatlas.images.formats.warnings import quiet

READABLE = ("WebP", "AVIF")
"""Formats that every installation reads."""
FORMATS = (*READABLE, "JPEG XL")
"""Formats that are tried if the machine has them."""
LARGEST = {"WebP": 16_383, "AVIF": 65_535, "JPEG XL": 65_535, "JPEG": 65_500}
"""Sides in pixels, at most."""
DISTANCES = np.geomspace(15, 0.05, 100)
"""Of JPEG XL, for qualities from 1 to 100."""
EFFORT = 7


@dataclass(frozen=True)
class SmallFile:
    """A file: its format, its bytes, and what is read of it."""

    format: str
    content: bytes
    pixels: np.ndarray


def smallest_file(pixels: np.ndarray, alpha: bool, is_good: Callable[[np.ndarray], bool] | None) -> SmallFile | None:
    """The smallest of `small_files` that every installation reads, None if there is none."""
    files = small_files(pixels, alpha, is_good, READABLE)
    return min(files, key=lambda file: len(file.content), default=None)


@quiet()
def small_files(
    pixels: np.ndarray, alpha: bool, is_good: Callable[[np.ndarray], bool] | None, formats: Sequence[str] = FORMATS
) -> Iterator[SmallFile]:
    """An image as the smallest file of each format that holds it, of the least quality that is good enough.

    Parameters
    ----------
    pixels : array (H, W, C) of uint8
        Others are held by none of the formats.
    alpha : bool
        Whether the last channel is opacity.
    is_good : callable or None
        Tells whether decoded pixels are good enough; None for no loss at all.
    formats : of `FORMATS`
    """
    for format in formats_for(pixels, alpha, formats):
        exact = coded_at(format, pixels, alpha, None)
        found = [exact] if exact and np.array_equal(exact.pixels, pixels) else []
        low, high = 0, 101 if is_good else 1  # qualities that are too bad, and that are good enough
        while is_good and high - low > 1:
            made = coded_at(format, pixels, alpha, (low + high) // 2)
            if made and is_good(made.pixels):
                high, found = (low + high) // 2, [*found, made]
            else:
                low = (low + high) // 2
        if found:
            yield min(found, key=lambda file: len(file.content))


def formats_for(pixels: np.ndarray, alpha: bool, formats: Sequence[str] = (*FORMATS, "JPEG")) -> list[str]:
    """The formats that hold an image (H, W, C), and that the machine has."""
    if pixels.dtype != np.uint8 or pixels.shape[2] - alpha not in (1, 3):
        return []
    side = max(pixels.shape[:2])
    return [
        name for name in formats if side <= LARGEST[name] and _is_installed(name) and not (alpha and name == "JPEG")
    ]


@quiet()
def coded_at(format: str, pixels: np.ndarray, alpha: bool, quality: int | None) -> SmallFile | None:
    """An image as a file of a quality from 1 to 100, or without loss (not JPEG); None if the format has none."""
    if format == "JPEG XL":
        import imagecodecs

        squeezed = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        options: dict[str, Any] = {"lossless": True} if quality is None else {"distance": float(DISTANCES[quality - 1])}
        content = bytes(imagecodecs.jpegxl_encode(squeezed, effort=EFFORT, **options))
        return SmallFile(format, content, np.asarray(imagecodecs.jpegxl_decode(content)).reshape(pixels.shape))
    if format == "AVIF" and quality is None:
        return None  # its colors are rounded
    colors = pixels[..., :1].repeat(3, 2) if pixels.shape[2] - alpha == 1 else pixels[..., :3]
    image = Image.fromarray(np.concatenate([colors, pixels[..., -1:]], 2) if alpha else colors)
    options = {"lossless": True, "exact": True} if quality is None else {"quality": quality}
    out = BytesIO()
    if format == "JPEG":
        image, options = image.convert("L" if pixels.shape[2] == 1 else "RGB"), {"optimize": True, **options}
    image.save(out, format, **({"method": 6} if format == "WebP" else {}), **options)
    content = out.getvalue()
    return SmallFile(format, content, read_small(content, pixels.shape[2]))


def read_small(content: bytes, channels: int) -> np.ndarray:
    """The pixels (H, W, C) of a WebP or AVIF file, in which a gray image has three equal colors.

    Raises
    ------
    DecodeError
        If it cannot be read.
    """
    return _in_channels(next(read_frames(content, own_colors=True)).pixels(), channels)


def _in_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    if pixels.shape[2] > channels:
        alpha = pixels[..., 3:] if channels == 2 else pixels[..., :0]
        pixels = np.concatenate([pixels[..., 1:2], alpha], 2)
    if pixels.shape[2] < channels:  # opacity that is 1 everywhere is not always written
        pixels = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], 2)
    return pixels


def _is_installed(format: str) -> bool:
    if format == "JPEG XL":
        return importlib.util.find_spec("imagecodecs") is not None
    return format == "JPEG" or bool(features.check(format.lower()))
