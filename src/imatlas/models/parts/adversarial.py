"""What models share that learn from a discriminator: the two turns of a step, and the optimizers of both players."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from imatlas.nn.augment import Variation
from imatlas.nn.losses import AdversarialLoss, discriminator_loss, generator_loss, gradient_penalty

PART = 4
"""One image in so many is where the gradient penalties are taken: each needs a gradient of a gradient."""

HALF_LIFE = 0.05
"""Of the average of the weights, as a share of the run so far. Two players circle each other: clothes lay at 1.69 with
it, at 1.97 with the usual one, at 2.57 without an average."""


def optimizers(learning_rate: float, **players: nn.Module) -> dict[str, Optimizer]:
    """One for each player, by name."""
    # no momentum: what was downhill a step ago need not be so after the other player's move
    return {
        name: torch.optim.Adam(player.parameters(), lr=learning_rate, betas=(0.0, 0.99), fused=True)
        for name, player in players.items()
    }


def shown(
    real: Tensor, fake: Tensor, known: Tensor | None, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Real and fake images (N, C, H, W) as the discriminator sees them: each change comes to a `share`."""
    if share == 0:
        return real, fake
    varied = Variation(len(fake), share, generator)
    return varied(real, known), varied(fake, known)


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
    """What the discriminator lowers: its loss plus gamma / 2 * (r1 + r2) at one image in `PART`; and r1 and r2."""
    discriminator.requires_grad_(True)
    fake = fake.detach()
    total = discriminator_loss(loss, discriminator(real, y), discriminator(fake, y))
    if gamma == 0:
        return total, {}
    part = torch.randperm(len(fake), generator=generator, device=fake.device)[: max(1, len(fake) // PART)]
    cond = None if y is None else y[part]
    logs = {
        "r1": gradient_penalty(discriminator, real[part], cond),
        "r2": gradient_penalty(discriminator, fake[part], cond),
    }
    # a gradient spreads over the pixels
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
    """What who made the fake images lowers; the discriminator gets no gradient until its own turn."""
    discriminator.requires_grad_(False)
    with torch.no_grad():
        logit_real = discriminator(real, y)
    return generator_loss(loss, logit_real, discriminator(fake, y))
