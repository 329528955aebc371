"""Features follow the orientation of pictures, a known alignment is recovered, differences mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from imatlas.tasks.duplicates import features, registration
from imatlas.tasks.duplicates.features import N_ORIENTATIONS, SIDE, WINDOWS, reorient
from imatlas.tasks.duplicates.registration import Alignment


@pytest.fixture
def photos() -> torch.Tensor:
    """Two smooth pictures (2, 3, 128, 128) with detail everywhere."""
    noise = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0)) * 255
    return F.interpolate(noise, (128, 128), mode="bicubic", align_corners=False).clamp(0, 255)


def resized(photo: torch.Tensor, box: tuple[int, int, int, int] = (0, 128, 0, 128)) -> torch.Tensor:
    top, bottom, left, right = box
    return F.interpolate(photo[:, :, top:bottom, left:right], (SIDE, SIDE), mode="bilinear", antialias=True)


@pytest.mark.parametrize("orientation", range(N_ORIENTATIONS))
def test_features_reorient_as_pictures_do(photos: torch.Tensor, orientation: int) -> None:
    small = resized(photos)
    of_reoriented = features.picture_features(reorient(small, orientation))[0][:, 0]
    found = features.reorient_features(features.picture_features(small)[0][:, 0], orientation)
    torch.testing.assert_close(found, of_reoriented, atol=1e-3, rtol=0)


def test_orientations_are_all_different(photos: torch.Tensor) -> None:
    pictures = torch.stack([reorient(resized(photos)[:1], orientation) for orientation in range(N_ORIENTATIONS)])
    apart = torch.cdist(pictures.flatten(1), pictures.flatten(1)) + torch.eye(N_ORIENTATIONS) * 1e6
    assert float(apart.min()) > 1000


@pytest.mark.parametrize("orientation", [0, 1, 4, 6])
def test_a_crop_is_aligned_with_where_it_was_cut(photos: torch.Tensor, orientation: int) -> None:
    whole, crop = resized(photos), resized(reorient(photos, orientation), (0, 116, 8, 124))
    truth = Alignment(torch.full((2, 2), 116 / 128), torch.tensor([[2 / 64, -6 / 64]] * 2))
    windows = torch.zeros(2, dtype=torch.int64)
    found = registration.align(
        reorient(whole, orientation), crop, registration.window_alignment(windows, windows), n_steps=12
    )
    torch.testing.assert_close(found.scale, truth.scale, atol=0.01, rtol=0)
    torch.testing.assert_close(found.shift, truth.shift, atol=0.01, rtol=0)


@pytest.mark.parametrize("orientation", range(N_ORIENTATIONS))
def test_windows_reorient_with_their_picture(photos: torch.Tensor, orientation: int) -> None:
    corner = WINDOWS.index((-1.0, 0.8, -0.8, 1.0))  # the right of the top
    cut = reorient(resized(photos, (0, 115, 13, 128)), orientation)
    start = registration.window_alignment(torch.full((2,), corner), torch.full((2,), orientation))
    share = registration.differences(reorient(resized(photos), orientation), cut, start).residual
    assert float(share.max()) < 0.1


def test_lighting_and_clipping_leave_no_residual_but_another_picture_does(photos: torch.Tensor) -> None:
    small = resized(photos)
    stay = Alignment(torch.ones(2, 2), torch.zeros(2, 2))
    relit = (small * 1.3 - 20).clamp(0, 255)
    same, other = registration.differences(small, relit, stay), registration.differences(small, small.flip(0), stay)
    assert float(same.residual.max()) < 0.05
    assert float(same.levels.min()) > 5
    assert float(other.residual.min()) > 0.5
    nothing = registration.differences(small, small, stay)
    np.testing.assert_allclose(nothing.levels, 0, atol=1e-4)


def test_a_watermark_leaves_most_of_a_picture(photos: torch.Tensor) -> None:
    small = resized(photos)
    marked = small.clone()
    marked[:, :, 4:10, 10:50] = 255
    found = registration.differences(small, marked, Alignment(torch.ones(2, 2), torch.zeros(2, 2)))
    assert float(found.trimmed_levels.max()) < 0.5
    assert float(found.levels.min()) > 3


def test_a_flat_picture_stays_at_the_start() -> None:
    flat = torch.full((1, 3, SIDE, SIDE), 90.0) + torch.rand(
        1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)
    )
    start = registration.window_alignment(torch.tensor([2]), torch.tensor([0]))
    found = registration.align(flat, flat.flip(-1), start)
    assert float((found.scale - start.scale).abs().max()) < 0.02
    assert float((found.shift - start.shift).abs().max()) < 0.02
