"""Arithmetic on pixel arrays: orientation, compositing, and conversion of mixed pictures to the spec of their set."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from imatlas.errors import InputError
from imatlas.images.spec import DTypeName, ImageSpec

RGB = tuple[int, int, int]
Background = RGB | None
"""What 16-bit and float pictures with alpha are composited on; None: they keep their alpha, as 8-bit ones always do."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_TOP = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
DEPTHS: dict[DTypeName, str] = {"uint8": "8-bit", "uint16": "16-bit", "float32": "float"}
"""Depths of pixels in words."""
_SAMPLE = 2**24


class Kind(NamedTuple):
    """What decides whether pictures can share an array: channels (alpha included), whether the last is alpha, dtype."""

    channels: int
    alpha: bool
    dtype: DTypeName

    @property
    def colors(self) -> int:
        """Channels without alpha."""
        return self.channels - self.alpha

    @property
    def is_picture(self) -> bool:
        """Gray or RGB, as opposed to multi-channel data."""
        return self.colors in (1, 3)

    def __str__(self) -> str:
        return f"{self.channels}{'a' if self.alpha else ''}-{self.dtype}"


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """A stored picture (H, W, C) rotated and mirrored by an EXIF orientation of 1 to 8."""
    if orientation == 1:
        return array
    if orientation >= 5:
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def without_infinity(pixels: np.ndarray) -> np.ndarray:
    """Pixels (N, ...) with infinity replaced by NaN; copied only if there is any."""
    if pixels.dtype != np.float32 or not any(np.isinf(part).any() for part in pixels):
        return pixels
    return np.where(np.isinf(pixels), np.float32(np.nan), pixels)


@np.errstate(all="ignore")  # floats of a damaged file may overflow
def composited(pixels: np.ndarray, background: RGB) -> np.ndarray:
    """Pixels (..., C) with alpha last, composited on the background, without alpha.

    The background is given in 0..255 and scaled to the dtype of the pixels (white is 1 for floats).
    """
    top = _TOP[pixels.dtype.name]
    colors = pixels.shape[-1] - 1
    under = padding(colors, pixels.dtype, background)
    opacity = pixels[..., -1:].astype(np.float32) / np.float32(top)
    mixed = pixels[..., :-1].astype(np.float32) * opacity + under.astype(np.float32) * (1 - opacity)
    return mixed if pixels.dtype == np.float32 else np.rint(mixed).astype(pixels.dtype)


def composited_visibly(pixels: np.ndarray, background: RGB) -> np.ndarray:
    """Pixels (N, H, W, C) with alpha last, each picture composited on its `visible_background`."""
    grounds = [visible_background(picture, background) for picture in pixels]
    if all(ground == background for ground in grounds):
        return composited(pixels, background)
    return np.stack([composited(picture, ground) for picture, ground in zip(pixels, grounds, strict=True)])


HIDDEN = 4.0
"""The standard deviation of a picture, on a scale of 255, below which nothing in it is visible."""


def visible_background(picture: np.ndarray, background: RGB) -> RGB:
    """The background for a picture (H, W, C) with alpha last: the given one, or its complement if that would hide it.

    White shapes on a transparent ground are invisible on white.
    """
    step = max(1, int((picture.shape[0] * picture.shape[1] / 2**14) ** 0.5))
    some = picture[::step, ::step]
    hidden = np.float32(HIDDEN / 255 * _TOP[picture.dtype.name])
    spread = composited(some, background).std(dtype=np.float32)
    if spread >= hidden or not some[..., -1].any():
        return background
    opposite = (255 - background[0], 255 - background[1], 255 - background[2])
    return opposite if composited(some, opposite).std(dtype=np.float32) > spread else background


def padding(colors: int, dtype: np.dtype, background: RGB) -> np.ndarray:
    """The background (C,) in a dtype, as gray for one channel."""
    color = np.asarray(background, np.float32)
    color = np.array([color @ LUMA]) if colors != 3 else color
    color = color * (_TOP[np.dtype(dtype).name] / 255.0)
    return (color if np.dtype(dtype) == np.float32 else np.rint(color)).astype(dtype)


def value_range(pixels: np.ndarray) -> tuple[float, float]:
    """The values of a set that are displayed as black and white.

    (0, 255) for uint8; (0, 1) for floats within it; else the 0.1 and 99.9 percentiles, which are robust to hot
    pixels. Exact up to 16 million values, else from an even sample; NaN is ignored.
    """
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    stride = -(-pixels.size // _SAMPLE)
    while stride > 1 and math.gcd(stride, pixels[0, 0].size) > 1:  # sample all columns and channels
        stride += 1
    values = pixels.reshape(-1)[::stride]
    if pixels.dtype == np.float32:
        values = values[np.isfinite(values)]
        if values.size == 0:
            return 0.0, 1.0
        if _within_unit(pixels):
            return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, (0.1, 99.9)))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + max(1.0, abs(low) * 1e-6))


TWELVE_BITS = 4095
"""The largest 12-bit value: cameras and microscopes store 12 bits in 16."""


def range_of(kind: Kind, low: float, high: float) -> tuple[float, float]:
    """Black and white for the conversion of a kind of pictures to 8 bits, given their value range.

    16-bit gray and RGB with values beyond 12 bits are at full scale, as image editors write them, so that the same
    picture in 8 bits has the same colors. Everything else is scaled from its own range.
    """
    if kind.dtype == "uint16" and kind.is_picture and high > TWELVE_BITS:
        return 0.0, _TOP["uint16"]
    return low, high


def _within_unit(pixels: np.ndarray) -> bool:
    """Whether all values lie in [0, 1]; NaN is ignored."""
    for start in range(0, len(pixels), 256):
        part = pixels[start : start + 256]
        part = part[np.isfinite(part)]
        if part.size and (part.min() < 0.0 or part.max() > 1.0):
            return False
    return True


def own_range(pixels: np.ndarray, kind: Kind) -> tuple[float, float]:
    """Black and white of pictures (N, H, W, C) for conversion to another dtype, from these pictures alone.

    Called with one picture at a time at inference, so that results do not depend on the rest of the batch.
    """
    if kind.dtype == "uint8":
        return 0.0, _TOP["uint8"]
    if _counts_to(pixels, _TOP["uint8"]):
        return 0.0, _TOP["uint8"]
    return range_of(kind, *value_range(pixels))


OVERSHOOT = 2.0
"""Upper bound of floats in 0..1, including the overshoot of resampling filters."""


def _counts_to(pixels: np.ndarray, top: float) -> bool:
    """Whether pixels (N, H, W, C) of another dtype are integers from 0 to `top`, or means of them."""
    if pixels.dtype == np.uint16:
        return bool(pixels.max(initial=0) <= top)
    most = 0.0
    for picture in pixels:
        values = picture[np.isfinite(picture)]
        if values.size and (values.min() < 0.0 or values.max() > top):
            return False
        most = max(most, float(values.max(initial=0.0)))
    return most > OVERSHOOT


def _scale(picture: np.ndarray, have: Kind, to: ImageSpec) -> tuple[float, float, float, float]:
    """Two values of a picture (H, W, C), and what they become in a set of another dtype."""
    as_it_is = (0.0, 1.0, 0.0, 1.0)
    if to.dtype == "float32":  # physical units, as for integers
        if to.low < -OVERSHOOT or (to.high > OVERSHOOT and (to.high <= _TOP["uint8"]) == (have.dtype == "uint8")):
            return as_it_is
    elif to.dtype == "uint16" and have.dtype == "float32" and _counts_to(picture[None], _TOP["uint16"]):
        return as_it_is
    into = range_of(kind_of(to), to.low, to.high) if to.dtype == "uint16" else (to.low, to.high)
    return (*own_range(picture[None], have), *into)


def common_kind(counts: dict[Kind, int], any_transparent: bool, *, gaps: bool = False) -> Kind:
    """The kind of a mixed set, from the number of pictures of each kind.

    1. Measurements and pictures. If most files have some number of channels that is neither gray nor RGB, the set has
       that number and other files are skipped; else the multi-channel files are skipped.
    2. Dtype: the most frequent, or the deeper of a tie. A minority of 16-bit files becomes 8-bit, and so on.
    3. Color: gray if all are gray, else RGB.
    4. Alpha: kept if every picture has it, at least one is not opaque (`any_transparent`), and the set is 8-bit;
       else composited on the background. It is the last of 4 channels, or of 2 if all are gray.

    With `gaps` (masked pixels) the dtype is float32, which can represent missing values.
    """
    pictures = {k: n for k, n in counts.items() if k.is_picture}
    stacks: dict[int, int] = {}
    for k, n in counts.items():
        if not k.is_picture:
            stacks[k.channels] = stacks.get(k.channels, 0) + n
    most = max(stacks, key=lambda c: (stacks[c], -c), default=0)
    if stacks.get(most, 0) > sum(pictures.values()):
        members = {k: n for k, n in counts.items() if k.channels == most and not k.is_picture}
    else:
        members = pictures
    depths: dict[DTypeName, int] = {}
    for k, n in members.items():
        depths[k.dtype] = depths.get(k.dtype, 0) + n
    order = ["uint8", "uint16", "float32"]
    dtype: DTypeName = "float32" if gaps else max(depths, key=lambda d: (depths[d], order.index(d)))
    if members is not pictures:
        return Kind(most, False, dtype)
    colors = 1 if all(k.colors == 1 for k in members) else 3
    if all(k.alpha for k in members) and any_transparent and dtype == "uint8":
        return Kind(colors + 1, True, dtype)
    return Kind(colors, False, dtype)


def fits_in(kind: Kind, target: Kind) -> bool:
    """Whether pictures of a kind can be converted to the target kind."""
    return kind.is_picture if target.is_picture else kind.channels == target.channels and not kind.is_picture


@np.errstate(all="ignore")
def converted(
    pixels: np.ndarray, kind: Kind, target: Kind, background: RGB, deep_range: tuple[float, float] = (0.0, 1.0)
) -> np.ndarray:
    """Pixels (N, H, W, C) converted from one kind to another.

    To a deeper dtype, full scale maps to full scale (x 257 from 8 to 16 bits; 0..1 for floats). To a shallower one,
    `deep_range`, the range of all deep pictures, maps to full scale; only this can clip.
    """
    if kind == target:
        return pixels
    if kind.alpha and not target.alpha:
        pixels = composited_visibly(pixels, background)
    opacity = None
    if target.alpha:
        opacity = pixels[..., -1:] if kind.alpha else np.full((*pixels.shape[:-1], 1), _TOP[kind.dtype], pixels.dtype)
        pixels = pixels[..., :-1] if kind.alpha else pixels
    pixels = _in_depth(pixels, target.dtype, deep_range)
    if target.is_picture and pixels.shape[-1] != target.colors:
        if target.colors == 3:
            pixels = np.repeat(pixels, 3, axis=-1)
        else:
            gray = pixels.astype(np.float32) @ LUMA
            pixels = (gray if pixels.dtype == np.float32 else np.rint(gray).astype(pixels.dtype))[..., None]
    if opacity is not None:
        pixels = np.concatenate([pixels, _in_depth(opacity, target.dtype, (0.0, _TOP[kind.dtype]))], axis=-1)
    return pixels


def _in_depth(pixels: np.ndarray, dtype: str, deep_range: tuple[float, float]) -> np.ndarray:
    """Pixels in another dtype, by the rule of `converted`."""
    have = pixels.dtype.name
    if have == dtype:
        return pixels
    if (have, dtype) == ("uint8", "uint16"):
        return pixels.astype(np.uint16) * np.uint16(257)
    if dtype == "float32":
        return pixels.astype(np.float32) / np.float32(_TOP[have])
    low, high = deep_range
    scaled = np.nan_to_num((pixels.astype(np.float32) - low) / (high - low), nan=0.0)
    return np.rint(np.clip(scaled, 0.0, 1.0) * _TOP[dtype]).astype(dtype)


def kind_of(spec: ImageSpec) -> Kind:
    """The kind of the pictures of a set."""
    return Kind(spec.channels, spec.has_alpha, spec.dtype)


@np.errstate(all="ignore")
def conformed(
    pixels: np.ndarray,
    spec: ImageSpec,
    to: ImageSpec,
    background: RGB = (255, 255, 255),
    *,
    kind: Kind | None = None,
    missing: bool = False,
) -> np.ndarray:
    """Pixels (N, H, W, C) of one set in the channels and dtype of another, whose value range is kept.

    If the dtypes agree, values are kept. If they differ, black and white of each picture map to black and white of the
    set; see `own_range`. Floats that hold 8- or 16-bit values, and integers compared with floats in physical units,
    keep their values.

    ========  ============  ==================  =========  ==================  =========
    from, to  1             2                   3          4                   n
    ========  ============  ==================  =========  ==================  =========
    1         unchanged     opaque              repeated   repeated, opaque    refused
    2         composited    unchanged           composited repeated            refused
    3         luma          luma, opaque        unchanged  opaque              refused
    4         composited    luma                composited unchanged           refused
    n         refused       refused             refused    refused             same n only
    ========  ============  ==================  =========  ==================  =========

    The last of 2 or 4 channels is taken as alpha, unless both sets have the same number.

    Parameters
    ----------
    pixels, spec
        The pictures and the spec of their set.
    to : ImageSpec
        The spec to convert to.
    background : (int, int, int)
        What opacity is composited on.
    kind : Kind, optional
        The kind of the pixels, if it differs from that of `spec`.
    missing : bool
        Keep missing pixels (NaN): if there are any, the result is float in the range of `to`.

    Raises
    ------
    InputError
        If the channels cannot be converted.
    """
    have, want = _meeting(kind or kind_of(spec), kind_of(to))
    if have.dtype == want.dtype:
        return converted(pixels, have, want, background)
    middle = converted(pixels, have, want._replace(dtype=have.dtype), background)
    gaps = missing and have.dtype == "float32" and bool(np.isnan(middle).any())
    out = np.empty(middle.shape, np.float32 if gaps else want.dtype)
    for row, picture in zip(out, middle, strict=True):
        low, high, bottom, top = _scale(picture, have, to)
        values = (picture.astype(np.float32) - low) / (high - low) * (top - bottom) + bottom
        if want.dtype != "float32":
            values = np.rint(np.clip(values if gaps else np.nan_to_num(values), 0, _TOP[want.dtype]))
        row[:] = values
    return out


def _meeting(have: Kind, want: Kind) -> tuple[Kind, Kind]:
    """Two kinds as `conformed` reads them: equal numbers of channels have equal meaning, else both are pictures."""
    if have.channels == want.channels:
        return have._replace(alpha=want.alpha), want
    as_pictures = [kind if kind.is_picture else kind._replace(alpha=kind.channels in (2, 4)) for kind in (have, want)]
    if not all(kind.is_picture for kind in as_pictures):
        fitting = "gray or color images, with or without alpha" if want.channels <= 4 else f"{want.channels} channels"
        raise InputError(
            f"Images with {_counted(have.channels)} cannot be converted to {_counted(want.channels)}, as the model or "
            f"atlas expects; give {fitting}."
        )
    return as_pictures[0], as_pictures[1]


def alike(kind: Kind, other: Kind) -> bool:
    """Whether both kinds are pictures of one dtype, or have the same number of channels: in RGB they look alike."""
    return kind.dtype == other.dtype and fits_in(kind, other)


def _counted(channels: int) -> str:
    return f"{channels} channel{'' if channels == 1 else 's'}"


def display_view(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Pixels (..., C) of any set as uint8 for a picture file: gray, RGB, or RGBA if the set has alpha.

    Deep values are scaled from the range of the set. Of multi-channel images the first three channels are shown, of two
    the first. uint8 pixels are returned unchanged, such as the images that a model generated for a deep set.
    """
    from imatlas.images.tensors import to_view

    return shown_channels(to_view(pixels, spec), kind_of(spec))


def shown_channels(view: np.ndarray, kind: Kind) -> np.ndarray:
    """The channels of uint8 pixels (..., C) that a picture file shows; see `display_view`."""
    if kind.is_picture:
        return view
    return view[..., :3] if view.shape[-1] >= 3 else view[..., :1]


def rgb_view(pixels: np.ndarray, spec: ImageSpec, background: RGB = (255, 255, 255)) -> np.ndarray:
    """Pixels (N, H, W, C) of any set as RGB (N, H, W, 3) uint8, for display or for a network trained on photographs.

    As `display_view`, with transparent pixels composited on a visible background, and gray repeated.
    """
    view = display_view(pixels, spec)
    if kind_of(spec).alpha:
        view = composited_visibly(view, background)
    return np.repeat(view, 3, axis=-1) if view.shape[-1] == 1 else view
