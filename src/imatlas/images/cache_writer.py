"""Writes the pixel cache of a set from the parts that were decoded, and from rows of an earlier cache."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from imatlas.errors import InputError
from imatlas.images.cache_folder import BUILDING, DATA, FIELDS, FILES, FORMAT, mapped_bytes, settings_of, thumbnail_at
from imatlas.images.cache_parts import Piece, write_header
from imatlas.images.cache_rows import Rows
from imatlas.images.encode import encode_thumbnail
from imatlas.images.intake import Plan, Tally
from imatlas.images.pixels import DEPTHS, Kind, common_kind, converted, fits_in, own_range, value_range
from imatlas.images.sources.base import Source
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_view
from imatlas.system.atomic_io import open_new
from imatlas.system.inventory import Inventory, seal

if TYPE_CHECKING:
    import pyarrow as pa

_NPY = b"\x93NUMPY"

MOST_ROWS = 1024
"""Rows that are copied at once."""

MOST_OPEN = 8
"""Pieces whose files are open at once: a million images are in hundreds."""


class CacheWriter:
    """Writes a cache from rows that are on the disk: to one file per kind; most sets have one kind, whose file then
    becomes the cache.

    Parameters
    ----------
    folder : path
    source : Source
    plan : Plan
    stamps : list of (int, int), optional
        Those of the source.
    """

    def __init__(self, folder: Path, source: Source, plan: Plan, stamps: list[tuple[int, int]] | None) -> None:
        self._folder = folder
        self._source = source
        self._plan = plan
        self._stamps = stamps
        self._counts: dict[Kind, int] = {}
        self._kinds: list[Kind] = []

    def write(self, pieces: list[Piece], rows: Rows, tally: Tally) -> None:
        """Write the cache of these rows; raises InputError if there are none."""
        skipped = [*self._source.skipped, *tally.lines()]
        if not len(rows.item):
            raise InputError(_nothing(self._source, skipped))
        with open_new(self._folder / BUILDING) as file:  # for cleaning up after a crash
            kinds = {str(kind): kind for piece in pieces for kind in piece.kinds.values()}
            names = [*FILES, "thumbnails.new", *(self._path(kind).name for kind in kinds.values())]
            file.write("".join(f"{name}\n" for name in names).encode())
        records, ends = self._copy(pieces, rows, kinds)
        self._finish(records, rows.item, ends, skipped)

    def _copy(self, pieces: list[Piece], rows: Rows, kinds: dict[str, Kind]) -> tuple[pa.Table, np.ndarray]:
        """Copy pixels and thumbnails of the rows, run by run; returns their records, and where their thumbnails end."""
        import pyarrow as pa

        files: dict[Kind, IO[bytes]] = {}
        ends, tables = [np.empty(0, np.int64)], []
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(open(self._folder / "thumbnails.bin", "wb"))
            opened: list[Piece] = []
            for number, start, stop in rows.runs():
                piece = pieces[number]
                if piece not in opened:
                    opened.append(piece)
                if len(opened) > MOST_OPEN:
                    opened.pop(0).close()
                for kind, n in _runs([kinds[name] for name in piece.kind_names[start:stop]]):
                    if kind not in files:
                        files[kind] = stack.enter_context(open(self._path(kind), "wb", buffering=2**18))
                        self._counts[kind] = 0
                        write_header(files[kind], kind, self._plan, 0)
                    at = int(piece.places[start])
                    files[kind].write(np.ascontiguousarray(piece.pixels[str(kind)][at : at + n]).data)
                    self._counts[kind] += n
                    self._kinds += [kind] * n
                    begin = int(piece.ends[start - 1]) if start else 0
                    ends.append(piece.ends[start : start + n] - begin + out.tell())
                    out.write(piece.thumbnails[begin : piece.ends[start + n - 1]].data)
                    tables.append(piece.table.select(FIELDS).slice(start, n))
                    start += n
            for piece in opened:
                piece.close()
            for kind, file in files.items():
                file.seek(0)
                write_header(file, kind, self._plan, self._counts[kind])
        return pa.concat_tables(tables), np.concatenate(ends)

    def _is_any_clear(self) -> bool:
        """Whether a picture with an alpha channel is not opaque."""
        for kind in self._counts:
            if kind.alpha and kind.dtype == "uint8":
                pixels = np.load(self._path(kind), mmap_mode="r", allow_pickle=False)
                if any((pixels[i : i + MOST_ROWS, ..., -1] < 255).any() for i in range(0, len(pixels), MOST_ROWS)):
                    return True
        return False

    def _path(self, kind: Kind) -> Path:
        return self._folder / f"rows-{kind}.npy"

    def _finish(self, records: pa.Table, items: np.ndarray, ends: np.ndarray, skipped: list[tuple[str, str]]) -> None:
        """Convert all rows to the common kind and write the records."""
        gaps = getattr(self._source, "has_gaps", False)
        target = common_kind(self._counts, self._is_any_clear(), gaps=gaps)
        kept = np.array([fits_in(kind, target) for kind in self._kinds])
        for row in np.flatnonzero(~kept).tolist():
            skipped.append((records["key"][row].as_py(), _misfit(self._kinds[row], target)))
        self._write_pixels(target, kept)
        pixels = np.load(self._folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        low, high = value_range(pixels)
        size = self._plan.height, self._plan.width
        spec = ImageSpec(*size, target.channels, target.dtype, low, high, target.alpha)
        deep = any(kind.dtype != "uint8" for kind in self._counts) and self._plan.thumbnail_size is not None
        if deep or not kept.all():
            ends = self._finish_thumbnails(spec, kept, ends)
        self._write_records(records, items, target, kept, ends)
        about = {
            "format": FORMAT,
            "source": self._source.name,
            "settings": settings_of(self._plan),
            "spec": spec.to_json(),
            "n": len(pixels),
            "kind": str(target),
            "kind_values": list(target),
            "skipped": skipped,
        }
        inventory = Inventory(self._folder)
        inventory.record(DATA)
        about = json.loads(json.dumps({**about, "files": inventory.files}))
        text = json.dumps({**about, "digest": seal(about)}, indent=1)
        (self._folder / "cache.json").write_text(text + "\n", encoding="utf-8")
        (self._folder / BUILDING).unlink()

    def _write_pixels(self, target: Kind, kept: np.ndarray) -> None:
        """Write `pixels.npy`: the only file of rows, or several merged."""
        path = self._folder / "pixels.npy"
        if list(self._counts) == [target]:
            os.rename(self._path(target), path)
            return
        parts = {kind: np.load(self._path(kind), mmap_mode="r", allow_pickle=False) for kind in self._counts}
        deep = [
            own_range(part, kind) for kind, part in parts.items() if kind.dtype != "uint8" and fits_in(kind, target)
        ]
        deep_range = (min(low for low, _ in deep), max(high for _, high in deep)) if deep else (0.0, 1.0)
        at = dict.fromkeys(parts, 0)
        with open(path, "wb", buffering=2**18) as out:
            write_header(out, target, self._plan, int(kept.sum()))
            for kind, n in _runs(self._kinds):
                if fits_in(kind, target):
                    rows = parts[kind][at[kind] : at[kind] + n]
                    out.write(
                        np.ascontiguousarray(converted(rows, kind, target, self._plan.background, deep_range)).data
                    )
                at[kind] += n
        del parts
        for kind in self._counts:
            self._path(kind).unlink()

    def _finish_thumbnails(self, spec: ImageSpec, kept: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Encode the deep thumbnails with the range of the set, and drop those of unused rows."""
        path, new = self._folder / "thumbnails.bin", self._folder / "thumbnails.new"
        out_ends = []
        thumbnails = mapped_bytes(path)
        with open(new, "wb") as out:
            for row in np.flatnonzero(kept):
                content = thumbnail_at(thumbnails, ends, int(row))
                if content.startswith(_NPY):
                    deep = np.load(io.BytesIO(content), allow_pickle=False)
                    own = spec if spec.dtype == deep.dtype.name else _spec_of(deep, spec)
                    content = encode_thumbnail(to_view(deep, own), stack=not self._kinds[row].is_picture)
                out.write(content)
                out_ends.append(out.tell())
        del thumbnails  # Windows replaces no file that is mapped
        os.replace(new, path)
        return np.array(out_ends, np.int64)

    def _write_records(
        self, records: pa.Table, items: np.ndarray, target: Kind, kept: np.ndarray, ends: np.ndarray
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if any(kind.dtype != target.dtype for kind in self._counts):
            notes = zip(records["notes"].to_pylist(), self._kinds, strict=True)
            noted = pa.array([_with_conversion(text, kind, target) for text, kind in notes], pa.string())
            records = records.set_column(records.column_names.index("notes"), "notes", noted)
        rows = np.flatnonzero(kept)
        records = records.combine_chunks() if kept.all() else records.take(rows)
        items = items[rows]
        # Key and stamp of the listing tell later whether a file is unchanged.
        stamps = np.array(self._stamps, np.int64)[items] if self._stamps is not None else np.full((len(items), 2), -1)
        of_row = {
            "item": pa.array(items, pa.int64()),
            "item_key": pa.array([self._source.keys[item] for item in items.tolist()], pa.string()),
            "size": pa.array(stamps[:, 0]),
            "time": pa.array(stamps[:, 1]),
            "kind": pa.array([str(self._kinds[i]) for i in rows.tolist()], pa.string()).dictionary_encode(),
            "thumbnail_end": pa.array(ends),
        }
        for name, values in of_row.items():
            records = records.append_column(name, values)
        pq.write_table(records, self._folder / "records.parquet", compression="zstd")


def _with_conversion(notes: str, kind: Kind, target: Kind) -> str:
    """The notes of an image, and that its values were converted."""
    if kind.dtype == target.dtype:
        return notes
    note = f"{DEPTHS[kind.dtype]}, converted to {DEPTHS[target.dtype]} like most images"
    return "; ".join(filter(None, (notes, note)))


def _runs(kinds: Sequence[Kind], most: int = MOST_ROWS) -> Iterator[tuple[Kind, int]]:
    """Runs of equal kinds with their lengths."""
    start = 0
    for i in range(1, len(kinds) + 1):
        if i == len(kinds) or kinds[i] != kinds[start] or i - start == most:
            yield kinds[start], i - start
            start = i


def _spec_of(pixels: np.ndarray, spec: ImageSpec) -> ImageSpec:
    """The spec to display one picture by whose dtype differs from that of its set."""
    low, high = value_range(pixels[None])
    return ImageSpec(spec.height, spec.width, spec.channels, pixels.dtype.name, low, high)  # type: ignore[arg-type]


def _misfit(kind: Kind, target: Kind) -> str:
    if target.is_picture:
        return f"has {kind.channels} channels, and most of the set are pictures"
    return f"has {kind.channels} channels, and most of the set have {target.channels}"


def _named(source: Source) -> str:
    """A source in a sentence: a path in quotes, a description as it is."""
    return f"'{source.name}'" if source.root is not None and not source.name.startswith("a list of ") else source.name


def _nothing(source: Source, skipped: list[tuple[str, str]]) -> str:
    """Why there is nothing to train on."""
    first = "; ".join(f"{key}: {reason}" for key, reason in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return f"None of the {len(source.keys)} items of {_named(source)} can be used as an image ({first}{more})."
