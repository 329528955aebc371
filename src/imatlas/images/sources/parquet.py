"""Parquet files with a column of image bytes."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.errors import DecodeError, SourceError
from imatlas.images import memory_budget
from imatlas.images.keys import row_keys
from imatlas.images.sources.archives import Archive
from imatlas.images.sources.arrow import chosen_column, type_at
from imatlas.images.sources.base import check_members, check_total, check_unpacked, reason_of
from imatlas.images.sources.parquet_pages import pages


class ParquetSource(Archive):
    """The column of a Parquet file that holds image files: bytes, or a struct of bytes and path (Hugging Face)."""

    explicit = True

    def __init__(self, path: Path, field: str | None = None) -> None:
        self._field = field
        super().__init__(path)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "field": self._column}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"], state["field"])  # type: ignore[misc]

    def _connect(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        assert self.root is not None
        self._lock = threading.Lock()
        try:
            self._file = pq.ParquetFile(self.root, memory_map=True)
        except pa.ArrowException as error:
            raise SourceError(f"'{self.root}' is not a readable Parquet file ({reason_of(error)}).") from error
        schema = self._file.schema_arrow
        self._column = chosen_column(schema, self._field, str(self.root))
        counts = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        n = int(self._starts[-1])
        check_members(n, os.path.getsize(self.root), str(self.root))
        if n == 0:
            raise SourceError(f"There are no rows in '{self.root}'; give a Parquet file with images.")
        self.keys = row_keys(n)
        self._leaf = self._column + (".bytes" if pa.types.is_struct(type_at(schema, self._column)) else "")
        self._within = [] if self._column in schema.names else self._column.split(".")[1:]
        self._bytes = np.memmap(self.root, np.uint8, "r")
        groups = range(self._file.num_row_groups)
        if sum(about.total_compressed_size for g in groups for about in self._chunks(g)) > len(self._bytes):
            raise SourceError(f"'{self.root}' declares columns larger than the file; it is damaged.")
        self._lengths: dict[int, int] = {}
        self._ratio = 1.0  # of packed to unpacked bytes in the open row group
        self._rows: dict[int, bytes | None] = {}
        self._next = self._total = self._packed = 0
        self._batches: Any = None
        self._group = -1

    def stamps(self) -> list[tuple[int, int]] | None:
        """Size and modification time of the whole file."""
        assert self.root is not None
        status = os.stat(self.root)
        return [(status.st_size, status.st_mtime_ns)] * len(self.keys)

    def _read(self, index: int, size: int | None) -> bytes:
        try:
            with self._lock:
                value = self._value(index)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"damaged in the Parquet file ({reason_of(error)})") from None
        if value is None:
            paths = "." in self._leaf  # a Hugging Face struct may contain a path instead of bytes
            raise DecodeError("the row contains no image" + ", possibly a path; give the files" * paths)
        return value[:size]

    def packed(self, index: int) -> int | None:
        """The approximate bytes of a row in the file, known after it was read."""
        length = self._lengths.get(index)
        return None if length is None else min(length, int(self._ratio * length) + 2**12)

    def _value(self, index: int) -> bytes | None:
        """The value of a row, read in order in small batches; the last rows are kept for other threads.

        A row group is not read as a whole: a few bytes may encode gigabytes of equal values.
        """
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        if index in self._rows:
            return self._rows[index]
        if group != self._group or index < self._next:
            self._rows.clear()
            self._group = -1  # until it is open
            self._batches = self._opened_group(group)
            self._group, self._next, self._total = group, int(self._starts[group]), 0
        share = (self._starts[group + 1] - self._starts[group]) / len(self.keys)
        while index >= self._next:
            check_total(self._total, self._packed, share)
            for plain in next(self._batches).column(0).to_pylist():
                for name in self._within:
                    plain = plain and plain[name]
                self._rows[self._next] = content = plain["bytes"] if isinstance(plain, dict) else plain
                self._lengths[self._next] = len(content or b"")
                self._total += len(content or b"")
                self._next += 1
            held = sum(len(v) for v in self._rows.values() if v is not None)
            while len(self._rows) > _AT_HAND or (held > memory_budget.budget() // 8 and len(self._rows) > 1):
                if (first := next(iter(self._rows))) == index:
                    break
                held -= len(self._rows.pop(first) or b"")
        return self._rows[index]

    def _chunks(self, group: int) -> list[Any]:
        """The metadata of the column in a row group."""
        about = self._file.metadata.row_group(group)
        columns = [about.column(i) for i in range(about.num_columns)]
        return [column for column in columns if column.path_in_schema == self._leaf]

    def _opened_group(self, group: int) -> Any:
        """The batches of a row group, small enough to stay within the budget for any values.

        The headers of its pages give their unpacked size; no value is larger than their sum.
        """
        size = packed = 0
        for about in self._chunks(group):
            start = about.data_page_offset
            if about.has_dictionary_page and 0 < about.dictionary_page_offset < start:
                start = about.dictionary_page_offset
            size += sum(page.unpacked for page in pages(self._bytes, start, about.total_compressed_size))
            packed += about.total_compressed_size
        check_unpacked(size, packed, part=8)
        n_rows = int(self._starts[group + 1] - self._starts[group])
        mean = max(1, size // max(1, n_rows))
        batch_size = max(1, min(64, memory_budget.budget() // 32 // mean, memory_budget.budget() // 16 // max(1, size)))
        self._packed, self._ratio = packed, min(1.0, packed / max(1, size))
        return self._file.iter_batches(batch_size, row_groups=[group], columns=[self._leaf], use_threads=False)


_AT_HAND = 2048
