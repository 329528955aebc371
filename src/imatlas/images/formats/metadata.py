"""Metadata of a picture file that a changed picture keeps: EXIF and XMP with their orientation reset, dates, places.

EXIF is changed in place, not parsed and written again: makers' notes hold offsets that nobody else can adjust.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image

from imatlas.images.formats.headers import is_sound_chunk, jpeg_segments, png_chunks

_ORIENTATION, _EXIF_FOLDER, _WIDTH, _HEIGHT = 0x0112, 0x8769, 0xA002, 0xA003
_SIZES = {3: "H", 4: "I"}
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)[2-8]")
_KEPT_CHUNKS = (b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME")
_COLOR_CHUNKS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
_XMP_OF_PNG = b"XML:com.adobe.xmp\0"
_XMP_OF_JPEG = b"http://ns.adobe.com/xap/1.0/\0"

_TIFF_TEXTS = (270, 271, 272, 305, 306, 315, 316, 33432)  # description, maker, model, software, time, artist, rights
_TIFF_PLACES = (33550, 33922, 34264, 34735, 34736, 34737)  # GeoTIFF
_TIFF_XMP, _TIFF_RESOLUTION = 700, (282, 283, 296)


@dataclass(frozen=True)
class Metadata:
    """What a file says about its picture, as a picture that is upright keeps it.

    Attributes
    ----------
    exif : bytes
        Without the "Exif" of a JPEG before it; b"" if there is none.
    xmp : bytes
    dpi : (float, float), optional
    chunks, colors : bytes
        Of a PNG: the chunks that are kept as they are, and those that state its colors.
    tags : tuple
        Of a TIFF: (code, type, count, value) of each tag that is kept.
    """

    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    chunks: bytes = b""
    colors: bytes = b""
    tags: tuple[tuple[int, int, int, Any], ...] = ()


def metadata_of(data: bytes, format: str, size: tuple[int, int], scale: float = 1) -> Metadata:
    """What a file says about its picture, which is now of `size` (width, height), `scale` times as large as it was.

    Damaged metadata are left out, as the picture itself can be read.
    """
    try:
        if format == "TIFF":
            return Metadata(tags=tuple(_tiff_tags(data, scale)))
        if format == "PNG":
            return _of_png(data, size)
        if format == "JPEG":
            return _of_jpeg(data, size)
        info = Image.open(BytesIO(data)).info
    except Exception:
        return Metadata()
    xmp = info.get("xmp", b"")
    return Metadata(_exif(info.get("exif", b""), size), _upright_xmp(xmp if isinstance(xmp, bytes) else b""))


def _of_jpeg(data: bytes, size: tuple[int, int]) -> Metadata:
    exif = xmp = b""
    for content in jpeg_segments(data, 0xE1):
        if content[:6] == b"Exif\0\0" and not exif:
            exif = content
        elif content.startswith(_XMP_OF_JPEG) and not xmp:
            xmp = content[len(_XMP_OF_JPEG) :]
    dpi = Image.open(BytesIO(data), formats=("JPEG",)).info.get("dpi")
    return Metadata(_exif(exif, size), _upright_xmp(xmp), dpi)


def _of_png(data: bytes, size: tuple[int, int]) -> Metadata:
    exif, kept, colors = b"", [], []
    for kind, start, end in png_chunks(data):
        if kind not in (b"eXIf", *_COLOR_CHUNKS, *_KEPT_CHUNKS) or not is_sound_chunk(data, start, end):
            continue
        content = data[start:end]
        if kind == b"eXIf":
            exif = content
        elif kind in _COLOR_CHUNKS:
            colors.append(png_chunk(kind, content))
        elif kind == b"iTXt" and content.startswith(_XMP_OF_PNG):
            if content[len(_XMP_OF_PNG)] == 0:  # not compressed
                kept.append(png_chunk(kind, _upright_xmp(content)))
        elif not content.startswith(b"Raw profile type"):
            kept.append(png_chunk(kind, content))
    return Metadata(_exif(exif, size), chunks=b"".join(kept), colors=b"".join(colors))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _upright_xmp(xmp: bytes) -> bytes:
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def _exif(exif: bytes, size: tuple[int, int]) -> bytes:
    """EXIF of an upright picture of a size, without its thumbnail, which shows the picture as it was."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 14:
        return b""
    changed = bytearray(exif)
    try:
        first = struct.unpack_from(f"{order}I", exif, 4)[0]
        inner = 0
        for code, kind, place in _entries(exif, first, order):
            if code == _ORIENTATION and kind in _SIZES:
                struct.pack_into(order + _SIZES[kind], changed, place, 1)
            elif code == _EXIF_FOLDER and kind == 4:
                inner = struct.unpack_from(f"{order}I", exif, place)[0]
        n = struct.unpack_from(f"{order}H", exif, first)[0]
        struct.pack_into(f"{order}I", changed, first + 2 + 12 * n, 0)  # no further folder: that of the thumbnail
        values = {_WIDTH: size[0], _HEIGHT: size[1]}
        for code, kind, place in _entries(exif, inner, order) if inner else ():
            if code in values and kind in _SIZES and values[code] < 1 << 16:
                struct.pack_into(order + _SIZES[kind], changed, place, values[code])
    except struct.error:
        return b""
    return bytes(changed)


def _entries(exif: bytes, start: int, order: str) -> Iterator[tuple[int, int, int]]:
    """Code, type and place of the value of each entry of a folder of EXIF with one value."""
    (n,) = struct.unpack_from(f"{order}H", exif, start)
    for i in range(n):
        code, kind, count = struct.unpack_from(f"{order}HHI", exif, start + 2 + 12 * i)
        if count == 1:
            yield code, kind, start + 2 + 12 * i + 8


def _tiff_tags(data: bytes, scale: float) -> Iterator[tuple[int, int, int, Any]]:
    """The tags of the first page of a TIFF that a picture of it keeps; places on Earth only at the same scale."""
    from imatlas.images.formats.tiff import first_tags

    for code, kind, count, value in first_tags(data):
        if code in _TIFF_TEXTS or code in _TIFF_RESOLUTION or (code in _TIFF_PLACES and scale == 1):
            yield code, kind, count, value
        elif code == _TIFF_XMP and isinstance(value, bytes):
            yield code, kind, count, _upright_xmp(value)
