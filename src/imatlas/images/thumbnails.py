"""The small pictures that an atlas keeps of its images: made smaller still, and turned back into pixels."""

from __future__ import annotations

import numpy as np

from imatlas.images.decode import Fit, check_thumbnail, read_picture
from imatlas.images.encode import encode_thumbnail
from imatlas.images.pixels import conformed
from imatlas.images.spec import ImageSpec

WHITE = (255, 255, 255)


def shrink(data: bytes, size: int) -> bytes:
    """A thumbnail whose longest side is at most `size` pixels, as the bytes of a file; a smaller one as it is."""
    picture = read_picture(check_thumbnail(data))
    return data if max(picture.width, picture.height) <= size else encode_thumbnail(picture.thumbnail(size))


def thumbnail_pixels(data: bytes, spec: ImageSpec, fit: Fit = "crop") -> np.ndarray:
    """A thumbnail as pixels (H, W, C) of `spec`: near to what the cache holds, and exact for tiny 8-bit pictures."""
    pixels = read_picture(data).fitted(spec.height, spec.width, fit, WHITE)[None]
    return conformed(pixels, ImageSpec(spec.height, spec.width, pixels.shape[3]), spec)[0]
