"""Conversion of the thumbnails that an atlas stores: to smaller ones, and to pixels."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from imatlas.images.decode import check_stack, check_thumbnail, fitted_to, read_picture
from imatlas.images.encode import encode_thumbnail, stack_of
from imatlas.images.picture import Fit
from imatlas.images.pixels import composited, kind_of, rgb_view, visible_background
from imatlas.images.spec import ImageSpec

WHITE = (255, 255, 255)


def shrink(data: bytes, size: int) -> bytes:
    """A thumbnail whose longer side is at most `size` pixels, encoded; a smaller one unchanged."""
    picture = read_picture(check_thumbnail(data))
    return data if max(picture.width, picture.height) <= size else encode_thumbnail(picture.thumbnail(size))


def shown(data: bytes, size: int) -> bytes:
    """As `shrink`, for a white page: shapes that would be invisible on it are composited on black."""
    picture = read_picture(check_thumbnail(data))
    if not picture.kind.alpha or picture.kind.dtype != "uint8" or not picture.kind.is_picture:
        return shrink(data, size)
    pixels = picture.thumbnail(size)
    ground = visible_background(pixels, WHITE)
    return shrink(data, size) if ground == WHITE else encode_thumbnail(composited(pixels, ground))


def thumbnail_pixels(data: bytes, spec: ImageSpec, fit: Fit = "crop") -> np.ndarray:
    """A thumbnail as pixels (H, W, C) of `spec`: close to the pixels in the cache, and exact for tiny 8-bit pictures.

    Raises
    ------
    InputError
        If `spec` has channels that this thumbnail lacks.
    """
    whole = None if kind_of(spec).is_picture else stack_of(data)
    return fitted_to(read_picture(data if whole is None else check_stack(whole)), spec, fit)


def square_view(data: bytes, side: int, fit: Fit) -> np.ndarray:
    """A thumbnail as RGB (side, side, 3) uint8, on a background on which it is visible; see `rgb_view`."""
    picture = read_picture(data)
    if not picture.kind.alpha:
        return thumbnail_pixels(data, ImageSpec(side, side, 3), fit)
    spec = ImageSpec(side, side, 4, alpha=True)
    return rgb_view(thumbnail_pixels(data, spec, fit)[None], spec)[0]


def quick_view(data: bytes, side: int) -> np.ndarray:
    """The middle of a thumbnail as RGB (side, side, 3) uint8: as `square_view`, but for rounding, in a fifth of the
    time where it is plain gray or color. The data are those of `check_thumbnail`."""
    with Image.open(BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
        if image.mode not in ("L", "RGB") or "transparency" in image.info:
            return square_view(data, side, "crop")
        image.draft("RGB", (side, side))
        fitted = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BILINEAR)
        return np.asarray(fitted)
