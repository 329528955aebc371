"""Convolutional network that adds to an enlarged image the details that interpolation leaves out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LINEAR, FIRST = 7, 5
"""Sides of the kernels that see the pixels."""
LEAK = 0.1


class UpscalingNetwork(nn.Module):
    """Details (N, 1, sH, sW) of gray images (N, 1, H, W).

        x -> 7 x 7 ------------------------------ + -> s² channels become s x s pixels
         `-> 5 x 5 -> residual 3 x 3 ... -> 3 x 3 -^

    Everything is computed at the small size: Shi et al. 2016, "Real-time single image and video super-resolution using
    an efficient sub-pixel convolutional neural network". There are no biases, and the kernels that see the pixels have
    the mean 0, so that f(ax + b) = a f(x) for a >= 0: details do not depend on brightness and scale with contrast
    (Mohan et al. 2020, "Robust and interpretable blind image denoising via bias-free convolutional neural networks").
    The last kernels are initialized to zero.
    """

    def __init__(self, scale: int, width: int, depth: int) -> None:
        super().__init__()
        self.scale = scale
        self.linear = nn.Conv2d(1, scale**2, LINEAR, bias=False)
        self.first = nn.Conv2d(1, width, FIRST, bias=False)
        body = [nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(depth)]
        self.last = nn.Conv2d(width, scale**2, 3, padding=1, bias=False)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.last.weight)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        for convolution in body:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            with torch.no_grad():
                convolution.weight.mul_(0.5)
        self.body = nn.ModuleList(body)

    @property
    def reach(self) -> int:
        """How far a pixel has influence, in pixels of the small image."""
        return FIRST // 2 + len(self.body) + 1

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (LINEAR // 2,) * 4, mode="replicate")
        linear = F.conv2d(x, _centered(self.linear.weight))
        cut = (LINEAR - FIRST) // 2
        h = F.leaky_relu(F.conv2d(x[..., cut:-cut, cut:-cut], _centered(self.first.weight)), LEAK)
        for convolution in self.body:
            h = h + F.leaky_relu(convolution(h), LEAK)
        return F.pixel_shuffle(linear + self.last(h), self.scale)


def _centered(weight: Tensor) -> Tensor:
    """Kernels with the mean 0."""
    return weight - weight.mean(dim=(2, 3), keepdim=True)
