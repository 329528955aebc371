"""Images that a generator makes while it is learned, each time some side by side in one file of the cache."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imatlas.errors import ArtifactError
from imatlas.images.pixels import display_view
from imatlas.images.spec import ImageSpec
from imatlas.system.atomic_io import write_file

PREVIEWS = "cache/previews"
"""Where they are in an atlas."""

N_SHOWN = 8
"""Most images side by side."""

LEAST_SIDE, MOST_SIDE = 64, 128
"""Pixels along the longer side of each: smaller ones are enlarged by whole numbers."""

NAME = re.compile(r"\d{4,9}\.webp")


class Previews:
    """The previews of one atlas.

    Parameters
    ----------
    folder : Path
    spec : ImageSpec
        Of the images.
    emit : callable
        Logs an event: `samples`, with `number` and whatever is known about them.
    """

    def __init__(self, folder: Path, spec: ImageSpec, emit: Callable[[dict[str, Any]], None]) -> None:
        self.folder, self.spec, self.emit = folder, spec, emit

    def add(self, images: np.ndarray, about: dict[str, Any]) -> None:
        """Keep some images (n, H, W, C); a full disk does not end the learning."""
        number = 1 + max((int(name.partition(".")[0]) for name in known_previews(self.folder)), default=-1)
        try:
            write_file(preview_file(self.folder, number), side_by_side(display_view(images[:N_SHOWN], self.spec)))
        except (OSError, ArtifactError):
            return
        self.emit({"event": "samples", "number": number, "shown": len(images[:N_SHOWN]), **about})


def preview_file(folder: Path, number: int) -> Path:
    """The file of a preview."""
    return folder / f"{number:04d}.webp"


def known_previews(folder: Path) -> list[str]:
    """The names of the previews in a folder."""
    return sorted(filter(NAME.fullmatch, os.listdir(folder))) if folder.is_dir() else []


def side_by_side(view: np.ndarray) -> bytes:
    """Images (n, H, W, C) uint8, gray, RGB or RGBA, as one WebP with gaps between them."""
    tiles = [Image.fromarray(each[..., 0] if each.shape[-1] == 1 else each).convert("RGBA") for each in view]
    larger = max(1, -(-LEAST_SIDE // max(tiles[0].size)))
    tiles = [tile.resize((larger * tile.width, larger * tile.height), Image.Resampling.NEAREST) for tile in tiles]
    for tile in tiles:
        tile.thumbnail((MOST_SIDE, MOST_SIDE))
    width, height = tiles[0].size
    step = width + max(1, width // 16)
    strip = Image.new("RGBA", (step * len(tiles) - (step - width), height))
    for i, tile in enumerate(tiles):
        strip.paste(tile, (i * step, 0))
    out = BytesIO()
    strip.save(out, "WEBP", quality=85, method=2)
    return out.getvalue()
