"""The metadata of each image of a set, in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


class Record(NamedTuple):
    """One image: its key, upright original size, format, mode, frames, hashes and notes."""

    key: str
    width: int
    height: int
    format: str
    mode: str
    n_frames: int
    frame: int
    sha256: str
    phash: int
    notes: str


class Records(Sequence[Record]):
    """The records of a set: `records[3].width` for one image, `records["width"]` for a column as an array.

    `records.table` is the underlying pyarrow Table.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.num_rows

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: str) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray) -> Records: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self.table.column(index).to_numpy(zero_copy_only=False)
        if isinstance(index, slice):
            index = np.arange(len(self))[index]
        if isinstance(index, np.ndarray):
            return Records(self.table.take(index))
        row = self.table.slice(range(len(self))[index], 1)
        return Record(**{name: row.column(name)[0].as_py() for name in Record._fields})

    def __iter__(self) -> Iterator[Record]:
        for batch in self.table.select(Record._fields).to_batches(max_chunksize=4096):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield Record(*values)

    def __repr__(self) -> str:
        return f"<Records of {len(self)} images: {', '.join(self.table.column_names)}>"
