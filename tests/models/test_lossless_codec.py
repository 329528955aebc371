"""LosslessCodec: every value of every kind of image comes back; size beside PNG; threads, damage, and learning."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.models.codec import ImageCodec
from imatlas.models.lossless_codec import LosslessCodec
from imatlas.models.parts.coded_image import CodedImages
from imatlas.models.parts.integer_scales import from_integers, scale_of, to_integers
from imatlas.testing import synthetic_images
from tests.conftest import need_data


@pytest.fixture(scope="module")
def codec() -> LosslessCodec:
    return LosslessCodec.general()


def photo(name: str = "kodim05", box: tuple[int, int, int, int] = (200, 100, 392, 228)) -> np.ndarray:
    return np.asarray(Image.open(need_data("kodak") / f"{name}.png").convert("RGB").crop(box))


def assert_same(codec: LosslessCodec, images: np.ndarray) -> list[bytes]:
    data = codec.compress(images)
    decoded = codec.decompress(data)
    assert all(made.tobytes() == image.tobytes() for made, image in zip(decoded, images, strict=True))
    assert all((made.dtype, made.shape) == (images.dtype, images.shape[1:]) for made in decoded)
    return data


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (17, 30), (64, 64)])
@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, "uint8"), (3, "uint8"), (4, "uint8"), (2, "uint16"), (3, "uint16"), (7, "float32")]
)
def test_every_value_comes_back(codec: LosslessCodec, size: tuple[int, int], channels: int, dtype: str) -> None:
    images = synthetic_images(2, size=64, channels=channels, dtype=dtype)[:, : size[0], : size[1]]
    assert_same(codec, np.ascontiguousarray(images))


def test_noise_and_extremes_come_back(codec: LosslessCodec, rng: np.random.Generator) -> None:
    assert_same(codec, rng.integers(0, 256, (2, 33, 20, 3), np.uint8))
    assert_same(codec, rng.choice(np.array([0, 255], np.uint8), (1, 40, 40, 3)))
    assert_same(codec, rng.integers(0, 2**16, (1, 20, 30, 3), np.uint16))
    assert_same(codec, rng.choice(np.array([0, 2**16 - 1], np.uint16), (1, 20, 30, 1)))
    floats = rng.normal(size=(2, 16, 16, 1)).astype(np.float32) * np.float32(10) ** rng.integers(
        -30, 30, (2, 16, 16, 1)
    )
    floats = floats.astype(np.float32)
    floats[0, 0, :3, 0] = np.nan, -0.0, 3e38
    assert_same(codec, floats)


def test_values_that_are_spaced_take_no_more_bits(codec: LosslessCodec) -> None:
    """A range of 12 bits that is written to 16, 8 bits as floats, and an image of two values."""
    image = photo()[None, ..., :1]
    n = len(assert_same(codec, image)[0])
    for spaced in (image.astype(np.uint16) * 257, image.astype(np.uint16) * 16 + 7, image.astype(np.float32) / 255):
        assert len(assert_same(codec, spaced)[0]) < n + 40
    binary = (image > 128).astype(np.uint8)
    assert len(assert_same(codec, binary * 255)[0]) < len(assert_same(codec, binary)[0]) + 8


def test_bits_of_noise_cost_what_they_are(codec: LosslessCodec, rng: np.random.Generator) -> None:
    noise = rng.normal(30_000, 2000, (1, 64, 64, 1)).astype(np.uint16)
    entropy = np.log2(2000 * np.sqrt(2 * np.pi * np.e)) * noise.size / 8
    assert entropy * 0.98 < len(assert_same(codec, noise)[0]) < entropy * 1.06


def test_photographs_are_smaller_than_as_png(codec: LosslessCodec) -> None:
    image = photo(box=(100, 60, 612, 444))
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", optimize=True)
    assert len(assert_same(codec, image[None])[0]) < 0.75 * len(out.getvalue())


def test_the_same_bytes_whatever_the_threads_and_others(codec: LosslessCodec) -> None:
    images = np.stack([photo(), photo("kodim09"), photo("kodim23")])
    together = codec.compress(images)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert codec.compress(images[1:2]) == together[1:2]
        assert np.array_equal(codec.decompress(together[2:])[0], images[2])
    finally:
        torch.set_num_threads(before)


def test_images_coded_together(codec: LosslessCodec) -> None:
    images = synthetic_images(20, size=28)
    coded, _ = codec.coded_and_decoded(images, ImageSpec(28, 28, 1), 0)
    assert len(coded.to_bytes()) < 0.95 * sum(map(len, codec.compress(images)))
    assert np.array_equal(codec.decoded(CodedImages.from_bytes(coded.to_bytes())), images)


def test_damage_is_refused(codec: LosslessCodec, rng: np.random.Generator) -> None:
    """Any byte that is changed, and any part that is missing, gives a clear error or the very same picture."""
    image = photo(box=(200, 100, 232, 124))
    data = codec.compress(image[None])[0]
    for place in rng.integers(len(data) - len(CodedImages.from_bytes(data).groups[0].data), len(data), 100).tolist():
        changed = data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :]
        made = image  # where the last bits of the last word do not matter
        with contextlib.suppress(InputError):
            made = codec.decompress([changed])[0]
        assert np.array_equal(made, image)
    for place in range(len(data) - len(CodedImages.from_bytes(data).groups[0].data)):  # heads: no other error
        with contextlib.suppress(InputError):
            codec.decompress([data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :]])
    for length in rng.integers(0, len(data), 20).tolist():
        with pytest.raises(InputError, match="damaged"):
            codec.decompress([data[:length]])


def test_data_of_the_codec_with_loss_is_refused(codec: LosslessCodec) -> None:
    images = synthetic_images(1, size=32)
    with pytest.raises(InputError, match="written by an ImageCodec"):
        codec.decompress(ImageCodec.general().compress(images))
    with pytest.raises(InputError, match="written by a LosslessCodec"):
        ImageCodec.general().decompress(codec.compress(images))


def test_scales_of_integers() -> None:
    for pixels in (
        np.array([[[7]]], np.uint8),
        np.array([[[-1.5], [np.inf], [np.nan], [-0.0]]], np.float32),
        np.array([[[0.0], [0.2], [1.0]]], np.float32),
        np.array([[[1], [65_535]]], np.uint16),
    ):
        scale = scale_of(pixels)
        assert from_integers(to_integers(pixels, scale), scale, pixels.dtype.name).tobytes() == pixels.tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_it_learns_from_a_folder(dtype: str) -> None:
    """Stripes of random widths are predicted after seconds."""
    rng = np.random.default_rng(0)
    stripes = np.repeat(rng.integers(0, 2, (40, 1, 16)), 2, 2).repeat(32, 1)[..., None]
    noise = rng.integers(0, 3, stripes.shape)
    images = (stripes * 90 + noise + 40).astype(dtype)
    if dtype == "float32":
        images = images / np.float32(255)
    learned = LosslessCodec(max_steps=25, learning_rate=4e-3, progress=False, random_state=0).fit(images)
    before, after = (sum(map(len, assert_same(codec, images))) for codec in (LosslessCodec.general(), learned))
    assert after < 0.95 * before
    assert LosslessCodec.from_weights(learned.packed_weights()).identity() == learned.identity()
