"""BMP: samples described by bit masks are extracted here; everything else is read through Pillow."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from imatlas.errors import DecodeError
from imatlas.images import limits, memory_budget
from imatlas.images.formats.color import scaled_note
from imatlas.images.formats.pillow import read_plain
from imatlas.images.formats.sniff import not_read
from imatlas.images.formats.stated_color import profile_of_bmp
from imatlas.images.picture import Aim, Frames, Picture, as_stored, check_pixels, flattened
from imatlas.images.pixels import Background

_RLE = (1, 2)
_MASKS = (3, 6)
_INSIDE = {4: "a JPEG", 5: "a PNG"}


class Bmp:
    """The header of a BMP (Microsoft's BITMAPINFOHEADER and later versions, OS/2's).

    Attributes
    ----------
    width, height : int
        `height` is positive; `upward` says whether the bottom row comes first.
    bits, packing : int
        Bits per pixel; packing is 0 for none, 3 and 6 for masks.
    masks : list of int
        Masks of red, green, blue and alpha, 0 for none.
    """

    def __init__(self, data: bytes) -> None:
        (self.start,) = struct.unpack_from("<I", data, 10)
        (self.header,) = struct.unpack_from("<I", data, 14)
        self.packing, self.masks = 0, [0, 0, 0, 0]
        if self.header == 12:
            self.width, height, _, self.bits = struct.unpack_from("<HHHH", data, 18)
        elif self.header == 16:
            self.width, height, _, self.bits = struct.unpack_from("<iiHH", data, 18)
        else:
            self.width, height, _, self.bits, self.packing = struct.unpack_from("<iiHHI", data, 18)
        self.height, self.upward = abs(height), height > 0
        if self.packing in _MASKS:
            n_masks = 4 if self.header >= 56 or self.packing == 6 else 3
            self.masks[:n_masks] = struct.unpack_from(f"<{n_masks}I", data, 54)


def bmp_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a BMP."""
    header = Bmp(data)
    return (header.height, header.width)


def read_bmp(data: bytes, format: str, frames: Frames, aim: Aim | None, background: Background) -> Iterator[Picture]:
    """Read a BMP of any kind except those for printers and video."""
    header = Bmp(data)
    check_pixels(header.width, header.height)
    if header.packing in _MASKS and header.bits in (16, 32) and any(header.masks[:3]):
        yield _by_masks(data, header, background)
        return
    if header.bits == 0 and header.packing in _INSIDE:
        raise not_read(f"a BMP that contains {_INSIDE[header.packing]}, for printers,")
    if header.header == 16:
        data = _with_longer_header(data, header)
    if header.packing in _RLE:
        data = _with_all_rows(data, header)
    yield from read_plain(data, format, frames, aim, background)


def _by_masks(data: bytes, header: Bmp, background: Background) -> Picture:
    """A BMP whose samples are given by masks: 565, 1555, 4444, 10 bits per color, in any order."""
    each = header.bits // 8
    row = -(-header.width * each // 4) * 4
    if len(data) < header.start + row * header.height:
        raise DecodeError("a truncated BMP file: it ends before the picture does")
    masks = header.masks if header.masks[3] else header.masks[:3]
    shifts = [(mask & -mask).bit_length() - 1 for mask in masks]
    tops = [mask >> max(0, shift) for mask, shift in zip(masks, shifts, strict=True)]
    if any(mask == 0 or top & (top + 1) or top > 65535 for mask, top in zip(masks, tops, strict=True)):
        raise not_read(f"a BMP with the masks {', '.join(f'{mask:x}' for mask in masks)}")
    bits = max(top.bit_length() for top in tops[:3])
    dtype = np.dtype(np.uint16 if bits > 8 else np.uint8)
    full = 65535 if bits > 8 else 255
    pixels = header.width * header.height
    if pixels > limits.CHEAP:
        what = f"a picture of {header.width} x {header.height} pixels"
        memory_budget.need(pixels * len(masks) * dtype.itemsize * 2, len(data), what)
    array = np.empty((header.height, header.width, len(masks)), dtype)
    rows = np.frombuffer(data, np.uint8, row * header.height, header.start).reshape(header.height, row)
    rows = rows[::-1] if header.upward else rows
    step = max(1, limits.CHEAP // header.width)
    for top_row in range(0, header.height, step):
        band = np.ascontiguousarray(rows[top_row : top_row + step, : header.width * each]).view(f"<u{each}")
        for channel, (shift, top) in enumerate(zip(shifts, tops, strict=True)):
            values = (band >> shift) & top
            array[top_row : top_row + step, :, channel] = np.rint(values * (full / top))
    notes, profile = [scaled_note(bits)] if 8 < bits < 16 else [], profile_of_bmp(data)
    deep_alpha = len(masks) == 4 and dtype == np.uint16
    if deep_alpha and background is not None:
        deep_alpha = False
        array, color_notes = flattened(array, background, profile)
        notes, profile = notes + color_notes, b""
    picture = Picture(as_stored(array), "BMP", "RGBA" if len(masks) == 4 else "RGB", alpha=deep_alpha)
    picture.notes, picture.profile = notes, profile
    return picture


def _with_longer_header(data: bytes, header: Bmp) -> bytes:
    """A BMP with the short header of OS/2 2.0, rewritten with the common one that Pillow reads."""
    size = struct.pack("<IiiHHI", 40, header.width, header.height, 1, header.bits, 0).ljust(40, b"\0")
    return data[:10] + struct.pack("<I", header.start + 24) + size + data[30:]


def _with_all_rows(data: bytes, header: Bmp) -> bytes:
    """A run-length encoded BMP that ends before its last row, which is allowed, padded with the first color."""
    end = data.rstrip(b"\0")
    if end[-2:] != b"\0\1":
        return data
    row = b"\xff\0" * -(-header.width // 255) + b"\0\0"
    # Pillow stops once it has all pixels, so extra data does no harm.
    return end[:-2] + b"\0\0" + row * header.height + b"\0\1"
