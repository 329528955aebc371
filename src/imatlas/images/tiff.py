"""TIFF files that hold more than a plain 8-bit picture: 16-bit, float, many channels, stacks. tifffile lives here."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import tifffile

from imatlas.errors import DecodeError
from imatlas.images import budget
from imatlas.images.bands import Sink
from imatlas.images.segments import Segments, own_depth

CheckPixels = Callable[[int, int, int], None]
_PLAIN = (0, 1, 2, 3, 5, 6)  # white or black is zero, RGB, palette, CMYK, YCbCr
_MAX_PAGES = 2**16
# What OME and ImageJ claim in words: numbers of planes, and where they begin.
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_SIZES = re.compile(r"""Size[CZT]\s*=\s*["'](\d{1,18})""")
_COUNTS = re.compile(r"""(?:PlaneCount|NumPlanes|IFD|First[A-Z])\s*=\s*["'](\d{1,18})""")
_MODULO = re.compile(r"""(?:Start|End)\s*=\s*["'][-\d.]*\d{6}""")
_IMAGEJ = re.compile(r"(?:images|channels|slices|frames)=(\d{1,18})")


class Stack:
    """The frames of a file: each an array (H, W, C) of uint8, uint16 or float32, decoded when it is asked for.

    Axes that are named as channels or samples are channels; all others (depth, time, pages) are frames.
    """

    def __init__(self, file: tifffile.TiffFile, n_pages: int, check_pixels: CheckPixels, data: bytes) -> None:
        page: Any = file.pages.first
        self._file = file
        self._data = data
        self._check_pixels = check_pixels
        self._inverted = page.photometric == 0
        self._hyperstack: np.ndarray | None = None
        self._n_frames = n_pages
        self.size = (page.imagewidth, page.imagelength)
        tag = page.tags.get(274)
        self.orientation = tag.value if tag is not None and tag.value in range(1, 9) else 1
        self.alpha = page.samplesperpixel in (2, 4) and any(int(extra) in (1, 2) for extra in page.extrasamples)
        self._channels = page.samplesperpixel
        self._is_hyperstack = _has_channel_pages(file, n_pages, data)
        if self._is_hyperstack:
            axes, shape = file.series[0].axes, file.series[0].shape
            self._channels = math.prod(n for name, n in zip(axes, shape, strict=True) if name in "CS")
            self._n_frames = math.prod(n for name, n in zip(axes, shape, strict=True) if name not in "YXCS")
        self.mode = f"{self._channels} x {page.dtype}"
        read_as = own_depth(np.zeros(1, page.dtype)).dtype
        self.notes = [] if read_as == page.dtype or page.dtype.kind == "b" else [f"{page.dtype} read as {read_as}"]

    def __len__(self) -> int:
        return self._n_frames

    def frame(self, index: int, step_of: Callable[[int], int] = lambda n_bytes: 1) -> tuple[np.ndarray, int]:
        """A frame, and by what whole number it was reduced.

        `step_of` says that number, given the bytes that the frame would take in full.
        """
        if self._is_hyperstack:
            if self._hyperstack is None:
                self._hyperstack = self._read_hyperstack()
            return own_depth(self._hyperstack[index]), 1
        page: Any = self._file.pages[index]
        _check(page, self._check_pixels)
        if page.dtype is None:
            raise DecodeError("pixels of an odd bit depth")
        dtype = own_depth(np.zeros(1, page.dtype)).dtype
        shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
        step = step_of(math.prod(shape) * dtype.itemsize)
        alpha = self.alpha and page.samplesperpixel == self._channels
        segments = Segments(page)
        budget.need(
            segments.n_bytes + Sink.n_bytes(*shape, dtype, step) * (2 if alpha else 1),
            len(self._data),
            f"a picture of {shape[1]} x {shape[0]} pixels",
        )
        sink = Sink(*shape, dtype, step, alpha)
        segments.read(self._data, sink)
        array = sink.result()
        if self._inverted and page.dtype.kind == "u":
            if page.dtype.itemsize > 2:
                array = np.float32(np.iinfo(page.dtype).max) - array
            else:
                np.subtract(np.iinfo(array.dtype).max, array, out=array)
        return array, step

    def _read_hyperstack(self) -> np.ndarray:
        """All frames (T, H, W, C) of a file whose channels are pages."""
        series = self._file.series[0]
        n_bytes = math.prod(series.shape) * series.dtype.itemsize
        budget.need(3 * n_bytes, len(self._data), f"a stack of shape {series.shape}")
        for page in series.pages:
            if page is not None:
                whole: Any = page.keyframe
                _check(whole, self._check_pixels)
                Segments(whole).check_unpacked(self._data, page)
        axes = series.axes
        array = series.asarray(maxworkers=1)
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
    if _is_plain(page) and not _has_channel_pages(file, n_pages, data):
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
    return Stack(file, n_pages, check_pixels, data)


def _count_pages(data: bytes) -> int:
    """The number of pages; walks the chain of directories, which in a damaged file may run in a circle."""
    order = "<" if data[:2] == b"II" else ">"
    big = b"+" in data[2:4]
    counter, pointer, entry = (order + "Q", order + "Q", 20) if big else (order + "H", order + "I", 12)
    seen: set[int] = set()
    total = 0
    try:
        (place,) = struct.unpack_from(pointer, data, 8 if big else 4)
        while place and len(seen) < _MAX_PAGES:
            if place in seen:
                raise DecodeError("a damaged TIFF file: its list of pages runs in a circle")
            (entries,) = struct.unpack_from(counter, data, place)
            seen.add(place)
            total += entries * entry
            if total > 2 * len(data) + 2**16:  # each reader parses all of them
                raise DecodeError("a damaged TIFF file: its lists of tags overlap")
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


def _has_channel_pages(file: tifffile.TiffFile, n_pages: int, data: bytes) -> bool:
    """Whether ImageJ or OME say that the pages of a file are channels, and the file can hold what they say."""
    if n_pages < 2 or not (file.is_imagej or file.is_ome):
        return False
    text = str(file.pages.first.description)[: 2**24]
    most = 4 * n_pages + 64
    if file.is_ome:
        # Beyond what the pages can hold it is one file of many, or a lie: its pages are frames then.
        sizes = [math.prod(int(n) for n in _SIZES.findall(pixels)) for pixels in _PIXELS.findall(text)]
        if max(sizes, default=0) > most or sum(int(n) for n in _COUNTS.findall(text)) > 16 * most * most:
            return False
        if max((int(n) for n in _COUNTS.findall(text)), default=0) > most or _MODULO.search(text):
            return False
    else:
        page = file.pages.first
        claims = [int(n) for n in _IMAGEJ.findall(text)]
        if max(claims, default=0) > most and max(claims) * page.imagewidth * page.imagelength > len(data):
            return False
    return "C" in file.series[0].axes


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
