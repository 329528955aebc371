"""Quality flags of images, without a model: blurred, dark, bright, nearly uniform, odd size or shape, gray among color.

Each flag is a measure with a fixed threshold. If most images of a set cross it, none is flagged. Measures are computed
on thumbnails, whose longest side is at most `THUMBNAIL` pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from imatlas.images.decode import read_picture
from imatlas.images.intake import CHUNK, in_order, n_workers
from imatlas.images.pixels import composited, visible_background
from imatlas.images.thumbnails import WHITE
from imatlas.system.workers import Parts, Workers

THUMBNAIL = 128
"""Longest side in pixels of the thumbnails that the thresholds are for; that of an atlas's thumbnails."""

EDGE = 7
"""Width in pixels of the window whose range of values is the height of an edge."""

MIN_EDGE, MIN_EDGE_PIXELS = 8, 20
"""Minimum height of an edge in gray levels, and minimum number of edge pixels to judge sharpness."""

BLURRED, DARK, BRIGHT, UNIFORM = 0.9, 64, 235, 10
"""Width in pixels of the sharpest edges; brightness of 255 below which are 99 %, or above which are 95 % of the pixels;
range of the middle 98 % of the values."""

GRAY = 8
"""Maximum difference between the channels of a gray image, in 99 % of its pixels."""

RATIO = 2.0
"""Ratio to the median size or shape from which an image is odd."""

FENCE = 3.0
"""Interquartile ranges beyond the quartiles that it must lie as well (Tukey's far-out fence)."""

MAX_SHARE = 0.5
"""Share of the images above which a flag is dropped as typical of the set."""

FLAGS = {
    "blurred": f"the sharpest edges are wider than {BLURRED} pixels of {THUMBNAIL}, and than usual in the set",
    "dark": f"99 % of the pixels are darker than {DARK} of 255",
    "bright": f"95 % of the pixels are brighter than {BRIGHT} of 255",
    "nearly uniform": f"98 % of the values lie within {UNIFORM} of 255",
    "odd size": f"more than {RATIO:g} times larger or smaller than the median, and far outside the quartiles",
    "odd shape": f"more than {RATIO:g} times longer or wider than the median, and far outside the quartiles",
    "gray among color": "no color, though most images have some",
}
"""Flag -> its rule."""


@dataclass(frozen=True)
class Flags:
    """Quality flags of images.

    Attributes
    ----------
    of : list of str
        The flags of each image, separated by "; "; "" for none.
    counts : dict of str to int
        Number of images by flag.
    typical : list of str
        Flags dropped because more than half of the images would have them.
    """

    of: list[str]
    counts: dict[str, int]
    typical: list[str]

    @property
    def rows(self) -> np.ndarray:
        """The flagged rows."""
        return np.flatnonzero([bool(text) for text in self.of])


def quality_flags(
    thumbnails: Sequence[bytes], widths: np.ndarray, heights: np.ndarray, *, workers: Workers | None = None
) -> Flags:
    """Compute the quality flags of images.

    Parameters
    ----------
    thumbnails : sequence of bytes (n)
        Thumbnails as the bytes of image files.
    widths, heights : ndarray (n,)
        Sizes of the originals in pixels.
    workers : imatlas.system.workers.Workers, optional
        They measure the thumbnails.
    """
    measured = measure(thumbnails, workers)
    side = np.log(np.sqrt(widths.astype(float) * heights))
    shape = np.log(widths.astype(float) / heights)
    edges, gray = measured["edge"], measured["color"] <= GRAY
    wide = edges > max(BLURRED, _fence(edges[~np.isnan(edges)]))
    found = {
        "blurred": wide,
        "dark": measured["high"] < DARK,
        "bright": measured["low"] > BRIGHT,
        "nearly uniform": measured["range"] < UNIFORM,
        "odd size": _far_out(side),
        "odd shape": _far_out(shape),
        "gray among color": gray & (gray.mean() < MAX_SHARE) if len(gray) else gray,
    }
    typical = [name for name, rows in found.items() if rows.mean() > MAX_SHARE] if len(widths) else []
    kept = {name: rows for name, rows in found.items() if name not in typical}
    of = ["; ".join(name for name, rows in kept.items() if rows[i]) for i in range(len(widths))]
    return Flags(of, {name: int(rows.sum()) for name, rows in kept.items()}, typical)


def measure(thumbnails: Sequence[bytes], workers: Workers | None = None) -> dict[str, np.ndarray]:
    """Measures of thumbnails, each (n,) float.

    `edge`: width of the sharpest edges in pixels (`edge_width`). `low`, `high`: the 5th and 99th percentile of the
    brightness. `range`: between the 1st and 99th percentile, in the channel where it is widest. `color`: the 99th
    percentile of the difference between channels.
    """
    names = ("edge", "low", "high", "range", "color")
    values = np.empty((len(thumbnails), len(names)))
    # A million thumbnails may not fit into memory: each is read by the thread that measures it.
    parts = Parts(thumbnails.__getitem__, len(thumbnails), CHUNK)
    if workers is None:
        work: Iterator[Any] = in_order(lambda number: _measured(parts[number]), range(len(parts)), n_workers(None))
    else:
        work = workers.map(_measured, parts)
    for number, rows in enumerate(work):
        values[number * CHUNK : (number + 1) * CHUNK] = rows
    return {name: values[:, i] for i, name in enumerate(names)}


def _measured(thumbnails: Sequence[bytes]) -> list[tuple[float, ...]]:
    """The measures of some thumbnails."""
    return [_measures_of(data) for data in thumbnails]


def _measures_of(data: bytes) -> tuple[float, ...]:
    picture = read_picture(data)
    pixels: np.ndarray = picture.thumbnail(THUMBNAIL)
    if pixels.shape[2] in (2, 4):
        pixels = composited(pixels, visible_background(pixels, WHITE))
    pixels = pixels.astype(np.float32)
    gray = pixels.mean(axis=2)
    step = max(1, min(gray.shape) // 48)  # enough pixels for percentiles
    sample = pixels[::step, ::step].reshape(-1, pixels.shape[2])
    low, high = np.percentile(gray[::step, ::step], (5, 99))
    first, last = np.percentile(sample, (1, 99), axis=0)
    color = np.percentile(sample.max(axis=1) - sample.min(axis=1), 99)
    return edge_width(gray), float(low), float(high), float((last - first).max()), float(color)


def edge_width(gray: np.ndarray) -> float:
    """Width in pixels of the sharpest edges of an image (H, W) with values 0 to 255.

    A step of height h blurred by a Gaussian of standard deviation s rises by at most h / (s sqrt(2 pi)) from one pixel
    to the next. h is the range within 7 pixels; the s of the sharpest tenth of all edge pixels is returned. An edge is
    at least a quarter of the range of the image, and 8 levels, high. NaN for fewer than 20 edge pixels. Widths beyond
    7 pixels are underestimated.
    """
    low, high = np.percentile(gray, (1, 99))
    floor = max(0.25 * (high - low), MIN_EDGE)
    slopes = []
    for lines in (gray, gray.T):
        if lines.shape[0] < 2:
            continue
        rise = np.abs(np.diff(lines, axis=0))
        span = maximum_filter1d(lines, EDGE, axis=0) - minimum_filter1d(lines, EDGE, axis=0)
        height = np.minimum(span[:-1], span[1:])
        is_edge = height > floor
        slopes.append(rise[is_edge] / height[is_edge])
    all_slopes = np.concatenate(slopes) if slopes else np.empty(0)
    if len(all_slopes) < MIN_EDGE_PIXELS:
        return float("nan")
    return float(1 / (np.sqrt(2 * np.pi) * max(np.percentile(all_slopes, 90), 1e-3)))


def _fence(values: np.ndarray) -> float:
    """Upper far-out fence of values; infinite if there are none."""
    if not len(values):
        return float("inf")
    first, third = np.percentile(values, (25, 75))
    return float(third + FENCE * (third - first))


def _far_out(logs: np.ndarray) -> np.ndarray:
    """Which logarithms (n,) differ from the median by a factor of `RATIO` and lie beyond the far-out fences."""
    if not len(logs):
        return np.zeros(0, bool)
    is_far = np.abs(logs - np.median(logs)) > np.log(RATIO)
    return is_far & ((logs > _fence(logs)) | (-logs > _fence(-logs)))
