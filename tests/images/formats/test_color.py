"""Other color spaces are converted to sRGB in every format; what cannot be applied is noted."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from imatlas.images.decode import read_picture
from imatlas.images.formats.color import of_lab
from imatlas.images.formats.pillow import picture_from
from imatlas.images.picture import Aim
from tests.images.formats.profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    PROPHOTO,
    SRGB,
    SRGB_CURVE,
    TO_SRGB,
    gray_profile,
    matrix_profile,
    table_profile,
)
from tests.images.test_decode import png16, saved

PROFILES = {
    "p3": matrix_profile(DISPLAY_P3, SRGB_CURVE),
    "adobe": matrix_profile(ADOBE_RGB, 563 / 256),
    "prophoto": matrix_profile(PROPHOTO, 1.8),
}


def light_of(values: np.ndarray, space: str) -> np.ndarray:
    """Linear light in 0..1 of values in 0..1."""
    if space == "p3":
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return values ** {"adobe": 563 / 256, "prophoto": 1.8}[space]


def expected(pixels: np.ndarray, space: str) -> np.ndarray:
    """sRGB in 0..1 by the published matrix between the spaces."""
    top = np.iinfo(pixels.dtype).max
    linear = np.clip(light_of(pixels / top, space) @ np.array(TO_SRGB[space]).T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def colors(rng: np.random.Generator, dtype: type = np.uint8) -> np.ndarray:
    """A picture of flat patches, which lossy codecs almost preserve."""
    patches = rng.integers(0, np.iinfo(dtype).max, (6, 8, 3), endpoint=True).astype(dtype)
    return patches.repeat(16, axis=0).repeat(16, axis=1)


def holders(image: Image.Image, profile: bytes) -> dict[str, bytes]:
    """A picture in every format that keeps a profile."""
    heic = BytesIO()
    pillow_heif.from_pillow(image).save(heic, quality=-1, chroma=444, icc_profile=profile)
    return {
        "PNG": saved(image, "PNG", icc_profile=profile),
        "TIFF": saved(image, "TIFF", icc_profile=profile),
        "TIFF, LZW": saved(image, "TIFF", icc_profile=profile, compression="tiff_lzw"),
        "WEBP": saved(image, "WEBP", icc_profile=profile, lossless=True),
        "JPEG": saved(image, "JPEG", icc_profile=profile, quality=98, subsampling=0),
        "AVIF": saved(image, "AVIF", icc_profile=profile, quality=98, subsampling="4:4:4"),
        "HEIC": heic.getvalue(),
        "JPEG2000": saved(image, "JPEG2000", icc_profile=profile),
    }


@pytest.mark.parametrize("space", PROFILES)
def test_8_bit_colors_become_srgb_in_every_format(space: str, rng: np.random.Generator) -> None:
    pixels = colors(rng)
    right = expected(pixels, space) * 255
    assert np.abs(right - pixels).max() > 45  # the error without the profile
    for name, data in holders(Image.fromarray(pixels), PROFILES[space]).items():
        if name == "JPEG2000" and "icc_profile" not in Image.open(BytesIO(data)).info:
            continue  # Pillow does not write it
        picture = read_picture(data)
        error = np.abs(picture.pixels() - right)
        lossy = name in ("JPEG", "AVIF", "HEIC")
        assert (np.median(error) if lossy else error.max()) <= 1.6, name
        assert picture.notes == [], name


def test_alpha_palettes_and_pictures_in_memory_are_converted_to_srgb(rng: np.random.Generator) -> None:
    pixels = colors(rng)
    right = expected(pixels, "p3") * 255
    clear = np.dstack([pixels, rng.integers(1, 256, pixels.shape[:2])]).astype(np.uint8)
    read = read_picture(saved(Image.fromarray(clear), "PNG", icc_profile=PROFILES["p3"])).pixels()
    np.testing.assert_array_equal(read[..., 3], clear[..., 3])
    assert np.abs(read[..., :3] - right).max() <= 1.6
    indexed = Image.fromarray(pixels).quantize(48)
    read = read_picture(saved(indexed, "PNG", icc_profile=PROFILES["p3"])).pixels()
    assert np.abs(read - expected(np.asarray(indexed.convert("RGB")), "p3") * 255).max() <= 1.6
    held = Image.open(BytesIO(saved(Image.fromarray(pixels), "PNG", icc_profile=PROFILES["p3"])))
    assert np.abs(picture_from(held).pixels() - right).max() <= 1.6


@pytest.mark.parametrize("space", PROFILES)
def test_16_bit_colors_become_srgb_with_all_their_bits(space: str, rng: np.random.Generator) -> None:
    import zlib

    pixels = colors(rng, np.uint16)
    right = expected(pixels, space) * 65535
    out = BytesIO()
    tifffile.imwrite(out, pixels, photometric="rgb", iccprofile=PROFILES[space])
    chunk = b"iCCP" + b"x\0\0" + zlib.compress(PROFILES[space])
    png = png16(pixels)
    png = png[:33] + (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[33:]
    for data in (out.getvalue(), png):
        read = read_picture(data).pixels()
        assert read.dtype == np.uint16
        assert np.abs(read - right).max() < 65535 * 0.004  # the published numbers are rounded
        assert len(np.unique(read % 257)) > 30


def test_a_profile_that_is_srgb_changes_nothing(rng: np.random.Generator) -> None:
    for pixels in (colors(rng), colors(rng, np.uint16)):
        out = BytesIO()
        tifffile.imwrite(out, pixels, photometric="rgb", iccprofile=matrix_profile(SRGB, SRGB_CURVE))
        np.testing.assert_array_equal(read_picture(out.getvalue()).pixels(), pixels)


def test_gray_becomes_srgbs_gray_by_a_profile_of_gray_or_of_color() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    linear = read_picture(saved(Image.fromarray(ramp), "PNG", icc_profile=gray_profile(1.0))).pixels()[0, :, 0]
    x = ramp[0] / 255
    right = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055) * 255
    assert np.abs(linear - right).max() <= 2
    adobe = read_picture(saved(Image.fromarray(ramp), "PNG", icc_profile=PROFILES["adobe"])).pixels()[0, :, 0]
    assert np.abs(adobe - expected(ramp[0][:, None].repeat(3, 1), "adobe")[:, 0] * 255).max() <= 2


def test_gray_of_16_bits_keeps_its_values() -> None:
    ramp = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    out = BytesIO()
    tifffile.imwrite(out, ramp, photometric="minisblack", iccprofile=gray_profile(1.0))
    np.testing.assert_array_equal(read_picture(out.getvalue()).pixels()[..., 0], ramp)


def test_cmyk_is_converted_by_its_profile(rng: np.random.Generator) -> None:
    """Corners of the CMYK cube have the colors in the profile's table."""
    bits = (np.arange(16)[:, None] >> np.arange(3, -1, -1)) & 1  # cyan varies slowest
    lab = np.column_stack([rng.uniform(20, 80, 16), rng.uniform(-20, 20, (16, 2))]).round()
    lab[0], lab[1::2] = (100, 0, 0), (0, 0, 0)  # paper, and all that has black in it
    profile = table_profile(b"CMYK", lab)
    inks = (bits * 255).astype(np.uint8).reshape(4, 4, 4).repeat(8, 0).repeat(8, 1)
    right = of_lab(lab)[None].reshape(4, 4, 3).repeat(8, 0).repeat(8, 1) * 255
    deep, flat = BytesIO(), BytesIO()
    tifffile.imwrite(deep, inks.astype(np.uint16) * 257, photometric="separated", iccprofile=profile)
    tifffile.imwrite(flat, inks, photometric="separated", iccprofile=profile, planarconfig="contig")
    assert np.abs(read_picture(flat.getvalue()).pixels() - right).max() <= 4  # a*, b* of the table are whole numbers
    assert np.abs(read_picture(deep.getvalue()).pixels() / 257 - right).max() <= 4
    jpeg = saved(Image.fromarray(inks, "CMYK"), "JPEG", icc_profile=profile, quality=98, subsampling=0)
    assert np.median(np.abs(read_picture(jpeg).pixels() - right)) <= 4


def test_a_lookup_table_profile_is_applied_to_the_upper_8_bits_with_a_note(rng: np.random.Generator) -> None:
    lab = np.column_stack([rng.uniform(20, 80, 8), rng.uniform(-20, 20, (8, 2))]).round()
    lab[0], lab[7] = (0, 0, 0), (100, 0, 0)  # black and white, between which LittleCMS stretches whatever there is
    bits = (np.arange(8)[:, None] >> np.arange(2, -1, -1)) & 1
    pixels = (bits * 65535).astype(np.uint16).reshape(2, 4, 3)
    out = BytesIO()
    tifffile.imwrite(out, pixels, photometric="rgb", iccprofile=table_profile(b"RGB ", lab))
    picture = read_picture(out.getvalue())
    assert np.abs(picture.pixels() / 257 - of_lab(lab).reshape(2, 4, 3) * 255).max() <= 4
    assert any("8 bits" in note for note in picture.notes)


def test_a_large_picture_is_converted_by_bands(rng: np.random.Generator) -> None:
    pixels = np.tile(colors(rng), (45, 35, 1))[:4200, :4100]
    data = saved(Image.fromarray(pixels), "PNG", icc_profile=PROFILES["p3"], compress_level=1)
    right = expected(pixels[:96, :128], "p3") * 255
    assert np.abs(read_picture(data).pixels()[:96, :128] - right).max() <= 1.6
    small = read_picture(data, aim=Aim(64, 64, "crop"))
    assert small.pixels().shape[0] < 4200
    mean = small.pixels().reshape(-1, 3).mean(0)
    assert np.abs(mean - (expected(pixels[::7, ::7], "p3") * 255).reshape(-1, 3).mean(0)).max() < 12


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (b"no profile at all" * 20, "color profile"),
        (PROFILES["p3"][:250], "damaged"),
        (gray_profile(2.2), "for GRAY"),
        (PROFILES["p3"] + bytes(2**22), "bytes"),
    ],
)
def test_an_unusable_profile_is_ignored_with_a_note(profile: bytes, words: str) -> None:
    pixels = np.full((8, 8, 3), (250, 40, 10), np.uint8)
    picture = read_picture(saved(Image.fromarray(pixels), "TIFF", icc_profile=profile))
    np.testing.assert_array_equal(picture.pixels(), pixels)
    assert words in " ".join(picture.notes)
