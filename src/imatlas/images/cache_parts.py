"""The parts of a pixel cache that is being built: each is complete or not there, so a killed build loses its last part.

CACHE_DIR/.part-3f2a.../rows-3-uint8.npy   rows as they were decoded, one file for each kind
                        records.parquet    one row per image
                        thumbnails.bin     concatenated files, and arrays of deep images
                        part.json          settings, and the hashes of the other files

A finished build copies the rows into its cache and deletes the parts; the next build after a killed one decodes only
images that no part has.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from imatlas.images.cache_folder import (
    BUILDING,
    FIELDS,
    FORMAT,
    Cache,
    column_types,
    mapped_bytes,
    read_records,
    settings_of,
)
from imatlas.images.intake import Plan, Row
from imatlas.images.pixels import Kind
from imatlas.images.sources.base import Source
from imatlas.system.atomic_io import flush, flush_tree, is_link, open_new, remove_listed
from imatlas.system.inventory import Entry, Inventory, read_json, seal

if TYPE_CHECKING:
    import pyarrow as pa

NAME = re.compile(r"\.part-[0-9a-f]{16}")
"""Names of the folders of parts."""

ROWS_FILE = re.compile(r"rows-[0-9a-z-]{1,40}\.npy")
"""Names of the files of pixels in a part."""

ABOUT, RECORDS, THUMBNAILS = "part.json", "records.parquet", "thumbnails.bin"

MAX_ROWS, MAX_BYTES, MAX_SECONDS = 8192, 2**26, 10.0
"""Rows, bytes and seconds after which a part is completed: what a killed build may lose."""


@dataclass(eq=False)
class Piece:
    """Rows that are on the disk: of a part, or of an earlier cache.

    Attributes
    ----------
    folder : Path
    kinds : dict of str to Kind
        The kinds of its rows, by name.
    files : dict of str to str
        The file of pixels of each kind.
    table : pa.Table
        `FIELDS`, and `item_key`, `size`, `time`, `kind`, `thumbnail_end`, of every row.
    """

    folder: Path
    kinds: dict[str, Kind]
    files: dict[str, str]
    table: pa.Table

    @cached_property
    def kind_names(self) -> np.ndarray:
        """The kind of each row (n,) of str."""
        return self.table["kind"].to_numpy()

    @cached_property
    def ends(self) -> np.ndarray:
        """Where the thumbnail of each row ends (n,) int64."""
        return self.table["thumbnail_end"].to_numpy()

    @cached_property
    def places(self) -> np.ndarray:
        """The number of each row (n,) int64 among those of its kind."""
        places = np.empty(len(self.kind_names), np.int64)
        for kind in self.files:
            rows = np.flatnonzero(self.kind_names == kind)
            places[rows] = np.arange(len(rows)) if len(self.files) > 1 else rows
        return places

    @cached_property
    def pixels(self) -> dict[str, np.ndarray]:
        """The pixels (n, H, W, C) of each kind, memory-mapped."""
        return {
            kind: np.load(self.folder / name, mmap_mode="r", allow_pickle=False) for kind, name in self.files.items()
        }

    @cached_property
    def thumbnails(self) -> np.ndarray:
        """The bytes of all thumbnails, memory-mapped."""
        return mapped_bytes(self.folder / THUMBNAILS)

    def close(self) -> None:
        """Release the files."""
        for name in ("pixels", "thumbnails"):
            self.__dict__.pop(name, None)

    def usable(self) -> np.ndarray:
        """Which rows (n,) bool are stored as they were decoded, not converted to fit their set."""
        return np.isin(self.kind_names, list(self.files))

    def remove(self) -> None:
        """Delete a part that is not needed any more."""
        self.close()
        remove_listed(self.folder, [RECORDS, THUMBNAILS, *self.files.values(), ABOUT])


def of_cache(cache: Cache) -> Piece:
    """The rows of an earlier cache."""
    kind = cache.about["kind"]
    return Piece(cache.folder, {kind: Kind(*cache.about["kind_values"])}, {kind: "pixels.npy"}, cache.records.table)


def parts_in(folder: Path, settings: dict[str, Any]) -> Iterator[Piece]:
    """The undamaged parts in a folder that were decoded with these settings."""
    for path in sorted(folder.glob(".part-*")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError):
            yield open_part(path, settings)


def open_part(folder: Path, settings: dict[str, Any] | None = None, *, check: bool = True) -> Piece:
    """A part; its files are compared with their hashes unless it was just written.

    Raises
    ------
    OSError, ValueError
        If it is damaged, incomplete, or of other settings.
    """
    if not NAME.fullmatch(folder.name) or is_link(folder):
        raise ValueError("not the name of a part")
    about = read_json(folder / ABOUT)
    if not isinstance(about, dict) or about.pop("digest", None) != seal(about) or about.get("format") != FORMAT:
        raise ValueError("another format, or its checksum differs")
    if settings is not None and about["settings"] != settings:
        raise ValueError("other settings")
    kinds = {kind: Kind(*values) for kind, values in about["kinds"].items()}
    files = {kind: f"rows-{kind}.npy" for kind in kinds}
    if not all(ROWS_FILE.fullmatch(name) and str(kinds[kind]) == kind for kind, name in files.items()):
        raise ValueError("it has kinds of pixels that do not exist")
    wanted = {RECORDS, THUMBNAILS, *files.values()}
    entries = {name: Entry(*entry) for name, entry in about["files"].items()}
    if set(entries) != wanted or Inventory(folder, entries).damaged(None if check else ()):
        raise ValueError("a file is damaged")
    piece = Piece(folder, kinds, files, read_records(folder / RECORDS).table)
    counts = dict(zip(*np.unique(piece.kind_names, return_counts=True), strict=True))
    if {kind: len(pixels) for kind, pixels in piece.pixels.items()} != counts:
        raise ValueError("sizes do not agree")
    if (np.diff(piece.ends, prepend=0) < 0).any() or piece.ends[-1] != len(piece.thumbnails):
        raise ValueError("thumbnails do not agree")
    piece.close()
    return piece


class PartWriter:
    """Writes one part, row by row, into a folder of its own, which `seal` then renames.

    Parameters
    ----------
    folder : Path
        Empty.
    source : Source
    plan : Plan
    stamps : list of (int, int), optional
        Those of the source.
    """

    def __init__(self, folder: Path, source: Source, plan: Plan, stamps: list[tuple[int, int]] | None) -> None:
        self.folder, self._source, self._plan, self._stamps = folder, source, plan, stamps
        self.items = array("q")
        """The item of each row."""
        self.n_bytes = 0
        self._began = time.monotonic()
        self._files: dict[Kind, IO[bytes]] = {}
        self._counts: dict[Kind, int] = {}
        self._columns: dict[str, list[Any]] = {name: [] for name in (*FIELDS, "kind", "thumbnail_end")}
        self._list = open_new(folder / BUILDING)
        self._will_write(RECORDS, THUMBNAILS, ABOUT)
        self._thumbnails = open_new(folder / THUMBNAILS)

    def close(self) -> None:
        """Close all files; a full disk was reported already."""
        for file in [*self._files.values(), self._thumbnails, self._list]:
            with contextlib.suppress(OSError):
                file.close()

    @property
    def is_full(self) -> bool:
        """Whether it is large enough, or as old as a part may become."""
        late = time.monotonic() - self._began > MAX_SECONDS
        return len(self.items) > 0 and (len(self.items) >= MAX_ROWS or self.n_bytes >= MAX_BYTES or late)

    def _will_write(self, *names: str) -> None:
        """List files before they are created."""
        self._list.write("".join(f"{name}\n" for name in names).encode())
        self._list.flush()

    def add(self, row: Row) -> None:
        """Append a row."""
        if row.kind not in self._files:
            path = self.folder / f"rows-{row.kind}.npy"
            self._will_write(path.name)
            self._files[row.kind] = open_new(path)
            self._counts[row.kind] = 0
            write_header(self._files[row.kind], row.kind, self._plan, 0)
        self.n_bytes += self._files[row.kind].write(np.ascontiguousarray(row.pixels).data)
        self._counts[row.kind] += 1
        if isinstance(row.thumbnail, np.ndarray):  # encoded when the range of the set is known
            np.save(self._thumbnails, row.thumbnail, allow_pickle=False)
        elif row.thumbnail is not None:
            self._thumbnails.write(row.thumbnail)
        end = self._thumbnails.tell()
        self.n_bytes += end - (self._columns["thumbnail_end"][-1] if self.items else 0)
        for name in FIELDS:
            self._columns[name].append(getattr(row, name))
        self._columns["kind"].append(str(row.kind))
        self._columns["thumbnail_end"].append(end)
        self.items.append(row.item)

    def seal(self, parent: Path) -> Path:
        """Complete the part and rename it into place; returns its folder."""
        for kind, file in self._files.items():
            file.seek(0)
            write_header(file, kind, self._plan, self._counts[kind])
        self._write_records()
        self.close()
        inventory = Inventory(self.folder)
        inventory.record([RECORDS, THUMBNAILS, *(f"rows-{kind}.npy" for kind in self._counts)])
        about = {
            "format": FORMAT,
            "settings": settings_of(self._plan),
            "kinds": {str(kind): list(kind) for kind in self._counts},
            "files": inventory.files,
        }
        about = json.loads(json.dumps(about))
        (self.folder / ABOUT).write_text(json.dumps({**about, "digest": seal(about)}) + "\n", encoding="utf-8")
        (self.folder / BUILDING).unlink()
        flush_tree(self.folder)
        target = parent / f".part-{secrets.token_hex(8)}"
        os.rename(self.folder, target)
        flush(parent)
        return target

    def _write_records(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        keys = [self._source.keys[item] for item in self.items]
        stamps = [(-1, -1) if self._stamps is None else self._stamps[item] for item in self.items]
        columns = {name: pa.array(self._columns[name], kind) for name, kind in column_types().items()}
        columns["item_key"] = pa.array(keys, pa.string())
        columns["size"] = pa.array([size for size, _ in stamps], pa.int64())
        columns["time"] = pa.array([changed for _, changed in stamps], pa.int64())
        columns["kind"] = pa.array(self._columns["kind"], pa.string()).dictionary_encode()
        columns["thumbnail_end"] = pa.array(self._columns["thumbnail_end"], pa.int64())
        # Its number holds for this listing of the source alone; a later build finds it by key and stamp.
        columns["item"] = pa.array(self.items, pa.int64())
        pq.write_table(pa.table(columns), self.folder / RECORDS, compression="zstd")


def write_header(file: IO[bytes], kind: Kind, plan: Plan, n: int) -> None:
    """NumPy's own header, padded so that its length does not depend on the number of rows."""
    shape = (n, plan.height, plan.width, kind.channels)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind.dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
