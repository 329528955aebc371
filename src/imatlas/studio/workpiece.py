"""One picture that is worked on: its pixels, its regions, and how pages show it."""

from __future__ import annotations

import threading
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from imatlas.errors import DecodeError, InputError
from imatlas.images.decode import read_picture
from imatlas.images.encode_like import encode_like
from imatlas.images.formats.pillow import picture_from
from imatlas.images.picture import Picture
from imatlas.images.pixels import rgb_view
from imatlas.models.parts.region_graph import RegionGraph, region_graph
from imatlas.studio.views import once
from imatlas.tasks.source_pictures import Item, upright

MOST_PIXELS = 2_000_000
"""A larger picture is reduced."""
KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "TIFF": "image/tiff"}


class Workpiece:
    """A picture at its own size, or reduced to `MOST_PIXELS`; safe to use from several threads.

    Parameters
    ----------
    name : str
        Its key, or the name of its file.
    content : bytes or ndarray (H, W, C)
        A file, or pixels.

    Attributes
    ----------
    pixels : ndarray (H, W, C)
        Upright, in the colors and the depth of the file.
    spec : ImageSpec

    Raises
    ------
    InputError
        If it cannot be read.
    """

    def __init__(self, name: str, content: Any) -> None:
        self.name, self.data = name, content if isinstance(content, bytes) else b""
        self._lock = threading.RLock()
        try:
            if self.data:
                picture = read_picture(self.data, name=name, own_colors=True, background=None)
            else:
                pixels = np.asarray(content)
                picture = picture_from(pixels if pixels.ndim == 3 else pixels[..., None])
        except DecodeError as error:
            raise InputError(f"'{name}' cannot be read ({error}); choose another picture.") from None
        self.full = (picture.height, picture.width)
        self.picture = _reduced(picture)
        self.pixels, self.spec = upright(self.picture)

    @property
    def is_reduced(self) -> bool:
        """Whether it has fewer pixels than its file."""
        return self.full != self.pixels.shape[:2]

    @property
    def item(self) -> Item:
        """As tasks take it."""
        return Item(self.name, "", self.data, self.picture)

    @once
    def graph(self) -> RegionGraph:
        """Its regions; slow at first."""
        return region_graph(self.pixels, self.spec)

    @once
    def view(self) -> np.ndarray:
        """The picture (H, W, 3) uint8 as pages show it."""
        return self.viewed(self.pixels)

    def viewed(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels of any size, made of this picture, (h, w, 3) uint8, with the same black and white as it."""
        return rgb_view(pixels[None], self.spec)[0]

    def shown(self, view: np.ndarray) -> bytes:
        """A view as PNG, in the colors of the file."""
        profile = self.picture.profile if self.picture.kind.colors == 3 else b""
        out = BytesIO()
        Image.fromarray(view).save(out, "PNG", compress_level=1, icc_profile=profile or None)
        return out.getvalue()

    def written(self, pixels: np.ndarray) -> tuple[bytes, str, list[str]]:
        """Pixels as a file like that of the picture: its bytes, its format, and notes."""
        made = encode_like(pixels, self.picture, self.data)
        return made.content, made.format, [*self.picture.notes, *made.notes]

    def describe(self) -> dict[str, Any]:
        """As pages are told."""
        height, width = self.pixels.shape[:2]
        kind = self.picture.kind
        return {
            "name": self.name,
            "width": width,
            "height": height,
            "full": [self.full[1], self.full[0]] if self.is_reduced else None,
            "bytes": len(self.data) or None,
            "format": self.picture.format,
            "channels": kind.channels,
            "dtype": kind.dtype,
        }


def _reduced(picture: Picture) -> Picture:
    """The picture, upright, with at most `MOST_PIXELS`."""
    height, width = picture.height, picture.width
    factor = (MOST_PIXELS / (height * width)) ** 0.5
    if factor >= 1:
        return picture
    pixels = picture.thumbnail(max(1, int(max(height, width) * factor)))
    small = Picture(pixels, picture.format, picture.mode, alpha=picture.kind.alpha)
    small.profile, small.notes = picture.profile, picture.notes
    small.full, small.scale = (width, height), max(1, round(1 / factor))
    return small
