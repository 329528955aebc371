"""The wavelet transform: its inverse, its norm, and that the inverse of integers is exact."""

from __future__ import annotations

import pytest
import torch

from imatlas.nn.wavelet import analyze, band_sizes, sizes_of, synthesize

SIZES = [(1, 1), (1, 2), (2, 1), (1, 17), (300, 5), (37, 23), (64, 48)]


@pytest.mark.parametrize("size", SIZES)
def test_the_inverse_gives_the_image_back(size: tuple[int, int]) -> None:
    x = 100 * torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    coarse, bands = analyze(x)
    assert [tuple(band.shape[2:]) for band in bands] == list(band_sizes(*size))
    assert coarse.shape[2:] == ((size[0] + 1) // 2, (size[1] + 1) // 2)
    torch.testing.assert_close(synthesize(coarse, bands), x, rtol=0, atol=1e-3)


def test_it_is_nearly_orthonormal() -> None:
    x = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    coarse, bands = analyze(x)
    assert sum(float(part.square().sum()) for part in (coarse, *bands)) == pytest.approx(
        float(x.square().sum()), rel=0.05
    )


def test_integers_have_an_inverse_on_a_grid() -> None:
    """Multiples of 1/256 in every step, so that sums of doubles are exact in any order."""
    generator = torch.Generator().manual_seed(0)
    coarse, *bands = (torch.randint(-900, 900, (1, 2, 9, 7), generator=generator).double() for _ in range(4))
    x = synthesize(coarse, tuple(bands))  # type: ignore[arg-type]
    assert torch.equal(x * 256, torch.round(x * 256))
    near = synthesize(coarse.float(), tuple(band.float() for band in bands))  # type: ignore[arg-type]
    assert (x - near).abs().max() < 0.1


def test_sizes_end_at_two() -> None:
    assert sizes_of(5, 9) == [(5, 9), (3, 5), (2, 3), (1, 2)]
    assert sizes_of(1, 1) == [(1, 1)]
