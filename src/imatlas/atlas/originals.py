"""The original pictures of an atlas, where they still are: the atlas itself keeps only small ones."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.arguments import refused, whole
from imatlas.errors import DecodeError, ImatlasError, InputError, UnsafePathError
from imatlas.images.decode import read_picture
from imatlas.images.formats.sniff import format_of
from imatlas.images.keys import file_name_of
from imatlas.images.sources.base import Source
from imatlas.images.sources.files import FileSource
from imatlas.images.sources.opening import open_source
from imatlas.images.sources.shards import table_of
from imatlas.system.atomic_io import relative

Region = tuple[int, int, int, int]
"""Left, top, width and height in pixels of an image at its original size."""


class Originals:
    """The source that an atlas was learned from, opened again when it is first needed.

    Parameters
    ----------
    source : str
        As the manifest names it: a folder or a file. What was in memory cannot be opened again.
    field : str, optional
        The column that holds the images, where it was named.
    """

    def __init__(self, source: str, field: str | None = None) -> None:
        self.name, self._field = source, field
        self._tables: dict[Path, Source] = {}

    @cached_property
    def folder(self) -> Path | None:
        """The folder below which all originals are files; None where they are in an archive, or an array."""
        return Path(self.name) if self.name and os.path.isdir(self.name) else None

    @property
    def _is_file(self) -> bool:
        """Whether the source is one file. A pattern, which a stranger may have written, would list whole disks."""
        return os.path.isfile(self.name)

    @cached_property
    def _source(self) -> Source:
        return open_source(self.name, self._field)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self._source.keys)}

    def path(self, key: str) -> Path | None:
        """The file that an image is; None where it is gone, or is no file of its own (in an archive, an array).

        A key comes from a table, which may come from anywhere, and so may the name of the source, which may be the
        whole disk. So a folder is never listed: the key names a file below it, or one behind a link that the user
        himself has put there, and nothing above. Whether the file is handed on, its hash says: see `content`.
        """
        if self.folder is not None:
            try:
                path = self.folder / relative(file_name_of(key))
                return path if path.is_file() else None
            except (UnsafePathError, OSError):  # a name that is too long
                return None
        try:
            if not self._is_file:
                return None
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
        with suppress(UnsafePathError, OSError):
            if self.folder is not None and (table := table_of(self.folder, str(relative(file_name_of(key))))):
                return self._in_table(table, key.rpartition("/")[2])
        if not self._is_file or key not in self._places:
            raise DecodeError(f"'{self.name}' holds no '{key}' any more")
        return self._source.read(self._places[key])

    def _in_table(self, path: Path, row: str) -> Any:
        """A row of one of the tables of a folder."""
        if path not in self._tables:
            self._tables[path] = open_source(path, self._field)
        table = self._tables[path]
        if not row.isdecimal() or int(row) >= len(table.keys):
            raise DecodeError(f"'{path}' holds no row {row} any more")
        return table.read(int(row))

    def content(self, key: str, sha256: str) -> Any:
        """As `read`, of what may be handed on: the picture that the atlas was learned from, and no other file.

        Raises
        ------
        DecodeError, SourceError
            Where it is not there any more, is no picture, or has another hash than the atlas knows.
        """
        content = self.read(key)
        if isinstance(content, bytes):
            _check_same(content, key, sha256)
            format_of(content, key)
        return content

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
        _check_same(content, key, sha256)
        return read_picture(content, name=key).pixels()


def _check_same(content: bytes, key: str, sha256: str) -> None:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DecodeError(f"'{key}' has changed since the atlas was learned")


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
