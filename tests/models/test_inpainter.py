"""Inpainting: known pixels stay, holes continue what is around them, and sizes, depths and channels are any."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut, brick
from skimage.restoration import inpaint_biharmonic

from imatlas import Inpainter
from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr
from imatlas.models.inpainter import TILE, hole_pixels, missing_pixels, tiles
from imatlas.nn.fill_network import FillNetwork, smooth_fill

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def photo():
    return astronaut()[0:96, 170:298]


@pytest.fixture(scope="module")
def fitted():
    whole = astronaut()
    return Inpainter(max_steps=60, budget=None, width=16, progress=False).fit(
        np.stack([whole[t : t + 96, :96] for t in range(0, 400, 40)])
    )


def spec_of(pixels, **more):
    return ImageSpec(*pixels.shape, dtype=pixels.dtype.name, **more)


def scattered(pixels, share=0.5):
    return np.random.default_rng(0).random(pixels.shape[:2]) < share


def test_known_pixels_are_equal_bit_for_bit_and_missing_ones_near_the_truth(photo, fitted):
    missing = scattered(photo)
    missing[40:52, 60:74] = True
    for model in (fitted, Inpainter()):
        made = model.restoration(photo, spec_of(photo), missing=missing)
        np.testing.assert_array_equal(made.pixels[~missing], photo[~missing])
        assert made.facts == {"missing": pytest.approx(missing.mean(), abs=1e-4)}
        assert psnr(photo, made.pixels, span=255) > 24


def test_scattered_pixels_are_filled_better_than_by_the_biharmonic_equation(photo):
    missing = scattered(photo)
    smooth = inpaint_biharmonic(np.where(missing[..., None], 0, photo / 255), missing, channel_axis=2).clip(0, 1) * 255
    made = Inpainter().restore(photo, spec_of(photo), missing)
    assert psnr(photo[None], made[None], span=255) > psnr(photo[None], smooth[None], span=255) + 0.3


def test_details_and_what_is_coarse_have_shares_of_their_own():
    image = np.ascontiguousarray(brick()[:96, :96, None])
    missing = np.zeros((96, 96), bool)
    missing[30:60, 30:60] = True
    made = {
        shares: Inpainter(structure=shares[0], texture=shares[1]).restore(image, spec_of(image), missing).astype(float)
        for shares in ((0, 0), (0, 1), (1, 0), (1, 1))
    }
    assert made[0, 1] + made[1, 0] - made[0, 0] == pytest.approx(made[1, 1], abs=2)
    roughness = {
        shares: float(np.abs(np.diff(pixels[32:58, 32:58, 0], axis=1)).mean()) for shares, pixels in made.items()
    }
    assert roughness[0, 0] < min(roughness[1, 0], roughness[0, 1])
    assert max(roughness[1, 0], roughness[0, 1]) < roughness[1, 1]


def test_a_hole_in_a_texture_is_filled_with_it():
    image = np.ascontiguousarray(brick()[:160, :160, None])
    missing = np.zeros((160, 160), bool)
    missing[60:100, 60:100] = True
    smooth = inpaint_biharmonic(np.where(missing, 0, image[..., 0] / 255), missing).clip(0, 1)[..., None] * 255
    made = Inpainter().restore(image, spec_of(image), missing)
    inside = (slice(62, 98), slice(62, 98))
    spread = [float(a[inside].astype(float).std()) for a in (image, made)]
    assert 0.6 * spread[0] < spread[1] < 1.4 * spread[0]
    assert psnr(image[None], made[None], span=255) > psnr(image[None], smooth[None], span=255)


def test_several_fills_differ_in_the_hole_alone_and_repeat_with_the_seed(photo):
    missing = np.zeros(photo.shape[:2], bool)
    missing[30:54, 40:70] = True
    model = Inpainter(n_samples=3)
    made = model.restoration(photo, spec_of(photo), missing=missing, random_state=1)
    assert len(made.others) == 2
    for other in made.others:
        assert (other != made.pixels)[missing].any()
        np.testing.assert_array_equal(other[~missing], photo[~missing])
    spread = made.maps["spread"]
    assert (spread[~missing] == 0).all()
    assert spread[missing].max() > 0.01
    again = model.restoration(photo, spec_of(photo), missing=missing, random_state=1)
    np.testing.assert_array_equal(again.pixels, made.pixels)
    first = Inpainter().restoration(photo, spec_of(photo), missing=missing, random_state=1)
    np.testing.assert_array_equal(first.pixels, made.pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_any_depth_and_number_of_channels(photo, fitted, dtype, channels):
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    pixels = (np.resize(photo.transpose(2, 0, 1), (channels, 96, 128)).transpose(1, 2, 0) * np.float64(scale)).astype(
        dtype
    )
    high = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    made = fitted.restore(
        pixels[:60, :60], spec_of(pixels[:60, :60], low=0, high=high), scattered(pixels[:60, :60], 0.3)
    )
    assert made.dtype == dtype
    assert psnr(pixels[None, :60, :60], made[None], span=high) > 24


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (40, 1), (3, 5), (9, 9)])
def test_tiny_images(size):
    pixels = np.full((*size, 3), 100, np.uint8)
    missing = np.zeros(size, bool)
    missing[size[0] // 2, size[1] // 2] = True
    model = Inpainter()
    if missing.all():
        with pytest.raises(InputError, match="nothing of it is known"):
            model.restore(pixels, spec_of(pixels), missing)
    else:
        assert (np.abs(model.restore(pixels, spec_of(pixels), missing).astype(int) - 100) <= 1).all()


def test_nan_and_transparent_pixels_are_missing(photo, fitted):
    holes = scattered(photo, 0.2)
    floats = np.where(holes[..., None], np.nan, photo / np.float32(255)).astype(np.float32)
    floats[5, 5, 0] = np.nan
    made = fitted.restore(floats, spec_of(floats, low=0, high=1))
    assert np.isfinite(made).all()
    np.testing.assert_array_equal(made[np.isfinite(floats)], floats[np.isfinite(floats)])
    cut_out = np.dstack([photo, np.where(holes, 0, 255).astype(np.uint8)])[:50, :50]
    made = fitted.restore(cut_out, spec_of(cut_out))
    assert (made[..., 3] > 240).all()
    assert psnr(photo[None, :50, :50], made[None, ..., :3], span=255) > 24
    kept = fitted.restore(cut_out, spec_of(cut_out), np.zeros(cut_out.shape[:2], bool))
    np.testing.assert_array_equal(kept, cut_out)


def test_an_image_without_gaps_comes_back_as_it_is(photo, fitted):
    made = fitted.restoration(photo, spec_of(photo))
    np.testing.assert_array_equal(made.pixels, photo)
    assert made.facts == {"missing": 0.0}


def test_incomplete_images_teach_the_network(photo):
    whole = astronaut()
    images = np.stack([whole[t : t + 64, 200:264] for t in range(0, 400, 20)])
    missing = np.random.default_rng(0).random(images.shape[:3]) < 0.5
    hidden = np.where(missing[..., None], 0, images)
    options = {"max_steps": 20, "budget": None, "width": 16, "progress": False}
    first = Inpainter(**options).fit(hidden, mask=missing)
    noise = np.random.default_rng(1).integers(0, 256, images.shape, np.uint8)
    second = Inpainter(**options).fit(np.where(missing[..., None], noise, images), mask=missing)
    for name, value in first.module_.state_dict().items():  # what is missing changes nothing
        torch.testing.assert_close(value, second.module_.state_dict()[name], rtol=0, atol=0)
    assert first.spec_.dtype == "uint8"


def test_tiles_leave_no_seam(fitted):
    side = 2 * TILE
    wide = np.tile(astronaut()[:40, :, :], (1, 2, 1))[:, : side + 101]
    missing = scattered(wide)
    whole = fitted.restore(wide, spec_of(wide), missing)
    cut = 300
    part = fitted.restore(wide[:, cut:], spec_of(wide[:, cut:]), missing[:, cut:])
    assert np.abs(whole[:, cut + 40 :].astype(int) - part[:, 40:]).max() <= 1
    covered = np.zeros((1000, 411), int)
    for core, window in tiles(covered.shape, TILE, 32):
        covered[core] += 1
        assert all(w.start <= c.start < c.stop <= w.stop for c, w in zip(core, window, strict=True))
        assert all(w.start % 2 == 0 for w in window)
    assert (covered == 1).all()


def test_scratches_are_no_holes():
    known = np.ones((60, 60), bool)
    known[:, 30:33] = False
    assert not hole_pixels(known).any()
    known[10:40, 5:25] = False
    assert hole_pixels(known)[10:40, 5:25].all()
    assert not hole_pixels(known)[:, 30:33].any()
    assert missing_pixels(np.full((2, 2, 1), np.inf, np.float32), None).all()


def test_the_untrained_network_is_the_smooth_fill():
    x = torch.rand(2, 3, 17, 22, generator=torch.Generator().manual_seed(0))
    known = (torch.rand(2, 1, 17, 22, generator=torch.Generator().manual_seed(1)) > 0.4).float()
    network = FillNetwork(3, width=8)
    torch.testing.assert_close(network(x, known), smooth_fill(x * known, known))
    torch.testing.assert_close(network(x, known) * known, x * known)


def test_the_smooth_fill_reaches_the_biharmonic_one():
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    image = (0.02 * rows + 0.03 * columns - 0.5)[None, None]
    known = (torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    torch.testing.assert_close(smooth_fill(image, known)[inner], image[inner], rtol=0, atol=0.01)


def test_wrong_masks_are_refused(photo, fitted):
    with pytest.raises(InputError, match="A mask of an image of"):
        fitted.restore(photo, spec_of(photo), np.zeros((3, 3), bool))
    with pytest.raises(InputError, match="at least 8 x 8"):
        Inpainter().fit(np.zeros((4, 5, 5, 3), np.uint8))
    with pytest.raises(InputError, match="The mask must be of shape"):
        Inpainter().fit(np.zeros((4, 16, 16, 3), np.uint8), mask=np.zeros((4, 8, 8), bool))
