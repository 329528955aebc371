"""Pictures as pages and downloads get them."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from imatlas.errors import DecodeError, ImatlasError, InputError
from imatlas.images.decode import read_picture
from imatlas.images.encode import encode
from imatlas.images.pixels import rgb_view, value_range
from imatlas.images.spec import ImageSpec

MOST_SIDE = 4096


def as_webp(content: Any, side: int) -> bytes:
    """The bytes of an image file, or pixels, as WebP for a page.

    Raises
    ------
    DecodeError
        If it cannot be read.
    """
    if isinstance(content, bytes):
        picture = read_picture(content).to_srgb()
        pixels, alpha = picture.thumbnail(side), picture.kind.alpha
    else:
        pixels = np.asarray(content)
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        alpha = pixels.shape[2] == 4
    height, width, channels = pixels.shape
    spec = ImageSpec(height, width, channels, pixels.dtype.name, *value_range(pixels[None]), alpha)  # type: ignore
    image = Image.fromarray(rgb_view(pixels[None], spec)[0, ..., :3])
    image.thumbnail((side, side))
    out = BytesIO()
    image.save(out, "WEBP", quality=88, method=2)
    return out.getvalue()


def as_png(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, C) uint8 as PNG; of many channels the first three, of two the first."""
    shown = pixels if pixels.shape[2] in (3, 4) else pixels[..., :3] if pixels.shape[2] > 4 else pixels[..., 0]
    return encode(np.ascontiguousarray(shown))


def upload_size(content: bytes) -> tuple[int, int]:
    """Width and height of an image that was sent.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        picture = read_picture(content)
    except (DecodeError, ImatlasError) as error:
        raise InputError(f"This is no image that can be read ({error}).") from None
    return picture.width, picture.height
