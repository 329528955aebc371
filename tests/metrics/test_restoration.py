"""Errors of restored images against slow references, and what a perceptual distance must tell apart."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFilter

from imatlas.errors import InputError
from imatlas.metrics.restoration import perceptual_distance, ssim
from imatlas.models.parts.boundary_cues import texture_network
from tests.conftest import need_data


def ssim_of_windows(a: np.ndarray, b: np.ndarray, span: float) -> float:
    """Wang et al. 2004, equations 13 to 16, one window at a time."""
    places = np.arange(-5, 6)
    kernel = np.exp(-(places**2) / (2 * 1.5**2))
    weights = np.outer(kernel, kernel) / kernel.sum() ** 2
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    values = []
    for y in range(5, a.shape[0] - 5):
        for x in range(5, a.shape[1] - 5):
            u, v = (z[y - 5 : y + 6, x - 5 : x + 6] for z in (a, b))
            mean_u, mean_v = (weights * u).sum(), (weights * v).sum()
            variance = (weights * (u - mean_u) ** 2).sum() + (weights * (v - mean_v) ** 2).sum()
            covariance = (weights * (u - mean_u) * (v - mean_v)).sum()
            values.append(
                (2 * mean_u * mean_v + c1) * (2 * covariance + c2) / ((mean_u**2 + mean_v**2 + c1) * (variance + c2))
            )
    return float(np.mean(values))


def test_ssim_is_that_of_its_windows(rng):
    target = rng.integers(0, 256, (1, 15, 17, 2), dtype=np.uint8)
    image = np.clip(target + rng.normal(0, 30, target.shape), 0, 255).astype(np.uint8)
    expected = [ssim_of_windows(*(z[0, ..., c].astype(float) for z in (target, image)), span=255) for c in (0, 1)]
    assert ssim(target, image, span=255) == pytest.approx(np.mean(expected), abs=1e-6)
    assert ssim(target, target, span=255) == 1
    deep = [z.astype(np.uint16) * 257 for z in (target, image)]
    assert ssim(*deep, span=65535) == pytest.approx(np.mean(expected), abs=1e-6)


def test_ssim_leaves_out_windows_with_missing_pixels(rng):
    target, image = rng.random((2, 1, 20, 30, 1)).astype(np.float32)
    holed = target.copy()
    holed[0, 3, 2] = np.nan  # in the windows around the first 9 rows and 8 columns
    parts = [ssim_map_mean(target[0, ..., 0], image[0, ..., 0], slice(0, 9), slice(0, 8))]
    assert ssim(holed, image, span=1) == pytest.approx(parts[0], abs=1e-6)
    holed[0, ::5, ::5] = np.nan
    with pytest.raises(InputError, match="without missing"):
        ssim(holed, image, span=1)


def ssim_map_mean(a: np.ndarray, b: np.ndarray, rows: slice, columns: slice) -> float:
    """Mean over the windows whose center is not in a block at the top left."""
    total, n = 0.0, 0
    for y in range(5, a.shape[0] - 5):
        for x in range(5, a.shape[1] - 5):
            if not (rows.start <= y < rows.stop and columns.start <= x < columns.stop):
                part = (slice(y - 5, y + 6), slice(x - 5, x + 6))
                total, n = total + ssim_of_windows(a[part], b[part], 1), n + 1
    return total / n


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (1, 8, 40, 3), (32, 32, 3)])
def test_images_that_cannot_be_compared(shape):
    images = np.zeros(shape, np.uint8)
    for distance in (ssim, lambda a, b, span: perceptual_distance(a, b, span=span, network=texture_network())):
        with pytest.raises(InputError, match="Images to compare"):
            distance(images, images, span=255)
        with pytest.raises(InputError, match="one shape"):
            distance(np.zeros((1, 32, 32, 3)), np.zeros((1, 32, 32, 1)), span=255)


def test_perceptual_distance_is_zero_for_equal_images_and_independent_of_depth(rng):
    network = texture_network()
    target = rng.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    image = 255 - target
    distance = perceptual_distance(target, image, span=255, network=network)
    assert perceptual_distance(target, target, span=255, network=network) == 0
    assert 0.01 < distance < 2
    each = [perceptual_distance(target[i : i + 1], image[i : i + 1], span=255, network=network) for i in (0, 1)]
    assert distance == pytest.approx(np.mean(each), rel=1e-4)
    floats = [z.astype(np.float32) / 255 - 3 for z in (target, image)]
    assert perceptual_distance(*floats, span=1, low=-3, network=network) == pytest.approx(distance, rel=1e-3)
    gray = target[..., :1], image[..., :1]
    as_rgb = perceptual_distance(*(np.repeat(z, 3, -1) for z in gray), span=255, network=network)
    assert perceptual_distance(*gray, span=255, network=network) == pytest.approx(as_rgb, rel=1e-4)
    twice = (np.concatenate([z, z], -1) for z in gray)
    assert perceptual_distance(*twice, span=255, network=network) == pytest.approx(as_rgb, rel=1e-4)


def test_missing_pixels_have_no_perceptual_distance(rng):
    target = rng.random((1, 32, 32, 3)).astype(np.float32)
    image = target.copy()
    image[:, 4:9, 4:9] = 0
    target[:, 4:9, 4:9] = np.nan
    assert perceptual_distance(target, image, span=1, network=texture_network()) == 0


def test_more_of_a_distortion_is_farther_and_blur_is_farther_than_a_shift_of_equal_error():
    network = texture_network()
    photo = Image.open(need_data("kodak") / "kodim05.png").convert("RGB").crop((200, 100, 456, 356))
    target = np.asarray(photo)[None]
    noise = np.random.default_rng(0).normal(size=target.shape)

    def distance(image: np.ndarray) -> float:
        return perceptual_distance(target, image, span=255, network=network)

    def jpeg(quality: int) -> np.ndarray:
        file = BytesIO()
        photo.save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))[None]

    blurred = [np.asarray(photo.filter(ImageFilter.GaussianBlur(sigma)))[None] for sigma in (0.6, 1.2, 2.4)]
    noisy = [np.clip(target + sigma * noise, 0, 255).astype(np.uint8) for sigma in (5, 15, 45)]
    for weak_to_strong in (blurred, noisy, [jpeg(quality) for quality in (90, 50, 10)]):
        distances = [distance(image) for image in weak_to_strong]
        assert 0 < distances[0] < distances[1] < distances[2] < 2
    shifted = np.roll(target, 1, axis=2)
    errors = [np.square(image.astype(float) - target).mean() for image in (shifted, blurred[1])]
    assert errors[1] < errors[0]
    assert distance(shifted) < distance(blurred[1])
