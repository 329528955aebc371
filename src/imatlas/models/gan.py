"""GAN: a generator trained against a discriminator of real and generated images.

`relativistic`: Jolicoeur-Martineau 2019, "The relativistic discriminator", with the two zero-centered gradient
penalties of Huang et al. 2024, "The GAN is dead; long live the GAN! A modern baseline GAN" (section 2):

    L_D = E[softplus(D(G(z)) - D(x))] + gamma / 2 (R1 + R2)
    L_G = E[softplus(D(x) - D(G(z)))]
    R1 = E|grad D(x)|² at real images, R2 = E|grad D(G(z))|² at fake ones

`minimax`: Goodfellow et al. 2014, "Generative adversarial nets", with the non-saturating generator loss of section 3.
`hinge`: Lim, Ye 2017, "Geometric GAN".
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torch.optim import Optimizer

from imatlas import seeding
from imatlas.arguments import check_int
from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.image_estimator import DEPTHS, WIDTHS, Size
from imatlas.models.learned_attributes import Array, OneOf, State, Value
from imatlas.models.onnx import Network, images_out, random_vectors
from imatlas.models.parts import adversarial
from imatlas.models.parts.conditional import Generator
from imatlas.nn.augment import augment_probability
from imatlas.nn.condition import Condition
from imatlas.nn.discriminator import Discriminator
from imatlas.nn.generator import ImageGenerator
from imatlas.nn.losses import GRID, AdversarialLoss, distances, energy_distance, fill_missing, grid_statistics
from imatlas.training.batches import Batch, Data, make_batch

LOW_DIVERSITY = 0.5
"""A warning is given if the diversity of the samples is below this."""

MIN_STEPS = 500
"""With fewer steps low diversity means too little training rather than collapse."""

N_DIVERSITY = 128
"""Images and samples whose diversity is compared after training."""

N_CONDITIONS = 1_000
"""Most conditions of training images that are saved for `sample` without `y`."""


class GANModule(nn.Module):
    """Generator and discriminator."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent_dim: int,
        conditions: tuple[Condition, Condition],
        width: int,
        depth: int,
    ) -> None:
        super().__init__()
        self.generator = ImageGenerator(shape, latent_dim, conditions[0], width=width, depth=depth)
        self.discriminator = Discriminator(shape, conditions[1], width=width, depth=depth)


@estimator
class GAN(Generator):
    """Generative adversarial network: noise z to images that a discriminator cannot distinguish from real ones.

    The gradient penalties are estimated on a random quarter of each batch, and gamma is scaled by H * W * C / 1024
    because the squared norm of a gradient shrinks with the number of pixels. With few images, real and fake ones are
    augmented for the discriminator (`augment`).

    Conditions are concatenated to z in the generator and enter the discriminator by projection. Missing pixels (NaN, or
    `mask`) are mid-gray to the discriminator, in the fake image as in the real one it is paired with.

    Attributes
    ----------
    diversity_ : float
        Variation of the samples relative to the images, see `diversity`; below 0.5 a warning is given.
        `history_["diversity"]` is the same for the fake images in training. `history_["held_out"]` is the energy
        distance between downsampled samples and held-out images, as adversarial losses do not measure progress.
    conditions_ : array, or None
        Conditions of up to 1,000 training images, as the network takes them.

    Examples
    --------
    >>> from imatlas import GAN
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(64, size=16, random_state=0)
    >>> model = GAN(latent_dim=4, max_steps=5, progress=False).fit(images)
    >>> model.sample(3, random_state=0).shape
    (3, 16, 16, 1)
    """

    latent_dim: Annotated[int, Field(ge=1, le=65_536, description="dimensions of the noise z")] = 64
    size: Annotated[Size, Field(description="size of both networks: 'small', 'medium' or 'large'")] = "small"
    loss: Annotated[AdversarialLoss, Field(description="'relativistic', 'minimax' or 'hinge'")] = "relativistic"
    gamma: Annotated[float, Field(ge=0, description="weight of the gradient penalties, at 32 x 32 gray pixels")] = 1.0
    augment: Annotated[
        float | None,
        Field(
            ge=0,
            le=0.9,
            description="probability of each augmentation for the discriminator; None: by the number of images",
        ),
    ] = None
    _half_life = adversarial.HALF_LIFE
    _state: ClassVar[State] = {
        "conditions_": OneOf(
            (Array("int64", "n_conditions", low=0, below="n_classes"), Array("float32", "n_conditions", "cond_dim")),
            optional=True,
        ),
        "diversity_": Value(float),
    }

    def _learn_conditions(self, y: Any, n_images: int) -> np.ndarray | None:
        cond = super()._learn_conditions(y, n_images)
        self.conditions_: np.ndarray | None = None
        if cond is not None:
            self.conditions_ = cond[np.unique(np.linspace(0, n_images - 1, N_CONDITIONS).astype(int))]
        return cond

    def _build(self, spec: ImageSpec) -> GANModule:
        width = WIDTHS[self.size]
        conditions = self._condition(width), self._condition(width)
        return GANModule(spec.shape, self.latent_dim, conditions, width, DEPTHS[self.size])

    def _optimizers(self, module: Any) -> dict[str, Optimizer]:
        return adversarial.optimizers(
            self.learning_rate, discriminator=module.discriminator, generator=module.generator
        )

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        discriminator, y = module.discriminator, batch.y
        z = torch.randn(len(batch.x), self.latent_dim, generator=generator, device=batch.x.device)
        generated = fill_missing(module.generator(z, y).float(), batch.known)
        probability = self._augment_probability(batch.n_images)
        real, fake = adversarial.augmented(batch.x, generated, batch.known, probability, generator)
        d_loss, logs = adversarial.discriminator_step(
            discriminator, real, fake, generator, loss=self.loss, gamma=self.gamma, y=y
        )
        yield "discriminator", d_loss, logs

        g_loss = adversarial.generator_step(discriminator, real, fake, loss=self.loss, y=y)
        yield "generator", g_loss, {"generator": g_loss, "diversity": diversity(generated, batch.x)}
        discriminator.requires_grad_(True)

    def _contradiction(self) -> str:
        return super()._contradiction() or self._condition_mismatch("conditions_")

    def _augment_probability(self, n_images: int) -> float:
        """Probability of each augmentation for the discriminator."""
        return augment_probability(n_images) if self.augment is None else self.augment

    def _held_out_loss(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        y = batch.y
        z = torch.randn(len(batch.x), self.latent_dim, generator=generator, device=batch.x.device)
        if y is None and self.conditions_ is not None:
            rows = torch.randint(len(self.conditions_), (len(z),), generator=generator, device=z.device)
            y = torch.as_tensor(self.conditions_, device=z.device)[rows]
        fake = fill_missing(module.generator(z, y).float(), batch.known)
        return energy_distance(grid_statistics(fake), grid_statistics(batch.x))

    def _finish(self, data: Data) -> None:
        real = make_batch(data.pixels[data.draw_rows(N_DIVERSITY, self.seed_, "diversity")], self.spec_)
        fake = make_batch(self.sample(len(real.x)), self.spec_).x
        self.diversity_ = float(diversity(fill_missing(fake, real.known), real.x))
        if self.diversity_ < LOW_DIVERSITY and self.n_steps_ >= MIN_STEPS:
            warnings.warn(
                f"Mode collapse: the samples vary only {self.diversity_:.2f} times as much as the images. Set a "
                f"learning_rate below {self.learning_rate:.2g} or a gamma above {self.gamma:.2g}"
                + ("" if self.loss == "relativistic" else ", or loss='relativistic'")
                + "; if the held-out loss was still falling, train for longer.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _networks(self) -> dict[str, Network]:
        """The generator, as `sample` uses it."""
        cond, cond_contract = self._onnx_condition()
        contract = {
            "input z": f"float32 (N, {self.latent_dim}): standard normal noise",
            **cond_contract,
            "output images": images_out(self.spec_),
        }
        network = Network(
            self.module_,
            lambda module, z, y=None: module.generator(z, self._standardized(y)),
            {"z": random_vectors(self.latent_dim), **cond},
            "images",
            contract,
        )
        return {"generator": network}

    def sample(self, n_samples: int = 1, *, y: Any = None, random_state: int | None = None) -> np.ndarray:
        """Generate images from standard normal noise z.

        Image i is drawn from (random_state, i) alone: more samples do not change the first ones.

        Parameters
        ----------
        n_samples : int
        y : int, array (n_samples,), vector (n_features,) or array (n_samples, n_features), optional
            Conditions as in `fit`; one label or vector applies to all. None: those of random training images.
        random_state : int, optional
            The seed; None for that of the fit.

        Returns
        -------
        array (n_samples, H, W, C) of the fitted dtype

        Raises
        ------
        InputError
            If `y` is not the kind of condition that the model was fitted with.
        """
        self._check_fitted()
        n_samples = check_int(n_samples, "n_samples", type(self).__name__, low=0)
        seed = self._seed_of(random_state)
        z = seeding.noise(seed, n_samples, self.latent_dim)
        cond = self._conditions(y, n_samples)
        if cond is None and self.conditions_ is not None:
            drawn = [seeding.rng(seed, "condition", i).integers(len(self.conditions_)) for i in range(n_samples)]
            cond = self.conditions_[np.array(drawn, int)]
        if cond is None:
            return self._decode_chunks(lambda module, z: module.generator(z), z)
        has_labels = self.classes_ is not None

        def decode(module: Any, row: Tensor) -> Tensor:
            z, y = row[:, : self.latent_dim], row[:, self.latent_dim :]
            return module.generator(z, y[:, 0].long() if has_labels else y)

        # labels are below 2^24, so float32 holds them exactly
        return self._decode_chunks(decode, np.concatenate([z, cond.reshape(n_samples, -1).astype(np.float32)], axis=1))


def diversity(fake: Tensor, real: Tensor) -> Tensor:
    """Variation of fake images relative to as many real ones, both (N, C, H, W): 1 is equal, 0 all the same.

    The minimum of two ratios of distances between downsampled images: the mean over all pairs, which falls if modes are
    missing; and twice the mean to the nearest neighbor, which falls if few images are repeated.
    """
    with torch.no_grad():
        spreads = [_spreads(adaptive_avg_pool2d(x.float(), GRID).flatten(1)) for x in (fake, real)]
        varied = spreads[1] > 1e-6
        pairs, nearest = torch.where(varied, spreads[0] / spreads[1].clamp(min=1e-6), 1.0)
        return torch.minimum(pairs, 2 * nearest)


def _spreads(rows: Tensor) -> Tensor:
    """Mean distance of all pairs of rows (N, D), and of each row to its nearest neighbor: (2,)."""
    n = len(rows)
    distance = distances(rows, rows)
    pairs = distance.sum() / max(1, n * (n - 1))
    nearest = (distance + torch.diag(torch.full((n,), torch.inf, device=rows.device))).min(1).values
    return torch.stack([pairs, nearest.mean() if n > 1 else pairs])
