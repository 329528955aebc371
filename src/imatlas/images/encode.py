"""Encoding of pixels as the bytes of a PNG, JPEG, WebP or TIFF file."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imatlas.arguments import check_path
from imatlas.errors import InputError
from imatlas.system.atomic_io import output_path, write_file

Format = Literal["png", "jpeg", "webp", "tiff"]
SUFFIXES: dict[str, Format] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
}
"""Formats by file name suffix."""

_STACK = b"imSk"
"""A PNG chunk that other programs ignore (ancillary, private, safe to copy), with all channels of an image."""


def encode(
    pixels: np.ndarray,
    format: Format = "png",
    *,
    quality: int = 90,
    compress_level: int = 6,
    text: Mapping[str, str] | None = None,
    chunks: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """One picture as the bytes of a file.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, C) or (H, W)
        uint8 with 1, 3 or 4 channels for any format; uint16 with 1 channel also as PNG; every other dtype and number
        of channels as TIFF.
    format : {'png', 'jpeg', 'webp', 'tiff'}
        JPEG has no alpha: the picture is composited on white.
    quality : int
        For JPEG and WebP, 1 to 100.
    compress_level : int
        For PNG, 1 to 9; at 1, photographs are written three times as fast as at 6 and are 5 % larger.
    text : mapping of str to str, optional
        Text chunks of a PNG, such as the recipe of a generated image.
    chunks : mapping of bytes to bytes, optional
        Further chunks of a PNG, before its pixels.

    Raises
    ------
    InputError
        If the format cannot hold these pixels.
    """
    pixels = np.asarray(pixels)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise InputError(f"A picture must have the shape (H, W, C) or (H, W). Got {pixels.shape}.")
    plain = pixels.dtype == np.uint8 and pixels.shape[2] in (1, 2, 3, 4)
    if format == "tiff":
        from imatlas.images.formats.tiff import encode_tiff

        return encode_tiff(pixels, alpha=pixels.shape[2] == 4 and pixels.dtype == np.uint8)
    if not plain and not (format == "png" and pixels.dtype == np.uint16 and pixels.shape[2] == 1):
        raise InputError(
            f"A {format.upper()} file cannot hold {pixels.shape[2]} channels of {pixels.dtype}; write a TIFF, or the "
            "8-bit view (imatlas.images.tensors.to_view)."
        )
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    if format == "jpeg" and image.mode in ("LA", "RGBA"):
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    out = BytesIO()
    if format == "jpeg":
        image.save(out, "JPEG", quality=quality)
    elif format == "webp":
        image.save(out, "WEBP", quality=quality, method=4)
    else:
        info = PngInfo()
        for name, value in (text or {}).items():
            info.add_itxt(name, value)
        for chunk, content in (chunks or {}).items():
            info.add(chunk, content)
        image.save(out, "PNG", pnginfo=info, compress_level=compress_level)
    return out.getvalue()


def write_picture(path: str | Path, pixels: np.ndarray, *, quality: int = 90) -> Path:
    """Write one picture (H, W, C) atomically; the suffix of the name selects the format.

    Raises
    ------
    InputError
        If the suffix is not .png, .jpg, .webp or .tif, or the format cannot hold these pixels.
    """
    path = output_path(check_path(path, "path", "write_picture"))
    format = SUFFIXES.get(path.suffix.lower())
    if format is None:
        raise InputError(f"'{path.name}' has no suffix of a picture format; end it in .png, .jpg, .webp or .tif.")
    write_file(path, encode(pixels, format, quality=quality))
    return path


def encode_thumbnail(pixels: np.ndarray, *, stack: bool = False) -> bytes:
    """A small picture (h, w, C) uint8 as bytes: PNG if it is tiny or has alpha, else JPEG.

    A multi-channel `stack` becomes a PNG that shows the first three channels, or the first of two, and contains all of
    them in a private chunk; see `stack_of`.
    """
    if stack:
        shown = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
        return encode(shown, "png", chunks={_STACK: encode(pixels, "tiff")})
    if pixels.shape[2] in (2, 4) or max(pixels.shape[:2]) <= 48:
        return encode(pixels, "png")
    return encode(pixels, "jpeg", quality=85)


def stack_of(data: bytes) -> bytes | None:
    """All channels of a stack that a thumbnail contains, as the bytes of a TIFF; None if it contains none."""
    if not data.startswith(b"\x89PNG") or _STACK not in data:
        return None
    with Image.open(BytesIO(data), formats=("PNG",)) as image:
        found = dict(getattr(image, "private_chunks", ()))
    return found.get(_STACK)
