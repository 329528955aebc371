"""The directories of a TIFF that are pictures, and what ImageJ, OME and tifffile say about its pages."""

from __future__ import annotations

import math
import re
import struct
from typing import NamedTuple

import tifffile

from imatlas.errors import DecodeError

_MAX_PAGES = 2**16
_MAX_BELOW = 16
"""Maximal number of subdirectories that are read."""
# Tags: new and old subfile type, width, height, subdirectories.
_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BELOW = 254, 255, 256, 257, 330
_SMALLER, _MASK, _OLD_SMALLER = 1, 4, 2
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
# What OME, ImageJ and tifffile state in text: numbers of planes, and where they begin.
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^<>]*>")
_SIZES = re.compile(r"""Size[CZT]\s*=\s*["'](\d{1,18})""")
_PLACES = re.compile(r"<(?:\w+:)?TiffData\b[^<>]*>")
_PLANES = re.compile(r"""(?:PlaneCount|NumPlanes)\s*=\s*["'](\d{1,18})""")
_COUNTS = re.compile(r"""(?:PlaneCount|NumPlanes|IFD|First[A-Z])\s*=\s*["'](\d{1,18})""")
_MODULO = re.compile(r"""(?:Start|End)\s*=\s*["'][-\d.]*\d{6}""")
_IMAGEJ = re.compile(r"(?:images|channels|slices|frames)=(\d{1,18})")
_SHAPE = re.compile(r'^\s*\{.{0,64}?"shape": \[((?:\d{1,18}, ){1,15}\d{1,18})\]')


class _Directory(NamedTuple):
    """The contents of one directory, and the offset of the next one."""

    next: int
    n_bytes: int
    whole: bool
    width: int
    height: int
    below: list[int]


class _Reader:
    """Reads directories of a classic TIFF or BigTIFF."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = "<" if data[:2] == b"II" else ">"
        big = b"+" in data[2:4]
        self.header = 8 if big else 4
        self._counter, self.pointer = self._order + ("Q" if big else "H"), self._order + ("Q" if big else "I")
        self._entry = 20 if big else 12
        self._inline = struct.calcsize(self.pointer)

    def first(self) -> int:
        return int(struct.unpack_from(self.pointer, self._data, self.header)[0])

    def starting_at(self, place: int) -> bytes:
        """The file with the directory at an offset as its first."""
        start = struct.pack(self.pointer, place)
        return self._data[: self.header] + start + self._data[self.header + len(start) :]

    def at(self, place: int) -> _Directory:
        """The directory at an offset.

        Raises
        ------
        struct.error
            If there is none.
        """
        (entries,) = struct.unpack_from(self._counter, self._data, place)
        start = place + struct.calcsize(self._counter)
        values: dict[int, list[int]] = {}
        for entry in range(start, start + entries * self._entry, self._entry):
            (name,) = struct.unpack_from(self._order + "H", self._data, entry)
            if name > _BELOW:  # tags are in order
                break
            if name in (_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BELOW):
                values[name] = self._values(entry)
        (following,) = struct.unpack_from(self.pointer, self._data, start + entries * self._entry)
        new, old, width, height = ((values.get(name) or [0])[0] for name in (_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT))
        whole = not new & (_SMALLER | _MASK) and old != _OLD_SMALLER
        return _Directory(following, entries * self._entry, whole, width, height, values.get(_BELOW, []))

    def _values(self, entry: int) -> list[int]:
        """The integers of an entry, of any width: some writers use two bytes instead of four."""
        (kind,) = struct.unpack_from(self._order + "H", self._data, entry + 2)
        (count,) = struct.unpack_from(self.pointer, self._data, entry + 4)
        code = _CODES.get(kind)
        if code is None:
            return []
        count = min(count, _MAX_BELOW)
        place = entry + 4 + self._inline
        if struct.calcsize(f"={count}{code}") > self._inline:
            (place,) = struct.unpack_from(self.pointer, self._data, place)
        try:
            return list(struct.unpack_from(f"{self._order}{count}{code}", self._data, place))
        except (struct.error, OverflowError):
            return []


def whole_pages(data: bytes) -> tuple[bytes, list[int]]:
    """A file, and its pages that are pictures: neither reduced copies nor masks, unless there is nothing else.

    If all pages are reduced copies and a full-size picture lies in a subdirectory, as cameras and some scanners write
    it, the file is returned with that directory as its first.
    """
    reader = _Reader(data)
    pages, below = _chain(data)
    if pages or not below:
        return data, pages or [0]
    found: dict[int, int] = {}
    for place in below:
        try:
            directory = reader.at(place)
        except (struct.error, OverflowError):
            continue
        if directory.whole and directory.width and directory.height:
            found[place] = directory.width * directory.height
    if not found:
        return data, [0]
    moved = reader.starting_at(max(found, key=lambda place: found[place]))
    return moved, _chain(moved)[0] or [0]


def from_page(data: bytes, number: int) -> bytes:
    """A file without the pages before one, as Pillow opens no file whose first page it cannot read."""
    reader = _Reader(data)
    place = reader.first()
    for _ in range(number):
        place = reader.at(place).next
    return reader.starting_at(place) if number else data


def _chain(data: bytes) -> tuple[list[int], list[int]]:
    """The full-size pages in the chain of directories, which may be circular in a damaged file, and subdirectories."""
    visited: set[int] = set()
    whole: list[int] = []
    below: list[int] = []
    total = 0
    reader = _Reader(data)
    try:
        place = reader.first()
        while place and len(visited) < _MAX_PAGES:
            if place in visited:
                raise DecodeError("a damaged TIFF file: its list of pages is circular")
            directory = reader.at(place)
            if directory.whole:
                whole.append(len(visited))
            elif len(below) < _MAX_BELOW:
                below += directory.below
            visited.add(place)
            total += directory.n_bytes
            if total > 2 * len(data) + 2**16:  # every reader parses all of them
                raise DecodeError("a damaged TIFF file: its lists of tags overlap")
            place = directory.next
    except (struct.error, OverflowError):
        if not visited:
            raise DecodeError("a truncated TIFF file: it ends before the picture does") from None
    return whole, below


def is_series(file: tifffile.TiffFile, n_pages: int, data: bytes) -> bool:
    """Whether the pages of a file are not frames by themselves, and the file can hold what it declares.

    Either ImageJ or OME metadata declare the pages to be channels; or there is one page, followed by the pixels of
    further frames, as ImageJ and tifffile write large stacks.
    """
    text = str(file.pages.first.description)[: 2**24]
    if n_pages < 2:
        n_frames = _frames_behind(file.pages.first, text)
        return n_frames > 1 and _holds(file, n_frames)
    if not (file.is_imagej or file.is_ome):
        return False
    most = 4 * n_pages + 64
    if file.is_ome:
        # A declaration beyond the pages is one file of many, or wrong: pages are frames then.
        sizes = [_planes(pixels, most) for pixels in _PIXELS.findall(text)]
        if max(sizes, default=0) > most or _placed(text, max(sizes, default=1)) > 4 * most:
            return False
        if max((int(n) for n in _COUNTS.findall(text)), default=0) > most or _MODULO.search(text):
            return False
    else:
        page = file.pages.first
        claims = [int(n) for n in _IMAGEJ.findall(text)]
        if max(claims, default=0) > most and max(claims) * page.imagewidth * page.imagelength > len(data):
            return False
    return "C" in file.series[0].axes


def _frames_behind(page: tifffile.TiffPage, text: str) -> int:
    """The number of frames that the only page of a file declares."""
    if page.compression != 1 or page.dtype is None:
        return 1
    if page.is_imagej:
        claims = {name: int(n) for name, n in re.findall(r"^(\w+)=(\d{1,18})\s*$", text, re.MULTILINE)}
        return claims.get("images", 1)
    shape = _SHAPE.match(text)
    if shape is None:
        return 1
    whole = math.prod(int(n) for n in shape[1].split(", "))
    one = page.imagewidth * page.imagelength * max(1, page.samplesperpixel)
    return whole // one if one and whole % one == 0 else 1


def _holds(file: tifffile.TiffFile, n_frames: int) -> bool:
    """Whether this many frames follow each other from the first byte of the only page."""
    page = file.pages.first
    one = page.imagewidth * page.imagelength * max(1, page.samplesperpixel) * page.bitspersample // 8
    if page.bitspersample % 8 or not page.dataoffsets:
        return False
    if min(page.dataoffsets) + n_frames * one > file.filehandle.size:
        return False
    series = file.series[0]
    return series.dataoffset is not None and math.prod(series.shape) * series.dtype.itemsize == n_frames * one


def _placed(text: str, all_planes: int) -> int:
    """The total number of planes in the TiffData elements of OME, which a reader goes through one by one."""
    total = 0
    for element in _PLACES.findall(text):
        count = _PLANES.search(element)
        total += int(count[1]) if count else 1 if "IFD" in element else all_planes  # the default of the OME schema
    return total


def _planes(pixels: str, most: int) -> int:
    """The product of the sizes in a Pixels element of OME, capped at `most` + 1."""
    product = 1
    for size in _SIZES.finditer(pixels):
        product = min(product * int(size[1]), most + 1)
    return product
