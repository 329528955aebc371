"""Convolutional encoder."""

from __future__ import annotations

from torch import Tensor, nn

from imatlas.nn.blocks import ResidualBlock, coarse_grid, pad_to, stage_widths


class Encoder(nn.Module):
    """Residual convolutional encoder from an image of any size from 8 px to a vector.

        image -> [strided conv -> silu] x n_stages -> residual block x depth -> silu -> linear -> vector

    All residual blocks are on the coarsest grid (4 to 8 pixels on the shorter side), where convolutions are cheap and
    cover most of the image. Sizes that cannot be halved are padded by repeating the border.

    Parameters
    ----------
    shape : (height, width, channels)
        Of the images.
    n_outputs : int
        Length of the vector.
    width : int
        Channels of the coarsest grid.
    depth : int
        Residual blocks there.
    """

    def __init__(self, shape: tuple[int, int, int], n_outputs: int, *, width: int = 64, depth: int = 1) -> None:
        super().__init__()
        height, width_px, channels = shape
        widths = stage_widths(height, width_px, width)
        self.grid = coarse_grid(height, width_px, len(widths))
        self.padded = (self.grid[0] << len(widths), self.grid[1] << len(widths))
        stages = [nn.Conv2d(n, m, 4, stride=2, padding=1) for n, m in zip([channels, *widths], widths)]
        self.stages = nn.ModuleList(stages)
        self.blocks = nn.Sequential(*[ResidualBlock(width) for _ in range(depth)])
        self.head = nn.Linear(width * self.grid[0] * self.grid[1], n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, height, width) in [-1, 1] -> (N, n_outputs)."""
        x = pad_to(x, *self.padded)
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else nn.functional.silu(x))
        return self.head(nn.functional.silu(self.blocks(x)).flatten(1))
