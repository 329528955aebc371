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
from imatlas.images.formats.headers import Png, png_header
from imatlas.images.formats.netpbm import Netpbm, check_header
from imatlas.images.formats.pillow import BESIDES, Work, picture_from, read_plain
from imatlas.images.formats.png import PngBands
from imatlas.images.formats.row_bands import Sink
from imatlas.images.formats.sniff import needs_extra
from imatlas.images.formats.stated_color import state_profile
from imatlas.images.formats.warnings import silence_libtiff
from imatlas.images.picture import (
    Aim,
    Frames,
    Picture,
    as_stored,
    check_pixels,
    finished,
    flattened,
    note_frames,
    on_background,
    orientation_of,
    step_for,
)
from imatlas.images.pixels import Background


def is_plain_png(data: bytes, frames: Frames) -> bool:
    """Whether Pillow alone can read a PNG: not a large one, and not 16 bits in several channels."""
    header = png_header(data)
    if header is None or header.interlaced or header.color not in (0, 2, 3, 4, 6):
        return True
    check_pixels(header.width, header.height)
    if header.width * header.height * 4 <= limits.LARGE and not _is_deep(data, header):
        return True
    image = Image.open(BytesIO(data), formats=("PNG",))
    return frames == "all" and int(getattr(image, "n_frames", 1)) > 1


def _is_deep(data: bytes, header: Png) -> bool:
    return header.depth == 16 and (header.color in (2, 4, 6) or b"tRNS" in data[: data.find(b"IDAT")])


def read_png(data: bytes, format: str, frames: Frames, aim: Aim | None, background: Background) -> Iterator[Picture]:
    """Read a PNG by bands of rows: one that is large, or has 16 bits in several channels; see `is_plain_png`."""
    header = png_header(data)
    assert header is not None
    deep = _is_deep(data, header)
    image = Image.open(BytesIO(data), formats=("PNG",))
    bands = PngBands(data, header)
    about = Image.open(BytesIO(bands.about()), formats=("PNG",))
    about.load()  # what follows the pixels may hold the orientation
    notes = state_profile(image, data, format)
    picture = _png_by_bands(bands, len(data), aim, background, orientation_of(about), image.info["icc_profile"])
    picture.notes += notes
    picture.mode = f"{('', 'L', 'LA', 'RGB', 'RGBA')[bands.channels]};16" if deep else image.mode
    note_frames(picture, int(getattr(image, "n_frames", 1)), 0, 1)
    yield picture


def _png_by_bands(
    bands: PngBands, packed: int, aim: Aim | None, background: Background, orientation: int, profile: bytes
) -> Picture:
    """A non-interlaced PNG, reduced while it is read if its target is small."""
    header = bands.header
    full = (header.width, header.height)
    flat = bands.alpha and bands.dtype == np.uint16 and background is not None
    each = max(4, bands.channels * bands.dtype.itemsize)
    step = step_for(full, orientation, aim, header.width * header.height * each)
    channels = bands.channels - (flat and step == 1)
    alpha = bands.alpha and not flat
    held = Sink.n_bytes(header.height, header.width, channels, bands.dtype, step)
    if held > limits.CHEAP or step > 1:
        memory_budget.need(held + 2**25, packed, f"a picture of {full[0]} x {full[1]} pixels")
    sink = Sink(header.height, header.width, channels, bands.dtype, step, bands.alpha)
    notes: list[str] = []
    for top, rows in bands.bands():
        if flat and step == 1 and background is not None:
            rows, notes = flattened(rows.astype(np.uint16), background, profile, exact=True)
        sink.put(top, 0, rows)
    array = sink.result()
    if flat and step > 1 and background is not None:
        array, notes = flattened(array, background, profile, exact=True)
    picture = Picture(as_stored(array) if step > 1 or held <= limits.LARGE else array, "PNG", "", alpha=alpha)
    picture.full, picture.scale, picture.orientation = full, step, orientation
    picture.notes, picture.profile = notes, b"" if flat else profile
    return picture


def read_netpbm(data: bytes, format: str, frames: Frames, aim: Aim | None, background: Background) -> Iterator[Picture]:
    """Read a Netpbm file; text and unusual depths are parsed here, as Pillow takes a microsecond per number."""
    if data[1:2] in b"123567Ff":
        file = Netpbm(data)
        if file.is_slow:
            check_pixels(file.width, file.height, file.channels)
            n_bytes = file.width * file.height * file.channels * file.dtype.itemsize
            if n_bytes > limits.CHEAP:
                times = 10 if file.kind in b"567" else 3
                memory_budget.need(
                    times * n_bytes + 2**26, len(data), f"a picture of {file.width} x {file.height} pixels"
                )
            array, alpha = file.pixels(data), file.alpha
            if alpha and array.dtype != np.uint8 and background is not None:
                (array, _), alpha = flattened(array, background, b""), False
            is_stack = array.shape[2] in (2, 4) and not alpha
            picture = Picture(array if is_stack else as_stored(array), format, file.mode, alpha=alpha)
            yield picture
            return
    else:
        check_header(data)
    yield from read_plain(data, format, frames, aim, background)


def netpbm_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a Netpbm file."""
    file = Netpbm(data)
    return (file.height, file.width)


def read_tiff(data: bytes, format: str, frames: Frames, aim: Aim | None, background: Background) -> Iterator[Picture]:
    """Read a TIFF: through tifffile if it is deep or has many channels, else through Pillow, which has more codecs."""
    from imatlas.images.formats.tiff import Stack
    from imatlas.images.formats.tiff_pages import from_page

    silence_libtiff()
    stack = Stack(data, check_pixels)
    data = stack.data
    wanted = min(len(stack), limits.MAX_FRAMES) if frames == "all" else 1
    by_pillow = [stack.is_plain(frame) for frame in range(wanted)]
    if all(by_pillow):
        for picture in read_plain(data, format, frames, aim, background, pages=stack.pages):
            picture.orientation = 1  # Pillow turns a TIFF itself
            yield picture
        return
    numbers = [stack.pages[frame] for frame in range(wanted) if by_pillow[frame]] or [0]
    first = numbers[0]
    plain = read_plain(
        from_page(data, first), format, "all", aim, background, pages=[number - first for number in numbers]
    )
    work = Work(wanted, data)
    work.expect(wanted, *stack.size, stack.channels)
    for frame in range(wanted):
        if by_pillow[frame]:
            picture = next(plain)
            picture.orientation = 1
        else:
            work.add(*stack.size_of(frame))
            picture = _of_stack(stack, frame, format, aim, background)
        note_frames(picture, len(stack), frame, wanted)
        yield picture


def _of_stack(stack: Any, number: int, format: str, aim: Aim | None, background: Background) -> Picture:
    """One frame of a TIFF that Pillow does not read."""
    frame = stack.frame(number, lambda size, orientation, n_bytes: step_for(size, orientation, aim, n_bytes))
    array, alpha, profile, notes = frame.array, frame.alpha, frame.profile, list(frame.notes)
    if alpha and array.dtype != np.uint8 and background is not None:
        if array.dtype == np.uint16:
            array, color_notes = flattened(array, background, profile)
            profile, notes = b"", notes + color_notes
        else:
            array = on_background(array, background)
        alpha = False
    picture = Picture(as_stored(array) if alpha else array, format, frame.mode, alpha=alpha)
    picture.profile = profile
    if frame.step > 1:
        picture.full, picture.scale = frame.size, frame.step
    picture.orientation = frame.orientation
    picture.notes += notes
    return picture


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


def read_heif(data: bytes, format: str, frames: Frames, aim: Aim | None, background: Background) -> Iterator[Picture]:
    """Read HEIC and HEIF, which need the extra `heif`."""
    opened = _opened_heif(data)
    wanted = min(len(opened), limits.MAX_FRAMES) if frames == "all" else 1
    work = Work(wanted, data)
    for frame in range(wanted):
        one = opened[frame] if wanted > 1 else opened
        check_pixels(*one.size)
        work.add(*one.size)
        if one.size[0] * one.size[1] > limits.CHEAP:
            needed = one.size[0] * one.size[1] * BESIDES[format]
            memory_budget.need(needed, len(data), f"a picture of {one.size[0]} x {one.size[1]} pixels")
        image = one.to_pillow()
        notes = state_profile(image, data, format)
        picture = finished(image, format, background)
        picture.mode = one.mode
        if one.info.get("bit_depth", 8) > 8 and picture.kind.dtype == "uint8":
            notes.append(f"{one.info['bit_depth']}-bit, read as 8-bit")
        picture.notes += notes
        note_frames(picture, len(opened), frame, wanted)
        yield picture


def read_npy(data: bytes, format: str, frames: Frames, aim: Aim | None, background: Background) -> Iterator[Picture]:
    """Read an array: a picture (H, W), (H, W, C) or (C, H, W), or a stack (N, H, W) or (N, H, W, C)."""
    from imatlas.images.sources.arrays import as_pixels, is_wide
    from imatlas.images.sources.user_input import channels_last, is_one

    array = _npy_array(data)
    stack = channels_last(array)[None] if is_one(array.shape) else array
    if frames != "all" and len(stack) > 1:
        raise DecodeError(f"a stack of {len(stack)} images instead of one; give the file itself")
    wanted = min(len(stack), limits.MAX_FRAMES) if frames == "all" else 1
    whole = np.float32 if is_wide(array.dtype) else None  # the dtype must not depend on the values of one file
    check_pixels(stack.shape[2], stack.shape[1], stack.shape[3] if stack.ndim == 4 else 1)
    for frame in range(wanted):
        picture = picture_from(as_pixels(stack[frame][None], whole)[0])
        picture.format = format
        note_frames(picture, len(stack), frame, wanted)
        yield picture


def _npy_array(data: bytes) -> np.ndarray:
    """The array in the bytes of a .npy file, without a copy; pickled objects are refused."""
    size = 2 if data[6] == 1 else 4
    length = int.from_bytes(data[8 : 8 + size], "little")
    if length > 2**16:
        raise DecodeError("a damaged NPY file: its header cannot be read")
    stream = BytesIO(data[: 8 + size + length])
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject or dtype.kind not in "buif" or len(shape) not in (2, 3, 4) or 0 in shape:
        raise DecodeError(f"an array of {dtype} of shape {shape}, not an image (H, W) or (H, W, C)")
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    n = math.prod(shape)
    if len(flat) < n:
        raise DecodeError("a truncated NPY file: it ends before the picture does")
    return flat[:n].reshape(shape[::-1]).T if fortran else flat[:n].reshape(shape)
