import numpy as np
import pytest
import torch

from imatlas.nn.texture import N_FILTERS, N_SCALES, local_statistics, random_filters, texture, texture_distance
from imatlas.testing import synthetic_images


def test_statistics_are_those_of_the_windows():
    x = torch.randn(2, 3, 8, 12)
    found = local_statistics(x, 4)
    assert found.shape == (2, 6, 2, 3)
    window = x[1, 2, 4:, 8:]
    assert torch.allclose(found[1, 2, 1, 2], window.mean(), atol=1e-6)
    assert torch.allclose(found[1, 5, 1, 2], (window.var(correction=0) + 1e-4).sqrt(), atol=1e-5)


def filters(n_channels):
    return random_filters(n_channels, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 17, 3), (130, 20, 4)])
def test_any_size(shape):
    height, width, channels = shape
    x = torch.rand(2, channels, height, width)
    assert [s.shape[:2] for s in texture(x, filters(channels))] == [(2, 2 * N_FILTERS)] * N_SCALES
    assert float(texture_distance(x, x, filters(channels))) == 0
    assert float(texture_distance(torch.zeros_like(x), x, filters(channels))) > 0


def test_images_without_variation_have_a_finite_distance():
    flat = torch.zeros(4, 1, 16, 16)
    assert torch.isfinite(texture_distance(flat + 0.1, flat, filters(1)))


def test_other_grain_is_nearer_than_blur():
    """The squared error prefers the mean of all grain; the distance of textures, grain that is as strong."""
    generator = torch.Generator().manual_seed(0)
    flat = torch.from_numpy(synthetic_images(16, size=32, random_state=0)).permute(0, 3, 1, 2) / 127.5 - 1
    real, other = (flat + 0.3 * torch.randn(flat.shape, generator=generator) for _ in range(2))
    assert texture_distance(other, real, filters(1)) < 0.5 * texture_distance(flat, real, filters(1))
    assert (other - real).square().mean() > 1.5 * (flat - real).square().mean()


def test_a_gradient_restores_the_strength_of_grain():
    generator = torch.Generator().manual_seed(0)
    real, noise = (torch.randn(8, 1, 32, 32, generator=generator) for _ in range(2))
    strength = torch.tensor(0.1, requires_grad=True)
    optimizer = torch.optim.Adam([strength], lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        texture_distance(strength * noise, 0.4 * real, random_filters(1, generator)).backward()
        optimizer.step()
    assert np.isclose(strength.item(), 0.4, atol=0.05)
