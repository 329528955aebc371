"""Autoencoder: images to latent vectors and back.

Hinton, Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks". New images are sampled from a
Gaussian mixture over the training vectors, as in Ghosh et al. 2020, "From variational to deterministic autoencoders"
(section 4), whose penalty on the norm of the vectors (eq. 9) is used too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.image_estimator import DEPTHS, WIDTHS, Size
from imatlas.models.parts.latent import LatentModel
from imatlas.nn.augment import flip_and_shift
from imatlas.nn.decoder import Decoder
from imatlas.nn.encoder import Encoder
from imatlas.nn.losses import masked_mean
from imatlas.training.batches import Batch

FEW_IMAGES = 2_000
"""With fewer images `augment` is on by default."""


class AutoencoderModule(nn.Module):
    """Encoder and decoder."""

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.encoder = Encoder(shape, latent_dim, width=width, depth=depth)
        self.decoder = Decoder(shape, latent_dim, width=width, depth=depth)


@estimator
class Autoencoder(LatentModel):
    """Convolutional autoencoder that reconstructs each image from `latent_dim` numbers.

    The loss is mean((x_hat - x)²) over the known pixels, in the range [-1, 1], plus `penalty` times mean(z²). Missing
    pixels (NaN, or `mask`) are mid-gray to the encoder and left out of the loss.

    Examples
    --------
    >>> import numpy as np
    >>> from imatlas import Autoencoder
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(64, size=16, random_state=0)
    >>> model = Autoencoder(latent_dim=4, max_steps=5, progress=False).fit(images)
    >>> model.transform(images).shape
    (64, 4)
    >>> model.sample(3, random_state=0).shape
    (3, 16, 16, 1)
    """

    latent_dim: Annotated[int, Field(ge=1, le=65_536, description="length of the latent vector z")] = 64
    size: Annotated[Size, Field(description="size of the network: 'small', 'medium' or 'large'")] = "medium"
    penalty: Annotated[float, Field(ge=0, description="weight of mean(z²) in the loss")] = 1e-4
    augment: Annotated[
        bool | None, Field(description="mirror and shift images at random; None: with fewer than 2,000")
    ] = None

    def _build(self, spec: ImageSpec) -> AutoencoderModule:
        return AutoencoderModule(spec.shape, self.latent_dim, WIDTHS[self.size], DEPTHS[self.size])

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        batch = self._augmented(batch, generator)
        yield self._loss(module, batch.x, batch.known)

    def _augmented(self, batch: Batch, generator: torch.Generator) -> Batch:
        if self.augment or (self.augment is None and batch.n_images < FEW_IMAGES):
            x, known = flip_and_shift(batch.x, generator, batch.known)
            return replace(batch, x=x, known=known)
        return batch

    def _held_out_loss(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        return self._loss(module, batch.x, batch.known)[1]

    def _loss(self, module: Any, x: Tensor, known: Tensor | None) -> tuple[str, Tensor, dict[str, Tensor]]:
        z = module.encoder(x)
        x_hat = module.decoder(z)
        recon = masked_mean((x_hat.float() - x).square(), known)
        z_squared = z.float().square().mean()
        return "adam", recon + self.penalty * z_squared, {"recon": recon, "z_squared": z_squared}

    def _encode(self, module: Any, batch: Batch) -> Tensor:
        return module.encoder(batch.x)

    def _decode(self, module: Any, z: Tensor) -> Tensor:
        return module.decoder(z)

    def _score(self, module: Any, batch: Batch) -> Tensor:
        """Minus the mean squared error over the known pixels, in the range [-1, 1]."""
        x_hat = module.decoder(module.encoder(batch.x))
        return -masked_mean((x_hat - batch.x).square(), batch.known, dim=(1, 2, 3))
