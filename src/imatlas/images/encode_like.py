"""A changed picture as a file like its original: format, depth, colors and metadata."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from imatlas.images.formats.headers import PNG
from imatlas.images.formats.metadata import Metadata, metadata_of, png_chunk
from imatlas.images.formats.sniff import suffix_of
from imatlas.images.formats.warnings import quiet
from imatlas.images.picture import Picture

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "NPY": (".npy",),
}
"""Formats that are written, and their file name suffixes; the first is the usual one."""

QUALITY = 95
"""Of lossy formats, at least."""

_BAND = 2**22
_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


@dataclass(frozen=True)
class Encoded:
    """A file: its bytes, its format, and what differs from its original, in words."""

    content: bytes
    format: str
    notes: tuple[str, ...] = ()


@quiet()
def encode_like(pixels: np.ndarray, picture: Picture, data: bytes = b"", *, format: str | None = None) -> Encoded:
    """Pixels as a file of the format of another picture.

    JPEG, PNG, TIFF, WebP and NPY stay what they are; other formats, and pixels that a format cannot hold, become PNG,
    or TIFF for floats and more channels.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, C)
        Upright, with the dtype and channels of `picture`, of any size.
    picture : Picture
        As `read_frames(…, background=None, own_colors=True)` returns it.
    data : bytes
        The file that it was read from; b"" if there is none.
    format : str, optional
        One of `SUFFIXES` instead.
    """
    wanted = format or picture.format
    alpha = picture.kind.alpha
    chosen = wanted
    if not _holds(wanted, pixels, alpha):
        chosen = "PNG" if _holds("PNG", pixels, alpha) else "TIFF"
    notes = () if chosen == wanted or not data else (f"{wanted} written as {chosen}",)
    height, width = pixels.shape[:2]
    about = metadata_of(data, picture.format, (width, height), height / picture.height) if data else Metadata()
    colors = chosen == "PNG" and picture.format == "PNG" and bool(about.colors)
    profile = b"" if colors else picture.profile
    if chosen in ("PNG", "TIFF"):
        return Encoded(_lossless(chosen, pixels, alpha, profile, about), chosen, notes)
    if chosen == "NPY":
        out = BytesIO()
        np.save(out, pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return Encoded(out.getvalue(), chosen, notes)
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    options: dict[str, Any] = {"icc_profile": profile or None}
    if about.exif:
        options["exif"] = b"Exif\0\0" + about.exif
    if about.xmp and len(about.xmp) < 65_000:
        options["xmp"] = about.xmp
    if chosen == "JPEG":
        options |= _jpeg_options(data if picture.format == "JPEG" else b"", about)
    else:
        options |= {"lossless": True} if b"VP8L" in data[:4096] else {"quality": QUALITY, "method": 4}
    out = BytesIO()
    image.save(out, chosen, **options)
    return Encoded(out.getvalue(), chosen, notes)


@quiet()
def encode_lossless(pixels: np.ndarray, *, alpha: bool, profile: bytes, about: Metadata) -> Encoded:
    """Pixels (H, W, C) as a PNG, or as a TIFF if a PNG cannot hold them, with what is known about them."""
    format = "PNG" if _holds("PNG", pixels, alpha) else "TIFF"
    return Encoded(_lossless(format, pixels, alpha, profile, about), format)


def _lossless(format: str, pixels: np.ndarray, alpha: bool, profile: bytes, about: Metadata) -> bytes:
    """A PNG or TIFF."""
    if format == "PNG":
        return b"".join(_png(pixels, profile, about))
    from imatlas.images.formats.tiff import encode_tiff

    return encode_tiff(pixels, alpha=alpha, profile=profile, tags=about.tags)


def suffix_like(key: str, format: str) -> str:
    """The suffix of a file name for a format: that of `key`, in its case, if it means this format."""
    suffix = suffix_of(key)
    return key[-len(suffix) :] if suffix in SUFFIXES[format] else SUFFIXES[format][0]


def _holds(format: str, pixels: np.ndarray, alpha: bool) -> bool:
    """Whether a format holds pixels (H, W, C) without loss of depth, channels or alpha."""
    channels, bits8 = pixels.shape[2], pixels.dtype == np.uint8
    pictures = channels - alpha in (1, 3)
    return {
        "JPEG": bits8 and pictures and not alpha and max(pixels.shape) <= 65_500,
        "WEBP": bits8 and channels in (3, 4) and pictures and max(pixels.shape) <= 16_383,
        "PNG": pixels.dtype in (np.uint8, np.uint16) and pictures,
        "TIFF": True,
        "NPY": True,
    }.get(format, False)


def _jpeg_options(data: bytes, about: Metadata) -> dict[str, Any]:
    """Quantization no coarser than that of the original file, nor than quality 95, and its progressive mode."""
    options: dict[str, Any] = {"quality": QUALITY, "subsampling": 0}
    if about.dpi:
        options["dpi"] = about.dpi
    if not data:
        return options
    original = Image.open(BytesIO(data), formats=("JPEG",))
    tables = [table for _, table in sorted(original.quantization.items())][:2]  # type: ignore[attr-defined]
    small = BytesIO()
    Image.new("L" if len(tables) == 1 else "RGB", (8, 8)).save(small, "JPEG", quality=QUALITY)
    own = Image.open(small).quantization  # type: ignore[attr-defined]
    finer = [
        [min(a, b) for a, b in zip(table, own[min(i, len(own) - 1)], strict=True)] for i, table in enumerate(tables)
    ]
    options |= {"quality": -1, "qtables": finer}  # Pillow would scale tables by a quality
    return options | {"progressive": bool(original.info.get("progressive"))}


def _png(pixels: np.ndarray, profile: bytes, about: Metadata) -> Iterator[bytes]:
    """The parts of a PNG of 8 or 16 bits; Pillow writes no 16-bit colors."""
    height, width, channels = pixels.shape
    depth = 8 * pixels.dtype.itemsize
    yield PNG + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, _COLOR_TYPES[channels], 0, 0, 0))
    if profile:
        yield png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile))
    yield about.colors if not profile else b""
    if about.exif:
        yield png_chunk(b"eXIf", about.exif)
    if about.xmp:
        yield png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + about.xmp)
    yield about.chunks
    packer = zlib.compressobj(4)
    row, step = width * channels * pixels.dtype.itemsize, channels * pixels.dtype.itemsize
    before = np.zeros(row, np.uint8)
    rows = max(1, _BAND // row)
    for top in range(0, height, rows):
        band = np.ascontiguousarray(pixels[top : top + rows], pixels.dtype.newbyteorder(">"))
        raw = band.view(np.uint8).reshape(len(band), row)
        packed = packer.compress(_filtered(np.concatenate([before[None], raw]), step).tobytes())
        before = raw[-1]
        if packed:
            yield png_chunk(b"IDAT", packed)
    yield png_chunk(b"IDAT", packer.flush()) + png_chunk(b"IEND", b"")


def _filtered(raw: np.ndarray, step: int) -> np.ndarray:
    """Rows (h + 1, n) of bytes, the first being the row above, as filtered rows (h, n + 1), type first (PNG, 9).

    Each row takes the filter, Sub, Up or Average, with the smallest sum of absolute differences.
    """
    here = raw[1:]
    left = np.zeros_like(here)
    left[:, step:] = here[:, :-step]
    up = raw[:-1]
    average = ((left.astype(np.uint16) + up) >> 1).astype(np.uint8)
    found = np.stack([here - left, here - up, here - average])
    costs = np.abs(found.view(np.int8).astype(np.int16)).sum(2, dtype=np.int64)
    best = costs.argmin(0)
    rows = np.empty((len(here), here.shape[1] + 1), np.uint8)
    rows[:, 0] = best + 1
    rows[:, 1:] = found[best, np.arange(len(here))]
    return rows
