"""Building blocks of convolutional networks, and the number of stages by image size."""

from __future__ import annotations

import math

import torch
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


class Upsampling(nn.Module):
    """Convolution to twice the height and width: 3 x 3 to four times the channels, rearranged to 2 x 2 pixels each.

    Shi et al. 2016, "Real-time single image and video super-resolution using an efficient sub-pixel convolutional
    neural network". The four filters of a channel start equal, so that no grid is visible (Aitken et al. 2017,
    "Checkerboard artifact free sub-pixel convolution"); a transposed convolution starts with one.
    """

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n, 4 * m, 3, padding=1)
        one = torch.empty(m, n, 3, 3)
        nn.init.kaiming_normal_(one, nonlinearity="relu")
        with torch.no_grad():
            self.conv.weight.copy_(one.repeat_interleave(4, dim=0))
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, n, H, W) -> (N, m, 2 H, 2 W)."""
        return nn.functional.pixel_shuffle(self.conv(x), 2)


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
