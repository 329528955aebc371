"""A pixel cache as it lies in its folder, opened and checked.

CACHE_DIR/3f2a.../pixels.npy        (N, H, W, C), plain NumPy format
                  records.parquet   one row per image
                  thumbnails.bin    concatenated files, if requested
                  cache.json        plan, spec, skipped items, and the hashes of the other files

All files are hashed when a cache is opened, and a cache that differs from what was written is built again. Other
files in these folders are neither read nor deleted.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.images.intake import Plan
from imatlas.images.pixels import Kind
from imatlas.images.records import Records
from imatlas.images.spec import ImageSpec
from imatlas.system.inventory import Entry, Inventory, open_regular, read_json, seal

FORMAT = 3

DATA = ("pixels.npy", "records.parquet", "thumbnails.bin")
FILES = (*DATA, "cache.json")
"""All files of a cache, and so all that is deleted with it."""

BUILDING = "building.txt"
"""In the folder of a cache that is being built: the names of the files written there, for cleaning up after a crash."""

FIELDS = ("key", "width", "height", "format", "mode", "n_frames", "frame", "sha256", "phash", "notes")


class Cache:
    """An opened cache: `pixels`, `records`, `spec`, `skipped`, `n_bytes` on disk, and thumbnails by row.

    Parameters
    ----------
    folder : path
    check : bool
        Whether to compare all files with their hashes; not needed for a cache that was just written.
    settings : dict, optional
        Refuse a cache that was built with other settings.

    Raises
    ------
    OSError, ValueError
        If it is incomplete or damaged.
    """

    def __init__(self, folder: Path, *, check: bool = True, settings: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.about: dict[str, Any] = _about(folder)
        if settings is not None and self.about["settings"] != settings:
            raise ValueError("other settings")
        self.spec = ImageSpec.from_json(self.about["spec"])
        self.skipped = [(key, reason) for key, reason in self.about["skipped"]]
        files = {name: Entry(*self.about["files"][name]) for name in DATA}
        for name, reason in Inventory(folder, files).damaged(DATA if check else ()).items():
            raise ValueError(f"{name}: {reason}")
        self.n_bytes = sum(entry.size for entry in files.values())
        self.pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        self._thumbnails = mapped_bytes(folder / "thumbnails.bin")  # they stay when a later cache replaces this one
        self.records = read_records(folder / "records.parquet")
        ends, n = self._thumbnail_ends, len(self.records)
        if self.pixels.shape != (n, *self.spec.shape) or self.pixels.dtype != self.spec.dtype or not n:
            raise ValueError("sizes do not agree")
        if (np.diff(ends, prepend=0) < 0).any() or ends[-1] != files["thumbnails.bin"].size:
            raise ValueError("thumbnails do not agree")

    def thumbnail(self, row: int) -> bytes:
        """The encoded thumbnail of a row."""
        return thumbnail_at(self._thumbnails, self._thumbnail_ends, row)

    @cached_property
    def _thumbnail_ends(self) -> np.ndarray:
        """Where the thumbnail of each row ends (n,) int64; a column of many rows is copied whenever it is asked for."""
        return self.records["thumbnail_end"]


def _about(folder: Path) -> dict[str, Any]:
    """The contents of `cache.json`, checked.

    Raises
    ------
    OSError, ValueError
    """
    about = read_json(folder / "cache.json")
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError("another format")
    if about.pop("digest", None) != seal(about):
        raise ValueError("its checksum differs")
    texts = isinstance(about.get("source"), str) and isinstance(about.get("kind"), str)
    skipped, kind, files = (about.get(name) for name in ("skipped", "kind_values", "files"))
    lists = isinstance(skipped, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in skipped
    )
    if not texts or not lists or not isinstance(about.get("settings"), dict) or not isinstance(files, dict):
        raise ValueError("it lacks values")
    if not isinstance(kind, list) or str(Kind(*kind)) != about["kind"] or set(files) != set(DATA):
        raise ValueError("it lacks values")
    return about


def read_records(path: Path) -> Records:
    """The records in a file, if they have the expected columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_regular(path) as file:
        # Arrow threads that read through a Python file may outlive it, and abort the process at exit.
        table = pq.read_table(file, use_threads=False, pre_buffer=False)
    types = {field.name: field.type for field in table.schema}
    counts = dict.fromkeys(("item", "size", "time", "thumbnail_end"), pa.int64())
    wanted = {**column_types(), "item_key": pa.string(), "kind": pa.dictionary(pa.int32(), pa.string()), **counts}
    if types != wanted:
        raise ValueError("its records have other columns")
    return Records(table)


def mapped_bytes(path: Path) -> np.ndarray:
    """The bytes of a file, memory-mapped."""
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)


def thumbnail_at(thumbnails: np.ndarray, ends: np.ndarray, row: int) -> bytes:
    """The thumbnail of a row, of the bytes of all and where that of each row ends."""
    return thumbnails[int(ends[row - 1]) if row else 0 : int(ends[row])].tobytes()


UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError)


def open_cache(folder: Path, **options: Any) -> Cache | None:
    """The cache in a folder, or None if there is none or it is damaged."""
    try:
        return Cache(folder, **options)
    except UNREADABLE:
        return None


def settings_of(plan: Plan) -> dict[str, Any]:
    """All that rows depend on besides their files, as it comes back from JSON."""
    # With these more files can be read.
    extras = {name: importlib.util.find_spec(name) is not None for name in ("pillow_heif", "av")}
    return json.loads(json.dumps({"format": FORMAT, **asdict(plan), **extras}))


def column_types() -> dict[str, Any]:
    import pyarrow as pa

    text, count = pa.string(), pa.int32()
    return {
        "key": text,
        "width": count,
        "height": count,
        "format": text,
        "mode": text,
        "n_frames": count,
        "frame": count,
        "sha256": text,
        "phash": pa.uint64(),
        "notes": text,
    }
