"""Convolutional decoder."""

from __future__ import annotations

from torch import Tensor, nn

from imatlas.nn.blocks import ResidualBlock, coarse_grid, stage_widths


class Decoder(nn.Module):
    """Residual convolutional decoder from a vector to an image: the mirror of `Encoder`.

        vector -> linear -> residual block x depth -> [silu -> transposed conv] x n_stages -> image

    The padding of the encoder is cropped.

    Parameters
    ----------
    shape : (height, width, channels)
        Of the images.
    n_inputs : int
        Length of the vector.
    width : int
        Channels of the coarsest grid.
    depth : int
        Residual blocks there.
    """

    def __init__(self, shape: tuple[int, int, int], n_inputs: int, *, width: int = 64, depth: int = 1) -> None:
        super().__init__()
        self.height, self.width, channels = shape
        widths = stage_widths(self.height, self.width, width)[::-1]
        self.grid = coarse_grid(self.height, self.width, len(widths))
        self.head = nn.Linear(n_inputs, width * self.grid[0] * self.grid[1])
        self.blocks = nn.Sequential(*[ResidualBlock(width) for _ in range(depth)])
        stages = [nn.ConvTranspose2d(n, m, 4, stride=2, padding=1) for n, m in zip(widths, [*widths[1:], channels])]
        self.stages = nn.ModuleList(stages)

    def forward(self, z: Tensor) -> Tensor:
        """(N, n_inputs) -> (N, channels, height, width), around [-1, 1]."""
        x = self.blocks(self.head(z).unflatten(1, (-1, *self.grid)))
        for stage in self.stages:
            x = stage(nn.functional.silu(x))
        return x[:, :, : self.height, : self.width]
