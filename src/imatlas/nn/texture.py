"""Texture of images: local statistics of the responses to random filters.

Random filters describe textures about as well as learned ones do: Ustyuzhaninov et al. 2017, "What does it take to
generate natural textures?"; there with Gram matrices of whole images, here with means and deviations in windows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, leaky_relu

N_FILTERS = 32
"""Filters on each scale."""

N_SCALES = 3

WINDOW = 4
"""Side of the windows in the responses: 8, 16 and 32 pixels of the image."""

FLOOR = 1e-6
"""Added to the variance of a statistic over the images: images that are all alike have none."""


def random_filters(n_channels: int, generator: torch.Generator) -> list[Tensor]:
    """Filters (N_FILTERS, channels, 3, 3) of each scale, for images with `n_channels`.

    Those of the first scale have mean zero: they do not respond to brightness, which the squared error sees to.
    """
    filters = []
    for scale in range(N_SCALES):
        n = N_FILTERS if scale else n_channels
        weight = torch.randn(N_FILTERS, n, 3, 3, generator=generator, device=generator.device) * (2 / (9 * n)) ** 0.5
        filters.append(weight if scale else weight - weight.mean((2, 3), keepdim=True))
    return filters


def texture(x: Tensor, filters: Sequence[Tensor]) -> list[Tensor]:
    """Means and standard deviations, in windows, of the responses on each scale.

        image -> [conv 3 x 3 -> leaky relu -> halve] x N_SCALES -> of each scale the statistics in its windows

    Images (N, C, H, W) in [-1, 1] -> per scale (N, 2 N_FILTERS, windows, windows) float32.
    """
    statistics = []
    for weight in filters:
        x = avg_pool2d(leaky_relu(conv2d(x, weight, padding=1), 0.2), 2, ceil_mode=True)
        statistics.append(local_statistics(x.float(), WINDOW))
    return statistics


def texture_distance(x_hat: Tensor, x: Tensor, filters: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of the textures of images and their reconstructions, both (N, C, H, W).

    Each statistic is divided by its standard deviation over the images.
    """
    with torch.no_grad():
        real = texture(x, filters)
    total = x_hat.new_zeros(())
    for s_hat, s in zip(texture(x_hat, filters), real):
        variance = s.var((0, 2, 3), correction=0, keepdim=True) + FLOOR
        total = total + ((s_hat - s).square() / variance).mean()
    return total / N_SCALES


def local_statistics(x: Tensor, window: int) -> Tensor:
    """Means and standard deviations of (N, C, H, W) in square windows: (N, 2 C, rows, columns)."""
    mean = avg_pool2d(x, window, ceil_mode=True)
    variance = avg_pool2d(x.square(), window, ceil_mode=True) - mean.square()
    return torch.cat([mean, (variance.clamp(min=0) + 1e-4).sqrt()], dim=1)
