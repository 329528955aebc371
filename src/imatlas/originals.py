"""The original pictures of an atlas, where they still are: the atlas itself keeps only small ones."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import re
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.arguments import refused, whole
from imatlas.errors import DecodeError, ImatlasError, InputError, UnsafePathError
from imatlas.images.decode import read_picture
from imatlas.images.names import file_of
from imatlas.images.sources import FileSource, Source, open_source

Region = tuple[int, int, int, int]
"""Left, top, width and height in pixels of an image at its original size."""


class Originals:
    """The source that an atlas was learnt from, opened again when it is first needed.

    Parameters
    ----------
    source : str
        As the manifest names it: a folder, a pattern, a file. Anything else cannot be opened again.
    """

    def __init__(self, source: str) -> None:
        self.name = source

    @property
    def roots(self) -> list[Path]:
        """The folders that keys may be relative to, the likeliest first."""
        listed = re.fullmatch(r"\d+ files from (.+)", self.name, re.DOTALL)
        if listed:  # their keys are relative to the folder that holds them all
            first = Path(listed[1])
            return [first, *first.parents]
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), Path(self.name).parts)
        return [Path(self.name) if os.path.lexists(self.name) else Path(*fixed)]

    @cached_property
    def _source(self) -> Source:
        return open_source(self.name)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self._source.keys)}

    def path(self, key: str) -> Path | None:
        """The file that an image is; None where it is gone, or is no file of its own (in an archive, an array).

        A key comes from a table, which may come from anywhere. It names a file below the folder, with no link on the
        way; or, where the user himself has put links there, one that is found by listing his folder now.
        """
        folder = Path(self.name)
        if self.name and folder.is_dir():
            with suppress(UnsafePathError):  # no need to list the folder
                path = file_of(folder, key)
                return path if path.is_file() else None
        try:
            source = self._source
        except (ImatlasError, OSError):
            return None
        if not isinstance(source, FileSource) or key not in self._places:
            return None
        path = source.path(self._places[key])
        return path if path.is_file() else None

    def read(self, key: str) -> Any:
        """An image as it is stored: the bytes of a file, or pixels (H, W, C).

        Raises
        ------
        DecodeError, SourceError
            Where it is not there any more.
        """
        path = self.path(key)
        if path is not None:
            return FileSource.from_list([path]).read(0)
        if key not in self._places:
            raise DecodeError(f"'{self.name}' holds no '{key}' any more")
        return self._source.read(self._places[key])

    def pixels(self, key: str, sha256: str) -> np.ndarray:
        """An image at its original size (H, W, C), upright.

        Raises
        ------
        DecodeError, SourceError
            Where it is not there any more, or is not the picture of this `sha256` any more.
        """
        content = self.read(key)
        if not isinstance(content, bytes):
            return np.asarray(content)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DecodeError(f"'{key}' has changed since the atlas was learnt")
        return read_picture(content, name=key).pixels()


def check_region(region: Any) -> Region:
    """A region as four ints.

    Raises
    ------
    ParameterError
        If it is none.
    """
    parts = region.tolist() if isinstance(region, np.ndarray) else region
    numbers = [whole(part) for part in parts] if isinstance(parts, list | tuple) else []
    if len(numbers) != 4 or any(number is None for number in numbers):
        raise refused("region", "search", "four ints: left, top, width and height in pixels", region)
    left, top, width, height = (number or 0 for number in numbers)
    return left, top, width, height


def cropped(image: np.ndarray, region: Region, name: str) -> np.ndarray:
    """A region of an image (height, width, C).

    Raises
    ------
    InputError
        If it is empty or does not lie within the image.
    """
    left, top, width, height = region
    if min(left, top) < 0 or min(width, height) < 1 or left + width > image.shape[1] or top + height > image.shape[0]:
        raise InputError(
            f"The region must lie within {name}, which is {image.shape[1]} x {image.shape[0]} pixels. Got left {left}, "
            f"top {top}, width {width}, height {height}."
        )
    return image[top : top + height, left : left + width]
