"""Noise is measured on images: its level by brightness, its spectrum, and the transforms that follow from it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from imatlas.models.parts.noise import (
    N_FREQUENCIES,
    OPPONENT,
    Noise,
    covariance_of,
    downscaled_power,
    measure_noise,
    power_of,
    total_power,
)

WHITE = np.ones((1, N_FREQUENCIES, N_FREQUENCIES))


def scenes(n: int = 6, *, channels: int = 1, size: int = 160, top: float = 200.0) -> list[np.ndarray]:
    """Smooth shapes with edges and some texture (size, size, channels), values from 20 to `top`."""
    rng, out = np.random.default_rng(3), []
    y, x = np.mgrid[:size, :size] / size
    for _ in range(n):
        a, b, c = rng.uniform(1, 4, 3)
        picture = 0.5 + 0.3 * np.sin(a * x + b * y) + 0.2 * (np.hypot(x - 0.5, y - 0.5) < 0.1 * c)
        stripes = 0.05 * np.sin(40 * x) * (y > 0.7)
        out.append(np.repeat((20 + (top - 20) * (picture + stripes).clip(0, 1))[..., None], channels, axis=2))
    return out


@pytest.mark.parametrize("sigma", [2.0, 10.0, 40.0])
def test_white_noise_is_measured(sigma: float) -> None:
    rng = np.random.default_rng(0)
    noise = measure_noise([image + rng.normal(0, sigma, image.shape) for image in scenes()], 0, 255)
    assert noise.deviations == pytest.approx(sigma, rel=0.12)
    assert total_power(noise.spectrum) == pytest.approx(1, rel=0.1)
    assert noise.spectrum[0, 2:, 2:] == pytest.approx(1, abs=0.3)


def test_noise_that_depends_on_brightness_is_measured() -> None:
    rng = np.random.default_rng(0)
    noisy = [image + rng.normal(size=image.shape) * np.sqrt(2 * image + 25) for image in scenes()]
    noise = measure_noise(noisy, 0, 255)
    assert noise.deviations[0] == pytest.approx(np.sqrt(2 * noise.levels[0] + 25), rel=0.2)
    stable = np.stack([noise.stabilize(image)[..., 0] for image in noisy])
    clean = np.stack([noise.stabilize(image)[..., 0] for image in scenes()])
    dark, bright = (
        np.std((stable - clean)[part]) for part in (np.stack(scenes())[..., 0] < 60, np.stack(scenes())[..., 0] > 150)
    )
    assert dark == pytest.approx(1, rel=0.2)
    assert bright == pytest.approx(1, rel=0.2)


def test_the_spectrum_of_correlated_noise_is_measured() -> None:
    rng, width = np.random.default_rng(0), 0.8
    noisy = []
    for image in scenes():
        blurred = gaussian_filter(rng.normal(size=image.shape[:2]), width)
        noisy.append(image + 15 * (blurred / blurred.std())[..., None])
    noise = measure_noise(noisy, 0, 255)
    omega = np.pi * np.arange(N_FREQUENCIES) / 8
    expected = np.exp(-((width * omega) ** 2))
    expected = np.outer(expected, expected)
    expected /= total_power(expected[None])
    assert noise.spectrum[0, 1:5, 1:5] == pytest.approx(expected[1:5, 1:5], rel=0.35)
    assert noise.spectrum[0, 7:, 7:].max() < 0.05


def test_images_without_noise_have_almost_none() -> None:
    noise = measure_noise([np.full((40, 40, 1), 90.0), np.full((40, 40, 1), 91.0)], 0, 255)
    assert noise.deviations.max() < 0.1


def test_missing_pixels_are_left_out() -> None:
    rng = np.random.default_rng(0)
    noisy = [image + rng.normal(0, 10, image.shape) for image in scenes()]
    for image in noisy:
        image[10:60, 20:90] = np.nan
    assert measure_noise(noisy, 0, 255).deviations == pytest.approx(10, rel=0.15)


def test_stabilizing_is_undone_without_bias() -> None:
    levels = np.linspace(0, 255, 12)[None]
    noise = Noise(levels, np.sqrt(2 * levels + 25), WHITE)
    rng = np.random.default_rng(0)
    for value in (15.0, 80.0, 200.0):
        noisy = value + rng.normal(size=(400, 400, 1)) * np.sqrt(2 * value + 25)
        mean = noise.stabilize(noisy).mean(axis=(0, 1), keepdims=True)
        assert noise.destabilize(mean)[0, 0, 0] == pytest.approx(value, abs=0.3)


def test_colors_are_measured_along_lightness_and_differences() -> None:
    assert pytest.approx(np.eye(3)) == OPPONENT @ OPPONENT.T
    rng = np.random.default_rng(0)
    gray = [image + rng.normal(0, 10, (*image.shape[:2], 1)) for image in scenes(channels=3)]
    spectrum = measure_noise(gray, 0, 255).spectrum
    assert total_power(spectrum[:1]) == pytest.approx(3, rel=0.15)
    assert total_power(spectrum[1:]) < 0.1


def test_the_gain_of_one_image_is_found_and_small_differences_are_ignored() -> None:
    rng = np.random.default_rng(0)
    white, noise = rng.normal(size=(200, 200, 1)).astype(np.float32), Noise(np.zeros((1, 1)), np.ones((1, 1)), WHITE)
    assert noise.gain(white) == 1
    assert noise.gain(1.05 * white) == 1
    assert noise.gain(2 * white) == pytest.approx(2, rel=0.1)
    assert noise.gain(white[:4, :4]) == 1


def test_power_of_downscaled_images() -> None:
    rng = np.random.default_rng(0)
    blurred = gaussian_filter(rng.normal(size=(256, 64, 64)), (0, 0.5, 0.5), mode="wrap")
    power = np.square(np.abs(np.fft.rfft2(blurred))).mean(axis=0) / 64**2
    at = np.round(np.arange(N_FREQUENCIES) * 4).astype(int)
    spectrum = power[np.ix_(at, at)]
    assert power_of(spectrum, (64, 64)) == pytest.approx(power, rel=0.35, abs=0.05)
    halved = blurred.reshape(256, 32, 2, 32, 2).mean(axis=(2, 4))
    measured = np.square(np.abs(np.fft.rfft2(halved))).mean(axis=0) / 32**2
    assert downscaled_power(spectrum, (32, 32)) == pytest.approx(measured, rel=0.4, abs=0.03)
    assert downscaled_power(WHITE[0], (32, 32)) == pytest.approx(0.25)


def test_covariance_of_patches() -> None:
    assert covariance_of(WHITE, 3) == pytest.approx(1.001 * np.eye(9), abs=1e-6)
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.normal(size=(1500, 1500)), 0.8, mode="wrap")
    omega = np.pi * np.arange(N_FREQUENCIES) / 8
    spectrum = np.exp(-((0.8 * omega) ** 2))
    spectrum = np.outer(spectrum, spectrum)
    spectrum *= noise.var() / total_power(spectrum[None])
    patches = np.lib.stride_tricks.sliding_window_view(noise, (3, 3)).reshape(-1, 9)
    assert covariance_of(spectrum[None], 3) == pytest.approx(np.cov(patches.T), rel=0.15, abs=0.01 * noise.var())


def test_texture_of_bright_parts_is_no_noise() -> None:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(8):
        image = np.full((128, 128), 60.0)
        texture = gaussian_filter(rng.normal(size=(128, 64)), 1.0)
        image[:, 64:] = 160 + 20 * texture / texture.std()
        images.append((image + rng.normal(0, 3, image.shape))[..., None])
    noise = measure_noise(images, 0, 255)
    assert noise.deviations == pytest.approx(3, rel=0.15)
    assert noise.gain(images[0][:, 64:]) == pytest.approx(1, abs=0.2)
    assert noise.gain(60 + 6 * rng.normal(size=(128, 128, 1))) > 1.7
