"""Tables in several files, such as "train-00000-of-00002.parquet", as one source."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.errors import SourceError
from imatlas.images.formats.sniff import has_image_name
from imatlas.images.keys import key_of
from imatlas.images.sources.base import Source, part_of
from imatlas.images.sources.files import FileSource
from imatlas.images.sources.origin import Origin, located

TABLES = (".parquet", ".pq", ".arrow", ".ipc", ".feather")
"""Suffixes of files that may be tables of images."""

Opener = Callable[[Path], Source]


class ShardSource:
    """The rows of several tables, one table after the other; the keys are "file name/row".

    Parameters
    ----------
    root : Path
        The folder that the file names are relative to.
    parts : list of (Path, Source)
        At least one.
    name : str
        Their name in messages.
    """

    explicit = True
    root: Path | None = None  # the keys are not files of a folder

    def __init__(self, root: Path, parts: list[tuple[Path, Source]], name: str) -> None:
        self.name, self._root = name, root
        self.skipped = [line for _, part in parts for line in part.skipped]
        self._parts = [part for _, part in parts]
        self._files = f"{len(parts)} table{'s' if len(parts) > 1 else ''}"
        self._ends = np.cumsum([len(part.keys) for part in self._parts])
        named = [os.path.relpath(path, root) for path, _ in parts]
        stems = [os.path.splitext(name)[0] for name in named]
        chosen = [stem if stems.count(stem) == 1 else name for stem, name in zip(stems, named, strict=True)]
        self.keys = [f"{key_of(n)}/{key}" for n, part in zip(chosen, self._parts, strict=True) for key in part.keys]

    @property
    def origin(self) -> Origin:
        """The folder of the tables."""
        return Origin(located(self._root), self._files)

    def _at(self, index: int) -> tuple[Source, int]:
        number, place = part_of(self._ends, index)
        return self._parts[number], place

    def stamps(self) -> list[tuple[int, int]] | None:
        """Those of the tables; None if one of them has none."""
        found: list[tuple[int, int]] = []
        for part in self._parts:
            stamps = part.stamps()
            if stamps is None:
                return None
            found += stamps
        return found

    def head(self, index: int) -> bytes:
        """The first bytes of an item."""
        part, row = self._at(index)
        return part.head(row)

    def packed(self, index: int) -> int | None:
        """The bytes that an item takes in its file."""
        part, row = self._at(index)
        return part.packed(row)

    def read(self, index: int) -> Any:
        """The picture of an item."""
        part, row = self._at(index)
        return part.read(row)


def is_table(source: Source) -> bool:
    """Whether a source is one or several tables."""
    from imatlas.images.sources.datasets import DatasetSource
    from imatlas.images.sources.parquet import ParquetSource

    return isinstance(source, ParquetSource | ShardSource) or (
        isinstance(source, DatasetSource) and source.root is not None
    )


def tables_of(found: FileSource, open_table: Opener) -> Source:
    """The files; or, if there are tables and no pictures among them, the tables as one source.

    Raises
    ------
    SourceError
        If there are only tables and none of them contains images, with the reason for the first.
    """
    if any(has_image_name(key) for key in found.keys):
        return found
    paths = [found.path(i) for i, key in enumerate(found.keys) if _is_named_so(key)]
    parts: list[tuple[Path, Source]] = []
    first: SourceError | None = None
    for path in paths:
        try:
            part = open_table(path)
        except SourceError as error:
            first = first or error
            found.skipped.append((key_of(os.path.relpath(path, found.root)), str(error).rstrip(".")))
            continue
        if is_table(part):
            parts.append((path, part))
    if not parts:
        if first is not None and len(paths) == len(found.keys):
            raise first
        return found
    source = ShardSource(found.root or Path(), parts, found.name)
    source.skipped += found.skipped
    return source


def several_tables(parts: Sequence[tuple[Path, Source]]) -> ShardSource:
    """Tables given one by one, in this order."""
    root = Path(os.path.commonpath([os.path.dirname(located(path)) for path, _ in parts]))
    return ShardSource(root, [(Path(located(path)), part) for path, part in parts], f"{len(parts)} tables in '{root}'")


def table_of(folder: Path, key: str) -> Path | None:
    """The table that a key of a `ShardSource` refers to."""
    stem = folder / os.path.dirname(key)
    return next((path for end in ("", *TABLES) if (path := Path(f"{stem}{end}")).is_file()), None)


def _is_named_so(key: str) -> bool:
    """Whether a file has the suffix of a table, and is not a cache file of `datasets`."""
    name = os.path.basename(key)
    return name.lower().endswith(TABLES) and not name.startswith((".", "cache-"))
