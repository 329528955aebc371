"""Pictures varied at random, on tensors: more to learn from where there are few."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def flip_and_shift(x: Tensor, generator: torch.Generator, known: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Mirror half of the images left to right, and shift the batch by up to an eighth of its sides.

    What a shift leaves bare is filled by reflection at the border. The shift is one for the whole batch, which costs
    one copy instead of one for each image.

    Parameters
    ----------
    x : Tensor (N, C, H, W)
    generator : torch.Generator
        Where all chance comes from.
    known : Tensor (N, C, H, W) of bool, optional
        Which pixels are not missing; moved in the same way.

    Returns
    -------
    x, known : like those given
    """
    n, _, height, width = x.shape
    flipped = (torch.rand(n, generator=generator, device=generator.device) < 0.5).to(x.device)[:, None, None, None]
    dy, dx = height // 8, width // 8
    top = int(torch.randint(0, 2 * dy + 1, (), generator=generator, device=generator.device))
    left = int(torch.randint(0, 2 * dx + 1, (), generator=generator, device=generator.device))

    def move(values: Tensor) -> Tensor:
        values = torch.where(flipped, values.flip(3), values)
        values = functional.pad(values, (dx, dx, dy, dy), mode="reflect")
        return values[:, :, top : top + height, left : left + width].contiguous()

    moved = move(x)
    return moved, None if known is None else move(known.to(x.dtype)) > 0.5
