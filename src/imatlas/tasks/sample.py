"""Write generated images to disk, each with the recipe that reproduces it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.arguments import check_path, strict_yes
from imatlas.errors import ArtifactError, InputError
from imatlas.images.encode import encode
from imatlas.system.atomic_io import output_path, write_file, write_folder
from imatlas.system.inventory import is_as_written, with_own_hash

GAP = 2
"""Pixels between the images of a sheet."""

NUMBERED = re.compile(r"[0-9]{5,}\.png")
"""File names in a folder of generated images."""


@strict_yes
def write_samples(
    images: np.ndarray,
    output: str | Path,
    *,
    recipe: dict[str, Any],
    sources: Sequence[dict[str, float]] | None = None,
    columns: int | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write images as one contact sheet (if `output` ends in .png) or as numbered files in a folder.

    A sheet of one image is that image.

    Parameters
    ----------
    images : array (n, H, W, C) uint8
    output : path
    recipe : dict
        What reproduces the images; stored as JSON in the text chunk "imatlas" of every PNG, with the image's number.
    sources : sequence of dict, optional
        For each image what it is composed of; part of the recipe.
    columns : int, optional
        Of the sheet; by default it is nearly square.
    overwrite : bool
        Replace a folder if it holds only unchanged files of this function. A sheet is always replaced.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    InputError
        If `output` has a file extension other than .png.
    ArtifactError
        If the folder is not empty, or with `overwrite` holds other files.
    """
    output = output_path(check_path(output, "output", "write_samples"))
    if output.suffix.lower() == ".png":
        sheet = images[0] if len(images) == 1 and columns is None else contact_sheet(images, columns)
        recipe = recipe if sources is None else recipe | {"sources": list(sources)}
        write_file(output, encode(sheet, text={"imatlas": json.dumps(recipe)}))
        return [output]
    if output.suffix:
        raise InputError(f"The output must be a .png file or a folder. Got '{output.name}'; change its name.")
    names = [f"{number:05d}.png" for number in range(len(images))]

    def write(aside: Path) -> None:
        for number, (name, image) in enumerate(zip(names, images, strict=True)):
            own = {"image": number} if sources is None else {"image": number, "sources": sources[number]}
            content = encode(image, text={"imatlas": json.dumps(recipe | own)})
            (aside / name).write_bytes(with_own_hash(name, content))

    before = _written_before(output)
    if before and not overwrite:
        raise ArtifactError(f"'{output}' already holds generated images; choose another name or pass overwrite=True.")
    write_folder(output, write, replaces=before)
    return [output / name for name in names]


def _written_before(folder: Path) -> list[str]:
    """The names of the unchanged files of `write_samples` in a folder."""
    found = sorted(folder.glob("*.png")) if folder.is_dir() else []
    return [path.name for path in found if NUMBERED.fullmatch(path.name) and is_as_written(path)]


def contact_sheet(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Images (n, H, W, C) uint8 in rows on white, nearly square by default: one image (H', W', C) uint8."""
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n * height / width))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, np.uint8)
    for i, image in enumerate(images):
        top = GAP + (i // columns) * (height + GAP)
        left = GAP + (i % columns) * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet
