"""The images table of an atlas: one row per image, in a Lance dataset. No other module uses Lance for atlases.

The intake writes the rows once; each stage then adds its columns. An update leaves the files of old rows alone and
writes the new rows behind them (`grown`), so rows are in the order in which images came. Every change is a new version
of the dataset. The atlas names the current version, so readers never see a partial change, and the next writer deletes
unnamed versions.

Lance trusts its files: a flipped byte can give wrong rows, an allocation of 34 GB or a crash. Therefore Lance opens a
file only after its hash was compared with the inventory of the atlas and the manifest of the table was checked
(`table_manifest`). Only the files that are read are hashed: each holds `FRAGMENT` rows, and thumbnails, embedding and
the columns of each stage are in separate files. A search among a million images hashes keys, embedding and index once
(0.7 GB, half a second on one core), and a thumbnail costs the 25 MB of its file.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from imatlas.atlas.table_manifest import (
    MAX_MANIFEST_BYTES,
    TableVersion,
    files_on_disk,
    newest_version,
    parse_manifest,
    refuse_special_files,
    refuse_unknown_versions,
    version_file,
)
from imatlas.atlas.table_values import arrow_of, fault, matrix_of, unwrapped
from imatlas.errors import ArtifactError, ImatlasError
from imatlas.system.atomic_io import flush_tree, open_new, remove_listed, within
from imatlas.system.inventory import Inventory, open_regular

os.environ.setdefault("LANCE_LOG", "error")  # Lance warns on stderr about every new dataset
import lance

ROWS = 4096
"""Rows per batch; bounds the memory of writing and reading."""

FRAGMENT = 8_192
"""Rows per file, which is hashed as a whole before any of its rows is read."""

PROBES, REFINE = 20, 2
"""Lists of the index that a search reads, and candidates per result whose exact distance is computed. `python -m
benchmarks search` measures the recall."""

REPAIR = "run the same 'imatlas learn' command again to rebuild it"
"""Advice in errors about a damaged table."""

MAX_FEATURES = 65_536
"""Largest width of a vector column."""

THUMBNAIL = 128
"""Longest side of a thumbnail in pixels."""

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
        ("held_out", pa.bool_()),
        ("duplicate_of", pa.string()),
        ("flags", pa.string()),
    ]
)
"""Columns that the intake writes besides the thumbnail; the stages add those of `LEARNED`."""

LEARNED = pa.schema(
    [
        ("thumbnail", pa.binary()),
        ("embedding", pa.list_(pa.float32(), 1)),  # of any width
        ("cell", pa.int32()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("cluster", pa.int32()),
        ("confidence", pa.float32()),
        ("outlier", pa.float32()),
        ("p_value", pa.float32()),
        ("umap_x", pa.float32()),
        ("umap_y", pa.float32()),
    ]
)

LARGE = ("thumbnail", "embedding")
"""Learned columns that stay where their rows are when a table grows; the others are small, and are set anew."""

INDEX_FILES = ("index.idx", "auxiliary.idx")
"""Files of a vector index."""


class ImagesTable:
    """One version of the images table.

    Parameters
    ----------
    path : path
        The `.lance` folder.
    version : int or None
        The version to read. None: the newest.
    inventory : Inventory, optional
        Inventory of the atlas: files are compared with it before they are read, and new files are recorded in it.

    Raises
    ------
    ArtifactError
        If that version does not exist or cannot be read.
    """

    def __init__(self, path: str | Path, version: int | None = None, inventory: Inventory | None = None) -> None:
        self.path = Path(path)
        self.inventory = inventory
        self._checked: set[str] = set()
        self.version = version or 0
        with self._reading():
            self.version = version = newest_version(self.path) if version is None else version
            self._check([version_file(version)])
            refuse_special_files(self.path / "_versions")
            with open_regular(self.path / version_file(version)) as file:
                self.named: TableVersion = parse_manifest(file.read(MAX_MANIFEST_BYTES))
            self._data = lance.dataset(address(path), version=version)
        self._check_schema()

    def _check_schema(self) -> None:
        """Refuse columns that an atlas does not have or that have another type, such as blob references."""
        known = {field.name: field.type for field in (*SCHEMA, *LEARNED)}
        for field in self._data.schema:
            vectors = field.name == "embedding" and pa.types.is_fixed_size_list(field.type)
            same = field.type.value_type == pa.float32() if vectors else field.type == known.get(field.name)
            if not same or field.metadata or (vectors and not 1 <= field.type.list_size <= MAX_FEATURES):
                raise ArtifactError(
                    f"The images table '{self.path}' has a column '{field.name[:40]}' ({field.type}), "
                    "which an atlas does not have; learn the atlas again with --overwrite."
                )
        if not len(self):
            raise ArtifactError(f"The atlas is damaged: '{self.path}' has no rows; {REPAIR}.")
        for _, files in self.named.fragments:
            if not set(self._data.schema.names) <= set(files):
                raise ArtifactError(f"The images table '{self.path}' lacks columns; learn the atlas again.")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn errors of Lance and Arrow, including panics of their Rust code, into an ArtifactError."""
        try:
            yield
        except (ImatlasError, KeyboardInterrupt, GeneratorExit, SystemExit, MemoryError):
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
            raise ArtifactError(
                f"The images table '{self.path}' (version {self.version}) cannot be read ({reason}); {REPAIR}."
            ) from error

    def _check(self, names: Iterable[str]) -> None:
        """Compare files of the table with the inventory before Lance reads them, each file once."""
        if self.inventory is not None:
            unchecked = [name for name in names if name not in self._checked]
            self.inventory.check([f"{self.path.name}/{name}" for name in unchecked])
            self._checked.update(unchecked)

    def _check_columns(self, columns: Iterable[str], rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Compare the files of some columns, for all rows or only some."""
        columns = list(columns)
        which = range(len(self.named.fragments)) if rows is None else self._fragments_of(rows)
        files = {self.named.fragments[i][1].get(name) for i in which for name in columns}
        self._check(sorted(name for name in files if name))

    def _fragments_of(self, rows: Sequence[int] | np.ndarray) -> list[int]:
        ends = np.cumsum([n for n, _ in self.named.fragments])
        rows = np.asarray(rows, np.int64)
        found = np.unique(np.searchsorted(ends, rows, side="right"))
        return [int(i) for i in found if i < len(ends)]

    def _index_files(self) -> list[str]:
        """Files of the indices: the standard ones, and others that the inventory lists."""
        listed = self.inventory.files if self.inventory is not None else {}
        names = {name.removeprefix(f"{self.path.name}/") for name in listed}
        found = {name for name in names if name.rpartition("/")[0] in self.named.indices}
        return sorted(found | {f"{index}/{name}" for index in self.named.indices for name in INDEX_FILES})

    def files(self) -> list[str]:
        """Names of all files of this version, relative to its folder."""
        names = {version_file(self.version)}
        names |= {name for _, files in self.named.fragments for name in files.values()}
        names |= {name for name in files_on_disk(self.path) if name.rpartition("/")[0] in self.named.indices}
        if self.named.transaction:
            names.add(f"_transactions/{self.named.transaction}")
        return sorted(names)

    @classmethod
    def write(
        cls,
        path: str | Path,
        batches: Iterable[pa.RecordBatch],
        thumbnails: Iterable[Sequence[bytes]] | None = None,
        inventory: Inventory | None = None,
    ) -> ImagesTable:
        """Write a new version of the table at `path` that contains only these rows, batch by batch.

        Parameters
        ----------
        path : path
        batches : iterable of RecordBatch
            Rows of `SCHEMA`.
        thumbnails : iterable of lists of bytes, optional
            Thumbnails of the same rows, in lists of any length.
        inventory : Inventory, optional
        """
        path = Path(path)
        mode: Any = "overwrite" if (path / "_versions").is_dir() else "create"
        refuse_unknown_versions(path)
        with unwrapped(batches) as rows:
            data = lance.write_dataset(
                rows, address(path), schema=SCHEMA, mode=mode, max_rows_per_file=FRAGMENT, enable_v2_manifest_paths=True
            )
        if thumbnails is not None:
            schema = pa.schema([LEARNED.field("thumbnail")])
            with unwrapped(
                pa.record_batch([pa.array(some, pa.binary())], schema=schema) for some in thumbnails
            ) as rows:
                data.add_columns(pa.RecordBatchReader.from_batches(schema, rows))
        flush_tree(path)  # Lance does not flush to disk
        return cls(path, inventory=None).listed_in(inventory)

    def grown(
        self,
        fragments: np.ndarray,
        batches: Callable[[], Iterable[pa.RecordBatch]],
        thumbnails: Callable[[], Iterable[Sequence[bytes]]],
        embedding: np.ndarray,
    ) -> ImagesTable:
        """Write a new version of the rows of some fragments, whose files stay, and of other rows behind them.

        It has no learned columns but thumbnail and embedding. Each of these two has files of its own, as if it had been
        added to the table.

        Parameters
        ----------
        fragments : ndarray (n_fragments,) of bool
            The fragments that stay.
        batches : function returning an iterable of RecordBatch
            The other rows, of `SCHEMA`.
        thumbnails : function returning an iterable of lists of bytes
            Their thumbnails, in lists of any length.
        embedding : ndarray (n, n_features)
            Their embedding; without rows, `batches` and `thumbnails` are not called.
        """
        self._check([f"_transactions/{self.named.transaction}"] if self.named.transaction else [])
        data = self._newest()
        lost = [name for name in data.schema.names if name in LEARNED.names and name not in LARGE]
        if lost:
            data.drop_columns(lost)
        kept = [fragment.metadata for fragment, stays in zip(data.get_fragments(), fragments, strict=True) if stays]
        added: list[Any] = []
        if len(embedding):
            of_thumbnails = pa.schema([LEARNED.field("thumbnail")])
            vectors = pa.table({"embedding": arrow_of(embedding)})
            parts = [
                _files_of(data, SCHEMA, batches()),
                _files_of(
                    data,
                    of_thumbnails,
                    (pa.record_batch([pa.array(some, pa.binary())], schema=of_thumbnails) for some in thumbnails()),
                ),
                _files_of(data, vectors.schema, vectors.to_batches(max_chunksize=ROWS)),
            ]
            first = max((fragment.id for fragment in kept), default=-1) + 1
            for number, of_group in enumerate(zip(*parts, strict=True), start=first):
                files = [file for part in of_group for file in part.files]
                added.append(lance.FragmentMetadata(number, files, of_group[0].physical_rows))
        change = lance.LanceOperation.Overwrite(data.lance_schema, [*kept, *added])
        lance.LanceDataset.commit(address(self.path), change, read_version=data.version, enable_v2_manifest_paths=True)
        flush_tree(self.path)
        return ImagesTable(self.path).listed_in(self.inventory)

    def copied_to(self, path: Path) -> ImagesTable:
        """Copy the files of this version, and no others, to another folder."""
        for name in self.files():
            self._check([name])
            target = within(path, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_regular(within(self.path, name)) as source, open_new(target) as copy:
                shutil.copyfileobj(source, copy)
        flush_tree(path)
        return ImagesTable(path, self.version)

    def clean(self, names: Iterable[str]) -> None:
        """Delete the files among `names` that this version does not need. Only for the writer that committed it."""
        remove_listed(self.path, set(names) - set(self.files()))

    def listed_in(self, inventory: Inventory | None) -> ImagesTable:
        """Record the files of this version in an inventory, in place of those of other versions; returns the table."""
        if inventory is not None:
            inside = f"{self.path.name}/"
            names = {f"{inside}{name}" for name in self.files()}
            inventory.drop([name for name in inventory.files if name.startswith(inside) and name not in names])
            inventory.record(sorted(names - set(inventory.files)))
        self.inventory = inventory
        return self

    @property
    def columns(self) -> list[str]:
        """Names of the columns of this version."""
        return list(self._data.schema.names)

    def n_features(self, column: str) -> int | None:
        """Width of a vector column; None if there is no such column."""
        return self._data.schema.field(column).type.list_size if column in self.columns else None

    def __len__(self) -> int:
        return sum(n for n, _ in self.named.fragments)

    def set(self, **columns: np.ndarray | pa.Array) -> ImagesTable:
        """Write a new version with these columns, in row order, added or replaced.

        Parameters
        ----------
        **columns : arrays (n_rows,) or (n_rows, n_features)
            A two-dimensional array becomes a vector column.
        """
        arrays = {name: arrow_of(values) for name, values in columns.items()}
        n_rows = len(self)
        for name, values in arrays.items():
            if len(values) != n_rows:
                raise ArtifactError(f"The column '{name}' has {len(values)} values, but the table has {n_rows} rows.")
        self._check([f"_transactions/{self.named.transaction}"] if self.named.transaction else [])
        data = self._newest()
        present = [name for name in arrays if name in data.schema.names]
        if present:
            data.drop_columns(present)
        added = pa.table(arrays)
        reader = pa.RecordBatchReader.from_batches(added.schema, added.to_batches(max_chunksize=ROWS))
        data.add_columns(reader)
        flush_tree(self.path)
        return ImagesTable(self.path).listed_in(self.inventory)

    def _newest(self) -> lance.LanceDataset:
        """The dataset at this version, restored as the newest if it is not."""
        refuse_unknown_versions(self.path)
        data = lance.dataset(address(self.path), version=self.version)
        if data.version != data.latest_version:  # a killed writer left newer, unnamed versions
            data.restore()
            data = lance.dataset(address(self.path))
        return data

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Some columns of all rows. None: all columns but the thumbnails."""
        if columns is None:
            columns = [name for name in self.columns if name != "thumbnail"]
        self._check_columns(columns)
        with self._reading():
            found = self._data.to_table(columns=list(columns))
        return self._sound(found, whole=True)

    def vectors(self, column: str, rows: np.ndarray | None = None) -> np.ndarray:
        """A vector column as a float32 array (n_rows, n_features); with ascending `rows`, of these (n, n_features)."""
        n = len(self) if rows is None else len(rows)
        out = np.empty((n, self.n_features(column) or 0), np.float32)
        start = filled = 0
        for vectors in self.vector_batches(column):  # never a second copy of them all
            end = start + len(vectors)
            if rows is not None:
                first, last = np.searchsorted(rows, (start, end))
                vectors = vectors[rows[first:last] - start]
            out[filled : filled + len(vectors)] = vectors
            start, filled = end, filled + len(vectors)
        return out

    def vectors_at(self, column: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Some rows of a vector column, in the order of `rows`, as a float32 array (n, n_features)."""
        return matrix_of(self.take(rows, [column])[column].combine_chunks())

    def index(self, column: str, centers: np.ndarray) -> ImagesTable:
        """Write a new version with an index on a vector column, for `nearest`.

        It stays valid in later versions in which the rows and the column are unchanged.

        Parameters
        ----------
        column : str
        centers : ndarray (n_centers, n_features)
            Centers of the inverted file: each row is in the list of its nearest center, scalar-quantized to bytes.
        """
        flat = pa.array(np.ascontiguousarray(centers, dtype=np.float32).ravel())
        centroids = pa.FixedSizeListArray.from_arrays(flat, centers.shape[1])
        self._check_columns([column])
        data = self._newest()
        data.create_index(
            column, "IVF_SQ", metric="L2", num_partitions=len(centers), ivf_centroids=centroids, replace=True
        )
        flush_tree(self.path)
        return ImagesTable(self.path).listed_in(self.inventory)

    def has_index(self, column: str) -> bool:
        """Whether this version has an index on a vector column."""
        if not self.named.indices:
            return False
        self._check(self._index_files())
        with self._reading():
            return any(column in (name.strip('"') for name in i.field_names) for i in self._data.describe_indices())

    def nearest(self, column: str, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Approximately the `k` rows nearest to a query (n_features,), found with the index.

        Returns
        -------
        rows : ndarray (k,) int64
            Nearest first.
        distances : ndarray (k,) float32
            Euclidean, exact.
        """
        search = {"column": column, "q": query, "k": k, "nprobes": PROBES, "refine_factor": REFINE}
        self._check([*self._index_files(), *self._files_of[column]])
        with self._reading():
            found = self._data.to_table(columns=["_distance"], nearest=search, with_row_address=True)
            if not np.isfinite(found["_distance"].to_numpy()).all():
                raise ValueError("its vectors are not finite")
        addresses = found["_rowaddr"].to_numpy().astype(np.int64)
        rows = self._first_rows[addresses >> 32] + (addresses & 0xFFFFFFFF)
        return rows, np.sqrt(np.maximum(found["_distance"].to_numpy(), 0))

    @cached_property
    def _files_of(self) -> dict[str, list[str]]:
        """The files of each column."""
        return {name: [files[name] for _, files in self.named.fragments] for name in self.columns}

    @cached_property
    def _first_rows(self) -> np.ndarray:
        """Number of the first row of each fragment, indexed by fragment id."""
        fragments = self._data.get_fragments()
        first = np.zeros(max(f.fragment_id for f in fragments) + 1, np.int64)
        n = 0
        for fragment in fragments:
            first[fragment.fragment_id] = n
            n += fragment.count_rows()
        return first

    def take(self, rows: Sequence[int] | np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Some columns of some rows, in the order of `rows`."""
        self._check_columns(columns, rows)
        with self._reading():
            found = self._data.take([int(row) for row in rows], columns=list(columns))
        return self._sound(found)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows, batch by batch."""
        self._check_columns(columns)
        with self._reading():
            for batch in self._data.to_batches(columns=list(columns), batch_size=ROWS):
                self._sound(pa.Table.from_batches([batch]))
                yield batch

    def vector_batches(self, column: str) -> Iterator[np.ndarray]:
        """A vector column of all rows, as float32 arrays (n, n_features), batch by batch."""
        for batch in self.batches([column]):
            yield matrix_of(batch[column])

    def check(self) -> None:
        """Read and check every column, before a writer builds on them.

        Raises
        ------
        ArtifactError
            If one is damaged or has invalid values.
        """
        large = [name for name in LARGE if name in self.columns]
        self.read([name for name in self.columns if name not in large])
        for name in large:
            for _ in self.batches([name]):
                pass

    def _sound(self, found: pa.Table, *, whole: bool = False) -> pa.Table:
        """The same columns; raises ArtifactError if their values are invalid."""
        problem = fault(dict(zip(found.column_names, found.columns, strict=True)), whole=whole)
        if problem:
            raise ArtifactError(f"The atlas is damaged: '{self.path}' cannot be used ({problem}); {REPAIR}.")
        return found


def address(path: str | Path) -> str:
    """A folder as an address for Lance: an absolute path is never taken for a URL.

    Raises
    ------
    ArtifactError
        If Lance cannot open a folder of that name.
    """
    text = os.path.abspath(path)
    if re.search("[\x00-\x1f\x7f\ud800-\udfff]", text):
        raise ArtifactError(
            f"An atlas cannot be stored at '{text}': the path contains control characters or is not UTF-8; choose "
            "another name."
        )
    return text


def _files_of(data: lance.LanceDataset, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> list[Any]:
    """Write some columns of new rows into files of their own, not yet part of the table; one fragment per file."""
    with unwrapped(batches) as rows:
        reader = pa.RecordBatchReader.from_batches(schema, rows)
        return lance.fragment.write_fragments(reader, data, mode="append", max_rows_per_file=FRAGMENT)
