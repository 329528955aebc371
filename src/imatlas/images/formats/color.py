"""Conversion to sRGB from ICC profiles, primaries and a transfer curve, CIE Lab, and CMYK.

Profiles of 8-bit pictures are applied by LittleCMS, through Pillow. Pillow does not apply profiles to 16 bits: here a
profile of three curves and a matrix, as cameras and screens have, is applied by the formulas of ICC.1:2022, F.3, and a
profile with lookup tables to the upper 8 bits. Colors outside sRGB are clipped per channel, as in LittleCMS. Colors
given by primaries and a curve (cICP, nclx, gAMA and cHRM, Adobe RGB in EXIF) get a profile made here.

Profiles of 8-bit pictures are applied by LittleCMS, which Pillow holds. It does not reach 16 bits through Pillow: there
a profile of three curves and a matrix, as those of cameras and screens are, is applied here, by the formulas of
ICC.1:2022, F.3; tables of colors are applied to the upper 8 bits. A color outside sRGB becomes the nearest inside by
each channel, as in LittleCMS. Colors that a file tells by primaries and a curve (cICP, nclx, gAMA and cHRM, Adobe RGB
by EXIF) are given a profile that is made here, and go the same way.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE = 2**22
"""Maximal size of a profile in bytes; those of printing presses have half a million."""

BY_TABLE = "colors reduced to 8 bits, because its profile is a lookup table"
DAMAGED = "its color profile is damaged: read as sRGB"

# sRGB's primaries as XYZ under D50, the white of ICC profiles, by rows X, Y, Z (IEC 61966-2-1, Bradford-adapted).
_XYZ_OF_SRGB = np.array([
    [0.4360657, 0.3851471, 0.1430664],
    [0.2224884, 0.7168732, 0.0606079],
    [0.0139160, 0.0970764, 0.7140961],
])  # fmt: skip
_SRGB_OF_XYZ = np.linalg.inv(_XYZ_OF_SRGB).astype(np.float32)
_D50 = np.array([0.9642, 1.0, 0.8249], np.float32)
_BAND = 2**20

Convert8 = Callable[[Image.Image], Image.Image]


SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ADOBE_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE_GAMMA = 563 / 256
# White, red, green and blue as x, y, by the codes of ITU-T H.273, table 2; sRGB's for other codes.
_PRIMARIES = {
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (0.3127, 0.3290, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_WHITE_OF_HDR = 203.0  # cd/m²: diffuse white in HDR (ITU-R BT.2408)


def profile_of(primaries: Sequence[float], curve: float | np.ndarray | None = None) -> bytes:
    """An ICC profile of a matrix and one curve; b"" if the primaries are not a triangle.

    Parameters
    ----------
    primaries : sequence of 8 floats
        x and y of white, red, green and blue (CIE 1931).
    curve : float or ndarray, optional
        From values to linear light: an exponent, or light in 0..1 for evenly spaced values; sRGB's by default.
    """
    x, y = np.asarray(primaries, float).reshape(4, 2).T
    if not (y > 0).all() or abs(np.linalg.det(np.stack([x[1:], y[1:], np.ones(3)]))) < 1e-4:
        return b""
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    matrix = xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0])
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ xyz[:, 0])
    matrix = np.linalg.inv(_BRADFORD) @ (cones[:, None] * _BRADFORD) @ matrix
    if curve is None:
        numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        tag = struct.pack(">4sIHH5i", b"para", 0, 3, 0, *(round(number * 65536) for number in numbers))
    elif isinstance(curve, np.ndarray):
        tag = struct.pack(">4sII", b"curv", 0, len(curve)) + np.rint(curve * 65535).astype(">u2").tobytes()
    else:
        tag = struct.pack(">4sIHHi", b"para", 0, 0, 0, round(curve * 65536))
    columns = np.rint(np.vstack([matrix.T, _D50]) * 65536).astype(">i4")
    tags = [struct.pack(">4sI", b"XYZ ", 0) + column.tobytes() for column in columns]
    return _packed([*zip((b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"), tags, strict=True)], tag)


def _packed(tags: list[tuple[bytes, bytes]], curve: bytes) -> bytes:
    """The bytes of a profile with some tags and one curve for its three channels (ICC.1:2022, 7)."""
    place = 132 + 12 * (len(tags) + 3)
    table, body = b"", curve + bytes(-len(curve) % 4)
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        table += struct.pack(">4sII", name, place, len(curve))
    for name, tag in tags:
        table += struct.pack(">4sII", name, place + len(body), len(tag))
        body += tag
    white = np.rint(_D50 * 65536).astype(">i4").tobytes()
    header = struct.pack(
        ">I4xI4s4s4s12x4s28x12s", place + len(body), 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp", white
    )
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags) + 3) + table + body


def profile_of_codes(primaries: int, transfer: int, full_range: bool = True) -> tuple[bytes, str | None]:
    """The profile for the ITU-T H.273 codes that a file gives (cICP, nclx), b"" for sRGB, and a note.

    Parameters
    ----------
    primaries, transfer : int
        ColorPrimaries and TransferCharacteristics. Standard-range television curves (BT.709 and similar) are read
        as sRGB's, as browsers do.
    full_range : bool
        Whether black is 0 and white the maximum, rather than 16 and 235 of 255.
    """
    curve: float | np.ndarray | None = {4: 2.2, 5: 2.8, 8: 1.0}.get(transfer)
    note = None
    if transfer in (16, 18):
        curve = _light_of_hdr(np.linspace(0, 1, 4096), transfer)
        kind = "PQ" if transfer == 16 else "HLG"
        note = f"high dynamic range ({kind}): light above diffuse white is clipped"
    if not full_range:
        x = np.clip((np.linspace(0, 1, 4096) * 255 - 16) / 219, 0, 1)
        inner = _light_of_srgb(x) if curve is None else x**curve if isinstance(curve, float) else None
        curve = np.interp(x, np.linspace(0, 1, 4096), curve) if inner is None else inner  # type: ignore[arg-type]
    if curve is None and primaries not in _PRIMARIES:
        return b"", None
    return profile_of(_PRIMARIES.get(primaries, SRGB_PRIMARIES), curve), note


def _light_of_srgb(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _light_of_hdr(x: np.ndarray, transfer: int) -> np.ndarray:
    """Linear light by PQ (SMPTE ST 2084) or HLG (ITU-R BT.2100, a 1000 cd/m² display), diffuse white being 1."""
    if transfer == 16:
        root = np.maximum(x, 0) ** (1 / 78.84375)
        light = 10000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    else:
        scene = np.where(x <= 0.5, x**2 / 3, (np.exp((x - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        light = 1000 * scene**1.2  # per channel; the standard uses the luminance
    return np.clip(light / _WHITE_OF_HDR, 0, 1)


def srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, str | None]:
    """A decoded 8-bit picture in sRGB, and a note about its colors.

    Parameters
    ----------
    image : Image
        Mode L, LA, RGB, RGBA or CMYK; others are returned unchanged. CMYK becomes RGB, alpha is kept.
    profile : bytes
        The ICC profile of the file; b"" for none.
    """
    if not profile or image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image, None
    space = profile[16:20]
    fits = {"CMYK": (b"CMYK",), "L": (b"GRAY", b"RGB "), "LA": (b"GRAY", b"RGB ")}.get(image.mode, (b"RGB ",))
    if space not in fits:
        name = space.decode("latin-1").strip()
        return image, f"its color profile is for {name}: read as sRGB" if name.isalnum() else DAMAGED
    convert = _convert8(profile, image.mode)
    if isinstance(convert, str):
        return image, convert
    return (convert(image), None) if convert is not None else (image, None)


def srgb_deep(pixels: np.ndarray, profile: bytes) -> tuple[np.ndarray, str | None]:
    """16-bit colors (H, W, 3), or floats in 0..1, in sRGB, and a note about them."""
    if not profile:
        return pixels, None
    curves = _curves(profile)
    if pixels.dtype == np.float32 and not (curves is not None and _is_srgb(profile)) and _beyond_unit(pixels):
        return pixels, "its color profile is not applied: some values lie outside 0..1"
    if curves is not None:
        return (pixels, None) if _is_srgb(profile) else (_by_curves(pixels, *curves), None)
    image, note = srgb(Image.fromarray(in_8_bits(pixels)), profile)
    if note is not None or _is_srgb(profile):
        return pixels, note
    return _in_depth(image, pixels.dtype), BY_TABLE


def of_lab(lab: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (..., 3) under D50, L in 0..100, as sRGB (..., 3) in 0..1."""
    y = (lab[..., :1] + 16) / 116
    steps = np.concatenate([y + lab[..., 1:2] / 500, y, y - lab[..., 2:3] / 200], axis=-1)
    xyz = np.where(steps > 6 / 29, steps**3, 3 * (6 / 29) ** 2 * (steps - 4 / 29)) * _D50
    return _encoded(xyz.astype(np.float32) @ _SRGB_OF_XYZ.T)


def of_inks(inks: np.ndarray) -> np.ndarray:
    """CMYK (..., 4) without a profile as RGB (..., 3), each ink absorbing its part of the light.

    The formula of Pillow. Floats are in 0..1.
    """
    if inks.dtype == np.float32:
        return (1 - inks[..., :3]) * (1 - inks[..., 3:])
    top = np.iinfo(inks.dtype).max
    light = 1 - inks.astype(np.float32) / np.float32(top)
    return np.rint(light[..., :3] * light[..., 3:] * top).astype(inks.dtype)


def inks_in_srgb(inks: np.ndarray, profile: bytes) -> tuple[np.ndarray, str | None]:
    """CMYK (H, W, 4) of 8 or 16 bits, or in 0..1, as RGB, by its profile if there is one, and a note."""
    if not profile:
        return of_inks(inks), None
    image, note = srgb(Image.fromarray(in_8_bits(inks), "CMYK"), profile)
    if image.mode == "CMYK":
        return of_inks(inks), note
    return _in_depth(image, inks.dtype), note if inks.dtype == np.uint8 else BY_TABLE


@functools.lru_cache(maxsize=16)
def _convert8(profile: bytes, mode: str) -> Convert8 | str | None:
    """The conversion of a picture of a mode to sRGB; None if it is sRGB already, a reason if it is impossible."""
    if len(profile) > MAX_PROFILE:
        return f"its color profile has {len(profile):,} bytes: read as sRGB"
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        if mode in ("L", "LA"):
            return _convert_gray(source, target, "L" if profile[16:20] == b"GRAY" else "RGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGBA" if mode == "RGBA" else "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return DAMAGED
    if mode == "CMYK":
        return transform.apply
    probe = _probe(mode)
    change = np.abs(np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe)).max()
    return transform.apply if change > 1 else None


def _convert_gray(source: ImageCms.ImageCmsProfile, target: Any, inward: str) -> Convert8 | None:
    """The conversion of gray to sRGB's by a table, as LittleCMS's fast path is up to 10 of 255 off in dark tones."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    exact = ImageCms.buildTransform(source, target, inward, "RGB", flags=ImageCms.Flags.NOOPTIMIZE)
    table = list(exact.apply(ramp.convert(inward)).getchannel(0).tobytes())
    if max(abs(made - value) for value, made in enumerate(table)) <= 1:
        return None

    def convert(image: Image.Image) -> Image.Image:
        light = image.getchannel(0).point(table)
        return Image.merge("LA", [light, image.getchannel(1)]) if image.mode == "LA" else light

    return convert


def _probe(mode: str) -> Image.Image:
    """A picture with colors from the whole RGB cube."""
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3)
    return Image.fromarray(cube).convert(mode)


def _is_srgb(profile: bytes) -> bool:
    return _convert8(profile, "RGB") is None


@functools.lru_cache(maxsize=16)
def _curves(profile: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """Linear light (3, 65536) for each value of each channel, and the matrix to linear sRGB; None for lookup tables."""
    try:
        if profile[16:24] != b"RGB XYZ ":
            return None
        (count,) = struct.unpack_from(">I", profile, 128)
        places = (struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(min(count, 200)))
        tags = {name: profile[start : start + size] for name, start, size in places}
        if b"A2B0" in tags or b"D2B0" in tags:
            return None
        columns = [np.array(struct.unpack_from(">3i", tags[name], 8)) / 65536 for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
        light = np.stack([_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]).astype(np.float32)
    except (struct.error, KeyError, ValueError, IndexError, ZeroDivisionError):
        return None
    matrix = _SRGB_OF_XYZ @ np.stack(columns, axis=1).astype(np.float32)
    return (light, matrix) if np.isfinite(light).all() else None


def _curve(tag: bytes) -> np.ndarray:
    """Linear light (65536,) for the values 0 to 65535, from a tag 'curv' or 'para' (ICC.1:2022, 10.6 and 10.18)."""
    x = np.arange(65536) / 65535
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return x
        if count == 1:
            return x ** (struct.unpack_from(">H", tag, 12)[0] / 256)
        points = np.frombuffer(tag, ">u2", count, 12) / 65535
        return np.interp(x, np.linspace(0, 1, count), points)
    if tag[:4] != b"para":
        raise ValueError("an unknown kind of curve")
    (kind,) = struct.unpack_from(">H", tag, 8)
    numbers = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    n_given = (1, 3, 4, 5, 7)[kind]
    numbers[:n_given] = np.frombuffer(tag, ">i4", n_given, 12) / 65536
    gamma, a, b, c, d, e, f = numbers.tolist()
    if kind == 1:  # zero below -b/a
        d = -b / a
    elif kind == 2:
        d, e, f, c = -b / a, c, c, 0.0
    return np.clip(np.where(x >= d, np.maximum(a * x + b, 0) ** gamma + e, c * x + f), 0, 1)


def _by_curves(pixels: np.ndarray, light: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """16-bit colors, or floats in 0..1, through curves and a matrix, in bands of rows; NaN is kept."""
    out = np.empty_like(pixels)
    rows = max(1, _BAND // pixels.shape[1])
    steps = np.linspace(0, 1, light.shape[1])
    for top in range(0, len(pixels), rows):
        band = pixels[top : top + rows]
        if pixels.dtype == np.float32:
            linear = np.stack([np.interp(band[..., i], steps, light[i]) for i in range(3)], axis=-1)
            out[top : top + rows] = _encoded(linear.astype(np.float32) @ matrix.T)
            continue
        linear = np.stack([light[channel][band[..., channel]] for channel in range(3)], axis=-1)
        out[top : top + rows] = np.rint(_encoded(linear @ matrix.T) * 65535)
    return out


def _beyond_unit(pixels: np.ndarray) -> bool:
    return bool(np.nanmin(pixels, initial=0.0) < 0 or np.nanmax(pixels, initial=0.0) > 1)


def _encoded(linear: np.ndarray) -> np.ndarray:
    """Linear light in 0..1 as sRGB values in 0..1 (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def in_8_bits(array: np.ndarray) -> np.ndarray:
    """Samples of 8 or 16 bits, or floats in 0..1, as uint8."""
    if array.dtype == np.float32:
        return np.rint(np.clip(np.nan_to_num(array), 0, 1) * 255).astype(np.uint8)
    return (array >> 8).astype(np.uint8) if array.dtype == np.uint16 else array


def _in_depth(image: Image.Image, dtype: np.dtype) -> np.ndarray:
    """An 8-bit picture at the full scale of a dtype, the inverse of `in_8_bits`."""
    array = np.asarray(image)
    if dtype == np.float32:
        return array / np.float32(255)
    return array.astype(np.uint16) * np.uint16(257) if dtype == np.uint16 else array


def full_scale(array: np.ndarray, bits: int) -> np.ndarray:
    """Integers of `bits` bits in uint8 or uint16, scaled so that the largest becomes 255 or 65535.

    The same picture then has the same values at every bit depth.
    """
    if array.dtype.kind != "u" or bits >= 8 * array.dtype.itemsize:
        return array
    steps = np.arange(2**bits) * (np.iinfo(array.dtype).max / (2**bits - 1))
    return np.rint(steps).astype(array.dtype).take(array, mode="clip")


def scaled_note(bits: int) -> str:
    """The note for a picture that `full_scale` has scaled to 16 bits; "" for others."""
    return f"{bits} bits per sample, scaled to 16" if 8 < bits < 16 else ""
