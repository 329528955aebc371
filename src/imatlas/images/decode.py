"""One picture from the bytes of a file, whatever they are: sniffed, bounded, upright, in its own depth.

What a file is, is told by its content, never by its name. Sizes are checked before anything is decoded. Whatever goes
wrong is a `DecodeError` with a plain reason; no other exception leaves `read_frames`.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from imatlas.errors import DecodeError
from imatlas.images import memory_budget
from imatlas.images.formats import color
from imatlas.images.formats.headers import Jpeg, check_scans, inner_sizes, jpeg2000, jpeg_frame, png_header
from imatlas.images.formats.netpbm import Netpbm, check_header
from imatlas.images.formats.png import PngBands, scale_clear, with_clear
from imatlas.images.formats.row_bands import Sink, array_of, block_means
from imatlas.images.formats.sniff import bits_of, format_of, needs_extra, plainly_branded
from imatlas.images.formats.tiff_segments import check_shared, packed_bytes
from imatlas.images.formats.warnings import quiet, silence_libtiff
from imatlas.images.pixels import LUMA, RGB, Kind, composited, ground_for, padding, upright
from imatlas.images.sources.base import reason_of

MAX_PIXELS = 2**27
"""The most pixels in one picture that are decoded: 134 million; fewer where there are more than four channels."""

MAX_FRAMES = 10_000
"""The most frames of one file that are used with `frames="all"`."""

MAX_SIDE = 2**19
"""The longest side of a picture that is decoded: 524,288 pixels."""

LONG = 4096
"""The longest side of the grey picture that is hashed."""

LARGE = 2**26
"""Bytes of a decoded picture from which one that will be made small is reduced while it is read."""

SMALL_SIDE, SMALL_BYTES = 512, 2**20
"""The longest side and the largest file of a picture that is meant to be a thumbnail."""

REDUCE_MARGIN = 1.4
"""A JPEG is decoded at 1/2, 1/4 or 1/8 where what is left is still this many times the size asked for. Measured on
photographs at quality 88: a mean of 41 dB to full decoding at 1.47, and 52 dB at 2.9."""

MOST_CHANNELS = 16
"""Of an array in a file whose last axis is longer, the first counts frames."""

Fit = Literal["crop", "pad", "stretch"]
Frames = Literal["first", "all"]

# 16-bit samples of several channels, which Pillow keeps only the upper half of: the layout with the lower half instead.
_LOWER_HALF = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "RGB;16L": "RGB;16B", "RGBA;16L": "RGBA;16B"}


class Aim(NamedTuple):
    """What a picture will be made into, so that a JPEG is decoded no larger than needed."""

    height: int
    width: int
    fit: Fit
    thumbnail: int = 0


class Picture:
    """One decoded picture, before it is fitted to a size.

    Attributes
    ----------
    width, height : int
        Of the original, after its orientation was applied.
    format, mode : str
        As Pillow names them; the mode is the file's own ("CMYK", "P", "RGB;16").
    kind : Kind
        Channels, opacity and depth of the pixels.
    n_frames, frame : int
        How many frames the file has, and which of them this is.
    notes : list of str
        What the user may want to know about how it was read.
    profile : bytes
        The ICC profile of the colors, until `to_srgb` has applied it; b"" where they are sRGB.
    """

    def __init__(self, stored: Image.Image | np.ndarray, format: str, mode: str, *, alpha: bool = False) -> None:
        self._stored = stored
        self.format = format
        self.mode = mode
        self.orientation = 1
        self.scale = 1
        self.n_frames = 1
        self.frame = 0
        self.notes: list[str] = []
        self.profile = b""
        if isinstance(stored, np.ndarray):
            self.full = (stored.shape[1], stored.shape[0])
            self.kind = Kind(stored.shape[2], alpha, stored.dtype.name)  # type: ignore[arg-type]
        else:
            self.full = stored.size
            bands = len(stored.mode)  # L, LA, RGB or RGBA
            self.kind = Kind(bands, bands in (2, 4), "uint8")

    def to_srgb(self) -> Picture:
        """This picture, its colors brought to sRGB; measurements, and grey of 16 bits, keep their values."""
        if not self.profile:
            return self
        note = None
        if isinstance(self._stored, Image.Image):
            self._stored, note = color.srgb(self._stored, self.profile)
        elif self.kind.dtype == "uint8" and self.kind.is_picture:
            note = self._in_bands()
        elif self.kind.dtype == "uint16" and self.kind.channels == 3:
            self._stored, note = color.srgb_deep(self._stored, self.profile)
        self.notes += [note] if note else []
        self.profile = b""
        return self

    def _in_bands(self) -> str | None:
        """`to_srgb` of a picture that is too large to be held twice."""
        assert isinstance(self._stored, np.ndarray)
        rows = max(1, CHEAP // self._stored.shape[1])
        for top in range(0, len(self._stored), rows):
            band = self._stored[top : top + rows]
            image, note = color.srgb(_as_stored(band), self.profile)  # type: ignore[arg-type]
            if note:
                return note
            self._stored[top : top + rows] = array_of(image)
        return None

    @property
    def width(self) -> int:
        """Of the upright original."""
        return self.full[self.orientation >= 5]

    @property
    def height(self) -> int:
        """Of the upright original."""
        return self.full[self.orientation < 5]

    def pixels(self) -> np.ndarray:
        """The picture (H, W, C), upright, at the scale it was decoded at."""
        return upright(_as_array(self._stored), self.orientation)

    @np.errstate(all="ignore")  # what is not finite stays so, without words
    def fitted(self, height: int, width: int, fit: Fit, background: RGB, *, quick: bool = False) -> np.ndarray:
        """The picture (height, width, C) with its own channels and depth.

        'crop' keeps the middle, 'pad' adds the background (invisible where there is alpha; a deep picture has no
        absolute white and is padded with its own minimum), 'stretch' changes the aspect ratio. `quick` resizes 8-bit
        colour three times as fast where it can, and agrees within rounding: for a network's eyes.
        """
        if self.orientation >= 5:
            height, width = width, height
        full_w, full_h = self.full[0] / self.scale, self.full[1] / self.scale
        box = (0.0, 0.0, full_w, full_h)
        inner = (width, height)
        if fit == "crop":
            zoom = min(full_w / width, full_h / height)
            left, top = (full_w - zoom * width) / 2, (full_h - zoom * height) / 2
            box = (left, top, full_w - left, full_h - top)
        elif fit == "pad":
            zoom = max(full_w / width, full_h / height)
            inner = (min(width, max(1, round(full_w / zoom))), min(height, max(1, round(full_h / zoom))))
        small = (_quickly_resized if quick else _resized)(self._stored, inner, box)
        if inner != (width, height):
            small = self._padded(small, height, width, background)
        return upright(small, self.orientation)

    def _padded(self, small: np.ndarray, height: int, width: int, background: RGB) -> np.ndarray:
        canvas = np.empty((height, width, small.shape[2]), small.dtype)
        if self.kind.dtype != "uint8" or not self.kind.is_picture:
            canvas[:] = np.nanmin(small) if np.isfinite(small).any() else np.nan
        elif self.kind.alpha:
            canvas[..., :-1] = padding(self.kind.colours, small.dtype, background)
            canvas[..., -1] = 0
        else:
            canvas[:] = padding(self.kind.colours, small.dtype, background)
        top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        return canvas

    @np.errstate(all="ignore")  # what is not finite stays so, without words
    def thumbnail(self, size: int) -> np.ndarray:
        """The whole picture (h, w, C), upright, its longer side at most `size`; never enlarged."""
        full_w, full_h = self.full[0] / self.scale, self.full[1] / self.scale
        zoom = max(self.full[0] / size, self.full[1] / size, 1.0)
        inner = (max(1, round(self.full[0] / zoom)), max(1, round(self.full[1] / zoom)))
        return upright(_resized(self._stored, inner, (0.0, 0.0, full_w, full_h)), self.orientation)

    @np.errstate(all="ignore")  # what is not finite stays so, without words
    def grey(self, side: int = 48) -> np.ndarray:
        """The whole picture (h, w) in grey, upright, shrunk by a whole number while no side falls below `side`.

        A side longer than `LONG` is shrunk further.
        """
        if isinstance(self._stored, np.ndarray):
            small = _block_means(self._stored, side)
            grey = small @ LUMA if small.shape[2] == 3 else small.mean(axis=2, dtype=np.float32)
            return upright(grey[..., None], self.orientation)[..., 0]
        step = max(1, min(self._stored.size) // side)
        across, down = (max(step, -(-length // LONG)) for length in self._stored.size)
        image = self._stored.reduce((across, down)) if max(across, down) > 1 else self._stored
        if self.kind.alpha:
            ground = ground_for(np.asarray(image), (255, 255, 255))
            image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image.convert("RGBA"))
        grey = np.asarray(image.convert("L"))
        return upright(grey[..., None], self.orientation)[..., 0]


def read_frames(
    data: bytes,
    *,
    name: str = "",
    frames: Frames = "first",
    aim: Aim | None = None,
    background: RGB = (255, 255, 255),
    packed: int | None = None,
) -> Iterator[Picture]:
    """The first picture in a file, or all of its frames in order.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        Its name; asked only for formats that have no mark of their own, and for a better reason.
    frames : {'first', 'all'}
        What to take from animations and stacks.
    aim : Aim, optional
        Lets a JPEG be decoded at reduced scale.
    background : (int, int, int)
        What 16-bit pictures with opacity are composited on. 8-bit ones keep their opacity here.
    packed : int, optional
        The bytes that the file takes on the disk, where it was unpacked from an archive: `Source.packed`.

    Raises
    ------
    DecodeError
        With the reason, and nothing else, for whatever cannot be read.
    """
    format = "image"
    share = memory_budget.current()
    own = memory_budget.Share() if share is None else None
    if packed is not None:
        (own or share).packed, (own or share).unpacked = packed, len(data)  # type: ignore[union-attr]
    try:
        format = format_of(data, name)
        data = plainly_branded(data, format)
        with quiet():
            pictures = _READERS.get(format, _read_plain)(data, format, frames, aim, background)
            while True:
                # Not around the yield: between two pictures this thread may do other work.
                with memory_budget.using(own or share), np.errstate(all="ignore"):  # type: ignore[arg-type]
                    picture = next(pictures, None)
                    if picture is not None:
                        picture = picture.to_srgb()
                if picture is None:
                    return
                yield picture
    except DecodeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DecodeError(f"has more pixels than the limit of {MAX_PIXELS / 1e6:.0f} million") from None
    except MemoryError:
        raise DecodeError("needs more memory than there is") from None
    except Exception as error:
        raise DecodeError(_explained(error, format)) from None
    finally:
        if own is not None:
            own.close()


def read_picture(data: bytes, **options: Any) -> Picture:
    """The first picture in a file; the options and errors of `read_frames`."""
    for picture in read_frames(data, **options):
        return picture
    raise DecodeError("holds no picture")


def check_thumbnail(data: bytes) -> bytes:
    """A file that is meant to be a thumbnail: a small JPEG or PNG, as `encode_thumbnail` writes it.

    Raises
    ------
    DecodeError
        If it is of another format, or large: what came with an atlas must not cost more than thumbnails do.
    """
    if len(data) > SMALL_BYTES:
        raise DecodeError(
            f"a thumbnail of {memory_budget.amount(len(data))}, more than {memory_budget.amount(SMALL_BYTES)}"
        )
    if format_of(data, "") not in ("JPEG", "PNG", "WEBP"):
        raise DecodeError(f"a thumbnail that is a {format_of(data, '')} file, not JPEG or PNG")
    height, width = size_of(data)
    if max(height, width) > SMALL_SIDE:
        raise DecodeError(f"a thumbnail of {width} x {height} pixels, more than {SMALL_SIDE}")
    return data


def check_stack(data: bytes) -> bytes:
    """A TIFF that a thumbnail of measurements holds besides the pixels that are shown: as small as a thumbnail.

    Raises
    ------
    DecodeError
        If it is another file, or one that costs more than a thumbnail does.
    """
    from imatlas.images.formats.tiff import open_stack

    def check(width: int, height: int, samples: int = 1) -> None:
        if max(width, height) > SMALL_SIDE or width * height * samples > LARGE:
            raise DecodeError(f"a thumbnail of {width} x {height} pixels in {samples} channels, too large for one")

    if len(data) > SMALL_BYTES * 64 or format_of(data, "") != "TIFF":
        raise DecodeError("a thumbnail whose channels are no small TIFF")
    stack = open_stack(data, check)
    if not isinstance(stack, list) and len(stack) != 1:
        raise DecodeError(f"a thumbnail of {len(stack)} frames")
    return data


def picture_from(value: np.ndarray | Image.Image, background: RGB = (255, 255, 255)) -> Picture:
    """A picture from pixels in memory: an array (H, W, C) of uint8, uint16 or float32, or a Pillow image."""
    try:
        if isinstance(value, np.ndarray):
            mode = f"{value.shape[2]} x {value.dtype}"
            if value.dtype != np.uint8 or value.shape[2] not in (1, 3, 4):
                return Picture(value, "array", mode)
            flat = value[..., 0] if value.shape[2] == 1 else value
            return Picture(Image.fromarray(np.ascontiguousarray(flat)), "array", mode)
        _check_pixels(*value.size)
        _need(value, "image", 0, aim=False)
        with quiet():
            picture = _finished(value, value.format or "image", background)
            picture.orientation = _orientation(value)
            return picture.to_srgb()
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(_explained(error, "image")) from None


def resize_pixels(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels (N, H, W, C) stretched to (N, height, width, C), by the filters of `Picture.fitted`."""
    if pixels.shape[1:3] == (height, width):
        return pixels
    out = np.empty((len(pixels), height, width, pixels.shape[3]), pixels.dtype)
    for i, image in enumerate(pixels):
        out[i] = picture_from(image).fitted(height, width, "stretch", (255, 255, 255))
    return out


def _explained(error: BaseException, format: str) -> str:
    """What went wrong inside a decoder, in plain words."""
    text = reason_of(error)
    if isinstance(error, UnidentifiedImageError):
        return f"a damaged {format} file: its header cannot be read"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"a truncated {format} file: it ends before the picture does"
    if isinstance(error, TypeError | AttributeError | LookupError | ArithmeticError | AssertionError | struct.error):
        return f"a damaged {format} file: its parts contradict each other"
    return f"a damaged {format} file ({text})"


def _check_pixels(width: int, height: int, samples: int = 1) -> None:
    """Refuse a picture that has no pixels, or too many for memory."""
    if width < 1 or height < 1 or samples < 1:
        raise DecodeError(f"has no pixels ({width} x {height})")
    if max(width, height) > MAX_SIDE:
        raise DecodeError(f"{width} x {height} pixels: a side is more than the limit of {MAX_SIDE}")
    if width * height * max(1.0, samples / 4) > MAX_PIXELS:
        raise DecodeError(f"{width} x {height} pixels are more than the limit of {MAX_PIXELS / 1e6:.0f} million")


def _read_jpeg(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """A JPEG, reduced where the aim allows; further pictures inside (depth, gain maps) are left alone."""
    header = jpeg_frame(data)
    if _is_deep(header):
        yield _deep_jpeg(data, header)
        return
    image = Image.open(BytesIO(data), formats=("JPEG",))
    full, mode = image.size, image.mode
    _check_pixels(*full)
    scans = check_scans(data, *full)
    orientation = _orientation(image)
    scale = 1
    if aim is not None:
        scale = _jpeg_scale(full, orientation, aim)
        if scale > 1:
            image.draft(None, (full[0] // scale, full[1] // scale))
    if full[0] * full[1] > CHEAP:
        held = 2 * header.samples * full[0] * full[1] if header.buffered or scans > 1 else 0
        _need(image, format, len(data), aim=aim is not None, besides=int(held), full=full)
    reduced = image.size != full
    picture = _finished(image, format, background)
    picture.mode, picture.orientation, picture.full = mode, orientation, full
    picture.scale = scale if reduced else 1
    yield picture


def _is_deep(header: Jpeg) -> bool:
    """Whether a JPEG is of a kind that Pillow does not decode."""
    return header.bits not in (0, 8) or header.lossless


def _deep_jpeg(data: bytes, header: Jpeg) -> Picture:
    """A JPEG of more than 8 bits or without loss, through the extra: hospitals and cameras write such."""
    what = f"a {'lossless' if header.lossless else ''} JPEG of {header.bits} bits".replace("  ", " ")
    try:
        from imagecodecs import jpeg8_decode
    except ImportError:
        raise needs_extra(what, "codecs") from None
    _check_pixels(header.width, header.height)
    pixels = header.width * header.height
    memory_budget.need(
        int(6 * max(3.0, header.samples) * pixels), len(data), f"a picture of {header.width} x {header.height}"
    )
    array = np.atleast_3d(jpeg8_decode(data))
    picture = Picture(_as_stored(array), "JPEG", f"{array.shape[2]} x {header.bits} bits")
    picture.notes += [f"{header.bits}-bit"] if header.bits != 8 else []
    picture.orientation = _exif_orientation(data)
    return picture


def _jpeg_scale(full: tuple[int, int], orientation: int, aim: Aim) -> int:
    """The largest of 8, 4, 2, 1 to divide the size by that leaves enough for the aim."""
    room = _room(full, orientation, aim)
    return next((s for s in (8, 4, 2) if room >= s * REDUCE_MARGIN and min(full) >= 2 * s), 1)


def _room(full: tuple[int, int], orientation: int, aim: Aim) -> float:
    """By how much a picture may be reduced and still have the size that is asked for."""
    target = (aim.height, aim.width) if orientation >= 5 else (aim.width, aim.height)
    ratios = (full[0] / target[0], full[1] / target[1])
    room = max(ratios) if aim.fit == "pad" else min(ratios)
    if aim.thumbnail:
        room = min(room, max(full) / aim.thumbnail * REDUCE_MARGIN)  # a thumbnail is content with its own size
    return room


def _step(full: tuple[int, int], orientation: int, aim: Aim | None, n_bytes: int) -> int:
    """By what whole number a picture is reduced while it is read: 1 unless it is large and will be made small."""
    if aim is None or n_bytes <= LARGE:
        return 1
    return max(1, min(int(_room(full, orientation, aim) / 2), min(full) // 64))


def _read_plain(
    data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB, pages: list[int] | None = None
) -> Iterator[Picture]:
    """Any format, through Pillow; `pages` are those that count as frames, by their numbers."""
    image = Image.open(BytesIO(data), formats=(format,))
    if pages and pages[0]:
        image.seek(pages[0])
    _check_pixels(*image.size)
    _check_inside(data, format)
    n_frames = len(pages) if pages else int(getattr(image, "n_frames", 1))
    if format in ("ICO", "ICNS", "PSD"):  # sizes, layers
        n_frames = 1
    wanted = min(n_frames, MAX_FRAMES) if frames == "all" else 1
    work = _Work(wanted, data)
    work.expect(wanted, *image.size)
    for frame in range(wanted):
        if n_frames > 1:
            image.seek(pages[frame] if pages else frame)
            _check_pixels(*image.size)
        work.frame(image)
        full, halvings = image.size, 0
        deep = bits_of(data, format) > 8 and _raw_layout(image) in (*_LOWER_HALF, "LA;16B")
        if format == "JPEG2000" and bits_of(data, format) > 8 and image.mode in ("LA", "RGB", "RGBA"):
            yield _deep_jpeg2000(image, data, background)
            return
        if format == "JPEG2000":
            halvings = _need_jpeg2000(image, data, aim)
        elif image.size[0] * image.size[1] > CHEAP:
            besides = 40 * full[0] * full[1] if deep else None
            _need(image, format, len(data), aim=aim is not None, copied=wanted > 1, besides=besides)
        mode = image.mode
        if format == "PNG":
            scale_clear(image, bits_of(data, format))
        if deep:
            wide = _sixteen_bit(data, format, image.size, _raw_layout(image))
            if "transparency" in image.info and wide.shape[2] == 3:
                wide = with_clear(wide, np.array(image.info["transparency"], np.uint16))
            mode = f"{('', 'L', 'LA', 'RGB', 'RGBA')[wide.shape[2]]};16"
            if wide.shape[2] in (2, 4):
                wide = _composited(wide, background)
            picture = Picture(wide, format, mode)
            picture.profile = image.info.get("icc_profile") or b""
            image.load()  # what follows the pixels may hold the orientation
        else:
            picture = _finished(image.copy() if wanted > 1 else image, format, background)
            picture.mode = mode
            if picture.kind.dtype == "uint8" and bits_of(data, format) > 8:
                picture.notes.append("16-bit, read as 8-bit")
        if halvings:
            setattr(image, "reduce", 0)  # noqa: B010 - gives Pillow's method of this name back
            picture.full, picture.scale = full, 2**halvings
        picture.orientation = _orientation(image)
        _tell_frames(picture, n_frames, frame, wanted)
        yield picture


class _Work:
    """The pixels of all frames of a file, and for a TIFF the bytes of all their strips: no more than it may have."""

    def __init__(self, wanted: int, data: bytes) -> None:
        self._wanted = wanted
        self._n_bytes = len(data)
        self._pixels = 0
        self._packed = 0

    def expect(self, n_frames: int, width: int, height: int, samples: int = 1) -> None:
        """Refuse so many more frames, where they are too many."""
        work = self._pixels + width * height * n_frames * max(1, samples // 4)
        if self._wanted > 1 and work > MAX_PIXELS + 200 * self._n_bytes:
            raise DecodeError(
                f"{self._wanted} frames of up to {width} x {height} pixels are too much work for a file of "
                f"{memory_budget.amount(self._n_bytes)}; take the first frame, or fewer"
            )

    def add(self, width: int, height: int, samples: int = 1) -> None:
        """Count one frame."""
        self.expect(1, width, height, samples)
        self._pixels += width * height * max(1, samples // 4)

    def frame(self, image: Image.Image) -> None:
        """Count a frame that Pillow has opened."""
        self.add(*image.size)
        tags = getattr(image, "tag_v2", None)
        if tags is None:
            return
        offsets, counts = (tags.get(273), tags.get(279)) if 273 in tags else (tags.get(324), tags.get(325))
        if isinstance(offsets, tuple) and isinstance(counts, tuple) and tags.get(259, 1) != 1:
            self._packed += packed_bytes(offsets, counts, self._n_bytes)
            check_shared(self._packed, self._n_bytes)


CHEAP = 2**20
"""Pixels of a picture that is too small to be counted: a few megabytes for each thread."""

# Bytes of a pixel that a decoder holds besides the picture itself: canvases, planes, copies.
_BESIDES = {"WEBP": 17, "AVIF": 16, "HEIF": 20, "GIF": 2, "QOI": 8, "BMP": 6, "DDS": 6, "PSD": 4, "ICO": 8, "ICNS": 8}


def _need(
    image: Image.Image,
    format: str,
    packed: int,
    *,
    aim: bool,
    copied: bool = False,
    besides: int | None = None,
    full: tuple[int, int] | None = None,
) -> None:
    """Wait for the memory that decoding an opened image takes at its peak."""
    one = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}.get(image.mode, 4)
    pixels = image.size[0] * image.size[1]
    each = one * (2 if copied else 1)
    if image.mode not in ("L", "LA", "RGB", "RGBA") or "transparency" in image.info:
        each += {"1": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}.get(image.mode, 4)
    if getattr(image, "n_frames", 1) > 1 and format in ("GIF", "PNG"):
        each += 8
    if besides is None:
        each += _BESIDES.get(format, 0)
    if not aim:
        each += len(image.getbands())
    width, height = full or image.size
    what = f"a picture of {width} x {height} pixels"
    memory_budget.need(each * pixels + (besides or 0) + _strip_bytes(image), packed, what)


def _strip_bytes(image: Image.Image) -> int:
    """What libtiff holds of a TIFF besides the picture: a strip or tile, as its tags say."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return 0
    try:
        if 322 in tags and 323 in tags:
            pixels = int(tags[322]) * int(tags[323])
        else:
            pixels = image.size[0] * min(image.size[1], int(tags.get(278, image.size[1])))
        return pixels * int(tags.get(277, 1)) * -(-max(tags.get(258, (1,))) // 8)
    except Exception:
        return 0


def _check_inside(data: bytes, format: str) -> None:
    """Refuse an icon whose pictures are larger than its directory says."""
    if format in ("ICO", "ICNS"):
        for width, height in inner_sizes(data):
            if width * height > 4096 * 4096:
                raise DecodeError(f"holds a picture of {width} x {height} pixels, more than an icon has")


def _deep_jpeg2000(image: Image.Image, data: bytes, background: RGB) -> Picture:
    """Colors of more than 8 bits, through the extra: Pillow rounds them to 8, and white to black."""
    bits = bits_of(data, "JPEG2000")
    try:
        from imagecodecs import jpeg2k_decode
    except ImportError:
        raise needs_extra(f"a JPEG 2000 of {bits} bits in color", "codecs") from None
    _need_jpeg2000(image, data, None)
    array = jpeg2k_decode(data)
    top = np.float32(2**bits - 1)
    wide = np.rint(array * (np.float32(65535) / top)).astype(np.uint16) if bits < 16 else array.astype(np.uint16)
    if wide.shape[2] in (2, 4):
        wide = _composited(wide, background)
    picture = Picture(wide, "JPEG2000", f"{image.mode};{bits}")
    picture.profile = image.info.get("icc_profile") or b""
    return picture


def _need_jpeg2000(image: Image.Image, data: bytes, aim: Aim | None) -> int:
    """Wait for the memory that a JPEG 2000 takes; how often the size of a large one is halved while it is decoded."""
    cost = jpeg2000(data)
    full = image.size
    halvings = 0
    if aim is not None and cost.samples > LARGE:
        room = _room(full, 1, aim)  # four times over: the small one lies up to half of its pixels aside
        while halvings < min(cost.levels, 5) and room >= 2 ** (halvings + 3):
            halvings += 1
        if halvings:
            setattr(image, "reduce", halvings)  # noqa: B010 - an attribute that sets how it is decoded
    if full[0] * full[1] > CHEAP or cost.samples + cost.records > 32 * CHEAP:
        what = f"a picture of {full[0]} x {full[1]} pixels"
        memory_budget.need(cost.samples // 4**halvings + cost.records, len(data), what)
    return halvings


def _read_png(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """A PNG: by bands of rows where it is large, or has 16 bits in several channels; else through Pillow."""
    header = png_header(data)
    if header is None or header.interlaced or header.color not in (0, 2, 3, 4, 6):
        yield from _read_plain(data, format, frames, aim, background)
        return
    _check_pixels(header.width, header.height)
    deep = header.depth == 16 and (header.color in (2, 4, 6) or b"tRNS" in data[: data.find(b"IDAT")])
    if header.width * header.height * 4 <= LARGE and not deep:
        yield from _read_plain(data, format, frames, aim, background)
        return
    image = Image.open(BytesIO(data), formats=("PNG",))
    if frames == "all" and int(getattr(image, "n_frames", 1)) > 1:
        yield from _read_plain(data, format, frames, aim, background)
        return
    bands = PngBands(data, header)
    about = Image.open(BytesIO(bands.about()), formats=("PNG",))
    about.load()  # what follows the pixels may hold the orientation
    picture = _png_by_bands(bands, len(data), aim, background, _orientation(about))
    picture.profile = image.info.get("icc_profile") or b""
    picture.mode = f"{('', 'L', 'LA', 'RGB', 'RGBA')[bands.channels]};16" if deep else image.mode
    _tell_frames(picture, int(getattr(image, "n_frames", 1)), 0, 1)
    yield picture


def _png_by_bands(bands: PngBands, packed: int, aim: Aim | None, background: RGB, orientation: int) -> Picture:
    """A PNG that is not interlaced, reduced while it is read where it will be made small."""
    header = bands.header
    full = (header.width, header.height)
    flat = bands.alpha and bands.dtype == np.uint16  # 16-bit opacity is composited: the mean of what lies there
    each = max(4, bands.channels * bands.dtype.itemsize)
    step = _step(full, orientation, aim, header.width * header.height * each)
    channels = bands.channels - (flat and step == 1)
    alpha = bands.alpha and not flat
    held = Sink.n_bytes(header.height, header.width, channels, bands.dtype, step)
    if held > CHEAP or step > 1:
        memory_budget.need(held + 2**25, packed, f"a picture of {full[0]} x {full[1]} pixels")
    sink = Sink(header.height, header.width, channels, bands.dtype, step, bands.alpha)
    for top, rows in bands.bands():
        sink.put(top, 0, composited(rows, background) if flat and step == 1 else rows)
    array = sink.result()
    if flat and step > 1:
        array = composited(array, background)
    picture = Picture(_as_stored(array) if step > 1 or held <= LARGE else array, "PNG", "", alpha=alpha)
    picture.full, picture.scale, picture.orientation = full, step, orientation
    return picture


def _as_stored(array: np.ndarray) -> np.ndarray | Image.Image:
    """Pixels as a picture keeps them: 8-bit ones as a Pillow image."""
    if array.dtype != np.uint8 or array.shape[2] > 4:
        return array
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))


def _read_netpbm(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """A Netpbm file; text and odd depths are read here, as Pillow takes a microsecond for each number."""
    if data[1:2] in b"12356":
        file = Netpbm(data)
        if file.is_slow:
            _check_pixels(file.width, file.height)
            n_bytes = file.width * file.height * file.channels * file.dtype.itemsize
            if n_bytes > CHEAP:
                times = 10 if file.kind in b"56" else 3
                memory_budget.need(
                    times * n_bytes + 2**26, len(data), f"a picture of {file.width} x {file.height} pixels"
                )
            yield Picture(_as_stored(file.pixels(data)), format, file.mode)
            return
    else:
        check_header(data)
    yield from _read_plain(data, format, frames, aim, background)


def _composited(array: np.ndarray, background: RGB) -> np.ndarray:
    """`composited` by bands of rows, as it makes floats of all it is given, on a ground on which something is seen."""
    background = ground_for(array, background)
    out = np.empty((*array.shape[:2], array.shape[2] - 1), array.dtype)
    rows = max(1, CHEAP // array.shape[1])
    for top in range(0, len(array), rows):
        out[top : top + rows] = composited(array[top : top + rows], background)
    return out


def _tell_frames(picture: Picture, n_frames: int, frame: int, wanted: int) -> None:
    picture.n_frames, picture.frame = n_frames, frame
    if n_frames > 1 and wanted == 1:
        picture.notes.append(f"first of {n_frames} frames")
    elif n_frames > wanted:
        picture.notes.append(f"of {n_frames} frames the first {wanted} are used")


def _read_tiff(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """A TIFF: through tifffile where it is deep or has many channels, else through Pillow, which knows more codecs."""
    from imatlas.images.formats.tiff import open_stack

    silence_libtiff()
    stack = open_stack(data, _check_pixels)
    if isinstance(stack, list):
        for picture in _read_plain(data, format, frames, aim, background, pages=stack):
            picture.orientation = 1  # Pillow turns a TIFF itself
            yield picture
        return
    wanted = min(len(stack), MAX_FRAMES) if frames == "all" else 1
    work = _Work(wanted, data)
    work.expect(wanted, *stack.size, stack.channels)
    for frame in range(wanted):
        work.add(*stack.size_of(frame))
        array, alpha, step = stack.frame(frame, lambda n_bytes: _step(stack.size, stack.orientation, aim, n_bytes))
        if alpha and array.dtype != np.uint8:
            array, alpha = _composited(array, background), False
        picture = Picture(_as_stored(array) if alpha else array, format, stack.mode, alpha=alpha)
        picture.profile = stack.profile
        if step > 1:
            picture.full, picture.scale = stack.size, step
        picture.orientation = stack.orientation
        picture.notes += stack.notes
        _tell_frames(picture, len(stack), frame, wanted)
        yield picture


def _opened_heif(data: bytes) -> Any:
    """The container of a HEIC file, its pixels not yet decoded."""
    try:
        import pillow_heif
    except ImportError:
        raise needs_extra("HEIC", "heif") from None
    return pillow_heif.open_heif(BytesIO(data))


def _heif_size(data: bytes) -> tuple[int, int]:
    width, height = _opened_heif(data).size
    return (height, width)


def _read_heif(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """HEIC and HEIF, through the extra."""
    opened = _opened_heif(data)
    _check_pixels(*opened.size)
    if opened.size[0] * opened.size[1] > CHEAP:
        needed = opened.size[0] * opened.size[1] * _BESIDES[format]
        memory_budget.need(needed, len(data), f"a picture of {opened.size[0]} x {opened.size[1]} pixels")
    picture = _finished(opened.to_pillow(), format, background)
    picture.mode = opened.mode
    if opened.info.get("bit_depth", 8) > 8:
        picture.notes.append(f"{opened.info['bit_depth']}-bit, read as 8-bit")
    yield picture


def _read_npy(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """One array in a file: a picture (H, W) or (H, W, C), or frames (T, H, W) or (T, H, W, C)."""
    from imatlas.images.sources.arrays import as_pixels

    array = _npy_array(data)
    if array.ndim == 3 and array.shape[2] > MOST_CHANNELS and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    is_one = array.ndim == 2 or (array.ndim == 3 and array.shape[2] <= MOST_CHANNELS)
    stack = array[None] if is_one else array
    wanted = min(len(stack), MAX_FRAMES) if frames == "all" else 1
    _check_pixels(stack.shape[2], stack.shape[1], stack.shape[3] if stack.ndim == 4 else 1)
    for frame in range(wanted):
        picture = picture_from(as_pixels(stack[frame][None])[0])
        picture.format = format
        _tell_frames(picture, len(stack), frame, wanted)
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


_READERS: dict[str, Any] = {
    "NPY": _read_npy,
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "PPM": _read_netpbm,
    "TIFF": _read_tiff,
    "HEIF": _read_heif,
}


def _finished(image: Image.Image, format: str, background: RGB) -> Picture:
    """Decode an opened image and bring it to L, LA, RGB, RGBA, or an array of uint16 or float32."""
    mode = image.mode
    if mode.startswith("I;16"):
        deep = array_of(image).astype(np.uint16, copy=False)
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            deep = _composited(with_clear(deep, np.array([clear], np.uint16)), background)
        return Picture(deep, format, mode)
    if mode in ("I", "F"):
        values = array_of(image)
        # Pillow once gave 16-bit PNG and PGM as 32-bit whole numbers.
        narrow = mode == "I" and format in ("PNG", "PPM") and values.min() >= 0 and values.max() <= 65535
        return Picture(values.astype(np.uint16 if narrow else np.float32, copy=False), format, mode)
    if image.has_transparency_data:
        target = "LA" if mode in ("L", "1", "LA", "La") else "RGBA"
    else:
        target = "L" if mode in ("1", "L") else "RGB"
    image.load()
    profile = image.info.get("icc_profile") or b""
    notes = []
    if mode == "CMYK" and profile:
        image, note = color.srgb(image, profile)
        notes, profile = [note] if note else [], b""
    picture = Picture(image if image.mode == target else image.convert(target), format, mode)
    picture.profile = profile if isinstance(profile, bytes) else b""
    picture.notes += notes
    return picture


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; a damaged or missing one counts as upright."""
    if not any(name in image.info for name in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")):
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def _exif_orientation(data: bytes) -> int:
    """The orientation in the EXIF part of a JPEG that Pillow does not open."""
    start = data.find(b"Exif\0\0", 0, 2**16)
    exif = Image.Exif()
    try:
        exif.load(data[start : start + 2**16] if start >= 0 else b"")
        value = exif.get(0x0112, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def _raw_layout(image: ImageFile.ImageFile) -> str:
    """How the samples lie in the file, in Pillow's words ("RGB;16B"), or "" where it does not say."""
    if len(image.tile) != 1:
        return ""
    args = image.tile[0].args
    args = args[0] if isinstance(args, tuple) and args else args
    return args if isinstance(args, str) else ""


def _sixteen_bit(data: bytes, format: str, size: tuple[int, int], layout: str) -> np.ndarray:
    """All 16 bits (H, W, C) of a file that Pillow reads as 8-bit, from two readings: upper bytes and lower bytes."""

    def reading(raw: str) -> np.ndarray:
        image = Image.open(BytesIO(data), formats=(format,))
        tile = image.tile[0]
        args = (raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw
        image.tile = [tile._replace(args=args)]
        return np.asarray(image)

    _check_pixels(*size, samples=8)
    if layout == "LA;16B":  # its four bytes a pixel as they are
        four = reading("RGBA").astype(np.uint16)
        return four[..., 0::2] << 8 | four[..., 1::2]
    return reading(layout).astype(np.uint16) << 8 | reading(_LOWER_HALF[layout])


def _as_array(stored: Image.Image | np.ndarray) -> np.ndarray:
    return array_of(stored) if isinstance(stored, Image.Image) else stored


def _block_means(array: np.ndarray, side: int) -> np.ndarray:
    """The means (h, w, C) of square blocks, as large as leaves `side` of them along each axis, at most `LONG`."""
    step = max(1, min(array.shape[:2]) // side)
    down, across = (max(step, -(-length // LONG)) for length in array.shape[:2])
    if down == across == 1:
        return array
    height, width = array.shape[0] // down, array.shape[1] // across
    blocks = array[: height * down, : width * across].reshape(height, down, width, across, -1)
    return blocks.mean((1, 3), dtype=np.float32)


_TALL = 2**25


def _resized(stored: Image.Image | np.ndarray, size: tuple[int, int], box: tuple[float, ...]) -> np.ndarray:
    """The part of a picture inside `box` (left, top, right, bottom) at `size` (width, height), as an array (h, w, C).

    8-bit pictures shrink by Lanczos and grow by bicubic interpolation. Deeper ones are resized by filters without
    negative lobes, so that no value arises that lies outside its neighbours.
    """
    width, height = stored.size if isinstance(stored, Image.Image) else stored.shape[1::-1]
    box = (max(0.0, box[0]), max(0.0, box[1]), min(float(width), box[2]), min(float(height), box[3]))
    whole = tuple(round(edge) for edge in box)
    if (whole[2] - whole[0], whole[3] - whole[1]) == size:  # nothing to resample: exact
        if isinstance(stored, Image.Image):
            return _as_array(stored if whole == (0, 0, width, height) else stored.crop(box))
        return stored[whole[1] : whole[3], whole[0] : whole[2]]
    shrinks = box[2] - box[0] >= size[0] or box[3] - box[1] >= size[1]
    # Pillow resizes to (new width, old height) first: a very tall picture is reduced before.
    gap = 3.0 if size[0] * (box[3] - box[1]) > _TALL else None
    if isinstance(stored, Image.Image):
        kernel = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
        return _as_array(stored.resize(size, kernel, box=box, reducing_gap=gap))
    step = int(min((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]) / 3)
    if step > 1 and stored.size * 4 > LARGE:  # no float copy of a large one
        stored = block_means(stored, step)
        right, low = stored.shape[1::-1]
        box = (box[0] / step, box[1] / step, min(right, box[2] / step), min(low, box[3] / step))
    kernel = Image.Resampling.HAMMING if shrinks else Image.Resampling.BILINEAR

    def plane(values: np.ndarray) -> np.ndarray:
        floats = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
        return np.asarray(floats.resize(size, kernel, box=box, reducing_gap=gap))

    out = np.empty((size[1], size[0], stored.shape[2]), np.float32)
    for channel in range(stored.shape[2]):
        values = stored[..., channel]
        missing = ~np.isfinite(values) if values.dtype == np.float32 else None
        if missing is None or not missing.any():
            out[..., channel] = plane(values)
        else:  # the mean of what is there, where at least half is
            weight = plane(~missing)
            mean = plane(np.where(missing, 0, values)) / np.maximum(weight, 1e-6)
            out[..., channel] = np.where(weight >= 0.5, mean, np.nan)
    return out if stored.dtype == np.float32 else np.rint(out).astype(stored.dtype)


def _quickly_resized(stored: Image.Image | np.ndarray, size: tuple[int, int], box: tuple[float, ...]) -> np.ndarray:
    """`_resized` through PyTorch, where the picture is 8-bit RGB and the box lies on whole pixels.

    The values agree within rounding; PyTorch computes many of them in one instruction, and is three times as fast.
    (A box of half pixels, rounded, moved features by up to 0.002 in cosine: it is left to Pillow.)
    """
    whole = all(edge == int(edge) for edge in box)
    if not isinstance(stored, Image.Image) or stored.mode != "RGB" or not whole or not _torch_shrinks():
        return _resized(stored, size, box)
    import torch

    left, top, right, bottom = (max(0, int(edge)) for edge in box)
    pixels = np.array(stored)[top:bottom, left:right]
    shrinks = pixels.shape[1] >= size[0] or pixels.shape[0] >= size[1]
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    kernel = "lanczos" if shrinks else "bicubic"
    small = torch.nn.functional.interpolate(planes, size[::-1], mode=kernel, antialias=True)
    return small[0].permute(1, 2, 0).numpy()


@functools.cache
def _torch_shrinks() -> bool:
    """Whether this PyTorch can resize bytes by Lanczos; older ones cannot."""
    import torch

    try:
        torch.nn.functional.interpolate(
            torch.zeros(1, 3, 4, 4, dtype=torch.uint8), (2, 2), mode="lanczos", antialias=True
        )
    except (NotImplementedError, ValueError, RuntimeError):
        return False
    return True


def size_of(data: bytes, name: str = "") -> tuple[int, int]:
    """(height, width) of the upright picture in a file, from its header alone where the format allows.

    Raises
    ------
    DecodeError
        If it cannot be read.
    """
    try:
        format = format_of(data, name)
        data = plainly_branded(data, format)
        with quiet():
            if format == "HEIF":
                return _heif_size(data)
            if format == "NPY":
                picture = read_picture(data)
                return (picture.height, picture.width)
            if format == "JPEG" and _is_deep(header := jpeg_frame(data)):
                turned = _exif_orientation(data) >= 5
                return (header.width, header.height) if turned else (header.height, header.width)
            if format == "TIFF":
                from imatlas.images.formats.tiff import open_stack

                silence_libtiff()
                stack = open_stack(data, _check_pixels)
                if not isinstance(stack, list):
                    turned = stack.orientation >= 5
                    return (stack.size[not turned], stack.size[turned])
                image = Image.open(BytesIO(data), formats=(format,))
                image.seek(stack[0])  # Pillow turns it itself
                return (image.size[1], image.size[0])
            image = Image.open(BytesIO(data), formats=(format,))
            turned = _orientation(image) >= 5
            return (image.size[not turned], image.size[turned])
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(_explained(error, "image")) from None
