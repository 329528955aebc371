"""Boxes of ISO files (JPEG 2000, AVIF, HEIF): color and bit depth, which decoders do not report."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_MOST = 4096


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of the content of each box between two offsets; stops at the first invalid one."""
    end = len(data) if end is None else end
    for _ in range(_MOST):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        size = size or end - start
        if size < head or start + size > end:
            return
        yield kind, start + head, start + size
        start += size


def inside(data: bytes, *path: bytes) -> tuple[int, int]:
    """Start and end of the content of the first box on a path ("meta", "iprp"); (0, 0) if there is none."""
    start, end = 0, len(data)
    for name in path:
        found = next(((a, b) for kind, a, b in boxes(data, start, end) if kind == name), None)
        if found is None:
            return 0, 0
        start, end = found
        start += 4 * (name in (b"meta",))  # these begin with a version
    return start, end


def properties(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, content) of each property of the primary picture of an AVIF or HEIF (ISO/IEC 23008-12, 9.3)."""
    start, end = inside(data, b"meta", b"iprp", b"ipco")
    all_of_them = [(kind, data[a:b]) for kind, a, b in boxes(data, start, end)]
    try:
        start, end = inside(data, b"meta", b"pitm")
        main = int.from_bytes(data[start + 4 : end], "big")
        start, end = inside(data, b"meta", b"iprp", b"ipma")
        its_own = _associated(data[start:end], main)
    except (struct.error, IndexError):
        its_own = []
    return [all_of_them[i - 1] for i in its_own if 0 < i <= len(all_of_them)] or all_of_them


def _associated(box: bytes, main: int) -> list[int]:
    """The numbers of the properties of an item, from the box 'ipma'."""
    (flags, n_items) = struct.unpack_from(">II", box)
    long_names, long_numbers = flags >> 24 > 0, flags & 1
    place = 8
    for _ in range(min(n_items, _MOST)):
        (item,) = struct.unpack_from(">I" if long_names else ">H", box, place)
        place += 4 if long_names else 2
        count = box[place]
        place += 1
        wide = 2 if long_numbers else 1
        mask = 0x7FFF if long_numbers else 0x7F
        if item == main:
            return [int.from_bytes(box[place + wide * i : place + wide * (i + 1)], "big") & mask for i in range(count)]
        place += wide * count
    return []


def heif_bits(data: bytes) -> int:
    """Bits per sample of the primary picture of an AVIF or HEIF; 8 by default."""
    for kind, content in properties(data):
        if kind == b"pixi" and len(content) > 5:
            return max(content[5 : 5 + content[4]], default=8)
        if kind == b"av1C" and len(content) > 2 and content[2] & 0x40:
            return 12 if content[2] & 0x20 else 10
    return 8
