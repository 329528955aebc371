"""Building blocks of convolutional networks, and the number of stages by image size."""

from __future__ import annotations

import math

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Residual block x + conv(silu(conv(silu(x)))), without normalization.

    He et al. 2016, "Identity mappings in deep residual networks" (fig. 1b). The last convolution is initialized to
    zero, so that the block starts as the identity (Zhang et al. 2019, "Fixup initialization").
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, width, H, W)."""
        h = self.conv_in(nn.functional.silu(x))
        return x + self.conv_out(nn.functional.silu(h))


def stage_widths(height: int, width: int, widest: int) -> list[int]:
    """Channels after each halving of an image, finest first: [16, 32, 64] for 64 px and `widest` 64.

    The coarsest grid has 4 to 8 pixels on the shorter side; there is at least one halving.
    """
    n_stages = max(1, math.ceil(math.log2(min(height, width) / 8)))
    return [max(min(16, widest), widest >> (n_stages - 1 - i)) for i in range(n_stages)]


def coarse_grid(height: int, width: int, n_stages: int) -> tuple[int, int]:
    """Height and width after `n_stages` halvings of an image that is first padded to a multiple of 2^n_stages."""
    return -(-height // 2**n_stages), -(-width // 2**n_stages)


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """Pad (N, C, H, W) at the bottom and right to height x width by repeating the border."""
    more_height, more_width = height - x.shape[2], width - x.shape[3]
    if not (more_height or more_width):
        return x
    return nn.functional.pad(x, (0, more_width, 0, more_height), mode="replicate")
