"""SGI and PSD, which store channels one after the other; Pillow does not read those of 16 and 32 bits."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images import limits, memory_budget
from imatlas.images.formats.color import inks_in_srgb, of_lab
from imatlas.images.formats.pillow import read_plain
from imatlas.images.formats.sniff import not_read
from imatlas.images.picture import Aim, Frames, Picture, check_pixels, from_samples
from imatlas.images.pixels import Background

_TRUNCATED = "a truncated {} file: it ends before the picture does"
_BITMAP, _GRAY, _INDEXED, _RGB, _CMYK, _MULTICHANNEL, _DUOTONE, _LAB = 0, 1, 2, 3, 4, 7, 8, 9
_COLORS = {_BITMAP: 1, _GRAY: 1, _INDEXED: 1, _RGB: 3, _CMYK: 4, _DUOTONE: 1, _LAB: 3}
_ICC, _PHOTOSHOP = 1039, b"8BIM"


def sgi_size(data: bytes) -> tuple[int, int]:
    """(height, width) of an SGI file."""
    width, height = struct.unpack_from(">HH", data, 6)
    return (height, width)


def read_sgi(data: bytes, format: str, frames: Frames, aim: Aim | None, background: Background) -> Iterator[Picture]:
    """Read an SGI file: here if it is uncompressed, else through Pillow."""
    packed, n_bytes, dimensions, width, height, channels = struct.unpack_from(">BBHHHH", data, 2)
    channels = channels if dimensions > 2 else 1
    if packed or n_bytes not in (1, 2):
        if channels not in (1, 3, 4):
            raise not_read(f"a run-length encoded SGI file of {channels} channels")
        yield from read_plain(data, format, frames, aim, background)
        return
    _check(width, height if dimensions > 1 else 1, channels, n_bytes, len(data))
    n = width * height * channels
    if len(data) < 512 + n * n_bytes:
        raise DecodeError(_TRUNCATED.format(format))
    planes = np.frombuffer(data, f">u{n_bytes}", n, 512).reshape(channels, height, width)
    array = planes[:, ::-1].transpose(1, 2, 0).astype(f"u{n_bytes}")
    yield from_samples(array, format, f"{channels} x {8 * n_bytes} bits", b"", background)


def psd_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a PSD."""
    height, width = struct.unpack_from(">II", data, 14)
    return (height, width)


def read_psd(data: bytes, format: str, frames: Frames, aim: Aim | None, background: Background) -> Iterator[Picture]:
    """Read the merged picture of a PSD, of any depth and color mode."""
    channels, height, width, bits, mode = struct.unpack_from(">HIIHH", data, 12)
    if mode == _MULTICHANNEL or mode not in _COLORS:
        raise not_read(f"a PSD without color mode (mode {mode}, Multichannel)")
    if bits not in (1, 8, 16, 32) or (bits == 1) != (mode == _BITMAP):
        raise not_read(f"a PSD of {bits} bits in mode {mode}")
    colors = _COLORS[mode]
    used = colors + (channels == colors + 1 and mode in (_GRAY, _RGB))
    if channels < colors:
        raise DecodeError(f"a damaged PSD file: {channels} channels in mode {mode}")
    _check(width, height, used, max(1, bits // 8), len(data))
    sections = []
    place = 26
    for _ in range(3):  # palette, resources, layers
        (size,) = struct.unpack_from(">I", data, place)
        sections.append((place + 4, place + 4 + size))
        place += 4 + size
    array = _psd_samples(data, place, (channels, height, width), used, bits).transpose(1, 2, 0)
    profile = _psd_profile(data[slice(*sections[1])])
    if mode == _INDEXED:
        palette = np.frombuffer(data[slice(*sections[0])][:768].ljust(768, b"\0"), np.uint8).reshape(3, 256).T
        array = palette[array[..., 0]]
    array, profile, notes = _psd_colors(array, mode, profile)
    name = {_GRAY: "L", _RGB: "RGB", _CMYK: "CMYK", _LAB: "LAB"}.get(mode, "P")
    picture = from_samples(array, format, name if bits == 8 else f"{name};{bits}", profile, background)
    picture.notes += notes
    yield picture


def _psd_samples(data: bytes, place: int, shape: tuple[int, int, int], used: int, bits: int) -> np.ndarray:
    """The first channels (used, H, W)."""
    channels, height, width = shape
    row = -(-width * bits // 8)
    (packing,) = struct.unpack_from(">H", data, place)
    place += 2
    if packing == 1:  # the lengths of all rows, then the rows as PackBits
        lengths = np.frombuffer(data, ">u2", channels * height, place).astype(np.int64)
        place += 2 * channels * height
        ends = place + np.cumsum(lengths.reshape(channels, height).sum(axis=1))
        if len(data) < ends[-1]:
            raise DecodeError(_TRUNCATED.format("PSD"))
        starts = [place, *ends[: used - 1]]
        planes = [
            np.asarray(Image.frombytes("L", (row, height), data[start:end], "packbits", "L"))
            for start, end in zip(starts, ends[:used], strict=True)
        ]
        stored = np.stack(planes)
    elif packing == 0:
        if len(data) < place + row * height * channels:
            raise DecodeError(_TRUNCATED.format("PSD"))
        stored = np.frombuffer(data, np.uint8, row * height * used, place).reshape(used, height, row)
    else:
        raise not_read(f"a PSD of packing {packing}")
    if bits == 1:  # ink is 1
        return np.where(np.unpackbits(stored, axis=2)[..., :width], np.uint8(0), np.uint8(255))
    dtype = {8: ">u1", 16: ">u2", 32: ">f4"}[bits]
    return np.ascontiguousarray(stored).view(dtype).astype(np.dtype(dtype).newbyteorder("="))


def _psd_profile(resources: bytes) -> bytes:
    """The ICC profile among the resources of a PSD."""
    place = 0
    while place + 12 <= len(resources) and resources[place : place + 4] == _PHOTOSHOP:
        (number,) = struct.unpack_from(">H", resources, place + 4)
        name = 1 + resources[place + 6]
        start = place + 6 + name + name % 2
        size = int.from_bytes(resources[start : start + 4], "big")
        if number == _ICC:
            return resources[start + 4 : start + 4 + size]
        place = start + 4 + size + size % 2
    return b""


def _psd_colors(array: np.ndarray, mode: int, profile: bytes) -> tuple[np.ndarray, bytes, list[str]]:
    """Samples (H, W, C) as gray or RGB, the profile that is still to be applied, and notes for the user."""
    if mode in (_CMYK, _LAB) and array.dtype.kind == "f":
        raise not_read("a PSD of 32 bits in inks or Lab")
    if mode == _CMYK:
        rgb, note = inks_in_srgb(~array, profile)
        return rgb, b"", [note] if note else []
    if mode == _LAB:
        top = np.iinfo(array.dtype).max
        middle = (top + 1) // 2
        lab = array.astype(np.float32)
        scaled = np.concatenate([lab[..., :1] * (100 / top), (lab[..., 1:] - middle) * (256 / (top + 1))], axis=-1)
        return np.rint(of_lab(scaled) * top).astype(array.dtype), b"", []
    return array, profile, []


def _check(width: int, height: int, channels: int, n_bytes: int, packed: int) -> None:
    check_pixels(width, height, channels)
    if width * height > limits.CHEAP:
        needed = width * height * channels * n_bytes * 6
        memory_budget.need(needed, packed, f"a picture of {width} x {height} pixels")
