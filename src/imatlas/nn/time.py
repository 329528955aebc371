"""Times as vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of times at frequencies from 1 to 1,000 turns a unit, in equal ratios: (N,) -> (N, width).

    Vaswani et al. 2017, "Attention is all you need" (section 3.5), for times in [0, 1].
    """
    half = width // 2
    turns = torch.logspace(0, 3, half, device=t.device, dtype=t.dtype)
    angles = 2 * math.pi * t[:, None] * turns
    return torch.cat([angles.sin(), angles.cos(), t.new_zeros((len(t), width - 2 * half))], dim=1)
