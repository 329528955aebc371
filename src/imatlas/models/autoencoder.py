"""Autoencoder: images to short vectors and back.

Hinton, Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks". New images come from a Gaussian
mixture fitted to the vectors of the training images, as in Ghosh et al. 2020, "From variational to deterministic
autoencoders" (section 4), whose small penalty on the vectors' length (eq. 9) is used too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from imatlas import chance
from imatlas.augment import flip_and_shift
from imatlas.batches import Batch, Data
from imatlas.images.spec import ImageSpec
from imatlas.losses import masked_mean
from imatlas.models.base import estimator
from imatlas.models.latent import LatentModel
from imatlas.models.network import DEPTHS, WIDTHS, Size
from imatlas.nn.decoder import Decoder
from imatlas.nn.encoder import Encoder

FEW_IMAGES = 2_000
"""Below so many images, `augment` is on by default: 950 photographs alone are learnt by heart."""

MIXTURE_IMAGES = 10_000
"""Most training images whose vectors the mixture is fitted to."""


class AutoencoderModule(nn.Module):
    """Encoder and decoder."""

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.encoder = Encoder(shape, latent_dim, width=width, depth=depth)
        self.decoder = Decoder(shape, latent_dim, width=width, depth=depth)


@estimator
class Autoencoder(LatentModel):
    """A convolutional autoencoder, trained to rebuild each image from `latent_dim` numbers.

    The loss is the mean squared error over the known pixels, in the range [-1, 1], plus `penalty` times the mean square
    of the vector. Missing pixels (NaN, or `mask`) are shown to the encoder as mid-grey and count in no loss.

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

    latent_dim: Annotated[int, Field(ge=1, description="numbers that an image becomes")] = 64
    size: Annotated[Size, Field(description="size of the network: 'small', 'medium' or 'large'")] = "medium"
    penalty: Annotated[float, Field(ge=0, description="weight of the vectors' mean square in the loss")] = 1e-4
    n_components: Annotated[
        int | None,
        Field(ge=1, description="Gaussians in the mixture that samples come from; None: by number of images"),
    ] = None

    augment: Annotated[
        bool | None, Field(description="learn from mirrored and shifted images too; None: where there are under 2,000")
    ] = None

    def _build(self, spec: ImageSpec) -> AutoencoderModule:
        return AutoencoderModule(spec.shape, self.latent_dim, WIDTHS[self.size], DEPTHS[self.size])

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        x, known = batch.x, batch.known
        if self.augment or (self.augment is None and batch.n_images < FEW_IMAGES):
            x, known = flip_and_shift(x, generator, known)
        yield self._loss(module, x, known)

    def _held_out_loss(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        return self._loss(module, batch.x, batch.known)[1]

    def _loss(self, module: Any, x: Tensor, known: Tensor | None) -> tuple[str, Tensor, dict[str, Tensor]]:
        z = module.encoder(x)
        x_hat = module.decoder(z)
        recon = masked_mean((x_hat.float() - x).square(), known)
        length = z.float().square().mean()
        return "adam", recon + self.penalty * length, {"recon": recon, "length": length}

    def _finish(self, data: Data) -> None:
        """Fit the mixture to the vectors of at most `MIXTURE_IMAGES` training images."""
        z = self._encode_chunks(self._encode, data.drawn(MIXTURE_IMAGES, self.seed_, "mixture"))
        n_components = self.n_components
        if n_components is None:
            # a full covariance needs several images for each of its dimensions
            n_components = int(np.clip(len(z) // (10 * self.latent_dim), 1, 32))
        weights, means, covariances = fit_mixture(z, min(n_components, len(z)), self.seed_)
        self.mixture_weights_ = weights
        self.mixture_means_ = means
        self.mixture_factors_ = np.linalg.cholesky(covariances)

    def _encode(self, module: Any, batch: Batch) -> Tensor:
        return module.encoder(batch.x)

    def _decode(self, module: Any, z: Tensor) -> Tensor:
        return module.decoder(z)

    def _score(self, module: Any, batch: Batch) -> Tensor:
        """Minus the mean squared error over the known pixels, in the range [-1, 1]."""
        x_hat = module.decoder(module.encoder(batch.x))
        return -masked_mean((x_hat - batch.x).square(), batch.known, dim=(1, 2, 3))

    def sample(self, n_samples: int = 1, *, random_state: int | None = None) -> np.ndarray:
        """New images, from the Gaussian mixture over the training vectors.

        Image i is drawn from (random_state, i) alone: asking for more images does not change the first ones.

        Returns
        -------
        array (n_samples, H, W, C) of the dtype that was fitted
        """
        self._check_fitted()
        seed = self.seed_ if random_state is None else random_state
        normal = chance.noise(seed, n_samples, self.latent_dim)
        edges = np.cumsum(self.mixture_weights_)
        draws = [chance.rng(seed, "component", i).random() for i in range(n_samples)]
        component = np.minimum(np.searchsorted(edges, draws), len(edges) - 1)
        z = [self.mixture_means_[k] + self.mixture_factors_[k] @ e for k, e in zip(component, normal, strict=True)]
        return self.inverse_transform(np.reshape(z, (n_samples, self.latent_dim)))


def fit_mixture(z: np.ndarray, n_components: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (K,), means (K, D) and covariances (K, D, D) of a Gaussian mixture over vectors (N, D)."""
    z = z.astype(np.float64)
    spread = float(z.var(axis=0).mean())
    mixture = GaussianMixture(n_components, reg_covar=1e-4 * spread + 1e-9, max_iter=50, random_state=seed % 2**32)
    with warnings.catch_warnings():
        # a mixture that still moves a little after 50 rounds is good enough to draw from
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(z)
    return mixture.weights_, mixture.means_, mixture.covariances_
