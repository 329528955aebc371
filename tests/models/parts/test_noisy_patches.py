"""The mixture of noisy patches chooses the same Gaussians by few directions as by all, where these tell enough."""

from __future__ import annotations

import pytest
import torch

from imatlas.models.parts import noisy_patches
from imatlas.models.parts.patch_mixture import most_probable

pytestmark = pytest.mark.usefixtures("one_thread")


def test_rivals_contain_the_most_probable_gaussian(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    n, directions = 12, 10
    scales = torch.linspace(0.3, 4, directions) * (0.5 + torch.rand((n, directions), generator=generator))
    covariances, weights = torch.diag_embed(scales.square()), torch.full((n,), 1 / n)
    white = torch.cat([torch.randn((100, directions), generator=generator) * row for row in scales])
    wanted = most_probable(white, covariances, weights)
    for screened, n_rivals, alike in ((directions, 1, 1.0), (2, n, 1.0), (6, 6, 0.9)):
        monkeypatch.setattr(noisy_patches, "SCREENED", screened)
        monkeypatch.setattr(noisy_patches, "N_RIVALS", n_rivals)
        rivals = noisy_patches._rivals(white, covariances, weights)
        assert rivals.shape == (len(white), n_rivals)
        found = noisy_patches._best(white, rivals, covariances, weights)
        assert float((found == wanted).float().mean()) >= alike
