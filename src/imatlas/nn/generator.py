"""Conditional generator of a GAN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imatlas.nn.blocks import ResidualBlock, coarse_grid, stage_widths
from imatlas.nn.condition import Condition


class ImageGenerator(nn.Module):
    """Residual generator without normalization, for images of any size from 8 px: the mirror of `Discriminator`.

        z, condition -> linear -> [residual block x depth -> silu -> transposed conv] x n_stages -> image

    The embedded condition is concatenated to z. For sizes that cannot be halved, the output is cropped.

    Parameters
    ----------
    shape : (height, width, channels)
        Of the images.
    latent_dim : int
        Length of z.
    condition : Condition
        With embeddings of length `width`.
    width : int
        Channels of the coarsest grid.
    depth : int
        Residual blocks on each grid.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent_dim: int,
        condition: Condition,
        *,
        width: int = 32,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.height, self.width, channels = shape
        widths = stage_widths(self.height, self.width, width)[::-1]
        self.grid = coarse_grid(self.height, self.width, len(widths))
        self.condition = condition
        self.head = nn.Linear(latent_dim + width, width * self.grid[0] * self.grid[1])
        stages = []
        for n, m in zip(widths, [*widths[1:], channels]):
            blocks = [ResidualBlock(n) for _ in range(depth)]
            stages.append(nn.Sequential(*blocks, nn.SiLU(), nn.ConvTranspose2d(n, m, 4, stride=2, padding=1)))
        self.stages = nn.Sequential(*stages)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """z (N, latent_dim) and conditions -> (N, channels, height, width), around [-1, 1]."""
        x = self.head(torch.cat([z, self.condition(y, z.shape[0])], dim=1))
        x = self.stages(x.unflatten(1, (-1, *self.grid)))
        return x[:, :, : self.height, : self.width]
