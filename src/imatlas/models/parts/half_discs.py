"""Differences of the two halves of a disc around each pixel, cut along a direction, and gradients: oriented cues.

Martin, Fowlkes and Malik 2004, "Learning to Detect Natural Image Boundaries Using Local Brightness, Color, and Texture
Cues". Direction i of `N_DIRECTIONS` is i π / `N_DIRECTIONS` from the x axis towards y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

N_DIRECTIONS = 8

SUBPIXELS = 4
"""Samples per side of a pixel for the share of it that a half disc covers."""

RINGS = ((0.35, 0.3, 0.22), (0.78, 0.7, 0.22))
"""Distance from the center, weight and standard deviation of the Gaussian samples that stand for a sector of a disc;
distance and deviation as a share of the radius."""

BAND_SIZE = 1 << 20
"""Values of a histogram image that are processed together: a band of rows that fits the processor's cache."""


def halved(maps: Tensor) -> Tensor:
    """Maps (C, H, W) at half the size (C, ceil(H / 2), ceil(W / 2)), by means of 2 x 2 pixels."""
    height, width = maps.shape[1:]
    padded = F.pad(maps[None], (0, width % 2, 0, height % 2), mode="replicate")
    return F.avg_pool2d(padded, 2)[0]


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (C, H, W) at another size (C, *size), bilinear."""
    return F.interpolate(maps[None], tuple(size), mode="bilinear", align_corners=False)[0]


def half_disc_differences(maps: Tensor, radius: float) -> Tensor:
    """Differences (C, N_DIRECTIONS, H, W) of the means of maps (C, H, W) over the two half discs of each direction."""
    discs = _half_discs(radius)
    reach = discs.shape[-1] // 2
    padded = F.pad(maps[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(padded, discs[:N_DIRECTIONS] - discs[N_DIRECTIONS:])


def histogram_distances(histograms: Tensor, sizes: Sequence[int], radius: float) -> Tensor:
    """χ² distances of the histograms of the two half discs of each direction, in [0, 1].

    Parameters
    ----------
    histograms : Tensor (sum of sizes, H, W)
        Memberships of each pixel in the bins of one or more histograms; those of one histogram sum to 1.
    sizes : sequence of int
        Number of bins of each histogram.
    radius : float
        Of the disc, in pixels.

    Returns
    -------
    Tensor (n_histograms, N_DIRECTIONS, H, W)
        ½ Σ (a - b)² / (a + b) over bins. With a + b = t, and both sums 1, this is 2 Σ a² / t - 1.
    """
    n_bins, height, width = histograms.shape
    reach = math.ceil(radius)
    rings = [
        F.pad(gaussian(histograms, spread * radius)[None], (reach,) * 4, mode="replicate")[0] * (weight / N_DIRECTIONS)
        for _, weight, spread in RINGS
    ]
    distances = torch.empty(len(sizes), N_DIRECTIONS, height, width)
    rows = max(1, BAND_SIZE // (n_bins * width))
    for top in range(0, height, rows):
        band = [ring[:, top : top + rows + 2 * reach] for ring in rings]
        distances[:, :, top : top + rows] = _band_distances(band, sizes, radius)
    return distances


def _band_distances(rings: list[Tensor], sizes: Sequence[int], radius: float) -> Tensor:
    """`histogram_distances` of one band; `rings` are padded by the radius."""
    reach = math.ceil(radius)
    height, width = (side - 2 * reach for side in rings[0].shape[1:])
    sectors = []
    for i in range(2 * N_DIRECTIONS):
        angle = (i + 0.5) * math.pi / N_DIRECTIONS
        parts = []
        for ring, (distance, _, _) in zip(rings, RINGS, strict=True):
            y, x = (reach + round(distance * radius * part) for part in (math.sin(angle), math.cos(angle)))
            parts.append(ring[:, y : y + height, x : x + width])
        sectors.append(torch.add(*parts))
    scale = (torch.stack(sectors).sum(0) + 1e-6).rsqrt_()
    for sector in sectors:
        sector.mul_(scale)
    half = torch.stack(sectors[:N_DIRECTIONS]).sum(0)  # a / √t: the sectors from angle 0 to π
    distances = torch.empty(len(sizes), N_DIRECTIONS, height, width)
    for i in range(N_DIRECTIONS):
        if i:  # Turn the half disc by one sector.
            half.add_(sectors[i + N_DIRECTIONS - 1]).sub_(sectors[i - 1])
        for bins, distance in zip(half.split(list(sizes)), distances[:, i], strict=True):
            distance.copy_(torch.einsum("chw,chw->hw", bins, bins))
    return distances.mul_(2).sub_(1).clamp_(0, 1)


def gaussian(maps: Tensor, deviation: float) -> Tensor:
    """Maps (C, H, W) smoothed by a Gaussian, edges repeated."""
    reach = max(1, round(2.5 * deviation))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    maps = maps[:, None]
    maps = F.conv2d(F.pad(maps, (reach, reach, 0, 0), mode="replicate"), kernel[:, :, None])
    return F.conv2d(F.pad(maps, (0, 0, reach, reach), mode="replicate"), kernel[..., None])[:, 0]


def structure_tensor(maps: Tensor) -> Tensor:
    """Structure tensor (3, H, W), as xx, xy and yy, of maps (C, H, W): products of their gradients, summed over maps.

    Gradients are those at a Gaussian scale of 1 pixel, in units per pixel (Di Zenzo 1986).
    """
    steps = torch.arange(-3.0, 4)
    smooth = torch.exp(-0.5 * steps**2)
    smooth = smooth / smooth.sum()
    slope = steps * smooth / (steps**2 * smooth).sum()  # 1 for a ramp
    padded = F.pad(maps[None], (3,) * 4, mode="replicate").contiguous(memory_format=torch.channels_last)

    def along(x: Tensor, kernel: Tensor, shape: tuple[int, int]) -> Tensor:
        return F.conv2d(x, kernel.reshape(1, 1, *shape).expand(len(maps), -1, -1, -1), groups=len(maps))

    x = along(along(padded, smooth, (7, 1)), slope, (1, 7))[0]
    y = along(along(padded, slope, (7, 1)), smooth, (1, 7))[0]
    return torch.stack([x.square().sum(0), (x * y).sum(0), y.square().sum(0)])


def directional(tensor: Tensor) -> Tensor:
    """Sizes (N_DIRECTIONS, H, W) of the gradients across each direction, from a structure tensor (3, H, W)."""
    angles = torch.arange(N_DIRECTIONS) * (math.pi / N_DIRECTIONS)
    across = torch.stack([angles.sin() ** 2, -2 * angles.sin() * angles.cos(), angles.cos() ** 2], dim=1)
    return torch.tensordot(across, tensor, dims=1).clamp_(min=0).sqrt_()


def _half_discs(radius: float) -> Tensor:
    """Half discs (2 N_DIRECTIONS, 1, k, k) of sum 1; i and i + N_DIRECTIONS are the two sides of direction i."""
    reach = math.ceil(radius)
    n = (2 * reach + 1) * SUBPIXELS
    centers = (np.arange(n) + 0.5) / SUBPIXELS - 0.5 - reach
    y, x = np.meshgrid(centers, centers, indexing="ij")
    inside = x**2 + y**2 <= (radius + 0.3) ** 2
    discs = []
    for i in range(2 * N_DIRECTIONS):
        angle = math.pi * i / N_DIRECTIONS
        half = (inside & (y * math.cos(angle) - x * math.sin(angle) > 0)).astype(np.float64)
        disc = half.reshape(2 * reach + 1, SUBPIXELS, 2 * reach + 1, SUBPIXELS).mean(axis=(1, 3))
        discs.append(disc / disc.sum())
    return torch.tensor(np.array(discs), dtype=torch.float32)[:, None]
