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
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import numpy as np

from imatlas.errors import DecodeError, SourceError
from imatlas.images import memory_budget
from imatlas.images.keys import member_key
from imatlas.images.sources.arrow import holds_files
from imatlas.images.sources.base import (
    HEAD,
    MAX_BYTES,
    MAX_RATIO,
    check_members,
    check_size,
    check_total,
    check_unpacked,
    reason_of,
)
from imatlas.images.sources.origin import Origin, located
from imatlas.images.sources.own_output import NOT_A_SOURCE, own_folders
from imatlas.images.sources.parquet_pages import pages
from imatlas.images.sources.zip_members import Member, packed_size

_Keyed = TypeVar("_Keyed", bound="tuple[Any, ...]")

LINK = "a link in an archive, which is not followed"
"""Why a symbolic link is skipped."""


Place = tuple[int, int, int, bool]
"""Where a file in a TAR lies: offset, size, time, and whether it has holes."""


def _plain(name: str) -> str:
    """The name of a member of a TAR as one may write it in several ways."""
    return str(PurePosixPath(name)).lstrip("/")


class _Archive:
    """What the archives share: files inside one file, read by position under a lock."""

    explicit = False

    def __init__(self, path: Path) -> None:
        self.root: Path | None = path
        self.name = str(path)
        self.skipped: list[tuple[str, str]] = []
        self.keys: list[str] = []
        self._connect()

    @property
    def origin(self) -> Origin:
        """The archive."""
        return Origin(located(self.name))

    def _connect(self) -> None:
        raise NotImplementedError

    def _read(self, index: int, size: int | None) -> bytes:
        raise NotImplementedError

    def packed(self, index: int) -> int | None:
        """The bytes that a member takes in the archive."""
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

    def _without_ours(self, members: list[_Keyed]) -> list[_Keyed]:
        """The members, each with its key first, that do not lie in a folder of what imatlas wrote."""
        ours = own_folders(member[0] for member in members)
        self.skipped += [(f"{folder}/", NOT_A_SOURCE.format(what)) for folder, what in ours.items()]
        if not ours:
            return members
        starts = tuple(f"{folder}/" for folder in ours)
        return [member for member in members if not member[0].startswith(starts)]

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
        named = self._without_ours(named)
        self.keys = [key for key, _ in named]
        self._members = [members[i] for _, i in named]
        self._overlapping = _overlapping(self._members)
        self._size = os.path.getsize(self.root)
        self._totals = _totals([m.header_offset for m in self._members], [m.file_size for m in self._members])
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

    def packed(self, index: int) -> int:
        """The bytes that a member takes in the archive."""
        return packed_size(self._members[index], self._size)

    def _read(self, index: int, size: int | None) -> bytes:
        member = self._members[index]
        assert self.root is not None
        if index in self._overlapping:
            raise DecodeError("shares its bytes with another member of the archive, as in a decompression bomb")
        if size is None:
            check_size(member.file_size)
            check_unpacked(member.file_size, self.packed(index))
            check_total(int(self._totals[index]), self._size)
            memory_budget.content(member.file_size)
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


def _totals(places: list[int], sizes: list[int]) -> np.ndarray:
    """What all members up to each one unpack to, in the order of their places; what is never read does not count."""
    total = np.zeros(len(places), np.int64)
    order = sorted(range(len(places)), key=places.__getitem__)
    total[order] = np.cumsum([sizes[i] if sizes[i] <= MAX_BYTES else 0 for i in order])
    return total


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
    """A TAR file as tarfile sees it while it lists members: no member may have more than 1 MiB of headers.

    What they have beyond the block of each, the words of PAX, is bounded for all members: it is parsed in Python.
    """

    MOST = 2**20
    WORDS = 2**24
    KEYS = 100

    def __init__(self, file: IO[bytes], archive_size: int) -> None:
        self._file = file
        self.read_bytes = 0
        self._left = max(self.WORDS, 64 * archive_size)
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Some bytes."""
        self.read_bytes += size if size >= 0 else self.MOST + 1
        if self.read_bytes > self.MOST:
            raise tarfile.ReadError("a member with more than 1 MiB of headers")
        self._left -= max(0, size - tarfile.BLOCKSIZE)
        if self._left < 0:
            raise tarfile.ReadError("members with far more headers than the archive has bytes")
        return self._file.read(size)


class TarSource(_Archive):
    """The files in a TAR archive; a compressed one is unpacked once, as a whole, to a nameless temporary file."""

    def _connect(self) -> None:
        assert self.root is not None
        self._lock = threading.Lock()
        self._file: IO[bytes] = open(self.root, "rb")  # noqa: SIM115 - stays open as long as the source
        self._marks: np.ndarray | None = None
        if self._file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7"):
            packed, self._file = self._file, tempfile.TemporaryFile()  # noqa: SIM115
            with packed:
                self._unpack(packed)
        weakref.finalize(self, self._file.close)
        self._file.seek(0)
        taken: dict[str, int] = {}
        members: list[tuple[str, int, int, int, bool]] = []
        known: dict[str, tuple[int, int, int, bool]] = {}
        later: dict[str, str] = {}
        headers = _Headers(self._file, os.path.getsize(self.root))
        n = 0
        with tarfile.open(fileobj=headers, mode="r:") as archive:  # type: ignore[call-overload]
            try:
                for member in archive:
                    headers.read_bytes = 0
                    if len(archive.pax_headers) > headers.KEYS:  # tarfile copies them for each member
                        raise tarfile.ReadError(f"more than {headers.KEYS} headers for all members")
                    archive.members.clear()  # tarfile would keep them all
                    place = self._place(member, known, later)
                    if place is not None:
                        members.append((self._unique(member.name, taken), *place))
                    n += 1
                    if n % 1000 == 0:  # folders and links too: each takes its time
                        check_members(n, os.path.getsize(self.root), str(self.root))
            except tarfile.TarError as error:
                self.skipped.append((self.root.name, f"the archive ends early ({reason_of(error)})"))
        members += [(self._unique(name, taken), *place) for name, place in self._linked(later, known)]
        members = self._without_ours(sorted(members, key=lambda member: member[0]))
        self.keys = [member[0] for member in members]
        self._places = [member[1:4] for member in members]
        self._totals = _totals([member[1] for member in members], [member[2] for member in members])
        self._sparse = {i for i, member in enumerate(members) if member[4]}
        if not self.keys:
            why = f" ({self.skipped[-1][1]})" if self.skipped else ""
            raise SourceError(f"There are no files in '{self.root}'{why}; give an archive with images.")

    def _place(
        self, member: tarfile.TarInfo, known: dict[str, Place], later: dict[str, str]
    ) -> tuple[int, int, int, bool] | None:
        """Where the data of a member lie: offset, size, time, and whether it has holes; None where it is no file.

        A hard link has the data of another file, and is one as much as that. `known` are these by name, and grows, as
        do the links whose file comes `later`.
        """
        name = _plain(member.name)
        if member.isfile():
            known[name] = (member.offset_data, member.size, int(member.mtime), member.sparse is not None)
            return known[name]
        if member.islnk() and (target := known.get(_plain(member.linkname))):
            known[name] = target
            return target
        if member.issym():
            self.skipped.append((member_key(member.name), LINK))
        elif member.islnk():
            later[member.name] = member.linkname
        elif not member.isdir():
            self.skipped.append((member_key(member.name), "no file, but a pipe or a device"))
        return None

    def _linked(self, later: dict[str, str], known: dict[str, Place]) -> Iterator[tuple[str, Place]]:
        """Hard links to files that come after them in the archive, with the data of these."""
        follows = {_plain(name): _plain(target) for name, target in later.items()}
        for name in later:
            seen = {_plain(name)}
            target = follows[_plain(name)]
            while target in follows and target not in seen:
                seen.add(target)
                target = follows[target]
            if target in known:
                yield name, known[target]
            else:
                self.skipped.append((member_key(name), "a hard link to a file that is not in the archive"))

    def _unpack(self, packed: IO[bytes]) -> None:
        """Copy the whole compressed stream to the temporary file; refuse a bomb."""
        assert self.root is not None
        packed.seek(0)
        opener: Any = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}.get(packed.read(2), lzma.open)
        packed.seek(0)
        limit = max(memory_budget.budget(), MAX_RATIO * os.fstat(packed.fileno()).st_size)
        written = 0
        marks = [(0, 0)]
        with opener(packed, "rb") as stream:
            while block := stream.read(2**20):
                written += len(block)
                marks.append((written, packed.tell()))
                if written > limit:
                    most = memory_budget.amount(limit)
                    raise SourceError(
                        f"'{self.root}' unpacks to more than {most}; it is not read, as it looks like a decompression "
                        f"bomb. Unpack it yourself, or set {memory_budget.VARIABLE} to allow more."
                    )
                try:
                    self._file.write(block)
                except OSError as error:
                    raise SourceError(
                        f"'{self.root}' cannot be unpacked to '{tempfile.gettempdir()}' ({reason_of(error)}); free "
                        "some space there or unpack it yourself."
                    ) from error
        self._marks = np.array(marks, np.int64)

    def packed(self, index: int) -> int:
        """The bytes of the archive that a member was unpacked from, as near as the marks of `_unpack` tell."""
        offset, size, _ = self._places[index]
        if self._marks is None:
            return size
        first, last = np.interp([offset, offset + size], self._marks[:, 0], self._marks[:, 1])
        return min(size, int(last - first) + 2**12)

    def stamps(self) -> list[tuple[int, int]] | None:
        """Size of each member, and a checksum over its time of change and its place."""
        return [(size, zlib.crc32(f"{mtime} {offset}".encode())) for offset, size, mtime in self._places]

    def _read(self, index: int, size: int | None) -> bytes:
        assert self.root is not None
        offset, whole, _ = self._places[index]
        if index in self._sparse:
            raise DecodeError("a sparse file inside an archive; unpack the archive first")
        if size is None:
            check_size(whole)
            check_unpacked(whole, self.packed(index))
            check_total(int(self._totals[index]), os.path.getsize(self.root))
            memory_budget.content(whole)
        try:
            with self._lock:
                self._file.seek(offset)
                return self._file.read(whole if size is None else min(size, whole))
        except OSError as error:
            raise DecodeError(f"cannot be read ({reason_of(error)})") from None


class ParquetSource(_Archive):
    """The column of a Parquet file that holds image files: bytes, or a struct of bytes and path (Hugging Face)."""

    explicit = True

    def __init__(self, path: Path, field: str | None = None) -> None:
        self._field = field
        super().__init__(path)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "field": self._field}

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
        self._column = self._find_column(schema)
        counts = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        n = int(self._starts[-1])
        check_members(n, os.path.getsize(self.root), str(self.root))
        if n == 0:
            raise SourceError(f"There are no rows in '{self.root}'; give a Parquet file with images.")
        self.keys = [f"{i:0{max(6, len(str(n)))}d}" for i in range(n)]
        self._leaf = self._column + (".bytes" if pa.types.is_struct(schema.field(self._column).type) else "")
        self._bytes = np.memmap(self.root, np.uint8, "r")
        groups = range(self._file.num_row_groups)
        if sum(about.total_compressed_size for g in groups for about in self._chunks(g)) > len(self._bytes):
            raise SourceError(f"'{self.root}' says that its columns have more bytes than the file; it is damaged.")
        self._lengths: dict[int, int] = {}
        self._ratio = 1.0  # of packed to unpacked bytes, in the group that is open
        self._rows: dict[int, bytes | None] = {}
        self._next = self._total = self._packed = 0
        self._batches: Any = None
        self._group = -1

    def _find_column(self, schema: Any) -> str:
        found = [field.name for field in schema if holds_files(field.type)]
        if self._field is not None:
            if self._field not in found:
                raise SourceError(
                    f"The column '{self._field}' of '{self.root}' holds no bytes of images; those that do: "
                    f"{', '.join(found) or 'none'}."
                )
            return self._field
        if not found:
            raise SourceError(
                f"No column of '{self.root}' holds the bytes of images (columns: {', '.join(schema.names)}); one must "
                "be binary, or a struct with a field 'bytes'. Where a column names files, give those files."
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
            paths = "." in self._leaf  # the struct of Hugging Face, which may name a file in place of its bytes
            raise DecodeError("the row holds no image" + ", at most the path of one; give the files" * paths)
        return value[:size]

    def packed(self, index: int) -> int | None:
        """The bytes that a row takes in the file, about, after it was read."""
        length = self._lengths.get(index)
        return None if length is None else min(length, int(self._ratio * length) + 2**12)

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
            self._group, self._next, self._total = group, int(self._starts[group]), 0
        share = (self._starts[group + 1] - self._starts[group]) / len(self.keys)
        while index >= self._next:
            check_total(self._total, self._packed, share)
            for plain in next(self._batches).column(0).to_pylist():
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
        """What the footer says of the column in a row group."""
        about = self._file.metadata.row_group(group)
        columns = [about.column(i) for i in range(about.num_columns)]
        return [column for column in columns if column.path_in_schema == self._leaf]

    def _opened_group(self, group: int) -> Any:
        """The batches of a row group, so small that they stay within the budget whatever the values are.

        Its pages say themselves what they unpack to; no value is larger than all of them.
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
