"""Arithmetic whose results are the same on every machine.

A decoder that must repeat what an encoder computed, bit for bit, cannot use floating point as usual, since its sums
depend on their order, which differs among machines, thread counts and batch sizes. But sums of integers, and of
multiples of a power of two, are exact in floating point in any order, as long as they need no more digits than it has
(Ballé, Johnston & Minnen 2019, "Integer networks for data compression with latent-variable models"). So activations of
an exact network are integers up to `MOST`, in units of 1 / `UNIT`; weights are multiples of a power of two, for each
layer the smallest one with which no sum can need more than the 24 bits of float32; and results are rounded.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)

UNIT = 64.0
"""Activations of exact networks are multiplied by this, and rounded."""
MOST = 2047.0
"""Largest activation of an exact network."""
FINEST = 12
"""Weights are multiples of 2 to the minus this, or of more."""


class Convolution(nn.Conv2d):
    """A convolution, and a rectifier if `rectified`; exact once `make_exact` was called.

    Results are limited to what they may be in an exact network, so that it predicts as it was trained; but for the last
    layer's (`is_last`), which no sums are made of.
    """

    exact = False

    def __init__(
        self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, rectified: bool = False, is_last: bool = False
    ) -> None:
        super().__init__(n_in, n_out, kernel, stride, padding=kernel // 2 if stride == 1 else 0)
        self.rectified, self.is_last = rectified, is_last

    @property
    def most(self) -> float:
        """Largest activation."""
        return MOST if self.exact else MOST / UNIT

    def forward(self, x: Tensor) -> Tensor:
        """See `torch.nn.Conv2d`."""
        y = super().forward(x)
        y = y.round_() if self.exact else y
        return y if self.is_last else y.clamp(0 if self.rectified else -self.most, self.most)

    def make_exact(self) -> None:
        """Round the weights so that no sum of products needs more than 24 bits."""
        assert self.bias is not None
        weight, bias = self.weight.detach().double(), self.bias.detach().double() * UNIT
        largest = float((weight.abs().sum((1, 2, 3)) * MOST + bias.abs()).max())
        places = min(FINEST, 23 - math.frexp(largest)[1])  # one bit less, for what rounding adds
        spacing = 2.0**-places
        self.weight.data = (torch.round(weight / spacing) * spacing).float()
        self.bias.data = (torch.round(bias / spacing) * spacing).float()
        self.exact = True


def exact_copy(network: N) -> N:
    """A copy of a network of `Convolution`s that computes exactly, on the CPU."""
    made = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster
    for layer in made.modules():
        if isinstance(layer, Convolution):
            layer.make_exact()
    return made


def dyadic(value: float) -> float:
    """The nearest multiple of 2⁻¹²."""
    return math.floor(value * 2.0**12 + 0.5) / 2.0**12


def snap(x: Tensor) -> Tensor:
    """In float64, the nearest multiples of 2⁻⁸; others unchanged."""
    return (x * 256).round_().div_(256) if x.dtype == torch.float64 else x


def log2_of(x: Tensor) -> Tensor:
    """log2(1 + |x|), linear between powers of two: exact in float64."""
    mantissa, exponent = torch.frexp(1 + x.abs())
    return exponent + (2 * mantissa - 2)
