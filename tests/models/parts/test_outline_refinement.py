"""Outlines of regions brought to full resolution: they follow the image, and no region is torn or lost."""

import numpy as np
import pytest
from scipy.ndimage import label

from imatlas.images.spec import ImageSpec
from imatlas.models.parts import outline_refinement
from imatlas.models.parts.channels import Channels
from imatlas.models.parts.outline_refinement import RING, enlarged, refined


def channels_of(pixels):
    return Channels.of(pixels, ImageSpec(*pixels.shape, dtype=pixels.dtype.name))


def random_regions(height, width, n, rng):
    """Connected regions: pixels by their nearest seed along rows and columns."""
    from skimage.segmentation import watershed

    seeds = np.zeros((height, width), np.int32)
    seeds.ravel()[rng.permutation(height * width)[:n]] = np.arange(1, n + 1)
    return watershed(np.zeros((height, width)), seeds) - 1


def assert_connected(regions, n):
    assert np.array_equal(np.unique(regions), np.arange(n))
    assert all(label(regions == region)[1] == 1 for region in range(n))


@pytest.mark.parametrize("size", [(41, 57), (1, 90), (90, 1), (2, 60), (1, 1)])
def test_noise_tears_no_region_and_loses_none(size, rng):
    regions = random_regions(*size, min(60, size[0] * size[1] // 2 + 1), rng)
    pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    found = refined(regions, channels_of(pixels), n_sweeps=8)
    assert_connected(found, regions.max() + 1)
    if min(size) > 2:
        assert (found != regions).mean() > 0.05


def test_connectivity_by_the_ring_is_that_of_a_slow_reference():
    for code, keeps in enumerate(outline_refinement.keeps_connected()):
        window = np.zeros((3, 3), int)
        for bit, (dy, dx) in enumerate(RING):
            window[1 + dy, 1 + dx] = code >> bit & 1
        parts = label(window)[0]
        sides = parts[[0, 1, 1, 2], [1, 0, 2, 1]]
        assert keeps == (len(set(sides[sides > 0])) == 1), code


@pytest.mark.parametrize("factor", [2, 4])
def test_an_outline_at_a_fraction_of_the_size_returns_to_the_edge(factor, rng):
    y, x = np.mgrid[:200, :260]
    truth = ((y - 90.3) ** 2 + (x - 120.7) ** 2 < 61**2).astype(np.int32)
    pixels = np.clip(np.where(truth, 150, 90)[..., None] + rng.normal(0, 12, (200, 260, 3)), 0, 255).astype(np.uint8)
    pyramid, regions = [channels_of(pixels)], truth[::factor, ::factor]
    for _ in range(factor // 2 - 1):
        pyramid.append(pyramid[-1].halved())
    nearest = regions
    while pyramid:
        image = pyramid.pop()
        nearest, regions = enlarged(nearest, image.shape[:2]), refined(enlarged(regions, image.shape[:2]), image)
    assert (regions != truth).sum() < 0.25 * (nearest != truth).sum()
    assert_connected(regions, 2)


def test_parts_of_any_size_give_the_same(rng, monkeypatch):
    """Pixels are processed in chunks, and the image is read in bands: no seams."""
    from imatlas.models.parts import channels

    regions = random_regions(83, 121, 90, rng)
    pixels = rng.integers(0, 65536, (83, 121, 7)).astype(np.uint16)
    spec = ImageSpec(83, 121, 7, dtype="uint16", low=100, high=60000)
    whole, half = refined(regions, Channels.of(pixels, spec)), Channels.of(pixels, spec).halved().pixels
    monkeypatch.setattr(outline_refinement, "CHUNK", 37)
    monkeypatch.setattr(channels, "BAND", 500)
    np.testing.assert_array_equal(refined(regions, Channels.of(pixels, spec)), whole)
    np.testing.assert_array_equal(Channels.of(pixels, spec).halved().pixels, half)


def test_halving_is_the_mean_of_two_by_two_pixels():
    pixels = np.arange(15, dtype=np.uint8).reshape(3, 5, 1) * 17
    expected = [[3 / 15, 5 / 15, 6.5 / 15], [10.5 / 15, 12.5 / 15, 14 / 15]]
    np.testing.assert_allclose(channels_of(pixels).halved().pixels[..., 0], expected, atol=1e-6)
