"""Random augmentation: geometry, masks, probabilities."""

from __future__ import annotations

import torch

from imatlas.nn.augment import DiffAugment, flip_and_shift


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_image_is_mirrored_or_shifted():
    x = torch.rand(16, 3, 16, 24, generator=seeded(0))
    moved, _ = flip_and_shift(x, seeded(1))
    assert moved.shape == x.shape
    mirrored = 0
    for image, original in zip(moved, x):
        inner = image[:, 4:-4, 6:-6]  # no border can reach here: at most 2 and 3 pixels are shifted
        found = {
            flip: any(
                torch.equal(inner, side[:, 4 + dy : 12 + dy, 6 + dx : 18 + dx])
                for dy in range(-2, 3)
                for dx in range(-3, 4)
            )
            for flip, side in ((False, original), (True, original.flip(2)))
        }
        assert found[False] != found[True]
        mirrored += found[True]
    assert 2 <= mirrored <= 14


def test_missing_pixels_move_with_their_image():
    known = torch.rand(8, 1, 16, 16, generator=seeded(2)) < 0.7
    moved, moved_known = flip_and_shift(known.float(), seeded(3), known)
    assert torch.equal(moved > 0.5, moved_known)
    assert moved_known.dtype == torch.bool


def test_randomness_comes_from_the_generator_alone():
    x = torch.rand(8, 1, 16, 16, generator=seeded(0))
    assert torch.equal(flip_and_shift(x, seeded(5))[0], flip_and_shift(x, seeded(5))[0])
    assert not torch.equal(flip_and_shift(x, seeded(5))[0], flip_and_shift(x, seeded(6))[0])


def test_real_and_fake_images_get_the_same_augmentation():
    """So the augmentation itself does not separate real from fake."""
    x = torch.rand(16, 3, 16, 24, generator=seeded(0)) * 2 - 1
    varied = DiffAugment(16, 0.8, seeded(1))
    assert torch.equal(varied(x), varied(x))
    assert torch.equal(DiffAugment(16, 0.8, seeded(1))(x), varied(x))
    assert not torch.equal(DiffAugment(16, 0.8, seeded(2))(x), varied(x))


def test_enough_images_stay_unchanged():
    """With probability p each, mirroring at p / 2: (1 - p / 2) (1 - p)^3 of the images are unchanged."""
    x = torch.rand(4000, 1, 8, 8, generator=seeded(0)) * 2 - 1
    for probability in (0.0, 0.2, 0.6):
        kept = (DiffAugment(4000, probability, seeded(3))(x) - x).abs().amax((1, 2, 3)) < 1e-5
        expected = (1 - probability / 2) * (1 - probability) ** 3
        # if the shift of the draw is zero, shifted images are unchanged, too
        assert expected - 0.03 < float(kept.float().mean()) < expected / (1 - probability) + 0.03


def test_the_mask_is_augmented_with_its_image():
    """Unknown pixels stay mid-gray through geometry and color changes."""
    known = torch.rand(64, 1, 16, 16, generator=seeded(2)) < 0.7
    dark, bright = torch.where(known, -0.9, 0.0), torch.where(known, 0.9, 0.0)
    varied = DiffAugment(64, 0.9, seeded(3))
    assert torch.equal(DiffAugment(64, 0.0, seeded(3))(bright, known), bright)
    assert torch.equal(varied(dark, known) == 0, varied(bright, known) == 0)
    assert 0.3 < float((varied(bright, known) == 0).float().mean()) < 0.8


def test_cutout_covers_at_most_a_quarter_of_an_image():
    x = torch.ones(256, 1, 16, 16)
    gone = (DiffAugment(256, 0.9, seeded(5))(x) == 0).float().mean((1, 2, 3))
    assert float(gone.mean()) > 0.1
    assert float(gone.max()) <= 0.25 + 1 - (14 / 16) ** 2, "what a shift leaves bare, and a cut of half a side each way"


def test_augmentation_is_differentiable():
    x = torch.rand(32, 2, 16, 16, generator=seeded(0)).requires_grad_(True)
    DiffAugment(32, 0.6, seeded(4))(x).sum().backward()
    assert x.grad is not None
    assert float((x.grad != 0).float().mean()) > 0.7
