"""Sinusoidal embedding of times."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal(t: Tensor, width: int) -> Tensor:
    """Cosines and sines (N, width) float32 of times (N,) in [0, 1], from 1,000 to about 0.1 radians per unit of time.

    Vaswani et al. 2017, "Attention is all you need" (section 3.5), with the position 1,000 t.
    """
    half = -(-width // 2)
    rates = 1000.0 * torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000.0) / half))
    angles = t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)[:, :width]
