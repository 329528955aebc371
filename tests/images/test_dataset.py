"""`Images`: the rules for mixed sets, sizes, views, batches, and records."""

from __future__ import annotations

import hashlib
import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from imatlas import Images, ImageSpec
from imatlas.errors import InputError, ParameterError
from imatlas.images.dataset import load_pixels
from imatlas.images.decode import read_picture
from imatlas.images.encode import encode, write_picture
from imatlas.images.hashing import hamming, perceptual_hash
from imatlas.images.pixel_rows import PixelRows
from imatlas.images.pixels import Kind, common_kind, conformed, rgb_view, value_range
from tests.images.test_decode import png16


def write(folder: Path, **arrays: np.ndarray) -> Path:
    """A folder of lossless files: PNG if possible, else TIFF."""
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        array = array[..., None] if array.ndim == 2 else array
        if array.dtype == np.uint8 and array.shape[2] <= 4:
            (folder / f"{name}.png").write_bytes(encode(array, "png"))
        elif array.dtype == np.uint16 and array.shape[2] in (1, 3):
            (folder / f"{name}.png").write_bytes(png16(array))
        else:
            (folder / f"{name}.tif").write_bytes(encode(array, "tiff"))
    return folder


def bytes_of(rng: np.random.Generator, channels: int) -> np.ndarray:
    return rng.integers(0, 256, (16, 16, channels), np.uint8)


def test_gray_is_kept_or_converted_to_the_color_of_the_set(rng, tmp_path: Path) -> None:
    gray, color = bytes_of(rng, 1), bytes_of(rng, 3)
    assert Images(write(tmp_path / "a", a=gray, b=gray)).spec == ImageSpec(16, 16, 1)
    images = Images(write(tmp_path / "b", a=gray, b=color))
    assert images.spec == ImageSpec(16, 16, 3)
    np.testing.assert_array_equal(images.pixels, [np.repeat(gray, 3, axis=2), color])
    np.testing.assert_array_equal(images[0], np.repeat(gray, 3, axis=2))


def test_alpha_is_kept_if_all_have_it_else_composited(rng, tmp_path: Path) -> None:
    clear, both, opaque = bytes_of(rng, 4), bytes_of(rng, 2), bytes_of(rng, 3)
    images = Images(write(tmp_path / "a", a=clear, b=both))
    assert images.spec.has_alpha
    np.testing.assert_array_equal(images.pixels[0], clear)
    np.testing.assert_array_equal(images.pixels[1], both[..., [0, 0, 0, 1]])
    images = Images(write(tmp_path / "b", a=clear, b=opaque), background=(10, 200, 30))
    share = clear[..., 3:] / 255
    expected = np.rint(clear[..., :3] * share + np.array([10, 200, 30]) * (1 - share))
    np.testing.assert_array_equal(images.pixels, [expected, opaque])
    solid = np.concatenate([opaque, np.full((16, 16, 1), 255, np.uint8)], axis=2)
    images = Images(write(tmp_path / "c", a=solid, b=solid))
    np.testing.assert_array_equal(images.pixels, [opaque, opaque])  # opacity that nobody uses is no channel


def test_a_16_bit_set_keeps_every_bit_and_one_range(rng, tmp_path: Path) -> None:
    deep = rng.integers(300, 4000, (5, 16, 16, 1)).astype(np.uint16)
    deep[2, 3, 4] = 65535
    images = Images(write(tmp_path / "a", **{f"n{i}": d for i, d in enumerate(deep)}), thumbnail_size=16)
    np.testing.assert_array_equal(images.pixels, deep)
    low, high = np.percentile(deep, (0.1, 99.9))
    assert images.spec == ImageSpec(16, 16, 1, "uint16", low, high)
    assert high < 5000  # the hot pixel does not blacken the set
    seen = read_picture(images.thumbnails[0]).pixels()
    np.testing.assert_array_equal(seen[..., 0], np.rint(np.clip((deep[0, ..., 0] - low) / (high - low), 0, 1) * 255))


def test_a_16_bit_color_set_keeps_every_bit(rng, tmp_path: Path) -> None:
    deep = rng.integers(0, 65536, (3, 16, 16, 3), np.uint16)
    images = Images(write(tmp_path / "a", a=deep[0], b=deep[1], c=deep[2]))
    np.testing.assert_array_equal(images.pixels, deep)
    assert images.records["notes"].tolist() == ["", "", ""]


def test_the_most_frequent_dtype_wins_with_notes_on_others(rng, tmp_path: Path) -> None:
    deep = rng.integers(1000, 3000, (2, 16, 16, 1)).astype(np.uint16)
    shallow = bytes_of(rng, 1)
    images = Images(write(tmp_path / "a", a=deep[0], b=deep[1], c=shallow))
    np.testing.assert_array_equal(images.pixels, [*deep, shallow.astype(np.uint16) * 257])
    assert images.records[2].notes == "8-bit, converted to 16-bit like most images"
    images = Images(write(tmp_path / "b", a=shallow, b=shallow, c=deep[0]))
    assert images.spec.dtype == "uint8"
    low, high = np.percentile(deep[0], (0.1, 99.9))
    expected = np.rint(np.clip((deep[0] - low) / (high - low), 0, 1) * 255)
    assert np.abs(images.pixels[2] - expected).max() <= 1
    assert "16-bit, converted" in images.records[2].notes


def test_float_sets_keep_values_and_missing_pixels(rng, tmp_path: Path) -> None:
    values = rng.normal(size=(2, 16, 16, 1)).astype(np.float32) * 100
    values[0, 2, 3] = np.nan
    images = Images(write(tmp_path / "a", a=values[0], b=values[1]))
    np.testing.assert_array_equal(images.pixels, values)
    assert images.spec.dtype == "float32"
    np.testing.assert_allclose((images.spec.low, images.spec.high), np.nanpercentile(values, (0.1, 99.9)), rtol=1e-5)
    unit = Images(rng.random((4, 8, 8)).astype(np.float32))
    assert (unit.spec.low, unit.spec.high) == (0.0, 1.0)


def test_multi_channel_images_are_kept_and_the_rarer_kind_skipped(rng, tmp_path: Path) -> None:
    stack = rng.integers(0, 65536, (2, 16, 16, 6), np.uint16)
    images = Images(write(tmp_path / "a", a=stack[0], b=stack[1], c=bytes_of(rng, 3)), thumbnail_size=16)
    np.testing.assert_array_equal(images.pixels, stack)
    assert images.skipped == [("c.png", "has 3 channels, and most of the set have 6")]
    assert len(images.thumbnails) == len(images.records) == 2
    np.testing.assert_array_equal(images[1], stack[1])
    images = Images(write(tmp_path / "b", a=stack[0], b=bytes_of(rng, 3), c=bytes_of(rng, 1)), thumbnail_size=16)
    assert images.keys == ["b.png", "c.png"]
    assert images.skipped == [("a.tif", "has 6 channels, and most of the set are pictures")]
    assert [read_picture(t).kind.channels for t in images.thumbnails] == [3, 1]


def test_four_measured_channels_are_not_rgba(rng, tmp_path: Path) -> None:
    bands = bytes_of(rng, 4)
    out = BytesIO()
    tifffile.imwrite(out, bands, photometric="minisblack", planarconfig="contig")
    (tmp_path / "a.tif").write_bytes(out.getvalue())
    images = Images(tmp_path)
    np.testing.assert_array_equal(images.pixels[0], bands)
    np.testing.assert_array_equal(images[0], bands)


def test_the_rule_of_common_kinds() -> None:
    gray, rgb, rgba = Kind(1, False, "uint8"), Kind(3, False, "uint8"), Kind(4, True, "uint8")
    deep, five = Kind(1, False, "uint16"), Kind(5, False, "float32")
    assert common_kind({gray: 3}, False) == gray
    assert common_kind({gray: 3, rgb: 1}, False) == rgb
    assert common_kind({rgba: 2}, True) == rgba
    assert common_kind({rgba: 2}, False) == rgb
    assert common_kind({rgba: 2, rgb: 1}, True) == rgb
    assert common_kind({gray: 2, deep: 2}, False) == deep
    assert common_kind({rgb: 2, five: 2}, False) == rgb
    assert common_kind({rgb: 2, five: 3}, False) == five


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(20, 24)] * 3, (20, 24)),
        ([(64, 64)] * 3, (64, 64)),
        ([(30, 30), (40, 90), (35, 50)], (32, 32)),
        ([(300, 200), (64, 64), (500, 90)], (64, 64)),
        ([(128, 128)] * 2, (64, 64)),
    ],
)
def test_the_default_image_size(sizes: list, expected: tuple[int, int], tmp_path: Path) -> None:
    for i, (height, width) in enumerate(sizes):
        write_picture(tmp_path / f"{i}.png", np.zeros((height, width), np.uint8))
    spec = Images(tmp_path).spec
    assert (spec.height, spec.width) == expected
    assert Images(tmp_path, image_size=(10, 14)).pixels.shape[1:3] == (10, 14)


def test_frames_all_gives_one_image_per_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), v) for v in (10, 100, 200)]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    write_picture(tmp_path / "a.png", np.full((8, 8), 50, np.uint8))
    images = Images(tmp_path, frames="all")
    assert images.keys == ["a.png", "b.gif#1", "b.gif#2", "b.gif#3"]
    assert [int(images[i].mean()) for i in range(4)] == [50, 10, 100, 200]
    first = Images(tmp_path)
    assert first.keys == ["a.png", "b.gif"]
    assert first.records[1].notes == "first of 3 frames"


def test_records_describe_each_file(tmp_path: Path, rng) -> None:
    Image.fromarray(bytes_of(rng, 3)).convert("CMYK").save(tmp_path / "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (90, 50)).save(tmp_path / "b.jpg", exif=exif)
    images = Images(tmp_path, image_size=16)
    a, b = images.records
    assert (a.key, a.width, a.height, a.format, a.mode, a.n_frames) == ("a.jpg", 16, 16, "JPEG", "CMYK", 1)
    assert (b.width, b.height, b.mode) == (50, 90, "L")
    assert a.sha256 == hashlib.sha256((tmp_path / "a.jpg").read_bytes()).hexdigest()
    assert images.records["width"].tolist() == [16, 50]
    assert images.records["phash"].dtype == np.uint64
    assert images[1].shape == (90, 50, 3)


def test_views_follow_indexing(rng) -> None:
    array = rng.integers(0, 256, (10, 6, 6, 3), np.uint8)
    images = Images(array)
    np.testing.assert_array_equal(images[-1], array[-1])
    for index in (slice(2, 8, 2), [5, 1, 1], np.array([3, 4, 5]), np.arange(10) % 3 == 0, []):
        view = images[index]
        picked = np.arange(10)[np.asarray(index, dtype=int) if isinstance(index, list) else index]
        np.testing.assert_array_equal(view.pixels, array[picked])
        assert view.keys == [images.keys[i] for i in picked]
        assert [r.key for r in view.records] == view.keys
        assert len(view) == len(view.thumbnails) == len(picked)
    view = images[2:8][1:3]
    np.testing.assert_array_equal(view.pixels, array[3:5])
    assert np.shares_memory(view.pixels, array)
    with pytest.raises(IndexError):
        images[10]
    with pytest.raises(TypeError, match="indexed by"):
        images["a.png"]
    assert len(list(images)) == 10


def test_pixel_rows_of_a_view_are_copied_only_when_they_are_indexed(rng) -> None:
    array = rng.integers(0, 256, (20, 16, 16, 3), np.uint8)
    images = Images(array)
    assert images.pixel_rows is images.pixels
    assert isinstance(images[4:16:3].pixel_rows, np.ndarray)  # a view of the array
    rows = np.array([1, 2, 5, 19])
    view = images[rows]
    lazy = view.pixel_rows
    assert isinstance(lazy, PixelRows)
    assert (lazy.shape, lazy.dtype, len(lazy)) == ((4, 16, 16, 3), np.uint8, 4)
    for index in (2, -1, slice(1, 3), np.array([3, 0]), np.array([True, False, True, False])):
        np.testing.assert_array_equal(lazy[index], array[rows][index])
    np.testing.assert_array_equal(np.asarray(lazy), array[rows])
    array[5] = 7
    assert (lazy[2] == 7).all()
    assert "pixels" not in vars(view)


def test_a_split_depends_on_its_seed(rng) -> None:
    images = Images(rng.integers(0, 256, (50, 4, 4), np.uint8))
    train, held_out = images.split(0.2, random_state=3)
    assert (len(train), len(held_out)) == (40, 10)
    assert sorted(train.keys + held_out.keys) == images.keys
    assert images.split(0.2, random_state=3)[1].keys == held_out.keys
    assert images.split(0.2, random_state=4)[1].keys != held_out.keys
    with pytest.raises(ParameterError, match="held_out"):
        images.split(1.0)


def test_batches_come_from_the_cache_or_the_originals(tmp_path: Path, rng) -> None:
    arrays = rng.integers(0, 256, (7, 40, 40, 4), np.uint8)
    folder = write(tmp_path / "a", **{f"n{i}": a for i, a in enumerate(arrays)})
    images = Images(folder, image_size=8)
    np.testing.assert_array_equal(np.concatenate(list(images.batches(3))), images.pixels)
    full = list(images[1:].batches(4, image_size=40))
    assert [len(b) for b in full] == [4, 2]
    np.testing.assert_array_equal(np.concatenate(full), arrays[1:])
    colors = next(images.batches(2, image_size=20, channels=3))
    assert colors.shape == (2, 20, 20, 3)
    np.testing.assert_array_equal(images.at_size(40).pixels, arrays)
    np.testing.assert_array_equal(images[2:4].at_size(40).pixels, arrays[2:4])


def test_missing_originals_fall_back_to_cached_pixels_with_one_warning(tmp_path: Path, rng) -> None:
    arrays = rng.integers(0, 256, (3, 20, 20, 3), np.uint8)
    images = Images(write(tmp_path / "a", a=arrays[0], b=arrays[1], c=arrays[2]), image_size=10)
    len(images)
    (tmp_path / "a" / "b.png").unlink()
    with pytest.warns(UserWarning, match="1 of 3 originals"):
        got = np.concatenate(list(images.batches(2, image_size=20)))
    np.testing.assert_array_equal(got[[0, 2]], arrays[[0, 2]])
    assert got[1].std() > 0


def test_rgb_views_of_any_set(rng) -> None:
    gray = rng.integers(0, 256, (2, 4, 4, 1), np.uint8)
    np.testing.assert_array_equal(rgb_view(gray, ImageSpec(4, 4, 1)), np.repeat(gray, 3, axis=3))
    clear = np.zeros((1, 4, 4, 4), np.uint8)
    assert (rgb_view(clear, ImageSpec(4, 4, 4)) == 255).all()
    deep = np.array([0, 500, 1000, 9000], np.uint16).reshape(1, 2, 2, 1)
    assert rgb_view(deep, ImageSpec(2, 2, 1, "uint16", 0, 1000))[0, ..., 0].ravel().tolist() == [0, 128, 255, 255]
    assert rgb_view(np.zeros((1, 2, 2, 7), np.uint8), ImageSpec(2, 2, 7)).shape == (1, 2, 2, 3)


def test_pixels_are_converted_to_the_spec_of_a_model(rng) -> None:
    gray = rng.integers(0, 256, (2, 4, 4, 1), np.uint8)
    eight, deep, unit = ImageSpec(4, 4, 1), ImageSpec(4, 4, 1, "uint16", 100, 1100), ImageSpec(4, 4, 1, "float32", 0, 1)
    assert conformed(gray, eight, eight) is gray
    got = conformed(np.array([[[[0]], [[255]]]], np.uint8), ImageSpec(1, 2, 1), deep)
    assert got.ravel().tolist() == [100, 1100]
    np.testing.assert_allclose(conformed(gray, eight, unit), gray / 255, rtol=1e-6)
    color = rng.integers(0, 256, (2, 4, 4, 3), np.uint8)
    assert conformed(color, ImageSpec(4, 4, 3), eight).shape == (2, 4, 4, 1)
    with pytest.raises(ValueError, match="cannot be converted"):
        conformed(np.zeros((1, 4, 4, 5), np.uint8), ImageSpec(4, 4, 5), eight)


def test_value_range_is_exact_for_small_sets_and_close_for_large_ones(rng) -> None:
    small = rng.integers(0, 5000, (10, 30, 30, 1)).astype(np.uint16)
    assert value_range(small) == tuple(np.percentile(small, (0.1, 99.9)))
    large = rng.normal(1000, 100, (2500, 96, 96, 1)).astype(np.uint16)
    np.testing.assert_allclose(value_range(large), np.percentile(large[::25], (0.1, 99.9)), rtol=0.02)
    assert value_range(np.full((2, 3, 3, 1), 7, np.uint16)) == (7.0, 8.0)
    assert value_range(np.full((2, 3, 3, 1), np.nan, np.float32)) == (0.0, 1.0)


def test_a_mask_makes_missing_pixels(rng) -> None:
    array = rng.integers(0, 256, (2, 5, 6, 3), np.uint8)
    mask = rng.random((2, 5, 6)) < 0.3
    pixels, spec = load_pixels(array, mask=mask)
    assert np.isnan(pixels[mask]).all()
    np.testing.assert_array_equal(pixels[~mask], array[~mask])
    assert (spec.dtype, spec.low, spec.high) == ("float32", 0.0, 255.0)
    with pytest.raises(InputError, match="mask"):
        load_pixels(array, mask=mask[:1])


def test_pickled_images_are_the_same(tmp_path: Path, rng) -> None:
    arrays = rng.integers(0, 256, (3, 16, 16, 3), np.uint8)
    folder = write(tmp_path / "a", a=arrays[0], b=arrays[1], c=arrays[2])
    for images in (Images(arrays), Images(folder), Images(folder, cache_dir=tmp_path / "cache")):
        for used in (False, True):
            if used:
                len(images)
            copy = pickle.loads(pickle.dumps(images))
            np.testing.assert_array_equal(copy.pixels, arrays)
            assert copy.fingerprint == images.fingerprint


def test_the_fingerprint_depends_on_content_not_location(tmp_path: Path, rng) -> None:
    array = bytes_of(rng, 3)
    a, b = (Images(write(tmp_path / name, a=array)).fingerprint for name in "ab")
    assert a == b
    assert Images(write(tmp_path / "c", a=array[::-1])).fingerprint != a


@pytest.mark.parametrize(
    ("name", "value"),
    [("image_size", 0), ("image_size", "64"), ("image_size", (1, 2, 3)), ("fit", "zoom"), ("background", (1, 2)),
     ("background", (1, 2, 300)), ("frames", "last"), ("workers", 0), ("thumbnail_size", -1)],
)  # fmt: skip
def test_invalid_options_are_named(name: str, value: object) -> None:
    with pytest.raises(ParameterError, match=f"The '{name}' parameter of Images must be"):
        Images(np.zeros((1, 4, 4), np.uint8), **{name: value})


def test_the_perceptual_hash_is_close_for_copies_only() -> None:
    from skimage import data

    pictures = [Image.fromarray(getattr(data, n)()).convert("L") for n in ("astronaut", "coffee", "chelsea", "rocket")]
    grays = [perceptual_hash(np.asarray(p)[None])[0] for p in pictures]
    for picture, value in zip(pictures, grays, strict=True):
        out = BytesIO()
        picture.resize((picture.width // 3, picture.height // 3)).save(out, "JPEG", quality=60)
        assert hamming(perceptual_hash(read_picture(out.getvalue()).pixels()[None, ..., 0])[0], value) <= 4
    distances = [hamming(a, b) for i, a in enumerate(grays) for b in grays[:i]]
    assert min(distances) > 15
    flat = perceptual_hash(np.stack([np.full((28, 28), v) for v in (0, 7, 255)]))
    assert flat.tolist() == [0, 0, 0]


def test_a_picture_of_16_bits_is_the_same_in_8() -> None:
    from skimage import data

    light = (data.coffee()[:64, :64] // 3 + 40).astype(np.uint8)  # of low contrast: it has neither black nor white
    deep = light.astype(np.uint16) * np.uint16(257)
    eight = ImageSpec(64, 64, 3)
    np.testing.assert_array_equal(load_pixels(deep[None], spec=eight)[0][0], light)
    np.testing.assert_allclose(
        load_pixels(deep[None], spec=ImageSpec(64, 64, 3, "float32", 0.0, 1.0))[0][0], light / 255, atol=1e-3
    )
    gray = deep[..., :1]
    np.testing.assert_array_equal(load_pixels(gray[None], spec=ImageSpec(64, 64, 1))[0][0], light[..., :1])
    hot = np.full((1, 64, 64, 1), 500, np.uint16)
    hot[0, :32] = 1000
    hot[0, 0, 0] = 65535  # one hot pixel does not make 12 bits 16
    seen = load_pixels(hot, spec=ImageSpec(64, 64, 1))[0]
    assert (seen.min(), np.median(seen[0, :32])) == (0, 255)


def test_12_bit_values_in_16_bits_are_scaled_from_their_own_range() -> None:
    light = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    seen = load_pixels(light.astype(np.uint16) * np.uint16(16), spec=ImageSpec(16, 16, 1))[0]
    assert (seen.min(), seen.max()) == (0, 255)
    np.testing.assert_allclose(seen.astype(int), light.astype(int), atol=1)


def test_conversion_of_deep_pictures_does_not_depend_on_the_set(tmp_path: Path, rng) -> None:
    shallow = (rng.integers(0, 90, (16, 16, 1)) + 60).astype(np.uint8)
    deep = shallow.astype(np.uint16) * np.uint16(257)
    images = Images(write(tmp_path / "a", a=shallow, b=shallow, c=deep))
    np.testing.assert_array_equal(images.pixels, [shallow] * 3)
    np.testing.assert_array_equal(images[2], shallow)
    enlarged = next(images.batches(3, 32)).astype(int)
    np.testing.assert_allclose(enlarged[2].mean(), enlarged[0].mean(), atol=2)  # another filter enlarges them


def test_each_row_is_converted_independently(rng) -> None:
    """Integers of 8 bits keep their values in every dtype; all else is scaled from its own range, row by row."""
    pixels = rng.integers(0, 200, (3, 12, 12, 3)).astype(np.uint8)
    pixels[1] //= 4
    eight, deep = ImageSpec(12, 12, 3), ImageSpec(12, 12, 3, "uint16", 90, 64000)
    units = ImageSpec(12, 12, 3, "float32", -900, 2000)
    for given in (*(pixels.astype(t) for t in ("float32", "float64", "int16", "int64", "uint16")), pixels / 255):
        for each in (given, list(given)):
            np.testing.assert_array_equal(load_pixels(each, spec=eight)[0], pixels)
    for given in (pixels, pixels / 255):
        np.testing.assert_array_equal(load_pixels(given, spec=deep)[0], pixels.astype(np.uint16) * 257)
    np.testing.assert_array_equal(load_pixels(pixels.astype(np.int16), spec=units)[0], pixels)
    np.testing.assert_array_equal(load_pixels(pixels * 200.0, spec=deep)[0], pixels * 200.0)
    for given in (pixels.astype(np.uint16) * 9, pixels * 9.0 - 40, pixels * 1e-4 + 3):
        for spec in (eight, deep):
            alone = [load_pixels(given[i : i + 1], spec=spec)[0][0] for i in range(3)]
            np.testing.assert_array_equal(load_pixels(given, spec=spec)[0], alone)
