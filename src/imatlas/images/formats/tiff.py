"""TIFF files beyond plain 8-bit pictures: 16-bit, float, multi-channel, Lab, stacks. The only user of tifffile."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images import memory_budget
from imatlas.images.formats import color
from imatlas.images.formats.headers import inner_sizes, jpeg2000, jpeg_frame, lerc_size, zstd_size
from imatlas.images.formats.png import sound_size
from imatlas.images.formats.row_bands import Sink
from imatlas.images.formats.sniff import needs_extra
from imatlas.images.formats.tiff_colors import (
    GRAY,
    INKS,
    INVERTED,
    LABS,
    PALETTE,
    RGB,
    TRANSLATED,
    YCBCR,
    check_colors,
    inverted,
    meaning,
    mended,
    page_pixels,
    space_of,
)
from imatlas.images.formats.tiff_pages import is_series, whole_pages
from imatlas.images.formats.tiff_segments import (
    Segments,
    check_shared,
    own_depth,
    packed_bytes,
    unpacked,
    unpacks_further,
)

CheckPixels = Callable[[int, int, int], None]
StepOf = Callable[[tuple[int, int], int, int], int]
# Compressions that Pillow supports: none, fax, LZW, JPEG, Deflate, PackBits, ThunderScan, Zstandard.
_PILLOW = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32809, 32946, 34925, 50000)
_FAX, _JPEG, _DEFLATE = (2, 3, 4), (6, 7), (8, 32946)
_PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT, _PROFILE = 262, 274, 339, 34675
_LERC, _LERC_PARAMETERS = 34887, 50674
_RESOLUTION = (282, 283, 296)


class Frame(NamedTuple):
    """One frame (H, W, C): whether its last channel is alpha, its reduction factor, and what its tags say.

    `size` is that of the whole frame, as stored; `profile` is empty if the pixels are sRGB already.
    """

    array: np.ndarray
    alpha: bool
    step: int
    size: tuple[int, int]
    orientation: int
    profile: bytes
    notes: list[str]
    mode: str


class Stack:
    """The frames of a file: each an array (H, W, C) of uint8, uint16 or float32, decoded on request.

    Axes named channels or samples are channels; all others (depth, time, pages) are frames. Reduced copies of a
    picture and masks are not frames.

    Attributes
    ----------
    data : bytes
        The file, starting with the directory of its first full-size picture.
    pages : list of int
        Numbers of the pages that are pictures.
    size : (int, int)
        Width and height of the first frame, as stored.
    channels, orientation : int
        Those of the first frame.

    Raises
    ------
    DecodeError
        If the file is damaged, too large, or compressed by an unsupported codec.
    """

    def __init__(self, data: bytes, check_pixels: CheckPixels) -> None:
        self.data, self.pages = whole_pages(data)
        self.check_pixels = check_pixels
        self._hyperstack: np.ndarray | None = None
        self._packed = 0
        self._n_frames = len(self.pages)
        self._is_hyperstack = False
        self._notes: list[str] = []
        self.size, self.channels, self.orientation = (0, 0), 1, 1
        self._file: tifffile.TiffFile | None = None
        try:
            self._file = tifffile.TiffFile(BytesIO(self.data))
            page = self._page(0)
        except Exception:
            self._file = None  # Pillow may read it, or give the reason
            return
        _check(page, check_pixels)
        self.size, self.channels, self.orientation = (
            (page.imagewidth, page.imagelength),
            page.samplesperpixel,
            _orientation(page),
        )
        self._is_hyperstack = is_series(self._file, len(self.pages), self.data)
        if self._is_hyperstack:
            axes, shape = self._file.series[0].axes, self._file.series[0].shape
            self.channels = math.prod(n for name, n in zip(axes, shape, strict=True) if name in "CS")
            self._n_frames = math.prod(n for name, n in zip(axes, shape, strict=True) if name not in "YXCS")
            if len(self._file.series) > 1:
                self._notes.append(f"first of {len(self._file.series)} image series")
        if not self.is_plain(0):
            _check_readable(page, self.data)

    def __len__(self) -> int:
        return self._n_frames

    def _page(self, index: int) -> Any:
        assert self._file is not None
        return mended(self._file.pages[self.pages[index]].aspage())

    def is_plain(self, index: int) -> bool:
        """Whether a frame is a plain 8-bit picture, to be read by Pillow."""
        if self._is_hyperstack:
            return False
        if self._file is None:
            return True
        try:
            return _is_plain(self._page(index), self.data)
        except Exception:
            return True

    def size_of(self, index: int) -> tuple[int, int, int]:
        """Width, height and channels of a frame."""
        if self._is_hyperstack:
            return (*self.size, self.channels)
        page = self._page(index)
        return (page.imagewidth, page.imagelength, page.samplesperpixel)

    def frame(self, index: int, step_of: StepOf = lambda size, orientation, n_bytes: 1) -> Frame:
        """A frame, reduced by the integer factor that `step_of` returns.

        `step_of` receives the size, the orientation and the bytes of the full frame.
        """
        if self._is_hyperstack:
            return self._hyperframe(index)
        page = self._page(index)
        _check(page, self.check_pixels)
        if index:
            try:
                _check_readable(page, self.data)
            except DecodeError as error:
                raise DecodeError(f"page {self.pages[index] + 1}: {error}") from None
        self._take(page, page)
        dtype = own_depth(np.zeros(1, page.dtype)).dtype
        size, orientation = (page.imagewidth, page.imagelength), _orientation(page)
        shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
        about = meaning(page)
        translated = space_of(page) in TRANSLATED
        step = 1 if translated else step_of(size, orientation, math.prod(shape) * dtype.itemsize)
        segments = Segments(page)
        memory_budget.need(
            segments.n_bytes
            + Sink.n_bytes(*shape, dtype, step) * (2 if about.opacity or translated or page.photometric == 0 else 1),
            len(self.data),
            f"a picture of {shape[1]} x {shape[0]} pixels",
        )
        sink = Sink(*shape, dtype, step, about.opacity == "own" and about.where == shape[2] - 1)
        segments.read(self.data, sink)
        pixels = page_pixels(sink.result(), page, _profile(page))
        notes = _depth_notes(page) + pixels.notes
        mode = f"{page.samplesperpixel} x {page.dtype}"
        return Frame(pixels.array, pixels.alpha, step, size, orientation, pixels.profile, notes, mode)

    def _hyperframe(self, index: int) -> Frame:
        """A frame of a file whose channels or frames are not pages."""
        page = self._page(0)
        if self._hyperstack is None:
            self._hyperstack = self._read_hyperstack()
        array = own_depth(self._hyperstack[index])
        if page.photometric == INVERTED:
            array = inverted(array, page)
        notes, mode = _depth_notes(page) + self._notes, f"{self.channels} x {page.dtype}"
        return Frame(array, False, 1, self.size, self.orientation, b"", notes, mode)

    def _take(self, page: Any, like: Any) -> None:
        """Add the bytes of a page's strips to the total of the file, which is limited."""
        most = Segments(like).n_stored
        self._packed += packed_bytes(page.dataoffsets, page.databytecounts, len(self.data), most)
        check_shared(self._packed, len(self.data))

    def _read_hyperstack(self) -> np.ndarray:
        """All frames (T, H, W, C) of a file whose channels or frames are not pages."""
        assert self._file is not None
        series = self._file.series[0]
        n_bytes = math.prod(series.shape) * series.dtype.itemsize
        memory_budget.need(3 * n_bytes, len(self.data), f"a stack of shape {series.shape}")
        for page in series.pages:
            if page is not None:
                whole: Any = mended(page.keyframe)
                _check(whole, self.check_pixels)
                self._take(page, whole)
                Segments(whole).check_unpacked(self.data, page)
        axes = series.axes
        first_page: Any = series.pages[0]
        if first_page.compression == 1 and first_page.bitspersample == 8 * first_page.dtype.itemsize:
            array = series.asarray(maxworkers=1)
        else:  # page by page: tifffile needs another library for LZW and packed bits
            array = np.stack([self._page_of(page, first_page) for page in series.pages]).reshape(series.shape)
        last = [axes.index(name) for name in "YXCS" if name in axes]
        first = [i for i in range(len(axes)) if i not in last]
        array = array.transpose(first + last)
        n_frames = math.prod(array.shape[: len(first)])
        return array.reshape(n_frames, *array.shape[len(first) : len(first) + 2], -1)

    def _page_of(self, page: Any, like: Any) -> np.ndarray:
        """The samples of one page of a series; zeros if it is missing."""
        sink = Sink(
            like.imagelength, like.imagewidth, like.samplesperpixel, own_depth(np.zeros(1, like.dtype)).dtype, 1
        )
        if page is not None:
            Segments(mended(page.aspage())).read(self.data, sink)
        array = sink.result()
        return np.moveaxis(array, 2, 0) if like.planarconfig == 2 and like.samplesperpixel > 1 else array


def _orientation(page: Any) -> int:
    value = page.tags.valueof(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _profile(page: Any) -> bytes:
    """The ICC profile of a page; CIE Lab needs none."""
    value = page.tags.valueof(_PROFILE)
    return bytes(value) if isinstance(value, bytes) and space_of(page) not in LABS else b""


def _depth_notes(page: Any) -> list[str]:
    """Notes on a bit depth that is not kept."""
    read_as = own_depth(np.zeros(1, page.dtype)).dtype
    if read_as != page.dtype and page.dtype.kind != "b":
        return [f"{page.dtype} read as {read_as}"]
    note = color.scaled_note(page.bitspersample) if page.dtype.kind == "u" and page.photometric != PALETTE else ""
    return [note] if note else []


def _check_readable(page: Any, data: bytes) -> None:
    """Refuse a page that cannot be read, naming the reason."""
    if not isinstance(page.bitspersample, int):
        raise DecodeError("channels of different bit depths are not supported")
    if page.dtype is None or page.dtype.kind == "c":
        what = f"samples of {page.bitspersample} bits" if page.dtype is None else "complex pixels"
        raise DecodeError(f"{what} are not supported; save the TIFF with 8, 16 or 32 bits")
    check_colors(page)
    segments = Segments(page)
    if segments.is_simple:
        return
    if segments.is_subsampled:
        raise DecodeError(f"subsampled YCbCr of {page.bitspersample} bits is not supported; save the TIFF as RGB")
    _check_codec(page, data)


def _check_codec(page: Any, data: bytes) -> None:
    """Refuse a missing codec by name, and segments that would unpack to more than their pixels."""
    name = getattr(page.compression, "name", str(page.compression)).replace("_", " ")
    packing = "an uncompressed TIFF" if page.compression == 1 else f"a TIFF in {name}"
    what = f"{packing} with {page.bitspersample} bits per sample"
    if page.compression not in (*_PILLOW, *_WITH_EXTRA):
        raise DecodeError(f"{what} is not supported; save the TIFF with LZW or Deflate")
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
    """The beginning of a LERC segment that is compressed again by Deflate (1) or Zstandard.

    Raises
    ------
    DecodeError
        If it unpacks to more than `most` bytes; tifffile has no limit.
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


def _webp_size(data: bytes) -> tuple[int, int]:
    return Image.open(BytesIO(data), formats=("WEBP",)).size if data else (0, 0)


def _png_size(data: bytes) -> tuple[int, int]:
    return sound_size(data) if data else (0, 0)  # libpng prints errors


def _jpeg2000_size(data: bytes) -> tuple[int, int]:
    cost = jpeg2000(data)
    memory_budget.need(cost.samples + cost.records, len(data), "a TIFF segment in JPEG 2000")
    return inner_sizes(data)[0]


def _jpeg_size(data: bytes) -> tuple[int, int]:
    frame = jpeg_frame(data)
    return (frame.width, frame.height)


# The declared size of a segment, for the codecs of the extra `codecs`.
_WITH_EXTRA: dict[int, Callable[[bytes], tuple[int, int]]] = {
    7: _jpeg_size, 33003: _jpeg2000_size, 33004: _jpeg2000_size, 33005: _jpeg2000_size, 34712: _jpeg2000_size,
    34887: lerc_size, 34933: _png_size, 50001: _webp_size,
}  # fmt: skip


def _is_plain(page: Any, data: bytes) -> bool:
    """Whether Pillow reads a page correctly: gray, RGB, palette or CMYK with at most 8 bits."""
    codec, samples, extra = page.compression, page.samplesperpixel, tuple(page.extrasamples)
    layouts = {  # Pillow drops samples that are neither color nor alpha, and trusts undeclared alpha
        INVERTED: samples == 1,
        GRAY: samples == 1 or (samples == 2 and extra in ((1,), (2,))),
        RGB: samples == 3 or (samples == 4 and (extra in ((1,), (2,)) or (extra == () and codec in _JPEG))),
        PALETTE: samples == 1 and (page.colormap is None or page.colormap.max() >= 256),
        INKS: samples == 4,
        YCBCR: samples == 3 and codec in _JPEG,
    }
    return (
        data[:4] != b"MM\0+"  # the one header that Pillow does not support
        and (page.bitspersample == 8 or (page.bitspersample in (1, 2, 4) and samples == 1))
        and codec in _PILLOW
        and page.sampleformat == 1
        and 4 not in np.atleast_1d(page.tags.valueof(_SAMPLE_FORMAT, 1))  # undefined: read as numbers
        and layouts.get(page.photometric, False)
        and (page.photometric != INKS or (not extra and _is_readable(page)))
        and (page.fillorder == 1 or codec in (*_FAX, *_JPEG))
        and (_PHOTOMETRIC in page.tags or codec in _FAX)
        and (codec not in _DEFLATE or max(map(sum, zip(page.dataoffsets, page.databytecounts))) <= len(data))
        and (page.planarconfig == 1 or samples == 1)
        and page.imagedepth == 1
    )


def _is_readable(page: Any) -> bool:
    try:
        check_colors(page)
    except DecodeError:
        return False
    return True


def _has_codec(page: tifffile.TiffPage) -> bool:
    """Whether tifffile can decompress a page, and unpack its bits."""
    try:
        if page.compression != 1:
            tifffile.TIFF.DECOMPRESSORS[page.compression]
        if page.predictor != 1:
            tifffile.TIFF.UNPREDICTORS[page.predictor]
        if page.dtype is not None and page.bitspersample != 8 * page.dtype.itemsize:
            import imagecodecs  # noqa: F401
    except (KeyError, ValueError, ImportError):
        return False
    return True


def _check(page: tifffile.TiffPage, check_pixels: CheckPixels) -> None:
    """Refuse absurd sizes before memory is requested."""
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


def first_tags(data: bytes) -> list[tuple[int, int, int, Any]]:
    """(code, type, count, value) of each tag of the first picture of a file."""
    whole, pages = whole_pages(data)
    with tifffile.TiffFile(BytesIO(whole)) as file:
        page: Any = file.pages[pages[0]]
        return [(tag.code, int(tag.dtype), tag.count, tag.value) for tag in page.tags]


def _resolution(tags: Sequence[tuple[int, int, int, Any]]) -> dict[str, Any]:
    """Pixels per unit, and the unit, as tifffile takes them."""
    across, down, unit = (next((tag[3] for tag in tags if tag[0] == code), None) for code in _RESOLUTION)
    if not all(isinstance(value, tuple) and len(value) == 2 and value[1] for value in (across, down)):
        return {}
    return {"resolution": (across, down), "resolutionunit": int(unit) if unit in (1, 2, 3) else 2}


def encode_tiff(
    pixels: np.ndarray,
    *,
    alpha: bool = False,
    profile: bytes = b"",
    tags: Sequence[tuple[int, int, int, Any]] = (),
) -> bytes:
    """Pixels (H, W, C) as a Deflate-compressed TIFF, its last channel being alpha if that is so; `tags` as in
    `first_tags`, except those of the pixels."""
    channels = pixels.shape[2]
    colors = channels - alpha
    extra = ["unassalpha"] if alpha else None
    out = BytesIO()
    tifffile.imwrite(
        out,
        pixels[..., 0] if channels == 1 else pixels,
        photometric="rgb" if colors == 3 else "minisblack",
        planarconfig=None if channels == 1 else "contig",
        extrasamples=extra,
        compression="zlib",
        metadata=None,
        software=False,
        iccprofile=profile or None,
        extratags=[(*tag, True) for tag in tags if tag[0] not in _RESOLUTION],
        **_resolution(tags),
    )
    return out.getvalue()
