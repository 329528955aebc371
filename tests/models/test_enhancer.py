"""Enhancer: the contract, known faults undone, good images left alone, and curves that do no harm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import imatlas as ia
from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr
from imatlas.models.enhancer import Enhancer
from imatlas.models.parts.color_casts import LUMINANCE, balanced, cast_hypotheses, chromas
from imatlas.models.parts.fault_hypotheses import Density, Hypotheses
from imatlas.models.parts.tone_curves import (
    MAX_GAIN,
    QUANTILES,
    built_in_tone,
    encoded,
    linear,
    tone_hypotheses,
    tone_quantiles,
)
from imatlas.testing import check_image_estimator


def scenes(n: int, seed: int = 0, size: int = 64) -> np.ndarray:
    """Colored rectangles under a soft shadow (n, size, size, 3) uint8, which fill the range from black to white."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    images = []
    for _ in range(n):
        image = np.full((size, size, 3), 0.45)
        for _ in range(60):
            left, top = rng.uniform(-0.2, 1, 2)
            inside = (x > left) & (x < left + rng.uniform(0.05, 0.4)) & (y > top) & (y < top + rng.uniform(0.05, 0.4))
            image[inside] = np.clip(rng.beta(1.2, 1.4) + rng.normal(0, 0.08, 3), 0, 1)
        image = image * (0.9 + 0.1 * np.cos(3 * x + rng.uniform(0, 6)))[..., None]
        image[:2, :4], image[:2, 4:8] = 0, 1
        images.append(np.rint(255 * image).astype(np.uint8))
    return np.stack(images)


def darker(images: np.ndarray, stops: float) -> np.ndarray:
    return np.rint(255 * encoded(linear(images / 255) / 2**stops)).astype(np.uint8)


def tinted(images: np.ndarray) -> np.ndarray:
    gains = np.array([1.3, 1.0, 0.6])
    return np.rint(255 * encoded(np.clip(linear(images / 255) * gains / (gains @ LUMINANCE), 0, 1))).astype(np.uint8)


def mean_psnr(images: np.ndarray, found: np.ndarray) -> float:
    return float(np.mean([psnr(a[None], b[None], span=255) for a, b in zip(images, found, strict=True)]))


@pytest.fixture(scope="module")
def fitted() -> Enhancer:
    return Enhancer().fit(scenes(24))


def test_contract() -> None:
    check_image_estimator(Enhancer())


def test_good_images_are_left_alone_bit_by_bit(fitted: Enhancer) -> None:
    new = scenes(12, seed=1)
    unchanged = [np.array_equal(a, b) for a, b in zip(new, fitted.transform(new), strict=True)]
    assert np.mean(unchanged) >= 0.9


@pytest.mark.parametrize("stops", [1, 2, 3])
def test_too_little_light(fitted: Enhancer, stops: int) -> None:
    new = scenes(8, seed=1)
    found = fitted.transform(darker(new, stops))
    assert mean_psnr(new, found) > max(27, mean_psnr(new, darker(new, stops)) + 8)


def test_low_contrast(fitted: Enhancer) -> None:
    new = scenes(8, seed=1)
    flat = np.rint(0.4 * new + 60).astype(np.uint8)
    assert mean_psnr(new, fitted.transform(flat)) > 27


def test_casts_are_removed_and_only_on_request() -> None:
    images = scenes(24)
    model = Enhancer().fit(images)
    new = scenes(8, seed=1)
    found = model.transform(tinted(new))
    assert mean_psnr(new, found) > mean_psnr(new, tinted(new)) + 4
    kept = model.set_params(white_balance=False).transform(tinted(new))
    assert mean_psnr(tinted(new), kept) > 35


def test_a_minority_of_dark_images_is_brightened_by_the_others() -> None:
    images = scenes(24)
    mixed = images.copy()
    mixed[::3] = darker(images[::3], 2)
    found = Enhancer().fit(mixed).transform(mixed)
    assert mean_psnr(images[::3], found[::3]) > 27
    assert mean_psnr(images, found) > 27


def test_what_most_images_are_like_is_typical_unless_compared_with_photographs() -> None:
    dark = darker(scenes(40), 1.5)
    alone = Enhancer().fit(dark).transform(dark)
    assert np.abs(alone.astype(int) - dark).mean() < 3
    brightened = Enhancer(reference="photographs").fit(dark).transform(dark)
    assert brightened.mean() > 1.5 * dark.mean()


def test_a_set_of_one_color_keeps_it() -> None:
    pink = tinted(scenes(40))
    found = Enhancer().fit(pink).transform(pink)
    assert np.mean([np.array_equal(a, b) for a, b in zip(pink, found, strict=True)]) >= 0.8


def test_facts_and_summary_tell_what_was_done(fitted: Enhancer) -> None:
    dark = darker(scenes(1, seed=1), 2)[0]
    spec = ImageSpec(*dark.shape)
    told = fitted.restoration(dark, spec)
    assert np.array_equal(told.pixels, fitted.restore(dark, spec))
    assert told.facts["changed"]
    assert told.facts["mean_before"] == pytest.approx(dark.mean() / 255, abs=1e-3)
    assert told.facts["mean_after"] == pytest.approx(told.pixels.mean() / 255, abs=1e-3)
    assert fitted.summary()[0].startswith("Learned from 24 images")
    assert len(fitted.summary()) == 1
    assert "compare them with photographs" in Enhancer().fit(darker(scenes(40), 1.5)).summary()[1]
    assert Enhancer(reference="photographs").fit(scenes(2)).summary() == ["Compared with photographs in general."]


def test_strength(fitted: Enhancer) -> None:
    dark = darker(scenes(1, seed=2), 2)
    full = fitted.transform(dark).astype(int)
    model = Enhancer().fit(scenes(24))
    assert np.array_equal(model.set_params(strength=0.0).transform(dark), dark)
    half = model.set_params(strength=0.5).transform(dark).astype(int)
    assert np.abs(half - (full + dark) / 2).max() <= 1


@pytest.mark.parametrize("change", [lambda x: darker(x, 3), tinted, lambda x: (x * 0.4 + 60).astype(np.uint8)])
def test_curves_are_monotone_without_halos_and_clip_little(fitted: Enhancer, change) -> None:
    n_changed = 0
    for pixels in change(scenes(4, seed=3)):
        spec = ImageSpec(*pixels.shape)
        curves = fitted.correction(pixels, spec).curves
        if curves is None:
            continue
        n_changed += 1
        assert (np.diff(curves, axis=1) >= 0).all()
        assert (curves <= 1.3 * MAX_GAIN * np.linspace(0, 1, curves.shape[1]) + 1e-9).all()
        found = fitted.restore(pixels, spec)
        for level in (0, 255):
            assert (found == level).mean() <= (pixels == level).mean() + 0.02
        for channel in range(3):  # values keep their order everywhere, so edges have no halos
            order = np.argsort(pixels[..., channel], axis=None)
            assert (np.diff(found[..., channel].ravel()[order].astype(int)) >= 0).all()
    assert n_changed >= 2


def test_hues_are_kept_by_a_curve_of_tone(fitted: Enhancer) -> None:
    pixels = darker(scenes(1, seed=4), 2)[0]
    found = Enhancer(white_balance=False).fit(scenes(24)).restore(pixels, ImageSpec(*pixels.shape))
    before, after = (linear(x / 255).mean(axis=(0, 1)) for x in (pixels, found))
    assert np.abs(np.log(before / before.mean()) - np.log(after / after.mean())).max() < 0.05


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_depths_give_the_same_curve(dtype: str) -> None:
    images, new = scenes(24), darker(scenes(3, seed=1), 2)
    deep = [(x.astype(np.float32) / 255 if dtype == "float32" else x.astype(np.uint16) * 257) for x in (images, new)]
    found = Enhancer().fit(deep[0]).transform(deep[1])
    assert found.dtype == dtype
    scale = 255 if dtype == "float32" else 1 / 257
    expected = Enhancer().fit(images).transform(new)
    assert np.abs(found * scale - expected).max() < 1.5


def test_alpha_and_missing_pixels_are_kept() -> None:
    images = scenes(12)
    opacity = np.full((*images.shape[:3], 1), 255, np.uint8)
    opacity[:, 40:] = 0
    images[:, 40:] = 3  # hidden pixels must not count
    rgba = np.concatenate([images, opacity], axis=3)
    model = Enhancer().fit(rgba)
    dark = rgba.copy()
    dark[..., :3] = darker(rgba[..., :3], 2)
    found = model.transform(dark)
    assert np.array_equal(found[..., 3], opacity[..., 0])
    assert mean_psnr(images[:, :40], found[:, :40, :, :3]) > 27
    floats = scenes(12).astype(np.float32) / 255
    floats[:, ::7, ::5] = np.nan
    model = Enhancer().fit(floats)
    spec = ImageSpec(64, 64, 3, "float32", 0.0, 1.0)
    restored = model.restore(floats[0] * np.float32(0.3), spec)
    assert np.array_equal(np.isnan(restored), np.isnan(floats[0]))


def test_values_outside_the_range_are_shifted_in_order() -> None:
    floats = scenes(12).astype(np.float32) / 255
    model = Enhancer().fit(floats)
    pixels = floats[0] * np.float32(0.3)
    pixels[0, 0], pixels[0, 1] = 1.5, -0.5
    spec = ImageSpec(64, 64, 3, "float32", 0.0, 1.0)
    found = model.restore(pixels, spec)
    assert found[0, 0].min() >= found[1:].max()
    assert found[0, 1].max() <= found[1:].min()


@pytest.mark.parametrize("channels", [1, 2, 7])
def test_measurements_share_one_curve(channels: int) -> None:
    images = np.concatenate([scenes(12), scenes(12, seed=5), scenes(12, seed=6)], axis=3)[..., :channels]
    model = Enhancer().fit(images)
    spec = ImageSpec(64, 64, channels)
    curves = model.correction(darker(images[0], 2), spec).curves
    assert curves is not None
    assert curves.shape == (channels, 1025)
    assert (curves == curves[0]).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 3), (40, 1, 4), (2, 2, 7), (5, 300, 3)])
def test_tiny_and_constant_images(fitted: Enhancer, shape: tuple[int, int, int]) -> None:
    spec = ImageSpec(*shape)
    constant = np.full(shape, 40, np.uint8)
    assert np.array_equal(fitted.restore(constant, spec), constant)
    some = np.random.default_rng(0).integers(0, 60, shape).astype(np.uint8)
    assert fitted.restore(some, spec).shape == shape


def test_other_sizes_and_saved_models(fitted: Enhancer, tmp_path: Path) -> None:
    wide = darker(np.concatenate(list(scenes(3, seed=1)), axis=1), 2)
    found = fitted.restore(wide, ImageSpec(*wide.shape))
    assert np.array_equal(ia.load(fitted.save(tmp_path / "model")).transform(wide[None])[0], found)
    with pytest.raises(InputError, match="uint8 images"):
        fitted.transform(wide[None].astype(np.uint16))


def test_the_true_fault_is_among_the_hypotheses() -> None:
    quantiles = tone_quantiles(scenes(1)[0] / 255)
    for fault in (lambda q: encoded(linear(q) / 4), lambda q: 0.2 + 0.5 * q, lambda q: q**2):
        hypotheses, curves = tone_hypotheses(fault(quantiles))
        errors = np.abs(hypotheses.faultless - quantiles).max(axis=1)
        assert errors.min() < 0.04
        assert (curves.black[0], curves.white[0], curves.power[0]) == (0, 1, 1)
        np.testing.assert_allclose(hypotheses.faultless[0], fault(quantiles))
        assert hypotheses.faultless.shape == (len(curves.power), len(QUANTILES))


def test_weights_are_the_posterior_of_a_t_distribution() -> None:
    density = Density(np.array([0.2, 0.4]), np.array([[0.04, 0.01], [0.01, 0.09]]))
    hypotheses = Hypotheses(np.array([[0.3, 0.1], [0.2, 0.4], [0.9, 0.9]]), np.log([0.5, 0.3, 0.2]))
    inverse = np.linalg.inv(density.scatter)
    deviations = hypotheses.faultless - density.mean
    squares = np.array([d @ inverse @ d for d in deviations])
    expected = np.array([0.5, 0.3, 0.2]) * (1 + squares / 5) ** -3.5
    np.testing.assert_allclose(density.weights(hypotheses), expected / expected.sum())


def test_a_density_without_images_is_the_built_in_one_and_moves_to_many() -> None:
    density = built_in_tone()
    alone = density.fitted([])
    np.testing.assert_allclose(alone.mean, density.mean)
    np.testing.assert_allclose(alone.scatter, density.scatter)
    rng = np.random.default_rng(0)
    rows = rng.multivariate_normal(density.mean - 0.05, density.scatter / 4, 500)
    moved = density.fitted([Hypotheses(row[None], np.zeros(1)) for row in rows])
    assert np.abs(moved.mean - density.mean + 0.05).max() < 0.01
    assert np.abs(np.diag(moved.scatter) / np.diag(density.scatter) - 0.25).max() < 0.1


def test_a_cast_moves_all_estimates_alike_and_is_undone() -> None:
    image = 0.1 + 0.6 * scenes(1)[0] / 255
    gains = np.array([1.2, 1.0, 0.7])
    moved = chromas(encoded(linear(image) * gains)) - chromas(image)
    np.testing.assert_allclose(moved.reshape(4, 2), np.log(gains[[0, 2]])[None].repeat(4, axis=0), atol=0.05)
    hypotheses, casts = cast_hypotheses(chromas(image))
    assert (casts[0] == 0).all()
    np.testing.assert_allclose(hypotheses.faultless + np.tile(casts, 4), chromas(image)[None].repeat(len(casts), 0))
    knots = np.linspace(0, 1, 1025)
    curves = balanced(knots, np.log(gains[[0, 2]]), np.full(3, 0.5))
    grays = encoded(linear(np.full(3, 0.4)) * gains)
    restored = [np.interp(value, knots, curve) for value, curve in zip(grays, curves, strict=True)]
    assert np.ptp(restored) < 0.01


def test_spec_of_another_depth_uses_its_own_range(fitted: Enhancer) -> None:
    dark = darker(scenes(1, seed=1), 2)[0]
    spec = ImageSpec(64, 64, 3, "uint16", 0.0, 65535.0)
    found = fitted.restore(dark.astype(np.uint16) * 257, spec)
    expected = fitted.restore(dark, replace(spec, dtype="uint8", high=255.0))
    assert np.abs(found / 257 - expected).max() < 1.5
