"""A small network that removes what quantization did to an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SynthesisFilter(nn.Module):
    """Convolutions on an image that is rearranged to half its size, whose output is added to it.

    Errors are in units of the quantization step, and so is what the network adds.
    """

    def __init__(self, width: int = 48, depth: int = 6) -> None:
        super().__init__()
        self.enter = nn.Conv2d(13, width, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.leave = nn.Conv2d(width, 12, 3, padding=1)
        for last in (*self.layers[1::2], self.leave):  # every block begins as the identity, and so does the filter
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, rgb: Tensor, step: Tensor) -> Tensor:
        """Images (N, 3, H, W) of the range 0 to 255, decoded with steps (N, 1, 1, 1)."""
        height, width = rgb.shape[2:]
        even = F.pad(rgb, (0, width % 2, 0, height % 2), mode="replicate")
        parts = F.pixel_unshuffle((even - 128) / 64, 2)
        planes = torch.log2(step / 16).expand(-1, 1, *parts.shape[2:])
        x = self.enter(torch.cat([parts, planes], 1))
        for first, second in zip(self.layers[::2], self.layers[1::2], strict=True):
            x = x + second(F.relu(first(F.relu(x))))
        added = F.pixel_shuffle(self.leave(F.relu(x)), 2)[..., :height, :width]
        return rgb + step * added.float()
