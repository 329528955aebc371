"""JPEG: decoding at reduced scale for small targets, and the kinds that Pillow does not decode."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images import limits, memory_budget
from imatlas.images.formats.color import ADOBE_GAMMA, ADOBE_PRIMARIES, full_scale, inks_in_srgb, profile_of, scaled_note
from imatlas.images.formats.headers import JPEG_LS, Jpeg, check_scans, jpeg_frame, jpeg_segments
from imatlas.images.formats.pillow import need_memory
from imatlas.images.formats.sniff import needs_extra
from imatlas.images.formats.stated_color import is_adobe_rgb, state_profile
from imatlas.images.picture import (
    REDUCE_MARGIN,
    Aim,
    Frames,
    Picture,
    as_stored,
    check_pixels,
    exif_of,
    exif_orientation,
    finished,
    orientation_of,
    room_for,
)
from imatlas.images.pixels import Background


def read_jpeg(data: bytes, format: str, frames: Frames, aim: Aim | None, background: Background) -> Iterator[Picture]:
    """Read a JPEG, reduced if the target allows; further pictures inside (depth, gain maps) are ignored."""
    header = jpeg_frame(data)
    if is_deep(header):
        yield _deep_jpeg(data, header)
        return
    image = _opened(data)
    full, mode = image.size, image.mode
    check_pixels(*full)
    scans = check_scans(data, *full)
    orientation = orientation_of(image)
    scale = 1
    if aim is not None:
        scale = _jpeg_scale(full, orientation, aim)
        if scale > 1:
            image.draft(None, (full[0] // scale, full[1] // scale))
    if full[0] * full[1] > limits.CHEAP:
        held = 2 * header.samples * full[0] * full[1] if header.buffered or scans > 1 else 0
        need_memory(image, format, len(data), aim=aim is not None, besides=int(held), full=full)
    reduced = image.size != full
    notes = state_profile(image, data, format)
    try:
        picture = finished(image, format, background)
    except OSError:
        if header.buffered or scans > 1:
            raise
        picture = finished(_without_end(data, scale if reduced else 1, full), format, background)
        notes.append("its last two bytes, which mark the end, are missing")
    picture.notes += notes
    picture.mode, picture.orientation, picture.full = mode, orientation, full
    picture.scale = scale if reduced else 1
    yield picture


def _opened(data: bytes) -> Image.Image:
    """A JPEG whose inks count as inverted only if Adobe's marker says so; Pillow always inverts."""
    image = Image.open(BytesIO(data), formats=("JPEG",))
    if image.mode == "CMYK" and "adobe" not in image.info:
        image.tile = [tile._replace(args=("CMYK", "")) for tile in image.tile]
    return image


def _without_end(data: bytes, scale: int, full: tuple[int, int]) -> Image.Image:
    """Decode a JPEG that lacks only its last two bytes; refuses one that lacks pixels too.

    If all pixels are there, the picture does not depend on the bytes that follow.
    """
    noise = np.random.default_rng(0).integers(0, 255, 4096).astype(np.uint8).tobytes()
    if full[0] * full[1] > limits.CHEAP:
        memory_budget.need(12 * full[0] * full[1], len(data), f"a picture of {full[0]} x {full[1]} pixels")
    decoded, digest = None, b""
    for more in (noise, b""):
        decoded = _opened(data + more + b"\xff\xd9")
        if scale > 1:
            decoded.draft(None, (full[0] // scale, full[1] // scale))
        decoded.load()
        before, digest = digest, hashlib.sha256(decoded.tobytes()).digest()
    if decoded is None or before != digest:
        raise DecodeError("a truncated JPEG file: it ends before the picture does")
    return decoded


def with_height(data: bytes) -> bytes:
    """A JPEG whose height follows its pixels (a DNL segment), with the height in the frame header."""
    header = jpeg_frame(data)
    if header.place and not header.height:
        found = data.find(b"\xff\xdc\x00\x04", header.place)
        if found >= 0:
            return data[: header.place + 5] + data[found + 4 : found + 6] + data[header.place + 7 :]
        raise DecodeError("a JPEG file without a height")
    return data


def is_deep(header: Jpeg) -> bool:
    """Whether a JPEG is of a kind that Pillow does not decode."""
    return header.bits not in (0, 8) or header.lossless or header.components not in (0, 1, 3, 4)


def _deep_jpeg(data: bytes, header: Jpeg) -> Picture:
    """A JPEG of more than 8 bits or a lossless one, as in medicine and cameras; needs the extra `codecs`."""
    is_ls = data[header.place + 1] == JPEG_LS
    what = f"a {'JPEG-LS' if is_ls else 'lossless JPEG' if header.lossless else 'JPEG'} of {header.bits} bits"
    if header.components not in (1, 3, 4):
        what += f" and {header.components} components"
    try:
        from imagecodecs import jpeg8_decode, jpegls_decode
    except ImportError:
        raise needs_extra(what, "codecs") from None
    check_pixels(header.width, header.height, header.components)
    pixels = header.width * header.height
    memory_budget.need(
        int(6 * max(3.0, header.samples) * pixels), len(data), f"a picture of {header.width} x {header.height}"
    )
    array = full_scale(np.atleast_3d(jpegls_decode(data) if is_ls else jpeg8_decode(data)), header.bits)
    notes = [scaled_note(header.bits) or f"{header.bits}-bit"] if header.bits != 8 else []
    profile = b"".join(part[14:] for part in jpeg_segments(data, 0xE2) if part[:12] == b"ICC_PROFILE\0")
    if not profile and is_adobe_rgb(exif_of(data)):
        profile = profile_of(ADOBE_PRIMARIES, ADOBE_GAMMA)
    if header.components == 4:
        inverted = any(part[:5] == b"Adobe" for part in jpeg_segments(data, 0xEE))
        array, note = inks_in_srgb(~array if inverted else array, profile)
        profile, notes = b"", notes + ([note] if note else [])
    stored = array if array.shape[2] == 2 else as_stored(array)  # a JPEG does not define two components
    picture = Picture(stored, "JPEG", f"{header.components} x {header.bits} bits")
    picture.notes, picture.profile = notes, profile
    picture.orientation = exif_orientation(data)
    return picture


def _jpeg_scale(full: tuple[int, int], orientation: int, aim: Aim) -> int:
    """The largest of 8, 4, 2, 1 that leaves enough pixels for the target."""
    room = room_for(full, orientation, aim)
    return next((s for s in (8, 4, 2) if room >= s * REDUCE_MARGIN and min(full) >= 2 * s), 1)
