"""Files of compressed images: one image or many, and the model that decodes them if it is not the general one.

    8 bytes     89 49 4D 43 0D 0A 1A 0A: no text, and damaged by programs that take it for one
    records, each:
        byte       its kind
        varint     number of bytes of its content
        uint32     CRC-32 of kind and content
        bytes      content

Kinds of records, in this order:

    "H"  once: a byte, the version: 1 with loss, 2 lossless; 8 bytes, which model decodes; 8 bytes, which settings wrote
         it
    "M"  the model, as `imatlas.models.parts.packed_networks` describes; at most once
    "I"  images of one size: a varint, their number; a varint, the number of bytes of what follows about them, times 2,
         plus 1 if these bytes are deflated (without zlib's head); for each its key (a varint, how many bytes it shares
         with the beginning of the one before; a varint, how many follow; these, in UTF-8), and its metadata (varint,
         bytes): EXIF, XMP and ICC profile, each with its number of bytes as a varint before it; then `CodedImages`
    "O"  an image as a file of another format: as "I" with one image; then a varint, its channels, and the file
    "E"  the end: a varint, the number of all images

Numbers are little-endian; a varint is as in `imatlas.models.parts.coded_image`. Appending replaces the last record.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from imatlas.errors import DecodeError, InputError
from imatlas.images.encode_small import read_small
from imatlas.models.parts.coded_image import CodedImages, Reader, varint

MAGIC = b"\x89IMC\r\n\x1a\n"
LOSSY, LOSSLESS, HEAD = 1, 2, "<B8s8s"
MOST = {b"H": struct.calcsize(HEAD), b"M": 2**26, b"I": 2**31, b"O": 2**31, b"E": 16}
"""Bytes of the content of each kind of record, at most."""
LONGEST_HEAD = 1 + 9 + 4
MOST_TOGETHER, MOST_TOLD = 2**16, 2**28
"""Images of a record, and bytes of their keys and metadata."""


@dataclass(frozen=True)
class About:
    """What is kept of the file of an image besides its pixels."""

    exif: bytes = b""
    xmp: bytes = b""
    profile: bytes = b""


@dataclass(frozen=True)
class OtherFile:
    """An image as a file of another format."""

    channels: int
    content: bytes

    def to_bytes(self) -> bytes:
        """See the top of this file."""
        return varint(self.channels) + self.content

    @classmethod
    def from_bytes(cls, data: bytes) -> OtherFile:
        """The inverse of `to_bytes`."""
        reader = Reader(data)
        return cls(reader.varint(), reader.take(reader.rest()))

    def pixels(self) -> np.ndarray:
        """The images (1, H, W, C).

        Raises
        ------
        InputError
            If the file is damaged.
        """
        try:
            return read_small(self.content, self.channels)[None]
        except DecodeError as error:
            raise InputError(f"An image that is kept in another format cannot be read ({error}).") from None


@dataclass(frozen=True)
class Entry:
    """One image of a file: where its record is, its number in it, the checksum of the record, and the image's share of
    its bytes."""

    key: str
    place: int
    number: int
    checksum: int
    size: int


@dataclass
class CodedFile:
    """What is in a file of compressed images.

    Attributes
    ----------
    is_lossless : bool
    model : bytes
        Which model decodes them.
    settings : bytes
        A hash of the settings of the run that wrote them.
    weights : bytes or None
        The model, if the file holds it.
    entries : list of Entry
    is_complete : bool
        Whether the end was found; if not, the file was cut off, and `size` bytes of it are whole.
    checksum : int
        Changes with any record.
    """

    path: Path
    is_lossless: bool = False
    model: bytes = b""
    settings: bytes = b""
    weights: bytes | None = None
    entries: list[Entry] = field(default_factory=list)
    is_complete: bool = False
    size: int = 0
    checksum: int = 0

    @classmethod
    def open(cls, path: Path) -> CodedFile:
        """Read what is in a file.

        Raises
        ------
        InputError
            If it is no such file, or damaged.
        """
        found = cls(path)
        with open_file(path) as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise InputError(f"'{path.name}' is no file of compressed images (it does not begin like one).")
            found.size = len(MAGIC)
            for kind, content in _records(file, path.name):
                if found.is_complete:
                    raise _damaged(path.name, "data after its end")
                found._take(kind, content)
                found.checksum = zlib.crc32(content, found.checksum)
                if kind != b"E":
                    found.size = file.tell()
        if not found.model:
            raise _damaged(path.name, "it is cut off")
        return found

    def _take(self, kind: bytes, content: bytes) -> None:
        name = self.path.name
        try:
            if kind == b"H" and not self.model:
                version, self.model, self.settings = struct.unpack(HEAD, content)
                if version not in (LOSSY, LOSSLESS):
                    raise InputError(
                        f"'{name}' was written by another version of imatlas; update it: pip install -U imatlas"
                    )
                self.is_lossless = version == LOSSLESS
            elif kind == b"M" and self.model and not self.entries and self.weights is None:
                self.weights = content
            elif kind in (b"I", b"O") and self.model:
                keys, _, _ = _parse_images(content)
                checksum, size = zlib.crc32(content), len(content) // len(keys)
                self.entries += [Entry(key, self.size, i, checksum, size) for i, key in enumerate(keys)]
            elif kind == b"E" and self.model:
                if Reader(content).varint() != len(self.entries):
                    raise ValueError("images are missing")
                self.is_complete = True
            else:
                raise ValueError("unexpected kind of record")
        except (ValueError, struct.error) as error:
            raise _damaged(name, str(error)) from None

    def images(self, place: int) -> tuple[list[str], list[About], CodedImages | OtherFile]:
        """The keys, metadata and data of the images of the record at a place.

        Raises
        ------
        InputError
            If it is damaged.
        """
        with open_file(self.path) as file:
            file.seek(place)
            kind, content = next(_records(file, self.path.name))
        keys, about, rest = _parse_images(content)
        return keys, about, OtherFile.from_bytes(rest) if kind == b"O" else CodedImages.from_bytes(rest)


def open_file(path: Path) -> IO[bytes]:
    """A file, opened for reading.

    Raises
    ------
    InputError
        If there is none, or it cannot be read.
    """
    try:
        if not path.is_file():
            raise InputError(f"There is no file '{path}'.")
        return path.open("rb")
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}).") from None


def head_record(model: bytes, settings: bytes, *, lossless: bool = False) -> bytes:
    """The first record of a file."""
    return record(b"H", struct.pack(HEAD, LOSSLESS if lossless else LOSSY, model, settings))


def images_record(keys: Sequence[str], about: Sequence[About], coded: CodedImages | OtherFile) -> bytes:
    """The record of images."""
    parts, before = [], b""
    for key, each in zip(keys, about, strict=True):
        name = key.encode("utf-8", "surrogateescape")
        most = min(len(name), len(before))
        n_shared = next((i for i in range(most) if name[i] != before[i]), most)
        kept = b"".join(varint(len(part)) + part for part in (each.exif, each.xmp, each.profile))
        kept = kept if any((each.exif, each.xmp, each.profile)) else b""
        parts += [varint(n_shared), varint(len(name) - n_shared), name[n_shared:], varint(len(kept)), kept]
        before = name
    told = b"".join(parts)
    packed = zlib.compress(told, 9, -zlib.MAX_WBITS)
    is_packed = len(packed) < len(told)
    told = packed if is_packed else told
    head = varint(len(keys)) + varint(2 * len(told) + is_packed)
    return record(b"O" if isinstance(coded, OtherFile) else b"I", head + told + coded.to_bytes())


def end_record(n_images: int) -> bytes:
    """The last record."""
    return record(b"E", varint(n_images))


def record(kind: bytes, content: bytes) -> bytes:
    """A record with its head."""
    return kind + varint(len(content)) + struct.pack("<I", zlib.crc32(content, zlib.crc32(kind))) + content


def _records(file: IO[bytes], name: str) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the records from here on; a last one that is cut off is left out.

    Raises
    ------
    InputError
        If one is damaged.
    """
    end = os.fstat(file.fileno()).st_size
    while start := file.read(LONGEST_HEAD):
        head, place = Reader(start), file.tell() - len(start)
        kind = head.take(1)
        if kind not in MOST:
            raise _damaged(name, "unknown kind of record")
        try:
            size = head.varint()
            if size > MOST[kind]:
                raise _damaged(name, f"a record of {size:,} bytes")
            (checksum,) = head.unpack("<I")
        except (ValueError, struct.error):
            if len(start) == LONGEST_HEAD:
                raise _damaged(name, "a record of unknown size") from None
            return  # the file ends within the head
        if place + head.place + size > end:
            return
        file.seek(place + head.place)
        content = file.read(size)
        if zlib.crc32(content, zlib.crc32(kind)) != checksum:
            raise _damaged(name, "a checksum is wrong")
        yield kind, content


def _parse_images(content: bytes) -> tuple[list[str], list[About], bytes]:
    """Keys, metadata, and the rest."""
    reader = Reader(content)
    n = reader.varint()
    if not 1 <= n <= MOST_TOGETHER:
        raise ValueError(f"{n} images in a record")
    size = reader.varint()
    told = reader.take(size // 2)
    if size % 2:
        told = _inflated(told)
    each, keys, about = Reader(told), [], []
    name, n_bytes = b"", 0
    for _ in range(n):
        n_shared = each.varint()
        if n_shared > len(name):
            raise ValueError("a key shares more than the one before has")
        name = name[:n_shared] + each.take(each.varint())
        n_bytes += len(name)
        if n_bytes > MOST_TOLD:
            raise ValueError("its keys are too long")
        keys.append(name.decode("utf-8", "surrogateescape"))
        kept = Reader(each.take(each.varint()))
        about.append(About(*(kept.take(kept.varint()) for _ in range(3))) if kept.rest() else About())
    return keys, about, reader.take(reader.rest())


def _inflated(data: bytes) -> bytes:
    """Deflated bytes as they were; ValueError if there are too many."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = unpacker.decompress(data, MOST_TOLD)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("keys and metadata are cut off, or too long")
    return found


def _damaged(name: str, why: str) -> InputError:
    return InputError(f"'{name}' is damaged: {why}.")
