"""The images table of an atlas: one row an image, in one Lance dataset. This is the one file that knows Lance.

A table is written once per intake and then gains columns as stages learn them. Every change is a new version of the
dataset; the atlas names the version that counts, so a reader never sees half a change, and a version that nobody named
is cleaned away by the next writer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from imatlas.disk import flush_tree
from imatlas.errors import ArtifactError

os.environ.setdefault("LANCE_LOG", "error")  # Lance warns on stderr about every dataset that it creates
import lance

ROWS = 4096
"""Rows in one batch: bounds the memory of writing and reading."""

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
"""The columns that the intake writes; the stages add embedding, cell, x, y, cluster, outlier."""


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
            self._data = lance.dataset(str(path), version=version)
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
            lance.write_dataset(_guarded(batches, caught), str(path), schema=SCHEMA, mode=mode)
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
        data = lance.dataset(str(self.path), version=self.version)
        if data.version != data.latest_version:  # a killed writer left newer versions that nobody named
            data.restore()
            data = lance.dataset(str(self.path))
        present = [name for name in arrays if name in data.schema.names]
        if present:
            data.drop_columns(present)
        added = pa.table(arrays)
        reader = pa.RecordBatchReader.from_batches(added.schema, added.to_batches(max_chunksize=ROWS))
        data.add_columns(reader)
        flush_tree(self.path)
        return ImagesTable(self.path)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """These columns of all rows; all but the thumbnails where None."""
        if columns is None:
            columns = [name for name in self.columns if name != "thumbnail"]
        return self._data.to_table(columns=list(columns))

    def vectors(self, column: str) -> np.ndarray:
        """A column of vectors as a float32 array (n_rows, n_features)."""
        values = self._data.to_table(columns=[column])[column].combine_chunks()
        return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)

    def take(self, rows: Sequence[int] | np.ndarray, columns: Sequence[str]) -> pa.Table:
        """These columns of some rows, in the order asked for."""
        return self._data.take([int(row) for row in rows], columns=list(columns))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, batch by batch."""
        yield from self._data.to_batches(columns=list(columns), batch_size=ROWS)

    def clean(self) -> None:
        """Delete older versions and what killed writers left. Only for a writer, once this version is committed."""
        self._data.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)


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
