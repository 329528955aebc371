"""Quality flags of images, without a model: blurred, dark, bright, nearly uniform, odd size or shape, gray among color.

Each flag is a measure with a fixed threshold. If most images of a set cross it, none is flagged. Measures are computed
on thumbnails, whose longest side is at most `THUMBNAIL` pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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

    `edge`: width of the sharpest edges in pixels (`edge_widths`). `low`, `high`: the 5th and 99th percentile of the
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


def _measured(thumbnails: Sequence[bytes]) -> np.ndarray:
    """The measures (n, 5) of some thumbnails; those of one size are measured together."""
    pictures = [_shown(data) for data in thumbnails]
    values = np.empty((len(pictures), 5))
    for shape in {picture.shape for picture in pictures}:
        rows = [i for i, picture in enumerate(pictures) if picture.shape == shape]
        values[rows] = _measures(np.stack([pictures[i] for i in rows]))
    return values


def _shown(data: bytes) -> np.ndarray:
    """A thumbnail as pixels (H, W, C) uint8 without alpha."""
    pixels: np.ndarray = read_picture(data).thumbnail(THUMBNAIL)
    return composited(pixels, visible_background(pixels, WHITE)) if pixels.shape[2] in (2, 4) else pixels


def _measures(pictures: np.ndarray) -> np.ndarray:
    """The measures (n, 5) of pictures (n, H, W, C)."""
    channels = np.ascontiguousarray(np.moveaxis(pictures, 3, 0), np.int64)  # (C, n, H, W)
    sums, n_channels = channels.sum(axis=0), len(channels)
    step = max(1, min(sums.shape[1:]) // 48)  # enough pixels for percentiles
    sample = channels[:, :, ::step, ::step].reshape(n_channels, len(sums), -1)
    low, high = _percentiles(sample.sum(axis=0), 5, 99) / n_channels
    first, last = _percentiles(sample.reshape(-1, sample.shape[2]), 1, 99).reshape(2, n_channels, -1)
    (color,) = _percentiles(sample.max(axis=0) - sample.min(axis=0), 99)
    floor, top = _percentiles(sums.reshape(len(sums), -1), 1, 99) / n_channels
    widths = edge_widths((sums / n_channels).astype(np.float32), top - floor)
    return np.stack([widths, low, high, (last - first).max(axis=0), color], axis=1)


def _percentiles(values: np.ndarray, *percents: float) -> np.ndarray:
    """Percentiles (n_percents, n), interpolated, of whole numbers (n, m) from 0: counting is faster than sorting."""
    n, m = values.shape
    n_levels = int(values.max()) + 1
    counts = np.bincount((values + n_levels * np.arange(n)[:, None]).ravel(), minlength=n * n_levels)
    n_up_to = counts.reshape(n, n_levels).cumsum(axis=1)
    places = [percent / 100 * (m - 1) for percent in percents]
    ranks = [(n_up_to > min(int(place) + i, m - 1)).argmax(axis=1) for place in places for i in (0, 1)]
    return np.stack(
        [low + (place % 1) * (high - low) for place, low, high in zip(places, ranks[::2], ranks[1::2], strict=True)]
    )


def edge_widths(gray: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """Width in pixels (n,) of the sharpest edges of images (n, H, W) float32 with values 0 to 255.

    Their contrast (n,) is the range of the middle 98 % of the values.

    A step of height h blurred by a Gaussian of standard deviation s rises by at most h / (s sqrt(2 pi)) from one pixel
    to the next. h is the range within 7 pixels; the s of the sharpest tenth of all edge pixels is returned. An edge is
    at least a quarter of the contrast of the image, and 8 levels, high. NaN for fewer than 20 edge pixels. Widths
    beyond 7 pixels are underestimated.
    """
    floor = np.maximum(0.25 * contrast, MIN_EDGE)[:, None, None]
    slopes, n_edges = [np.empty((len(gray), 0), np.float32)], np.zeros(len(gray), int)
    for lines in (gray, np.ascontiguousarray(gray.transpose(0, 2, 1))):
        span = _running(np.maximum, lines, -np.inf) - _running(np.minimum, lines, np.inf)
        height = np.minimum(span[:, :-1], span[:, 1:])
        is_edge = height > floor
        slope = np.full(height.shape, np.inf, np.float32)
        np.divide(np.abs(np.diff(lines, axis=1)), height, out=slope, where=is_edge)
        slopes.append(slope.reshape(len(gray), -1))
        n_edges += is_edge.sum(axis=(1, 2))
    ordered = np.sort(np.concatenate(slopes, axis=1), axis=1)  # the edges come first
    place = 0.9 * np.maximum(n_edges - 1, 0)
    few = n_edges < MIN_EDGE_PIXELS
    rows, before = np.flatnonzero(~few), place.astype(int)[~few]
    sharpest = ordered[rows, before].astype(float)
    share = place[~few] - before
    sharpest += share * (ordered[rows, np.minimum(before + 1, n_edges[~few] - 1)] - sharpest)
    widths = np.full(len(gray), np.nan)
    widths[rows] = 1 / (np.sqrt(2 * np.pi) * np.maximum(sharpest, 1e-3))
    return widths


def _running(extreme: np.ufunc, lines: np.ndarray, beyond: float) -> np.ndarray:
    """The maximum or minimum of `EDGE` = 7 values along axis 1 of lines (n, H, W), around each; `beyond` the border."""
    of_one = np.pad(lines, ((0, 0), (EDGE // 2, EDGE // 2), (0, 0)), constant_values=beyond)
    of_two = extreme(of_one[:, :-1], of_one[:, 1:])
    of_four = extreme(of_two[:, :-2], of_two[:, 2:])
    return np.asarray(extreme(of_four[:, :-3], of_four[:, 3:]))


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
