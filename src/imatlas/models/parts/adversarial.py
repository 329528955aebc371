"""Adversarial training: the discriminator step, the generator step, and the optimizers of both networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from imatlas.nn.augment import DiffAugment
from imatlas.nn.losses import AdversarialLoss, discriminator_loss, generator_loss, gradient_penalty

PENALTY_SUBSET = 4
"""The gradient penalties, which need second derivatives, are taken at one image in this many."""

HALF_LIFE = 0.05
"""Of the averaged weights, as a fraction of the steps so far: adversarial training oscillates, so it is longer."""


def optimizers(learning_rate: float, **networks: nn.Module) -> dict[str, Optimizer]:
    """One Adam per network, by name; without momentum, because each step changes the other network's loss."""
    return {
        name: torch.optim.Adam(network.parameters(), lr=learning_rate, betas=(0.0, 0.99), fused=True)
        for name, network in networks.items()
    }


def augmented(
    real: Tensor, fake: Tensor, known: Tensor | None, probability: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Real and fake images (N, C, H, W) for the discriminator, both with the same random augmentation."""
    if probability == 0:
        return real, fake
    augment = DiffAugment(len(fake), probability, generator)
    return augment(real, known), augment(fake, known)


def discriminator_step(
    discriminator: nn.Module,
    real: Tensor,
    fake: Tensor,
    generator: torch.Generator,
    *,
    loss: AdversarialLoss = "relativistic",
    gamma: float = 1.0,
    y: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the discriminator plus gamma / 2 * (r1 + r2), and the logs r1 and r2."""
    discriminator.requires_grad_(True)
    fake = fake.detach()
    total = discriminator_loss(loss, discriminator(real, y), discriminator(fake, y))
    if gamma == 0:
        return total, {}
    subset = torch.randperm(len(fake), generator=generator, device=fake.device)[: max(1, len(fake) // PENALTY_SUBSET)]
    cond = None if y is None else y[subset]
    logs = {
        "r1": gradient_penalty(discriminator, real[subset], cond),
        "r2": gradient_penalty(discriminator, fake[subset], cond),
    }
    # The squared norm of the gradient shrinks with the number of pixels.
    gamma = gamma * real[0].numel() / 1024
    return total + gamma / 2 * (logs["r1"] + logs["r2"]), logs


def generator_step(
    discriminator: nn.Module,
    real: Tensor,
    fake: Tensor,
    *,
    loss: AdversarialLoss = "relativistic",
    y: Tensor | None = None,
) -> Tensor:
    """Loss of the network that generated the fake images; the discriminator is frozen until its own step."""
    discriminator.requires_grad_(False)
    with torch.no_grad():
        logit_real = discriminator(real, y)
    return generator_loss(loss, logit_real, discriminator(fake, y))
