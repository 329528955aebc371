"""A small network that fills scattered missing pixels: a rough fill, and a correction learned from images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from imatlas.nn.denoising_unet import DenoisingUNet

REACH = 128
"""Pixels beyond which nothing changes a filled pixel, if there are known ones within 8: these, 4 in each step of the
smooth fill, and the field of the convolutions, which begins at multiples of `denoising_unet.STEP`."""

_RADII = (1, 2, 4, 8)
_STEPS = 6
_SPECTRUM = (4.0, 64.0)
"""Of the squared Laplacian between scattered pixels."""
_RATE = 4 / (_SPECTRUM[0] ** 0.5 + _SPECTRUM[1] ** 0.5) ** 2
_MOMENTUM = ((_SPECTRUM[1] ** 0.5 - _SPECTRUM[0] ** 0.5) / (_SPECTRUM[1] ** 0.5 + _SPECTRUM[0] ** 0.5)) ** 2


class FillNetwork(nn.Module):
    """A U-Net that corrects a smooth fill, given that and a map of known pixels.

    Before training, the output is the smooth fill. In equal time it learns more than convolutions at half resolution
    alone, without the coarser grids: .92 against .74 dB beyond the biharmonic fill.
    """

    def __init__(self, channels: int, width: int = 48) -> None:
        super().__init__()
        self.unet = DenoisingUNet(channels + 1, width)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        """Images (N, C, H, W), and 1 where a pixel is known, (N, 1, H, W): images filled everywhere."""
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            filled = smooth_fill((x * known).float(), known.float())
        return self.unet(torch.cat([filled, known.to(filled.dtype)], 1))[:, :-1]


def smooth_fill(x: Tensor, known: Tensor) -> Tensor:
    """Images (N, C, H, W) with missing pixels filled smoothly; `known` (N, 1, H, W) is 1 or 0.

    From averages of the nearest known pixels, a few steps towards the biharmonic fill, which minimizes the squared
    Laplacian: the heavy-ball method (Polyak 1964), whose steps do not depend on pixels far away, as those of conjugate
    gradients do.
    """
    free = 1 - known
    filled = x * known + _nearby_means(x * known, known) * free
    change = torch.zeros_like(filled)
    for _ in range(_STEPS):
        change = _MOMENTUM * change - _RATE * free * _laplacian(_laplacian(filled))
        filled = filled + change
    return filled


def _nearby_means(x: Tensor, known: Tensor) -> Tensor:
    """Means of known pixels around each, in the smallest neighborhood that has some; 0 beyond 8 pixels."""
    means, left = torch.zeros_like(x), torch.ones_like(known)
    for radius in _RADII:
        share, total = _blurred(known, radius), _blurred(x, radius)
        found = left * (share > (0.05 if radius < _RADII[-1] else 1e-6))
        means, left = means + found * total / share.clamp(min=1e-6), left - found
    return means


def _blurred(x: Tensor, radius: int) -> Tensor:
    at = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(at**2) / (2 * (0.5 * radius + 0.2) ** 2))
    kernel = kernel / kernel.sum()
    n, c, height, width = x.shape
    rows = torch.conv2d(x.reshape(n * c, 1, height, width), kernel.view(1, 1, 1, -1), padding=(0, radius))
    return torch.conv2d(rows, kernel.view(1, 1, -1, 1), padding=(radius, 0)).view(n, c, height, width)


def _laplacian(x: Tensor) -> Tensor:
    u = pad(x, (1, 1, 1, 1), mode="replicate")
    return u[:, :, :-2, 1:-1] + u[:, :, 2:, 1:-1] + u[:, :, 1:-1, :-2] + u[:, :, 1:-1, 2:] - 4 * x
