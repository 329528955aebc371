"""One picture from the bytes of a file, whatever they are: sniffed, bounded, upright, in its own depth.

What a file is, is told by its content, never by its name. Sizes are checked before anything is decoded. Whatever goes
wrong is a `DecodeError` with a plain reason; no other exception leaves `read_frames`.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from imatlas.errors import DecodeError
from imatlas.images.formats import bits_of, format_of
from imatlas.images.pixels import LUMA, RGB, Kind, composited, padding, upright
from imatlas.images.quiet import quiet, silence_libtiff
from imatlas.images.sources import reason_of

MAX_PIXELS = 2**27
"""The most pixels in one picture that are decoded: 134 million; fewer where there are more than four channels."""

MAX_FRAMES = 10_000
"""The most frames of one file that are used with `frames="all"`."""

REDUCE_MARGIN = 1.4
"""A JPEG is decoded at 1/2, 1/4 or 1/8 where what is left is still this many times the size asked for. Measured on
photographs at quality 88: a mean of 41 dB to full decoding at 1.47, and 52 dB at 2.9."""

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
        if isinstance(stored, np.ndarray):
            self.full = (stored.shape[1], stored.shape[0])
            self.kind = Kind(stored.shape[2], alpha, stored.dtype.name)  # type: ignore[arg-type]
        else:
            self.full = stored.size
            bands = len(stored.mode)  # L, LA, RGB or RGBA
            self.kind = Kind(bands, bands in (2, 4), "uint8")

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

    def thumbnail(self, size: int) -> np.ndarray:
        """The whole picture (h, w, C), upright, its longer side at most `size`; never enlarged."""
        full_w, full_h = self.full[0] / self.scale, self.full[1] / self.scale
        zoom = max(self.full[0] / size, self.full[1] / size, 1.0)
        inner = (max(1, round(self.full[0] / zoom)), max(1, round(self.full[1] / zoom)))
        return upright(_resized(self._stored, inner, (0.0, 0.0, full_w, full_h)), self.orientation)

    def grey(self, side: int = 48) -> np.ndarray:
        """The whole picture (h, w) in grey, upright, shrunk by a whole number while no side falls below `side`."""
        if isinstance(self._stored, np.ndarray):
            small = _block_means(self._stored, side)
            grey = small @ LUMA if small.shape[2] == 3 else small.mean(axis=2, dtype=np.float32)
            return upright(grey[..., None], self.orientation)[..., 0]
        step = min(self._stored.size) // side
        image = self._stored.reduce(step) if step > 1 else self._stored
        if self.kind.alpha:
            under = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(under, image.convert("RGBA"))
        return upright(np.asarray(image.convert("L"))[..., None], self.orientation)[..., 0]


def read_frames(
    data: bytes, *, name: str = "", frames: Frames = "first", aim: Aim | None = None, background: RGB = (255, 255, 255)
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

    Raises
    ------
    DecodeError
        With the reason, and nothing else, for whatever cannot be read.
    """
    format = "image"
    try:
        format = format_of(data, name)
        with quiet():
            yield from _READERS.get(format, _read_plain)(data, format, frames, aim, background)
    except DecodeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DecodeError(f"has more pixels than the limit of {MAX_PIXELS / 1e6:.0f} million") from None
    except MemoryError:
        raise DecodeError("needs more memory than there is") from None
    except Exception as error:
        raise DecodeError(_explained(error, format)) from None


def read_picture(data: bytes, **options: Any) -> Picture:
    """The first picture in a file; the options and errors of `read_frames`."""
    for picture in read_frames(data, **options):
        return picture
    raise DecodeError("holds no picture")


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
        with quiet():
            picture = _finished(value, value.format or "image", background)
            picture.orientation = _orientation(value)
            return picture
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
    if width * height * max(1.0, samples / 4) > MAX_PIXELS:
        raise DecodeError(f"{width} x {height} pixels are more than the limit of {MAX_PIXELS / 1e6:.0f} million")


def _read_jpeg(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """A JPEG, reduced where the aim allows; further pictures inside (depth, gain maps) are left alone."""
    image = Image.open(BytesIO(data), formats=("JPEG",))
    full, mode = image.size, image.mode
    _check_pixels(*full)
    orientation = _orientation(image)
    if aim is not None:
        scale = _jpeg_scale(full, orientation, aim)
        if scale > 1:
            image.draft(None, (full[0] // scale, full[1] // scale))
    reduced = image.size != full
    picture = _finished(image, format, background)
    picture.mode, picture.orientation, picture.full = mode, orientation, full
    picture.scale = scale if reduced else 1
    yield picture


def _jpeg_scale(full: tuple[int, int], orientation: int, aim: Aim) -> int:
    """The largest of 8, 4, 2, 1 to divide the size by that leaves enough for the aim."""
    target = (aim.height, aim.width) if orientation >= 5 else (aim.width, aim.height)
    ratios = (full[0] / target[0], full[1] / target[1])
    room = max(ratios) if aim.fit == "pad" else min(ratios)
    if aim.thumbnail:
        room = min(room, max(full) / aim.thumbnail * REDUCE_MARGIN)  # a thumbnail is content with its own size
    return next((s for s in (8, 4, 2) if room >= s * REDUCE_MARGIN and min(full) >= 2 * s), 1)


def _read_plain(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """Any format, through Pillow."""
    image = Image.open(BytesIO(data), formats=(format,))
    _check_pixels(*image.size)
    n_frames = 1 if format in ("ICO", "ICNS", "PSD") else int(getattr(image, "n_frames", 1))  # sizes, layers
    wanted = min(n_frames, MAX_FRAMES) if frames == "all" else 1
    if image.size[0] * image.size[1] * wanted > 64 * MAX_PIXELS:
        raise DecodeError(f"{wanted} frames of {image.size[0]} x {image.size[1]} pixels are too much work")
    for frame in range(wanted):
        if n_frames > 1:
            image.seek(frame)
            _check_pixels(*image.size)
        mode = image.mode
        if bits_of(data, format) > 8 and _raw_layout(image) in (*_LOWER_HALF, "LA;16B"):
            wide = _sixteen_bit(data, format, image.size, _raw_layout(image))
            mode = f"{('', 'L', 'LA', 'RGB', 'RGBA')[wide.shape[2]]};16"
            if wide.shape[2] in (2, 4):
                wide = composited(wide, background)
            picture = Picture(wide, format, mode)
            image.load()  # what follows the pixels may hold the orientation
        else:
            picture = _finished(image.copy() if wanted > 1 else image, format, background)
            picture.mode = mode
            if picture.kind.dtype == "uint8" and bits_of(data, format) > 8:
                picture.notes.append("16-bit, read as 8-bit")
        picture.orientation = _orientation(image)
        _tell_frames(picture, n_frames, frame, wanted)
        yield picture


def _tell_frames(picture: Picture, n_frames: int, frame: int, wanted: int) -> None:
    picture.n_frames, picture.frame = n_frames, frame
    if n_frames > 1 and wanted == 1:
        picture.notes.append(f"first of {n_frames} frames")
    elif n_frames > wanted:
        picture.notes.append(f"of {n_frames} frames the first {wanted} are used")


def _read_tiff(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """A TIFF: through tifffile where it is deep or has many channels, else through Pillow, which knows more codecs."""
    from imatlas.images.tiff import open_stack

    silence_libtiff()
    stack = open_stack(data, _check_pixels)
    if stack is None:
        for picture in _read_plain(data, format, frames, aim, background):
            picture.orientation = 1  # Pillow turns a TIFF itself
            yield picture
        return
    wanted = min(len(stack), MAX_FRAMES) if frames == "all" else 1
    for frame in range(wanted):
        array = composited(stack[frame], background) if stack.alpha else stack[frame]
        picture = Picture(array, format, stack.mode)
        picture.orientation = stack.orientation
        picture.notes += stack.notes
        _tell_frames(picture, len(stack), frame, wanted)
        yield picture


def _read_heif(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """HEIC and HEIF, through the extra."""
    try:
        import pillow_heif
    except ImportError:
        raise DecodeError("HEIC needs an extra part: pip install 'imatlas[heif]'") from None
    opened = pillow_heif.open_heif(BytesIO(data))
    _check_pixels(*opened.size)
    picture = _finished(opened.to_pillow(), format, background)
    picture.mode = opened.mode
    if opened.info.get("bit_depth", 8) > 8:
        picture.notes.append(f"{opened.info['bit_depth']}-bit, read as 8-bit")
    yield picture


_READERS: dict[str, Any] = {"JPEG": _read_jpeg, "TIFF": _read_tiff, "HEIF": _read_heif}


def _finished(image: Image.Image, format: str, background: RGB) -> Picture:
    """Decode an opened image and bring it to L, LA, RGB, RGBA, or an array of uint16 or float32."""
    mode = image.mode
    if mode.startswith("I;16"):
        return Picture(np.asarray(image).astype(np.uint16)[..., None], format, mode)
    if mode in ("I", "F"):
        values = np.asarray(image)
        # Pillow once gave 16-bit PNG and PGM as 32-bit whole numbers.
        narrow = mode == "I" and format in ("PNG", "PPM") and values.min() >= 0 and values.max() <= 65535
        return Picture(values.astype(np.uint16 if narrow else np.float32)[..., None], format, mode)
    if image.has_transparency_data:
        target = "LA" if mode in ("L", "1", "LA", "La") else "RGBA"
    else:
        target = "L" if mode in ("1", "L") else "RGB"
    image.load()
    return Picture(image if image.mode == target else image.convert(target), format, mode)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; a damaged or missing one counts as upright."""
    if not any(name in image.info for name in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")):
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
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
    array = np.asarray(stored)
    return array[..., None] if array.ndim == 2 else array


def _block_means(array: np.ndarray, side: int) -> np.ndarray:
    """The means (h, w, C) of square blocks, as large as leaves `side` of them along each axis."""
    step = max(1, min(array.shape[:2]) // side)
    if step == 1:
        return array
    height, width = array.shape[0] // step, array.shape[1] // step
    blocks = array[: height * step, : width * step].reshape(height, step, width, step, -1)
    return blocks.mean((1, 3), dtype=np.float32)


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
    if isinstance(stored, Image.Image):
        kernel = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
        return _as_array(stored.resize(size, kernel, box=box))
    kernel = Image.Resampling.HAMMING if shrinks else Image.Resampling.BILINEAR

    def plane(values: np.ndarray) -> np.ndarray:
        floats = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
        return np.asarray(floats.resize(size, kernel, box=box))

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
        with quiet():
            if format in ("TIFF", "HEIF"):
                picture = read_picture(data, name=name)
                return (picture.height, picture.width)
            image = Image.open(BytesIO(data), formats=(format,))
            turned = _orientation(image) >= 5
            return (image.size[not turned], image.size[turned])
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(_explained(error, "image")) from None
