"""Color information of files outside ICC profiles, converted to such profiles."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from PIL import ExifTags, Image

from imatlas.images.formats.color import (
    ADOBE_GAMMA,
    ADOBE_PRIMARIES,
    MAX_PROFILE,
    SRGB_PRIMARIES,
    profile_of,
    profile_of_codes,
)
from imatlas.images.formats.headers import is_sound_chunk, png_chunks
from imatlas.images.formats.iso_boxes import boxes, inside, properties


def state_profile(image: Image.Image, data: bytes, format: str) -> list[str]:
    """Set the profile (`info["icc_profile"]`) that the file of an opened picture states; return notes for the user."""
    image.info["icc_profile"], note = stated_profile(image, data, format)
    return [note] if note else []


def stated_profile(image: Image.Image, data: bytes, format: str) -> tuple[bytes, str | None]:
    """The profile that a file, or a picture in memory (no data), states in any form, and a note."""
    profile = image.info.get("icc_profile") or b""
    note = None
    if format == "PNG" and data:
        profile, note = _of_png(data, profile)
    elif format == "PNG" and not profile and "srgb" not in image.info:
        profile = _of_gamma(image.info.get("gamma", 0.0), image.info.get("chromaticity", ()))
    elif format == "HEIF" and not profile and isinstance(image.info.get("nclx_profile"), dict):
        codes = image.info["nclx_profile"]
        profile, note = profile_of_codes(codes["color_primaries"], codes["transfer_characteristics"])
    elif format == "AVIF" and not profile:
        profile, note = _of_avif(data)
    elif format == "JPEG2000" and not profile:
        profile = _of_jpeg2000(data)
    elif format == "BMP":
        profile = profile_of_bmp(data)
    if not profile and note is None and "exif" in image.info and is_adobe_rgb(image.getexif()):
        profile = profile_of(ADOBE_PRIMARIES, ADOBE_GAMMA)
    return profile, note


def is_adobe_rgb(exif: Image.Exif) -> bool:
    """Whether a camera marked its colors as Adobe RGB, by the interoperability index "R03" (DCF 2.0)."""
    try:
        name = exif.get_ifd(ExifTags.IFD.Interop).get(1, "")
        space = exif.get_ifd(ExifTags.IFD.Exif).get(0xA001, 65535)
    except Exception:
        return False
    return space != 1 and str(name).strip("\0 ") == "R03"


def _of_png(data: bytes, profile: bytes) -> tuple[bytes, str | None]:
    """The first of cICP, iCCP, sRGB, and gAMA with cHRM in a PNG (third edition, 4.3)."""
    stated: dict[bytes, bytes] = {}
    for kind, start, end in png_chunks(data):
        if kind in (b"IDAT", b"IEND"):
            break
        if kind in (b"cICP", b"sRGB", b"gAMA", b"cHRM") and is_sound_chunk(data, start, end):
            stated.setdefault(kind, data[start:end])
    codes = stated.get(b"cICP", b"")
    if len(codes) == 4 and codes[2] == 0:
        return profile_of_codes(codes[0], codes[1], bool(codes[3]))
    if profile or b"sRGB" in stated:
        return profile, None
    gamma = int.from_bytes(stated.get(b"gAMA", b"")[:4], "big") / 100000
    points = stated.get(b"cHRM", b"")
    return _of_gamma(gamma, [x / 100000 for x in struct.unpack(">8I", points)] if len(points) == 32 else ()), None


def _of_gamma(gamma: float, points: Sequence[float]) -> bytes:
    """A profile for an encoding exponent (0: none) and primaries; b"" for values that mean sRGB."""
    exponent = 1 / gamma if 0.1 < gamma < 10 else 2.2
    is_srgb = abs(exponent - 2.2) < 0.05
    primaries = points if len(points) == 8 else SRGB_PRIMARIES
    if is_srgb and max(abs(x - y) for x, y in zip(primaries, SRGB_PRIMARIES, strict=True)) < 0.005:
        return b""
    return profile_of(primaries, None if is_srgb else exponent)


def _of_avif(data: bytes) -> tuple[bytes, str | None]:
    colors = [content for kind, content in properties(data) if kind == b"colr"]
    for content in colors:
        if content[:4] in (b"prof", b"rICC"):
            return content[4:], None
    for content in colors:
        if content[:4] == b"nclx" and len(content) >= 11:
            # The decoder has applied the matrix coefficients and the range.
            return profile_of_codes(*struct.unpack_from(">HH", content, 4))
    return b"", None


def jpeg2000_color(data: bytes) -> tuple[int, bytes]:
    """(enumerated color space or 0, ICC profile or further parameters) of a JPEG 2000.

    From the box 'colr' (ISO/IEC 15444-1, I.5.3.3).
    """
    start, end = inside(data, b"jp2h")
    for kind, a, b in boxes(data, start, end):
        if kind == b"colr" and b - a > 3:
            if data[a] in (2, 3):
                return 0, data[a + 3 : b]
            if data[a] == 1 and b - a >= 7:
                return int.from_bytes(data[a + 3 : a + 7], "big"), data[a + 7 : b]
    return 0, b""


def _of_jpeg2000(data: bytes) -> bytes:
    space, profile = jpeg2000_color(data)
    return b"" if space else profile[: MAX_PROFILE + 1]


def profile_of_bmp(data: bytes) -> bytes:
    """The profile embedded in a BMP with a version 5 header, or one of its primaries and exponents."""
    size = int.from_bytes(data[14:18], "little")
    if size < 108 or len(data) < 14 + size:
        return b""
    kind = data[70:74][::-1]
    if kind == b"MBED" and size >= 124:
        start, length = struct.unpack_from("<II", data, 14 + 112)
        return data[14 + start : 14 + start + min(length, MAX_PROFILE + 1)]
    if data[70:74] == bytes(4):  # calibrated colors: XYZ of red, green and blue in 2.30 bits, exponents in 16.16
        return _of_calibrated(data)
    return b""


def _of_calibrated(data: bytes) -> bytes:
    columns = [struct.unpack_from("<3I", data, 74 + 12 * i) for i in range(3)]
    exponents = [value / 65536 for value in struct.unpack_from("<3I", data, 110)]
    sums = [sum(column) for column in columns]
    if not all(sums) or not all(0.1 < exponent < 10 for exponent in exponents):
        return b""  # most programs leave them empty
    white = [sum(column[i] for column in columns) for i in range(3)]
    points = [white, *columns]
    primaries = [value / sum(point) for point in points for value in point[:2]]
    return profile_of(primaries, exponents[1])
