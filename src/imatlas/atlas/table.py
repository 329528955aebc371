"""The images table of an atlas: one row an image, in one Lance dataset. This is the one file that knows Lance.

A table is written once per intake and then gains columns as stages learn them. Every change is a new version of the
dataset; the atlas names the version that counts, so a reader never sees half a change, and a version that nobody named
is cleaned away by the next writer.

Lance trusts its files: a flipped byte may give other rows, an allocation of 34 GB, or the end of the process. So
nothing of a table is handed to Lance before its bytes were compared with the atlas's inventory, and its manifest was
looked through (`table_manifest`). What is compared is what is read: rows lie in files of `FRAGMENT` rows, and
thumbnails, embedding and whatever a stage learned lie in files of their own. A search in a million images thus hashes
its keys, embedding and index once (0.7 GB, half a second on one core, in parallel on several), and a thumbnail costs
the 25 MB of its file.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from imatlas.atlas.table_manifest import (
    MOST_BYTES,
    TableVersion,
    files_on_disk,
    newest_version,
    only_files,
    parse_manifest,
    refuse_strangers,
    version_file,
)
from imatlas.atlas.table_values import fault
from imatlas.errors import ArtifactError, ImatlasError
from imatlas.system.atomic_io import flush_tree, open_new, remove_listed, within
from imatlas.system.inventory import Inventory, open_regular

os.environ.setdefault("LANCE_LOG", "error")  # Lance warns on stderr about every dataset that it creates
import lance

ROWS = 4096
"""Rows in one batch: bounds the memory of writing and reading."""

FRAGMENT = 8_192
"""Rows in one file: what is hashed before one of them is read."""

PROBES, REFINE = 20, 2
"""Lists of the index that a search reads, and how many times more rows than asked for have their exact distance
computed. `python -m benchmarks search` measures what is found so."""

AGAIN = "the same 'imatlas learn' command again makes it anew"
"""What a user does about a table that is damaged."""

MOST_FEATURES = 65_536
"""Numbers in one vector."""

THUMBNAIL = 128
"""Longest side in pixels of the small picture that the table keeps of every image."""

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
"""The columns that the intake writes, besides the thumbnail; the stages add those of `LEARNED`."""

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
        ("umap_x", pa.float32()),
        ("umap_y", pa.float32()),
    ]
)

INDEX_FILES = ("index.idx", "auxiliary.idx")
"""Of an index on vectors."""


class ImagesTable:
    """One version of the images table.

    Parameters
    ----------
    path : path
        The `.lance` folder.
    version : int or None
        The version to read; the newest where None.
    inventory : Inventory, optional
        Of the atlas: each file is compared with it before it is read, each new one recorded in it.

    Raises
    ------
    ArtifactError
        If there is no readable table of that version.
    """

    def __init__(self, path: str | Path, version: int | None = None, inventory: Inventory | None = None) -> None:
        self.path = Path(path)
        self.inventory = inventory
        self._checked: set[str] = set()
        self.version = version or 0
        with self._reading():
            self.version = version = newest_version(self.path) if version is None else version
            only_files(self.path / "_versions")
            self._check([version_file(version)])
            with open_regular(self.path / version_file(version)) as file:
                self.named: TableVersion = parse_manifest(file.read(MOST_BYTES))
            self._data = lance.dataset(address(path), version=version)
        self._check_schema()

    def _check_schema(self) -> None:
        """Refuse columns that no atlas has, or has of another type: pictures by reference, nested ones."""
        known = {field.name: field.type for field in (*SCHEMA, *LEARNED)}
        for field in self._data.schema:
            vectors = field.name == "embedding" and pa.types.is_fixed_size_list(field.type)
            same = field.type.value_type == pa.float32() if vectors else field.type == known.get(field.name)
            if not same or field.metadata or (vectors and not 1 <= field.type.list_size <= MOST_FEATURES):
                raise ArtifactError(
                    f"The images table '{self.path}' has a column '{field.name[:40]}' ({field.type}) that no atlas "
                    "has; learn the atlas again with --overwrite."
                )
        if not len(self):
            raise ArtifactError(f"The atlas is damaged: '{self.path}' has no rows; {AGAIN}.")
        for _, files in self.named.fragments:
            if not set(self._data.schema.names) <= set(files):
                raise ArtifactError(f"The images table '{self.path}' lacks columns; learn the atlas again.")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What Lance and Arrow raise, the panics of their Rust part too, as one error of ours."""
        try:
            yield
        except (ImatlasError, KeyboardInterrupt, GeneratorExit, SystemExit, MemoryError):
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            told = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
            raise ArtifactError(
                f"The images table '{self.path}' (version {self.version}) cannot be read ({told}); {AGAIN}."
            ) from error

    def _check(self, names: Iterable[str]) -> None:
        """Compare files of the table with the inventory of the atlas, before Lance reads them."""
        if self.inventory is not None:
            fresh = [name for name in names if name not in self._checked]  # thousands of searches, one look at a file
            self.inventory.check([f"{self.path.name}/{name}" for name in fresh])
            self._checked.update(fresh)

    def _check_columns(self, columns: Iterable[str], rows: Sequence[int] | np.ndarray | None = None) -> None:
        """The same for the files that hold some columns, of all rows or of some."""
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
        """The files of the indices: those that ours have, and whatever else the inventory names."""
        listed = self.inventory.files if self.inventory is not None else {}
        names = {name.removeprefix(f"{self.path.name}/") for name in listed}
        found = {name for name in names if name.rpartition("/")[0] in self.named.indices}
        return sorted(found | {f"{index}/{name}" for index in self.named.indices for name in INDEX_FILES})

    def files(self) -> list[str]:
        """The names of all files that this version consists of, below its folder."""
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
        """A new version of the table at `path` that holds just these rows of `SCHEMA`, written batch by batch.

        Parameters
        ----------
        path : path
        batches : iterable of RecordBatch
        thumbnails : iterable of lists of bytes, optional
            The thumbnails of the same rows, in runs of any length.
        inventory : Inventory, optional
        """
        path = Path(path)
        mode: Any = "overwrite" if (path / "_versions").is_dir() else "create"
        refuse_strangers(path)
        with _unwrapped(batches) as rows:
            data = lance.write_dataset(
                rows, address(path), schema=SCHEMA, mode=mode, max_rows_per_file=FRAGMENT, enable_v2_manifest_paths=True
            )
        if thumbnails is not None:
            schema = pa.schema([LEARNED.field("thumbnail")])
            with _unwrapped(
                pa.record_batch([pa.array(some, pa.binary())], schema=schema) for some in thumbnails
            ) as rows:
                data.add_columns(pa.RecordBatchReader.from_batches(schema, rows))
        flush_tree(path)  # Lance itself never asks for that
        return cls(path, inventory=None).listed_in(inventory)

    def copied_to(self, path: Path) -> ImagesTable:
        """The files of this version, and no others, in a folder of another name."""
        for name in self.files():
            self._check([name])
            target = within(path, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_regular(within(self.path, name)) as source, open_new(target) as copy:
                shutil.copyfileobj(source, copy)
        flush_tree(path)
        return ImagesTable(path, self.version)

    def clean(self, names: Iterable[str]) -> None:
        """Delete those of these files of ours that this version does not need. Only for a writer that committed it."""
        remove_listed(self.path, set(names) - set(self.files()))

    def listed_in(self, inventory: Inventory | None) -> ImagesTable:
        """This version, all of whose files are recorded in an inventory in place of those of other versions."""
        if inventory is not None:
            inside = f"{self.path.name}/"
            names = {f"{inside}{name}" for name in self.files()}
            inventory.drop([name for name in inventory.files if name.startswith(inside) and name not in names])
            inventory.record(sorted(names - set(inventory.files)))
        self.inventory = inventory
        return self

    @property
    def columns(self) -> list[str]:
        """The names of the columns of this version."""
        return list(self._data.schema.names)

    def n_features(self, column: str) -> int | None:
        """The numbers in one vector of a column; None where there is no such column."""
        return self._data.schema.field(column).type.list_size if column in self.columns else None

    def __len__(self) -> int:
        return sum(n for n, _ in self.named.fragments)

    def set(self, **columns: np.ndarray | pa.Array) -> ImagesTable:
        """A new version in which these columns, given in row order, replace or join the others.

        Parameters
        ----------
        **columns : arrays (n_rows,) or (n_rows, n_features)
            A two-dimensional array becomes a column of fixed-size vectors.
        """
        arrays = {name: _arrow(values) for name, values in columns.items()}
        n_rows = len(self)
        for name, values in arrays.items():
            if len(values) != n_rows:
                raise ArtifactError(f"The column '{name}' has {len(values)} values and the table {n_rows} rows.")
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
        """This version to build upon, as the newest."""
        refuse_strangers(self.path)
        data = lance.dataset(address(self.path), version=self.version)
        if data.version != data.latest_version:  # a killed writer left newer versions that nobody named
            data.restore()
            data = lance.dataset(address(self.path))
        return data

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """These columns of all rows; all but the thumbnails where None."""
        if columns is None:
            columns = [name for name in self.columns if name != "thumbnail"]
        self._check_columns(columns)
        with self._reading():
            found = self._data.to_table(columns=list(columns))
        return self._sound(found, whole=True)

    def vectors(self, column: str) -> np.ndarray:
        """A column of vectors as a float32 array (n_rows, n_features)."""
        values = self.read([column])[column].combine_chunks()
        return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)

    def vectors_at(self, column: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Some rows of a column of vectors, in the order asked for, as a float32 array (n, n_features)."""
        values = self.take(rows, [column])[column].combine_chunks()
        return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)

    def index(self, column: str, centers: np.ndarray) -> ImagesTable:
        """A new version with an index on a column of vectors, so that `nearest` need not look at all of them.

        It counts for this version and for later ones whose rows and column are the same.

        Parameters
        ----------
        column : str
        centers : ndarray (n_centers, n_features)
            Each row is filed under the center nearest to it (an inverted file, its vectors also as bytes for speed).
        """
        flat = pa.array(np.ascontiguousarray(centers, dtype=np.float32).ravel())
        filed = pa.FixedSizeListArray.from_arrays(flat, centers.shape[1])
        self._check_columns([column])
        data = self._newest()
        data.create_index(column, "IVF_SQ", metric="L2", num_partitions=len(centers), ivf_centroids=filed, replace=True)
        flush_tree(self.path)
        return ImagesTable(self.path).listed_in(self.inventory)

    def has_index(self, column: str) -> bool:
        """Whether this version has an index on a column of vectors."""
        if not self.named.indices:
            return False
        self._check(self._index_files())
        with self._reading():
            return any(column in (name.strip('"') for name in i.field_names) for i in self._data.describe_indices())

    def nearest(self, column: str, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """About the `k` rows whose vectors are nearest to a query (n_features,), by the index.

        Returns
        -------
        rows : ndarray (k,) int64
            Nearest first.
        distances : ndarray (k,) float32
            Euclidean, exact.
        """
        wanted = {"column": column, "q": query, "k": k, "nprobes": PROBES, "refine_factor": REFINE}
        self._check([*self._index_files(), *self._files_of[column]])
        with self._reading():
            found = self._data.to_table(columns=["_distance"], nearest=wanted, with_row_address=True)
            if not np.isfinite(found["_distance"].to_numpy()).all():
                raise ValueError("its vectors are not finite")
        places = found["_rowaddr"].to_numpy().astype(np.int64)
        rows = self._first_rows[places >> 32] + (places & 0xFFFFFFFF)
        return rows, np.sqrt(np.maximum(found["_distance"].to_numpy(), 0))

    @cached_property
    def _files_of(self) -> dict[str, list[str]]:
        """The files that hold each column."""
        return {name: [files[name] for _, files in self.named.fragments] for name in self.columns}

    @cached_property
    def _first_rows(self) -> np.ndarray:
        """The number of the first row of each fragment, by the number of the fragment."""
        fragments = self._data.get_fragments()
        first = np.zeros(max(f.fragment_id for f in fragments) + 1, np.int64)
        n = 0
        for fragment in fragments:
            first[fragment.fragment_id] = n
            n += fragment.count_rows()
        return first

    def take(self, rows: Sequence[int] | np.ndarray, columns: Sequence[str]) -> pa.Table:
        """These columns of some rows, in the order asked for."""
        self._check_columns(columns, rows)
        with self._reading():
            found = self._data.take([int(row) for row in rows], columns=list(columns))
        return self._sound(found)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, batch by batch."""
        self._check_columns(columns)
        with self._reading():
            for batch in self._data.to_batches(columns=list(columns), batch_size=ROWS):
                self._sound(pa.Table.from_batches([batch]))
                yield batch

    def check(self) -> None:
        """Read every column, as a writer does that builds upon them.

        Raises
        ------
        ArtifactError
            If one is damaged, or holds what no atlas does.
        """
        large = [name for name in ("thumbnail", "embedding") if name in self.columns]
        self.read([name for name in self.columns if name not in large])
        for name in large:
            for _ in self.batches([name]):
                pass

    def _sound(self, found: pa.Table, *, whole: bool = False) -> pa.Table:
        """Columns as they were read, if they hold what those of an atlas do."""
        told = fault(dict(zip(found.column_names, found.columns, strict=True)), whole=whole)
        if told:
            raise ArtifactError(f"The atlas is damaged: '{self.path}' cannot be used ({told}); {AGAIN}.")
        return found


def address(path: str | Path) -> str:
    """How Lance is told of a folder on this disk: an absolute path is never taken for an address of the network.

    Raises
    ------
    ArtifactError
        If a name on the way is one that Lance cannot open.
    """
    text = os.path.abspath(path)
    if re.search("[\x00-\x1f\x7f\ud800-\udfff]", text):
        raise ArtifactError(
            f"An atlas cannot lie at '{text}': the name holds control characters or is not UTF-8; choose another name."
        )
    return text


@contextmanager
def _unwrapped(batches: Iterable[pa.RecordBatch]) -> Iterator[Iterator[pa.RecordBatch]]:
    """The same batches to write; what their source raises is raised as it was.

    Lance wraps it, even Ctrl-C, in an OSError of its own.
    """
    caught: list[BaseException] = []

    def guarded() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as error:
            caught.append(error)
            raise

    try:
        yield guarded()
    except OSError:
        if caught:
            raise caught[0] from None
        raise


def _arrow(values: np.ndarray | pa.Array) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return values if isinstance(values, pa.Array) else pa.array(values)
