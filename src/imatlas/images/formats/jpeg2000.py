"""JPEG 2000 through Pillow, and through the extra `codecs` where Pillow rounds deep colors to 8 bits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from imatlas.images import limits, memory_budget
from imatlas.images.formats.color import full_scale, of_lab
from imatlas.images.formats.headers import Jpeg2000, jpeg2000
from imatlas.images.formats.iso_boxes import inside
from imatlas.images.formats.sniff import needs_extra
from imatlas.images.formats.stated_color import jpeg2000_color, state_profile
from imatlas.images.picture import (
    Aim,
    Frames,
    Picture,
    as_stored,
    check_pixels,
    finished,
    from_samples,
    orientation_of,
    room_for,
)
from imatlas.images.pixels import Background

_LAB = 14
_YCC = 18
_KNOWN_SPACES = (0, 12, 16, 17, _YCC, _LAB)  # none given, inks, sRGB, gray


def read_jpeg2000(
    data: bytes, format: str, frames: Frames, aim: Aim | None, background: Background
) -> Iterator[Picture]:
    """Read a JPEG 2000 of any depth up to 16 bits."""
    cost = jpeg2000(data)
    check_pixels(*cost.size, cost.channels)
    if cost.channels > 4:
        _need(cost, len(data), 1)
        array = _decoded(data, f"a JPEG 2000 of {cost.channels} components", 0)
        yield Picture(
            array if array.dtype == np.uint8 else _wide(array, cost.bits), format, f"{cost.channels} channels"
        )
        return
    image: Any = Image.open(BytesIO(data), formats=(format,))
    mode = image.mode
    space, _ = jpeg2000_color(data)
    notes = state_profile(image, data, format)
    if space not in _KNOWN_SPACES:
        notes.append(f"its colors (number {space}) are read as sRGB")
    if cost.bits > 8 and mode in ("LA", "RGB", "RGBA"):
        picture = _deep_colors(image, data, cost, space, background)
        mode = f"{mode};{cost.bits}"
    else:
        halvings = _halvings(image, cost, aim)
        _need(cost, len(data), 2**halvings)
        if halvings:
            image.reduce = halvings  # sets the decoding scale
        picture = _as_pillow_reads(image, data, cost, space, background)
        if halvings:
            image.reduce = 0  # restores Pillow's method of this name
            picture.full, picture.scale = cost.size, 2**halvings
    if cost.signed and picture.kind.dtype != "float32":
        notes.append("signed samples, read with zero as the middle of the range")
    if cost.bits > 16:
        notes.append(f"{cost.bits}-bit, read as 16-bit")
    picture.mode, picture.orientation = mode, orientation_of(image)
    picture.notes += notes
    yield picture


def _as_pillow_reads(image: Any, data: bytes, cost: Jpeg2000, space: int, background: Background) -> Picture:
    """What Pillow reads, with unusual depths corrected, as it shifts samples up to the next one."""
    bits, profile = cost.bits, image.info["icc_profile"]
    image.load()
    if image.mode.startswith("I;16"):
        values = np.asarray(image)[..., None] >> max(0, 16 - bits)
        if cost.signed and bits <= 16:
            picture = Picture(values.astype(np.float32) - 2 ** (bits - 1), "JPEG2000", image.mode)
            picture.notes.append(f"signed {bits}-bit read as float32")
            return picture
        return Picture(_wide(values, min(bits, 16)), "JPEG2000", image.mode)
    if bits < 8:
        shift, top = 8 - bits, 2**bits - 1
        image = image.point([round((value >> shift) * 255 / top) for value in range(256)] * len(image.getbands()))
    if space == _LAB and image.mode == "RGB":
        return Picture(as_stored(_of_lab(np.asarray(image), data, 8, 255)), "JPEG2000", image.mode)
    image.info["icc_profile"] = profile
    return finished(image, "JPEG2000", background)


def _deep_colors(image: Any, data: bytes, cost: Jpeg2000, space: int, background: Background) -> Picture:
    """Colors of more than 8 bits, through the extra: Pillow rounds them to 8 bits, and white to black."""
    what = f"a JPEG 2000 of {cost.bits} bits in color"
    _need(cost, len(data), 1)
    array = _decoded(data, what, space)
    if array.dtype.kind == "i":
        array = array.astype(np.int64) + 2 ** (cost.bits - 1)
    if space == _LAB and array.shape[2] == 3:
        return Picture(_of_lab(array, data, min(cost.bits, 16), 65535), "JPEG2000", "")
    return from_samples(_wide(array, cost.bits), "JPEG2000", "", image.info["icc_profile"], background)


def _decoded(data: bytes, what: str, space: int) -> np.ndarray:
    """All samples (H, W, C), through the extra, which converts YCC to RGB; it would apply a profile a second time."""
    try:
        from imagecodecs import jpeg2k_decode
    except ImportError:
        raise needs_extra(what, "codecs") from None
    start, end = inside(data, b"jp2c")
    return np.atleast_3d(jpeg2k_decode(data[start:end] if end and space != _YCC else data))


def _wide(array: np.ndarray, bits: int) -> np.ndarray:
    """Samples of 9 and more bits scaled to 16 bits."""
    if bits <= 16:
        return full_scale(array.astype(np.uint16), bits)
    return np.rint(array * (65535 / (2.0**bits - 1))).astype(np.uint16)


def _of_lab(array: np.ndarray, data: bytes, bits: int, top: int) -> np.ndarray:
    """CIE L*a*b* as sRGB, with ranges and offsets from the file or the default ones (ISO/IEC 15444-2, M.11.7.4)."""
    given = jpeg2000_color(data)[1]
    if len(given) >= 24:
        numbers = struct.unpack_from(">6I", given)
    else:
        numbers = (100, 0, 170, 2 ** (bits - 1), 200, 2 ** (bits - 2) + 2 ** (bits - 3))
    ranges, offsets = np.array(numbers[0::2], np.float32), np.array(numbers[1::2], np.float32)
    out = np.empty(array.shape, np.uint8 if top == 255 else np.uint16)
    rows = max(1, limits.CHEAP // array.shape[1])
    for first in range(0, len(array), rows):
        band = array[first : first + rows].astype(np.float32)
        out[first : first + rows] = np.rint(of_lab((band - offsets) * ranges / np.float32(2**bits - 1)) * top)
    return out


def _halvings(image: Any, cost: Jpeg2000, aim: Aim | None) -> int:
    """How often the size of a large picture is halved while it is decoded."""
    halvings = 0
    if aim is not None and cost.samples > limits.LARGE:
        room = room_for(image.size, 1, aim)  # a margin of four: reduction shifts pixels by up to half
        while halvings < min(cost.levels, 5) and room >= 2 ** (halvings + 3):
            halvings += 1
    return halvings


def _need(cost: Jpeg2000, packed: int, scale: int) -> None:
    """Wait for the memory that decoding takes."""
    width, height = cost.size
    if width * height > limits.CHEAP or cost.samples + cost.records > 32 * limits.CHEAP:
        what = f"a picture of {width} x {height} pixels"
        memory_budget.need(cost.samples // scale**2 + cost.records, packed, what)
