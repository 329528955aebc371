import numpy as np
import torch

from imatlas import seeding
from imatlas.nn.views import Views, views_for
from imatlas.testing import synthetic_images


def _tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def _oriented(n: int) -> np.ndarray:
    """Noise, brighter at the top."""
    rng = np.random.default_rng(0)
    fall = np.linspace(200, 60, 24)[None, :, None, None]
    return np.clip(fall + rng.normal(0, 20, (n, 24, 24, 3)), 0, 255).astype(np.uint8)


def test_only_images_without_a_preferred_orientation_are_rotated():
    assert not views_for(_tensor(_oriented(200)), 0).rotate
    noise = np.random.default_rng(0).integers(0, 255, (200, 24, 24, 3), dtype=np.uint8)
    found = views_for(_tensor(noise), 0)
    assert found.rotate
    assert "no preferred orientation" in found.why
    assert not views_for(_tensor(noise), 0, rotate=False).rotate


def test_a_plain_background_is_found_and_extended():
    images = np.full((50, 16, 16, 3), (10, 200, 90), np.uint8)
    images[:, 5:11, 5:11] = np.random.default_rng(0).integers(0, 255, (50, 6, 6, 3))
    x = _tensor(images)
    views = views_for(x, 0)
    assert views.background is not None
    np.testing.assert_allclose(views.background, x[0, :, 0, 0], atol=1e-6)
    unlit = Views(views.scale, views.offset, views.background, lighting=0.0, color=0.0)
    view = unlit(x, seeding.generator(0))
    np.testing.assert_allclose(view[:, :, 0, 0], x[:, :, 0, 0], atol=1e-5)
    assert views_for(_tensor(_oriented(50)), 0).background is None


def test_views_differ_stay_in_range_and_repeat_with_their_seed():
    x = _tensor(synthetic_images(6, size=20, channels=3, random_state=0))
    views = Views(rotate=True)
    one, again = views(x, seeding.generator(1)), views(x, seeding.generator(1))
    other = views(x, seeding.generator(2))
    assert torch.equal(one, again)
    assert (one - other).abs().mean() > 0.01
    assert one.shape == x.shape
    assert one.abs().max() <= 1


def test_without_changes_a_view_is_the_image_or_its_mirror_image():
    x = _tensor(synthetic_images(8, size=20, channels=1, random_state=0))
    view = Views(scale=(1.0, 1.0), lighting=0.0, color=0.0)(x, seeding.generator(0))
    unlike = torch.minimum((view - x).abs().mean((1, 2, 3)), (view - x.flip(3)).abs().mean((1, 2, 3)))
    # it is still rotated by up to 6 degrees and stretched by up to a tenth
    assert float(unlike.max()) < 0.5 * float((x - x.roll(1, 0)).abs().mean())
