"""Unusual JPEG and JPEG 2000: their pixels, or a reason that names the kind."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images.decode import read_picture, size_of
from imatlas.images.formats.color import of_lab
from tests.images.formats.made import boxed, inserted, lossless, segment, stream
from tests.images.formats.test_color import PROFILES, colors, expected
from tests.images.formats.test_stated_color import exif_of_a_camera
from tests.images.test_decode import saved

imagecodecs = pytest.importorskip("imagecodecs")


@pytest.mark.parametrize("bits", [2, 5, 7, 9, 12, 14, 15])
def test_lossless_depths_between_8_and_16_bits_are_scaled(bits: int, rng: np.random.Generator) -> None:
    values = rng.integers(0, 2**bits, (12, 17, 3)).astype(np.uint8 if bits <= 8 else np.uint16)
    values[0, 0] = 2**bits - 1
    picture = read_picture(lossless(values, bits))
    top = 255 if bits < 8 else 65535
    np.testing.assert_array_equal(picture.pixels(), np.rint(values * (top / (2**bits - 1))))
    assert picture.notes == [f"{bits} bits per sample, scaled to 16" if bits > 8 else f"{bits}-bit"]


def test_profile_and_orientation_of_a_lossless_jpeg_are_applied(rng: np.random.Generator) -> None:
    pixels = colors(rng)
    profile = segment(0xE2, b"ICC_PROFILE\0\1\1" + PROFILES["p3"])
    data = inserted(lossless(pixels), profile)
    assert np.abs(read_picture(data).pixels() - expected(pixels, "p3") * 255).max() <= 1.6
    adobe = inserted(lossless(pixels), segment(0xE1, b"Exif\0\0" + exif_of_a_camera(65535).removeprefix(b"Exif\0\0")))
    assert np.abs(read_picture(adobe).pixels() - expected(pixels, "adobe") * 255).max() <= 1.6
    exif = Image.Exif()
    exif[0x0112] = 6
    large = segment(0xED, bytes(65000)) * 2  # as profiles and previews are: the EXIF part lies beyond 64 KB
    far = inserted(lossless(pixels), large, segment(0xE1, b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")))
    np.testing.assert_array_equal(read_picture(far).pixels(), np.rot90(pixels, -1))
    assert size_of(far) == (128, 96)


def test_cmyk_of_a_jpeg_is_inverted_only_with_adobes_marker(rng: np.random.Generator) -> None:
    inks = np.concatenate([colors(rng), colors(rng)[..., :1]], axis=2)
    light = 1 - inks / 255.0
    right = light[..., :3] * light[..., 3:] * 255
    mark = segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0))
    assert np.abs(read_picture(lossless(inks)).pixels() - right).max() <= 1
    assert np.abs(read_picture(inserted(lossless(255 - inks), mark)).pixels() - right).max() <= 1
    usual = saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=98)
    start = usual.index(b"\xff\xee")
    unmarked = usual[:start] + usual[start + 2 + int.from_bytes(usual[start + 2 : start + 4], "big") :]
    inverse = inks / 255.0  # the file holds them inverted, and does not say so
    for data, wanted in ((usual, right), (unmarked, inverse[..., :3] * inverse[..., 3:] * 255)):
        picture = read_picture(data)
        assert picture.kind.channels == 3
        assert not picture.kind.alpha
        assert np.median(np.abs(picture.pixels() - wanted)) <= 3
    deep = read_picture(lossless(inks.astype(np.uint16) * 16, 12))
    assert deep.kind == (3, False, "uint16")
    assert np.abs(deep.pixels() / 257 - right).max() <= 2


def test_jpeg_ls_is_read_or_named(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    data = bytes(imagecodecs.jpegls_encode(pixels))
    np.testing.assert_array_equal(read_picture(data).pixels(), pixels)
    assert size_of(data) == (20, 30)
    two = lossless(np.ascontiguousarray(pixels[..., :2]))
    assert read_picture(two).kind == (2, False, "uint8")
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(DecodeError, match=r"JPEG-LS of 8 bits needs an optional dependency.*imatlas\[codecs\]"):
        read_picture(data)
    with pytest.raises(DecodeError, match=r"2 components needs an optional dependency"):
        read_picture(two)


def test_a_jpeg_with_its_height_after_the_pixels_is_read() -> None:
    pixels = np.add.outer(np.arange(40), np.arange(48)).astype(np.uint8)
    data = bytearray(saved(Image.fromarray(pixels), "JPEG", quality=98))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 7] = b"\0\0"
    with pytest.raises(DecodeError, match="without a height"):
        read_picture(bytes(data))
    behind = bytes(data[:-2]) + b"\xff\xdc\0\4" + struct.pack(">H", 40) + b"\xff\xd9"
    assert np.abs(read_picture(behind).pixels()[..., 0].astype(int) - pixels).max() <= 4
    assert size_of(behind) == (40, 48)


@pytest.mark.parametrize("size", [(40, 48), (37, 51)])
def test_a_jpeg_without_end_marker_is_read_unless_pixels_are_missing(size: tuple[int, int]) -> None:
    y, x = np.mgrid[: size[0], : size[1]]
    pixels = np.stack([x * 5, y * 5, x + y], axis=-1).astype(np.uint8)
    data = saved(Image.fromarray(pixels), "JPEG", quality=95)
    picture = read_picture(data[:-2])
    np.testing.assert_array_equal(picture.pixels(), read_picture(data).pixels())
    assert picture.notes == ["its last two bytes, which mark the end, are missing"]
    for missing in (6, 20, 100):
        with pytest.raises(DecodeError, match="truncated"):
            read_picture(data[:-missing])
    with pytest.raises(DecodeError, match="truncated"):
        read_picture(saved(Image.fromarray(pixels), "JPEG", progressive=True)[:-30])


def test_the_profile_of_a_jpeg_2000_is_applied(rng: np.random.Generator) -> None:
    for dtype, bits in ((np.uint8, 8), (np.uint16, 16)):
        pixels = colors(rng, dtype)
        top = np.iinfo(dtype).max
        read = read_picture(boxed(stream(pixels, bits), b"\2\0\0" + PROFILES["p3"])).pixels()
        assert np.abs(read / top - expected(pixels, "p3")).max() <= 0.0065


def test_cie_lab_in_a_jpeg_2000_becomes_srgb(rng: np.random.Generator) -> None:
    lab = np.stack([rng.uniform(20, 80, (9, 12)), *rng.uniform(-20, 20, (2, 9, 12))], axis=-1)
    for dtype, bits in ((np.uint8, 8), (np.uint16, 12)):
        top = 2**bits - 1
        offsets = np.array([0, 2 ** (bits - 1), 2 ** (bits - 2) + 2 ** (bits - 3)])
        stored = np.rint(lab / [100, 170, 200] * top + offsets).astype(dtype)
        read = read_picture(boxed(stream(stored, bits), struct.pack(">BBBI", 1, 0, 0, 14))).pixels()
        assert np.abs(read / np.iinfo(read.dtype).max - of_lab(lab)).max() < 0.03


@pytest.mark.parametrize("bits", [4, 6, 9, 12, 15])
def test_gray_jpeg_2000_of_any_depth_is_scaled(bits: int) -> None:
    values = np.arange(2**bits).reshape(2 ** (bits // 2), -1).astype(np.uint8 if bits < 9 else np.uint16)
    read = read_picture(stream(values, bits)).pixels()[..., 0]
    top = 255 if bits < 9 else 65535
    assert np.abs(read - values * (top / (2**bits - 1))).max() <= 0.51


def test_signed_gray_jpeg_2000_keeps_its_values(rng: np.random.Generator) -> None:
    values = rng.integers(-2000, 2000, (16, 16)).astype(np.int16)
    picture = read_picture(bytes(imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="j2k")))
    np.testing.assert_array_equal(picture.pixels()[..., 0], values)
    assert picture.notes == ["signed 16-bit read as float32"]


def test_jpeg_2000_of_many_components_is_read_through_the_extra(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = rng.integers(0, 256, (16, 18, 5)).astype(np.uint8)
    data = stream(values, 8)
    np.testing.assert_array_equal(read_picture(data).pixels(), values)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(DecodeError, match="5 components needs an optional"):
        read_picture(data)
