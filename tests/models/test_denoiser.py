"""The Denoiser learns from noisy images alone; it improves them, or leaves them alone."""

from __future__ import annotations

import numpy as np
import pytest

import imatlas as ia
from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr
from imatlas.models.parts.noise import measure_noise
from imatlas.models.parts.noisy_patches import NoisyPatches
from imatlas.models.parts.tiles import in_tiles
from tests.models.parts.test_noise import scenes

pytestmark = pytest.mark.usefixtures("one_thread")


def noisy_images(sigma: float = 20, *, channels: int = 1, n: int = 4, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy images (N, H, W, C) float32 from 0 to 255."""
    clean = np.stack(scenes(n, channels=channels, size=size)).astype(np.float32)
    rng = np.random.default_rng(1)
    return clean, (clean + rng.normal(0, sigma, clean.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> tuple[ia.Denoiser, np.ndarray, np.ndarray]:
    clean, noisy = noisy_images(n=12)
    return ia.Denoiser(max_steps=60, width=16, progress=False).fit(noisy), clean, noisy


def test_images_are_improved_and_keep_their_means(fitted: tuple[ia.Denoiser, np.ndarray, np.ndarray]) -> None:
    model, clean, noisy = fitted
    restored = model.transform(noisy)
    assert restored.dtype == noisy.dtype
    assert restored.shape == noisy.shape
    assert psnr(clean, restored, span=255) > psnr(clean, noisy, span=255) + 6
    assert restored.mean(axis=(1, 2)) == pytest.approx(noisy.mean(axis=(1, 2)), abs=0.01)


def test_both_ways_improve_and_their_risks_tell_by_how_much(
    fitted: tuple[ia.Denoiser, np.ndarray, np.ndarray],
) -> None:
    model, clean, noisy = fitted
    assert set(model.risks_) == {"unchanged", "mixture", "network"}
    for by in ("mixture", "network"):
        model.choice_ = by
        error = np.square(model.transform(noisy) - clean).mean() / np.square(noisy - clean).mean()
        assert model.risks_[by] == pytest.approx(error, abs=0.1)
    model.choice_ = min(model.risks_, key=lambda name: model.risks_[name])


def test_a_saved_model_does_the_same(fitted: tuple[ia.Denoiser, np.ndarray, np.ndarray], tmp_path) -> None:
    model, _, noisy = fitted
    again = ia.load(model.save(tmp_path / "model"))
    assert np.array_equal(again.transform(noisy), model.transform(noisy))


@pytest.mark.parametrize("by", ["mixture", "network", "unchanged"])
def test_a_map_tells_the_error_of_each_pixel(
    fitted: tuple[ia.Denoiser, np.ndarray, np.ndarray], monkeypatch, by: str
) -> None:
    model, clean, noisy = fitted
    monkeypatch.setattr(model, "error_map", True)
    monkeypatch.setattr(model, "choice_", by)
    maps, errors = [], []
    for image, original in zip(noisy, clean, strict=True):
        made = model.restoration(image, ImageSpec(*image.shape, "float32", 0.0, 255.0))
        assert made.maps["error"].shape == image.shape[:2]
        maps.append(made.maps["error"])
        errors.append(np.square(made.pixels - original).mean(axis=2))
    expected, found = np.square(np.stack(maps)), np.stack(errors)
    assert expected.mean() == pytest.approx(found.mean(), rel=0.5)
    if by != "unchanged":
        least, most = (found[part].mean() for part in (expected < np.median(expected), expected > np.median(expected)))
        assert least < 0.8 * most


def test_the_error_of_missing_pixels_is_unknown(
    fitted: tuple[ia.Denoiser, np.ndarray, np.ndarray], monkeypatch
) -> None:
    model, _, noisy = fitted
    monkeypatch.setattr(model, "error_map", True)
    image = noisy[0].copy()
    image[3:5, 7] = np.nan
    made = model.restoration(image, ImageSpec(*image.shape, "float32", 0.0, 255.0))
    assert np.isnan(made.maps["error"][3:5, 7]).all()
    assert np.isfinite(made.maps["error"]).sum() == image[..., 0].size - 2
    assert made.facts["error"] > 0


def test_images_of_any_size_have_no_seams(fitted: tuple[ia.Denoiser, np.ndarray, np.ndarray], monkeypatch) -> None:
    from imatlas.models import denoiser

    model, _, noisy = fitted
    wide = np.concatenate([noisy[0], noisy[1], noisy[2]], axis=1)
    spec = ImageSpec(*wide.shape, "float32", 0, 255)
    model.choice_ = "network"
    whole = model.restore(wide, spec)
    monkeypatch.setattr(denoiser, "TILE", 64)
    monkeypatch.setattr(denoiser, "MARGIN", 48)
    assert model.restore(wide, spec) == pytest.approx(whole, abs=0.5)
    model.choice_ = min(model.risks_, key=lambda name: model.risks_[name])
    for shape in ((1, 40), (7, 3), (200, 1)):
        pixels = np.resize(noisy[0], (*shape, 1)).astype(np.float32)
        assert np.isfinite(model.restore(pixels, ImageSpec(*pixels.shape, "float32", 0, 255))).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_integers_and_alpha_are_kept(dtype: str, tmp_path) -> None:
    clean, noisy = noisy_images(channels=3, size=64)
    top = np.iinfo(dtype).max
    pixels = np.clip(np.rint(noisy * (top / 255)), 0, top).astype(dtype)
    alpha = np.full((*pixels.shape[:3], 1), top, dtype)
    alpha[:, :9] = 0
    images = np.concatenate([pixels, alpha], axis=3) if dtype == "uint8" else pixels
    model = ia.Denoiser(max_steps=2, width=8, progress=False).fit(images)
    restored = model.transform(images)
    assert restored.dtype == images.dtype
    assert np.array_equal(ia.load(model.save(tmp_path / "model")).transform(images), restored)
    if dtype == "uint8":
        assert np.array_equal(restored[..., 3:], alpha)
    span = float(top)
    assert psnr(clean * (top / 255), restored[..., :3], span=span) > psnr(clean * (top / 255), pixels, span=span) + 3


def test_seven_channels() -> None:
    _, noisy = noisy_images(channels=7, size=48)
    model = ia.Denoiser(max_steps=2, width=8, progress=False).fit(noisy)
    assert model.transform(noisy).shape == noisy.shape


def test_images_without_noise_are_returned_as_they_are() -> None:
    clean = np.rint(np.stack(scenes(3, size=64))).astype(np.uint8)
    smooth = np.full_like(clean, 120)
    model = ia.Denoiser(max_steps=2, width=8, progress=False).fit(smooth)
    assert model.choice_ == "unchanged"
    assert np.array_equal(model.transform(clean), clean)


@pytest.mark.parametrize("kind", ["white", "flat", "stripes"])
def test_one_drawing_without_noise_is_returned_as_it_is(kind: str) -> None:
    values = {"white": 255, "flat": 120, "stripes": np.tile([0, 255], 45)[:, None]}[kind]
    drawing = np.broadcast_to(np.asarray(values, np.uint8), (1, 96, 90, 3))
    model = ia.Denoiser(max_steps=2, width=8, progress=False).fit(drawing)
    assert np.abs(model.transform(drawing).astype(int) - drawing).max() <= 1


def test_clean_images_are_hardly_changed() -> None:
    clean = np.rint(np.stack(scenes(4, size=96))).astype(np.uint8)
    model = ia.Denoiser(max_steps=20, width=16, progress=False).fit(clean)
    assert psnr(clean, model.transform(clean), span=255) > 45


def test_missing_pixels_are_filled(fitted: tuple[ia.Denoiser, np.ndarray, np.ndarray]) -> None:
    model, clean, noisy = fitted
    gaps = noisy.copy()
    gaps[:, 20:26, 30:40] = np.nan
    restored = model.transform(gaps)
    assert np.isfinite(restored).all()
    assert np.abs(restored - clean)[:, 20:26, 30:40].mean() < 20
    assert np.isfinite(
        model.restore(np.full((9, 9, 1), np.nan, np.float32), ImageSpec(9, 9, 1, "float32", 0, 255))
    ).all()


def test_noise_that_is_stronger_than_the_fitted_is_removed_too(
    fitted: tuple[ia.Denoiser, np.ndarray, np.ndarray],
) -> None:
    model, clean, _ = fitted
    noisy = clean + np.random.default_rng(5).normal(0, 40, clean.shape).astype(np.float32)
    assert psnr(clean, model.transform(noisy), span=255) > psnr(clean, noisy, span=255) + 6


def test_one_image_is_enough() -> None:
    clean, noisy = noisy_images(n=1, size=128)
    model = ia.Denoiser(max_steps=2, width=8, progress=False).fit(noisy)
    assert model.choice_ == "mixture"
    assert psnr(clean, model.transform(noisy), span=255) > psnr(clean, noisy, span=255) + 6


def test_the_mixture_removes_correlated_noise_that_is_known() -> None:
    from scipy.ndimage import gaussian_filter

    clean = np.stack(scenes(4, size=128))
    rng = np.random.default_rng(0)
    noise = np.stack([gaussian_filter(rng.normal(size=(128, 128)), 0.8) for _ in range(4)])[..., None]
    noisy = clean + 15 * noise / noise.std()
    measured = measure_noise(list(noisy), 0, 255)
    stable = [measured.stabilize(image) for image in noisy]
    mixture = NoisyPatches.of(stable, measured.spectrum, 0)
    restored = np.stack([measured.destabilize(mixture.denoise(image)) for image in stable])
    assert psnr(clean, restored, span=255) > psnr(clean, noisy, span=255) + 4


def test_tiles_are_put_together_where_they_were() -> None:
    image = np.random.default_rng(0).random((50, 70, 2))
    assert np.array_equal(in_tiles(lambda tile: tile, image, 16, 8, 8), image)


def test_a_model_of_other_images_is_refused(fitted: tuple[ia.Denoiser, np.ndarray, np.ndarray]) -> None:
    with pytest.raises(InputError, match="1 channels, float32"):
        fitted[0].transform(np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="at least 8 x 8"):
        ia.Denoiser(progress=False).fit(np.zeros((2, 5, 5, 1), np.uint8))


def test_noise_and_choice_are_told(fitted: tuple[ia.Denoiser, np.ndarray, np.ndarray]) -> None:
    model, _, noisy = fitted
    first, second = model.summary()
    assert first.startswith("Noise: standard deviation ")
    assert f"Denoised by a {model.choice_}" in second
    spec = ImageSpec(*noisy[0].shape, "float32", 0, 255)
    assert model.restoration(noisy[0], spec).facts["noise"] == pytest.approx(20, rel=0.15)
    twice = noisy[0] + np.random.default_rng(5).normal(0, 20 * 3**0.5, noisy[0].shape).astype(np.float32)
    assert model.restoration(twice, spec).facts["noise"] == pytest.approx(40, rel=0.15)


def test_rounding_is_no_noise() -> None:
    clean, _ = noisy_images()
    pixels = np.rint(clean).clip(0, 255).astype(np.uint8)
    model = ia.Denoiser(max_steps=2, width=8, progress=False).fit(pixels)
    assert model.choice_ == "unchanged"
    assert "left alone" in model.summary()[1]
    assert np.array_equal(model.transform(pixels), pixels)


def test_few_of_the_values_of_a_depth_are_enough() -> None:
    """12 bits in 16, of which the noise is a small share of the range of the type."""
    clean, noisy = noisy_images(sigma=5)
    pixels, wanted = (np.rint(np.clip(image * 4, 0, 4095)).astype(np.uint16) for image in (noisy, clean))
    restored = ia.Denoiser(max_steps=2, width=8, progress=False).fit(pixels).transform(pixels)
    assert psnr(wanted, restored, span=4095) > psnr(wanted, pixels, span=4095) + 3


def test_a_network_is_for_white_noise() -> None:
    from scipy.ndimage import gaussian_filter

    clean, _ = noisy_images()
    noise = gaussian_filter(np.random.default_rng(0).normal(size=clean.shape), (0, 1, 1, 0))
    noisy = (clean + 15 * noise / noise.std()).astype(np.float32)
    model = ia.Denoiser(max_steps=2, width=8, progress=False).fit(noisy)
    assert set(model.risks_) == {"unchanged", "mixture"}
    assert "neighboring pixels share it" in model.summary()[0]
    assert psnr(clean, model.transform(noisy), span=255) > psnr(clean, noisy, span=255) + 3


def test_parts_of_large_sets_are_learned_from(monkeypatch) -> None:
    from imatlas.models.parts import originals

    _, noisy = noisy_images(channels=3)
    monkeypatch.setattr(originals, "MAX_FIT_VALUES", noisy.size // 4)
    parts, _ = originals.originals_of(noisy, None, 0, "A Denoiser")
    assert [part.shape for part in parts] == [(48, 48, 3)] * len(noisy)
    assert ia.Denoiser(max_steps=2, width=8, progress=False).fit(noisy).noise_.deviation() == pytest.approx(
        20, rel=0.15
    )


def test_an_impossible_risk_is_not_believed(fitted: tuple[ia.Denoiser, np.ndarray, np.ndarray], monkeypatch) -> None:
    model, _, _ = fitted
    monkeypatch.setattr(model, "risks_", {"unchanged": 1.0, "mixture": 0.3, "network": -9.0})
    monkeypatch.setattr(model, "choice_", "mixture")
    assert model._least_risk() == "mixture"
    assert "an unknown part by a network" in model.summary()[1]
