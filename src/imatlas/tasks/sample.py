"""Write new images to disk, each with the recipe that makes it again."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.arguments import check_path
from imatlas.disk import write_file, write_folder
from imatlas.errors import ArtifactError, InputError
from imatlas.images.encode import encode
from imatlas.inventory import open_regular

GAP = 2
"""Pixels between two images on a sheet."""

HEAD = 2**16
"""Bytes at the start of a PNG file within which its recipe begins."""


def write_samples(
    images: np.ndarray,
    output: str | Path,
    *,
    recipe: dict[str, Any],
    columns: int | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write images as one contact sheet (a name that ends in .png) or as numbered files in a folder.

    Parameters
    ----------
    images : array (n, H, W, C) uint8
    output : path
    recipe : dict
        What makes the images again; stored as JSON in the text chunk "imatlas" of every PNG, with the image's number.
    columns : int, optional
        Of the sheet. None: nearly square.
    overwrite : bool
        Replace a folder of files that this function wrote; a sheet is replaced in any case.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    InputError
        If `output` has another ending than .png.
    ArtifactError
        If the folder holds anything, or with `overwrite` anything else.
    """
    output = check_path(output, "output", "write_samples")
    if output.suffix.lower() == ".png":
        write_file(output, encode(contact_sheet(images, columns), text={"imatlas": json.dumps(recipe)}))
        return [output]
    if output.suffix:
        raise InputError(f"New images go to a .png file or a folder. Got '{output.name}'; change its ending.")
    names = [f"{number:05d}.png" for number in range(len(images))]

    def write(aside: Path) -> None:
        for number, (name, image) in enumerate(zip(names, images, strict=True)):
            (aside / name).write_bytes(encode(image, text={"imatlas": json.dumps(recipe | {"image": number})}))

    before = _written_before(output)
    if before and not overwrite:
        raise ArtifactError(f"'{output}' already holds new images; choose another name or pass overwrite=True.")
    write_folder(output, write, replaces=before)
    return [output / name for name in names]


def _written_before(folder: Path) -> list[str]:
    """The names of the files in a folder that `write_samples` wrote: they hold their recipe."""
    found = []
    for path in sorted(folder.glob("[0-9]*.png")) if folder.is_dir() else []:
        with suppress(ArtifactError, OSError), open_regular(path) as file:
            if b"iTXtimatlas\0" in file.read(HEAD):
                found.append(path.name)
    return found


def contact_sheet(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Images (n, H, W, C) uint8 side by side in rows, nearly square, on white: one image (H', W', C) uint8."""
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n * height / width))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, np.uint8)
    for i, image in enumerate(images):
        top = GAP + (i // columns) * (height + GAP)
        left = GAP + (i % columns) * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet
