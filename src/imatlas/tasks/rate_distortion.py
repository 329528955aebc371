"""Size and quality of compressed images, at all qualities and beside other formats: to choose a quality by looking."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

from imatlas.arguments import counted
from imatlas.errors import DecodeError, InputError
from imatlas.images.encode_small import coded_at, formats_for
from imatlas.images.sources.opening import open_source
from imatlas.images.spec import ImageSpec
from imatlas.metrics.compression import bits_per_pixel
from imatlas.metrics.restoration import psnr
from imatlas.models.codec import step_of
from imatlas.result import Comparisons, Curve, DataTable, Result
from imatlas.tasks.compress import Codec, Target, coded_to
from imatlas.tasks.other_formats import SIDE
from imatlas.tasks.source_pictures import read_with_data, upright

N_IMAGES = 8
OWN_QUALITIES = (5, 20, 35, 50, 65, 80)
QUALITIES = (5, 20, 40, 60, 75, 85, 93)
"""Of other formats."""
OWN = "imatlas"
Point = tuple[float, float]
"""Bits per pixel and PSNR in dB."""


def rate_distortion(source: Any, codec: Codec, target: Target) -> Result:
    """Bits per pixel and PSNR of some images (the middle of large ones) at many qualities, here and in other formats,
    and how they look as `target` asks for.

    Parameters
    ----------
    source : folder, pattern, archive, array or list, as `Images` takes them
    codec : ImageCodec
        Fitted.
    target : Target

    Raises
    ------
    InputError
        If the codec has no loss, or no image has 8 bits.
    """
    if codec.is_lossless:
        raise InputError("Without loss there is only one quality; compress with loss to compare qualities.")
    curves: dict[str, list[list[Point]]] = {}
    pairs, captions = [], []
    for key, pixels, spec in _parts(source):
        own = [_own_point(codec, pixels, spec, Target(step=step_of(quality))) for quality in OWN_QUALITIES]
        curves.setdefault(OWN, []).append([point for point, _ in own])
        for format in formats_for(pixels, spec.has_alpha):
            points = []
            for quality in QUALITIES:
                file = coded_at(format, pixels, spec.has_alpha, quality)
                assert file is not None  # as for no loss
                points.append(_point(len(file.content), pixels, file.pixels))
            curves.setdefault(format, []).append(points)
        if spec.channels in (1, 3, 4):
            (bits, level), decoded = _own_point(codec, pixels, spec, target)
            pairs.append((pixels, decoded))
            captions.append(f"{key}: {bits:.2f} bits per pixel, {level:.1f} dB")
    if not curves:
        raise InputError("No image has 8 bits, so there are no curves to compare.")
    n = len(curves[OWN])
    means = {
        format: [_mean(points) for points in zip(*of_images, strict=True)]
        for format, of_images in curves.items()
        if len(of_images) == n
    }
    most = max(bits for bits, _ in means[OWN])
    rows = [
        [format, quality, round(bits, 3), round(level, 2)]
        for format, points in means.items()
        for quality, (bits, level) in zip(OWN_QUALITIES if format == OWN else QUALITIES, points, strict=True)
    ]
    what = f"Means of {counted(n, 'image')}, or of their middles of {SIDE} x {SIDE} pixels, at each setting."
    return Result(
        "rate_distortion",
        "Size and quality",
        [f"{what} Higher and further left is better."],
        panels=[
            Curve(
                title="Quality, by size",
                series={format: _series(points, most) for format, points in means.items()},
                x_label="bits per pixel",
                y_label="PSNR, dB",
            ),
            Comparisons(
                title="At the quality that was chosen", names=("original", "compressed"), pairs=pairs, captions=captions
            ),
            DataTable(title="All points", columns=("format", "quality", "bits per pixel", "PSNR, dB"), rows=rows),
        ],
    )


def _parts(source: Any) -> Iterator[tuple[str, np.ndarray, ImageSpec]]:
    """Key, pixels (1, H, W, C) of 8 bits, and spec of the middles of some images."""
    opened = open_source(source)
    for i in range(0, len(opened.keys), -(-len(opened.keys) // N_IMAGES)):
        try:
            pixels, spec = upright(read_with_data(opened, i, own_colors=True)[1])
        except DecodeError:
            continue
        if pixels.dtype == np.uint8:
            top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[:2])
            yield opened.keys[i], np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE]), spec


def _own_point(codec: Codec, pixels: np.ndarray, spec: ImageSpec, target: Target) -> tuple[Point, np.ndarray]:
    """An image as it is compressed here, and what is decoded."""
    coded, decoded = coded_to(codec, pixels[None], spec, target)
    return _point(len(coded.to_bytes()), pixels, decoded[0]), decoded[0]


def _point(n_bytes: int, pixels: np.ndarray, decoded: np.ndarray) -> Point:
    level = psnr(pixels[None], decoded[None], span=255)
    return bits_per_pixel(n_bytes, *pixels.shape[:2]), min(level, 60.0)  # which is infinite without loss


def _series(points: list[Point], most: float) -> tuple[list[float], list[float]]:
    """Bits and PSNR of the points that take no more than `most` bits."""
    shown = [point for point in points if point[0] <= most]
    return [bits for bits, _ in shown], [level for _, level in shown]


def _mean(points: tuple[Point, ...]) -> Point:
    bits, levels = zip(*points, strict=True)
    return statistics.mean(bits), statistics.mean(levels)
