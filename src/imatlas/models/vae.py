"""VAE: variational autoencoder.

Kingma, Welling 2014, "Auto-encoding variational Bayes" (eq. 7):

    loss = -log p(x | z) + beta KL(q(z | x) || N(0, 1)),    z = mean + exp(logvar / 2) · noise

beta: Higgins et al. 2017, "beta-VAE"; free bits: Kingma et al.
2016, "Improved variational inference with inverse autoregressive flow" (eq. 15); the learned scale of the likelihood:
Rybkin et al. 2021, "Simple and effective VAE training with calibrated decoders" (there in closed form, here trained).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.image_estimator import DEPTHS, WIDTHS, Size
from imatlas.models.parts.latent import LatentModel
from imatlas.nn.decoder import Decoder
from imatlas.nn.encoder import Encoder
from imatlas.nn.losses import Likelihood, gaussian_kl, log_likelihood, masked_sum
from imatlas.training.batches import Batch


class VAEModule(nn.Module):
    """q(z | x) and p(x | z): encoder to mean and logvar; decoder to the center of the likelihood, and its scale."""

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, width: int, depth: int, has_scale: bool) -> None:
        super().__init__()
        self.encoder = Encoder(shape, 2 * latent_dim, width=width, depth=depth)
        self.decoder = Decoder(shape, latent_dim, width=width, depth=depth)
        # a Bernoulli distribution has no scale
        self.log_scale = nn.Parameter(torch.zeros(())) if has_scale else None

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) -> mean and logvar of q(z | x), (N, latent_dim) each, float32."""
        mean, logvar = self.encoder(x).float().chunk(2, dim=1)
        return mean, logvar

    def log_likelihood(self, x: Tensor, z: Tensor, likelihood: Likelihood) -> Tensor:
        """log p(x | z) of each pixel, (N, C, H, W), in nats."""
        log_scale = 0.0 if self.log_scale is None else self.log_scale
        return log_likelihood(x, self.decoder(z).float(), likelihood, log_scale)


@estimator
class VAE(LatentModel):
    """Convolutional variational autoencoder: codes close to a standard normal, and new images from them.

    The loss is recon + beta * kl in nats per image: recon is -log p(x | z) summed over the known pixels, kl is summed
    over the dimensions of z, each at least `free_bits`. Missing pixels (NaN, or `mask`) are mid-gray to the encoder and
    left out of the loss.

    Examples
    --------
    >>> from imatlas import VAE
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(64, size=16, random_state=0)
    >>> model = VAE(latent_dim=4, max_steps=5, progress=False).fit(images)
    >>> model.sample(3, random_state=0).shape
    (3, 16, 16, 1)
    """

    latent_dim: Annotated[int, Field(ge=1, le=65_536, description="dimensions of the code z")] = 32
    size: Annotated[Size, Field(description="size of the network: 'small', 'medium' or 'large'")] = "medium"
    beta: Annotated[
        float, Field(ge=0, description="weight of the KL divergence; 1 is the plain VAE, more gives smoother codes")
    ] = 1.0
    free_bits: Annotated[float, Field(ge=0, description="nats per dimension of z that cost nothing")] = 0.0
    likelihood: Annotated[Likelihood, Field(description="p(x | z): 'gaussian', 'laplace' or 'bernoulli'")] = "gaussian"
    prior: Annotated[
        Literal["mixture", "normal"],
        Field(description="distribution of samples: a mixture fitted to the codes of the images, or a standard normal"),
    ] = "mixture"

    def _build(self, spec: ImageSpec) -> VAEModule:
        has_scale = self.likelihood != "bernoulli"
        return VAEModule(spec.shape, self.latent_dim, WIDTHS[self.size], DEPTHS[self.size], has_scale)

    def _optimizers(self, module: Any) -> dict[str, Optimizer]:
        if module.log_scale is None:
            return super()._optimizers(module)
        weights = [p for name, p in module.named_parameters() if name != "log_scale"]
        # a single parameter with little gradient noise and far to go (from 1 to a few hundredths)
        scale = {"params": [module.log_scale], "lr": 10 * self.learning_rate, "weight_decay": 0.0}
        groups = [{"params": weights, "lr": self.learning_rate}, scale]
        return {"adam": torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)}

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        mean, logvar = module.encode(batch.x)
        z = reparametrize(mean, logvar, generator)
        recon = -masked_sum(module.log_likelihood(batch.x, z, self.likelihood), batch.known).mean()
        kl = gaussian_kl(mean, logvar).mean(0)  # (latent_dim,)
        loss = recon + self.beta * kl.clamp(min=self.free_bits).sum()
        yield "adam", loss, {"recon": recon, "kl": kl.sum()}

    def _encode(self, module: Any, batch: Batch) -> Tensor:
        return module.encode(batch.x)[0]

    def _decode(self, module: Any, z: Tensor) -> Tensor:
        x_hat = module.decoder(z)
        return x_hat.sigmoid() * 2 - 1 if self.likelihood == "bernoulli" else x_hat

    def _score(self, module: Any, batch: Batch) -> Tensor:
        """log p(x | z) - KL(q(z | x) || N(0, 1)) in nats, at z = the mean of q(z | x)."""
        mean, logvar = module.encode(batch.x)
        recon = -masked_sum(module.log_likelihood(batch.x, mean, self.likelihood), batch.known)
        return -recon - gaussian_kl(mean, logvar).sum(1)

    def _sample_code(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        mean, logvar = module.encode(batch.x)
        return reparametrize(mean, logvar, generator)

    def _draw(self, noise: np.ndarray, level: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        return noise if self.prior == "normal" and cond is None else super()._draw(noise, level, cond)


def reparametrize(mean: Tensor, logvar: Tensor, generator: torch.Generator) -> Tensor:
    """z ~ N(mean, exp(logvar)), differentiable in mean and logvar (Kingma, Welling 2014, section 2.4)."""
    return mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=generator, device=mean.device)
