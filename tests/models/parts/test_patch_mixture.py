"""The mixture of patches, and the fill of scattered missing pixels."""

import numpy as np
import pytest
import torch

from imatlas.images.spec import ImageSpec
from imatlas.models.parts import patch_mixture
from imatlas.models.parts.patch_mixture import PatchMixture, is_scattered
from imatlas.testing import synthetic_images


def mixture_of(images, missing=None):
    return PatchMixture.of(images, missing, ImageSpec(*images.shape[1:], alpha=False), 0)


def test_a_pixel_is_scattered_if_enough_pixels_around_it_are_known():
    known = np.ones((24, 24), bool)
    known[2, 2] = False
    known[8:22, 8:22] = False
    scattered = is_scattered(known)
    assert scattered[2, 2]
    assert scattered[8, 8]
    assert not scattered[14:16, 14:16].any()
    assert not (scattered & known).any()


def test_the_fill_is_the_minimum_of_the_quadratic_form(monkeypatch):
    monkeypatch.setattr(patch_mixture, "STEPS", (400,))
    monkeypatch.setattr(patch_mixture, "ROUGHNESS", 1e-2)
    rng = np.random.default_rng(0)
    root = torch.from_numpy(rng.normal(0, 0.3, (9, 9)).astype(np.float32))
    covariance = root @ root.T + 0.05 * torch.eye(9)
    mixture = PatchMixture(3, torch.full((9,), 0.1), covariance[None], torch.ones(1))
    image = torch.from_numpy(rng.normal(0, 0.5, (1, 8, 8)).astype(np.float32))
    known = torch.from_numpy(rng.random((8, 8)) < 0.5)
    found = mixture.fill(image, known)
    precision = np.linalg.inv(covariance.double().numpy() + 1e-2 * np.eye(9))
    matrix = np.zeros((64, 64))
    for top in range(6):
        for left in range(6):
            at = [8 * (top + i) + left + j for i in range(3) for j in range(3)]
            matrix[np.ix_(at, at)] += precision
    free = ~known.numpy().ravel()
    x = image.double().numpy().ravel() - 0.1
    x[free] = np.linalg.solve(matrix[np.ix_(free, free)], -matrix[np.ix_(free, ~free)] @ x[~free])
    np.testing.assert_allclose(found.numpy().ravel(), x + 0.1, atol=1e-3)
    assert torch.equal(found[:, known], image[:, known])


def test_a_mixture_of_two_textures_fills_each_with_its_own():
    """Stripes along one axis in half of the images, along the other in the rest: no single Gaussian knows both."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 6.28, (60, 1, 1))
    wave = 127 + 90 * np.sin(np.arange(24)[None, None] * 1.9 + phase) + np.zeros((60, 24, 1))
    wave[::2] = wave[::2].transpose(0, 2, 1)
    images = wave.astype(np.uint8)[..., None]
    mixture, spec = mixture_of(images[:58]), ImageSpec(24, 24, 1)
    assert len(mixture.weights) > 1
    known = torch.from_numpy(rng.random((24, 24)) < 0.5)
    for one in images[58:]:
        values = patch_mixture.to_values(one[None], spec)[0]
        smooth = torch.from_numpy(patch_mixture.smooth_fill(values.numpy(), known.numpy()))
        errors = [float((made - values).square().mean()) for made in (smooth, mixture.fill(values, known))]
        assert errors[1] < errors[0] / 50


def test_patches_with_missing_pixels_are_left_out():
    images = synthetic_images(20, size=16, random_state=0)
    missing = np.zeros(images.shape[:3], np.uint8)
    missing[:, 4:6, 4:6] = 1
    wild = images.copy()
    wild[:, 4:6, 4:6] = 255 - wild[:, 4:6, 4:6]
    first, second = mixture_of(images, missing), mixture_of(wild, missing)
    assert torch.equal(first.covariances, second.covariances)


def test_without_complete_patches_there_is_no_mixture():
    images = synthetic_images(4, size=8, random_state=0)
    assert mixture_of(images, np.ones(images.shape[:3], np.uint8)) is None


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 40])
def test_any_number_of_channels(channels):
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 10, channels), dtype=np.uint8)
    known = torch.from_numpy(np.random.default_rng(1).random((12, 10)) < 0.6)
    values = torch.from_numpy(images[0].transpose(2, 0, 1) / np.float32(127.5) - 1)
    made = mixture_of(images).fill(values, known)
    assert torch.isfinite(made).all()
    assert torch.equal(made[:, known], values[:, known])


def test_images_of_one_color_are_filled_with_it():
    images = np.full((5, 12, 12, 3), 200, np.uint8)
    known = torch.ones(12, 12, dtype=torch.bool)
    known[3:5, 3] = False
    filled, then_known = mixture_of(images).fill_scattered(torch.full((3, 12, 12), 0.5), known)
    assert then_known.all()
    assert float(filled[:, 3:5, 3].min()) > 0.45
    assert float(filled[:, 3:5, 3].max()) < 0.6
