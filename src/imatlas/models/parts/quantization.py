"""Quantization of coefficients whose distribution is predicted: a logistic one, in units of the quantization step.

Each coefficient becomes the integer of the least squared error + weight * bits, of the nearest one and the next one
towards zero (Sullivan & Wiegand 1998, "Rate-distortion optimization for video compression"). So the interval
that is mapped to an integer depends on the prediction; what is decoded is the mean over this interval.
"""

from __future__ import annotations

import torch
from torch import Tensor

RATE_WEIGHT = 0.1
"""Squared error, in steps, that a bit may cost. In theory, for small steps, 2 ln 2 / 12 = 0.116."""
LEAST_LOG_SCALE, MOST_LOG_SCALE = -4.5, 12.0
N_POINTS = 6
"""Points at which a mean over an interval is computed."""


def bits_of(q: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Bits of integers, if they are rounded values of a logistic distribution."""
    inverse = torch.exp2(-log_scale)
    x = -(q - mean).abs()
    upper, lower = torch.sigmoid((x + 0.5) * inverse), torch.sigmoid((x - 0.5) * inverse)
    # far out, the difference has no digits left: the logarithm of the density goes on
    far = 1.4427 * (x + 0.5) * inverse
    return torch.where(far < -16, -far, -torch.log2((upper - lower).clamp_min(1e-7)))


def quantized(x: Tensor, mean: Tensor, log_scale: Tensor, weight: float) -> Tensor:
    """Integers for values `x`."""
    nearest = torch.round(x)
    smaller = nearest - torch.sign(nearest)
    costs = (torch.square(x - q) + weight * bits_of(q, mean, log_scale) for q in (nearest, smaller))
    return torch.where(next(costs) <= next(costs), nearest, smaller)


def expected(q: Tensor, mean: Tensor, log_scale: Tensor, weight: float) -> Tensor:
    """Mean of the values that are quantized to integers `q`."""
    inverse = torch.exp2(-log_scale)
    more = (weight / 2 * 1.4427 * inverse).clamp_max(0.3)  # bits of the next larger integer, far from the mean
    low = q - 0.5 - torch.where(q > 0, -more, more)
    high = q + 0.5 + torch.where(q < 0, -more, more)
    total, norm = torch.zeros_like(q), torch.zeros_like(q)
    for k in range(N_POINTS):
        x = low + (high - low) * ((k + 0.5) / N_POINTS)
        density = torch.sigmoid((x - mean) * inverse)
        density = density * (1 - density) + 1e-9
        total, norm = total + density * x, norm + density
    return total / norm
