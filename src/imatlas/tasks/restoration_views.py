"""Images before and after, side by side: the whole of each, and a part at full size where most has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import uniform_filter

from imatlas.images.picture import Picture
from imatlas.images.pixels import rgb_view
from imatlas.tasks.source_pictures import upright

WHOLE, PART = 640, 320
"""Longest side of a whole image in the report, and side of the part, in pixels."""

MISSING = (255, 0, 255)
"""Color of missing pixels in the image before."""

SHEET, GAP, LINE = 256, 8, 22
"""Of the contact sheet: side of its pictures, space between them, and height of a caption."""

_INK, _PAPER = (28, 26, 23), (251, 249, 245)


@dataclass(frozen=True)
class View:
    """One image before and after, each (h, w, 3) uint8 of equal sizes.

    Attributes
    ----------
    whole : (before, after)
        Reduced.
    part : (before, after)
        At the size of the pixels of the restored image.
    caption : str
    """

    whole: tuple[np.ndarray, np.ndarray]
    part: tuple[np.ndarray, np.ndarray]
    caption: str


def view_of(before: Picture, after: Picture, caption: str, missing: np.ndarray | None = None) -> View:
    """The view of an image (H, W) and its restoration, of a multiple of its size; `missing` (H, W) is painted over."""
    pixels, spec = upright(before)
    old = rgb_view(pixels[None], spec)[0]
    new = rgb_view(after.pixels()[None].astype(pixels.dtype, copy=False), spec)[0]
    if missing is not None:
        old = np.where(missing[..., None], np.array(MISSING, np.uint8), old)
    top, left, side = _most_changed(old, new)
    factor = new.shape[0] / old.shape[0]
    size = (min(side, old.shape[0]), min(side, old.shape[1]))
    small = old[top : top + size[0], left : left + size[1]]
    above, beside = round(top * factor), round(left * factor)
    part = new[above : above + round(size[0] * factor), beside : beside + round(size[1] * factor)]
    zoom = max(1.0, *(n / WHOLE for n in new.shape[:2]))
    whole = (max(1, round(new.shape[0] / zoom)), max(1, round(new.shape[1] / zoom)))
    return View((_resized(old, whole), _resized(new, whole)), (_resized(small, part.shape[:2]), part), caption)


def _most_changed(old: np.ndarray, new: np.ndarray) -> tuple[int, int, int]:
    """Top, left and side of the part of the old image to show: the one that has changed most, or has most contrast."""
    factor = new.shape[0] / old.shape[0]
    side = max(1, round(PART / factor))
    height, width = old.shape[:2]
    gray = old.mean(2, dtype=np.float32)
    if factor == 1:
        change = np.abs(new.mean(2, dtype=np.float32) - gray)
    else:
        change = np.abs(gray - uniform_filter(gray, 5))
    window = [min(side, n) for n in (height, width)]
    sums = uniform_filter(change, window, mode="constant")
    half = [n // 2 for n in window]
    inner = sums[half[0] : height - window[0] + half[0] + 1, half[1] : width - window[1] + half[1] + 1]
    top, left = np.unravel_index(int(inner.argmax()), inner.shape)
    return int(top), int(left), side


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC, reducing_gap=3))


def contact_sheet(views: Sequence[View]) -> np.ndarray:
    """The views in rows (H, W, 3) uint8: whole before, whole after, part before, part after."""
    rows = [
        [_thumbnail(pixels, crop) for crop in (False, True) for pixels in (view.part if crop else view.whole)]
        for view in views
    ]
    heights = [max(image.height for image in row) for row in rows]
    height = GAP + LINE + sum(heights) + len(rows) * (LINE + GAP)
    sheet = Image.new("RGB", (4 * SHEET + 5 * GAP, height), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for column, title in enumerate(("before", "after", "before, a part", "after, a part")):
        draw.text((GAP + column * (SHEET + GAP), GAP), title, _INK, font)
    top = GAP + LINE
    for view, row, tallest in zip(views, rows, heights, strict=True):
        for column, image in enumerate(row):
            sheet.paste(image, (GAP + column * (SHEET + GAP), top))
        draw.text((GAP, top + tallest + 2), view.caption, _INK, font)
        top += tallest + LINE + GAP
    return np.asarray(sheet)


def _thumbnail(pixels: np.ndarray, crop: bool) -> Image.Image:
    """A picture for the sheet: cropped, so that pixels stay what they are, or reduced."""
    image = Image.fromarray(pixels)
    if crop:
        return image.crop((0, 0, min(SHEET, image.width), min(SHEET, image.height)))
    image.thumbnail((SHEET, SHEET), Image.Resampling.LANCZOS)
    return image
