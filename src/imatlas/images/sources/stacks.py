"""Array files that contain several pictures each, among other files: one row per picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imatlas.errors import DecodeError, SourceError
from imatlas.images.formats.sniff import has_image_name
from imatlas.images.sources.arrays import array_header, as_pixels, is_wide
from imatlas.images.sources.base import reason_of
from imatlas.images.sources.files import FileSource
from imatlas.images.sources.user_input import channels_last, is_one


def with_stacks(files: FileSource) -> FileSource:
    """The same files, with one row per picture of those that are stacks (N, H, W) or (N, H, W, C).

    Arrays next to pictures in a folder are metadata and stay unread.
    """
    if not files.explicit and not files.holds_arrays:
        return files
    n_rows = {}
    for item, key in enumerate(files.keys):
        if not has_image_name(key) and (n := _n_pictures(files, item)) > 1:
            n_rows[item] = n
    return Stacks(files, n_rows) if n_rows else files


def _n_pictures(files: FileSource, item: int) -> int:
    """The number of pictures in an array file; 0 if it is not one, or is damaged, which is reported on reading."""
    try:
        if not files.head(item).startswith(b"\x93NUMPY"):
            return 0
        with open(files.path(item), "rb") as file:
            about = array_header(file, str(files.path(item)))
    except (DecodeError, SourceError, OSError):
        return 0
    if about is None or about.dtype.kind not in "buif" or len(about.shape) not in (3, 4) or min(about.shape) < 1:
        return 0
    return 1 if is_one(about.shape) else about.shape[0]


class Stacks(FileSource):
    """Files of which some are stacks: these have one row per picture, with the keys "name.npy#1", "name.npy#2", ...

    Parameters
    ----------
    files : FileSource
    n_rows : dict of int to int
        The number of pictures in each stack, by item.
    """

    def __init__(self, files: FileSource, n_rows: dict[int, int]) -> None:
        self.explicit, self.root, self.name = files.explicit, files.root, files.name
        self.skipped, self.holds_arrays, self._files = files.skipped, files.holds_arrays, files._files
        self._places: list[tuple[int, int | None]] = []
        self.keys = []
        for item, key in enumerate(files.keys):
            rows = range(n_rows[item]) if item in n_rows else [None]
            self._places += [(item, row) for row in rows]
            self.keys += [key if row is None else f"{key}#{row + 1}" for row in rows]
        self._paths = [str(files.path(item)) for item, _ in self._places]

    def read(self, index: int) -> bytes | np.ndarray:  # type: ignore[override]
        """The bytes of a file, or one picture (H, W, C) of a stack."""
        row = self._places[index][1]
        if row is None:
            return super().read(index)
        try:
            array = np.load(Path(self._paths[index]), mmap_mode="r", allow_pickle=False)
            picture = channels_last(np.asarray(array[row]))
        except (OSError, ValueError, IndexError) as error:
            raise DecodeError(f"cannot be read ({reason_of(error)})") from None
        return as_pixels(picture[None], np.float32 if is_wide(picture.dtype) else None)[0]
