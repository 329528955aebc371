"""The cost of decoding, from the headers of a file, before a decoder sees it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from imatlas.errors import DecodeError

MAX_SCANS = 64
"""Scans of a JPEG that are read at any size; encoders write up to about 20."""

SCAN_PIXELS = 2**30
"""Limit of pixels times scans of a JPEG: attacks on decoders use hundreds of scans."""

PNG = b"\x89PNG\r\n\x1a\n"
JPEG_LS = 0xF7
"""Marker of the frame header of a JPEG-LS (ITU-T T.87)."""
_CODESTREAM = b"\xff\x4f\xff\x51"


class Jpeg(NamedTuple):
    """The frame header of a JPEG: samples per pixel at full scale, and whether decoding holds all of them.

    Sizes, depth and place are 0 if there is no frame header; `lossless` means SOF3 and its variants, and JPEG-LS.
    """

    samples: float
    buffered: bool
    width: int = 0
    height: int = 0
    bits: int = 0
    lossless: bool = False
    components: int = 0
    place: int = 0


_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def jpeg_frame(data: bytes) -> Jpeg:
    """The frame header of a JPEG; the defaults (3, True), an upper bound for common files, if there is none."""
    for marker, place in _markers(data):
        if marker in _SOF or marker == JPEG_LS:
            return _frame(data, place, marker)
    return Jpeg(3.0, True)


def jpeg_segments(data: bytes, marker: int) -> Iterator[bytes]:
    """The contents of the segments with a marker (0xE1: APP1) before the pixels of a JPEG."""
    for found, place in _markers(data):
        if found == 0xDA:
            return
        if found == marker:
            yield data[place + 4 : place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")]


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, its place) of the segments of a JPEG that have a length."""
    place = 2
    while place + 10 < len(data):
        if data[place] != 0xFF:
            place = data.find(b"\xff", place)
            if place < 0:
                break
            continue
        marker = data[place + 1]
        if marker in (0xFF, 0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
            continue
        yield marker, place
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")


def _frame(data: bytes, place: int, marker: int) -> Jpeg:
    header = data[place : place + 4 + 6 + 3 * 255]
    n = header[9]
    factors = [(b >> 4, b & 15) for b in header[11 : 10 + 3 * n : 3]]
    most = max((h * v for h, v in factors), default=1) or 1
    samples = sum(h * v for h, v in factors) / most if factors else float(n)
    height, width = struct.unpack_from(">HH", header, 5)
    buffered = marker not in (0xC0, 0xC1, 0xC9)
    lossless = marker in (0xC3, 0xC7, 0xCB, 0xCF, JPEG_LS)
    return Jpeg(max(1.0, samples), buffered, width, height, header[4], lossless, n, place)


def lerc_size(data: bytes) -> tuple[int, int]:
    """(width times depth, height) in the header of a LERC 2 file (Esri's specification, 2.0).

    (0, 0) for other files.
    """
    if data[:6] != b"Lerc2 " or len(data) < 22:
        return (0, 0)
    (version,) = struct.unpack_from("<i", data, 6)
    height, width = struct.unpack_from("<ii", data, 14 if version >= 3 else 10)
    depth = struct.unpack_from("<i", data, 22)[0] if version >= 4 and len(data) >= 26 else 1
    return (width * max(1, depth), height)


def zstd_size(data: bytes) -> int:
    """The unpacked size that a Zstandard frame declares (RFC 8878, 3.1.1).

    Raises
    ------
    DecodeError
        If it declares none, or other frames follow.
    """
    try:
        about = data[4]
        single, code = about >> 5 & 1, about >> 6
        place = 5 + (not single) + (0, 1, 2, 4)[about & 3]
        n = (single, 2, 4, 8)[code]
        size = int.from_bytes(data[place : place + n], "little") + (256 if n == 2 else 0)
        place += n
        last = int(data[:4] != b"\x28\xb5\x2f\xfd" or not n)
        while not last:
            block = int.from_bytes(data[place : place + 3], "little")
            last = block & 1
            place += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)  # one repeated byte, or all bytes
            last |= place > len(data)
    except IndexError:
        raise DecodeError("a damaged strip or tile in Zstandard") from None
    if place + 4 * (about >> 2 & 1) != len(data):
        raise DecodeError("a strip or tile in Zstandard without its unpacked size")
    return size


def check_scans(data: bytes, width: int, height: int) -> int:
    """The number of scans of a JPEG; refuses one that would take minutes to decode.

    Every scan is a pass over all pixels, however few bytes it takes.
    """
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS and scans * width * height > SCAN_PIXELS // 8:
        raise DecodeError(f"a JPEG file of {scans} scans, more than the limit of {MAX_SCANS}")
    return scans


class Png(NamedTuple):
    """The header of a PNG."""

    width: int
    height: int
    depth: int
    color: int
    interlaced: bool


def png_header(data: bytes, start: int = 0) -> Png | None:
    """The header of the PNG that begins at `start`; None if there is none."""
    if data[start : start + 8] != PNG or data[start + 12 : start + 16] != b"IHDR" or len(data) < start + 29:
        return None
    width, height, depth, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, start + 16)
    return Png(width, height, depth, color, bool(interlaced))


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of the content of each chunk of a PNG, up to its end; the last may be truncated."""
    place = 8
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, place + 8, place + 8 + length
        if kind == b"IEND":
            return
        place += 12 + length


def is_sound_chunk(data: bytes, start: int, end: int) -> bool:
    """Whether the checksum of a chunk is right."""
    return zlib.crc32(data[start - 4 : end]) == int.from_bytes(data[end : end + 4], "big")


def inner_sizes(data: bytes) -> list[tuple[int, int]]:
    """(width, height) of the PNG, JPEG 2000 and DIB pictures inside an icon, whose directory may be wrong."""
    sizes = []
    place = data.find(PNG)
    while place >= 0:
        header = png_header(data, place)
        if header is not None:
            sizes.append((header.width, header.height))
        place = data.find(PNG, place + 8)
    place = data.find(_CODESTREAM)
    while place >= 0:
        if len(data) >= place + 24:
            x1, y1, x0, y0 = struct.unpack_from(">IIII", data, place + 8)
            sizes.append((max(0, x1 - x0), max(0, y1 - y0)))
        place = data.find(_CODESTREAM, place + 4)
    if data[:4] == b"\x00\x00\x01\x00":
        for entry in range(struct.unpack_from("<H", data, 4)[0]):
            if len(data) < 6 + 16 * (entry + 1):
                break
            (offset,) = struct.unpack_from("<I", data, 6 + 16 * entry + 12)
            if len(data) >= offset + 12 and data[offset : offset + 4] == b"\x28\x00\x00\x00":
                width, height = struct.unpack_from("<ii", data, offset + 4)
                sizes.append((abs(width), abs(height) // 2))
    return sizes


class Jpeg2000(NamedTuple):
    """Memory in bytes for decoding a JPEG 2000: samples at full size, and records of its code blocks at any size.

    `levels` is how often its size can be halved; `bits` are those of the first channel.
    """

    samples: int
    records: int
    levels: int
    size: tuple[int, int]
    channels: int
    bits: int
    signed: bool


def jpeg2000(data: bytes) -> Jpeg2000:
    """The cost of decoding a JPEG 2000, from its SIZ and COD segments.

    The decoder holds whole tiles as 32-bit numbers, and a record per code block and precinct; a header of a few bytes
    can request millions of them.

    Raises
    ------
    DecodeError
        If the segments are missing.
    """
    start = data.find(_CODESTREAM)
    try:
        x1, y1, x0, y0, tile_w, tile_h, tile_x, tile_y = struct.unpack_from(">8I", data, start + 8)
        (bands,) = struct.unpack_from(">H", data, start + 40)
        place = start + 4 + int.from_bytes(data[start + 4 : start + 6], "big")
        while data[place] == 0xFF and data[place + 1] not in (0x52, 0x90):
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        levels, block_w, block_h = data[place + 9], data[place + 10] + 2, data[place + 11] + 2
        precincts = list(data[place + 14 : place + 15 + levels]) if data[place + 4] & 1 else []
        known = data[place + 1] == 0x52
        steps = [(max(1, data[start + 43 + 3 * i]), max(1, data[start + 44 + 3 * i])) for i in range(bands)]
    except (IndexError, struct.error):
        raise DecodeError("a damaged JPEG2000 file: its header cannot be read") from None
    if start < 0 or not known or not tile_w or not tile_h:
        raise DecodeError("a damaged JPEG2000 file: its header cannot be read")
    width, height = max(0, x1 - x0), max(0, y1 - y0)
    area = min(width, tile_w) * min(height, tile_h)
    samples = sum(area / (dx * dy) for dx, dy in steps)
    blocks = samples / 2.0 ** min(12, block_w + block_h) * 4 / 3
    small = min((min(p & 15, 15) + min(p >> 4, 15) for p in precincts), default=30)
    records = samples / 2.0 ** max(0, small) * 4 / 3
    n_tiles = -(-max(0, x1 - tile_x) // tile_w) * -(-max(0, y1 - tile_y) // tile_h)
    total = 300 * blocks + 200 * records * (3 if small < 30 else 0) + 2000 * n_tiles * bands
    depth = data[start + 42]
    return Jpeg2000(
        int(12 * samples + 4 * width * height),
        int(total),
        levels,
        (width, height),
        bands,
        (depth & 127) + 1,
        depth > 127,
    )
