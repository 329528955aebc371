"""Write new images to disk, each with the recipe that makes it again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.disk import write_file
from imatlas.errors import InputError
from imatlas.images.encode import encode

GAP = 2
"""Pixels between two images on a sheet."""


def write_samples(
    images: np.ndarray, output: str | Path, *, recipe: dict[str, Any], columns: int | None = None
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

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    InputError
        If `output` has another ending than .png.
    """
    output = Path(output)
    if output.suffix.lower() == ".png":
        output.parent.mkdir(parents=True, exist_ok=True)
        write_file(output, encode(contact_sheet(images, columns), text={"imatlas": json.dumps(recipe)}))
        return [output]
    if output.suffix:
        raise InputError(f"New images go to a .png file or a folder. Got '{output.name}'; change its ending.")
    output.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(images):
        path = output / f"{number:05d}.png"
        write_file(path, encode(image, text={"imatlas": json.dumps(recipe | {"image": number})}))
        paths.append(path)
    return paths


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
