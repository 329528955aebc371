"""The images table of an atlas: one row an image, in one Lance dataset. This is the one file that knows Lance.

A table is written once per intake and then gains columns as stages learn them. Every change is a new version of the
dataset; the atlas names the version that counts, so a reader never sees half a change, and a version that nobody named
is cleaned away by the next writer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from imatlas.disk import flush_tree
from imatlas.errors import ArtifactError

os.environ.setdefault("LANCE_LOG", "error")  # Lance warns on stderr about every dataset that it creates
import lance

ROWS = 4096
"""Rows in one batch: bounds the memory of writing and reading."""

PROBES, REFINE = 20, 2
"""Lists of the index that a search reads, and how many times more rows than asked for have their exact distance
computed. `python -m benchmarks search` measures what is found so."""

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
        ("thumbnail", pa.binary()),
    ]
)
"""The columns that the intake writes; the stages add embedding, cell, x, y, cluster, outlier, umap_x, umap_y."""


class ImagesTable:
    """One version of the images table.

    Parameters
    ----------
    path : path
        The `.lance` folder.
    version : int or None
        The version to read; the newest where None.

    Raises
    ------
    ArtifactError
        If there is no readable table of that version.
    """

    def __init__(self, path: str | Path, version: int | None = None) -> None:
        self.path = Path(path)
        try:
            self._data = lance.dataset(address(path), version=version)
        except (ValueError, OSError) as error:
            raise ArtifactError(
                f"The images table '{path}' (version {version}) cannot be read; learn the atlas again with --overwrite."
            ) from error

    @classmethod
    def write(cls, path: str | Path, batches: Iterable[pa.RecordBatch]) -> ImagesTable:
        """A new version of the table at `path` that holds just these rows of `SCHEMA`, written batch by batch."""
        path = Path(path)
        caught: list[BaseException] = []
        mode = "overwrite" if (path / "_versions").is_dir() else "create"
        try:
            lance.write_dataset(_guarded(batches, caught), address(path), schema=SCHEMA, mode=mode)
        except OSError:
            if caught:  # Lance wraps what the generator raised, even Ctrl-C, in an OSError of its own
                raise caught[0] from None
            raise
        flush_tree(path)  # Lance itself never asks for that
        return cls(path)

    @property
    def version(self) -> int:
        """The number of this version."""
        return int(self._data.version)

    @property
    def columns(self) -> list[str]:
        """The names of the columns of this version."""
        return list(self._data.schema.names)

    def __len__(self) -> int:
        return int(self._data.count_rows())

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
        data = self._newest()
        present = [name for name in arrays if name in data.schema.names]
        if present:
            data.drop_columns(present)
        added = pa.table(arrays)
        reader = pa.RecordBatchReader.from_batches(added.schema, added.to_batches(max_chunksize=ROWS))
        data.add_columns(reader)
        flush_tree(self.path)
        return ImagesTable(self.path)

    def _newest(self) -> lance.LanceDataset:
        """This version to build upon, as the newest."""
        data = lance.dataset(address(self.path), version=self.version)
        if data.version != data.latest_version:  # a killed writer left newer versions that nobody named
            data.restore()
            data = lance.dataset(address(self.path))
        return data

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """These columns of all rows; all but the thumbnails where None."""
        if columns is None:
            columns = [name for name in self.columns if name != "thumbnail"]
        return self._data.to_table(columns=list(columns))

    def vectors(self, column: str) -> np.ndarray:
        """A column of vectors as a float32 array (n_rows, n_features)."""
        values = self._data.to_table(columns=[column])[column].combine_chunks()
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
        data = self._newest()
        data.create_index(column, "IVF_SQ", metric="L2", num_partitions=len(centers), ivf_centroids=filed, replace=True)
        flush_tree(self.path)
        return ImagesTable(self.path)

    def has_index(self, column: str) -> bool:
        """Whether this version has an index on a column of vectors."""
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
        found = self._data.to_table(columns=["_distance"], nearest=wanted, with_row_address=True)
        address = found["_rowaddr"].to_numpy().astype(np.int64)
        rows = self._first_rows[address >> 32] + (address & 0xFFFFFFFF)
        return rows, np.sqrt(np.maximum(found["_distance"].to_numpy(), 0))

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
        return self._data.take([int(row) for row in rows], columns=list(columns))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, batch by batch."""
        yield from self._data.to_batches(columns=list(columns), batch_size=ROWS)

    def clean(self) -> None:
        """Delete older versions and what killed writers left. Only for a writer, once this version is committed."""
        self._data.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)


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


def _guarded(batches: Iterable[pa.RecordBatch], caught: list[BaseException]) -> Iterator[pa.RecordBatch]:
    """The same batches; what their source raises is also put into `caught`."""
    try:
        yield from batches
    except BaseException as error:
        caught.append(error)
        raise


def _arrow(values: np.ndarray | pa.Array) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return values if isinstance(values, pa.Array) else pa.array(values)
