"""Convolutional decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imatlas.nn.blocks import ResidualBlock, Upsampling, coarse_grid, stage_widths

LAST = 8
"""Channels at full resolution, before the last convolution."""


class Decoder(nn.Module):
    """Residual convolutional decoder from a vector to an image, for images of any size from 8 px.

        vector -> linear -> [residual block x depth -> silu -> upsampling + grain] x n_stages -> silu -> conv -> image

    The convolution at full resolution joins what the last upsampling puts side by side. For sizes that cannot be
    halved, the output is cropped.

    Parameters
    ----------
    shape : (height, width, channels)
        Of the images.
    n_inputs : int
        Length of the vector.
    width : int
        Channels of the coarsest grid.
    depth : int
        Residual blocks on each grid.
    """

    def __init__(self, shape: tuple[int, int, int], n_inputs: int, *, width: int = 64, depth: int = 1) -> None:
        super().__init__()
        self.height, self.width, channels = shape
        widths = stage_widths(self.height, self.width, width)[::-1]
        self.grid = coarse_grid(self.height, self.width, len(widths))
        self.head = nn.Linear(n_inputs, width * self.grid[0] * self.grid[1])
        stages = []
        for i, (n, m) in enumerate(zip(widths, [*widths[1:], LAST])):
            blocks = [ResidualBlock(n) for _ in range(depth)]
            grain = Grain(m, self.grid[0] << (i + 1), self.grid[1] << (i + 1))
            stages.append(nn.Sequential(*blocks, nn.SiLU(), Upsampling(n, m), grain))
        self.stages = nn.Sequential(*stages)
        self.last = nn.Conv2d(LAST, channels, 3, padding=1)

    @property
    def grains(self) -> list[Grain]:
        """The noise of every grid, coarsest first."""
        return [module for module in self.modules() if isinstance(module, Grain)]

    def forward(self, z: Tensor) -> Tensor:
        """(N, n_inputs) -> (N, channels, height, width), around [-1, 1]."""
        x = self.stages(self.head(z).unflatten(1, (-1, *self.grid)))
        return self.last(nn.functional.silu(x))[:, :, : self.height, : self.width]


class Grain(nn.Module):
    """Adds one fixed map of noise to every channel, each with a learned strength, at first 0.

    Convolutions of smooth features can only make a texture that repeats from one cell of the coarse grid to the next.
    Karras et al. 2019, "A style-based generator architecture for generative adversarial networks" (section 3.2); there
    with new noise in every image.
    """

    noise: Tensor

    def __init__(self, n_channels: int, height: int, width: int) -> None:
        super().__init__()
        self.register_buffer("noise", torch.randn(height, width))
        self.strength = nn.Parameter(torch.zeros(n_channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_channels, height, width) -> the same."""
        return x + self.strength * self.noise
