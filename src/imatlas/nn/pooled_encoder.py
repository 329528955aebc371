"""Convolutional encoder with global average pooling."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from imatlas.nn.blocks import coarse_grid, pad_to

GROUPS = 8
"""Groups of channels in group normalization, which unlike batch normalization treats each image on its own."""


class PooledEncoder(nn.Module):
    """Convolutional encoder with global average pooling.

        image -> 4 x 4 conv, stride 4 -> conv -> [strided conv -> conv] x n_stages -> average pooling

    The channels double with each halving of the grid, until that has 2 to 4 cells on the shorter side.

    Parameters
    ----------
    shape : (height, width, channels)
        Of the images.
    n_features : int
        Channels of the last layer.
    """

    def __init__(self, shape: tuple[int, int, int], n_features: int) -> None:
        super().__init__()
        height, width, channels = shape
        n_stages = max(0, math.ceil(math.log2(min(height, width) / 16)))
        halvings = n_stages + 2
        grid = coarse_grid(height, width, halvings)
        self.padded = (grid[0] << halvings, grid[1] << halvings)
        widths = [max(16, n_features >> (n_stages - i)) for i in range(n_stages)] + [n_features]
        layers = [_layer(channels, widths[0], size=4, stride=4), _layer(widths[0], widths[0])]
        for n, m in pairwise(widths):
            layers += [_layer(n, m, stride=2), _layer(m, m)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, height, width) in [-1, 1] -> (N, n_features), each >= 0."""
        return self.layers(pad_to(x, *self.padded)).mean((2, 3))


def _layer(n: int, m: int, *, size: int = 3, stride: int = 1) -> nn.Sequential:
    padding = 0 if size == stride else size // 2
    return nn.Sequential(nn.Conv2d(n, m, size, stride, padding, bias=False), nn.GroupNorm(GROUPS, m), nn.ReLU())
