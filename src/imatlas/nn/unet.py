"""U-Net with a time and a condition."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor, nn

from imatlas.nn.blocks import coarse_grid, pad_to, stage_widths
from imatlas.nn.time_embedding import sinusoidal

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class UNet(nn.Module):
    """U-Net that predicts the velocity of every pixel from an image of any size from 8 px, a time and a condition.

        x -> conv ----------------- + -> norm -> silu -> conv -> velocity
               `-> down, blocks -- + -> blocks, up -^
                      `-> down, blocks, self-attention, blocks, up -^

    Ronneberger et al. 2015, "U-Net", with residual blocks scaled and shifted by an embedding of time and condition, as
    in Dhariwal & Nichol 2021, "Diffusion models beat GANs on image synthesis" (section 3). For speed on CPUs, the full
    resolution has two convolutions and no block, skip connections are added rather than concatenated, and attention is
    on the coarsest grid only (4 to 8 pixels on the shorter side). Sizes that cannot be halved are padded by repeating
    the border. The last convolution is initialized to zero. At width 64 and depth 1 a gray image of 32 px takes
    57 MFLOP, an RGB image of 64 px 100 MFLOP.

    Parameters
    ----------
    shape : (height, width, channels)
        Of the images.
    width : int
        Channels of the coarsest grid; each finer grid has half as many.
    depth : int
        Residual blocks per grid and side of the U.
    n_condition : int
        Length of the embedded condition.
    """

    def __init__(self, shape: tuple[int, int, int], width: int, depth: int, n_condition: int) -> None:
        super().__init__()
        self.height, self.width, channels = shape
        widths = stage_widths(self.height, self.width, width)
        grid = coarse_grid(self.height, self.width, len(widths))
        self.padded = (grid[0] << len(widths), grid[1] << len(widths))
        finest = max(widths[0] // 2, min(16, width))
        self.n_times = width
        n_cond = 2 * width
        self.time = nn.Sequential(nn.Linear(width, n_cond), nn.SiLU(), nn.Linear(n_cond, n_cond))
        self.condition = nn.Linear(n_condition, n_cond)
        self.stem = nn.Conv2d(channels, finest, 3, padding=1)
        self.level = Level(finest, widths, depth, n_cond)
        self.norm = group_norm(finest)
        self.head = zeroed(nn.Conv2d(finest, channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(N, channels, height, width), (N,) in [0, 1] and (N, n_condition) -> (N, channels, height, width)."""
        cond = nn.functional.silu(self.time(sinusoidal(t, self.n_times)) + self.condition(condition))
        h = self.stem(pad_to(x, *self.padded))
        h = h + self.level(h, cond)
        velocity = self.head(nn.functional.silu(self.norm(h)))
        return velocity[:, :, : self.height, : self.width]


class Level(nn.Module):
    """One grid of the U and all coarser ones: down, blocks, the coarser level, blocks, up.

    Parameters
    ----------
    n_outer : int
        Channels of the next finer grid.
    widths : list of int
        Channels of this grid and the coarser ones.
    depth : int
        Residual blocks on each side.
    n_cond : int
        Length of the embedding of time and condition.
    """

    def __init__(self, n_outer: int, widths: list[int], depth: int, n_cond: int) -> None:
        super().__init__()
        width, *below = widths
        self.down = nn.Conv2d(n_outer, width, 4, stride=2, padding=1)
        self.before = nn.ModuleList([ConditionalBlock(width, n_cond) for _ in range(depth)])
        self.inner = Level(width, below, depth, n_cond) if below else SelfAttention(width)
        self.after = nn.ModuleList([ConditionalBlock(width, n_cond) for _ in range(depth)])
        self.up = nn.ConvTranspose2d(width, n_outer, 4, stride=2, padding=1)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """(N, n_outer, 2H, 2W) and (N, n_cond) -> (N, n_outer, 2H, 2W)."""
        h = self.down(x)
        for block in self.before:
            h = block(h, cond)
        h = h + self.inner(h, cond)
        for block in self.after:
            h = block(h, cond)
        return self.up(h)


class ConditionalBlock(nn.Module):
    """Residual block x + conv(silu(modulation(norm(conv(silu(norm(x))))))), whose channels are scaled and shifted.

    The last convolution is initialized to zero, so that the block starts as the identity.
    """

    def __init__(self, width: int, n_cond: int) -> None:
        super().__init__()
        self.norm_in = group_norm(width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(n_cond, 2 * width)
        self.norm_out = group_norm(width)
        self.conv_out = zeroed(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """(N, width, H, W) and (N, n_cond) -> (N, width, H, W)."""
        h = self.conv_in(nn.functional.silu(self.norm_in(x)))
        scale, shift = self.modulation(cond)[:, :, None, None].chunk(2, dim=1)
        h = self.norm_out(h) * (1 + scale) + shift
        return x + self.conv_out(nn.functional.silu(h))


class SelfAttention(nn.Module):
    """Self-attention over the pixels of a grid (Vaswani et al. 2017, eq. 1), initialized to zero; to be added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.n_heads = math.gcd(width, 4)
        self.norm = group_norm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, width, H, W); the condition is not used."""
        rows = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(rows).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.out(attended).transpose(1, 2).unflatten(2, x.shape[2:])


def group_norm(width: int) -> nn.GroupNorm:
    """Group normalization with up to eight groups of channels (Wu & He 2018)."""
    return nn.GroupNorm(math.gcd(width, 8), width)


def zeroed(layer: Layer) -> Layer:
    """Initialize a layer to zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
