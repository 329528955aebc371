"""The pictures of a source at their own size, one after the other, for runs that write files for each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imatlas.errors import DecodeError
from imatlas.images.decode import read_picture
from imatlas.images.formats.pillow import picture_from
from imatlas.images.intake import with_progress
from imatlas.images.picture import Picture
from imatlas.images.sources.base import Source
from imatlas.images.spec import ImageSpec
from imatlas.tasks.unfinished_folder import UnfinishedFolder, stamp_of, stamps_of

RANGE = (0.1, 99.9)
"""Percentiles of 16-bit and float pixels that become black and white."""

WHITE = (255, 255, 255)


class Item(NamedTuple):
    """One image of a source: its key, what changes with its content, the bytes of its file (b"" if it is none)."""

    key: str
    stamp: str
    data: bytes
    picture: Picture


def unfinished_items(
    source: Source,
    run: UnfinishedFolder[Any],
    skipped: list[tuple[str, str]],
    title: str,
    *,
    progress: bool,
    own_colors: bool = False,
) -> Iterator[Item]:
    """Each image that is not done yet; items that are no image are added to `skipped`. See `read_item`."""
    stamps = stamps_of(source)
    for i in with_progress(range(len(source.keys)), title, progress):
        key = source.keys[i]
        if key in run:
            continue
        try:
            data, picture = read_with_data(source, i, own_colors=own_colors)
            yield Item(key, stamp_of(stamps[i], source, i), data, picture)
        except DecodeError as error:
            skipped.append((key, str(error)))


def read_item(source: Source, item: int, *, own_colors: bool = False) -> Picture:
    """An item as a picture in sRGB, or in its own colors and with the alpha of deep pictures kept.

    Raises
    ------
    DecodeError
        If it is no picture.
    """
    return read_with_data(source, item, own_colors=own_colors)[1]


def read_with_data(source: Source, item: int, *, own_colors: bool = False) -> tuple[bytes, Picture]:
    """As `read_item`, with the bytes of the file before it (b"" if it is none)."""
    value, name = source.read(item), source.keys[item]
    if not isinstance(value, bytes):
        return b"", picture_from(value, WHITE).to_srgb()
    background = None if own_colors else WHITE
    return value, read_picture(value, name=name, own_colors=own_colors, background=background)


def upright(picture: Picture) -> tuple[np.ndarray, ImageSpec]:
    """Pixels (H, W, C) and their spec, with the range of this image."""
    pixels = picture.pixels()
    if pixels.dtype == np.uint8:
        low, high = 0.0, 255.0
    else:
        known = pixels[np.isfinite(pixels)]
        low, high = (float(v) for v in np.percentile(known, RANGE)) if known.size else (0.0, 1.0)
        high = high if high > low else low + 1
    height, width, channels = pixels.shape
    dtype: Any = pixels.dtype.name if pixels.dtype.name in ("uint8", "uint16") else "float32"
    spec = ImageSpec(height, width, channels, dtype, low, high, alpha=picture.kind.alpha)
    return pixels if dtype != "float32" else pixels.astype(np.float32), spec


def plain_title(key: str) -> str:
    """A part of a file name that says which image it is: letters, digits and dashes, at most 60."""
    return re.sub(r"[^A-Za-z0-9]+", "-", Path(key).stem).strip("-")[:60] or "image"
