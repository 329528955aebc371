"""Images as planes that are coded: brightness and colors of RGB, any other channel on its own.

Values span 0 to 255. The planes of RGB (ITU-R BT.601) are scaled so that an error of 1 in any of them is, on average,
an error of the same size in RGB. For coding, a plane is 0 in the middle of its range. Integers are transformed without
loss, as Malvar, Sullivan & Srinivasan 2008, "Lifting-based reversible color transformations for image compression".
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

TO_PLANES = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
SCALES = np.sqrt(np.square(np.linalg.inv(TO_PLANES)).sum(axis=0))
FORWARD = torch.from_numpy(TO_PLANES * SCALES[:, None])
BACKWARD = torch.from_numpy(np.linalg.inv(TO_PLANES) / SCALES)


def groups_of(n_colors: int, has_alpha: bool) -> list[slice]:
    """Channels that are coded together: the three of RGB, others one by one."""
    colors = [slice(0, 3)] if n_colors == 3 else [slice(k, k + 1) for k in range(n_colors)]
    return [*colors, slice(n_colors, n_colors + 1)] if has_alpha else colors


def to_planes(values: Tensor) -> Tensor:
    """Planes (N, C, H, W) of RGB or of one channel, each in the range 0 to 255."""
    centered = values - 128
    return centered if values.shape[1] == 1 else _mixed(FORWARD, centered)


def from_planes(planes: Tensor) -> Tensor:
    """The inverse of `to_planes`."""
    return 128 + (planes if planes.shape[1] == 1 else _mixed(BACKWARD, planes))


def _mixed(matrix: Tensor, planes: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", matrix.to(planes), planes)


def to_integer_planes(values: Tensor) -> Tensor:
    """Planes (N, C, H, W) of RGB or of one channel, all integers, without loss: YCoCg-R."""
    if values.shape[1] == 1:
        return values
    red, green, blue = values.unbind(1)
    orange = red - blue
    base = blue + torch.floor(orange / 2)
    green = green - base
    return torch.stack([base + torch.floor(green / 2), orange, green], 1)


def from_integer_planes(planes: Tensor) -> Tensor:
    """The inverse of `to_integer_planes`."""
    if planes.shape[1] == 1:
        return planes
    brightness, orange, green = planes.unbind(1)
    base = brightness - torch.floor(green / 2)
    blue = base - torch.floor(orange / 2)
    return torch.stack([blue + orange, green + base, blue], 1)
