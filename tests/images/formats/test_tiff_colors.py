"""TIFF samples of old files that no library writes, and those whose meaning depends on tags."""

from __future__ import annotations

import itertools
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images.dataset import Images
from imatlas.images.decode import read_picture
from tests.images.formats.profiles import gray_profile
from tests.images.formats.test_color import PROFILES
from tests.images.formats.test_color import expected as in_srgb
from tests.images.formats.tiffs import made_by_hand
from tests.images.test_decode import png16, tiff

HEIGHT, WIDTH = 16, 20
X, Y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
RGB8 = (np.dstack([X, Y, 1 - X]) * 180 + 40).astype(np.uint8)
GRAY8 = RGB8[..., :1]
OPAQUE = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)


def packed(values: np.ndarray, bits: int) -> bytes:
    """Bit-packed integers (H, W, C), each row starting at a whole byte."""
    ones = values.reshape(len(values), -1, 1) >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(ones.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def plain(values: np.ndarray, photometric: int, bits: int = 8, body: bytes | None = None, **tags: list[int]) -> bytes:
    """A TIFF of one strip of raw samples (H, W, C)."""
    height, width, samples = values.shape
    about = {"t256": [width], "t257": [height], "t258": [bits] * samples, "t262": [photometric], "t277": [samples]}
    return made_by_hand(values.tobytes() if body is None else body, **{**about, **tags})


@pytest.mark.parametrize(("photometric", "samples"), [(1, 1), (0, 1), (2, 3)])
@pytest.mark.parametrize("bits", range(1, 16))
def test_every_bit_depth_is_scaled_to_white(bits: int, photometric: int, samples: int, rng) -> None:
    values = rng.integers(0, 2**bits, (HEIGHT, WIDTH, samples))
    values[0, 0] = 2**bits - 1
    picture = read_picture(plain(values, photometric, bits, packed(values, bits)))
    full = 255 if bits <= 8 else 65535
    expected = np.rint(values * (full / (2**bits - 1)))
    expected = full - expected if photometric == 0 else expected
    assert np.abs(picture.pixels() - expected).max() == 0
    assert picture.pixels().dtype == (np.uint8 if bits <= 8 else np.uint16)
    assert picture.notes == ([f"{bits} bits per sample, scaled to 16"] if bits > 8 else [])


@pytest.mark.parametrize("bits", [17, 20, 24, 31])
def test_bit_packed_integers_keep_their_values(bits: int, rng) -> None:
    values = rng.integers(0, 2**bits, (HEIGHT, WIDTH, 1))
    picture = read_picture(plain(values, 1, bits, packed(values, bits)))
    np.testing.assert_array_equal(picture.pixels(), values.astype(np.float32))


@pytest.mark.parametrize("dark", [False, True])
def test_one_deep_file_among_8_bit_ones_is_as_bright_as_they_are(dark: bool, tmp_path: Path) -> None:
    light = RGB8 // (4 if dark else 1)
    for i in range(7):
        Image.fromarray(light).save(tmp_path / f"a{i}.png")
    for bits in (9, 10, 12, 13, 14, 15):
        values = np.rint(light.astype(float) * ((2**bits - 1) / 255)).astype(int)
        (tmp_path / f"z{bits}.tif").write_bytes(plain(values, 2, bits, packed(values, bits)))
    images = Images(tmp_path, image_size=(HEIGHT, WIDTH))
    assert len(images) == 13
    assert images.spec.dtype == "uint8"
    apart = np.abs(images.pixels.astype(int) - images.pixels[:1])
    assert apart.max() <= 1


def _ycbcr(rgb: np.ndarray, low: float = 0, high: float = 255, half: float = 127.5) -> np.ndarray:
    r, g, b = np.moveaxis(rgb.astype(float), 2, 0)
    light = 0.299 * r + 0.587 * g + 0.114 * b
    differences = [(b - light) / 1.772, (r - light) / 1.402]
    scaled = [low + light * (high - low) / 255, *(128 + d * half / 127.5 for d in differences)]
    return np.rint(np.stack(scaled, axis=-1)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("packing", [1, 8, 32773])
@pytest.mark.parametrize("unit", [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 4)])
@pytest.mark.parametrize("size", [(16, 20), (13, 19)])
def test_subsampled_ycbcr(unit: tuple[int, int], packing: int, size: tuple[int, int]) -> None:
    across, down = unit
    samples = _ycbcr(RGB8)[: size[0], : size[1]]
    full = np.pad(samples, ((0, -size[0] % down), (0, -size[1] % across), (0, 0)), mode="edge").astype(int)
    rows = []
    for top, left in itertools.product(range(0, len(full), down), range(0, full.shape[1], across)):
        block = full[top : top + down, left : left + across]
        block[..., 1:] = block[..., 1:].mean(axis=(0, 1)).astype(int)
        rows.append(bytes([*block[..., 0].ravel().tolist(), *block[0, 0, 1:].tolist()]))
    n = full.shape[1] // across  # PackBits packs each row of units by itself
    lines = [b"".join(rows[i : i + n]) for i in range(0, len(rows), n)]
    body = {1: b"".join(lines), 8: zlib.compress(b"".join(lines)), 32773: b"".join(map(_packbits, lines))}[packing]
    data = plain(samples, 6, body=body, t259=[packing], t530=list(unit))
    got = read_picture(data).pixels()
    assert got.shape == (*size, 3)
    light, blue, red = np.moveaxis(full[: size[0], : size[1]].astype(float), 2, 0)
    green = light - (0.114 * 1.772 * (blue - 128) + 0.299 * 1.402 * (red - 128)) / 0.587
    expected = np.stack([light + 1.402 * (red - 128), green, light + 1.772 * (blue - 128)], axis=-1).clip(0, 255)
    assert np.abs(got - expected).max() <= 1


def _packbits(line: bytes) -> bytes:
    return b"".join(bytes([len(part) - 1]) + part for part in (line[i : i + 128] for i in range(0, len(line), 128)))


def test_ycbcr_of_video_range() -> None:
    samples = _ycbcr(RGB8, 16, 235, 112)
    ranges = [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1]
    got = read_picture(plain(samples, 6, t530=[1, 1], t532=ranges)).pixels()
    assert np.abs(got.astype(int) - RGB8).max() <= 3


def test_lightness_alone_and_the_lab_of_fax_machines() -> None:
    lightness = read_picture(plain(GRAY8, 8)).pixels()
    gray = read_picture(plain(np.dstack([GRAY8, 0 * GRAY8, 0 * GRAY8]), 8)).pixels()
    assert lightness.shape == (HEIGHT, WIDTH, 1)
    assert np.abs(lightness.astype(int) - gray).max() <= 2
    neutral = read_picture(plain(np.dstack([GRAY8, 0 * GRAY8 + 128, 0 * GRAY8 + 96]), 10)).pixels()
    assert np.abs(neutral.astype(int) - gray).max() <= 2


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("fill", [1, 2])
def test_palettes_of_any_depth_and_of_old_writers(bits: int, old: bool, fill: int, rng) -> None:
    table = rng.integers(0, 256, (3, 2**bits))
    table[0, 0] = 255
    index = rng.integers(0, 2**bits, (HEIGHT, WIDTH, 1))
    body = packed(index, bits) if bits < 16 else index.astype("<u2").tobytes()
    if fill == 2:
        body = bytes(int(f"{byte:08b}"[::-1], 2) for byte in body)
    colors = (table * (1 if old else 257)).ravel().tolist()
    picture = read_picture(plain(index, 3, bits, body, t320=colors, t266=[fill]))
    np.testing.assert_array_equal(picture.pixels(), table[:, index[..., 0]].transpose(1, 2, 0))


def test_a_leftover_predictor_is_not_applied() -> None:
    deep = RGB8.astype("<u2") * 257
    rows = b"".join(_packbits(row.tobytes()) for row in deep)
    for body, packing in ((deep.tobytes(), 1), (rows, 32773)):
        got = read_picture(plain(deep, 2, 16, body, t259=[packing], t317=[2])).pixels()
        np.testing.assert_array_equal(got, deep)


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
def test_missing_or_too_large_byte_counts(dtype: str) -> None:
    samples = RGB8.astype(dtype) * (257 if dtype == "<u2" else 1)
    bits = 8 * samples.itemsize
    files = [plain(samples, 2, bits, t279=[0])]
    body = zlib.compress(samples.tobytes())
    files += [plain(samples, 2, bits, body, t259=[8], t279=[len(body) + 5000])]
    for data in files:
        np.testing.assert_array_equal(read_picture(data).pixels(), samples)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("samples", [1, 3])
def test_a_missing_photometric_tag_is_inferred(samples: int, bits: int) -> None:
    values = RGB8[..., :samples].astype(f"<u{bits // 8}")
    data = plain(values, 0, bits)
    place = data.index((262).to_bytes(2, "little") + b"\3\0")
    data = data[:place] + (263).to_bytes(2, "little") + data[place + 2 :]  # another tag that nobody minds
    np.testing.assert_array_equal(read_picture(data).pixels(), values)


def test_samples_of_undefined_format_are_unsigned() -> None:
    np.testing.assert_array_equal(read_picture(plain(RGB8, 2, t339=[4, 4, 4])).pixels(), RGB8)


@pytest.mark.parametrize(("bits", "photometric"), [(8, 1), (16, 1), (8, 2), (16, 2), (8, 0), (16, 0)])
@pytest.mark.parametrize("named", [False, True])
def test_an_undeclared_last_sample_does_not_skip_a_photograph(
    bits: int, photometric: int, named: bool, tmp_path: Path
) -> None:
    colors = RGB8 if photometric == 2 else GRAY8
    samples = np.dstack([colors, OPAQUE]).astype(f"<u{bits // 8}") * (257 if bits == 16 else 1)
    (tmp_path / "a.tif").write_bytes(plain(samples, photometric, bits, **({"t338": [0]} if named else {})))
    for name in "bcd":
        (tmp_path / f"{name}.png").write_bytes(png16(RGB8.astype(np.uint16) * 257))
    images = Images(tmp_path, image_size=(HEIGHT, WIDTH))
    assert len(images) == 4
    assert images.spec.channels == 3
    expected = colors if photometric else 255 - colors
    assert np.abs(images.pixels[0].astype(int) - expected.astype(int) * 257).max() == 0


def test_a_second_channel_of_mostly_zeros_is_not_alpha(rng) -> None:
    second = np.where(rng.random((HEIGHT, WIDTH, 1)) > 0.9, rng.integers(0, 255, (HEIGHT, WIDTH, 1)), 0)
    picture = read_picture(plain(np.dstack([GRAY8, second.astype(np.uint8)]), 1))
    assert (picture.kind.channels, picture.kind.alpha) == (2, False)


@pytest.mark.parametrize(
    ("inks", "tags"), [(1, {}), (3, {}), (4, {"t332": [2]}), (4, {"t332": [2], "t333": b"Gold\0Silver\0A\0B\0"})]
)
def test_inks_of_other_colors_are_named(inks: int, tags: dict) -> None:
    with pytest.raises(DecodeError, match="other than cyan, magenta, yellow and black"):
        read_picture(plain(np.repeat(GRAY8, inks, axis=2), 5, **tags))


def test_inks_that_are_named_as_those_of_printing() -> None:
    samples = np.dstack([RGB8, GRAY8])
    names = b"Cyan\0Magenta\0Yellow\0Black\0"
    named = read_picture(plain(samples, 5, t332=[2], t333=names)).pixels()
    np.testing.assert_array_equal(named, read_picture(plain(samples, 5)).pixels())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_profile_is_applied_at_any_depth(dtype: type) -> None:
    full = {np.uint8: 1, np.uint16: 257, np.float32: np.float32(1 / 255)}[dtype]
    samples = (RGB8.astype(np.float32) * full).astype(dtype)
    expected = in_srgb(RGB8, "p3") * 255 * full
    for planar in ("contig", "separate"):
        stored = samples if planar == "contig" else np.moveaxis(samples, 2, 0)
        data = tiff(stored, photometric="rgb", planarconfig=planar, iccprofile=PROFILES["p3"], compression="lzma")
        assert np.abs(read_picture(data).pixels() - expected).max() <= 1.6 * full
    clear = np.dstack([samples, np.full((HEIGHT, WIDTH, 1), full * 255).astype(dtype)])
    data = tiff(clear, photometric="rgb", extrasamples=["unassalpha"], iccprofile=PROFILES["p3"])
    if dtype != np.float32:
        assert np.abs(read_picture(data).pixels()[..., :3] - expected).max() <= 1.6 * full


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("packing", ["zlib", "png", "lerc"])
def test_the_profile_of_gray_is_applied_whatever_its_codec(packing: str, photometric: str) -> None:
    gray, profile = GRAY8[..., 0], gray_profile(1.0)
    light = read_picture(tiff(gray, compression=packing, photometric=photometric, iccprofile=profile)).pixels()
    linear = (gray if photometric == "minisblack" else 255 - gray) / 255
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(light[..., 0] - expected).max() <= 2


def test_a_profile_of_floats_beyond_one_is_left_alone_with_a_note() -> None:
    samples = RGB8.astype(np.float32)
    picture = read_picture(tiff(samples, photometric="rgb", iccprofile=PROFILES["p3"]))
    np.testing.assert_array_equal(picture.pixels(), samples)
    assert "profile is not applied" in picture.notes[0]


@pytest.mark.parametrize("packing", [None, "lzw", "zlib", "lerc"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_nodata_values_of_gdal_become_nan(dtype: type, packing: str | None) -> None:
    heights = (GRAY8[..., 0] * 10.0).astype(dtype)
    heights[3, 4:9] = -9999
    data = tiff(heights, compression=packing, extratags=[(42113, 2, 0, "-9999", True)])
    got = read_picture(data).pixels()[..., 0]
    assert np.isnan(got[3, 4:9]).all()
    assert np.isnan(got).sum() == 5
    np.testing.assert_array_equal(np.nan_to_num(got, nan=-9999), heights)
