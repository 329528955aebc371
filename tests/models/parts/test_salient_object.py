"""The salient object of one image, and its soft edge."""

import numpy as np
import pytest
from PIL import Image

from imatlas.models.parts.region_graph import region_graph
from imatlas.models.parts.salient_object import SalientObject, _background, _guided, salient_object, soft_alpha
from tests.conftest import need_data
from tests.models.parts.scenes import spec_of


def found_in(pixels, **options):
    return salient_object(region_graph(pixels, spec_of(pixels), **options))


def disc(height=90, width=120, y=40, x=70, radius=20):
    rows, columns = np.mgrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def scene(mask, rng):
    """A red object on two kinds of ground, both of which touch the border."""
    colors = np.where(np.arange(mask.shape[1])[:, None] < 50, [70, 110, 60], [90, 120, 170])
    pixels = np.where(mask[..., None], [200, 60, 50], colors[None])
    return np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)


def overlap(first, second):
    return (first & second).sum() / (first | second).sum()


def test_what_does_not_touch_the_border_stands_out(rng):
    mask = disc()
    found = found_in(scene(mask, rng))
    assert overlap(found.mask, mask) > 0.9
    assert found.saliency.dtype == np.float32
    assert 0 <= found.saliency.min() <= found.saliency.max() <= 1
    np.testing.assert_allclose(found.box, (20, 50, 60, 90), atol=2)


def test_two_like_objects_are_both_found_and_a_speck_is_not(rng):
    two = disc(y=45, x=35) | disc(y=45, x=85)
    assert overlap(found_in(scene(two, rng)).mask, two) > 0.85
    large = disc(y=45, x=35)
    assert overlap(found_in(scene(large | disc(y=45, x=95, radius=5), rng)).mask, large) > 0.85


def test_large_images_are_looked_at_in_a_reduced_copy(rng):
    mask = disc(180, 240, 80, 140, 40)
    pixels = scene(mask[::2, ::2], rng).repeat(2, axis=0).repeat(2, axis=1)
    found = found_in(pixels, max_pixels=15_000)
    assert found.mask.shape == mask.shape
    assert overlap(found.mask, mask) > 0.9


def test_background_by_hand():
    """Three columns, the middle one an island if nothing joins it with the others: 1 - exp(-connectivity² / 2)."""
    segments = np.zeros((7, 7), np.int32)
    segments[2:5, 2:5] = 1
    sizes, pairs = np.array([40, 9]), np.array([[0, 1]])
    apart = _background(segments, sizes, pairs, np.array([1 - 1e-9]))
    np.testing.assert_allclose(apart, [1 - np.exp(-(24**2 / 40) / 2), 0], atol=1e-6)
    level = 0.5
    reached = np.exp(-(np.log(2) ** 2) / 2)
    joined = _background(segments, sizes, pairs, np.array([level]))
    assert joined[1] == pytest.approx(1 - np.exp(-((24 * reached) ** 2 / (9 + 40 * reached)) / 2))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (40, 1, 1), (3, 2, 4), (33, 47, 7), (20, 20, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_of_every_size_and_kind(shape, dtype, rng):
    high = 1 if dtype == np.float32 else 200
    pixels = (rng.random(shape) * high).astype(dtype)
    found = salient_object(region_graph(pixels, spec_of(pixels, 0, high)))
    assert found.mask.shape == found.saliency.shape == shape[:2]
    assert np.isfinite(found.saliency).all()


def test_one_color_has_no_object():
    found = found_in(np.full((20, 30, 3), 90, np.uint8))
    assert not found.mask.any()
    assert found.box is None
    assert SalientObject(np.zeros((2, 3)), np.eye(2, 3, dtype=bool)).box == (0, 0, 2, 2)


def test_the_edge_takes_the_colors_between(rng):
    """An anti-aliased disc on a plain ground; its alpha is nearer to the truth than the mask's."""
    fine = disc(180, 240, 80, 140, 41).astype(float)
    truth = fine.reshape(90, 2, 120, 2).mean(axis=(1, 3))
    truth = (truth + np.roll(truth, 1, 0) + np.roll(truth, 1, 1)) / 3
    colors = np.array([60, 90, 160]) + truth[..., None] * np.array([140, -30, -110])
    picture = np.clip(colors + rng.normal(0, 1, colors.shape), 0, 255).astype(np.uint8)
    mask = truth > 0.5
    alpha = soft_alpha(picture, mask)
    assert np.abs(alpha - truth).sum() < 0.5 * np.abs(mask - truth).sum()
    assert set(alpha[disc(radius=14)]) == {1}
    assert set(alpha[~disc(radius=27)]) == {0}


def test_alpha_does_not_depend_on_the_tiles(rng, monkeypatch):
    mask = disc()
    picture = scene(mask, rng)
    whole = soft_alpha(picture, mask)
    monkeypatch.setattr("imatlas.models.parts.salient_object.TILE", 17)
    np.testing.assert_allclose(soft_alpha(picture, mask), whole, atol=1e-6)
    for one in (np.zeros_like(mask), np.ones_like(mask)):
        np.testing.assert_array_equal(soft_alpha(picture, one), one)


def test_the_guided_filter_keeps_what_is_linear_in_the_colors(rng):
    image = rng.random((30, 30, 3))
    values = image @ np.array([0.3, -0.2, 0.5]) + 0.1
    np.testing.assert_allclose(_guided(image, values, np.ones((30, 30), bool)), values, atol=2e-3)


def test_a_row_of_caps():
    """The caps of Kodak 3, and neither wall nor sky."""
    with Image.open(need_data("kodak/kodim03.png")) as image:
        pixels = np.asarray(image.convert("RGB").resize((384, 256)))
    mask = found_in(pixels).mask
    assert all(mask[place] for place in [(75, 95), (130, 190), (145, 250)])
    assert not any(mask[place] for place in [(20, 250), (220, 60), (60, 370), (250, 300)])
