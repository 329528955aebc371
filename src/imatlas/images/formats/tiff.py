"""TIFF files that hold more than a plain 8-bit picture: 16-bit, float, bands, Lab, stacks. tifffile lives here."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images import memory_budget
from imatlas.images.formats import color
from imatlas.images.formats.headers import inner_sizes, jpeg2000, jpeg_frame, lerc_size, zstd_size
from imatlas.images.formats.row_bands import Sink
from imatlas.images.formats.sniff import needs_extra
from imatlas.images.formats.tiff_segments import (
    Segments,
    check_shared,
    own_depth,
    packed_bytes,
    unpacked,
    unpacks_further,
)

CheckPixels = Callable[[int, int, int], None]
INVERTED, RGB, PALETTE, INKS, YCBCR, LAB, ICC_LAB = 0, 2, 3, 5, 6, 8, 9
_PLAIN = (0, 1, 2, 3, 5, 6)  # white or black is zero, RGB, palette, CMYK, YCbCr
_MOSAIC = (32803, 34892)  # a camera's sensor
# What Pillow unpacks as well as anybody: nothing, fax, LZW, JPEG, deflate, PackBits, ThunderScan, Zstandard.
_PILLOW = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32809, 32946, 34925, 50000)
_SUBFILE, _SMALLER, _MASK = 254, 1, 4  # the tag NewSubfileType, and bits of it
_PROFILE = 34675
UNEXPLAINED = "its fourth sample, which the file does not explain, is read as opacity"
_MAX_PAGES = 2**16
_LERC, _LERC_PARAMETERS = 34887, 50674
# What OME and ImageJ claim in words: numbers of planes, and where they begin.
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^<>]*>")
_SIZES = re.compile(r"""Size[CZT]\s*=\s*["'](\d{1,18})""")
_PLACES = re.compile(r"<(?:\w+:)?TiffData\b[^<>]*>")
_PLANES = re.compile(r"""(?:PlaneCount|NumPlanes)\s*=\s*["'](\d{1,18})""")
_COUNTS = re.compile(r"""(?:PlaneCount|NumPlanes|IFD|First[A-Z])\s*=\s*["'](\d{1,18})""")
_MODULO = re.compile(r"""(?:Start|End)\s*=\s*["'][-\d.]*\d{6}""")
_IMAGEJ = re.compile(r"(?:images|channels|slices|frames)=(\d{1,18})")


class Stack:
    """The frames of a file: each an array (H, W, C) of uint8, uint16 or float32, decoded when it is asked for.

    Axes that are named as channels or samples are channels; all others (depth, time, pages) are frames. Smaller copies
    of a picture and masks are none.

    Attributes
    ----------
    size : (int, int)
        Width and height, as stored.
    channels : int
    orientation : int
    mode : str
    profile : bytes
        Of the colors of 8 and 16 bits; empty where the pixels are sRGB already.
    notes : list of str
    """

    def __init__(self, file: tifffile.TiffFile, pages: list[int], check_pixels: CheckPixels, data: bytes) -> None:
        page: Any = file.pages[pages[0]].aspage()
        self._file = file
        self._pages = pages
        self._data = data
        self.check_pixels = check_pixels
        self._hyperstack: np.ndarray | None = None
        self._packed = 0
        self._n_frames = len(pages)
        self.size = (page.imagewidth, page.imagelength)
        tag = page.tags.get(274)
        self.orientation = tag.value if tag is not None and tag.value in range(1, 9) else 1
        self.channels = page.samplesperpixel
        self._is_hyperstack = _has_channel_pages(file, len(pages), data)
        if self._is_hyperstack:
            axes, shape = file.series[0].axes, file.series[0].shape
            self.channels = math.prod(n for name, n in zip(axes, shape, strict=True) if name in "CS")
            self._n_frames = math.prod(n for name, n in zip(axes, shape, strict=True) if name not in "YXCS")
        self.mode = f"{self.channels} x {page.dtype}"
        read_as = own_depth(np.zeros(1, page.dtype)).dtype
        self.notes = [] if read_as == page.dtype or page.dtype.kind == "b" else [f"{page.dtype} read as {read_as}"]
        profile = page.tags.get(_PROFILE)
        has_profile = profile is not None and page.photometric in (RGB, PALETTE, INKS)
        self.profile = bytes(profile.value) if has_profile and isinstance(profile.value, bytes) else b""

    def __len__(self) -> int:
        return self._n_frames

    def size_of(self, index: int) -> tuple[int, int, int]:
        """Width, height and channels of a frame."""
        if self._is_hyperstack:
            return (*self.size, self.channels)
        page: Any = self._file.pages[self._pages[index]].aspage()
        return (page.imagewidth, page.imagelength, page.samplesperpixel)

    def frame(self, index: int, step_of: Callable[[int], int] = lambda n_bytes: 1) -> tuple[np.ndarray, bool, int]:
        """A frame, whether its last channel is opacity, and by what whole number it was reduced.

        `step_of` says that number, given the bytes that the frame would take in full.
        """
        if self._is_hyperstack:
            if self._hyperstack is None:
                self._hyperstack = self._read_hyperstack()
            return own_depth(self._hyperstack[index]), False, 1
        page: Any = self._file.pages[self._pages[index]].aspage()
        _check(page, self.check_pixels)
        if page.dtype is None:
            raise DecodeError("pixels of an odd bit depth")
        self._take(page, page)
        dtype = own_depth(np.zeros(1, page.dtype)).dtype
        shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
        opacity = _opacity(page)
        translated = page.photometric in (PALETTE, INKS, LAB, ICC_LAB)
        step = 1 if translated else step_of(math.prod(shape) * dtype.itemsize)
        segments = Segments(page)
        memory_budget.need(
            segments.n_bytes + Sink.n_bytes(*shape, dtype, step) * (2 if opacity or translated else 1),
            len(self._data),
            f"a picture of {shape[1]} x {shape[0]} pixels",
        )
        sink = Sink(*shape, dtype, step, opacity == "own")
        segments.read(self._data, sink)
        array, alpha = self._with_opacity(self._seen(sink.result(), page), opacity)
        return array, alpha, step

    def _take(self, page: Any, like: Any) -> None:
        """Count the bytes of a page's strips, of which all pages together may have only so many."""
        most = Segments(like).n_stored
        self._packed += packed_bytes(page.dataoffsets, page.databytecounts, len(self._data), most)
        check_shared(self._packed, len(self._data))

    def _seen(self, array: np.ndarray, page: Any) -> np.ndarray:
        """Samples (H, W, S) as grey, RGB or bands, opacity last where there is any."""
        bits = page.bitspersample
        if page.photometric == INVERTED and page.dtype.kind in "ub":
            top = np.float32(2**bits - 1) if array.dtype == np.float32 else array.dtype.type(2**bits - 1)
            array = top - array if page.dtype.kind == "u" else 255 - array
        if page.photometric == PALETTE and page.colormap is not None:
            return (page.colormap.astype(np.uint16) >> 8).astype(np.uint8).T[array[..., 0]]
        if array.dtype == np.uint8 and bits in (2, 4):  # white is 255
            array = array * np.uint8(255 // (2**bits - 1))
        if page.photometric == INKS and array.shape[2] >= 4 and array.dtype != np.float32:
            return self._of_inks(array)
        if page.photometric in (LAB, ICC_LAB) and array.shape[2] == 3 and array.dtype != np.float32:
            return _by_rows(lambda rows: _of_lab(rows, page.photometric), array)
        return array

    def _of_inks(self, array: np.ndarray) -> np.ndarray:
        """Cyan, magenta, yellow and black (H, W, 4 or 5) as RGB, by the file's profile where it has one."""
        deep = array.dtype == np.uint16
        profile, self.profile = self.profile, b""
        if profile:
            light = (array[..., :4] >> 8).astype(np.uint8) if deep else np.ascontiguousarray(array[..., :4])
            image, note = color.srgb(Image.fromarray(light, "CMYK"), profile)
            if note is None:
                rgb = np.asarray(image)
                rgb = rgb.astype(np.uint16) * np.uint16(257) if deep else rgb
                return np.concatenate([rgb, array[..., 4:5]], axis=-1)
            self.notes.append(note)
        return np.concatenate([_by_rows(color.of_inks, array[..., :4]), array[..., 4:5]], axis=-1)

    def _with_opacity(self, array: np.ndarray, opacity: str) -> tuple[np.ndarray, bool]:
        """Pixels whose colors are not multiplied by their opacity, and whether there is any."""
        if opacity == "unexplained":
            if not _looks_like_opacity(array[..., -1]):
                return array, False
            if not array[..., -1].any():  # what is written there has no meaning: nothing would be left of the picture
                return np.ascontiguousarray(array[..., :-1]), False
            self.notes.append(UNEXPLAINED)
        if opacity == "multiplied":
            array = _by_rows(_divided, array)
        return array, bool(opacity)

    def _read_hyperstack(self) -> np.ndarray:
        """All frames (T, H, W, C) of a file whose channels are pages."""
        series = self._file.series[0]
        n_bytes = math.prod(series.shape) * series.dtype.itemsize
        memory_budget.need(3 * n_bytes, len(self._data), f"a stack of shape {series.shape}")
        for page in series.pages:
            if page is not None:
                whole: Any = page.keyframe
                _check(whole, self.check_pixels)
                self._take(page, whole)
                Segments(whole).check_unpacked(self._data, page)
        axes = series.axes
        first_page: Any = series.pages[0]
        if first_page.compression == 1:
            array = series.asarray(maxworkers=1)
        else:  # page by page, as for LZW tifffile needs a further library
            array = np.stack([self._page_of(page, first_page) for page in series.pages]).reshape(series.shape)
        last = [axes.index(name) for name in "YXCS" if name in axes]
        first = [i for i in range(len(axes)) if i not in last]
        array = array.transpose(first + last)
        n_frames = math.prod(array.shape[: len(first)])
        return array.reshape(n_frames, *array.shape[len(first) : len(first) + 2], -1)

    def _page_of(self, page: Any, like: Any) -> np.ndarray:
        """The samples of one page of a series; zeros where it is missing."""
        sink = Sink(
            like.imagelength, like.imagewidth, like.samplesperpixel, own_depth(np.zeros(1, like.dtype)).dtype, 1
        )
        if page is not None:
            Segments(page.aspage()).read(self._data, sink)
        array = sink.result()
        return np.moveaxis(array, 2, 0) if like.planarconfig == 2 and like.samplesperpixel > 1 else array


def _by_rows(convert: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """What a conversion makes of a picture, without floats of all of it at once."""
    rows = max(1, 2**20 // max(1, array[0].size))
    return np.concatenate([convert(array[top : top + rows]) for top in range(0, len(array), rows)])


def _of_lab(array: np.ndarray, photometric: int) -> np.ndarray:
    """CIE L*a*b* as TIFF stores it (TIFF 6.0, section 23; ICC's own by Technical Note 4) as RGB in the same depth."""
    top = np.iinfo(array.dtype).max
    unit = (top + 1) // 256
    lab = np.empty(array.shape, np.float32)
    white = top if photometric == LAB or unit == 1 else 0xFF00
    lab[..., 0] = array[..., 0] / np.float32(white) * 100
    if photometric == LAB:
        lab[..., 1:] = array[..., 1:].view(f"i{array.dtype.itemsize}") / np.float32(unit)
    else:
        lab[..., 1:] = array[..., 1:] / np.float32(unit) - 128
    return np.rint(color.of_lab(lab) * top).astype(array.dtype)


def _divided(array: np.ndarray) -> np.ndarray:
    """Colors that are multiplied by their opacity (H, W, C), divided by it."""
    top = np.float32(np.iinfo(array.dtype).max if array.dtype != np.float32 else 1)
    opacity = array[..., -1:].astype(np.float32)
    out = array.copy()
    colors = array[..., :-1] * (top / np.where(opacity > 0, opacity, top))
    out[..., :-1] = np.minimum(np.rint(colors), top) if array.dtype != np.float32 else colors
    return out


def _opacity(page: Any) -> str:
    """What the last sample of a page is: 'own' opacity, 'multiplied' into the colors, 'unexplained', or ""."""
    colors = {RGB: 3, YCBCR: 3, INKS: 4, PALETTE: 1, LAB: 3, ICC_LAB: 3}.get(page.photometric, 1)
    extra = [int(meaning) for meaning in page.extrasamples]
    if page.samplesperpixel != colors + 1 or len(extra) != 1 or page.dtype is None or page.dtype.kind not in "uf":
        return ""
    if extra[0] == 0:
        return "unexplained" if page.photometric == RGB else ""
    return {1: "multiplied", 2: "own"}.get(extra[0], "")


def _looks_like_opacity(sample: np.ndarray) -> bool:
    """Whether a sample has mostly one of the two values of an opacity that is there or not; a band of light has not."""
    top = 1.0 if sample.dtype == np.float32 else np.iinfo(sample.dtype).max
    return bool(((sample == 0) | (sample == top)).mean() > 0.5)


def open_stack(data: bytes, check_pixels: CheckPixels) -> Stack | list[int]:
    """The frames of a TIFF file, or the pages that are pictures where Pillow reads them better: plain 8-bit ones.

    Raises
    ------
    DecodeError
        If the file is damaged, too large, or of a codec that nobody here knows.
    """
    pages = _whole_pages(data)
    try:
        file = tifffile.TiffFile(BytesIO(data))
        page: Any = file.pages[pages[0]].aspage()
    except Exception:
        return pages  # Pillow may know better, or else gives the reason
    _check(page, check_pixels)
    if _is_plain(page) and not _has_channel_pages(file, len(pages), data):
        return pages
    samples = page.samplesperpixel
    if page.photometric in _MOSAIC:
        raise DecodeError("a camera's raw picture; export it as PNG, JPEG or TIFF")
    if not isinstance(page.bitspersample, int):
        raise DecodeError("channels that differ in depth are not read")
    if page.bitspersample == 1 and samples > 1:
        raise DecodeError(f"{samples} channels of 1 bit are not read")
    if page.dtype is None or page.dtype.kind == "c":
        what = f"samples of {page.bitspersample} bits" if page.dtype is None else "complex pixels"
        raise DecodeError(f"{what} are not read; save the TIFF with 8, 16 or 32 bits")
    if not Segments(page).is_simple:
        _check_codec(page, data)
    return Stack(file, pages, check_pixels, data)


def _check_codec(page: Any, data: bytes) -> None:
    """Refuse a codec that is not there, by its name, and segments that would unpack to more than their pixels."""
    name = getattr(page.compression, "name", str(page.compression)).replace("_", " ")
    what = f"a TIFF in {name} with {page.bitspersample} bits a sample"
    if page.compression not in (*_PILLOW, *_WITH_EXTRA):
        raise DecodeError(f"{what} is not read; save the TIFF with LZW or Deflate")
    if not _has_codec(page):
        raise needs_extra(what, "codecs")
    segments = Segments(page)
    again = page.tags.get(_LERC_PARAMETERS)
    again = again.value[1] if page.compression == _LERC and again is not None and len(again.value) > 1 else 0
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        part = data[offset : offset + count]
        if again:
            part = _unpacked_lerc(part, again, 16 * segments.width * segments.height * max(1, segments.samples) + 2**16)
        width, height = _WITH_EXTRA.get(page.compression, lambda data: (0, 0))(part)
        if width * height > segments.width * segments.height * max(1, segments.samples):
            raise DecodeError("a strip or tile that unpacks to more than its pixels")


def _unpacked_lerc(data: bytes, method: int, most: int) -> bytes:
    """The beginning of a part in LERC that is packed once more, by deflate (1) or Zstandard.

    Raises
    ------
    DecodeError
        If it unpacks to more than `most` bytes: tifffile has no limit.
    """
    too_large = DecodeError("a strip or tile that unpacks to more than its pixels")
    if method == 1:
        unpacker = zlib.decompressobj()
        first, rest = unpacked(data, unpacker, iter([2**10, most]))
        if len(rest) == most and unpacks_further(unpacker):
            raise too_large
        return first
    from imagecodecs import zstd_decode

    if zstd_size(data) > most:
        raise too_large
    return bytes(zstd_decode(data))


def _pillow_size(data: bytes) -> tuple[int, int]:
    return Image.open(BytesIO(data), formats=("PNG", "WEBP")).size if data else (0, 0)


def _jpeg2000_size(data: bytes) -> tuple[int, int]:
    cost = jpeg2000(data)
    memory_budget.need(cost.samples + cost.records, len(data), "a part of a TIFF in JPEG 2000")
    return inner_sizes(data)[0]


def _jpeg_size(data: bytes) -> tuple[int, int]:
    frame = jpeg_frame(data)
    return (frame.width, frame.height)


# How large a part says that it is, for the codecs of the extra `codecs`.
_WITH_EXTRA: dict[int, Callable[[bytes], tuple[int, int]]] = {
    7: _jpeg_size, 33003: _jpeg2000_size, 33004: _jpeg2000_size, 33005: _jpeg2000_size, 34712: _jpeg2000_size,
    34887: lerc_size, 34933: _pillow_size, 50001: _pillow_size,
}  # fmt: skip


def _whole_pages(data: bytes) -> list[int]:
    """The pages that are pictures: neither smaller copies of others nor masks, unless there is nothing else.

    Walks the chain of directories, which in a damaged file may run in a circle.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = b"+" in data[2:4]
    counter, pointer, entry = (order + "Q", order + "Q", 20) if big else (order + "H", order + "I", 12)
    seen: set[int] = set()
    whole = []
    total = 0
    try:
        (place,) = struct.unpack_from(pointer, data, 8 if big else 4)
        while place and len(seen) < _MAX_PAGES:
            if place in seen:
                raise DecodeError("a damaged TIFF file: its list of pages runs in a circle")
            (entries,) = struct.unpack_from(counter, data, place)
            first = place + struct.calcsize(counter)
            (name,) = struct.unpack_from(order + "H", data, first) if entries else (0,)  # tags are in order
            (kind,) = struct.unpack_from(order + "I", data, first + entry - struct.calcsize(pointer))
            if name != _SUBFILE or not kind & (_SMALLER | _MASK):
                whole.append(len(seen))
            seen.add(place)
            total += entries * entry
            if total > 2 * len(data) + 2**16:  # each reader parses all of them
                raise DecodeError("a damaged TIFF file: its lists of tags overlap")
            (place,) = struct.unpack_from(pointer, data, first + entries * entry)
    except (struct.error, OverflowError):
        if not seen:
            raise DecodeError("a truncated TIFF file: it ends before the picture does") from None
    return whole or [0]


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Whether a page is grey, RGB, palette or CMYK with at most 8 bits: Pillow's job."""
    colors = page.samplesperpixel - len(page.extrasamples)
    return (
        (page.bitspersample == 8 or (page.bitspersample in (1, 2, 4) and page.samplesperpixel == 1))
        and page.photometric in _PLAIN
        and page.compression in _PILLOW
        and page.sampleformat in (1, 4)
        and (colors in (1, 3) or (colors == 4 and not page.extrasamples))
        and page.extrasamples in ((), (1,), (2,))  # nothing but opacity; Pillow drops other channels
        and (page.planarconfig == 1 or page.samplesperpixel == 1)
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
        sizes = [_planes(pixels, most) for pixels in _PIXELS.findall(text)]
        if max(sizes, default=0) > most or _placed(text, max(sizes, default=1)) > 4 * most:
            return False
        if max((int(n) for n in _COUNTS.findall(text)), default=0) > most or _MODULO.search(text):
            return False
    else:
        page = file.pages.first
        claims = [int(n) for n in _IMAGEJ.findall(text)]
        if max(claims, default=0) > most and max(claims) * page.imagewidth * page.imagelength > len(data):
            return False
    return "C" in file.series[0].axes


def _placed(text: str, all_planes: int) -> int:
    """How many planes the TiffData elements of OME name in sum: a reader goes through them one by one."""
    total = 0
    for element in _PLACES.findall(text):
        count = _PLANES.search(element)
        total += int(count[1]) if count else 1 if "IFD" in element else all_planes  # as the OME schema has it
    return total


def _planes(pixels: str, most: int) -> int:
    """The product of the sizes that a Pixels element of OME names; no more than `most` + 1, however many they are."""
    product = 1
    for size in _SIZES.finditer(pixels):
        product = min(product * int(size[1]), most + 1)
    return product


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
    check_shared(
        packed_bytes(page.dataoffsets, page.databytecounts, page.parent.filehandle.size, Segments(page).n_stored),
        page.parent.filehandle.size,
    )
    if len(page.dataoffsets) > 2**20:
        raise DecodeError(f"a damaged TIFF file: it claims {len(page.dataoffsets)} strips")
