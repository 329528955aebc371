"""Color information outside ICC profiles is converted to sRGB, and profiles that decoders hide."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from imatlas.images.decode import read_frames, read_picture
from imatlas.images.formats.color import profile_of_codes
from imatlas.images.formats.pillow import picture_from
from tests.images.formats.made import chunk, with_chunks
from tests.images.formats.test_color import PROFILES, colors, expected, light_of
from tests.images.test_decode import png16, saved

P3_CHROMATICITIES = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def icc(space: str) -> bytes:
    return b"x\0\0" + zlib.compress(PROFILES[space])


def encoded(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("chunks", "space"),
    [
        ({"cICP": bytes([12, 13, 0, 1])}, "p3"),
        ({"gAMA": struct.pack(">I", 45455), "cHRM": P3_CHROMATICITIES}, "p3"),
        ({"cICP": bytes([1, 13, 0, 1]), "iCCP": icc("p3")}, None),  # the first of these that is there decides
        ({"cICP": bytes([12, 13, 0, 1]), "iCCP": icc("prophoto")}, "p3"),
        ({"iCCP": icc("adobe"), "gAMA": struct.pack(">I", 100000), "cHRM": P3_CHROMATICITIES}, "adobe"),
        ({"sRGB": b"\0", "gAMA": struct.pack(">I", 100000)}, None),
        ({"gAMA": struct.pack(">I", 45455)}, None),
        ({"gAMA": struct.pack(">I", 0), "cHRM": bytes(32)}, None),
    ],
)
def test_the_precedence_of_color_chunks_in_png(
    chunks: dict[str, bytes], space: str | None, dtype: type, rng: np.random.Generator
) -> None:
    pixels = colors(rng, dtype)
    top = np.iinfo(dtype).max
    plain = png16(pixels) if dtype is np.uint16 else saved(Image.fromarray(pixels), "PNG")
    right = pixels / top if space is None else expected(pixels, space)
    picture = read_picture(with_chunks(plain, **chunks))
    assert picture.kind.dtype == dtype.__name__
    assert picture.notes == []
    assert np.abs(picture.pixels() / top - right).max() < (1e-9 if space is None else 0.006)


def test_linear_light_of_a_png_is_encoded() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    for image in (Image.fromarray(ramp), Image.fromarray(ramp).convert("RGB")):
        read = read_picture(with_chunks(saved(image, "PNG"), gAMA=struct.pack(">I", 100000))).pixels()
        assert np.abs(read[0] - encoded(ramp[0, :, None] / 255) * 255).max() <= 2
    narrow = with_chunks(saved(Image.fromarray(ramp).convert("RGB"), "PNG"), cICP=bytes([1, 13, 0, 0]))
    read = read_picture(narrow).pixels()[0, :, 0]
    assert read[16] == 0
    assert read[235] == 255
    assert abs(int(read[126]) - 128) <= 1


@pytest.mark.parametrize(("transfer", "white"), [(16, 0.5806), (18, 0.7498)])
def test_hdr_maps_diffuse_white_to_white_with_a_note(transfer: int, white: float) -> None:
    """Diffuse white is 203 cd/m²: 58% of PQ, 75% of HLG (ITU-R BT.2408, table 1)."""
    steps = np.round(np.array([0.0, white * 0.6, white, 1.0]) * 65535).astype(np.uint16)
    pixels = steps[None, :, None].repeat(3, 2).repeat(4, 0)
    picture = read_picture(with_chunks(png16(pixels), cICP=bytes([1, transfer, 0, 1])))
    read = picture.pixels()[0, :, 0] / 65535
    assert read[0] == 0
    assert 0.2 < read[1] < 0.7
    assert read[2] > 0.99
    assert read[3] > 0.9998
    assert [note for note in picture.notes if "high dynamic range" in note]


@pytest.mark.parametrize("codec", ["AVIF", "HEIC"])
def test_primaries_of_avif_and_heic_are_applied(codec: str, rng: np.random.Generator) -> None:
    pixels = colors(rng)
    if codec == "AVIF":
        data = bytearray(saved(Image.fromarray(pixels), "AVIF", quality=98, subsampling="4:4:4"))
        place = data.find(b"nclx")
        data[place + 4 : place + 6] = b"\0\x0c"
    else:
        out = BytesIO()
        options = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 6}
        pillow_heif.from_pillow(Image.fromarray(pixels)).save(
            out, quality=-1, chroma=444, save_nclx_profile=True, full_range_flag=1, **options
        )
        data = bytearray(out.getvalue())
    error = np.abs(read_picture(bytes(data)).pixels() - expected(pixels, "p3") * 255)
    assert np.median(error) <= 1.6


def test_codes_of_television_are_srgb_and_unknown_ones_change_nothing() -> None:
    for primaries, transfer in ((1, 1), (1, 6), (1, 13), (2, 2), (1, 2), (99, 99)):
        assert profile_of_codes(primaries, transfer) == (b"", None)


def exif_of_a_camera(space: int, name: str = "R03") -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = space
    exif.get_ifd(0x8769)[0xA005] = {1: name}
    return exif.tobytes()


def test_adobe_rgb_is_detected_in_exif(rng: np.random.Generator) -> None:
    pixels = colors(rng)
    for space, name, right in (
        (65535, "R03", expected(pixels, "adobe")), (65535, "R98", pixels / 255), (1, "R03", pixels / 255),
    ):  # fmt: skip
        exif = exif_of_a_camera(space, name)
        data = saved(Image.fromarray(pixels), "JPEG", quality=98, subsampling=0, exif=exif)
        assert np.median(np.abs(read_picture(data).pixels() - right * 255)) <= 1.6


def test_a_picture_in_memory_keeps_its_color_space(rng: np.random.Generator) -> None:
    pixels = colors(rng)
    png = with_chunks(saved(Image.fromarray(pixels), "PNG"), gAMA=struct.pack(">I", 100000), cHRM=P3_CHROMATICITIES)
    held = Image.open(BytesIO(png))
    np.testing.assert_array_equal(picture_from(held).pixels(), read_picture(png).pixels())
    assert "icc_profile" not in held.info  # the user's picture is as it was
    exif = exif_of_a_camera(65535)
    jpeg = saved(Image.fromarray(pixels), "JPEG", quality=98, subsampling=0, exif=exif)
    np.testing.assert_array_equal(picture_from(Image.open(BytesIO(jpeg))).pixels(), read_picture(jpeg).pixels())


def test_16_bit_alpha_is_composited_on_an_srgb_background(rng: np.random.Generator) -> None:
    pixels = np.dstack([colors(rng, np.uint16), np.zeros((96, 128), np.uint16)])
    pixels[:48, :, 3] = 65535
    data = with_chunks(png16(pixels), iCCP=icc("p3"))
    read = read_picture(data, background=(0, 200, 60)).pixels()
    np.testing.assert_array_equal(read[-1, -1], np.array([0, 200, 60]) * 257)
    assert np.abs(read[:48] / 65535 - expected(pixels[:48, :, :3], "p3")).max() < 0.005


def bmp_with_header(pixels: np.ndarray, kind: bytes, more: bytes, behind: bytes = b"") -> bytes:
    """A 24-bit BMP with a version 5 header."""
    rows = b"".join(row[:, ::-1].tobytes() + bytes(-row.size % 4) for row in pixels[::-1])
    header = struct.pack(
        "<IiiHHIIiiII", 124, pixels.shape[1], pixels.shape[0], 1, 24, 0, len(rows), 2835, 2835, 0, 0
    ) + bytes(16) + kind  # fmt: skip
    tail = struct.pack("<IIII", 4, 124 + len(rows), len(behind), 0)
    body = (header + more).ljust(108, b"\0") + tail + rows + behind
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 138) + body


def test_a_bmp_may_hold_a_profile_or_primaries(rng: np.random.Generator) -> None:
    pixels = colors(rng)
    held = bmp_with_header(pixels, b"DEBM", b"", PROFILES["p3"])
    assert np.abs(read_picture(held).pixels() - expected(pixels, "p3") * 255).max() <= 1.6
    assert (read_picture(bmp_with_header(pixels, b"BGRs", b"")).pixels() == pixels).all()
    assert (read_picture(bmp_with_header(pixels, bytes(4), b"")).pixels() == pixels).all()
    xyz = ((0.57667, 0.29734, 0.02703), (0.18556, 0.62736, 0.07069), (0.18823, 0.07529, 0.99134))  # Adobe RGB
    numbers = b"".join(struct.pack("<3I", *(round(v * 2**30) for v in column)) for column in xyz)
    calibrated = bmp_with_header(pixels, bytes(4), numbers + struct.pack("<3I", *[round(65536 * 563 / 256)] * 3))
    assert np.abs(read_picture(calibrated).pixels() - expected(pixels, "adobe") * 255).max() <= 2


def test_frames_of_a_16_bit_animation_differ_and_say_their_depth() -> None:
    frames = [np.full((5, 6, 3), value, np.uint16) for value in (3 * 257, 99 * 257, 200 * 257)]
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 5, 16, 2, 0, 0, 0))
    data += chunk(b"acTL", struct.pack(">II", 3, 0))
    for i, frame in enumerate(frames):
        rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in frame))
        data += chunk(b"fcTL", struct.pack(">IIIIIHHBB", max(0, 2 * i - 1), 6, 5, 0, 0, 1, 10, 0, 0))
        data += chunk(b"fdAT", struct.pack(">I", 2 * i) + rows) if i else chunk(b"IDAT", rows)
    data += chunk(b"IEND", b"")
    pictures = list(read_frames(data, frames="all"))
    assert [int(picture.pixels()[0, 0, 0]) for picture in pictures] == [3, 99, 200]
    assert all("16-bit, read as 8-bit" in picture.notes for picture in pictures)


def test_light_of_a_space_is_that_of_its_codes() -> None:
    """The curve of a generated profile against the formula."""
    profile, _ = profile_of_codes(12, 13)
    values = np.linspace(0, 1, 256)
    from imatlas.images.formats.color import _curves

    light, _ = _curves(profile)  # type: ignore[misc]
    assert np.abs(light[0][(values * 65535).astype(int)] - light_of(values, "p3")).max() < 1e-4


def test_deep_bmp_with_alpha_is_converted_before_compositing(rng: np.random.Generator) -> None:
    tops = np.array([1023, 1023, 1023, 3])
    values = np.dstack([rng.integers(0, 1024, (96, 128, 3)), np.zeros((96, 128), np.int64)]).astype(np.uint32)
    values[:48, :, 3] = 3
    words = sum(values[::-1, :, i] << shift for i, shift in enumerate((20, 10, 0, 30))).astype("<u4")
    rows, profile = words.tobytes(), PROFILES["p3"]
    header = struct.pack("<IiiHHIIiiII", 124, 128, 96, 1, 32, 3, len(rows), 2835, 2835, 0, 0)
    header += struct.pack("<4I", 0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000) + b"DEBM"
    body = header.ljust(108, b"\0") + struct.pack("<IIII", 4, 124 + len(rows), len(profile), 0) + rows + profile
    data = b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 138) + body
    picture = read_picture(data, background=(0, 200, 60))
    read = picture.pixels()
    np.testing.assert_array_equal(read[-1, -1], np.array([0, 200, 60]) * 257)
    opaque = np.rint(values[:48, :, :3] * (65535 / tops[:3])).astype(np.uint16)
    assert np.abs(read[:48] / 65535 - expected(opaque, "p3")).max() < 0.005
    assert picture.notes[0] == "10 bits per sample, scaled to 16"
