"""Edited copies of pictures, as people make them, to be found again."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

Edit = Callable[[Image.Image, np.random.Generator], Image.Image]


def planted(picture: Image.Image, kind: str, rng: np.random.Generator) -> bytes:
    """The bytes of a JPEG file: a picture edited in the way that `KINDS` names, saved at quality 90 if not told."""
    edited = KINDS[kind](picture, rng)
    quality = int(rng.integers(40, 76)) if kind == "recompressed" else 90
    out = BytesIO()
    edited.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _resized(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Half to twice the size."""
    scale = 2 ** rng.uniform(-1, 1)
    return picture.resize([max(8, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)  # type: ignore[arg-type]


def _cropped(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A tenth of the width and of the height is gone, from either side."""
    width, height = (round(0.9 * side) for side in picture.size)
    left, top = rng.integers(0, picture.width - width + 1), rng.integers(0, picture.height - height + 1)
    return picture.crop((left, top, left + width, top + height))


def _lit(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness and contrast each changed by up to a quarter."""
    brighter = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.75, 1.25))
    return ImageEnhance.Contrast(brighter).enhance(rng.uniform(0.75, 1.25))


def _marked(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Half-clear words over 60 % of the width, somewhere."""
    font = ImageFont.load_default(size=100)
    left, top, right, bottom = (round(v) for v in font.getbbox("imatlas"))
    words = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(words).text((-left, -top), "imatlas", fill=128, font=font)
    width = max(8, round(0.6 * picture.width))
    words = words.resize((width, max(3, round(width * words.height / words.width))), Image.Resampling.LANCZOS)
    x, y = rng.integers(0, picture.width - words.width + 1), rng.integers(0, picture.height - words.height + 1)
    marked = picture.copy()
    marked.paste(
        int(rng.integers(2)) * 255 if picture.mode == "L" else (int(rng.integers(2)) * 255,) * 3,
        (int(x), int(y)),
        words,
    )
    return marked


def _turned(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """By 90, 180 or 270 degrees."""
    ways = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    return picture.transpose(ways[rng.integers(3)])


KINDS: dict[str, Edit] = {
    "recompressed": lambda picture, rng: picture,
    "resized": _resized,
    "cropped": _cropped,
    "brightness": _lit,
    "watermark": _marked,
    "rotated": _turned,
    "mirrored": lambda picture, rng: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}
