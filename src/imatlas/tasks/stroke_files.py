"""Strokes of a user for the images of a folder, from label images or a table of points."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imatlas.errors import DecodeError, InputError
from imatlas.images.decode import read_picture
from imatlas.models.parts.scribbles import drawn

COLUMNS = ("key", "y", "x", "label")


class StrokeFiles:
    """Strokes by image.

    Parameters
    ----------
    path : path
        A folder of label images, or one, with the stems of the images that they belong to: gray, 0 where nothing is
        drawn. Or a CSV file with the columns key, y, x and label: one point per row.

    Raises
    ------
    InputError
        If there is no such file, or a CSV file has other columns or values that are no integers.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._images: dict[str, Path] = {}
        self._points: dict[str, list[tuple[tuple[int, int], int]]] = {}
        if self.path.is_dir():
            self._images = {file.stem: file for file in sorted(self.path.iterdir()) if file.suffix.lower() == ".png"}
        elif not self.path.is_file():
            raise InputError(f"Strokes are a folder of PNG files, a PNG or a CSV file. Got '{path}', which is none.")
        elif self.path.suffix.lower() == ".csv":
            self._points = _points(self.path)
        else:
            self._images = {self.path.stem: self.path}

    def of(self, key: str, size: tuple[int, int]) -> np.ndarray:
        """Strokes (H, W) of an image of this size.

        Raises
        ------
        InputError
            If there are none for it, or they do not fit.
        """
        if key in self._points:
            return drawn(self._points[key], size)
        file = self._images.get(Path(key).stem)
        if file is None:
            raise InputError(f"no strokes for it in '{self.path}'")
        try:
            strokes = read_picture(file.read_bytes(), name=file.name).pixels()
        except DecodeError as error:
            raise InputError(f"its strokes cannot be read: {error}") from error
        if strokes.shape != (*size, 1) or strokes.dtype.kind != "u":
            found = "x".join(map(str, strokes.shape))
            raise InputError(f"strokes are gray and of its size, {size[0]}x{size[1]}x1; got {found} in '{file.name}'")
        return strokes[..., 0].astype(np.int32)

    def unused(self, keys: Sequence[str]) -> list[str]:
        """Those that belong to none of these images: keys of a CSV file, names of PNG files without their ending."""
        return sorted(self._points.keys() - set(keys)) + sorted(self._images.keys() - {Path(key).stem for key in keys})

    def stamp(self) -> str:
        """Path, and a hash that changes with the strokes."""
        digest = hashlib.sha256()
        for file in self._images.values() if self._images else [self.path] if self.path.is_file() else []:
            digest.update(f"{file.name} {file.stat().st_size} ".encode() + file.read_bytes())
        return f"{self.path} {digest.hexdigest()[:16]}"


def _points(path: Path) -> dict[str, list[tuple[tuple[int, int], int]]]:
    """(y, x) and label of each point, by key."""
    points: dict[str, list[tuple[tuple[int, int], int]]] = {}
    with open(path, newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        if not set(COLUMNS) <= set(rows.fieldnames or ()):
            raise InputError(f"A CSV file of strokes has the columns {', '.join(COLUMNS)}. Got {rows.fieldnames}.")
        for row in rows:
            try:
                y, x, label = (int(row[name]) for name in COLUMNS[1:])
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"Line {rows.line_num} of '{path}': y, x and label are integers. Got {row}."
                ) from error
            points.setdefault(row["key"], []).append(((y, x), label))
    return points
