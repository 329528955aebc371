"""Lance datasets with a column of image bytes, in a folder or a store."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from imatlas.arguments import is_address
from imatlas.errors import DecodeError, SourceError
from imatlas.images import memory_budget
from imatlas.images.keys import row_keys
from imatlas.images.sources.arrow import chosen_column, column_at
from imatlas.images.sources.base import HEAD, check_size, reason_of
from imatlas.images.sources.origin import Origin, located
from imatlas.images.sources.patience import no_access

WINDOW = 16
"""Rows that are read together."""


ELSEWHERE = "the row refers to a file in another place, which is not read"


def is_lance(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a Lance dataset."""
    return Path(folder).suffix == ".lance" and os.path.isdir(os.path.join(folder, "_versions"))


class LanceSource:
    """The column of a Lance dataset that holds image files: bytes, or a struct of bytes and path.

    Parameters
    ----------
    place : str
        Its folder, or its address.
    field : str, optional
        The column.
    version : int, optional
        By default the newest.

    Raises
    ------
    SourceError
        If it cannot be opened, has no such column, or refers to files in other places.
    """

    explicit = True
    root: Path | None = None  # a folder whose files are no images

    def __init__(self, place: str, field: str | None = None, version: int | None = None) -> None:
        self.name, self._field = place, field
        self.skipped: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._windows: OrderedDict[int, list[bytes | str | None]] = OrderedDict()
        try:
            self._dataset = self._open(version)
        except Exception as error:
            if "403 Forbidden" in str(error):
                raise SourceError(no_access(place, PermissionError("Forbidden"))) from error
            raise SourceError(f"'{place}' cannot be opened as a Lance dataset ({_reason(error)}).") from error
        if self._dataset.base_paths():
            raise SourceError(f"'{place}' has files in other places, which are not read; copy the dataset into one.")
        schema = self._dataset.schema
        self._column = chosen_column(_with_blobs_as_bytes(schema), field, place)
        outer = schema.field(self._column.partition(".")[0])
        self._may_be_elsewhere = _is_blob_type(outer.type)
        self._is_blob = self._may_be_elsewhere or (outer.metadata or {}).get(b"lance-encoding:blob") == b"true"
        fragments = self._dataset.get_fragments()
        counts = [fragment.count_rows() for fragment in fragments]
        self._stamps = [(row, tag) for n, tag in zip(counts, map(_tag, fragments), strict=True) for row in range(n)]
        n = sum(counts)
        if n == 0:
            raise SourceError(f"There are no rows in '{place}'; give a Lance dataset with images.")
        self.keys = row_keys(n)

    def _open(self, version: int | None) -> Any:
        os.environ.setdefault("LANCE_LOG", "error")
        import lance

        return lance.dataset(self.name if is_address(self.name) else os.path.abspath(self.name), version=version)

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.name, "field": self._field, "version": self._dataset.version}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def origin(self) -> Origin:
        """The dataset."""
        return Origin(self.name if is_address(self.name) else located(self.name))

    def stamps(self) -> list[tuple[int, int]] | None:
        """For each row its place in a fragment, and a hash of the fragment's files, which never change."""
        return self._stamps

    def head(self, index: int) -> bytes:
        """The first bytes of a row."""
        return self.read(index)[:HEAD]

    def packed(self, index: int) -> int | None:
        """The bytes of a row."""
        return len(self.read(index))

    def read(self, index: int) -> bytes:
        """The bytes of a row."""
        number = index // WINDOW
        with self._lock:
            values = self._windows.get(number)
        if values is None:
            values = self._read_window(number)
            with self._lock:
                self._windows[number] = values
                while len(self._windows) > 1 and self._held() > memory_budget.budget() // 8:
                    self._windows.popitem(last=False)
        value = values[index - number * WINDOW]
        if not isinstance(value, bytes):
            raise DecodeError(value or "the row contains no image")
        check_size(len(value))
        return value

    def _read_window(self, number: int) -> list[bytes | str | None]:
        """As `_values`; Lance itself waits for a server, so one that fails in the end stays away."""
        try:
            return self._values(number)
        except Exception as error:
            if is_address(self.name):
                raise SourceError(f"'{self.name}' can no longer be read ({_reason(error)}); try again.") from error
            raise DecodeError(f"cannot be read ({_reason(error)})") from None

    def _held(self) -> int:
        return sum(len(value or "") for values in self._windows.values() for value in values)

    def _values(self, number: int) -> list[bytes | str | None]:
        """The values of one window, or why there are none."""
        rows = list(range(number * WINDOW, min(len(self.keys), (number + 1) * WINDOW)))
        if self._is_blob:
            found: dict[int, bytes | str | None] = {}
            if self._may_be_elsewhere:
                about = self._dataset.take(rows, columns=[self._column])[self._column].to_pylist()
                found = {row: ELSEWHERE for row, one in zip(rows, about, strict=True) if one and one["blob_uri"]}
            here = [row for row in rows if row not in found]
            blobs = self._dataset.take_blobs(self._column, indices=here) if here else []
            if len(blobs) != len(here):  # versions of Lance that leave out rows without a value
                raise ValueError("rows without an image, which this version of pylance leaves out; install a later one")
            found |= {row: blob and blob.readall() for row, blob in zip(here, blobs, strict=True)}
            return [found[row] for row in rows]
        table = self._dataset.take(rows, columns=[self._column.partition(".")[0]])
        values = column_at(table, self._column).to_pylist()
        return [value["bytes"] if isinstance(value, dict) else value for value in values]


def _is_blob_type(kind: Any) -> bool:
    """Whether a column has the type of Lance's blobs, which may also lie in other files."""
    return getattr(kind, "extension_name", "") == "lance.blob.v2"


def _with_blobs_as_bytes(schema: Any) -> Any:
    """A schema in which blobs are what they are read as."""
    import pyarrow as pa

    return pa.schema([f.with_type(pa.large_binary()) if _is_blob_type(f.type) else f for f in schema])


def _reason(error: Exception) -> str:
    """The reason of an error of Lance, without the lines of its own code."""
    return reason_of(Exception(str(error).partition(", /")[0]))


def _tag(fragment: Any) -> int:
    """63 bits that change with the rows of a fragment; each data file has a name of its own, and so have deletions."""
    about = [file.path for file in fragment.data_files()], str(fragment.metadata.deletion_file)
    return int.from_bytes(hashlib.sha256(repr(about).encode()).digest()[:8], "big") >> 1
