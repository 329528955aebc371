"""Archives of images: ZIP, TAR (compressed or not), and Parquet files with a column of image bytes."""

from __future__ import annotations

import gzip
import os
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from imatlas.errors import DecodeError, SourceError
from imatlas.images.names import key_of
from imatlas.images.sources import HEAD, check_size, reason_of


class _Archive:
    """What the archives share: files inside one file, read by position under a lock."""

    explicit = False

    def __init__(self, path: Path) -> None:
        self.root: Path | None = path
        self.name = str(path)
        self.skipped: list[tuple[str, str]] = []
        self.keys: list[str] = []
        self._connect()

    def _connect(self) -> None:
        raise NotImplementedError

    def _read(self, index: int, size: int | None) -> bytes:
        raise NotImplementedError

    def head(self, index: int) -> bytes:
        """The first bytes of a member."""
        return self._read(index, HEAD)

    def read(self, index: int) -> bytes:
        """The bytes of a member."""
        return self._read(index, None)

    def _unique(self, name: str, taken: set[str]) -> str:
        """A member's name as a key; the second of two equal names gets a number."""
        key = key_of(str(PurePosixPath(name.replace("\\", "/"))).lstrip("/"))
        base, count = key, 1
        while key in taken:
            count += 1
            key = f"{base} ({count})"
        taken.add(key)
        return key

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        assert state["root"] is not None
        self.__init__(state["root"])  # type: ignore[misc]


class ZipSource(_Archive):
    """The files in a ZIP archive."""

    def _connect(self) -> None:
        assert self.root is not None
        self._zip = zipfile.ZipFile(self.root)
        taken: set[str] = set()
        members = [m for m in self._zip.infolist() if not m.is_dir()]
        named = sorted((self._unique(m.filename, taken), i) for i, m in enumerate(members))
        self.keys = [key for key, _ in named]
        self._members = [members[i] for _, i in named]
        if not self.keys:
            raise SourceError(f"There are no files in '{self.root}'; give an archive with images.")

    def stamps(self) -> list[tuple[int, int]] | None:
        """Size and checksum of each member."""
        return [(m.file_size, m.CRC) for m in self._members]

    def _read(self, index: int, size: int | None) -> bytes:
        member = self._members[index]
        if size is None:
            check_size(member.file_size)
        if member.flag_bits & 1:
            raise DecodeError("encrypted; unpack the archive with its password first")
        try:
            with self._zip.open(member) as file:
                return file.read(member.file_size if size is None else size)
        except Exception as error:
            raise DecodeError(f"damaged in the archive ({reason_of(error)})") from None


class TarSource(_Archive):
    """The files in a TAR archive; a compressed one is unpacked once, as a whole, to a nameless temporary file."""

    MAX_RATIO = 200

    def _connect(self) -> None:
        assert self.root is not None
        self._lock = threading.Lock()
        self._file: IO[bytes] = open(self.root, "rb")  # noqa: SIM115 - stays open as long as the source
        if self._file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7"):
            packed, self._file = self._file, tempfile.TemporaryFile()  # noqa: SIM115
            with packed:
                self._unpack(packed)
        weakref.finalize(self, self._file.close)
        self._file.seek(0)
        taken: set[str] = set()
        members = []
        with tarfile.open(fileobj=self._file, mode="r:") as archive:
            try:
                for member in archive:
                    if member.isfile():
                        members.append((self._unique(member.name, taken), member))
            except tarfile.TarError as error:
                self.skipped.append((self.root.name, f"the archive ends early ({reason_of(error)})"))
        members.sort(key=lambda pair: pair[0])
        self.keys = [key for key, _ in members]
        self._places = [(m.offset_data, m.size, int(m.mtime)) for _, m in members]
        self._sparse = {i for i, (_, m) in enumerate(members) if m.sparse is not None}
        if not self.keys:
            raise SourceError(f"There are no files in '{self.root}'; give an archive with images.")

    def _unpack(self, packed: IO[bytes]) -> None:
        """Copy the whole compressed stream to the temporary file; refuse a bomb."""
        import bz2
        import lzma

        assert self.root is not None
        packed.seek(0)
        opener: Any = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}.get(packed.read(2), lzma.open)
        packed.seek(0)
        limit = max(2**30, self.MAX_RATIO * os.fstat(packed.fileno()).st_size)
        written = 0
        with opener(packed, "rb") as stream:
            while block := stream.read(2**20):
                written += len(block)
                if written > limit:
                    raise SourceError(
                        f"'{self.root}' unpacks to more than {self.MAX_RATIO} times its size; it is not read, as it "
                        "looks like a decompression bomb."
                    )
                try:
                    self._file.write(block)
                except OSError as error:
                    raise SourceError(
                        f"'{self.root}' cannot be unpacked to '{tempfile.gettempdir()}' ({reason_of(error)}); free "
                        "some space there or unpack it yourself."
                    ) from error

    def stamps(self) -> list[tuple[int, int]] | None:
        """Size of each member, and a checksum over its time of change and its place."""
        return [(size, zlib.crc32(f"{mtime} {offset}".encode())) for offset, size, mtime in self._places]

    def _read(self, index: int, size: int | None) -> bytes:
        offset, whole, _ = self._places[index]
        if index in self._sparse:
            raise DecodeError("a sparse file inside an archive; unpack the archive first")
        if size is None:
            check_size(whole)
        try:
            with self._lock:
                self._file.seek(offset)
                return self._file.read(whole if size is None else min(size, whole))
        except OSError as error:
            raise DecodeError(f"cannot be read ({reason_of(error)})") from None


class ParquetSource(_Archive):
    """The column of a Parquet file that holds image files: bytes, or a struct of bytes and path (Hugging Face)."""

    explicit = True

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
        self._column = self._find_column(schema)
        counts = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        n = int(self._starts[-1])
        if n == 0:
            raise SourceError(f"There are no rows in '{self.root}'; give a Parquet file with images.")
        self.keys = [f"{i:0{max(6, len(str(n)))}d}" for i in range(n)]
        self._group: tuple[int, Any] = (-1, None)

    def _find_column(self, schema: Any) -> str:
        import pyarrow.types as t

        def holds_files(kind: Any) -> bool:
            if t.is_struct(kind):
                return any(kind.field(i).name == "bytes" and holds_files(kind.field(i).type) for i in range(len(kind)))
            return t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind)

        found = [field.name for field in schema if holds_files(field.type)]
        if not found:
            raise SourceError(
                f"No column of '{self.root}' holds the bytes of images (columns: {', '.join(schema.names)}); one must "
                "be binary, or a struct with a field 'bytes'."
            )
        for name in ("image", "img", "thumbnail"):
            if name in found:
                return name
        return found[0]

    def stamps(self) -> list[tuple[int, int]] | None:
        """Size and time of change of the whole file, with the row."""
        assert self.root is not None
        status = os.stat(self.root)
        return [(status.st_size, status.st_mtime_ns)] * len(self.keys)

    def _read(self, index: int, size: int | None) -> bytes:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        try:
            with self._lock:
                if self._group[0] != group:  # one row group is held at a time
                    self._group = (-1, None)
                    self._group = (group, self._file.read_row_group(group, columns=[self._column]).column(0))
                value = self._group[1][index - int(self._starts[group])].as_py()
        except Exception as error:
            raise DecodeError(f"damaged in the Parquet file ({reason_of(error)})") from None
        if isinstance(value, dict):
            value = value["bytes"]
        if value is None:
            raise DecodeError("the row holds no image")
        return value[:size]
