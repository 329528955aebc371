"""Unusual depths and alpha, and files whose names or brands are misleading."""

from __future__ import annotations

import gzip
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageDraw

from imatlas.errors import DecodeError
from imatlas.images.dataset import Images
from imatlas.images.decode import read_frames, read_picture
from imatlas.images.formats.sniff import format_of
from imatlas.images.pixels import rgb_view
from imatlas.images.spec import ImageSpec
from imatlas.tasks.duplicates.gallery import Gallery
from imatlas.tasks.duplicates.groups import find_duplicates
from tests.images.test_decode import saved

RNG = np.random.default_rng(5)


def png(samples: np.ndarray, depth: int, color: int, clear: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG of integer samples (H, W, C), with a transparent value."""
    height, width = samples.shape[:2]

    def rows(part: np.ndarray) -> bytes:
        if depth == 16:
            return b"".join(b"\0" + row.astype(">u2").tobytes() for row in part)
        bits = np.unpackbits(part.astype(np.uint8).reshape(len(part), -1, 1), axis=2)[:, :, 8 - depth :]
        return b"".join(b"\0" + np.packbits(row.reshape(-1)).tobytes() for row in bits)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in passes] if interlaced else [samples]
    content = b"".join(rows(part) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    middle = chunk(b"tRNS", clear) if clear else b""
    packed = chunk(b"IDAT", zlib.compress(content))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + packed + chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("color", [0, 2])
def test_the_transparent_value_of_16_bit_png(color: int, interlaced: bool) -> None:
    channels = 3 if color == 2 else 1
    samples = RNG.integers(0, 60000, (12, 17, channels), dtype=np.uint16)
    samples[3:6, 4:9] = 1234
    samples[0, 0] = 1235  # one apart is not clear
    data = png(samples, 16, color, struct.pack(f">{channels}H", *[1234] * channels), interlaced)
    expected = np.where((samples == 1234).all(-1, keepdims=True), 65535, samples)
    picture = read_picture(data)
    np.testing.assert_array_equal(picture.pixels(), expected)
    blue = read_picture(data, background=(0, 0, 255)).pixels()
    gray = round(0.114 * 65535)
    assert np.abs(blue[4, 5].astype(int) - ([0, 0, 65535] if channels == 3 else [gray])).max() <= 1


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_the_transparent_value_of_gray_png_of_few_bits(depth: int, interlaced: bool) -> None:
    samples = RNG.integers(0, 2**depth, (12, 17, 1))
    value = min(1, 2**depth - 1)
    picture = read_picture(png(samples, depth, 0, struct.pack(">H", value), interlaced))
    np.testing.assert_array_equal(picture.pixels()[..., 1], np.where(samples[..., 0] == value, 0, 255))
    np.testing.assert_array_equal(picture.pixels()[..., 0], samples[..., 0] * (255 // (2**depth - 1)))


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_jpeg2000_keeps_white(bits: int) -> None:
    from imagecodecs import jpeg2k_encode

    top = 2**bits - 1
    samples = RNG.integers(0, top + 1, (20, 30, 3)).astype(np.uint16)
    samples[:4] = top
    data = jpeg2k_encode(samples, level=0, reversible=True, bitspersample=bits, codecformat="jp2")
    expected = np.rint(samples * (65535 / top))
    assert np.abs(read_picture(data).pixels() - expected).max() <= 1


@pytest.mark.parametrize("brand", [b"mif1", b"msf1", b"miaf"])
def test_avif_is_detected_by_any_of_its_brands(brand: bytes) -> None:
    pixels = np.full((16, 24, 3), (200, 40, 90), np.uint8)
    data = bytearray(saved(Image.fromarray(pixels), "AVIF", quality=95))
    data[8:12] = brand
    assert np.abs(read_picture(bytes(data), name="photo.heic").pixels().astype(int) - pixels).max() < 8


@pytest.mark.parametrize(("brand", "others"), [(b"mif1", 30), (b"MA1B", 0)])
def test_avif_is_detected_by_a_late_brand(brand: bytes, others: int) -> None:
    data = saved(Image.new("RGB", (16, 24), (200, 40, 90)), "AVIF", quality=95)
    end = int.from_bytes(data[:4], "big")
    brands = b"mif1" * others + b"avif"
    longer = struct.pack(">I4s4s4x", 16 + len(brands), b"ftyp", brand) + brands
    # Where the pixels lie is counted from the first byte.
    by = len(longer) - end
    place = data.index(b"iloc") + 4
    item = data[place:].find(struct.pack(">I", data.index(b"mdat") + 4)) + place
    moved = bytearray(data)
    moved[item : item + 4] = struct.pack(">I", data.index(b"mdat") + 4 + by)
    assert read_picture(longer + bytes(moved[end:]), name="a.heic").kind == (3, False, "uint8")


def test_avif_and_heic_of_more_than_8_bits_have_a_note() -> None:
    from imagecodecs import avif_encode

    smooth = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint16)
    for bits in (10, 12):
        data = bytes(avif_encode(np.dstack([smooth << (bits - 8)] * 3), level=100, bitspersample=bits))
        assert read_picture(data).notes == [f"{bits}-bit, read as 8-bit"]
    gray = pillow_heif.from_bytes(mode="I;16", size=(48, 32), data=(smooth * 257).tobytes())
    out = BytesIO()
    gray.save(out, quality=-1)
    picture = read_picture(out.getvalue())
    assert picture.kind.dtype == "uint16"
    assert picture.notes == []


def test_all_pictures_of_a_heic_are_its_frames() -> None:
    heif = pillow_heif.HeifFile()
    values = (10, 90, 200)
    for value in values:
        heif.add_from_pillow(Image.new("RGB", (64, 48), (value, value, value)))
    out = BytesIO()
    heif.save(out, quality=90)
    pictures = list(read_frames(out.getvalue(), frames="all"))
    assert [abs(int(picture.pixels()[0, 0, 0]) - value) <= 2 for picture, value in zip(pictures, values, strict=True)]
    assert read_picture(out.getvalue()).notes == ["first of 3 frames"]


@pytest.mark.parametrize("reserved", [b"GIMP", b"\x01\0\0\0", b"\xff\xff\xff\xff"])
def test_reserved_bytes_of_bmp_are_ignored(reserved: bytes) -> None:
    pixels = RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    data = bytearray(saved(Image.fromarray(pixels), "BMP"))
    data[6:10] = reserved
    np.testing.assert_array_equal(read_picture(bytes(data)).pixels(), pixels)


def test_a_text_that_begins_like_a_bmp_is_not_a_bmp() -> None:
    with pytest.raises(DecodeError, match="not a picture"):
        format_of(b"BM and other letters of the alphabet", "a.txt")


@pytest.mark.parametrize("name", ["a.svg", "b.dng", "c.cr2", "d.exr", "e.jxl", "f.pdf", "g.dcm", "h"])
def test_content_overrides_the_name(name: str) -> None:
    assert format_of(saved(Image.new("RGB", (4, 4)), "JPEG"), name) == "JPEG"


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "git lfs pull"),
        (b"../../.git/annex/objects/xx/yy", "git annex get"),
        (b"\xff\x0a\x00\x00", "JPEG XL"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\x76\x2f\x31\x01", "OpenEXR"),
        (b"#?RADIANCE\n", "Radiance"),
        (b"gimp xcf v011", "XCF"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe", "vector"),
        (b'<?xml version="1.0"?>\n<svg xmlns="a">', "vector"),
        (b"<svg width='3'>", "vector"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "camera raw"),
        (b"FUJIFILMCCD-RAW 0201", "camera raw"),
        (b"\x00\x00\x00\x18ftypcrx ", "camera raw"),
        (b"\x00\x00\x00\x18ftypisom", "video"),
        (b"\x00\x00\x00\x18ftyp3gp5", "video"),
        (b"PK\x03\x04", "archive"),
        (b"<!-- one --><!-- two --><!DOCTYPE svg [<!ENTITY a '<b>'>]>\n<!--three--> <svg:svg>", "vector"),
        ('<?xml version="1.0" encoding="UTF-16"?><svg>'.encode("utf-16"), "vector"),
        (gzip.compress(b"<svg width='3'>", mtime=0), "vector"),
        (gzip.compress(bytes(344) + b"n+1\0", mtime=0), "NIfTI"),
        (gzip.compress(b"anything", mtime=0), "archive"),
        (bytes(344) + b"n+1\0", "NIfTI"),
        (b"ZISRAWFILE", "CZI"),
        (b"\xda\xce\xbe\x0a", "ND2"),
        (b"\x70\0\0\0\x10\0\0\0\x2a", "LIF"),
        (b"II\xbc\x01\x20\0\0\0", "JPEG XR"),
        (b"\0\0\x02\0\x01\0\x20\x20\0\0", "cursor"),
        (b"\xd7\xcd\xc6\x9a", "vector"),
        (b"\x01\0\0\0" + bytes(36) + b" EMF", "vector"),
        (b"/* XPM */\nstatic char", "XPM"),
        (b"#define a_width 8\n", "XBM"),
        (b"\x8aMNG\r\n\x1a\n", "MNG"),
        (b"SDPX", "DPX"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"NRRD0004\n", "NRRD"),
        (bytes(208) + b"MAP ", "MRC"),
        (b"FOVb", "camera raw"),
        (b"\x08\0\x05\0CS\x0a\0ISO_IR 100", "DICOM"),
        (b"\x08\0\0\0\x04\0\0\0", "DICOM"),
        (b"BA" + bytes(12) + b"BM", "array of bitmaps"),
    ],
)
def test_files_that_are_not_pictures_are_named(head: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        format_of(head, "a.jpg")


def _shapes(folder: Path, mode: str, color: tuple[int, ...]) -> None:
    """Six pictures of shapes on a transparent ground, each in two sizes."""
    rng = np.random.default_rng(1)
    for i in range(6):
        image = Image.new(mode, (128, 128))
        draw = ImageDraw.Draw(image)
        for _ in range(4):
            x, y, width, height = rng.integers(5, 60, 4).tolist()
            draw.ellipse([x, y, x + width, y + height], fill=color)
        image.save(folder / f"s{i}.png")
        image.resize((96, 96)).save(folder / f"s{i}-copy.png")


@pytest.mark.parametrize(
    ("mode", "color"),
    [("RGBA", (255, 255, 255, 255)), ("RGBA", (0, 0, 0, 255)), ("LA", (255, 255)), ("RGBA", (255, 255, 255, 120))],
)
def test_shapes_on_a_transparent_ground_are_visible_in_any_color(
    mode: str, color: tuple[int, ...], tmp_path: Path
) -> None:
    _shapes(tmp_path, mode, color)
    found = find_duplicates(Gallery.of(tmp_path))
    assert sorted(np.bincount(found.group).tolist()) == [2] * 6
    images = Images(tmp_path)
    assert len(set(images.records["phash"].tolist())) >= 6
    seen = rgb_view(images.pixels, images.spec)
    assert (seen.std(axis=(1, 2, 3)) > 20).all()
    Image.new("RGB", (64, 64), (9, 99, 200)).save(tmp_path / "opaque.png")  # now opacity is not kept
    mixed = Images(tmp_path)
    assert mixed.spec.channels == 3
    assert (mixed.pixels[np.array(mixed.keys) != "opaque.png"].std(axis=(1, 2, 3)) > 20).all()


def test_visible_pictures_keep_their_background() -> None:
    pixels = np.zeros((1, 8, 8, 4), np.uint8)
    pixels[0, 2:5, 2:5] = (200, 30, 30, 255)
    for under in ((255, 255, 255), (0, 0, 0), (10, 200, 30)):
        assert rgb_view(pixels, ImageSpec(8, 8, 4, alpha=True), under)[0, 0, 0].tolist() == list(under)
    empty = np.zeros((1, 8, 8, 4), np.uint8)
    assert rgb_view(empty, ImageSpec(8, 8, 4, alpha=True)).min() == 255
