"""Files made byte by byte, as other programs write them, which Pillow and tifffile do not write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np

from imatlas.images.formats.color import of_inks, of_lab
from tests.images.formats.tiffs import Case

H, W = 13, 19


def samples(rng: np.random.Generator, channels: int, top: int = 255) -> np.ndarray:
    values = rng.integers(0, top + 1, (H, W, channels))
    values[0, 0] = top
    return values


def bmp(rows: list[bytes], bits: int, packing: int = 0, more: bytes = b"", header: int = 40, height: int = H) -> bytes:
    """A BMP of rows given from bottom to top."""
    body = b"".join(row + bytes(-len(row) % 4) for row in rows)
    about = struct.pack("<IiiHHIIiiII", header, W, height, 1, bits, packing, len(body), 2835, 2835, 0, 0)
    about = (about + (more if header > 40 else b"")).ljust(header, b"\0") + (b"" if header > 40 else more)
    return b"BM" + struct.pack("<IHHI", 14 + len(about) + len(body), 0, 0, 14 + len(about)) + about + body


def tga(pixels: np.ndarray, bits: int, attributes: int, kind: int = 2) -> bytes:
    return struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, W, H, bits, 0x20 | attributes) + pixels.tobytes()


def psd(
    planes: np.ndarray, mode: int, bits: int, colors: bytes = b"", profile: bytes = b"", runs: bool = False
) -> bytes:
    """A PSD of planes (C, H, bytes)."""
    resource = b""
    if profile:
        resource = b"8BIM" + struct.pack(">HHI", 1039, 0, len(profile)) + profile + bytes(len(profile) % 2)
    data = b"8BPS" + struct.pack(">H6xHIIHH", 1, len(planes), H, W, bits, mode)
    for section in (colors, resource, b""):
        data += struct.pack(">I", len(section)) + section
    if not runs:
        return data + struct.pack(">H", 0) + planes.tobytes()
    packed = [b"".join(bytes([0, byte]) for byte in row.tobytes()) for plane in planes for row in plane]
    return data + struct.pack(">H", 1) + b"".join(struct.pack(">H", len(p)) for p in packed) + b"".join(packed)


def planes_of(values: np.ndarray, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(values, 2, 0)).astype(dtype).view(np.uint8)


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def inserted(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with further segments after its first two bytes."""
    return data[:2] + b"".join(segments) + data[2:]


def lossless(pixels: np.ndarray, bits: int = 8, **options: object) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=bits, **options))


def boxed(codestream: bytes, color: bytes) -> bytes:
    """A JP2 file of a codestream."""

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", len(content) + 8, kind) + content

    place = codestream.index(b"\xff\x51") + 4
    width, height = struct.unpack_from(">II", codestream, place + 2)
    (bands,) = struct.unpack_from(">H", codestream, place + 34)
    header = box(b"ihdr", struct.pack(">IIHBBBB", height, width, bands, codestream[place + 36], 7, 0, 0))
    return (
        box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + box(b"jp2h", header + box(b"colr", color))
        + box(b"jp2c", codestream)
    )  # fmt: skip


def stream(pixels: np.ndarray, bits: int) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat="j2k", bitspersample=bits, mct=False)
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(png: bytes, **chunks: bytes) -> bytes:
    """A PNG with color information."""
    return png[:33] + b"".join(chunk(kind.encode(), content) for kind, content in chunks.items()) + png[33:]


def made_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Each file once, with the expected pixels."""
    yield from _masks(rng)
    yield from _targas(rng)
    yield from _planes(rng)
    yield from _netpbm(rng)
    yield from _deep_jpegs(rng)
    yield from _stated_colors(rng)


def _masks(rng: np.random.Generator) -> Iterator[Case]:
    for bits, masks, words in (
        (16, (0xF800, 0x07E0, 0x001F), "565"), (16, (0x001F, 0x07E0, 0xF800), "565 turned round"),
        (16, (0x7C00, 0x03E0, 0x001F, 0x8000), "1555"), (16, (0x0F00, 0x00F0, 0x000F, 0xF000), "4444"),
        (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), "8888"), (32, (0x3FF00000, 0xFFC00, 0x3FF), "10 bits a color"),
    ):  # fmt: skip
        tops = np.array([mask >> ((mask & -mask).bit_length() - 1) for mask in masks])
        values = np.stack([rng.integers(0, top + 1, (H, W)) for top in tops], axis=-1)
        stored = sum(values[..., i] * (mask & -mask) for i, mask in enumerate(masks)).astype(f"<u{bits // 8}")
        deep = tops.max() > 255
        expected = np.rint(values * ((65535 if deep else 255) / tops)).astype(np.uint16 if deep else np.uint8)
        data = bmp([row.tobytes() for row in stored[::-1]], bits, 3, struct.pack(f"<{len(masks)}I", *masks), 108)
        yield Case(f"BMP, masks {words}", data, expected, len(masks) == 4, 0, None)


def _targas(rng: np.random.Generator) -> Iterator[Case]:
    rgb = samples(rng, 3).astype(np.uint8)
    bgra = np.dstack([rgb[..., ::-1], np.zeros((H, W), np.uint8)])
    yield Case("TGA, 32 bits with 0 attribute bits", tga(bgra, 32, 0), rgb, False, 0, None)
    five = samples(rng, 3, 31)
    words = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
    right = np.rint(five * (255 / 31)).astype(np.uint8)
    yield Case("TGA, 15 bits", tga(words, 15, 0), right, False, 0.03, None)
    yield Case("TGA, 16 bits", tga(words, 16, 0), right, False, 0.03, None)
    clear = np.where(np.arange(W) % 2, 255, 0).astype(np.uint8)[None].repeat(H, 0)
    data = tga(words | ((clear > 0) << 15).astype("<u2"), 16, 1)
    yield Case("TGA, 16 bits with 1 attribute bit", data, np.dstack([right, clear]), True, 0.03, None)


def _planes(rng: np.random.Generator) -> Iterator[Case]:
    for n_bytes in (1, 2):
        for channels in (1, 3):
            values = samples(rng, channels, 256**n_bytes - 1).astype(f"u{n_bytes}")
            head = struct.pack(">hBBHHHHII", 474, 0, n_bytes, 3, W, H, channels, 0, 256**n_bytes - 1).ljust(512, b"\0")
            data = head + np.moveaxis(values[::-1], 2, 0).astype(f">u{n_bytes}").tobytes()
            yield Case(f"SGI, {channels} channels of {8 * n_bytes} bits", data, values, False, 0, None)
    for runs in (False, True):
        for bits, dtype in ((8, ">u1"), (16, ">u2"), (32, ">f4")):
            for mode, (code, channels) in {"gray": (1, 1), "RGB": (3, 3), "inks": (4, 4), "Lab": (9, 3)}.items():
                if bits == 32 and mode in ("inks", "Lab"):
                    continue
                top = {8: 255, 16: 65535, 32: 1}[bits]
                values = (samples(rng, channels, 65535) * (top / 65535)).astype(np.dtype(dtype).newbyteorder("="))
                expected = values.astype(np.float32) if bits == 32 else values
                if mode == "inks":
                    expected = of_inks(~values)
                elif mode == "Lab":
                    scale = np.array([100, 256, 256]) / np.array([top, top + 1, top + 1])
                    lab = (values - np.array([0, (top + 1) // 2, (top + 1) // 2])) * scale
                    expected = np.rint(of_lab(lab) * top).astype(values.dtype)
                words = f"PSD, {mode} of {bits} bits" + ", packed" * runs
                yield Case(words, psd(planes_of(values, dtype), code, bits, runs=runs), expected, False, 0.005, None)
    black = rng.random((H, W)) > 0.5
    expected = np.where(black, 0, 255).astype(np.uint8)[..., None]
    yield Case("PSD, bitmap", psd(np.packbits(black, axis=1)[None], 0, 1), expected, False, 0, None)
    values = samples(rng, 2).astype(np.uint8)
    yield Case("PSD, gray with opacity", psd(planes_of(values, ">u1"), 1, 8), values, True, 0, None)


def _netpbm(rng: np.random.Generator) -> Iterator[Case]:
    for channels, kind in {1: "GRAYSCALE", 2: "GRAYSCALE_ALPHA", 3: "RGB", 4: "RGB_ALPHA", 6: ""}.items():
        values = samples(rng, channels).astype(np.uint8)
        words = f"WIDTH {W}\nHEIGHT {H}\nDEPTH {channels}\nMAXVAL 255\nTUPLTYPE {kind}\nENDHDR\n"
        data = f"P7\n{words}".encode() + values.tobytes()
        yield Case(f"PAM, {channels} channels", data, values, channels in (2, 4), 0, None)
    for channels in (1, 3):
        for order in "<>":
            floats = rng.random((H, W, channels)).astype(np.float32)
            head = f"P{'f' if channels == 1 else 'F'}\n{W} {H}\n{'-' * (order == '<')}1.0\n".encode()
            data = head + floats[::-1].astype(f"{order}f4").tobytes()
            yield Case(f"PFM, {channels} channels, {order}", data, floats, False, 0, None)


def _deep_jpegs(rng: np.random.Generator) -> Iterator[Case]:
    for bits in (2, 5, 8, 9, 12, 14, 16):
        for channels in (1, 3):
            dtype = np.uint8 if bits <= 8 else np.uint16
            values = samples(rng, channels, 2**bits - 1).astype(dtype)
            expected = np.rint(values * (np.iinfo(dtype).max / (2**bits - 1))).astype(dtype)
            data = lossless(values if channels == 3 else values[..., 0], bits)
            yield Case(f"JPEG, lossless of {bits} bits, {channels} channels", data, expected, False, 0, None)
            data = stream(values if channels == 3 else values[..., 0], bits)
            yield Case(f"JPEG2000, {bits} bits, {channels} channels", data, expected, False, 1.01 / 65535, None)
    values = samples(rng, 3).astype(np.uint8)
    yield Case("JPEG, JPEG-LS", bytes(imagecodecs.jpegls_encode(values)), values, False, 0, None)
    values = samples(rng, 4).astype(np.uint8)
    yield Case("JPEG, lossless inks", lossless(values), of_inks(values), False, 0, None)
    smooth = np.add.outer(np.arange(24), np.arange(31)).astype(np.uint16)[..., None]
    for bits in (10, 12):
        stored = np.repeat(smooth << (bits - 8), 3, 2)
        data = bytes(imagecodecs.avif_encode(stored, level=100, bitspersample=bits))
        yield Case(f"AVIF, {bits} bits", data, np.repeat(smooth, 3, 2).astype(np.uint8), False, 0.02, None)


def _stated_colors(rng: np.random.Generator) -> Iterator[Case]:
    """PNG with each kind of color information; sRGB is unchanged, and overrides the gamma after it."""
    values = samples(rng, 3).astype(np.uint8)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    header = struct.pack(">IIBBBBB", W, H, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    linear = values / 255
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    lit = np.rint(encoded * 255).astype(np.uint8)
    gamma = struct.pack(">I", 100000)
    for words, chunks, expected in (
        ("gamma 1", {"gAMA": gamma}, lit), ("cICP of linear light", {"cICP": bytes([1, 8, 0, 1])}, lit),
        ("sRGB and gamma", {"sRGB": b"\0", "gAMA": gamma}, values),
        ("cICP of sRGB", {"cICP": bytes([1, 13, 0, 1]), "gAMA": gamma}, values),
    ):  # fmt: skip
        yield Case(f"PNG, {words}", with_chunks(data, **chunks), expected, False, 0.009, None)
