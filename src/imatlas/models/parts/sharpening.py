"""Adversarial fine-tuning of a decoder, for sharper images.

The squared error is minimal at the mean of all images with the same vector, which is blurred. So a discriminator
compares each image with its reconstruction, and the decoder is trained against it: Larsen et al. 2016, "Autoencoding
beyond pixels using a learned similarity metric"; Esser et al. 2021, "Taming transformers for high-resolution image
synthesis" (section 3.1). The relativistic loss suits such pairs: Huang et al. 2024, "The GAN is dead; long live the
GAN! A modern baseline GAN" (section 2).
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
from imatlas.nn.losses import energy_distance, fill_missing, grid_statistics, masked_mean
from imatlas.training.batches import Batch

WIDTH = 32
"""Channels of the discriminator's coarsest grid."""


class SharpenerModule(nn.Module):
    """The autoencoder, and the discriminator that its decoder is trained against."""

    def __init__(self, autoencoder: nn.Module, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.autoencoder: Any = autoencoder
        self.discriminator = Discriminator(shape, Condition(0, 0, WIDTH), width=WIDTH)


@estimator
class Sharpener(ImageEstimator):
    """The model that `sharpen` trains: the decoder of a fitted autoencoder and a discriminator.

    The decoder minimizes the mean squared error plus `sharpness` times the relativistic loss; the discriminator has the
    gradient penalties of `GAN`. The held-out loss is the energy distance of reconstructions and images, downsampled.
    """

    model: Annotated[Any, Field(description="the fitted autoencoder")] = None
    sharpness: Annotated[float, Field(ge=0, description="weight of the adversarial loss")] = 0.05
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
        batch = self.model._augmented(batch, generator)
        discriminator, known = module.discriminator, batch.known
        x_hat = self._reconstruct(module, batch, generator)
        probability = augment_probability(batch.n_images)
        real, fake = adversarial.augmented(batch.x, fill_missing(x_hat, known), known, probability, generator)
        loss, logs = adversarial.discriminator_step(discriminator, real, fake, generator)
        yield "discriminator", loss, logs

        g_loss = adversarial.generator_step(discriminator, real, fake)
        recon = masked_mean((x_hat - batch.x).square(), known)
        yield "decoder", recon + self.sharpness * g_loss, {"recon": recon, "adversarial": g_loss}
        discriminator.requires_grad_(True)

    def _held_out_loss(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        x_hat = fill_missing(self._reconstruct(module, batch, generator), batch.known)
        return energy_distance(grid_statistics(x_hat), grid_statistics(batch.x))

    def _reconstruct(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        """Reconstructions (N, C, H, W) float32 of the images of a batch."""
        with torch.no_grad():
            z = self.model._sample_code(module.autoencoder, batch, generator)
        return self.model._decode(module.autoencoder, z).float()
