"""Every kind of picture is read: exact values from lossless formats, else a plain reason."""

from __future__ import annotations

import struct
import sys
import zlib
from io import BytesIO

import numpy as np
import pytest
import skimage.data
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images.decode import read_frames, read_picture, resize_pixels, size_of
from imatlas.images.encode import encode, encode_thumbnail, write_picture
from imatlas.images.formats.pillow import picture_from
from imatlas.images.picture import Aim
from imatlas.images.pixels import Kind, converted
from tests.images.corrupt import originals


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    out = BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def png16(array: np.ndarray) -> bytes:
    """A 16-bit PNG of 1 to 4 channels, which Pillow cannot write."""
    height, width, channels = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pixels_of(data: bytes, **options: object) -> np.ndarray:
    return read_picture(data, **options).pixels()


STORED = {  # where the first rows and columns of an upright [[1, 2, 3], [4, 5, 6]] lie for each orientation
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[3, 6], [2, 5], [1, 4]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[4, 1], [5, 2], [6, 3]],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "TIFF-lzw", "TIFF-16", "WEBP"])
def test_every_orientation_comes_out_upright(format: str, orientation: int) -> None:
    values = np.array(STORED[orientation], np.uint8) * 40
    exif = Image.Exif()
    exif[0x0112] = orientation
    if format == "TIFF-16":
        data = tiff(values.astype(np.uint16), extratags=[(274, "H", 1, orientation, True)])
    elif format == "TIFF-lzw":
        data = saved(Image.fromarray(values), "TIFF", exif=exif, compression="tiff_lzw")
    else:
        data = saved(Image.fromarray(values), format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    picture = read_picture(data)
    assert (picture.width, picture.height) == (3, 2)
    assert (picture.pixels()[..., 0] == np.array([[1, 2, 3], [4, 5, 6]]) * 40).all()
    assert size_of(data) == (2, 3)
    np.testing.assert_array_equal(picture.fitted(2, 3, "stretch", (0, 0, 0)), picture.pixels())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_decoded_at_reduced_scale_is_upright(orientation: int, rng: np.random.Generator) -> None:
    upright = np.asarray(Image.fromarray(rng.integers(0, 256, (5, 8, 3), np.uint8)).resize((320, 200), 3))
    turns = {1: (), 2: (0,), 3: (3,), 4: (1,), 5: (5,), 6: (2,), 7: (6,), 8: (4,)}[orientation]
    stored = Image.fromarray(upright)
    for turn in turns:
        stored = stored.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(stored, "JPEG", quality=95, exif=exif)
    picture = read_picture(data, aim=Aim(20, 32, "crop"))
    assert picture.scale == 4
    assert (picture.width, picture.height) == (320, 200)
    expected = np.asarray(Image.fromarray(upright).resize((32, 20), Image.Resampling.LANCZOS), np.float64)
    error = np.abs(picture.fitted(20, 32, "crop", (0, 0, 0)) - expected).mean()
    assert error < 2.0


def test_reduced_decoding_is_close_to_full_decoding() -> None:
    from skimage import data

    values = []
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        image = Image.fromarray(getattr(data, name)()).resize((500, 375), Image.Resampling.LANCZOS)
        content = saved(image, "JPEG", quality=88)
        quick = read_picture(content, aim=Aim(64, 64, "crop"))
        assert quick.scale == 4
        full = read_picture(content).fitted(64, 64, "crop", (0, 0, 0)).astype(np.float64)
        error = np.mean((quick.fitted(64, 64, "crop", (0, 0, 0)) - full) ** 2)
        values.append(10 * np.log10(255**2 / error))
    assert np.mean(values) >= 40.0


def test_cmyk_is_converted_with_and_without_inversion() -> None:
    red = Image.new("RGB", (16, 16), (220, 30, 20))
    for data in (saved(red.convert("CMYK"), "TIFF"), saved(red.convert("CMYK"), "JPEG", quality=95)):
        picture = read_picture(data)
        assert picture.mode == "CMYK"
        assert np.abs(picture.pixels().astype(int) - (220, 30, 20)).max() <= 3
    plain = saved(red.convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in plain[:64]  # the marker of inverted inks


def test_a_palette_with_transparency_is_rgba() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    picture = read_picture(saved(image, "PNG", transparency=1))
    assert picture.kind == Kind(4, True, "uint8")
    assert picture.pixels()[0].tolist() == [[10, 20, 30, 255], [200, 100, 50, 0]]
    assert read_picture(saved(image, "PNG")).pixels()[0].tolist() == [[10, 20, 30], [200, 100, 50]]


def test_one_bit_and_gray_with_alpha() -> None:
    bits = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    for format in ("PNG", "BMP", "TIFF", "PPM"):
        assert (pixels_of(saved(Image.fromarray(bits).convert("1"), format))[..., 0] == bits).all()
    both = np.array([[[7, 255], [9, 0]]], np.uint8)
    picture = read_picture(saved(Image.fromarray(both), "PNG"))
    assert picture.kind == Kind(2, True, "uint8")
    np.testing.assert_array_equal(picture.pixels(), both)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_png_keeps_every_bit(channels: int, rng: np.random.Generator) -> None:
    array = rng.integers(0, 65536, (5, 7, channels), np.uint16)
    picture = read_picture(png16(array))
    assert picture.kind == Kind(channels, False, "uint16")
    assert picture.notes == []
    np.testing.assert_array_equal(picture.pixels(), array)


@pytest.mark.parametrize("colors", [1, 3])
def test_16_bit_png_with_alpha_is_composited(colors: int, rng: np.random.Generator) -> None:
    array = rng.integers(0, 65536, (5, 7, colors + 1), np.uint16)
    array[0, :, -1], array[1, :, -1] = 65535, 0
    got = pixels_of(png16(array), background=(255, 0, 0))
    np.testing.assert_array_equal(got[0], array[0, :, :-1])
    assert (got[1] == ([65535, 0, 0] if colors == 3 else [round(0.299 * 65535)])).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
def test_tiff_of_any_depth_and_channels_keeps_its_values(dtype: str, channels: int, rng: np.random.Generator) -> None:
    array = rng.integers(0, 250, (6, 9, channels)).astype(dtype)
    if dtype.startswith("float"):
        array = array / np.asarray(8.0, dtype)
    for planar in ("contig", "separate"):
        for compression in (None, "zlib"):
            kind = "rgb" if channels == 3 else "minisblack"
            stored = array if planar == "contig" else array.transpose(2, 0, 1)
            options = {} if channels == 1 else {"planarconfig": planar}
            data = tiff(stored[..., 0] if channels == 1 and planar == "contig" else stored, photometric=kind,
                        compression=compression, **options)  # fmt: skip
            got = pixels_of(data)
            assert got.dtype == {"uint8": np.uint8, "uint16": np.uint16}.get(dtype, np.float32)
            np.testing.assert_array_equal(got, array.astype(got.dtype))


def test_16_bit_tiff_with_codecs_of_pillow_keeps_every_bit(rng: np.random.Generator) -> None:
    deep = rng.integers(0, 65536, (12, 9), np.uint16)
    data = saved(Image.fromarray(deep), "TIFF", compression="tiff_lzw")
    np.testing.assert_array_equal(pixels_of(data)[..., 0], deep)
    floats = rng.random((12, 9)).astype(np.float32)
    data = saved(Image.fromarray(floats), "TIFF", compression="tiff_lzw")
    np.testing.assert_array_equal(pixels_of(data)[..., 0], floats)


def test_white_is_zero_is_inverted() -> None:
    deep = np.array([[0, 65535, 1000]], np.uint16)
    np.testing.assert_array_equal(pixels_of(tiff(deep, photometric="miniswhite"))[..., 0], 65535 - deep)


def test_imagej_channels_are_channels_and_slices_are_frames(rng: np.random.Generator) -> None:
    stack = rng.integers(0, 65536, (3, 5, 8, 9), np.uint16)
    frames = list(read_frames(tiff(stack, imagej=True, metadata={"axes": "ZCYX"}), frames="all"))
    assert [f.n_frames for f in frames] == [3, 3, 3]
    for frame, planes in zip(frames, stack, strict=True):
        np.testing.assert_array_equal(frame.pixels(), planes.transpose(1, 2, 0))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_animations_give_the_first_frame_with_a_note_or_all(format: str) -> None:
    frames = [Image.new("L", (8, 6), value).convert("RGB") for value in (0, 90, 200)]
    lossless = {"lossless": True} if format == "WEBP" else {}
    data = saved(frames[0], format, save_all=True, append_images=frames[1:], **lossless)
    first = read_picture(data)
    assert (first.n_frames, first.notes) == (3, ["first of 3 frames"])
    assert first.pixels().max() == 0
    every = list(read_frames(data, frames="all"))
    assert [int(p.pixels()[0, 0, 0]) for p in every] == [0, 90, 200]
    assert [p.frame for p in every] == [0, 1, 2]
    assert all(p.notes == [] for p in every)


def test_the_format_depends_on_content_not_name(rng: np.random.Generator) -> None:
    array = rng.integers(0, 256, (4, 5, 3), np.uint8)
    picture = read_picture(encode(array, "png"), name="photo.jpg")
    assert picture.format == "PNG"
    np.testing.assert_array_equal(picture.pixels(), array)


def test_heic_is_read_with_the_extra_which_the_error_names(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 48), (200, 40, 90))
    out = BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=95)
    picture = read_picture(out.getvalue(), name="a.heic")
    assert (picture.width, picture.height, picture.format) == (64, 48, "HEIF")
    assert np.abs(picture.pixels().astype(int) - (200, 40, 90)).max() <= 4
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DecodeError, match=r"pip install 'imatlas\[heif\]'"):
        read_picture(out.getvalue(), name="a.heic")


def _bomb_png() -> bytes:
    data = bytearray(encode(np.zeros((2, 2), np.uint8), "png"))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def _big_tiff_page() -> bytes:
    data = bytearray(tiff(np.zeros((4, 4), np.uint16)))
    for tag in (256, 257):
        place = data.find(struct.pack("<HH", tag, 3))
        place = place if place >= 0 else data.find(struct.pack("<HH", tag, 4))
        data[place : place + 12] = struct.pack("<HHII", tag, 4, 1, 2**31 - 1)
    return bytes(data)


def _circular_tiff() -> bytes:
    data = bytearray(tiff(np.zeros((4, 4), np.uint16), metadata=None))
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    return bytes(data)


BAD = {
    "empty": (b"", "an empty file"),
    "zeros": (bytes(500), "only zeros"),
    "text": (b"these are words, not pixels", "not a picture"),
    "page": (b"<!DOCTYPE html><html>not found</html>", "a web page"),
    "truncated jpeg": (saved(Image.effect_noise((90, 90), 80), "JPEG")[:900], "a truncated JPEG file"),
    "truncated png": (saved(Image.effect_noise((90, 90), 80), "PNG")[:900], "a truncated PNG file"),
    "truncated bmp": (saved(Image.new("RGB", (90, 90)), "BMP")[:900], "a truncated BMP file"),
    "header only": (b"\xff\xd8\xff\xe0", "JPEG file"),
    "bomb": (_bomb_png(), "more pixels|more than the limit"),
    "absurd tiff": (_big_tiff_page(), "more than the limit"),
    "circular tiff": (_circular_tiff(), "circular"),
    "no width": (b"P5 0 5 255\n" + bytes(9), "no pixels|header cannot be read|damaged"),
    "complex tiff": (tiff(np.zeros((4, 4), np.complex64)), "complex"),
}


@pytest.mark.parametrize("name", BAD)
def test_unreadable_files_give_a_plain_reason(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(DecodeError, match=reason) as caught:
        read_picture(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("name", "reason"), [("a.svg", "vector"), ("b.NEF", "camera raw"), ("c.dcm", "DICOM")])
def test_unsupported_formats_say_what_to_do(name: str, reason: str) -> None:
    with pytest.raises(DecodeError, match=f"{reason}.*export it"):
        read_picture(b"II*\x00whatever" if name.endswith("NEF") else b"whatever", name=name)


def test_the_pixel_limit_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.new("L", (40, 50)), "PNG")
    monkeypatch.setattr("imatlas.images.limits.MAX_PIXELS", 2000)
    assert read_picture(data).width == 40
    monkeypatch.setattr("imatlas.images.limits.MAX_PIXELS", 1999)
    with pytest.raises(DecodeError, match="40 x 50 pixels"):
        read_picture(data)


def test_crop_pad_and_stretch(rng: np.random.Generator) -> None:
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 200
    picture = picture_from(wide)
    assert (picture.fitted(4, 4, "crop", (9, 9, 9)) == 200).all()
    padded = picture.fitted(8, 8, "pad", (9, 8, 7))
    assert (padded[:2] == (9, 8, 7)).all()
    assert (padded[6:] == (9, 8, 7)).all()
    np.testing.assert_array_equal(padded[2:6], wide)
    assert picture.fitted(4, 4, "stretch", (9, 9, 9))[:, 0].max() < 100
    clear = picture_from(np.full((4, 8, 4), 255, np.uint8)).fitted(8, 8, "pad", (9, 8, 7))
    assert (clear[0] == (9, 8, 7, 0)).all()
    deep = picture_from(rng.integers(500, 900, (4, 8, 1)).astype(np.uint16)).fitted(8, 8, "pad", (255, 255, 255))
    assert deep.min() == deep[0, 0, 0] >= 500


def test_deep_pictures_are_resized_without_overshoot_and_around_missing_pixels(rng: np.random.Generator) -> None:
    hot = np.full((64, 64, 1), 1000, np.uint16)
    hot[30, 30] = 60000
    small = picture_from(hot).fitted(16, 16, "crop", (0, 0, 0))
    assert small.min() == 1000
    holed = np.full((32, 32, 1), 0.5, np.float32)
    holed[:16] = np.nan
    small = picture_from(holed).fitted(8, 8, "crop", (0, 0, 0))
    assert np.isnan(small[:4]).all()
    np.testing.assert_allclose(small[4:], 0.5)


def test_resizing_equals_pillow(rng: np.random.Generator) -> None:
    array = rng.integers(0, 256, (2, 60, 40, 3), np.uint8)
    got = resize_pixels(array, 20, 16)
    for one, small in zip(array, got, strict=True):
        np.testing.assert_array_equal(small, Image.fromarray(one).resize((16, 20), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_round_trip_of_every_format(format: str, rng: np.random.Generator, tmp_path) -> None:
    for channels in (1, 3, 4):
        array = rng.integers(0, 256, (5, 6, channels), np.uint8)
        path = write_picture(tmp_path / f"a.{format}", array)
        np.testing.assert_array_equal(pixels_of(path.read_bytes()), array)
    assert [p.name for p in tmp_path.iterdir()] == [f"a.{format}"]


def test_thumbnails_are_small_files_of_the_same_picture() -> None:
    from skimage import data

    picture = picture_from(data.astronaut())
    small = read_picture(encode_thumbnail(picture.thumbnail(96)))
    assert (small.width, small.height, small.format) == (96, 96, "JPEG")
    assert np.abs(small.pixels().astype(int) - picture.thumbnail(96)).mean() < 6


def images_of(dtype: type, channels: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.integers(1, 12), st.integers(1, 12), channels)
    elements = st.floats(-1e6, 1e6, width=32) if dtype is np.float32 else None
    return shapes.flatmap(lambda shape: hnp.arrays(dtype, shape, elements=elements))


@settings(max_examples=60, deadline=None)
@given(images_of(np.uint8, st.sampled_from([1, 2, 3, 4])))
def test_any_8_bit_picture_survives_png_and_webp(array: np.ndarray) -> None:
    np.testing.assert_array_equal(pixels_of(encode(array, "png")), array)
    if array.shape[2] == 3:
        np.testing.assert_array_equal(pixels_of(saved(Image.fromarray(array), "WEBP", lossless=True)), array)


@settings(max_examples=60, deadline=None)
@given(images_of(np.uint16, st.sampled_from([1, 3])))
def test_any_16_bit_picture_survives_png_and_tiff(array: np.ndarray) -> None:
    np.testing.assert_array_equal(pixels_of(png16(array)), array)
    np.testing.assert_array_equal(pixels_of(encode(array, "tiff")), array)


@settings(max_examples=60, deadline=None)
@given(images_of(np.float32, st.sampled_from([1, 3, 6])))
def test_any_float_picture_survives_tiff(array: np.ndarray) -> None:
    np.testing.assert_array_equal(pixels_of(encode(array, "tiff")), array)


HEADS = [content[:n] for _, content in originals() for n in (8, 40)]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(HEADS), st.binary(max_size=300), st.sampled_from(["a.png", "b.tga", "c.pcx", "d"]))
def test_random_bytes_are_a_picture_or_a_decode_error(head: bytes, tail: bytes, name: str) -> None:
    try:
        picture = read_picture(head + tail, name=name)
    except DecodeError:
        return
    assert picture.pixels().ndim == 3


@pytest.mark.filterwarnings("error")
def test_overflowing_floats_become_8_bit_without_warnings() -> None:
    pixels = np.array([[[[-3e38], [3e38], [np.inf], [np.nan]]]], np.float32)
    got = converted(pixels, Kind(1, False, "float32"), Kind(3, False, "uint8"), (255, 255, 255), (-3e38, 3e38))
    assert got.shape == (1, 1, 4, 3)
    assert got.dtype == np.uint8


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(40, 40), (40, 90), (700, 600)])
def test_quick_resizing_agrees_within_rounding(fit: str, size: tuple[int, int]) -> None:
    picture = read_picture(saved(Image.fromarray(skimage.data.coffee()[:, :480]), "JPEG", quality=90))
    slow, quick = (picture.fitted(*size, fit, (255, 255, 255), quick=how).astype(int) for how in (False, True))
    assert quick.shape == slow.shape
    difference = np.abs(quick - slow)
    assert np.median(difference) <= 1
    assert np.quantile(difference, 0.99) <= 3
