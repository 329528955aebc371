"""ImageCodec: every kind of image, real photographs beside JPEG, damage, and what is learned from a folder."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

import imatlas as ia
from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr
from imatlas.models.codec import ImageCodec, step_of
from imatlas.models.parts.coded_image import CodedImages
from imatlas.testing import synthetic_images
from tests.conftest import need_data


@pytest.fixture(scope="module")
def codec() -> ImageCodec:
    return ImageCodec.general()


def photo(name: str = "kodim05", box: tuple[int, int, int, int] = (200, 100, 392, 228)) -> np.ndarray:
    return np.asarray(Image.open(need_data("kodak") / f"{name}.png").convert("RGB").crop(box))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (17, 30), (64, 64)])
@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, "uint8"), (3, "uint8"), (4, "uint8"), (2, "uint16"), (7, "float32")]
)
def test_images_of_every_kind_come_back(codec: ImageCodec, size: tuple[int, int], channels: int, dtype: str) -> None:
    images = synthetic_images(2, size=64, channels=channels, dtype=dtype)[:, : size[0], : size[1]]
    decoded = codec.decompress(codec.compress(images, quality=80))
    assert len(decoded) == 2
    for made, image in zip(decoded, images, strict=True):
        assert (made.shape, made.dtype) == (image.shape, image.dtype)
        span = float(images.max()) - float(images.min()) if dtype != "uint8" else 255
        assert np.abs(made.astype(np.float64) - image).max() <= 0.04 * span


def test_one_color_takes_a_few_bytes(codec: ImageCodec) -> None:
    for pixels in (np.full((300, 400, 3), 7, np.uint8), np.full((50, 60, 1), 40_000, np.uint16)):
        data = codec.compress(pixels[None])
        assert len(data[0]) < 60
        assert np.abs(codec.decompress(data)[0].astype(int) - pixels).max() <= 2


def test_photographs_are_smaller_than_as_jpeg(codec: ImageCodec) -> None:
    image = photo(box=(100, 60, 612, 444))
    data = codec.compress(image[None], quality=45)
    quality = psnr(image[None], codec.decompress(data)[0][None], span=255)
    for q in range(5, 100):
        out = io.BytesIO()
        Image.fromarray(image).save(out, "JPEG", quality=q, optimize=True)
        if psnr(image[None], np.asarray(Image.open(out))[None], span=255) >= quality:
            break
    assert len(data[0]) < 0.65 * len(out.getvalue())


def test_quality_is_a_dial(codec: ImageCodec) -> None:
    image = photo()[None]
    data = [codec.compress(image, quality=q)[0] for q in (5, 30, 60, 95)]
    errors = [psnr(image, codec.decompress([each])[0][None], span=255) for each in data]
    assert [len(each) for each in data] == sorted(len(each) for each in data)
    assert errors == sorted(errors)
    assert errors[-1] > 44


def test_the_same_bytes_whatever_the_threads_and_others(codec: ImageCodec) -> None:
    images = np.stack([photo(), photo("kodim09"), photo("kodim23")])
    together = codec.compress(images)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert codec.compress(images[1:2]) == together[1:2]
        alone = codec.decompress(together[2:])[0]
    finally:
        torch.set_num_threads(before)
    assert np.abs(alone.astype(int) - codec.decompress(together)[2]).max() <= 1


def test_small_images_coded_together_are_smaller(codec: ImageCodec) -> None:
    images = synthetic_images(20, size=28)
    spec = ImageSpec(28, 28, 1)
    together = codec.coded(images, spec, step_of(50)).to_bytes()
    assert len(together) < 0.9 * sum(map(len, codec.compress(images)))
    assert codec.decoded(CodedImages.from_bytes(together)).shape == images.shape


def test_damage_is_refused(codec: ImageCodec, rng: np.random.Generator) -> None:
    """Any byte that is changed, and any part that is missing, gives a clear error or the very same picture."""
    image = photo(box=(200, 100, 232, 124))
    data = codec.compress(image[None], quality=30)[0]
    expected = codec.decompress([data])[0]
    head = len(data) - len(CodedImages.from_bytes(data).groups[0].data)  # is protected by the records of files
    for place in rng.integers(head, len(data), 100).tolist():
        changed = data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :]
        made = expected  # where the last bits of the last word do not matter
        with contextlib.suppress(InputError):
            made = codec.decompress([changed])[0]
        assert np.array_equal(made, expected)
    for length in rng.integers(0, len(data), 20).tolist():
        with pytest.raises(InputError, match="damaged"):
            codec.decompress([data[:length]])


def test_data_of_another_model_is_refused(codec: ImageCodec) -> None:
    images = synthetic_images(4, size=32, channels=3)
    other = ImageCodec(max_steps=3, learning_rate=0.03, progress=False).fit(images)
    assert other.identity() != codec.identity()
    with pytest.raises(InputError, match=r"another model|no encoder writes"):
        other.decompress(codec.compress(images[:1], quality=70))


def test_missing_pixels_are_refused(codec: ImageCodec) -> None:
    image = synthetic_images(1, size=16, dtype="float32")
    image[0, 3, 4] = np.nan
    with pytest.raises(InputError, match="imatlas inpaint"):
        codec.compress(image)


def test_a_learned_model_is_packed_in_little(codec: ImageCodec) -> None:
    images = synthetic_images(4, size=32, channels=3)
    learned = ImageCodec(max_steps=3, learning_rate=0.03, progress=False).fit(images)
    packed = learned.packed_weights()
    assert len(packed) < 200_000
    again = ImageCodec.from_weights(packed)
    assert again.identity() == learned.identity() != codec.identity()
    assert np.array_equal(
        again.decompress(learned.compress(images))[3], learned.decompress(learned.compress(images))[3]
    )
    assert ImageCodec.from_weights(b"").identity() == ImageCodec.from_weights(codec.packed_weights()).identity()
    assert ImageCodec.from_weights(b"").identity() == codec.identity()
    for damaged in (b"nothing", packed[:-400]):
        with pytest.raises(InputError, match="model in the file is damaged"):
            ImageCodec.from_weights(damaged)


def test_it_learns_from_a_folder() -> None:
    """Images that are alike in a way that photographs are not: after seconds, a good part of the bits is gone."""
    grid = np.add.outer(np.arange(64) // 8, np.arange(64) // 8) % 2
    rng = np.random.default_rng(0)
    images = np.stack([np.where(np.roll(grid, rng.integers(0, 16, 2), (0, 1)), 200, 60) for _ in range(24)])
    images = images[..., None].repeat(3, 3).astype(np.uint8)
    before = ImageCodec.general()
    after = ImageCodec(max_steps=20, progress=False, random_state=0).fit(images[:-4])
    sizes = [sum(map(len, codec.compress(images[-4:], quality=40))) for codec in (before, after)]
    assert sizes[1] < 0.9 * sizes[0]


def test_a_saved_codec_reads_what_it_wrote(tmp_path) -> None:
    images = synthetic_images(4, size=32, channels=3)
    codec = ImageCodec(max_steps=3, learning_rate=0.03, progress=False).fit(images)
    data = codec.compress(images)
    codec.save(tmp_path / "codec")
    loaded = ia.load(tmp_path / "codec")
    assert all(map(np.array_equal, loaded.decompress(data), codec.decompress(data)))
