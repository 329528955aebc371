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


VARIED = ((2_000, 0.6), (20_000, 0.2))
"""(number of images, probability of each change) for a discriminator: with fewer images it needs more to look at."""


def augment_probability(n_images: int) -> float:
    """The probability of each change of a `Variation` in front of a discriminator that learns from so many images."""
    return next((share for fewer_than, share in VARIED if n_images < fewer_than), 0.0)


class Variation:
    """One draw of changes for n images: mirrored, shifted, brightened, contrasted, and a part cut out.

    Each change comes to each image with the given probability (mirroring with half of it) and is differentiable, so a
    generator learns through it: Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training". The
    shift is one for all images that get it, which costs one copy instead of one for each.

    The changes do not leak into what is generated: with a probability below 1 the unchanged image remains the most
    frequent of its versions, so only a generator of unchanged images gives the same mixture as the real ones do (Karras
    et al. 2020, "Training generative adversarial networks with limited data", section 2.2).

    Parameters
    ----------
    n : int
    probability : float
        Below 1.
    generator : torch.Generator
        Where all chance comes from.
    """

    def __init__(self, n: int, probability: float, generator: torch.Generator) -> None:
        chance = torch.rand(8, n, 1, 1, 1, generator=generator, device=generator.device)
        self.flipped = chance[0] < probability / 2
        self.moved = chance[1] < probability
        self.brightness = torch.where(chance[2] < probability, chance[3] - 0.5, 0.0)
        self.contrast = torch.where(chance[2] < probability, 2.0 ** (2 * chance[4] - 1), 1.0)
        self.cut = chance[5] < probability
        self.center = chance[6:8]
        self.shift = [float(v) for v in torch.rand(2, generator=generator, device=generator.device)]

    def __call__(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """Images (n, C, H, W) in [-1, 1], changed; mid-gray where nothing is left or `known` (same shape) is False."""
        height, width = x.shape[2:]
        cut = self.cut & _within(self.center[0], height, x.device, 2) & _within(self.center[1], width, x.device, 3)
        mean = x.mean((1, 2, 3), keepdim=True)
        x = self._move((x - mean) * self.contrast + mean + self.brightness)
        x = torch.where(cut, 0.0, x)
        return x if known is None else torch.where(self._move(known.to(x.dtype)) > 0.5, x, 0.0)

    def _move(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        dy, dx = height // 8, width // 8
        x = torch.where(self.flipped, x.flip(3), x)
        top, left = int(self.shift[0] * (2 * dy + 1)), int(self.shift[1] * (2 * dx + 1))
        padded = functional.pad(x, (dx, dx, dy, dy))
        return torch.where(self.moved, padded[:, :, top : top + height, left : left + width], x)


def _within(center: Tensor, length: int, device: torch.device, dim: int) -> Tensor:
    """Which of `length` places lie within a quarter of it around a center (n, 1, 1, 1) in [0, 1): along `dim`."""
    places = torch.arange(length, device=device).reshape([-1 if i == dim else 1 for i in range(4)])
    return (places - center * length).abs() < length / 4
