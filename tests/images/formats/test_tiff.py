"""TIFF: every combination that tifffile writes is read with the values that were written, or has a reason."""

from __future__ import annotations

import subprocess
import sys
import zlib
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images.decode import read_frames, read_picture, size_of
from imatlas.images.picture import Aim
from tests.images.formats.tiffs import Case, cases, difference
from tests.images.test_decode import saved, tiff

SHARE = 0.12
"""Of the 12,002 combinations; `python tools/formats.py` tests all."""


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_pixels_are_those_that_were_written() -> None:
    tried, wrong = 0, []
    for case in cases(seed=3, share=SHARE):
        tried += 1
        fault = difference(case)
        wrong += [f"{case.name}: {fault}"] if fault else []
    assert tried > 600
    assert wrong == []


def test_codecs_of_a_missing_extra_are_named() -> None:
    """In a process that cannot import it."""
    script = """
import sys
sys.modules["imagecodecs"] = None
sys.path.insert(0, ".")
from imatlas.errors import DecodeError
from imatlas.images.decode import read_picture
for path in sys.argv[1:]:
    try:
        print("read", read_picture(open(path, "rb").read()).pixels().shape)
    except DecodeError as error:
        print(error)
"""
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    files = {name: tiff(values, compression=name) for name in ("jpeg2000", "lerc", "png", "lzw", "zstd", "packbits")}
    files["webp"] = tiff(
        (values // 256).astype(np.uint8)[..., None].repeat(3, 2), compression="webp", photometric="rgb"
    )
    files["jpeg 12"] = _deep_jpeg(values // 16)
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, data in enumerate(files.values()):
            paths.append(f"{folder}/{i}")
            Path(paths[-1]).write_bytes(data)
        done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
    output = dict(zip(files, done.stdout.splitlines(), strict=True))
    for name in ("lzw", "zstd", "packbits"):
        assert output[name] == "read (8, 8, 1)"
    for name, codec in {
        "jpeg2000": "JPEG2000",
        "lerc": "LERC",
        "png": "PNG",
        "webp": "WEBP",
        "jpeg 12": "JPEG",
    }.items():
        assert codec in output[name]
        assert "pip install 'imatlas[codecs]'" in output[name]
    assert "12 bits" in output["jpeg 12"]
    assert "16 bits" in output["lerc"]


def _deep_jpeg(values: np.ndarray, **options: object) -> bytes:
    from imagecodecs import jpeg8_encode

    return jpeg8_encode(values.astype(np.uint16), bitspersample=12, **options)


def test_jpeg_of_12_bits_or_without_loss_is_read_through_the_extra(rng: np.random.Generator) -> None:
    smooth = (np.add.outer(np.arange(40), np.arange(56)) * 40).astype(np.uint16)
    picture = read_picture(_deep_jpeg(smooth, level=98))
    assert picture.kind.dtype == "uint16"
    assert picture.notes == ["12 bits per sample, scaled to 16"]
    assert np.abs(picture.pixels()[..., 0] - smooth * (65535 / 4095)).max() < 256
    exact = _deep_jpeg(rng.integers(0, 4096, (40, 56, 3)), lossless=True)
    assert size_of(exact) == (40, 56)
    assert read_picture(exact).pixels().shape == (40, 56, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    block = b"Exif\0\0" + exif.tobytes()[6:] if exif.tobytes().startswith(b"Exif") else b"Exif\0\0" + exif.tobytes()
    turned = exact[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + exact[2:]
    assert size_of(turned) == (56, 40)
    np.testing.assert_array_equal(read_picture(turned).pixels(), np.rot90(read_picture(exact).pixels(), -1))


def pages(*given: tuple[np.ndarray, dict[str, object]]) -> bytes:
    out = BytesIO()
    with tifffile.TiffWriter(out) as writer:
        for array, options in given:
            writer.write(array, metadata=None, contiguous=False, **options)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_reduced_copies_and_masks_are_not_pictures(dtype: type, rng: np.random.Generator) -> None:
    whole = rng.integers(0, 255, (60, 80, 3)).astype(dtype)
    second = whole[::-1].copy()
    small, mask = whole[::8, ::8].copy(), np.ones((60, 80), bool)
    data = pages(
        (small, {"photometric": "rgb", "subfiletype": 1}),
        (whole, {"photometric": "rgb"}),
        (mask, {"photometric": "mask", "subfiletype": 4}),
        (second, {"photometric": "rgb"}),
    )
    np.testing.assert_array_equal(read_picture(data).pixels(), whole)
    assert size_of(data) == (60, 80)
    frames = [picture.pixels() for picture in read_frames(data, frames="all")]
    np.testing.assert_array_equal(np.stack(frames), np.stack([whole, second]))
    alone = pages((small, {"photometric": "rgb", "subfiletype": 1}))
    np.testing.assert_array_equal(read_picture(alone).pixels(), small)


@pytest.mark.parametrize("packing", [None, "lzw", "zlib"])
def test_an_undeclared_fourth_sample_is_alpha_if_it_looks_like_it(
    packing: str | None, rng: np.random.Generator
) -> None:
    colors = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    shape = np.full((30, 40, 1), 255, np.uint8)
    options = {"photometric": "rgb", "extrasamples": ["unspecified"], "compression": packing}
    opaque = read_picture(tiff(np.dstack([colors, shape]), **options))
    assert opaque.kind.alpha
    assert "alpha" in opaque.notes[0]
    empty = read_picture(tiff(np.dstack([colors, 0 * shape]), **options))  # it would hide all
    np.testing.assert_array_equal(empty.pixels(), colors)
    infrared = read_picture(tiff(np.dstack([colors, colors[..., 1]]), **options))
    assert (infrared.kind.channels, infrared.kind.alpha) == (4, False)


@pytest.mark.parametrize("packing", ["lzw", "zlib", None])
def test_a_large_deep_tiff_is_reduced_while_it_is_read(packing: str | None) -> None:
    y, x = np.mgrid[:3000, :4200].astype(np.uint16)
    deep = np.stack([x * 15, y * 20, x + y], axis=-1)
    picture = read_picture(tiff(deep, photometric="rgb", compression=packing, rowsperstrip=64), aim=Aim(60, 60, "crop"))
    assert picture.scale > 1
    small = picture.fitted(60, 60, "stretch", (255, 255, 255)).astype(float)
    assert np.abs(small[30, :, 0] - np.linspace(35, 4165, 60) * 15).max() < 400


def test_palettes_are_not_averaged(rng: np.random.Generator) -> None:
    """A large palette picture is reduced by its colors, not its indices."""
    index = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (2100, 2100))
    colormap = np.zeros((3, 256), np.uint16)
    colormap[:, 255] = 65535
    colormap[0, 128] = 65535  # the mean of the numbers is red, the mean of the colors gray
    data = tiff(index, photometric="palette", colormap=colormap, planarconfig="contig", compression="zstd")
    small = read_picture(data, aim=Aim(32, 32, "crop")).fitted(32, 32, "crop", (255, 255, 255))
    assert np.abs(small.astype(int) - 127).max() <= 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"photometric": "cfa", "extratags": [(33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True)]},
            "raw",
        ),
    ],
)
def test_unsupported_options_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        read_picture(tiff(np.zeros((8, 8), np.uint16), **options))


def test_a_case_can_fail() -> None:
    """The comparison detects one value of one pixel."""
    case = next(case for case in cases(seed=1, share=0.2) if not case.tolerance and "rgb, infrared" in case.name)
    other = case.expected.copy()
    other[3, 4, 0] = 0 if other[3, 4, 0] else 1
    assert difference(case) == ""
    assert difference(Case(case.name, case.data, other, case.alpha, case.tolerance, case.packing))


def test_bit_depths_below_8_are_scaled_to_255() -> None:
    for n_bits in (1, 2, 4):
        values = np.arange(2**n_bits, dtype=np.uint8)[None].repeat(4, 0)
        data = tiff(
            values.astype(bool) if n_bits == 1 else values,
            bitspersample=None if n_bits == 1 else n_bits,
            photometric="minisblack",
        )
        read = read_picture(data).pixels()[..., 0]
        np.testing.assert_array_equal(read, values * (255 // (2**n_bits - 1)))
    assert read_picture(saved(Image.new("1", (4, 4), 1), "TIFF")).pixels().min() == 255


def test_a_damaged_png_inside_a_tiff_is_reported_without_output(rng, capfd):
    """libpng prints errors to the terminal, so embedded PNG are checked before."""
    out = BytesIO()
    tifffile.imwrite(out, rng.integers(0, 256, (40, 30, 3), np.uint8), photometric="rgb", compression="png")
    content = bytearray(out.getvalue())
    assert read_picture(bytes(content)).pixels().shape == (40, 30, 3)
    start, end = content.index(b"IDAT"), content.index(b"IEND") - 4
    for place in (start + 40, end - 6, end - 2):  # in the pixels, in their own checksum, in that of the chunk
        damaged = content.copy()
        damaged[place] ^= 255
        with pytest.raises(DecodeError):
            read_picture(bytes(damaged))
    damaged = content.copy()  # pixels that are wrong while the checksum of their chunk is right
    damaged[end - 6] ^= 255
    damaged[end - 4 : end] = zlib.crc32(damaged[start : end - 4]).to_bytes(4, "big")
    with pytest.raises(DecodeError):
        read_picture(bytes(damaged))
    assert capfd.readouterr() == ("", "")
