"""Files made byte by byte, as other programs write them: BMP by masks, TGA, SGI, PSD, PAM and PFM."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images.decode import read_picture, size_of
from imatlas.images.formats.color import of_inks, of_lab
from tests.images.formats.made import H, W, bmp, planes_of, psd, samples, tga
from tests.images.formats.profiles import DISPLAY_P3, SRGB_CURVE, matrix_profile
from tests.images.formats.test_color import expected

P3 = matrix_profile(DISPLAY_P3, SRGB_CURVE)


@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF800, 0x07E0, 0x001F)), (16, (0x001F, 0x07E0, 0xF800)), (16, (0x0F00, 0x00F0, 0x000F)),
        (16, (0x7C00, 0x03E0, 0x001F, 0x8000)), (16, (0x0F00, 0x00F0, 0x000F, 0xF000)), (16, (0xE0, 0x1C, 0x03)),
        (32, (0xFF0000, 0xFF00, 0xFF)), (32, (0xFF, 0xFF00, 0xFF0000)), (32, (0xFF000000, 0xFF0000, 0xFF00)),
        (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)), (32, (0x3FF00000, 0xFFC00, 0x3FF)),
    ],
)  # fmt: skip
def test_bmp_of_any_masks(bits: int, masks: tuple[int, ...], rng: np.random.Generator) -> None:
    shifts = [(mask & -mask).bit_length() - 1 for mask in masks]
    tops = [mask >> shift for mask, shift in zip(masks, shifts, strict=True)]
    values = np.stack([rng.integers(0, top + 1, (H, W)) for top in tops], axis=-1)
    words = sum(values[..., i] << shift for i, shift in enumerate(shifts)).astype(f"<u{bits // 8}")
    deep = max(tops[:3]) > 255
    right = np.rint(values * ((65535 if deep else 255) / np.array(tops)))
    packed_masks = struct.pack(f"<{len(masks)}I", *masks)
    up = [row.tobytes() for row in words[::-1]]
    files = [bmp(up, bits, 3, packed_masks, 108), bmp(up[::-1], bits, 3, packed_masks, 124, -H)]
    files.append(bmp(up, bits, 6 if len(masks) == 4 else 3, packed_masks))
    for data in files:
        picture = read_picture(data)
        np.testing.assert_array_equal(picture.pixels(), right)
        assert picture.kind == (len(masks), len(masks) == 4, "uint16" if deep else "uint8")
        assert picture.notes == (["10 bits per sample, scaled to 16"] if deep else [])
        assert size_of(data) == (H, W)
        with pytest.raises(DecodeError, match="truncated"):
            read_picture(data[:-40])


def test_run_length_encoded_bmp_may_omit_its_last_rows() -> None:
    palette = b"".join(bytes([i, 255 - i, i // 2, 0]) for i in range(256))
    runs = b"\x02\x05\x00\x02\x03\x01\x04\x07\x00\x01"  # two of color 5; three right, one up; four of color 7; end
    index = np.zeros((H, W), int)
    index[-1, :2], index[-2, 5:9] = 5, 7
    data = bmp([runs], 8, 1, palette)
    colors = np.frombuffer(palette, np.uint8).reshape(256, 4)[:, 2::-1]
    np.testing.assert_array_equal(read_picture(data).pixels(), colors[index])


def test_bmp_of_old_and_rare_kinds_is_read_or_named(rng: np.random.Generator) -> None:
    palette = b"".join(bytes([i, 255 - i, i // 2, 0]) for i in range(256))
    index = samples(rng, 1).astype(np.uint8)[..., 0]
    rows = b"".join(row.tobytes() + bytes(-W % 4) for row in index[::-1])
    short = b"BM" + struct.pack("<IHHI", 0, 0, 0, 30 + 1024) + struct.pack("<IIIHH", 16, W, H, 1, 8) + palette + rows
    colors = np.frombuffer(palette, np.uint8).reshape(256, 4)[:, 2::-1]
    np.testing.assert_array_equal(read_picture(short).pixels(), colors[index])
    assert size_of(short) == (H, W)
    row = [bytes(W * 8)] * H
    for data, words in (
        (bmp(row, 64), r"depth \(64\)"), (bmp(row, 2), r"depth \(2\)"), (bmp(row, 0, 4), "contains a JPEG"),
        (bmp(row, 0, 5), "contains a PNG"), (bmp(row, 24, 4, header=64), r"compression \(4\)"),
        (bmp(row, 16, 3, struct.pack("<3I", 0x5000, 0xF0, 0xF)), "masks 5000, f0, f"),
    ):  # fmt: skip
        with pytest.raises(DecodeError, match=words) as caught:
            read_picture(data)
        assert "damaged" not in str(caught.value)
        assert "export it" in str(caught.value)


def test_alpha_of_a_tga_depends_on_its_attribute_bits(rng: np.random.Generator) -> None:
    rgb = samples(rng, 3).astype(np.uint8)
    for fourth in (0, 77):
        bgra = np.dstack([rgb[..., ::-1], np.full((H, W), fourth, np.uint8)])
        np.testing.assert_array_equal(read_picture(tga(bgra, 32, 0), name="a.tga").pixels(), rgb)
        kept = read_picture(tga(bgra, 32, 8), name="a.tga").pixels()
        np.testing.assert_array_equal(kept, np.dstack([rgb, np.full((H, W), fourth)]))
    five = samples(rng, 3, 31)
    words = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
    opaque = np.arange(W) % 2 == 0
    right = five * 255 / 31
    for bits in (15, 16):
        data = tga(words, bits, 0)
        assert np.abs(read_picture(data, name="a.tga").pixels() - right).max() < 8
        assert size_of(data, name="a.tga") == (H, W)
    read = read_picture(tga(words | (opaque << 15).astype("<u2"), 16, 1), name="a.tga").pixels()
    np.testing.assert_array_equal(read[..., 3], np.broadcast_to(opaque * 255, (H, W)))
    assert np.abs(read[..., :3] - right).max() < 8


def test_a_tga_is_detected_by_its_footer(rng: np.random.Generator) -> None:
    rgb = samples(rng, 3).astype(np.uint8)
    data = tga(rgb[..., ::-1], 24, 0) + bytes(8) + b"TRUEVISION-XFILE.\0"
    np.testing.assert_array_equal(read_picture(data, name="a.png").pixels(), rgb)


@pytest.mark.parametrize("n_bytes", [1, 2])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sgi_keeps_its_depth(n_bytes: int, channels: int, rng: np.random.Generator) -> None:
    top = 256**n_bytes - 1
    values = samples(rng, channels, top)
    if channels in (2, 4):
        values[..., -1] = top
    head = struct.pack(">hBBHHHHII", 474, 0, n_bytes, 3 if channels > 1 else 2, W, H, channels, 0, top).ljust(
        512, b"\0"
    )
    data = head + np.moveaxis(values[::-1], 2, 0).astype(f">u{n_bytes}").tobytes()
    picture = read_picture(data)
    flat = n_bytes == 2 and channels in (2, 4)
    np.testing.assert_array_equal(picture.pixels(), values[..., :-1] if flat else values)
    assert picture.kind.dtype == f"uint{8 * n_bytes}"
    assert picture.notes == []
    with pytest.raises(DecodeError, match="truncated"):
        read_picture(data[:-9])


def test_run_length_encoded_16_bit_sgi_keeps_its_depth_or_has_a_note(rng: np.random.Generator) -> None:
    for channels in (1, 3):
        values = samples(rng, channels, 65535)
        rows = [
            struct.pack(">H", 0x80 | W) + row.astype(">u2").tobytes() + b"\0\0"
            for row in values[::-1].transpose(2, 0, 1).reshape(-1, W)
        ]
        head = struct.pack(">hBBHHHHII", 474, 1, 2, 3 if channels > 1 else 2, W, H, channels, 0, 65535).ljust(
            512, b"\0"
        )
        starts = [512 + 8 * len(rows) + i * len(rows[0]) for i in range(len(rows))]
        table = struct.pack(f">{2 * len(rows)}I", *starts, *[len(rows[0])] * len(rows))
        picture = read_picture(head + table + b"".join(rows))
        if picture.kind.dtype == "uint16":
            np.testing.assert_array_equal(picture.pixels(), values)
        else:
            np.testing.assert_array_equal(picture.pixels(), values >> 8)
            assert picture.notes == ["16-bit, read as 8-bit"]


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_psd_of_every_depth(bits: int, runs: bool, rng: np.random.Generator) -> None:
    dtype = {8: ">u1", 16: ">u2", 32: ">f4"}[bits]
    top = {8: 255, 16: 65535, 32: 1}[bits]
    for channels, mode in ((1, 1), (3, 3), (5, 3)):
        values = samples(rng, channels, 65535) * (top / 65535)
        values = values if bits == 32 else np.rint(values)
        picture = read_picture(psd(planes_of(values, dtype), mode, bits, runs=runs))
        np.testing.assert_allclose(picture.pixels(), values[..., :3], rtol=1e-6)
        assert picture.kind.dtype == {8: "uint8", 16: "uint16", 32: "float32"}[bits]
    data = psd(planes_of(values, dtype), 3, bits, runs=runs)
    assert size_of(data) == (H, W)
    with pytest.raises(DecodeError, match="truncated"):
        read_picture(data[:-9])


def test_psd_of_every_mode(rng: np.random.Generator) -> None:
    values = samples(rng, 4).astype(np.uint8)
    for mode, channels in ((1, 2), (3, 4)):
        picture = read_picture(psd(planes_of(values[..., :channels], ">u1"), mode, 8))
        np.testing.assert_array_equal(picture.pixels(), values[..., :channels])
        assert picture.kind.alpha
    inks = read_picture(psd(planes_of(255 - values, ">u1"), 4, 8))
    np.testing.assert_array_equal(inks.pixels(), of_inks(values))
    black = rng.random((H, W)) > 0.5
    bits = np.packbits(black, axis=1)[None]
    np.testing.assert_array_equal(read_picture(psd(bits, 0, 1)).pixels()[..., 0], np.where(black, 0, 255))
    palette = rng.integers(0, 256, (3, 256)).astype(np.uint8)
    indexed = read_picture(psd(planes_of(values[..., :1], ">u1"), 2, 8, palette.tobytes()))
    np.testing.assert_array_equal(indexed.pixels(), palette.T[values[..., 0]])
    lab = np.dstack([values[..., 0] / 255 * 100, values[..., 1:3] // 4 - 32.0])
    stored = np.dstack([values[..., :1], values[..., 1:3] // 4 + 96])
    np.testing.assert_allclose(read_picture(psd(planes_of(stored, ">u1"), 9, 8)).pixels(), of_lab(lab) * 255, atol=1)
    with pytest.raises(DecodeError, match="Multichannel"):
        read_picture(psd(planes_of(values, ">u1"), 7, 8))
    rgb = values[..., :3]
    read = read_picture(psd(planes_of(rgb, ">u1"), 3, 8, profile=P3)).pixels()
    assert np.abs(read - expected(rgb, "p3") * 255).max() <= 1.6


@pytest.mark.parametrize("top", [1, 255, 1000, 65535])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_pam_of_any_channels(channels: int, top: int, rng: np.random.Generator) -> None:
    values = samples(rng, channels, top)
    alpha = channels in (2, 4)
    if alpha:
        values[..., -1] = top
    kind = {1: "GRAYSCALE", 2: "GRAYSCALE_ALPHA", 3: "RGB", 4: "RGB_ALPHA"}.get(channels, "")
    head = f"P7\n# a remark\nWIDTH {W}\nHEIGHT {H}\nDEPTH {channels}\nMAXVAL {top}\nTUPLTYPE {kind}\nENDHDR\n".encode()
    data = head + values.astype(">u2" if top > 255 else "u1").tobytes()
    picture = read_picture(data)
    full = 65535 if top > 255 else 255
    right = np.rint(values * (full / top))
    flat = alpha and full == 65535
    np.testing.assert_array_equal(picture.pixels(), right[..., :-1] if flat else right)
    assert picture.kind.alpha == (alpha and not flat)
    assert size_of(data) == (H, W)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("channels", [1, 3])
def test_pfm_of_gray_and_color(channels: int, order: str, rng: np.random.Generator) -> None:
    values = rng.normal(size=(H, W, channels)).astype(np.float32)
    head = f"P{'F' if channels == 3 else 'f'}\n{W} {H}\n{'-' if order == '<' else ''}1.0\n".encode()
    data = head + values[::-1].astype(f"{order}f4").tobytes()
    np.testing.assert_array_equal(read_picture(data).pixels(), values)
    assert size_of(data) == (H, W)
    remark = b"P5#without a blank\n" + f"{W} {H}\n255\n".encode() + bytes(range(H * W % 256)) + bytes(H * W)
    assert read_picture(remark).kind == (1, False, "uint8")


def test_unsupported_files_are_not_called_damaged() -> None:
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, "DDS")
    data = bytearray(out.getvalue())
    data[80:88] = struct.pack("<I4s", 4, b"\x74\0\0\0")  # four floats a pixel
    with pytest.raises(DecodeError, match=r"an unsupported kind of DDS file.*export it"):
        read_picture(bytes(data))
