"""TIFF files of every combination that tifffile writes, each with the expected pixels."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import numpy as np
import tifffile

from imatlas.errors import DecodeError
from imatlas.images.decode import read_picture

HEIGHT, WIDTH = 21, 18
WHITE = (255, 255, 255)
DTYPES = ("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
BITS = {"uint8": (None, 2, 3, 4, 5, 6, 7), "uint16": (None, 9, 10, 11, 12, 13, 14, 15), "uint32": (None, 20, 24)}
PACKINGS: dict[str | None, float] = {  # and by how much a value may differ, as a part of its whole range
    None: 0, "lzw": 0, "zlib": 0, "packbits": 0, "lzma": 0, "zstd": 0, "jpeg": 0.3, "jpeg2000": 0, "webp": 0, "lerc": 0,
    "png": 0,
}  # fmt: skip
PREDICTORS = (None, 2, 3)
KINDS = {  # photometric interpretation, samples, extra samples
    "gray": ("minisblack", 1, ()),
    "inverted": ("miniswhite", 1, ()),
    "gray, opacity": ("minisblack", 2, ("unassalpha",)),
    "gray, unexplained opacity": ("minisblack", 2, ("unspecified",)),
    "inverted, opacity": ("miniswhite", 2, ("unassalpha",)),
    "inverted, opacity multiplied in": ("miniswhite", 2, ("assocalpha",)),
    "rgb": ("rgb", 3, ()),
    "rgb, opacity": ("rgb", 4, ("unassalpha",)),
    "rgb, opacity multiplied in": ("rgb", 4, ("assocalpha",)),
    "rgb, unexplained opacity": ("rgb", 4, ("unspecified",)),
    "rgb, infrared": ("rgb", 4, ("unspecified",)),
    "palette": ("palette", 1, ()),
    "palette of 8 bits": ("palette", 1, ()),
    "inks": ("separated", 4, ()),
    "inks, spot": ("separated", 5, ("unspecified",)),
    "inks, opacity": ("separated", 5, ("unassalpha",)),
    "inks, opacity multiplied in": ("separated", 5, ("assocalpha",)),
    "inks, opacity, spot": ("separated", 6, ("unassalpha", "unspecified")),
    "ycbcr": ("ycbcr", 3, ()),
    "ycbcr, opacity": ("ycbcr", 4, ("unassalpha",)),
    "lab": ("cielab", 3, ()),
    "lab, opacity": ("cielab", 4, ("unassalpha",)),
    "icc lab": ("icclab", 3, ()),
    "icc lab, opacity": ("icclab", 4, ("unassalpha",)),
    "5 bands": ("minisblack", 5, ("unspecified",) * 4),
}
LAYOUTS = {  # planar configuration, and how it is cut into parts
    "strips": ("contig", {"rowsperstrip": 5}),
    "one strip": ("contig", {}),
    "tiles": ("contig", {"tile": (16, 16)}),
    "planes": ("separate", {"rowsperstrip": 8}),
    "planes in tiles": ("separate", {"tile": (16, 16)}),
}


class Case(NamedTuple):
    """One file: how it was made, its bytes, the expected pixels (H, W, C) and the tolerance."""

    name: str
    data: bytes
    expected: np.ndarray
    alpha: bool
    tolerance: float
    packing: str | None


def cases(seed: int = 0, share: float = 1.0) -> Iterator[Case]:
    """Every combination that tifffile can write, or a random share of them."""
    rng = np.random.default_rng(seed)
    for dtype, kind, packing, predictor, layout, order in itertools.product(
        DTYPES, KINDS, PACKINGS, PREDICTORS, LAYOUTS, "<>"
    ):
        for bits in BITS.get(dtype, (None,)):
            if rng.random() < share:
                made = _case(dtype, bits, kind, packing, predictor, layout, order, rng)
                if made is not None:
                    yield made


def difference(case: Case, name: str = "") -> str:
    """What is wrong with the pixels that were read; "" if nothing is."""
    try:
        picture = read_picture(case.data, name=name)
    except DecodeError as error:
        return str(error)
    pixels, expected = picture.pixels(), case.expected
    if (pixels.shape, pixels.dtype, picture.kind.alpha) != (expected.shape, expected.dtype, case.alpha):
        return f"{pixels.shape} {pixels.dtype}, not {expected.shape} {expected.dtype}"
    top = {"uint8": 255, "uint16": 65535}.get(pixels.dtype.name) or max(1.0, float(np.abs(expected).max()))
    apart = np.abs(pixels.astype(float) - expected)
    if case.alpha:  # the colors of what cannot be seen are nobody's
        apart[..., :-1] *= expected[..., -1:] > 0
    rounded = 1.01 / top if pixels.dtype != np.float32 else 1e-6
    exact = pixels.dtype != np.float32 and not any(word in case.name for word in ("opacity", "inks", "ycbcr"))
    allowed = 0.012 if "lab" in case.name else 0 if exact else rounded
    if "multiplied in" in case.name and case.alpha:  # what is nearly clear has few steps of color
        apart[..., :-1] *= np.minimum(1, expected[..., -1:] / top)
    apart_by = float(apart.max() / top)
    return "" if apart_by <= max(case.tolerance, allowed) else f"up to {apart_by:.4f} of the range off"


def _case(
    dtype: str,
    bits: int | None,
    kind: str,
    packing: str | None,
    predictor: int | None,
    layout: str,
    order: str,
    rng: np.random.Generator,
) -> Case | None:
    photometric, samples, extras = KINDS[kind]
    planar, cut = LAYOUTS[layout]
    if not _is_sensible(dtype, bits, kind, packing, predictor, planar):
        return None
    values = _values(dtype, bits, samples, kind, rng)
    stored = values if samples > 1 else values[..., 0]
    if planar == "separate":
        stored = np.moveaxis(values, 2, 0)
    options = {"photometric": photometric, "compression": packing, "predictor": predictor, "bitspersample": bits}
    if samples > 1:
        options |= {"planarconfig": planar, "extrasamples": extras}
    if photometric == "ycbcr":
        options["subsampling"] = (1, 1)
    if packing == "jpeg2000":
        options["compressionargs"] = {"level": 0, "reversible": True}
    if packing == "webp":
        options["compressionargs"] = {"lossless": True}
    if kind.startswith("palette"):
        n = 2 ** (bits or 8 * values.dtype.itemsize)
        options["colormap"] = rng.integers(0, 256, (3, n)).astype(np.uint16) * (
            1 if kind == "palette of 8 bits" else 257
        )
    out = BytesIO()
    try:
        tifffile.imwrite(out, stored, byteorder=order, metadata=None, **cut, **options)
        with tifffile.TiffFile(BytesIO(out.getvalue())) as file:
            page = file.pages.first
            if page.samplesperpixel != samples or (bits and page.bitspersample != bits):
                return None
            if PACKINGS[packing] == 0 and not np.array_equal(page.asarray(), stored):
                return None  # big-endian JPEG 2000, packed bits: it does not read what it wrote itself
    except Exception:
        return None  # not a combination that it writes
    name = ", ".join(str(x) for x in (dtype, bits, kind, packing, f"predictor {predictor}", layout, order))
    expected, alpha = _expected(values, bits, kind, options.get("colormap"))
    return Case(name, out.getvalue(), expected, alpha, PACKINGS[packing], packing)


def _is_sensible(
    dtype: str, bits: int | None, kind: str, packing: str | None, predictor: int | None, planar: str
) -> bool:
    """Whether such a file is meaningful: integers for palettes and inks, predictors for supported dtypes."""
    samples = KINDS[kind][1]
    if planar == "separate" and (samples == 1 or packing == "jpeg"):
        return False
    if kind.startswith(("palette", "ycbcr")) and dtype not in ("uint8", "uint16"):
        return False
    if kind.startswith("inks") and dtype not in ("uint8", "uint16", "uint32", "float32"):
        return False
    if "lab" in kind and dtype not in ("uint8", "uint16", "int8", "int16", "float32"):
        return False
    if kind.startswith("icc lab") and dtype.startswith("int"):
        return False
    if kind.startswith(("lab", "icc lab", "inks", "ycbcr")) and bits:
        return False
    if kind.startswith("palette") and bits not in (None, 2, 4):
        return False
    if "opacity" in kind and (dtype not in ("uint8", "uint16", "float32") or bits):
        return False
    if predictor is not None and (bits or dtype == "bool" or packing not in ("lzw", "zlib", "lzma", "zstd")):
        return False
    if (predictor == 3) != (predictor is not None and dtype.startswith("float")):
        return False
    if dtype == "bool" and samples > 1:
        return False
    return packing != "jpeg" or (dtype == "uint8" and not bits and kind in ("gray", "inverted", "rgb"))


def _values(dtype: str, bits: int | None, samples: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Smooth values with some noise (H, W, samples), over the whole range of their dtype."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    waves = [np.sin(3 * x + i) * np.cos(2 * y + i * i) for i in range(samples)]
    smooth = np.clip(np.stack(waves, axis=-1) * 0.45 + 0.5 + rng.normal(0, 0.01, (HEIGHT, WIDTH, samples)), 0, 1)
    if "opacity" in kind:
        smooth[..., -1] = np.where(x + y > 1.0, 1.0, np.where(x < 0.3, 0.0, smooth[..., -1]))
    if "opacity" in kind and "spot" in kind:
        smooth[..., 4] = smooth[..., 5]
    if "unexplained" in kind and kind.startswith("gray"):  # beside one channel, most of it is opaque
        smooth[..., -1] = np.where(x + y > 0.7, 1.0, smooth[..., -1])
    if "multiplied in" in kind:
        smooth[..., :-1] *= smooth[..., -1:]
    if "lab" in kind and dtype == "float32":
        smooth[..., :3] = smooth[..., :3] * [100, 160, 160] - [0, 80, 80]
    kind_of = np.dtype(dtype)
    if kind_of.kind == "b":
        return smooth > 0.5
    if kind_of.kind == "f":
        return smooth.astype(dtype)
    low, high = (0, 2**bits - 1) if bits else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.rint(smooth * (float(high) - low) + low).clip(low, high).astype(dtype)


def _expected(values: np.ndarray, bits: int | None, kind: str, colormap: np.ndarray | None) -> tuple[np.ndarray, bool]:
    """The expected pixels (H, W, C), and whether the last channel is alpha."""
    if kind.startswith("palette"):
        assert colormap is not None
        table = colormap if kind == "palette of 8 bits" else colormap >> 8
        return np.moveaxis(table[:, values[..., 0]], 0, 2).astype(np.uint8), False
    if values.dtype.kind == "b":
        plain = values.astype(np.uint8) * np.uint8(255)
        return (255 - plain if kind == "inverted" else plain), False
    wide = values.dtype.kind != "u" or values.dtype.itemsize > 2
    top = _white(values.dtype, bits)
    if kind == "inverted" and wide:
        turned = {"f": lambda v: 1 - v.astype(np.float32), "i": lambda v: ~v, "u": lambda v: top - v}
        return turned[values.dtype.kind](values).astype(np.float32), False
    if not kind.startswith(("inks", "ycbcr", "lab", "icc lab")) and "opacity" not in kind and wide:
        return values.astype(np.float32), False
    depth = np.dtype(np.float32) if wide else values.dtype
    if "lab" in kind and values.dtype.kind == "i":
        values = values.view(f"u{values.dtype.itemsize}")
        depth, top = values.dtype, _white(values.dtype, None)
    floats = _meant(values, kind, top)
    alpha = "opacity" in kind
    full = 1.0 if depth == np.float32 else float(np.iinfo(depth).max)
    if alpha and depth != np.uint8:
        return _laid_on_white(floats, depth, full), False
    return (floats.astype(depth) if depth == np.float32 else np.rint(floats * full).astype(depth)), alpha


def _white(dtype: np.dtype, bits: int | None) -> float:
    """The maximal value of a dtype."""
    return float(2**bits - 1) if bits else float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0


def _meant(values: np.ndarray, kind: str, top: float) -> np.ndarray:
    """The intended picture, in 0..1: gray, RGB or multi-channel, alpha last if there is any."""
    if kind.startswith(("lab", "icc lab")):
        opacity = values[..., 3:] / top
        return np.concatenate([_rgb_of_lab(values[..., :3], kind.split(",")[0]), opacity], axis=-1)
    floats = values.astype(np.float64) / top
    if "spot" in kind:
        floats = floats[..., : 5 if "opacity" in kind else 4]
    if "multiplied in" in kind:
        floats[..., :-1] = np.minimum(1, floats[..., :-1] / np.maximum(floats[..., -1:], 1e-9))
    if kind.startswith("inverted"):
        floats[..., 0] = 1 - floats[..., 0]
    if kind.startswith("inks"):
        floats = np.concatenate([(1 - floats[..., :3]) * (1 - floats[..., 3:4]), floats[..., 4:]], axis=-1)
    if kind.startswith("ycbcr"):
        light, blue, red = floats[..., 0], floats[..., 1] - (top + 1) / 2 / top, floats[..., 2] - (top + 1) / 2 / top
        green = light - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587
        rgb = np.stack([light + 1.402 * red, green, light + 1.772 * blue], axis=-1)
        floats = np.concatenate([np.clip(rgb, 0, 1), floats[..., 3:]], axis=-1)
    return floats


def _laid_on_white(floats: np.ndarray, dtype: np.dtype, top: float) -> np.ndarray:
    mixed = floats[..., :-1] * floats[..., -1:] + (1 - floats[..., -1:])
    return (mixed * top).astype(dtype) if dtype.kind == "f" else np.rint(mixed * top).astype(dtype)


def _rgb_of_lab(values: np.ndarray, kind: str) -> np.ndarray:
    """sRGB in 0..1 by scikit-image's Lab, adapted from D50 to D65 by Bradford's method."""
    from skimage.color import lab2xyz

    lab = values.astype(np.float64)
    if values.dtype.kind == "u":
        signed = values if kind == "icc lab" else np.ascontiguousarray(values).view(f"i{values.dtype.itemsize}")
        top = np.iinfo(values.dtype).max
        unit = 256 if values.dtype == np.uint16 else 1
        lab[..., 0] = values[..., 0] / (top if kind == "lab" or values.dtype == np.uint8 else 65280) * 100
        lab[..., 1:] = signed[..., 1:] / unit - (128 if kind == "icc lab" else 0)
    xyz = lab2xyz(lab, illuminant="D50")
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d50, d65 = np.array([0.9642, 1, 0.8249]), np.array([0.95047, 1, 1.08883])
    adapted = np.linalg.inv(bradford) @ np.diag((bradford @ d65) / (bradford @ d50)) @ bradford
    matrix = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    linear = np.clip(xyz @ (matrix @ adapted).T, 0, 1)
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def made_by_hand(body: bytes, order: str = "<", **tags: list[int] | bytes) -> bytes:
    """A TIFF of one strip with tags "t258" and so on, as no library writes it.

    Whole numbers below 2^16 are stored in two bytes, except those that every reader wants in four; bytes as text. An
    even-sized list in a tag of ratios (529, 532) is numerators and denominators.
    """
    values: dict[int, list[int] | bytes] = {273: [8], 277: [1], 279: [len(body)]}
    values |= {int(name[1:]): value for name, value in tags.items()}
    entries, behind = b"", b""
    start = 8 + len(body) + len(body) % 2
    size = 2 + 12 * len(values) + 4
    for tag, given in sorted(values.items()):
        kind, code = (4, "I") if tag in (256, 257, 273, 279) else (5, "I") if tag in (529, 532) else (3, "H")
        if isinstance(given, bytes):
            kind, content, count = 2, given, len(given)
        else:
            content = struct.pack(f"{order}{len(given)}{code}", *given)
            count = len(given) // (2 if kind == 5 else 1)
        if len(content) > 4:
            place = struct.pack(order + "I", start + size + len(behind))
            behind += content + b"\0" * (len(content) % 2)
        else:
            place = content.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, count) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    directory = struct.pack(order + "H", len(values)) + entries + bytes(4)
    return head + body + b"\0" * (len(body) % 2) + directory + behind
