"""Random augmentation of image tensors, for small training sets."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def flip_and_shift(x: Tensor, generator: torch.Generator, known: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Mirror half of the images left to right, and shift the batch by up to an eighth of its sides.

    The border is filled by reflection. All images have the same shift, which takes one copy of the batch.

    Parameters
    ----------
    x : Tensor (N, C, H, W)
    generator : torch.Generator
    known : Tensor (N, C, H, W) of bool, optional
        Which pixels are not missing; transformed in the same way.

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

    return move(x), None if known is None else move(known.to(x.dtype)) > 0.5


AUGMENT_PROBABILITIES = ((2_000, 0.6), (20_000, 0.2))
"""(number of images, probability of each augmentation with fewer images than that) for a discriminator."""


def augment_probability(n_images: int) -> float:
    """Probability of each change of `DiffAugment` for a discriminator trained on `n_images`."""
    return next((probability for limit, probability in AUGMENT_PROBABILITIES if n_images < limit), 0.0)


class DiffAugment:
    """One draw of differentiable augmentations for n images: mirroring, shift, brightness, contrast, cutout.

    Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training". Each change is applied to each
    image with the given probability (mirroring with half of it); all shifted images have the same shift. With a
    probability below 1 the augmentations do not leak into generated images (Karras et al. 2020, "Training generative
    adversarial networks with limited data", section 2.2).

    Parameters
    ----------
    n : int
    probability : float
        Below 1.
    generator : torch.Generator
    """

    def __init__(self, n: int, probability: float, generator: torch.Generator) -> None:
        u = torch.rand(8, n, 1, 1, 1, generator=generator, device=generator.device)
        self.flipped = u[0] < probability / 2
        self.shifted = u[1] < probability
        self.brightness = torch.where(u[2] < probability, u[3] - 0.5, 0.0)
        self.contrast = torch.where(u[2] < probability, 2.0 ** (2 * u[4] - 1), 1.0)
        self.cut = u[5] < probability
        self.center = u[6:8]
        self.shift = [float(v) for v in torch.rand(2, generator=generator, device=generator.device)]

    def __call__(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """Augmented images (n, C, H, W) in [-1, 1]; mid-gray outside, in cutouts and where `known` is False."""
        height, width = x.shape[2:]
        cut = self.cut & _within(self.center[0], height, x.device, 2) & _within(self.center[1], width, x.device, 3)
        mean = x.mean((1, 2, 3), keepdim=True)
        x = self._mirror_and_shift((x - mean) * self.contrast + mean + self.brightness)
        x = torch.where(cut, 0.0, x)
        return x if known is None else torch.where(self._mirror_and_shift(known.to(x.dtype)) > 0.5, x, 0.0)

    def _mirror_and_shift(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        dy, dx = height // 8, width // 8
        x = torch.where(self.flipped, x.flip(3), x)
        top, left = int(self.shift[0] * (2 * dy + 1)), int(self.shift[1] * (2 * dx + 1))
        padded = functional.pad(x, (dx, dx, dy, dy))
        return torch.where(self.shifted, padded[:, :, top : top + height, left : left + width], x)


def _within(center: Tensor, length: int, device: torch.device, dim: int) -> Tensor:
    """Which of `length` pixels along `dim` are closer than a quarter of it to a center (n, 1, 1, 1) in [0, 1)."""
    pixels = torch.arange(length, device=device).reshape([-1 if i == dim else 1 for i in range(4)])
    return (pixels - center * length).abs() < length / 4
