"""TIFF files that hold more than a plain 8-bit picture: 16-bit, float, many channels, stacks. tifffile lives here."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import tifffile

from imatlas.errors import DecodeError

CheckPixels = Callable[[int, int, int], None]
_PLAIN = (0, 1, 2, 3, 5, 6)  # white or black is zero, RGB, palette, CMYK, YCbCr
_MAX_PAGES = 2**16
_MAX_STACK = 2**30


class Stack:
    """The frames of a file: each an array (H, W, C) of uint8, uint16 or float32, decoded when it is asked for.

    Axes that are named as channels or samples are channels; all others (depth, time, pages) are frames.
    """

    def __init__(self, file: tifffile.TiffFile, n_pages: int, check_pixels: CheckPixels) -> None:
        page: Any = file.pages.first
        self._file = file
        self._check_pixels = check_pixels
        self._inverted = page.photometric == 0
        self._hyperstack: np.ndarray | None = None
        self._n_frames = n_pages
        if _has_channel_pages(file, n_pages):
            self._hyperstack = self._read_hyperstack()
            self._n_frames = len(self._hyperstack)
        tag = page.tags.get(274)
        self.orientation = tag.value if tag is not None and tag.value in range(1, 9) else 1
        self.alpha = page.samplesperpixel in (2, 4) and any(int(extra) in (1, 2) for extra in page.extrasamples)
        channels = page.samplesperpixel if self._hyperstack is None else self._hyperstack.shape[-1]
        self.mode = f"{channels} x {page.dtype}"
        read_as = _own_depth(np.zeros(1, page.dtype)).dtype
        self.notes = [] if read_as == page.dtype or page.dtype.kind == "b" else [f"{page.dtype} read as {read_as}"]

    def __len__(self) -> int:
        return self._n_frames

    def __getitem__(self, index: int) -> np.ndarray:
        if self._hyperstack is not None:
            return _own_depth(self._hyperstack[index])
        page: Any = self._file.pages[index]
        _check(page, self._check_pixels)
        array = page.asarray()
        if page.axes not in ("YX", "YXS", "SYX"):
            raise DecodeError(f"the axes {page.axes} of its pixels are not read")
        array = array[..., None] if page.axes == "YX" else np.moveaxis(array, page.axes.index("S"), 2)
        if self._inverted and array.dtype.kind == "u":
            array = np.iinfo(array.dtype).max - array
        return _own_depth(array)

    def _read_hyperstack(self) -> np.ndarray:
        """All frames (T, H, W, C) of a file whose channels are pages."""
        series = self._file.series[0]
        if math.prod(series.shape) * series.dtype.itemsize > _MAX_STACK:
            raise DecodeError(f"a stack of shape {series.shape} is more than the limit of 1 GiB")
        axes = series.axes
        array = series.asarray()
        last = [axes.index(name) for name in "YXCS" if name in axes]
        first = [i for i in range(len(axes)) if i not in last]
        array = array.transpose(first + last)
        n_frames = math.prod(array.shape[: len(first)])
        return array.reshape(n_frames, *array.shape[len(first) : len(first) + 2], -1)


def open_stack(data: bytes, check_pixels: CheckPixels) -> Stack | None:
    """The frames of a TIFF file, or None where it is a plain 8-bit picture or of a codec that only Pillow knows.

    Raises
    ------
    DecodeError
        If the file is damaged, too large, or of a codec that nobody here knows.
    """
    n_pages = _count_pages(data)
    try:
        file = tifffile.TiffFile(BytesIO(data))
        page = file.pages.first
    except Exception:
        return None  # Pillow may know better, or else gives the reason
    _check(page, check_pixels)
    if _is_plain(page) and not _has_channel_pages(file, n_pages):
        return None
    samples = page.samplesperpixel
    if not isinstance(page.bitspersample, int):
        raise DecodeError("channels that differ in depth are not read")
    if page.bitspersample == 1 and samples > 1:
        raise DecodeError(f"{samples} channels of 1 bit are not read")
    if not _has_codec(page):
        if samples == 1 or (page.bitspersample == 16 and samples in (3, 4)):
            return None
        raise DecodeError(
            f"{samples} channels of {page.bitspersample} bits in the codec {page.compression} are not read; save the "
            "TIFF uncompressed or with Deflate"
        )
    if page.dtype is None or page.dtype.kind == "c":
        raise DecodeError("pixels of an odd bit depth" if page.dtype is None else "complex pixels are not read")
    return Stack(file, n_pages, check_pixels)


def _count_pages(data: bytes) -> int:
    """The number of pages; walks the chain of directories, which in a damaged file may run in a circle."""
    order = "<" if data[:2] == b"II" else ">"
    big = b"+" in data[2:4]
    counter, pointer, entry = (order + "Q", order + "Q", 20) if big else (order + "H", order + "I", 12)
    seen: set[int] = set()
    try:
        (place,) = struct.unpack_from(pointer, data, 8 if big else 4)
        while place and len(seen) < _MAX_PAGES:
            if place in seen:
                raise DecodeError("a damaged TIFF file: its list of pages runs in a circle")
            (entries,) = struct.unpack_from(counter, data, place)
            seen.add(place)
            (place,) = struct.unpack_from(pointer, data, place + struct.calcsize(counter) + entries * entry)
    except (struct.error, OverflowError):
        if not seen:
            raise DecodeError("a truncated TIFF file: it ends before the picture does") from None
    return max(1, len(seen))


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Whether a page is grey, RGB, palette or CMYK with at most 8 bits: Pillow's job."""
    colours = page.samplesperpixel - len(page.extrasamples)
    return (
        page.bitspersample in (1, 2, 4, 8)
        and page.photometric in _PLAIN
        and page.sampleformat in (1, 4)
        and colours in (1, 3, 4)
        and page.extrasamples in ((), (1,), (2,))  # nothing but opacity; Pillow drops other channels
        and page.imagedepth == 1
    )


def _has_channel_pages(file: tifffile.TiffFile, n_pages: int) -> bool:
    """Whether ImageJ or OME say that the pages of a file are channels."""
    return n_pages > 1 and bool(file.is_imagej or file.is_ome) and "C" in file.series[0].axes


def _has_codec(page: tifffile.TiffPage) -> bool:
    """Whether tifffile can decompress a page."""
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
        tifffile.TIFF.UNPREDICTORS[page.predictor]
    except (KeyError, ValueError, ImportError):
        return False
    return True


def _check(page: tifffile.TiffPage, check_pixels: CheckPixels) -> None:
    """Refuse absurd sizes before memory is asked for."""
    samples = max(1, page.samplesperpixel) * max(1, page.imagedepth)
    check_pixels(page.imagewidth, page.imagelength, samples)
    if page.is_tiled:
        check_pixels(page.tilewidth, page.tilelength, samples)
    if len(page.dataoffsets) > 2**20:
        raise DecodeError(f"a damaged TIFF file: it claims {len(page.dataoffsets)} strips")


def _own_depth(array: np.ndarray) -> np.ndarray:
    """Samples of any number type as uint8, uint16 or float32."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return array.astype(f"u{array.dtype.itemsize}", copy=False)
    return array.astype(np.float32)
