"""Conditional discriminator."""

from __future__ import annotations

from torch import Tensor, nn

from imatlas.nn.blocks import ResidualBlock, coarse_grid, pad_to, stage_widths
from imatlas.nn.condition import Condition


class Discriminator(nn.Module):
    """Residual discriminator without normalization, for images of any size from 8 px.

        image -> [strided conv -> residual block x depth -> silu] x n_stages -> linear -> silu -> features -> logit

    The condition enters by projection: logit = w . features + condition . features / sqrt(width), as in Miyato, Koyama
    2018, "cGANs with projection discriminator" (section 3). The logit has no bias, which would cancel in a
    relativistic loss.

    Parameters
    ----------
    shape : (height, width, channels)
        Of the images.
    condition : Condition
        With embeddings of length `width`.
    width : int
        Channels of the coarsest grid, and number of features.
    depth : int
        Residual blocks on each grid.
    """

    def __init__(self, shape: tuple[int, int, int], condition: Condition, *, width: int = 32, depth: int = 1) -> None:
        super().__init__()
        height, width_px, channels = shape
        widths = stage_widths(height, width_px, width)
        self.grid = coarse_grid(height, width_px, len(widths))
        self.padded = (self.grid[0] << len(widths), self.grid[1] << len(widths))
        stages = []
        for n, m in zip([channels, *widths], widths):
            blocks = [ResidualBlock(m) for _ in range(depth)]
            stages.append(nn.Sequential(nn.Conv2d(n, m, 4, stride=2, padding=1), *blocks, nn.SiLU()))
        self.stages = nn.Sequential(*stages)
        self.features = nn.Sequential(nn.Linear(width * self.grid[0] * self.grid[1], width), nn.SiLU())
        self.head = nn.Linear(width, 1, bias=False)
        self.condition = condition
        self.scale = width**-0.5

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (N, channels, height, width) in [-1, 1] and their conditions -> logits (N,)."""
        features = self.features(self.stages(pad_to(x, *self.padded)).flatten(1))
        projected = (features * self.condition(y, x.shape[0])).sum(1) * self.scale
        return (self.head(features)[:, 0] + projected).float()
