"""Fine-tuning of a decoder on textures, for sharper images.

The squared error is minimal at the mean of all images with the same vector, which is blurred: a grain whose place the
vector does not tell costs less if it is left out. So the decoder is trained further to give each image as much of it as
the real one has, wherever it lies: Gatys et al. 2016, "Image style transfer using convolutional neural networks" (eq.
7), here in windows (`imatlas.nn.texture`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.image_estimator import ImageEstimator
from imatlas.nn.losses import fill_missing, masked_mean
from imatlas.nn.texture import random_filters, texture_distance
from imatlas.training.batches import Batch, Data

GRAIN = 0.5
"""Standard deviation of the strengths of the decoder's noise, at the start."""


@estimator
class Sharpener(ImageEstimator):
    """The model that `sharpen` trains: the decoder of a fitted autoencoder.

    It minimizes the mean squared error plus `sharpness` times the distance of textures, with new filters in every step:
    of fixed ones it would learn what they do not see.
    """

    model: Annotated[Any, Field(description="the fitted autoencoder")] = None
    sharpness: Annotated[float, Field(ge=0, description="weight of the distance of textures")] = 0.1

    def _build(self, spec: ImageSpec) -> nn.Module:
        autoencoder: Any = copy.deepcopy(self.model.module_).cpu()
        if self.model.sharpening_ is None:
            for grain in autoencoder.decoder.grains:
                nn.init.normal_(grain.strength, std=GRAIN)
        return autoencoder

    def _optimizers(self, module: Any) -> dict[str, Optimizer]:
        weights = module.decoder.parameters()
        return {"adam": torch.optim.AdamW(weights, lr=self.learning_rate, betas=(0.9, 0.99), fused=True)}

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        yield self._loss(module, self.model._augmented(batch, generator), generator)

    def _held_out_loss(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        return self._loss(module, batch, generator)[1]

    def _preview(self, module: nn.Module, data: Data, device: torch.device) -> np.ndarray | None:
        return self.model._preview(module, data, device)

    def _loss(self, module: Any, batch: Batch, generator: torch.Generator) -> tuple[str, Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            z = self.model._sample_code(module, batch, generator)
        x_hat = self.model._decode(module, z).float()
        recon = masked_mean((x_hat - batch.x).square(), batch.known)
        filters = random_filters(batch.x.shape[1], generator)
        texture = texture_distance(fill_missing(x_hat, batch.known), fill_missing(batch.x, batch.known), filters)
        return "adam", recon + self.sharpness * texture, {"recon": recon, "texture": texture}
