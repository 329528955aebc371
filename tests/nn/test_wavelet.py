"""The wavelet transform: its inverse, its norm, and that the inverse of integers is exact."""

from __future__ import annotations

import pytest
import torch

from imatlas.nn.wavelet import CDF97, INTERPOLATING, Wavelet, band_sizes, sizes_of

SIZES = [(1, 1), (1, 2), (2, 1), (1, 17), (300, 5), (37, 23), (64, 48)]


@pytest.mark.parametrize("wavelet", [CDF97, INTERPOLATING])
@pytest.mark.parametrize("size", SIZES)
def test_the_inverse_gives_the_image_back(size: tuple[int, int], wavelet: Wavelet) -> None:
    x = 100 * torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    coarse, bands = wavelet.analyze(x)
    assert [tuple(band.shape[2:]) for band in bands] == list(band_sizes(*size))
    assert coarse.shape[2:] == ((size[0] + 1) // 2, (size[1] + 1) // 2)
    torch.testing.assert_close(wavelet.synthesize(coarse, bands), x, rtol=0, atol=1e-3)


def test_it_is_nearly_orthonormal() -> None:
    x = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    coarse, bands = CDF97.analyze(x)
    assert sum(float(part.square().sum()) for part in (coarse, *bands)) == pytest.approx(
        float(x.square().sum()), rel=0.05
    )


def test_integers_have_an_inverse_on_a_grid() -> None:
    """Multiples of 1/256 in every step, so that sums of doubles are exact in any order."""
    generator = torch.Generator().manual_seed(0)
    coarse, *bands = (torch.randint(-900, 900, (1, 2, 9, 7), generator=generator).double() for _ in range(4))
    x = CDF97.synthesize(coarse, tuple(bands))  # type: ignore[arg-type]
    assert torch.equal(x * 256, torch.round(x * 256))
    near = CDF97.synthesize(coarse.float(), tuple(band.float() for band in bands))  # type: ignore[arg-type]
    assert (x - near).abs().max() < 0.1


@pytest.mark.parametrize("size", SIZES)
def test_interpolation_maps_integers_to_integers(size: tuple[int, int]) -> None:
    x = torch.randint(-(2**20), 2**20, (2, 3, *size), generator=torch.Generator().manual_seed(0)).double()
    coarse, bands = INTERPOLATING.analyze(x)
    assert torch.equal(coarse, x[..., ::2, ::2])
    assert torch.equal(INTERPOLATING.synthesize(coarse, bands), x)
    assert all(torch.equal(band, torch.round(band)) for band in bands)


def test_what_is_linear_has_no_details() -> None:
    x = torch.arange(17.0)[:, None] * 4 + torch.arange(9.0) * 2
    _, bands = INTERPOLATING.analyze(x[None, None])
    assert all(not band.any() for band in bands)


def test_sizes_end_at_two() -> None:
    assert sizes_of(5, 9) == [(5, 9), (3, 5), (2, 3), (1, 2)]
    assert sizes_of(1, 1) == [(1, 1)]
