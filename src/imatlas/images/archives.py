"""Archives of images: ZIP, TAR (compressed or not), and Parquet files with a column of image bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
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
from imatlas.images import budget
from imatlas.images.members import Member, packed_size
from imatlas.images.names import member_key
from imatlas.images.sources import HEAD, check_members, check_size, check_unpacked, reason_of

LINK = "a link in an archive, which is not followed"
"""Why a symbolic link is skipped."""


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

    def _unique(self, name: str, taken: dict[str, int]) -> str:
        """A member's name as a key; the second of two equal names gets a number.

        `taken` holds the last number that each name was given, so that a million equal names take no longer.
        """
        key = base = member_key(name)
        while key in taken:
            taken[base] += 1
            key = f"{base} ({taken[base]})"
        taken[key] = 1
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
        taken: dict[str, int] = {}
        members = [m for m in self._zip.infolist() if not m.is_dir() and not self._is_link(m)]
        named = sorted((self._unique(m.filename, taken), i) for i, m in enumerate(members))
        self.keys = [key for key, _ in named]
        self._members = [members[i] for _, i in named]
        self._overlapping = _overlapping(self._members)
        if not self.keys:
            raise SourceError(f"There are no files in '{self.root}'; give an archive with images.")

    def _is_link(self, member: zipfile.ZipInfo) -> bool:
        """Whether a member is a link, which holds a name in place of a picture; told as skipped."""
        linked = member.create_system == 3 and stat.S_ISLNK(member.external_attr >> 16)  # 3: Unix
        if linked:
            self.skipped.append((member_key(member.filename), LINK))
        return linked

    def stamps(self) -> list[tuple[int, int]] | None:
        """Size and checksum of each member."""
        return [(m.file_size, m.CRC) for m in self._members]

    def _read(self, index: int, size: int | None) -> bytes:
        member = self._members[index]
        assert self.root is not None
        if index in self._overlapping:
            raise DecodeError("shares its bytes with another member of the archive, as in a decompression bomb")
        if size is None:
            check_size(member.file_size)
            check_unpacked(member.file_size, packed_size(member, self.root))
            budget.content(member.file_size)
        try:
            with Member(self.root, member) as opened:
                content = opened.read(member.file_size if size is None else size)
            if size is None and (len(content) < member.file_size or zlib.crc32(content) != member.CRC):
                raise zipfile.BadZipFile("its checksum is wrong")
            return content
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"damaged in the archive ({reason_of(error)})") from None


def _overlapping(members: list[zipfile.ZipInfo]) -> set[int]:
    """Which members begin inside the data of another one."""
    found: set[int] = set()
    end = 0
    for index in sorted(range(len(members)), key=lambda i: members[i].header_offset):
        member = members[index]
        if member.header_offset < end:
            found.add(index)
        end = max(end, member.header_offset + 30 + len(member.filename) + member.compress_size)
    return found


class _Headers:
    """A TAR file as tarfile sees it while it lists members: no member may have more than 1 MiB of headers."""

    MOST = 2**20

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.read_bytes = 0
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Some bytes."""
        self.read_bytes += size if size >= 0 else self.MOST + 1
        if self.read_bytes > self.MOST:
            raise tarfile.ReadError("a member with more than 1 MiB of headers")
        return self._file.read(size)


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
        taken: dict[str, int] = {}
        members: list[tuple[str, int, int, int, bool]] = []
        known: dict[str, tuple[int, int, int, bool]] = {}
        headers = _Headers(self._file)
        with tarfile.open(fileobj=headers, mode="r:") as archive:  # type: ignore[call-overload]
            try:
                for member in archive:
                    headers.read_bytes = 0
                    archive.members.clear()  # tarfile would keep them all
                    place = self._place(member, known)
                    if place is not None:
                        members.append((self._unique(member.name, taken), *place))
                    if len(members) % 1000 == 0:
                        check_members(len(members), os.path.getsize(self.root), str(self.root))
            except tarfile.TarError as error:
                self.skipped.append((self.root.name, f"the archive ends early ({reason_of(error)})"))
        members.sort(key=lambda member: member[0])
        self.keys = [member[0] for member in members]
        self._places = [member[1:4] for member in members]
        self._sparse = {i for i, member in enumerate(members) if member[4]}
        if not self.keys:
            raise SourceError(f"There are no files in '{self.root}'; give an archive with images.")

    def _place(
        self, member: tarfile.TarInfo, known: dict[str, tuple[int, int, int, bool]]
    ) -> tuple[int, int, int, bool] | None:
        """Where the data of a member lie: offset, size, time, and whether it has holes; None where it is no file.

        A hard link has the data of a file before it, and is one as much as that. `known` are these by name, and grows.
        """
        name = str(PurePosixPath(member.name))
        if member.isfile():
            known[name] = (member.offset_data, member.size, int(member.mtime), member.sparse is not None)
            return known[name]
        if member.islnk() and (target := known.get(str(PurePosixPath(member.linkname)))):
            known[name] = target
            return target
        if member.issym():
            self.skipped.append((member_key(member.name), LINK))
        elif member.islnk():
            self.skipped.append((member_key(member.name), "a hard link to a file that is not before it in the archive"))
        elif not member.isdir():
            self.skipped.append((member_key(member.name), "no file, but a pipe or a device"))
        return None

    def _unpack(self, packed: IO[bytes]) -> None:
        """Copy the whole compressed stream to the temporary file; refuse a bomb."""
        assert self.root is not None
        packed.seek(0)
        opener: Any = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}.get(packed.read(2), lzma.open)
        packed.seek(0)
        limit = max(budget.budget(), self.MAX_RATIO * os.fstat(packed.fileno()).st_size)
        written = 0
        with opener(packed, "rb") as stream:
            while block := stream.read(2**20):
                written += len(block)
                if written > limit:
                    raise SourceError(
                        f"'{self.root}' unpacks to more than {budget.amount(limit)}; it is not read, as it looks like "
                        f"a decompression bomb. Unpack it yourself, or set {budget.VARIABLE} to allow more."
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
            budget.content(whole)
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
        check_members(n, os.path.getsize(self.root), str(self.root))
        if n == 0:
            raise SourceError(f"There are no rows in '{self.root}'; give a Parquet file with images.")
        self.keys = [f"{i:0{max(6, len(str(n)))}d}" for i in range(n)]
        self._leaf = self._column + (".bytes" if pa.types.is_struct(schema.field(self._column).type) else "")
        self._rows: dict[int, bytes | None] = {}
        self._next = 0
        self._batches: Any = None
        self._group = -1

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
        try:
            with self._lock:
                value = self._value(index)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"damaged in the Parquet file ({reason_of(error)})") from None
        if value is None:
            raise DecodeError("the row holds no image")
        return value[:size]

    def _value(self, index: int) -> bytes | None:
        """The value of a row, read in order, a few rows at a time; the last rows stay at hand for other threads.

        A row group is not read as a whole: a few bytes of a file may stand for gigabytes of equal values.
        """
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        if index in self._rows:
            return self._rows[index]
        if group != self._group or index < self._next:
            self._rows.clear()
            self._group = -1  # until it is open
            self._batches = self._opened_group(group)
            self._group, self._next = group, int(self._starts[group])
        while index >= self._next:
            batch = next(self._batches).column(0)
            for value in batch:
                plain = value.as_py()
                self._rows[self._next] = plain["bytes"] if isinstance(plain, dict) else plain
                self._next += 1
            held = sum(len(v) for v in self._rows.values() if v is not None)
            while len(self._rows) > _AT_HAND or (held > budget.budget() // 8 and len(self._rows) > 1):
                if (first := next(iter(self._rows))) == index:
                    break
                held -= len(self._rows.pop(first) or b"")
        return self._rows[index]

    def _opened_group(self, group: int) -> Any:
        """The batches of a row group, so small that they stay within the budget whatever the values are."""
        assert self.root is not None
        about = self._file.metadata.row_group(group)
        columns = [about.column(i) for i in range(about.num_columns)]
        size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema == self._leaf)
        packed = sum(c.total_compressed_size for c in columns if c.path_in_schema == self._leaf)
        check_unpacked(size, packed)
        mean = max(1, size // max(1, about.num_rows))
        batch_size = max(1, min(64, budget.budget() // 32 // mean, budget.budget() // 4 // max(1, size)))
        return self._file.iter_batches(batch_size, row_groups=[group], columns=[self._leaf], use_threads=False)


_AT_HAND = 2048
