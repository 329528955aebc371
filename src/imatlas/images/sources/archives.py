"""Archives of images: ZIP and TAR, compressed or not."""

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
from imatlas.images.sources.zip_members import Member, packed_size

_Keyed = TypeVar("_Keyed", bound="tuple[Any, ...]")

LINK = "a link in an archive, which is not followed"
"""Why a symbolic link is skipped."""


Place = tuple[int, int, int, bool]
"""A file in a TAR: offset, size, time, and whether it is sparse."""


def _plain(name: str) -> str:
    """The normalized name of a TAR member."""
    return str(PurePosixPath(name)).lstrip("/")


class Archive:
    """Base of the archives: files inside one file, read by position under a lock."""

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

        `taken` maps each name to its last number, so that many equal names take linear time.
        """
        key = base = member_key(name)
        while key in taken:
            taken[base] += 1
            key = f"{base} ({taken[base]})"
        taken[key] = 1
        return key

    def _without_own_output(self, members: list[_Keyed]) -> list[_Keyed]:
        """The members, each starting with its key, outside output folders of imatlas."""
        own = own_folders(member[0] for member in members)
        self.skipped += [(f"{folder}/", NOT_A_SOURCE.format(what)) for folder, what in own.items()]
        if not own:
            return members
        starts = tuple(f"{folder}/" for folder in own)
        return [member for member in members if not member[0].startswith(starts)]

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        assert state["root"] is not None
        self.__init__(state["root"])  # type: ignore[misc]


class ZipSource(Archive):
    """The files in a ZIP archive."""

    def _connect(self) -> None:
        assert self.root is not None
        self._zip = zipfile.ZipFile(self.root)
        taken: dict[str, int] = {}
        members = [m for m in self._zip.infolist() if not m.is_dir() and not self._is_link(m)]
        named = sorted((self._unique(m.filename, taken), i) for i, m in enumerate(members))
        named = self._without_own_output(named)
        self.keys = [key for key, _ in named]
        self._members = [members[i] for _, i in named]
        self._overlapping = _overlapping(self._members)
        self._size = os.path.getsize(self.root)
        self._totals = _totals([m.header_offset for m in self._members], [m.file_size for m in self._members])
        if not self.keys:
            raise SourceError(f"There are no files in '{self.root}'; give an archive with images.")

    def _is_link(self, member: zipfile.ZipInfo) -> bool:
        """Whether a member is a symbolic link; links are recorded as skipped."""
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
            raise DecodeError("overlaps another member of the archive, as in a decompression bomb")
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
    """The unpacked size of all members up to each one, by offset; members too large to read count 0."""
    total = np.zeros(len(places), np.int64)
    order = sorted(range(len(places)), key=places.__getitem__)
    total[order] = np.cumsum([sizes[i] if sizes[i] <= MAX_BYTES else 0 for i in order])
    return total


def _overlapping(members: list[zipfile.ZipInfo]) -> set[int]:
    """The members that begin inside the data of another one."""
    found: set[int] = set()
    end = 0
    for index in sorted(range(len(members)), key=lambda i: members[i].header_offset):
        member = members[index]
        if member.header_offset < end:
            found.add(index)
        end = max(end, member.header_offset + 30 + len(member.filename) + member.compress_size)
    return found


class _Headers:
    """A TAR file as tarfile reads it while listing members: at most 1 MiB of headers per member.

    PAX headers, which are parsed in Python, are also bounded in total.
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


class TarSource(Archive):
    """The files in a TAR archive; a compressed one is unpacked once, as a whole, to an unnamed temporary file."""

    def _connect(self) -> None:
        assert self.root is not None
        self._lock = threading.Lock()
        self._file: IO[bytes] = open(self.root, "rb")  # noqa: SIM115 - stays open as long as the source
        weakref.finalize(self, self._file.close)
        self._marks: np.ndarray | None = None
        if self._file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7"):
            packed, self._file = self._file, tempfile.TemporaryFile()  # noqa: SIM115
            weakref.finalize(self, self._file.close)
            with packed:
                self._unpack(packed)
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
                    if n % 1000 == 0:  # folders and links count too
                        check_members(n, os.path.getsize(self.root), str(self.root))
            except tarfile.TarError as error:
                self.skipped.append((self.root.name, f"the archive ends early ({reason_of(error)})"))
        members += [(self._unique(name, taken), *place) for name, place in self._linked(later, known)]
        members = self._without_own_output(sorted(members, key=lambda member: member[0]))
        self.keys = [member[0] for member in members]
        self._places = [member[1:4] for member in members]
        self.dated = len({mtime for *_, mtime in self._places}) > 1
        self._totals = _totals([member[1] for member in members], [member[2] for member in members])
        self._sparse = {i for i, member in enumerate(members) if member[4]}
        if not self.keys:
            why = f" ({self.skipped[-1][1]})" if self.skipped else ""
            raise SourceError(f"There are no files in '{self.root}'{why}; give an archive with images.")

    def _place(
        self, member: tarfile.TarInfo, known: dict[str, Place], later: dict[str, str]
    ) -> tuple[int, int, int, bool] | None:
        """Offset, size, time, and sparseness of the data of a member; None if it is not a file.

        A hard link has the data of another file. Adds to `known`, the places by name, and to `later`, the links whose
        file follows them.
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
            self.skipped.append((member_key(member.name), "a pipe or a device, not a file"))
        return None

    def _linked(self, later: dict[str, str], known: dict[str, Place]) -> Iterator[tuple[str, Place]]:
        """Hard links to files that come after them in the archive, with the data of these."""
        follows = {_plain(name): _plain(target) for name, target in later.items()}
        for name in later:
            visited = {_plain(name)}
            target = follows[_plain(name)]
            while target in follows and target not in visited:
                visited.add(target)
                target = follows[target]
            if target in known:
                yield name, known[target]
            else:
                self.skipped.append((member_key(name), "a hard link to a file that is not in the archive"))

    def _unpack(self, packed: IO[bytes]) -> None:
        """Copy the whole decompressed stream to the temporary file; refuse a decompression bomb."""
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
        """The bytes of the archive that a member was unpacked from, estimated from the marks of `_unpack`."""
        offset, size, _ = self._places[index]
        if self._marks is None:
            return size
        first, last = np.interp([offset, offset + size], self._marks[:, 0], self._marks[:, 1])
        return min(size, int(last - first) + 2**12)

    def stamps(self) -> list[tuple[int, int]] | None:
        """Size of each member, and a checksum of its modification time and offset; and if all have the same time, as in
        archives that are made reproducibly, of that of the archive."""
        assert self.root is not None
        of_all = "" if self.dated else f" {self.root.stat().st_mtime_ns}"
        return [(size, zlib.crc32(f"{mtime} {offset}{of_all}".encode())) for offset, size, mtime in self._places]

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
