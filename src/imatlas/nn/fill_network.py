"""A small network that fills scattered missing pixels: a rough fill, and a correction learned from images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

REACH = 56
"""Pixels beyond which nothing changes a filled pixel, if there are known ones within 8: these, 4 in each step of the
smooth fill, and the field of the convolutions."""

_RADII = (1, 2, 4, 8)
_STEPS = 6
_SPECTRUM = (4.0, 64.0)
"""Of the squared Laplacian between scattered pixels."""
_RATE = 4 / (_SPECTRUM[0] ** 0.5 + _SPECTRUM[1] ** 0.5) ** 2
_MOMENTUM = ((_SPECTRUM[1] ** 0.5 - _SPECTRUM[0] ** 0.5) / (_SPECTRUM[1] ** 0.5 + _SPECTRUM[0] ** 0.5)) ** 2


class FillNetwork(nn.Module):
    """Residual convolutions at half resolution, on an image with a smooth fill and a map of known pixels.

    Working on 2 x 2 pixels as channels makes it four times as fast: Zhang, Zuo & Zhang 2018, "FFDNet". Before training,
    the output is the smooth fill.
    """

    def __init__(self, channels: int, width: int = 48, depth: int = 4) -> None:
        super().__init__()
        self.head = nn.Conv2d(4 * (channels + 1), width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(depth)
        )
        self.tail = nn.Conv2d(width, 4 * channels, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        """Images (N, C, H, W), and 1 where a pixel is known, (N, 1, H, W): images filled everywhere."""
        height, width = x.shape[2:]
        odd = (0, width % 2, 0, height % 2)
        x, known = pad(x * known, odd, mode="replicate"), pad(known, odd, mode="replicate")
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            filled = smooth_fill(x.float(), known.float())
        h = self.head(pixel_unshuffle(torch.cat([filled, known], 1), 2)).relu()
        for block in self.blocks:
            h = h + 0.2 * block(h)
        filled = filled + pixel_shuffle(self.tail(h), 2)
        return filled[:, :, :height, :width]


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
