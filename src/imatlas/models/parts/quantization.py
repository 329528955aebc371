"""Quantization of coefficients whose distribution is predicted: a logistic one, in units of the quantization step.

Each coefficient becomes the integer of the least squared error + weight * bits, of the nearest one and the next one
towards zero (Sullivan & Wiegand 1998, "Rate-distortion optimization for video compression"). So the interval
that is mapped to an integer depends on the prediction; what is decoded is the mean over this interval.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

RATE_WEIGHT = 0.1
"""Squared error, in steps, that a bit may cost. In theory, for small steps, 2 ln 2 / 12 = 0.116."""
LEAST_SHARE, FLAT = 1e-6, 0.02
"""Probability of an interval, and its length in scales, below which its mean is not computed but known well enough."""


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
    low, high = (inverse * (edge - mean) for edge in _interval(q, mean, log_scale, weight))
    sign = torch.where(low + high > 0, -1.0, 1.0)  # by symmetry, to the side where probabilities keep their digits
    low, high = torch.where(sign > 0, low, -high), torch.where(sign > 0, high, -low)
    share = torch.sigmoid(high) - torch.sigmoid(low)
    moment = (high * torch.sigmoid(high) - F.softplus(high)) - (low * torch.sigmoid(low) - F.softplus(low))
    middle, inner = (low + high) / 2, high - 1  # where the density is flat, and where it falls steeply
    standard = torch.where(share > LEAST_SHARE, moment / share.clamp_min(LEAST_SHARE), torch.maximum(middle, inner))
    standard = torch.where(high - low < FLAT, middle, standard.clamp(low, high))
    return mean + sign * standard / inverse


def _interval(q: Tensor, mean: Tensor, log_scale: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """The least and the largest value that are quantized to integers `q`."""
    below, here, above = (bits_of(q + k, mean, log_scale) for k in (-1, 0, 1))

    def moved(more: Tensor) -> Tensor:
        """How far an edge is moved outwards, where the integer beyond it takes more bits."""
        return (weight / 2 * more).clamp(0, 1)

    low = q - 0.5 + torch.where(q > 0, moved(here - below), -moved(below - here))
    high = q + 0.5 + torch.where(q < 0, -moved(here - above), moved(above - here))
    return low, high
