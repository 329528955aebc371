"""One decoded picture before it is fitted to a size, and the limits of its size."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from imatlas.errors import DecodeError
from imatlas.images import limits
from imatlas.images.formats import color
from imatlas.images.formats.headers import jpeg_segments
from imatlas.images.formats.png import with_transparency
from imatlas.images.formats.row_bands import array_of
from imatlas.images.pixels import LUMA, RGB, Background, Kind, composited, padding, upright, visible_background
from imatlas.images.resize import as_array, quickly_resized, reduced_by_blocks, resized
from imatlas.images.sources.base import reason_of

REDUCE_MARGIN = 1.4
"""A JPEG is decoded at 1/2, 1/4 or 1/8 if the result is still this many times larger than the target size."""

Fit = Literal["crop", "pad", "stretch"]
Frames = Literal["first", "all"]


class Aim(NamedTuple):
    """The target size of a picture, so that a JPEG is decoded no larger than needed."""

    height: int
    width: int
    fit: Fit
    thumbnail: int = 0


class Picture:
    """One decoded picture before it is fitted to a size.

    Attributes
    ----------
    width, height : int
        Size of the original, with its orientation applied.
    format, mode : str
        Pillow's names; the mode is that of the file ("CMYK", "P", "RGB;16").
    kind : Kind
        Channels, alpha and dtype of the pixels.
    n_frames, frame : int
        Number of frames in the file, and index of this one.
    notes : list of str
        Remarks for the user on how the file was read.
    profile : bytes
        ICC profile of the colors, until `to_srgb` has applied it; b"" for sRGB.
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
        """This picture with its colors converted to sRGB; measurements and 16-bit gray keep their values."""
        if not self.profile:
            return self
        note = None
        if isinstance(self._stored, Image.Image):
            self._stored, note = color.srgb(self._stored, self.profile)
        elif self.kind.dtype == "uint8" and self.kind.is_picture:
            note = self._in_bands()
        elif self.kind.dtype != "uint8" and self.kind.channels == 3:
            self._stored, note = color.srgb_deep(self._stored, self.profile)
        self.notes += [note] if note else []
        self.profile = b""
        return self

    def _in_bands(self) -> str | None:
        """`to_srgb` of a picture that is too large to be held twice."""
        assert isinstance(self._stored, np.ndarray)
        rows = max(1, limits.CHEAP // self._stored.shape[1])
        for top in range(0, len(self._stored), rows):
            band = self._stored[top : top + rows]
            image, note = color.srgb(as_stored(band), self.profile)  # type: ignore[arg-type]
            if note:
                return note
            self._stored[top : top + rows] = array_of(image)
        return None

    @property
    def width(self) -> int:
        """Width of the upright original."""
        return self.full[self.orientation >= 5]

    @property
    def height(self) -> int:
        """Height of the upright original."""
        return self.full[self.orientation < 5]

    def pixels(self) -> np.ndarray:
        """The picture (H, W, C), upright, at the scale it was decoded at."""
        return upright(as_array(self._stored), self.orientation)

    @np.errstate(all="ignore")  # non-finite values are kept
    def fitted(self, height: int, width: int, fit: Fit, background: RGB, *, quick: bool = False) -> np.ndarray:
        """The picture (height, width, C) with its own channels and dtype.

        'crop' keeps the center, 'pad' adds the background (transparent if there is alpha; 16-bit and float pictures,
        which have no absolute white, are padded with their minimum), 'stretch' changes the aspect ratio. `quick`
        resizes 8-bit color by a faster filter that agrees within rounding.
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
        small = (quickly_resized if quick else resized)(self._stored, inner, box)
        if inner != (width, height):
            small = self._padded(small, height, width, background)
        return upright(small, self.orientation)

    def _padded(self, small: np.ndarray, height: int, width: int, background: RGB) -> np.ndarray:
        canvas = np.empty((height, width, small.shape[2]), small.dtype)
        if self.kind.dtype != "uint8" or not self.kind.is_picture:
            canvas[:] = np.nanmin(small) if np.isfinite(small).any() else np.nan
        elif self.kind.alpha:
            canvas[..., :-1] = padding(self.kind.colors, small.dtype, background)
            canvas[..., -1] = 0
        else:
            canvas[:] = padding(self.kind.colors, small.dtype, background)
        top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        return canvas

    @np.errstate(all="ignore")  # non-finite values are kept
    def thumbnail(self, size: int) -> np.ndarray:
        """The whole picture (h, w, C), upright, its longer side at most `size`; never enlarged."""
        full_w, full_h = self.full[0] / self.scale, self.full[1] / self.scale
        zoom = max(self.full[0] / size, self.full[1] / size, 1.0)
        inner = (max(1, round(self.full[0] / zoom)), max(1, round(self.full[1] / zoom)))
        return upright(resized(self._stored, inner, (0.0, 0.0, full_w, full_h)), self.orientation)

    @np.errstate(all="ignore")  # non-finite values are kept
    def gray(self, side: int = 48) -> np.ndarray:
        """The whole picture (h, w) in gray, upright, shrunk by an integer factor to no less than `side` per side.

        A side longer than `limits.LONG` is shrunk further.
        """
        if isinstance(self._stored, np.ndarray):
            small = reduced_by_blocks(self._stored, side)
            gray = small @ LUMA if small.shape[2] == 3 else small.mean(axis=2, dtype=np.float32)
            return upright(gray[..., None], self.orientation)[..., 0]
        step = max(1, min(self._stored.size) // side)
        across, down = (max(step, -(-length // limits.LONG)) for length in self._stored.size)
        image = self._stored.reduce((across, down)) if max(across, down) > 1 else self._stored
        if self.kind.alpha:
            ground = visible_background(np.asarray(image), (255, 255, 255))
            image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image.convert("RGBA"))
        gray = np.asarray(image.convert("L"))
        return upright(gray[..., None], self.orientation)[..., 0]


_NO_SUCH_KIND = "^unsupported|^unimplemented|compression format has not been built in"


def explained(error: BaseException, format: str) -> str:
    """The failure of a decoder in plain words."""
    text = reason_of(error)
    if isinstance(error, NotImplementedError) or re.search(_NO_SUCH_KIND, text, re.I):
        return f"an unsupported kind of {format} file ({text}); export it as PNG, JPEG or TIFF"
    if isinstance(error, UnidentifiedImageError):
        return f"a damaged {format} file: its header cannot be read"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"a truncated {format} file: it ends before the picture does"
    if isinstance(error, TypeError | AttributeError | LookupError | ArithmeticError | AssertionError | struct.error):
        return f"a damaged {format} file: its parts contradict each other"
    return f"a damaged {format} file ({text})"


def check_pixels(width: int, height: int, samples: int = 1) -> None:
    """Refuse a picture that has no pixels or too many."""
    if width < 1 or height < 1 or samples < 1:
        raise DecodeError(f"has no pixels ({width} x {height})")
    if max(width, height) > limits.MAX_SIDE:
        raise DecodeError(f"{width} x {height} pixels: a side is more than the limit of {limits.MAX_SIDE}")
    if width * height * max(1.0, samples / 4) > limits.MAX_PIXELS:
        raise DecodeError(f"{width} x {height} pixels are more than the limit of {limits.MAX_PIXELS / 1e6:.0f} million")


def room_for(full: tuple[int, int], orientation: int, aim: Aim) -> float:
    """The factor by which a picture may be reduced and still have the target size."""
    target = (aim.height, aim.width) if orientation >= 5 else (aim.width, aim.height)
    ratios = (full[0] / target[0], full[1] / target[1])
    room = max(ratios) if aim.fit == "pad" else min(ratios)
    if aim.thumbnail:
        room = min(room, max(full) / aim.thumbnail * REDUCE_MARGIN)  # a thumbnail needs only its own size
    return room


def step_for(full: tuple[int, int], orientation: int, aim: Aim | None, n_bytes: int) -> int:
    """The integer factor by which a picture is reduced while it is read: 1 unless it is large and its target small."""
    if aim is None or n_bytes <= limits.LARGE:
        return 1
    return max(1, min(int(room_for(full, orientation, aim) / 2), min(full) // 64))


def as_stored(array: np.ndarray) -> np.ndarray | Image.Image:
    """Pixels as a picture stores them: 8-bit ones as a Pillow image."""
    if array.dtype != np.uint8 or array.shape[2] > 4:
        return array
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))


def on_background(array: np.ndarray, background: RGB) -> np.ndarray:
    """`composited` in bands of rows, as it converts to floats, on a background on which the picture is visible."""
    background = visible_background(array, background)
    out = np.empty((*array.shape[:2], array.shape[2] - 1), array.dtype)
    rows = max(1, limits.CHEAP // array.shape[1])
    for top in range(0, len(array), rows):
        out[top : top + rows] = composited(array[top : top + rows], background)
    return out


def flattened(
    array: np.ndarray, background: RGB, profile: bytes, *, exact: bool = False
) -> tuple[np.ndarray, list[str]]:
    """16-bit pixels (H, W, C) with alpha last, converted to sRGB and then composited; and notes for the user.

    The background is sRGB, so the order matters. With `exact` it is used even if it hides the picture.
    """
    notes = []
    if profile and array.shape[2] == 4:
        colors, note = color.srgb_deep(array[..., :3], profile)
        notes = [note] if note else []
        array = np.concatenate([colors, array[..., 3:]], axis=-1)
    return composited(array, background) if exact else on_background(array, background), notes


def from_samples(array: np.ndarray, format: str, mode: str, profile: bytes, background: Background) -> Picture:
    """A picture of samples (H, W, C), the last of 2 or 4 being alpha; see `Background` for deep ones."""
    notes: list[str] = []
    deep_alpha = array.shape[2] in (2, 4) and array.dtype != np.uint8
    if deep_alpha and background is not None:
        array, notes = flattened(array, background, profile)
        profile, deep_alpha = b"", False
    picture = Picture(as_stored(array), format, mode, alpha=deep_alpha)
    picture.profile, picture.notes = profile, notes
    return picture


def note_frames(picture: Picture, n_frames: int, frame: int, wanted: int) -> None:
    picture.n_frames, picture.frame = n_frames, frame
    if n_frames > 1 and wanted == 1:
        picture.notes.append(f"first of {n_frames} frames")
    elif n_frames > wanted:
        picture.notes.append(f"of {n_frames} frames the first {wanted} are used")


def finished(image: Image.Image, format: str, background: Background) -> Picture:
    """Decode an opened image and convert it to L, LA, RGB, RGBA, or an array of uint16 or float32."""
    mode = image.mode
    if mode.startswith("I;16"):
        deep = array_of(image).astype(np.uint16, copy=False)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            deep = with_transparency(deep, np.array([transparent], np.uint16))
            deep = deep if background is None else on_background(deep, background)
        return Picture(deep, format, mode, alpha=deep.shape[2] == 2)
    if mode in ("I", "F"):
        values = array_of(image)
        # 16-bit PNG and PGM may come as 32-bit integers.
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


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 if it is damaged or missing."""
    if not any(name in image.info for name in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")):
        return 1
    return _orientation_in(image.getexif)


def exif_orientation(data: bytes) -> int:
    """The orientation in the EXIF segment of a JPEG that Pillow does not open."""
    return _orientation_in(lambda: exif_of(data))


def _orientation_in(read: Callable[[], Image.Exif]) -> int:
    try:
        value = read().get(0x0112, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def exif_of(data: bytes) -> Image.Exif:
    """The EXIF segment of a JPEG that Pillow does not open; empty if there is none."""
    exif = Image.Exif()
    exif.load(next((content for content in jpeg_segments(data, 0xE1) if content[:6] == b"Exif\0\0"), b""))
    return exif
