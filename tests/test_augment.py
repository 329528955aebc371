"""Varied pictures are the same pictures, moved."""

from __future__ import annotations

import torch

from imatlas.augment import flip_and_shift


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_image_is_a_mirrored_or_shifted_copy_of_itself():
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


def test_chance_comes_from_the_generator_alone():
    x = torch.rand(8, 1, 16, 16, generator=seeded(0))
    assert torch.equal(flip_and_shift(x, seeded(5))[0], flip_and_shift(x, seeded(5))[0])
    assert not torch.equal(flip_and_shift(x, seeded(5))[0], flip_and_shift(x, seeded(6))[0])
