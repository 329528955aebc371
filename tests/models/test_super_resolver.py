"""SuperResolver: the contract, its gain on real images, consistency with its input, and images of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import imatlas as ia
from imatlas.errors import InputError, ParameterError
from imatlas.images.dataset import images_of
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr
from imatlas.models.parts.scaling import Scaling
from imatlas.models.super_resolver import MARGIN, TILE, SuperResolver, _crops
from imatlas.testing import check_image_estimator, synthetic_images
from tests.conftest import need_data


def fitted(scale: int = 2, **options) -> SuperResolver:
    images = synthetic_images(12, size=48, channels=3)
    return SuperResolver(scale=scale, width=8, depth=2, budget=None, max_steps=40, progress=False, **options).fit(
        images
    )


@pytest.fixture(scope="module")
def model() -> SuperResolver:
    return fitted()


def spec_of(pixels: np.ndarray, **options) -> ImageSpec:
    top = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}[pixels.dtype.name]
    return ImageSpec(*pixels.shape, pixels.dtype.name, **{"low": 0.0, "high": top, **options})


def scaled_down(pixels: np.ndarray, scale: int) -> np.ndarray:
    height, width = pixels.shape[0] // scale, pixels.shape[1] // scale
    planes = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)
    return Scaling(height, width, scale).down(planes).permute(1, 2, 0).numpy()


def photo(name: str = "kodim05", box: tuple[int, int, int, int] = (200, 100, 456, 356)) -> np.ndarray:
    return np.asarray(Image.open(need_data("kodak") / f"{name}.png").convert("RGB").crop(box))


def halved(image: np.ndarray, scale: int = 2) -> np.ndarray:
    size = (image.shape[1] // scale, image.shape[0] // scale)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def test_it_keeps_the_contract() -> None:
    check_image_estimator(SuperResolver(width=4, depth=1, budget=None, max_steps=4, progress=False))


@pytest.mark.parametrize("scale", [2, 3])
def test_a_photograph_is_upscaled_better_than_by_interpolation_after_seconds_with_others(scale: int) -> None:
    others = np.stack([photo(name, (0, 0, 384, 384)) for name in ("kodim01", "kodim13", "kodim15")])
    model = SuperResolver(scale=scale, width=16, depth=2, budget=None, max_steps=80, progress=False).fit(others)
    assert model.held_out_error_ < 0.95
    large = photo(box=(200, 100, 440, 340))
    small = halved(large, scale)
    plain = np.asarray(Image.fromarray(small).resize(large.shape[1::-1], Image.Resampling.BICUBIC))
    restored = model.restore(small, spec_of(small))
    assert psnr(large[None], restored[None], span=255) > psnr(large[None], plain[None], span=255) + 0.3
    error = np.abs(np.clip(scaled_down(restored, scale), 0, 255) - small)
    assert error.max() < 1
    assert np.sqrt(np.square(error).mean()) < 0.3


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_scaling_is_that_of_pillow(scale: int, rng) -> None:
    image = rng.random((12 * scale, 7 * scale)).astype(np.float32)
    scaling = Scaling(12, 7, scale)
    for size, call in (((7, 12), scaling.down), ((7 * scale * scale, 12 * scale * scale), None)):
        expected = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        found = call(torch.from_numpy(image)) if call else Scaling(*image.shape, scale).up(torch.from_numpy(image))
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


def test_the_nearest_consistent_image(rng) -> None:
    scaling = Scaling(6, 5, 3)
    large, small = torch.from_numpy(rng.random((18, 15))).float(), torch.from_numpy(rng.random((6, 5))).float()
    found = scaling.consistent(large, small)
    np.testing.assert_allclose(scaling.down(found).numpy(), small.numpy(), atol=1e-5)
    down = np.kron(scaling.rows[0], scaling.columns[0])
    expected = large.numpy().ravel() + np.linalg.pinv(down) @ (small.numpy().ravel() - down @ large.numpy().ravel())
    np.testing.assert_allclose(found.numpy().ravel(), expected, atol=1e-4)
    true = torch.from_numpy((rng.random((18, 15)) > 0.6).astype(np.float32))  # at the limits everywhere
    small = scaling.down(true).clamp(0, 1)
    found = scaling.consistent(large, small, 0.0, 1.0)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (scaling.down(found).clamp(0, 1) - small).abs().max() < 0.02


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_every_kind_of_image(model: SuperResolver, dtype: str, channels: int) -> None:
    pixels = synthetic_images(1, size=(20, 31), channels=channels, dtype=dtype)[0]
    out = model.restore(pixels, spec_of(pixels))
    assert out.shape == (40, 62, channels)
    assert out.dtype == pixels.dtype
    span = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    assert np.abs(scaled_down(out, 2) - pixels).max() < 2 * span / 255
    alone = model.restore(pixels[..., -1:], spec_of(pixels[..., -1:]))
    if channels != 3:  # each channel on its own
        np.testing.assert_array_equal(out[..., -1:], alone)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 3), (9, 1, 1), (2, 2, 7)])
@pytest.mark.parametrize("scale", [2, 4])
def test_tiny_images_and_single_colors(shape: tuple[int, int, int], scale: int) -> None:
    pixels = np.full(shape, 77, np.uint8)
    out = fitted(scale).restore(pixels, spec_of(pixels))
    assert out.shape == (shape[0] * scale, shape[1] * scale, shape[2])
    assert (out == 77).all()


def test_contrast_and_brightness_pass_through(model: SuperResolver, rng) -> None:
    pixels = rng.random((24, 24, 1)).astype(np.float32)
    spec = spec_of(pixels)
    np.testing.assert_allclose(
        model.restore(5000 * pixels - 300, spec), 5000 * model.restore(pixels, spec) - 300, atol=0.5, rtol=1e-4
    )


def test_tiles_leave_no_seams(model: SuperResolver, rng) -> None:
    size = TILE + 2 * MARGIN  # the largest image in one piece
    whole = rng.integers(0, 256, (size, size + 60, 1), dtype=np.uint8)
    in_tiles = model.restore(whole, spec_of(whole))
    left, right = whole[:, :size], whole[:, -size:]
    for part, columns in ((left, slice(0, 2 * size - 60)), (right, slice(2 * 60 + 60, None))):
        alone = model.restore(part, spec_of(part))
        offset = 0 if part is left else 2 * 60
        chosen = in_tiles[:, columns].astype(int)
        same = alone[:, columns.start - offset : (columns.stop or 2 * (size + 60)) - offset]
        assert np.abs(chosen - same).max() <= 1
        assert (chosen == same).mean() > 0.999


def test_an_edge_has_no_halo(model: SuperResolver) -> None:
    large = np.full((64, 64, 3), 80, np.uint8)
    large[:, 33:] = 160
    small = halved(large)
    out = model.restore(small, spec_of(small)).astype(int)
    assert out.min() >= small.min() - 8  # a tenth of the step
    assert out.max() <= small.max() + 8
    assert (out[:, :20] == 80).all()
    assert (out[:, -20:] == 160).all()


def test_alpha_and_hidden_colors() -> None:
    pixels = synthetic_images(8, size=32, channels=4)
    pixels[..., 3] = 0
    pixels[:, 8:24, 8:24, 3] = 255
    hidden = pixels.copy()
    hidden[pixels[..., 3] == 0, :3] = (255, 0, 255)  # must not bleed
    model = SuperResolver(width=4, depth=1, budget=None, max_steps=4, progress=False).fit(pixels)
    first, second = (model.restore(images[0], spec_of(images[0])) for images in (pixels, hidden))
    np.testing.assert_array_equal(first, second)
    assert first[32, 32, 3] == 255
    assert first[2, 2, 3] == 0


def test_missing_pixels_stay_missing(model: SuperResolver, rng) -> None:
    pixels = rng.random((20, 20, 3)).astype(np.float32)
    holed = pixels.copy()
    holed[5, 7, 1] = np.nan
    out = model.restore(holed, spec_of(holed))
    assert np.isnan(out[10:12, 14:16]).all()
    assert np.isnan(out).sum() == 12
    assert np.isnan(model.restore(np.full_like(pixels, np.inf), spec_of(pixels))).all()
    images = np.stack([holed] * 4)
    again = SuperResolver(width=4, depth=1, budget=None, max_steps=4, progress=False).fit(images)
    assert np.isfinite(again.held_out_error_)


def test_noise_is_left_to_interpolation(rng) -> None:
    noise = rng.random((6, 32, 32, 1)).astype(np.float32)
    model = SuperResolver(width=4, depth=1, budget=None, max_steps=2, learning_rate=1.0, progress=False).fit(noise)
    assert model.held_out_error_ > 1
    assert "nothing was better" in model.summary()[0]
    scaling, planes = Scaling(32, 32, 2), torch.from_numpy(noise[0, ..., 0])
    expected = scaling.consistent(scaling.up(planes), planes).numpy()
    found = model.restore(noise[0], spec_of(noise[0]))[..., 0]
    assert np.abs(found - expected).mean() < 0.005  # but for the guard against halos


def test_what_is_held_out_is_not_learned_from() -> None:
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.full((1, 24, 24, 1), 20, np.uint8)
    columns = np.arange(160, dtype=np.uint8)[None, None, :, None] * np.ones((1, 32, 1, 1), np.uint8)
    for several in (images, columns, columns.swapaxes(1, 2)):
        data = _crops(images_of(several), 2, seed=0)
        assert len(data.held_out)
        assert not np.intersect1d(data.pixels, data.held_out).size


def test_one_image_and_files_of_several_sizes(tmp_path: Path) -> None:
    images = synthetic_images(3, size=40, channels=3)
    for i, image in enumerate(images):
        Image.fromarray(image[: 40 - 15 * i]).save(tmp_path / f"{i}.png")  # the last is smaller than the crops
    options = {"width": 4, "depth": 1, "budget": None, "max_steps": 3, "progress": False}
    model = SuperResolver(**options).fit(str(tmp_path))
    pixels = images[0, :33]
    loaded = ia.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.restore(pixels, spec_of(pixels)), model.restore(pixels, spec_of(pixels)))
    assert SuperResolver(**options).fit(images[:1]).transform(images[:1]).shape == (1, 80, 80, 3)


def test_wrong_arguments() -> None:
    images = synthetic_images(4, size=16)
    with pytest.raises(ParameterError, match="'scale'"):
        SuperResolver(scale=5).fit(images)
    with pytest.raises(InputError, match="at least 8 x 8 pixels"):
        SuperResolver(max_steps=1, progress=False).fit(images[:, :4])
