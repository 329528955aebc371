"""The meaning of the samples of a TIFF page: colors and alpha, and their conversion to gray or sRGB."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images.formats import color

INVERTED, GRAY, RGB, PALETTE, INKS, YCBCR, LAB, ICC_LAB, ITU_LAB = 0, 1, 2, 3, 5, 6, 8, 9, 10
LABS = (LAB, ICC_LAB, ITU_LAB)
TRANSLATED = (PALETTE, INKS, YCBCR, *LABS)
_MOSAIC = (32803, 34892)  # a camera's sensor
_LOG_LIGHT = (32844, 32845)
_N_COLORS = {RGB: 3, YCBCR: 3, INKS: 4, PALETTE: 1, LAB: 3, ICC_LAB: 3, ITU_LAB: 3}
_FAX = (2, 3, 4)
JPEGS = (6, 7, 34892, 33007)
"""Codecs that return RGB for YCbCr pages, unless planes are compressed separately."""
_PREDICTED = (5, 8, 32946, 50013, 34925, 34926, 50000)
"""LZW, Deflate, LZMA and Zstandard: with other codecs the tag Predictor is a leftover."""
_PHOTOMETRIC, _INK_SET, _INK_NAMES, _COEFFICIENTS, _REFERENCES = 262, 332, 333, 529, 532
_CMYK = ["cyan", "magenta", "yellow", "black"]
UNEXPLAINED = "its {} sample, which the file does not declare, is read as alpha"
_CONVERT = "save it as RGB"


def mended(page: Any) -> Any:
    """A page whose missing or leftover tags are replaced by what other readers assume."""
    if page.predictor != 1 and page.compression not in _PREDICTED:
        page.predictor = 1
    if _PHOTOMETRIC not in page.tags:
        colors = page.samplesperpixel - len(page.extrasamples)
        page.photometric = RGB if colors >= 3 else INVERTED if page.compression in _FAX else GRAY
    if page.photometric == YCBCR and page.compression not in (1, 32773, *_PREDICTED, *JPEGS):
        page.subsampling = (1, 1)  # such codecs store all samples, whatever the tag says
    if page.sampleformat == 4:  # undefined
        page.sampleformat = 1
        if page.dtype is None and page.bitspersample in (8, 16, 32):
            page.dtype = page._dtype = np.dtype(f"u{page.bitspersample // 8}")
    return page


def space_of(page: Any) -> int:
    """The photometric interpretation of the samples that the codec of a page returns."""
    if page.photometric == YCBCR and page.compression in JPEGS and page.planarconfig == 1:
        return RGB
    return int(page.photometric)


class Meaning(NamedTuple):
    """The number of color samples, the kind of alpha ('own', 'multiplied', 'unexplained', ""), and its index."""

    colors: int
    opacity: str
    where: int


def meaning(page: Any) -> Meaning:
    """The meaning of the samples of a page, by its tags."""
    space, n = space_of(page), page.samplesperpixel
    extra = [int(kind) for kind in page.extrasamples]
    colors = _N_COLORS.get(space, 1)
    if space in LABS and n - len(extra) == 1:
        colors = 1
    colors = min(colors, n)
    extra = (extra + [0] * n)[: n - colors]
    opacity = next((i for i, kind in enumerate(extra) if kind in (1, 2)), None)
    kind = page.dtype.kind if page.dtype is not None else ""
    if kind not in "ufb" and space not in LABS:
        return Meaning(colors, "", n)
    if space not in TRANSLATED and len(extra) != 1:  # measurements are all kept
        return Meaning(colors, "", n)
    if opacity is not None:
        return Meaning(colors, {1: "multiplied", 2: "own"}[extra[opacity]], colors + opacity)
    unexplained = extra == [0] and space != INKS  # a fifth ink is more likely
    return Meaning(colors, "unexplained" if unexplained else "", colors if unexplained else n)


def check_colors(page: Any) -> None:
    """Refuse colors that cannot be converted to RGB.

    Raises
    ------
    DecodeError
        With the color space.
    """
    space = space_of(page)
    if space in _MOSAIC:
        raise DecodeError("camera raw data; export it as PNG, JPEG or TIFF")
    if space in _LOG_LIGHT:
        raise DecodeError(f"colors in SGI's LogLuv are not supported; {_CONVERT}")
    if page.dtype is None or space not in TRANSLATED:
        return
    kind, bits = page.dtype.kind, page.bitspersample
    if space in LABS and not (kind == "f" or (kind in "ui" and bits in (8, 16))):
        raise DecodeError(f"CIE Lab in {page.dtype} of {bits} bits is not supported; {_CONVERT}")
    if space == YCBCR and not (kind == "u" and bits <= 16):
        raise DecodeError(f"YCbCr in {page.dtype} of {bits} bits is not supported; {_CONVERT}")
    if space == INKS and (kind not in "ufb" or page.samplesperpixel < 4 or not _is_cmyk(page)):
        raise DecodeError("inks other than cyan, magenta, yellow and black are not supported; save it as RGB")
    if space not in LABS and meaning(page).colors < _N_COLORS[space]:
        raise DecodeError(f"a damaged TIFF file: {page.samplesperpixel} samples, too few for its colors")


def _is_cmyk(page: Any) -> bool:
    """Whether the first four inks are CMYK; other inks are named."""
    if page.tags.valueof(_INK_SET, 1) == 1:
        return True
    names = page.tags.valueof(_INK_NAMES, "")
    return isinstance(names, str) and [name.strip().lower() for name in names.split("\0")[:4]] == _CMYK


class PagePixels(NamedTuple):
    """Pixels (H, W, C) as gray, RGB or measurements, whether the last is alpha, the remaining profile, and notes."""

    array: np.ndarray
    alpha: bool
    profile: bytes
    notes: list[str]


def page_pixels(array: np.ndarray, page: Any, profile: bytes) -> PagePixels:
    """The samples (H, W, S) of a page, integers of up to 16 bits at their full scale, as pixels."""
    space, about = space_of(page), meaning(page)
    if space in LABS and page.dtype.kind == "i":  # the bits are the same
        array = array.astype(f"i{page.dtype.itemsize}").view(f"u{page.dtype.itemsize}")
    notes: list[str] = []
    opacity = about.opacity
    empty = False
    if opacity == "unexplained":
        sample = array[..., about.where]
        is_opacity = _looks_like_alpha(sample, space)
        empty = is_opacity and not sample.any()  # an alpha of 0 everywhere is meaningless
        opacity = "own" if is_opacity and not empty else ""
        if opacity:
            ordinal = {2: "second", 4: "fourth"}.get(array.shape[2], "last")
            notes.append(UNEXPLAINED.format(ordinal))
    bands = space not in TRANSLATED and not opacity and not empty
    n_colors = array.shape[2] if bands else about.colors
    left_out = array.shape[2] - n_colors - bool(opacity) - empty
    if left_out:
        notes.append(f"{left_out} of its {array.shape[2]} samples ignored: neither color nor alpha")
    if space == INKS and profile:
        profile, ink_notes = _ink_profile(profile, array.dtype)
        notes += ink_notes
    unit = _whole_of(page, array.dtype) if opacity or space == INKS else np.float32(1)
    convert = _conversion(page, space, unit, profile)
    if space in (INKS, *LABS):
        profile = b""
    if convert is None and not opacity and n_colors == array.shape[2]:
        return PagePixels(array, False, profile, notes)

    def pixels(rows: np.ndarray) -> np.ndarray:
        colors = rows[..., :n_colors]
        clear = rows[..., about.where : about.where + 1] if opacity else None
        if unit != 1:
            colors, clear = colors / unit, clear / unit if clear is not None else None
        if opacity == "multiplied" and space not in LABS:
            colors = _divided(colors, clear)
        if convert is not None:
            colors = convert(colors)
        if clear is None:
            return np.ascontiguousarray(colors)
        clear = _as_depth(clear, colors.dtype)
        if opacity == "multiplied" and space in LABS:
            colors = _divided(colors, clear)
        return np.concatenate([colors, clear], axis=-1)

    return PagePixels(_by_rows(pixels, array), bool(opacity), profile, notes)


def inverted(array: np.ndarray, page: Any) -> np.ndarray:
    """Samples with white as their minimum, inverted: integers within their range, floats about one half."""
    if array.dtype != np.float32:
        return np.iinfo(array.dtype).max - array
    if page.dtype.kind == "u":
        return np.float32(2**page.bitspersample - 1) - array
    return np.float32(-1 if page.dtype.kind == "i" else 1) - array


def _whole_of(page: Any, dtype: np.dtype) -> np.float32:
    """The divisor of wide integers with alpha, to lie in 0..1; 1 for all other samples."""
    wide = dtype == np.float32 and page.dtype.kind == "u"
    return np.float32(2**page.bitspersample - 1 if wide else 1)


def _as_depth(clear: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Alpha in the dtype of its colors, which may be 8-bit from a palette."""
    if clear.dtype == dtype:
        return clear
    if clear.dtype == np.uint16 and dtype == np.uint8:
        return (clear >> 8).astype(np.uint8)
    top = np.float32(np.iinfo(dtype).max if dtype != np.float32 else 1)
    return (clear * top).astype(dtype)


def _looks_like_alpha(sample: np.ndarray, space: int) -> bool:
    """Whether a sample has mostly one of the two values of a binary alpha, unlike a measurement.

    For a single color channel most of it must be opaque, as a second channel of a microscope is mostly 0.
    """
    top = 1.0 if sample.dtype == np.float32 else np.iinfo(sample.dtype).max
    opaque = sample == top
    return bool((opaque if space in (INVERTED, GRAY) else opaque | (sample == 0)).mean() > 0.5)


def _divided(colors: np.ndarray, clear: Any) -> np.ndarray:
    """Premultiplied colors, divided by their alpha."""
    top = np.float32(np.iinfo(colors.dtype).max if colors.dtype != np.float32 else 1)
    opacity = clear.astype(np.float32)
    quotient = colors * (top / np.where(opacity > 0, opacity, top))
    return quotient if colors.dtype == np.float32 else np.minimum(np.rint(quotient), top).astype(colors.dtype)


def _by_rows(convert: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """Convert a picture in bands of rows, without floats of all of it at once."""
    rows = max(1, 2**20 // max(1, array[0].size))
    return np.concatenate([convert(array[top : top + rows]) for top in range(0, len(array), rows)])


def _conversion(page: Any, space: int, unit: np.float32, profile: bytes) -> Callable[[np.ndarray], np.ndarray] | None:
    """The conversion of color samples (h, W, S), divided by `unit`, to gray or sRGB; None if there is none."""
    if space == INVERTED:
        return (lambda rows: 1 - rows) if unit != 1 else functools.partial(inverted, page=page)
    if space == PALETTE and page.colormap is not None:
        table = page.colormap.astype(np.uint16)
        if table.max() >= 256:  # else 8-bit, from old writers
            table = table >> 8
        return functools.partial(_of_palette, table.astype(np.uint8).T)
    if space == INKS:
        return functools.partial(_of_inks, profile)
    if space == YCBCR:
        return functools.partial(_of_ycbcr, page)
    if space in LABS:
        return functools.partial(_of_lab, page, space)
    return None


def _of_palette(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.asarray(table.take(rows[..., 0], axis=0, mode="clip"))  # 1-bit samples are 0 and 255


def _ink_profile(profile: bytes, dtype: np.dtype) -> tuple[bytes, list[str]]:
    """The profile of inks if it can be applied, and notes for the user."""
    _, note = color.srgb(Image.new("CMYK", (1, 1)), profile)
    if note is not None:
        return b"", [note]
    return profile, [color.BY_TABLE] if dtype != np.uint8 else []


def _of_inks(profile: bytes, rows: np.ndarray) -> np.ndarray:
    """CMYK as RGB, by the file's profile if there is one."""
    return color.inks_in_srgb(rows, profile)[0]


def _of_ycbcr(page: Any, rows: np.ndarray) -> np.ndarray:
    """YCbCr as RGB (TIFF 6.0, section 21), by the coefficients and the range of the page."""
    top = float(np.iinfo(rows.dtype).max)
    red, green, blue = _ratios(page, _COEFFICIENTS, 3) or (0.299, 0.587, 0.114)
    middle = (top + 1) / 2
    given = _ratios(page, _REFERENCES, 6)
    in_8_bits = max(given, default=0) <= 255  # in some 16-bit files, too
    scale = (top + 1) / (256 if in_8_bits else 2**page.bitspersample)
    low, high = ([scale * value for value in given[start::2]] for start in (0, 1))
    if not given or given == [0, 255, 128, 255, 128, 255] or any(h <= b for b, h in zip(low, high, strict=True)):
        low, high = [0.0, middle, middle], [top, top, top]
    full = [(rows[..., i].astype(np.float32) - np.float32(low[i])) / np.float32(high[i] - low[i]) for i in range(3)]
    light, to_blue, to_red = full[0] * top, full[1] * (middle - 1), full[2] * (middle - 1)
    r = light + to_red * (2 - 2 * red)
    b = light + to_blue * (2 - 2 * blue)
    g = (light - blue * b - red * r) / green
    return np.rint(np.clip(np.stack([r, g, b], axis=-1), 0, top)).astype(rows.dtype)


def _ratios(page: Any, tag: int, count: int) -> list[float]:
    """The numbers of a tag of rationals; empty unless there are `count` of them."""
    value = page.tags.valueof(tag)
    if not isinstance(value, tuple) or len(value) not in (count, 2 * count):
        return []
    if len(value) == count:
        return [float(v) for v in value]
    if not all(value[1::2]):
        return []
    numbers = [a / b for a, b in zip(value[::2], value[1::2], strict=True)]
    return numbers if count != 3 or all(0 < n < 1 for n in numbers) else []


def _of_lab(page: Any, space: int, rows: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (TIFF 6.0, section 23; ICC's by Technical Note 4; fax's by RFC 2301) as RGB in the same dtype.

    Lightness without a and b becomes gray.
    """
    floats = page.dtype.kind == "f"
    lab = np.zeros((*rows.shape[:2], 3), np.float32)
    if floats:
        lab[..., : rows.shape[2]] = rows
    else:
        lab[..., : rows.shape[2]] = _lab_numbers(space, rows)
    rgb = color.of_lab(lab)
    rgb = rgb[..., :1] if rows.shape[2] == 1 else rgb
    return rgb if floats else np.rint(rgb * np.iinfo(rows.dtype).max).astype(rows.dtype)


def _lab_numbers(space: int, rows: np.ndarray) -> np.ndarray:
    """Integers of 8 or 16 bits as L in 0..100, a and b."""
    top = np.iinfo(rows.dtype).max
    unit = np.float32((top + 1) // 256)
    lab = rows.astype(np.float32)
    lab[..., 0] *= 100 / np.float32(0xFF00 if space == ICC_LAB and unit > 1 else top)
    if space == LAB:
        lab[..., 1:] = np.ascontiguousarray(rows[..., 1:]).view(f"i{rows.dtype.itemsize}") / unit
    elif space == ICC_LAB:
        lab[..., 1:] = lab[..., 1:] / unit - 128
    else:
        spread = np.array([170, 200], np.float32) / np.float32(255)
        middle = np.array([128, 96], np.float32)
        lab[..., 1:] = (lab[..., 1:] / unit - middle)[..., : rows.shape[2] - 1] * spread[: rows.shape[2] - 1]
    return lab
