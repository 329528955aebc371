"""Pictures in every common format, and seeded damage to them."""

from __future__ import annotations

import functools
import struct
import zlib
from io import BytesIO

import numpy as np
import tifffile
from PIL import Image

EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def _tiff(array: np.ndarray, **options: object) -> bytes:
    out = BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


@functools.cache
def originals() -> list[tuple[str, bytes]]:
    """(ending, content) of valid small pictures: every mode and codec that should be damaged."""
    rng = np.random.default_rng(1)
    smooth = rng.integers(0, 256, (6, 8, 4), np.uint8)
    rgba = Image.fromarray(smooth).resize((40, 30), Image.Resampling.BICUBIC)
    rgb, gray = rgba.convert("RGB"), rgba.convert("L")
    deep = rng.integers(0, 65536, (30, 40), np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = [gray.transpose(Image.Transpose.ROTATE_180), gray]
    return [
        ("jpg", _saved(rgb, "JPEG", quality=85, exif=exif)),
        ("jpg", _saved(rgb, "JPEG", progressive=True)),
        ("jpg", _saved(rgb.convert("CMYK"), "JPEG")),
        ("png", _saved(rgba, "PNG")),
        ("png", _saved(rgb.quantize(16), "PNG", exif=exif)),
        ("png", _saved(Image.fromarray(deep), "PNG")),
        ("gif", _saved(gray, "GIF", save_all=True, append_images=turned)),
        ("tif", _saved(rgb, "TIFF", compression="tiff_lzw", exif=exif)),
        ("tif", _saved(rgb, "TIFF", compression="jpeg")),
        ("tif", _saved(gray.convert("1"), "TIFF", compression="group4")),
        ("tif", _tiff(deep)),
        ("tif", _tiff(np.repeat(deep[..., None], 5, axis=2), photometric="minisblack", planarconfig="contig")),
        ("tif", _tiff(deep.astype(np.float32), compression="zlib", tile=(16, 16))),
        ("tif", _tiff(np.stack([deep] * 3)[:, None], imagej=True, metadata={"axes": "ZCYX"})),
        ("webp", _saved(rgb, "WEBP", exif=exif)),
        ("webp", _saved(rgba, "WEBP", lossless=True, save_all=True, append_images=[rgba])),
        ("bmp", _saved(rgb, "BMP")),
        ("bmp", _saved(rgb.quantize(16), "BMP")),
        ("ppm", _saved(rgb, "PPM")),
        ("jp2", _saved(rgb, "JPEG2000")),
        ("avif", _saved(rgb, "AVIF")),
        ("ico", _saved(rgba, "ICO", sizes=[(40, 30)])),
        ("tga", _saved(rgb, "TGA", compression="tga_rle")),
        ("qoi", _saved(rgb, "QOI")),
        ("pcx", _saved(rgb, "PCX")),
        ("dds", _saved(rgba, "DDS")),
        ("sgi", _saved(rgb, "SGI")),
    ]


def _png(array: np.ndarray, depth: int, color: int) -> bytes:
    """A PNG of samples that Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _psd(rgb: np.ndarray) -> bytes:
    """A flat Photoshop file with run-length encoded rows."""
    height, width, _ = rgb.shape
    head = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, height, width, 8, 3) + bytes(12)
    rows = [bytes([width - 1]) + rgb[y, :, c].tobytes() for c in range(3) for y in range(height)]
    return head + b"\0\1" + struct.pack(f">{len(rows)}H", *map(len, rows)) + b"".join(rows)


def _packed_bmp(gray: np.ndarray) -> bytes:
    """A BMP with run-length encoded rows."""
    height, width = gray.shape
    body = b"".join(b"".join(bytes([1, v]) for v in row) + b"\0\0" for row in gray[::-1].tolist()) + b"\0\1"
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 1, 1, 256, 0)
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + info + palette + body


def _icns(png: bytes) -> bytes:
    """A macOS icon that contains one PNG of 32 x 32."""
    return b"icns" + struct.pack(">I", len(png) + 16) + b"icp5" + struct.pack(">I", len(png) + 8) + png


@functools.cache
def more_originals() -> list[tuple[str, bytes]]:
    """(ending, content) of further valid pictures: rarer options, codecs and containers."""
    rng = np.random.default_rng(2)
    rgba = Image.fromarray(rng.integers(0, 256, (6, 8, 4), np.uint8)).resize((40, 30), Image.Resampling.BICUBIC)
    rgb, gray = rgba.convert("RGB"), rgba.convert("L")
    pixels = np.asarray(rgb)
    deep = rng.integers(0, 65536, (30, 40, 4), np.uint16)
    text = b"\n".join(b" ".join(b"%d" % v for v in row) for row in np.asarray(gray).tolist())
    found = [
        *[("png", _png(deep[..., :n], 16, color)) for n, color in ((1, 0), (2, 4), (3, 2), (4, 6))],
        ("png", _saved(rgb, "PNG", save_all=True, append_images=[rgb.transpose(Image.Transpose.ROTATE_180)] * 2)),
        ("png", _saved(gray.convert("1"), "PNG")),
        ("png", _saved(rgb.quantize(4), "PNG", transparency=1)),
        ("jpg", _saved(gray, "JPEG", quality=30)),
        ("jpg", _saved(rgb, "JPEG", subsampling=2, restart_marker_blocks=2)),
        ("gif", _saved(rgb.quantize(8), "GIF", interlace=1, transparency=0)),
        ("webp", _saved(rgba, "WEBP", quality=60)),
        ("webp", _saved(rgb, "WEBP", save_all=True, append_images=[rgb, rgb])),
        ("avif", _saved(rgba, "AVIF", save_all=True, append_images=[rgba])),
        ("jp2", _saved(rgba, "JPEG2000", tile_size=(16, 16), irreversible=True, quality_layers=[20, 5])),
        ("j2k", _saved(gray, "JPEG2000", no_jp2=True)),
        ("icns", _icns(_saved(rgba.resize((32, 32)), "PNG"))),
        ("ico", _saved(rgba, "ICO", bitmap_format="bmp", sizes=[(40, 30), (16, 16)])),
        ("dds", _saved(rgba.resize((40, 32)), "DDS", pixel_format="DXT5")),
        ("tga", _saved(rgba, "TGA")),
        ("pcx", _saved(gray.convert("1"), "PCX")),
        ("sgi", _saved(gray, "SGI", bpc=2)),
        ("bmp", _saved(gray.convert("1"), "BMP")),
        ("bmp", _packed_bmp(np.asarray(gray))),
        ("psd", _psd(pixels)),
        ("pgm", b"P2\n# words\n40 30\n255\n" + text),
        ("pgm", b"P5 40 30 1000\n" + (deep[..., 0] % 1000).astype(">u2").tobytes()),
        ("pbm", b"P1 40 30 " + b"01" * 600),
        ("pfm", _saved(Image.fromarray(deep[..., 0].astype(np.float32)), "PPM")),
        ("tif", _saved(rgb, "TIFF", compression="packbits")),
        ("tif", _saved(rgb, "TIFF", compression="tiff_adobe_deflate", strip_size=200)),
        ("tif", _saved(rgb, "TIFF", compression="zstd")),
        ("tif", _saved(rgb, "TIFF", compression="lzma")),
        ("tif", _saved(rgb, "TIFF", save_all=True, append_images=[gray, rgba])),
        ("tif", _saved(rgb.convert("CMYK"), "TIFF")),
        ("tif", _saved(rgb.convert("LAB"), "TIFF")),
        ("tif", _saved(gray.convert("1"), "TIFF", compression="group3")),
        ("tif", _tiff(deep[..., :3], photometric="rgb", compression="zlib", predictor=True)),
        ("tif", _tiff(deep.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate", rowsperstrip=7)),
        ("tif", _tiff(deep, photometric="rgb", extrasamples=["unassalpha"], bigtiff=True, byteorder=">")),
        ("tif", _tiff(deep[:, :, :2].transpose(2, 0, 1), ome=True, metadata={"axes": "CYX"}, compression="zlib")),
        ("tif", _tiff(deep[..., 0].astype(np.float64), compression="lzma")),
        *_further(deep, pixels),
    ]
    try:
        import pillow_heif
    except ImportError:
        return found
    out = BytesIO()
    pillow_heif.from_pillow(rgb.resize((64, 48))).save(out, quality=70)
    return [*found, ("heic", out.getvalue())]


def _further(deep: np.ndarray, pixels: np.ndarray) -> list[tuple[str, bytes]]:
    """Files that are unpacked here or by the extra `codecs`, and pictures with a color profile."""
    from imagecodecs import jpeg2k_encode, jpeg8_encode

    from tests.images.formats.profiles import DISPLAY_P3, SRGB_CURVE, matrix_profile

    profile = matrix_profile(DISPLAY_P3, SRGB_CURVE)
    floats, twelve = deep[..., :3].astype(np.float32), deep[..., :3] >> 4
    array = BytesIO()
    np.save(array, pixels)
    rgb = {"photometric": "rgb"}
    files = [
        _tiff(deep[..., :3], compression="lzw", predictor=2, iccprofile=profile, **rgb),
        _tiff(deep, compression="packbits", extrasamples=["assocalpha"], tile=(16, 16), **rgb),
        _tiff(floats, compression="zstd", predictor=3, **rgb),
        _tiff(twelve, bitspersample=12, **rgb),
        _tiff(deep[..., :3], photometric="cielab", compression="lzw", rowsperstrip=5),
        _tiff(deep, photometric="separated", compression="zlib"),
        _tiff(pixels[..., 0], photometric="palette", colormap=np.resize(deep, (3, 256))),
        *[_tiff(pixels, compression=name, **rgb) for name in ("jpeg2000", "lerc", "webp", "png")],
        _tiff(deep[..., 0], compression="jpeg2000", tile=(16, 16)),
    ]
    return [
        *[("tif", file) for file in files],
        ("jpg", jpeg8_encode(np.ascontiguousarray(twelve), bitspersample=12)),
        ("jpg", jpeg8_encode(np.ascontiguousarray(deep[..., 0]), bitspersample=16, lossless=True)),
        ("jp2", jpeg2k_encode(np.ascontiguousarray(deep[..., :3]), level=0, reversible=True, codecformat="jp2")),
        ("png", array.getvalue()),
        ("png", _saved(Image.fromarray(pixels), "PNG", icc_profile=profile)),
        ("jpg", _saved(Image.fromarray(pixels), "JPEG", icc_profile=profile)),
    ]


def damaged(n: int, seed: int) -> list[tuple[str, bytes]]:
    """`n` pictures with flipped bits, truncation, holes, spliced halves, extreme header values, and wrong names."""
    rng = np.random.default_rng(seed)
    sound = [*originals(), *more_originals()]
    files = []
    for i in range(n):
        ending, content = sound[int(rng.integers(len(sound)))]
        data = bytearray(content)
        for _ in range(1 + int(rng.random() < 0.2)):
            data = _damage(data, sound, rng)
        if rng.random() < 0.3 and ending == "png":
            data = _checksums_put_right(data)
        if rng.random() < 0.1:
            ending = sound[int(rng.integers(len(sound)))][0]
        files.append((f"{i:05d}.{ending}", bytes(data)))
    return files


def _damage(data: bytearray, sound: list[tuple[str, bytes]], rng: np.random.Generator) -> bytearray:
    """One random kind of damage."""
    size = max(1, len(data))
    kind = int(rng.integers(9))
    start = int(rng.integers(0, size))
    if kind == 0:
        for place in rng.integers(0, size, rng.integers(1, 20)):
            data[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        data = data[:start]
    elif kind == 2:
        stop = start + int(rng.integers(1, 200))
        data[start:stop] = bytes(rng.integers(0, 256, len(data[start:stop]), np.uint8))
    elif kind == 3:
        other = sound[int(rng.integers(len(sound)))][1]
        data = data[:start] + bytearray(other[int(rng.integers(len(other))) :])
    elif kind == 4:
        for place in rng.integers(0, min(64, size), rng.integers(1, 6)):
            data[place] = int(rng.integers(256))
    elif kind == 5:
        del data[start : start + int(rng.integers(1, 100))]
    elif kind == 6:  # a part twice, or many times
        part = data[start : start + int(rng.integers(1, 300))]
        data[start:start] = part * int(rng.choice([1, 2, 100]))
    else:  # a number of the header, or of a tag, at an extreme
        width = int(rng.choice([1, 2, 4]))
        place = int(rng.integers(0, min(size, 400 if kind == 7 else size)))
        value = int(EXTREMES[int(rng.integers(len(EXTREMES)))]) & (256**width - 1)
        data[place : place + width] = value.to_bytes(width, "big" if rng.random() < 0.5 else "little")
    return data if data else bytearray(b"\0")


def _checksums_put_right(data: bytearray) -> bytearray:
    """A PNG whose damaged chunks have correct checksums, so that their content is read."""
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        if place + 12 + length > len(data):
            break
        struct.pack_into(">I", data, place + 8 + length, zlib.crc32(data[place + 4 : place + 8 + length]))
        place += 12 + length
    return data
