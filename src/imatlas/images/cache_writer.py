"""Writes the pixel cache of a set, row by row, into a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from imatlas.errors import InputError
from imatlas.images.cache_folder import BUILDING, DATA, FIELDS, FILES, FORMAT, column_types, settings_of, thumbnail_at
from imatlas.images.encode import encode_thumbnail
from imatlas.images.intake import Plan, Row, Skip, Tally
from imatlas.images.memory_budget import amount
from imatlas.images.pixels import Kind, common_kind, converted, fits_in, own_range, value_range
from imatlas.images.sources.base import Source
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_view
from imatlas.system.atomic_io import open_new
from imatlas.system.inventory import Inventory, seal

if TYPE_CHECKING:
    import pyarrow as pa

_NPY = b"\x93NUMPY"

BATCH = 8192
"""Rows after which their records are packed: a million of them as Python objects would take a gigabyte."""

MIN_TO_ESTIMATE = 256
"""Items after which the size of the whole cache is estimated."""


class CacheWriter:
    """Appends the pixels of rows to one file per kind; most sets have one kind, whose file then becomes the cache.

    Parameters
    ----------
    folder : path
    source : Source
    plan : Plan
    stamps : list of (int, int), optional
        Those of the source.
    limit : int, optional
        Most bytes that the cache may take; `add` raises InputError as soon as it is clear that it will take more.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        plan: Plan,
        stamps: list[tuple[int, int]] | None,
        limit: int | None = None,
    ) -> None:
        self._folder = folder
        self._source = source
        self._plan = plan
        self._stamps = stamps
        self._limit = limit
        self._n_items = self._n_bytes = 0
        self._files: dict[Kind, IO[bytes]] = {}
        self._counts: dict[Kind, int] = {}
        self._kinds: list[Kind] = []
        self._any_clear = False
        self._columns: dict[str, list[Any]] = {name: [] for name in (*FIELDS, "item")}
        self._packed: list[pa.RecordBatch] = []
        self._ends = array("q")
        self._list = open_new(folder / BUILDING)
        self._will_write(*FILES, "thumbnails.new")
        self._thumbnails = open(folder / "thumbnails.bin", "wb")  # noqa: SIM115 - closed in finish
        self._unfinished_thumbnails = False
        self._tally = Tally()

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in [*self._files.values(), self._thumbnails, self._list]:
            with contextlib.suppress(OSError):  # a full disk was reported already
                file.close()

    def _will_write(self, *names: str) -> None:
        """List files before they are created."""
        self._list.write("".join(f"{name}\n" for name in names).encode())
        self._list.flush()

    def add(self, results: list[Row | Skip]) -> None:
        """Append the rows of one item."""
        for row in results:
            if isinstance(row, Skip):
                self._tally.add(row)
                continue
            if row.kind not in self._files:
                self._will_write(self._path(row.kind).name)
                file = open(self._path(row.kind), "wb", buffering=2**18)  # noqa: SIM115 - closed in finish
                self._files[row.kind] = file
                self._counts[row.kind] = 0
                _write_header(file, row.kind, self._plan, 0)
            self._n_bytes += self._files[row.kind].write(np.ascontiguousarray(row.pixels).data)
            self._counts[row.kind] += 1
            self._kinds.append(row.kind)
            self._any_clear |= row.transparent
            for name, column in self._columns.items():
                column.append(getattr(row, name))
            self._add_thumbnail(row.thumbnail)
        if len(self._columns["item"]) >= BATCH:
            self._pack()
        self._n_items += 1
        if self._limit is not None and self._n_items >= min(MIN_TO_ESTIMATE, len(self._source.keys)):
            self._check_room(self._limit)

    def _check_room(self, limit: int) -> None:
        """Raise InputError if the whole cache will probably be larger than it may."""
        n = len(self._source.keys)
        expected = (self._n_bytes + self._thumbnails.tell()) * n / self._n_items
        if expected > limit:
            raise InputError(
                f"The pixel cache of {n:,} images of {self._plan.width} x {self._plan.height} pixels takes about "
                f"{amount(expected)}, more than the cache size of {amount(limit)}; allow more (--cache-size), or see "
                "the images smaller (--image-size)."
            )

    def _pack(self) -> None:
        """Turn the records of the last rows into arrays."""
        import pyarrow as pa

        types = {**column_types(), "item": pa.int64()}
        arrays = {name: pa.array(values, types[name]) for name, values in self._columns.items()}
        self._packed.append(pa.RecordBatch.from_pydict(arrays))
        for values in self._columns.values():
            values.clear()

    def _add_thumbnail(self, thumbnail: bytes | np.ndarray | None) -> None:
        if isinstance(thumbnail, np.ndarray):  # encoded at the end, when the range of the set is known
            np.save(self._thumbnails, thumbnail, allow_pickle=False)
            self._unfinished_thumbnails = True
        elif thumbnail is not None:
            self._thumbnails.write(thumbnail)
        self._ends.append(self._thumbnails.tell())

    def _path(self, kind: Kind) -> Path:
        return self._folder / f"rows-{kind}.npy"

    def finish(self) -> None:
        """Convert all rows to the common kind and write the records."""
        import pyarrow as pa

        source, skipped = self._source, [*self._source.skipped, *self._tally.lines()]
        if not self._kinds:
            raise InputError(_nothing(source, skipped))
        for kind, file in self._files.items():
            file.seek(0)
            _write_header(file, kind, self._plan, self._counts[kind])
            file.close()
        self._thumbnails.close()
        target = common_kind(self._counts, self._any_clear, gaps=getattr(source, "has_gaps", False))
        self._pack()
        records = pa.Table.from_batches(self._packed)
        kept = np.array([fits_in(kind, target) for kind in self._kinds])
        for row in np.flatnonzero(~kept).tolist():
            skipped.append((records["key"][row].as_py(), _misfit(self._kinds[row], target)))
        self._write_pixels(target, kept)
        pixels = np.load(self._folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        low, high = value_range(pixels)
        size = self._plan.height, self._plan.width
        spec = ImageSpec(*size, target.channels, target.dtype, low, high, target.alpha)
        ends = np.array(self._ends, np.int64)
        if self._unfinished_thumbnails or not kept.all():
            ends = self._finish_thumbnails(spec, kept)
        self._write_records(records, target, kept, ends)
        about = {
            "format": FORMAT,
            "source": source.name,
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
        self._list.close()
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
            _write_header(out, target, self._plan, int(kept.sum()))
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

    def _finish_thumbnails(self, spec: ImageSpec, kept: np.ndarray) -> np.ndarray:
        """Encode the deep thumbnails with the range of the set, and drop those of unused rows."""
        ends = np.array(self._ends, np.int64)
        path, new = self._folder / "thumbnails.bin", self._folder / "thumbnails.new"
        out_ends = []
        with open(path, "rb") as file, open(new, "wb") as out:
            for row in np.flatnonzero(kept):
                content = thumbnail_at(file, ends, int(row))
                if content.startswith(_NPY):
                    start = int(ends[row - 1]) if row else 0
                    file.seek(start)
                    deep = np.load(file, allow_pickle=False)
                    own = spec if spec.dtype == deep.dtype.name else _spec_of(deep, spec)
                    content = encode_thumbnail(to_view(deep, own), stack=not self._kinds[row].is_picture)
                out.write(content)
                out_ends.append(out.tell())
        os.replace(new, path)
        return np.array(out_ends, np.int64)

    def _write_records(self, records: pa.Table, target: Kind, kept: np.ndarray, ends: np.ndarray) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if any(kind.dtype != target.dtype for kind in self._counts):
            notes = zip(records["notes"].to_pylist(), self._kinds, strict=True)
            noted = pa.array([_with_conversion(text, kind, target) for text, kind in notes], pa.string())
            records = records.set_column(records.column_names.index("notes"), "notes", noted)
        rows = np.flatnonzero(kept)
        records = records.combine_chunks() if kept.all() else records.take(rows)
        items = records["item"].to_numpy()
        # Key and stamp of the listing tell later whether a file is unchanged.
        stamps = np.array(self._stamps, np.int64)[items] if self._stamps is not None else np.full((len(items), 2), -1)
        of_row = {
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
    return "; ".join(filter(None, (notes, f"{kind.dtype} converted to {target.dtype}, the dtype of most images")))


def _write_header(file: IO[bytes], kind: Kind, plan: Plan, n: int) -> None:
    """NumPy's own header, padded so that its length does not depend on the number of rows."""
    shape = (n, plan.height, plan.width, kind.channels)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind.dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _runs(kinds: Sequence[Kind], most: int = 1024) -> Iterator[tuple[Kind, int]]:
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
