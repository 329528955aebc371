"""A time as a vector that a network can read."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal(t: Tensor, width: int) -> Tensor:
    """Times (N,) in [0, 1] as cosines and sines (N, width) float32, of 1,000 down to about 0.1 radians a unit of time.

    Vaswani et al. 2017, "Attention is all you need", section 3.5, for positions; here 1,000 t is the position, as if
    [0, 1] were cut into a thousand steps. The fastest waves tell near times apart, the slowest tell early from late.
    """
    half = -(-width // 2)
    rates = 1000.0 * torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000.0) / half))
    angles = t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)[:, :width]
