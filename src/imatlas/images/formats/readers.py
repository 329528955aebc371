"""Readers of PNG, Netpbm, TIFF, HEIF and NumPy files, over what knows the formats."""

from __future__ import annotations

import math
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images import limits, memory_budget
from imatlas.images.formats.headers import png_header
from imatlas.images.formats.netpbm import Netpbm, check_header
from imatlas.images.formats.pillow import BESIDES, Work, picture_from, read_plain
from imatlas.images.formats.png import PngBands
from imatlas.images.formats.row_bands import Sink
from imatlas.images.formats.sniff import needs_extra
from imatlas.images.formats.warnings import silence_libtiff
from imatlas.images.picture import (
    Aim,
    Frames,
    Picture,
    as_stored,
    check_pixels,
    finished,
    note_frames,
    on_background,
    orientation_of,
    step_for,
)
from imatlas.images.pixels import RGB, composited


def read_png(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """A PNG: by bands of rows where it is large, or has 16 bits in several channels; else through Pillow."""
    header = png_header(data)
    if header is None or header.interlaced or header.color not in (0, 2, 3, 4, 6):
        yield from read_plain(data, format, frames, aim, background)
        return
    check_pixels(header.width, header.height)
    deep = header.depth == 16 and (header.color in (2, 4, 6) or b"tRNS" in data[: data.find(b"IDAT")])
    if header.width * header.height * 4 <= limits.LARGE and not deep:
        yield from read_plain(data, format, frames, aim, background)
        return
    image = Image.open(BytesIO(data), formats=("PNG",))
    if frames == "all" and int(getattr(image, "n_frames", 1)) > 1:
        yield from read_plain(data, format, frames, aim, background)
        return
    bands = PngBands(data, header)
    about = Image.open(BytesIO(bands.about()), formats=("PNG",))
    about.load()  # what follows the pixels may hold the orientation
    picture = _png_by_bands(bands, len(data), aim, background, orientation_of(about))
    picture.profile = image.info.get("icc_profile") or b""
    picture.mode = f"{('', 'L', 'LA', 'RGB', 'RGBA')[bands.channels]};16" if deep else image.mode
    note_frames(picture, int(getattr(image, "n_frames", 1)), 0, 1)
    yield picture


def _png_by_bands(bands: PngBands, packed: int, aim: Aim | None, background: RGB, orientation: int) -> Picture:
    """A PNG that is not interlaced, reduced while it is read where it will be made small."""
    header = bands.header
    full = (header.width, header.height)
    flat = bands.alpha and bands.dtype == np.uint16  # 16-bit opacity is composited: the mean of what lies there
    each = max(4, bands.channels * bands.dtype.itemsize)
    step = step_for(full, orientation, aim, header.width * header.height * each)
    channels = bands.channels - (flat and step == 1)
    alpha = bands.alpha and not flat
    held = Sink.n_bytes(header.height, header.width, channels, bands.dtype, step)
    if held > limits.CHEAP or step > 1:
        memory_budget.need(held + 2**25, packed, f"a picture of {full[0]} x {full[1]} pixels")
    sink = Sink(header.height, header.width, channels, bands.dtype, step, bands.alpha)
    for top, rows in bands.bands():
        sink.put(top, 0, composited(rows, background) if flat and step == 1 else rows)
    array = sink.result()
    if flat and step > 1:
        array = composited(array, background)
    picture = Picture(as_stored(array) if step > 1 or held <= limits.LARGE else array, "PNG", "", alpha=alpha)
    picture.full, picture.scale, picture.orientation = full, step, orientation
    return picture


def read_netpbm(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """A Netpbm file; text and odd depths are read here, as Pillow takes a microsecond for each number."""
    if data[1:2] in b"12356":
        file = Netpbm(data)
        if file.is_slow:
            check_pixels(file.width, file.height)
            n_bytes = file.width * file.height * file.channels * file.dtype.itemsize
            if n_bytes > limits.CHEAP:
                times = 10 if file.kind in b"56" else 3
                memory_budget.need(
                    times * n_bytes + 2**26, len(data), f"a picture of {file.width} x {file.height} pixels"
                )
            yield Picture(as_stored(file.pixels(data)), format, file.mode)
            return
    else:
        check_header(data)
    yield from read_plain(data, format, frames, aim, background)


def read_tiff(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """A TIFF: through tifffile where it is deep or has many channels, else through Pillow, which knows more codecs."""
    from imatlas.images.formats.tiff import open_stack

    silence_libtiff()
    stack = open_stack(data, check_pixels)
    if isinstance(stack, list):
        for picture in read_plain(data, format, frames, aim, background, pages=stack):
            picture.orientation = 1  # Pillow turns a TIFF itself
            yield picture
        return
    wanted = min(len(stack), limits.MAX_FRAMES) if frames == "all" else 1
    work = Work(wanted, data)
    work.expect(wanted, *stack.size, stack.channels)
    for frame in range(wanted):
        work.add(*stack.size_of(frame))
        array, alpha, step = stack.frame(frame, lambda n_bytes: step_for(stack.size, stack.orientation, aim, n_bytes))
        if alpha and array.dtype != np.uint8:
            array, alpha = on_background(array, background), False
        picture = Picture(as_stored(array) if alpha else array, format, stack.mode, alpha=alpha)
        picture.profile = stack.profile
        if step > 1:
            picture.full, picture.scale = stack.size, step
        picture.orientation = stack.orientation
        picture.notes += stack.notes
        note_frames(picture, len(stack), frame, wanted)
        yield picture


def _opened_heif(data: bytes) -> Any:
    """The container of a HEIC file, its pixels not yet decoded."""
    try:
        import pillow_heif
    except ImportError:
        raise needs_extra("HEIC", "heif") from None
    return pillow_heif.open_heif(BytesIO(data))


def heif_size(data: bytes) -> tuple[int, int]:
    width, height = _opened_heif(data).size
    return (height, width)


def read_heif(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """HEIC and HEIF, through the extra."""
    opened = _opened_heif(data)
    check_pixels(*opened.size)
    if opened.size[0] * opened.size[1] > limits.CHEAP:
        needed = opened.size[0] * opened.size[1] * BESIDES[format]
        memory_budget.need(needed, len(data), f"a picture of {opened.size[0]} x {opened.size[1]} pixels")
    picture = finished(opened.to_pillow(), format, background)
    picture.mode = opened.mode
    if opened.info.get("bit_depth", 8) > 8:
        picture.notes.append(f"{opened.info['bit_depth']}-bit, read as 8-bit")
    yield picture


def read_npy(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """One array in a file: a picture (H, W), (H, W, C) or (C, H, W), or a stack (N, H, W) or (N, H, W, C)."""
    from imatlas.images.sources.arrays import as_pixels, is_wide
    from imatlas.images.sources.given import channels_last, is_one

    array = _npy_array(data)
    stack = channels_last(array)[None] if is_one(array.shape) else array
    if frames != "all" and len(stack) > 1:
        raise DecodeError(f"a stack of {len(stack)} pictures, where one is wanted; give the file itself")
    wanted = min(len(stack), limits.MAX_FRAMES) if frames == "all" else 1
    whole = np.float32 if is_wide(array.dtype) else None  # not by its values: other files of the set hold others
    check_pixels(stack.shape[2], stack.shape[1], stack.shape[3] if stack.ndim == 4 else 1)
    for frame in range(wanted):
        picture = picture_from(as_pixels(stack[frame][None], whole)[0])
        picture.format = format
        note_frames(picture, len(stack), frame, wanted)
        yield picture


def _npy_array(data: bytes) -> np.ndarray:
    """The array in the bytes of a .npy file, not copied; pickled objects are refused."""
    size = 2 if data[6] == 1 else 4
    length = int.from_bytes(data[8 : 8 + size], "little")
    if length > 2**16:
        raise DecodeError("a damaged NPY file: its header cannot be read")
    stream = BytesIO(data[: 8 + size + length])
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject or dtype.kind not in "buif" or len(shape) not in (2, 3, 4) or 0 in shape:
        raise DecodeError(f"an array of {dtype} of shape {shape}, which is no picture (H, W) or (H, W, C)")
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    n = math.prod(shape)
    if len(flat) < n:
        raise DecodeError("a truncated NPY file: it ends before the picture does")
    return flat[:n].reshape(shape[::-1]).T if fortran else flat[:n].reshape(shape)
