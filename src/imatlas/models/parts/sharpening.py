"""A decoder learns from a discriminator to leave no blur.

A squared error is lowest at the mean of all images that a vector could stand for, which is a blur. So a discriminator
is shown each image beside what the decoder makes of its vector, and the decoder learns to be taken for the image:
Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric"; Esser et al. 2021, "Taming
transformers for high-resolution image synthesis" (section 3.1). The pairs suit the relativistic loss, which compares
two images: Huang et al. 2024, "The GAN is dead; long live the GAN! A modern baseline GAN" (section 2).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.image_estimator import ImageEstimator
from imatlas.models.parts import adversarial
from imatlas.nn.augment import augment_probability
from imatlas.nn.condition import Condition
from imatlas.nn.discriminator import Discriminator
from imatlas.nn.losses import energy_distance, hidden, looks, masked_mean
from imatlas.training.batches import Batch

WIDTH = 32
"""Channels of the discriminator's coarsest grid."""


class SharpenerModule(nn.Module):
    """The autoencoder, and the discriminator that its decoder learns from."""

    def __init__(self, autoencoder: nn.Module, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.autoencoder: Any = autoencoder
        self.discriminator = Discriminator(shape, Condition(0, 0, WIDTH), width=WIDTH)


@estimator
class Sharpener(ImageEstimator):
    """What `sharpen` trains: the decoder of a fitted model learns on, its encoder stays as it is.

    The decoder lowers the mean squared error plus `sharpness` times the relativistic loss; the discriminator has the
    gradient penalties of `GAN`. The held-out loss is the energy distance between rebuilt and real images, made small.
    """

    model: Annotated[Any, Field(description="the fitted model between images and vectors")] = None
    sharpness: Annotated[float, Field(ge=0, description="weight of the discriminator's judgement")] = 0.05
    _half_life = adversarial.HALF_LIFE

    def _build(self, spec: ImageSpec) -> SharpenerModule:
        return SharpenerModule(copy.deepcopy(self.model.module_).cpu(), spec.shape)

    def _optimizers(self, module: Any) -> dict[str, Optimizer]:
        return adversarial.optimizers(
            self.learning_rate, discriminator=module.discriminator, decoder=module.autoencoder.decoder
        )

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        batch = self.model._seen(batch, generator)
        discriminator, known = module.discriminator, batch.known
        rebuilt = self._rebuilt(module, batch, generator)
        share = augment_probability(batch.n_images)
        real, fake = adversarial.shown(batch.x, hidden(rebuilt, known), known, share, generator)
        loss, logs = adversarial.discriminator_step(discriminator, real, fake, generator)
        yield "discriminator", loss, logs

        judged = adversarial.generator_step(discriminator, real, fake)
        recon = masked_mean((rebuilt - batch.x).square(), known)
        yield "decoder", recon + self.sharpness * judged, {"recon": recon, "judged": judged}
        discriminator.requires_grad_(True)

    def _held_out_loss(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        return energy_distance(looks(hidden(self._rebuilt(module, batch, generator), batch.known)), looks(batch.x))

    def _rebuilt(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        """What the decoder makes of the vectors of images, (N, C, H, W) float32."""
        with torch.no_grad():
            z = self.model._code(module.autoencoder, batch, generator)
        return self.model._decode(module.autoencoder, z).float()
