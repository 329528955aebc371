"""Edited copies of images, as people make them, for tests of duplicate detection."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

Edit = Callable[[Image.Image, np.random.Generator], Image.Image]


def edited_copy(picture: Image.Image, kind: str, rng: np.random.Generator) -> bytes:
    """JPEG file of an image with the edit that `EDITS` names, of quality 90, or 40 to 75 if recompressed."""
    edited = EDITS[kind](picture, rng)
    quality = int(rng.integers(40, 76)) if kind == "recompressed" else 90
    out = BytesIO()
    edited.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _resized(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Half to twice the size."""
    scale = 2 ** rng.uniform(-1, 1)
    return picture.resize([max(8, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)  # type: ignore[arg-type]


def _cropped(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Removes a tenth of the width and of the height, from random sides."""
    width, height = (round(0.9 * side) for side in picture.size)
    left, top = rng.integers(0, picture.width - width + 1), rng.integers(0, picture.height - height + 1)
    return picture.crop((left, top, left + width, top + height))


def _relit(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Changes brightness and contrast by up to a quarter each."""
    brighter = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.75, 1.25))
    return ImageEnhance.Contrast(brighter).enhance(rng.uniform(0.75, 1.25))


def _watermarked(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Semi-transparent text over 60 % of the width at a random position."""
    font = ImageFont.load_default(size=100)
    left, top, right, bottom = (round(v) for v in font.getbbox("imatlas"))
    text = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(text).text((-left, -top), "imatlas", fill=128, font=font)
    width = max(8, round(0.6 * picture.width))
    text = text.resize((width, max(3, round(width * text.height / text.width))), Image.Resampling.LANCZOS)
    x, y = rng.integers(0, picture.width - text.width + 1), rng.integers(0, picture.height - text.height + 1)
    marked = picture.copy()
    marked.paste(
        int(rng.integers(2)) * 255 if picture.mode == "L" else (int(rng.integers(2)) * 255,) * 3,
        (int(x), int(y)),
        text,
    )
    return marked


def _rotated(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Rotates by 90, 180 or 270 degrees."""
    rotations = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    return picture.transpose(rotations[rng.integers(3)])


EDITS: dict[str, Edit] = {
    "recompressed": lambda picture, rng: picture,
    "resized": _resized,
    "cropped": _cropped,
    "brightness": _relit,
    "watermark": _watermarked,
    "rotated": _rotated,
    "mirrored": lambda picture, rng: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}
