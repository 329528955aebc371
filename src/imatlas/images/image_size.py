"""The size at which a set of images is seen: the default rule, and what users may ask for."""

from __future__ import annotations

from typing import Any

import numpy as np

from imatlas.arguments import refused, whole
from imatlas.images import intake
from imatlas.images.sources.base import Source
from imatlas.images.spec import MAX_IMAGE_SIDE

Size = int | tuple[int, int]
"""Height and width in pixels, or one number for both."""

_PEEK = 200
_MANY = 200_000


def automatic_size(source: Source) -> tuple[int, int]:
    """The default image size; see `Images` for the rule."""
    n = len(source.keys)
    among = getattr(source, "sample", range(n))  # not all shards are opened for this
    sizes = []
    for place in sorted({round(i) for i in np.linspace(0, len(among) - 1, min(len(among), _PEEK))}):
        size = intake.peek_size(source, among[place])
        if size is not None:
            sizes.append(size)
    if not sizes:
        return (64, 64)
    if len(set(sizes)) == 1 and max(sizes[0]) <= 64:
        return sizes[0]
    small = float(np.median([min(size) for size in sizes])) <= 40
    return (32, 32) if small or n > _MANY else (64, 64)


def height_width(image_size: Size) -> tuple[int, int]:
    """(height, width) of an image size."""
    if isinstance(image_size, int | np.integer):
        return (int(image_size), int(image_size))
    return (int(image_size[0]), int(image_size[1]))


def is_side(value: Any) -> bool:
    number = whole(value)
    return number is not None and 1 <= number <= MAX_IMAGE_SIDE


def checked_size(image_size: Any) -> Any:
    """The image size as it was given, or None.

    Raises
    ------
    ParameterError
        If it is neither an int nor a pair of ints, or out of range.
    """
    pair = isinstance(image_size, tuple | list) and len(image_size) == 2 and all(is_side(v) for v in image_size)
    if not (image_size is None or is_side(image_size) or pair):
        must = f"None, an int in the range [1, {MAX_IMAGE_SIDE}], or a pair of them (height, width)"
        raise refused("image_size", "Images", must, image_size)
    return image_size
