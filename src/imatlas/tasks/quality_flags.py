"""Plain faults of pictures that need no model: blurred, dark, bright, nearly uniform, of an odd size, shape or mode.

Each is told by a measure with a stated threshold. Where most images of a set cross it, that is how the set is, and no
image is flagged for it. Measures are taken from small pictures, the longest side `THUMBNAIL` pixels or less.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from imatlas.images.decode import read_picture
from imatlas.images.intake import n_workers
from imatlas.images.pixels import composited, visible_background
from imatlas.images.thumbnails import WHITE

THUMBNAIL = 128
"""Longest side in pixels of the pictures that thresholds were chosen for; that of an atlas's thumbnails."""

EDGE = 7
"""Pixels around a place whose range of values is the height of an edge there."""

LOW_EDGE, FEW_EDGES = 8, 20
"""Gray levels below which a step is no edge, and places with an edge below which nothing is said about sharpness."""

BLURRED, DARK, BRIGHT, UNIFORM = 0.9, 64, 235, 10
"""Sharpest edges wider than so many pixels; 99 % of the pixels darker, or 95 % brighter, than this of 255; the range of
the middle 98 % of the values narrower than so many levels."""

GRAY = 8
"""Levels that the channels of a gray picture differ by at most, in 99 % of its pixels."""

TIMES = 2.0
"""How many times larger, smaller, longer or wider than the median image is odd, at least."""

SPREADS = 3.0
"""And how many interquartile ranges outside the middle half of the set (Tukey's far-out fence)."""

MOST = 0.5
"""Share of a set above which a fault is how the set is."""

FLAGS = {
    "blurred": f"even the sharpest edges are wider than {BLURRED} pixels of {THUMBNAIL}, and than those of the set",
    "dark": f"99 % of the pixels are darker than {DARK} of 255",
    "bright": f"95 % of the pixels are brighter than {BRIGHT} of 255",
    "nearly uniform": f"98 % of the values lie within {UNIFORM} of 255",
    "odd size": f"more than {TIMES:g} times larger or smaller than the median, and far outside the set's own spread",
    "odd shape": f"more than {TIMES:g} times longer or wider than the median, and far outside the set's own spread",
    "gray among color": "no color, where most images have some",
}
"""What can be wrong, and by which rule."""


@dataclass(frozen=True)
class Flags:
    """What is plainly wrong with each image.

    Attributes
    ----------
    of : list of str
        One a row: the flags of an image, "; " between them, "" for none.
    counts : dict of str to int
        Images by flag, the flags in a fixed order.
    usual : list of str
        Faults of more than half of the images, which are flagged for none of them.
    """

    of: list[str]
    counts: dict[str, int]
    usual: list[str]

    @property
    def rows(self) -> np.ndarray:
        """The flagged rows."""
        return np.flatnonzero([bool(text) for text in self.of])


def quality_flags(thumbnails: Sequence[bytes], widths: np.ndarray, heights: np.ndarray) -> Flags:
    """Flag what is plainly wrong with images.

    Parameters
    ----------
    thumbnails : sequence of bytes (n)
        Small pictures of the images as the bytes of files, each decoded once, by threads.
    widths, heights : ndarray (n,)
        Of the originals.
    """
    measured = measure(thumbnails)
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
        "gray among color": gray & (gray.mean() < MOST) if len(gray) else gray,
    }
    usual = [name for name, rows in found.items() if rows.mean() > MOST] if len(widths) else []
    kept = {name: rows for name, rows in found.items() if name not in usual}
    of = ["; ".join(name for name, rows in kept.items() if rows[i]) for i in range(len(widths))]
    return Flags(of, {name: int(rows.sum()) for name, rows in kept.items()}, usual)


def measure(thumbnails: Iterable[bytes]) -> dict[str, np.ndarray]:
    """Measures of small pictures, each (n,) float.

    `edge`: width of the sharpest edges in pixels, the deviation of the Gaussian that a step would be blurred by; NaN
    where there is no edge. `low`, `high`: the 5th and the 99th percentile of the brightness, `range`: between the 1st
    and the 99th, in the channel where that is widest; `color`: the 99th percentile of the difference of channels.
    """
    names = ("edge", "low", "high", "range", "color")
    with ThreadPoolExecutor(n_workers(None)) as pool:
        rows = list(pool.map(_measured, thumbnails))
    return {name: np.array([row[i] for row in rows], float) for i, name in enumerate(names)}


def _measured(data: bytes) -> tuple[float, ...]:
    picture = read_picture(data)
    pixels: np.ndarray = picture.thumbnail(THUMBNAIL)
    if pixels.shape[2] in (2, 4):  # opacity: on the ground that it is seen on
        pixels = composited(pixels, visible_background(pixels, WHITE))
    pixels = pixels.astype(np.float32)
    gray = pixels.mean(axis=2)
    step = max(1, min(gray.shape) // 48)  # so many pixels say as much about percentiles
    some = pixels[::step, ::step].reshape(-1, pixels.shape[2])
    low, high = np.percentile(gray[::step, ::step], (5, 99))
    first, last = np.percentile(some, (1, 99), axis=0)
    color = np.percentile(some.max(axis=1) - some.min(axis=1), 99)
    return edge_width(gray), float(low), float(high), float((last - first).max()), float(color)


def edge_width(gray: np.ndarray) -> float:
    """How wide the sharpest edges of a picture (H, W) of 0 to 255 are, in pixels.

    A step of height h blurred by a Gaussian of deviation s rises by at most h / (s sqrt(2 pi)) from one pixel to the
    next. h is the range within 7 pixels, s of the sharpest tenth of all places with an edge is returned; an edge is at
    least a quarter as high as the range of the picture, and 8 levels. NaN where there are fewer than 20. What is wider
    than the 7 pixels is only told to be wide.
    """
    low, high = np.percentile(gray, (1, 99))
    floor = max(0.25 * (high - low), LOW_EDGE)
    steep = []
    for turned in (gray, gray.T):
        if turned.shape[0] < 2:
            continue
        rise = np.abs(np.diff(turned, axis=0))
        span = maximum_filter1d(turned, EDGE, axis=0) - minimum_filter1d(turned, EDGE, axis=0)
        height = np.minimum(span[:-1], span[1:])
        there = height > floor
        steep.append(rise[there] / height[there])
    all_steep = np.concatenate(steep) if steep else np.empty(0)
    if len(all_steep) < FEW_EDGES:
        return float("nan")
    return float(1 / (np.sqrt(2 * np.pi) * max(np.percentile(all_steep, 90), 1e-3)))


def _fence(values: np.ndarray) -> float:
    """The upper far-out fence of a set of values; infinite of none."""
    if not len(values):
        return float("inf")
    quarter, three = np.percentile(values, (25, 75))
    return float(three + SPREADS * (three - quarter))


def _far_out(logs: np.ndarray) -> np.ndarray:
    """Which of some logarithms (n,) lie `TIMES` away from the median and beyond the far-out fences."""
    if not len(logs):
        return np.zeros(0, bool)
    away = np.abs(logs - np.median(logs)) > np.log(TIMES)
    return away & ((logs > _fence(logs)) | (-logs > _fence(-logs)))
